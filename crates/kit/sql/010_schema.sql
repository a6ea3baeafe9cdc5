-- What the kit remembers in each tenant database. Owned by insula_owner; the application's roles may read none of it.
CREATE SCHEMA IF NOT EXISTS insula AUTHORIZATION insula_owner;
CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION insula_owner;
SET LOCAL ROLE insula_owner;

-- Which way of binding is in force here, and which key ids are known.
CREATE TABLE IF NOT EXISTS insula.config (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    way          integer NOT NULL CHECK (way IN (1, 2)),
    kit          integer NOT NULL,
    kid          integer NOT NULL,
    previous_kid integer
);
-- Of the SQL that it was installed from: another one is an upgrade away.
ALTER TABLE insula.config ADD COLUMN IF NOT EXISTS digest text;

-- The tenants whose rows are here. `no` is the value of tenant_id. `role` is the login of a tenant that has one of its own.
CREATE TABLE IF NOT EXISTS insula.tenant (
    no    bigint PRIMARY KEY CHECK (no > 0),
    epoch bigint NOT NULL CHECK (epoch > 0),
    state text   NOT NULL DEFAULT 'active' CHECK (state IN ('provisioning', 'active', 'moving', 'suspended', 'deleted')),
    role  text   UNIQUE
);

-- Which login may use which schema: what tenant_table() grants to, whenever either comes.
CREATE TABLE IF NOT EXISTS insula.login (
    role   text NOT NULL,
    schema text NOT NULL,
    PRIMARY KEY (role, schema)
);

-- Reference tables without a tenant: readable by every login, writable by none.
CREATE TABLE IF NOT EXISTS insula.shared (
    relation regclass PRIMARY KEY
);

-- Counts the changes to insula.tenant. Not transactional, which is the point: whoever reads it reads the present.
CREATE SEQUENCE IF NOT EXISTS insula.fence AS bigint;
SELECT pg_catalog.nextval('insula.fence') WHERE NOT (SELECT is_called FROM insula.fence);

-- Takes the tenant's lock, waits for its transactions to end, and only then counts: a transaction that holds the shared lock
-- has read a fence that no change to its tenant can have passed.
CREATE OR REPLACE FUNCTION insula.raise_fence() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'insula.tenant is never truncated: delete rows, so that each tenant is fenced' USING ERRCODE = '55000';
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock(OLD.no);
    PERFORM pg_catalog.nextval('insula.fence'::pg_catalog.regclass);
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $fn$;
CREATE OR REPLACE TRIGGER raise_fence BEFORE UPDATE OR DELETE ON insula.tenant
    FOR EACH ROW EXECUTE FUNCTION insula.raise_fence();
CREATE OR REPLACE TRIGGER raise_fence_truncate BEFORE TRUNCATE ON insula.tenant
    FOR EACH STATEMENT EXECUTE FUNCTION insula.raise_fence();
ALTER TABLE insula.tenant ENABLE ALWAYS TRIGGER raise_fence;

-- The long way round for a grant whose fence is not the present one: looks at the tenant's row. Called only while the tenant's
-- shared lock is held. Raises when the tenant is not here, not at this epoch or not active.
CREATE OR REPLACE FUNCTION insula.admit(no bigint, epoch bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $fn$
DECLARE
    t insula.tenant;
BEGIN
    IF pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.=) 'read committed'
       OR pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN
        SELECT * INTO t FROM insula.tenant x WHERE x.no OPERATOR(pg_catalog.=) admit.no;
    ELSE
        -- A snapshot older than the fence would see the row as it was: FOR SHARE makes it fail with 40001 instead.
        SELECT * INTO t FROM insula.tenant x WHERE x.no OPERATOR(pg_catalog.=) admit.no FOR SHARE;
    END IF;
    IF t.no IS NULL OR t.epoch OPERATOR(pg_catalog.<>) admit.epoch OR t.state OPERATOR(pg_catalog.=) 'moving' THEN
        RAISE EXCEPTION 'insula: the tenant has moved: refresh the route and retry' USING ERRCODE = '28T01';
    ELSIF t.state OPERATOR(pg_catalog.<>) 'active' THEN
        RAISE EXCEPTION 'insula: the tenant is %', t.state USING ERRCODE = '28T02';
    END IF;
END $fn$;

-- Every refusal of a grant, by the number that enter() found.
CREATE OR REPLACE FUNCTION insula.refuse(verdict integer) RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION 'insula: grant refused: %', CASE verdict
        WHEN 1 THEN 'it is not signed for this connection'
        WHEN 2 THEN 'it has expired'
        WHEN 3 THEN 'this transaction is bound to another tenant'
        WHEN 4 THEN 'this is not a grant'
        ELSE 'unknown reason' END
        USING ERRCODE = '28000';
END $fn$;

-- no.epoch.expires.pid.fence.kid.mac, strictly: as core::Grant::text() writes it.
CREATE OR REPLACE FUNCTION insula.is_grant(grant_text text) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN grant_text OPERATOR(pg_catalog.~) '^[1-9][0-9]{0,17}[.][1-9][0-9]{0,17}[.][1-9][0-9]{0,17}[.][1-9][0-9]{0,8}[.](-1|[0-9]{1,18})[.][0-9]{1,9}[.][0-9a-f]{64}$';
RESET ROLE;
