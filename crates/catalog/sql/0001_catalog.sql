-- The catalog: the control plane's own database. It holds no secret: passwords and grant keys are derived from the root key.
-- Every change that a data plane must know writes to the change feed in the same transaction, with a revision that is
-- strictly increasing in commit order (trigger feed(), below).

CREATE SCHEMA catalog;

-- Which of these files were applied (crates/catalog/src/schema.rs).
CREATE TABLE catalog.schema_migration (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    bytea NOT NULL,                        -- sha256 of the file
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- What tenants buy. Plans are data.
CREATE TABLE catalog.plan (
    name        text PRIMARY KEY,
    tier        jsonb NOT NULL,                        -- core::plan::Tier
    isolation   text NOT NULL CHECK (isolation IN ('row', 'schema', 'database', 'cell')),
    limits      jsonb NOT NULL,                        -- core::plan::Limits
    features    jsonb NOT NULL DEFAULT '{}',
    version     bigint NOT NULL DEFAULT 1,             -- ETag
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Database servers with their application stacks.
CREATE TABLE catalog.cell (
    name        text PRIMARY KEY,
    region      text NOT NULL DEFAULT 'local',
    labels      text[] NOT NULL DEFAULT '{}',
    provider    text NOT NULL CHECK (provider IN ('embedded', 'registered')),
    -- requested: the supervisor is to start it; ready: it takes tenants; draining: it takes no new ones; free: registered and unused;
    -- down: last health check failed; removing: the supervisor is to stop it and take it away
    state       text NOT NULL CHECK (state IN ('requested', 'ready', 'draining', 'free', 'down', 'removing')),
    dedicated   boolean NOT NULL DEFAULT false,        -- for one tenant of isolation `cell`
    host        text,                                  -- where its server listens; NULL until it does
    port        integer CHECK (port BETWEEN 1 AND 65535),
    tls         text NOT NULL DEFAULT 'prefer' CHECK (tls IN ('disable', 'prefer', 'require', 'verify-full')),
    admin_role  text NOT NULL DEFAULT 'insula_admin',  -- its password: derived for embedded, in the host side's secrets for registered
    app_url     text,                                  -- base URL of its application stack, when it has one
    capacity    integer NOT NULL DEFAULT 10000 CHECK (capacity >= 0),   -- tenants
    kit_way     integer,                               -- which binding is in force (1 or 2), see the SQL kit
    version     bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Databases of a cell that hold tenants, and the warm ones that wait for one.
CREATE TABLE catalog.cell_database (
    cell        text NOT NULL REFERENCES catalog.cell (name) ON UPDATE CASCADE,
    name        text NOT NULL,
    purpose     text NOT NULL CHECK (purpose IN ('pool', 'schemas', 'tenant', 'warm')),
    fence       bigint NOT NULL DEFAULT -1,            -- the database's fence count as of the placements committed with it
    kid         integer NOT NULL DEFAULT 1,            -- the grant key in force
    schema_version bigint NOT NULL DEFAULT 0,          -- last application migration (pool, tenant, warm)
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cell, name)
);

CREATE TABLE catalog.tenant (
    id          uuid PRIMARY KEY,
    no          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    slug        text NOT NULL UNIQUE,
    name        text NOT NULL,
    plan        text NOT NULL REFERENCES catalog.plan (name),
    state       text NOT NULL CHECK (state IN ('provisioning', 'active', 'suspended', 'deleted')),
    settings    jsonb NOT NULL DEFAULT '{}',           -- branding, locale, time zone
    features    jsonb NOT NULL DEFAULT '{}',           -- overrides of the plan's
    limits      jsonb NOT NULL DEFAULT '{}',           -- overrides of the plan's, by field
    schema_version bigint NOT NULL DEFAULT 0,
    version     bigint NOT NULL DEFAULT 1,             -- ETag
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz
);
CREATE INDEX tenant_page ON catalog.tenant (created_at, id);

-- Host names of tenants. `SLUG.<base domain>` needs no row; these are the others.
CREATE TABLE catalog.domain (
    host        text PRIMARY KEY CHECK (host = lower(host)),
    tenant      uuid NOT NULL REFERENCES catalog.tenant (id),
    verified_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX domain_tenant ON catalog.domain (tenant);

CREATE TABLE catalog.placement (
    tenant      uuid PRIMARY KEY REFERENCES catalog.tenant (id),
    cell        text NOT NULL,
    database    text NOT NULL,
    schema      text NOT NULL,
    isolation   text NOT NULL CHECK (isolation IN ('row', 'schema', 'database', 'cell')),
    epoch       bigint NOT NULL CHECK (epoch > 0),
    state       text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'migrating', 'cutover', 'final')),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (cell, database) REFERENCES catalog.cell_database (cell, name) ON UPDATE CASCADE
);
CREATE INDEX placement_cell ON catalog.placement (cell, database);

-- Durable, resumable lifecycle work.
CREATE TABLE catalog.operation (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL,                         -- provision, suspend, resume, delete, migrate, ...
    tenant      uuid,                                  -- no foreign key: an undone provision leaves its record
    key         text UNIQUE,                           -- idempotency: one operation per key
    input       jsonb NOT NULL,
    state       text NOT NULL CHECK (state IN ('pending', 'running', 'undoing', 'done', 'failed')),
    step        text NOT NULL DEFAULT '',              -- the step at hand
    steps_done  integer NOT NULL DEFAULT 0,
    steps_total integer NOT NULL,
    memo        jsonb NOT NULL DEFAULT '{}',           -- what steps leave for later steps; never a secret
    output      jsonb,
    error       jsonb,                                 -- {kind, detail}
    attempts    integer NOT NULL DEFAULT 0,
    run_after   timestamptz NOT NULL DEFAULT now(),
    lease_owner text,
    lease_until timestamptz,
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE INDEX operation_runnable ON catalog.operation (run_after) WHERE state IN ('pending', 'running', 'undoing');
CREATE INDEX operation_tenant ON catalog.operation (tenant, created_at);
CREATE INDEX operation_page ON catalog.operation (created_at, id);

CREATE TABLE catalog.operation_event (
    operation   uuid NOT NULL REFERENCES catalog.operation (id) ON DELETE CASCADE,
    seq         bigint GENERATED ALWAYS AS IDENTITY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    step        text NOT NULL,
    what        text NOT NULL CHECK (what IN ('started', 'done', 'failed', 'undone', 'progress', 'resumed')),
    detail      text NOT NULL DEFAULT '',
    PRIMARY KEY (operation, seq)
);

-- Who did what. Append only; each row carries the hash of the one before it, so that a gap or an edit shows.
CREATE TABLE catalog.audit (
    seq         bigint PRIMARY KEY,
    at          timestamptz NOT NULL,
    actor       text NOT NULL,
    action      text NOT NULL,                         -- tenant.create, db.grant, security.cross_tenant, ...
    tenant      uuid,
    target      text NOT NULL DEFAULT '',
    detail      jsonb NOT NULL DEFAULT '{}',           -- never a secret
    previous    bytea NOT NULL,
    hash        bytea NOT NULL
);
CREATE INDEX audit_tenant ON catalog.audit (tenant, seq);
CREATE TABLE catalog.audit_head (one boolean PRIMARY KEY DEFAULT true CHECK (one), seq bigint NOT NULL, hash bytea NOT NULL);
INSERT INTO catalog.audit_head (seq, hash) VALUES (0, sha256('insula'));

CREATE FUNCTION catalog.audit_append(actor text, action text, tenant uuid, target text, detail jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE head catalog.audit_head; n bigint; t timestamptz := clock_timestamp(); h bytea;
BEGIN
    SELECT * INTO head FROM catalog.audit_head FOR UPDATE;
    n := head.seq + 1;
    h := sha256(head.hash || convert_to(jsonb_build_array(n, extract(epoch FROM t), actor, action, tenant, target, detail)::text, 'UTF8'));
    INSERT INTO catalog.audit (seq, at, actor, action, tenant, target, detail, previous, hash)
    VALUES (n, t, actor, action, tenant, target, detail, head.hash, h);
    UPDATE catalog.audit_head SET seq = n, hash = h;
    RETURN n;
END $$;

-- The first audit row that does not fit the chain, or NULL when all do.
CREATE FUNCTION catalog.audit_verify() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT min(seq) FROM (
        SELECT a.seq, a.previous, a.hash, a.at, a.actor, a.action, a.tenant, a.target, a.detail,
               coalesce(lag(a.hash) OVER w, sha256('insula')) AS expected_previous,
               coalesce(lag(a.seq) OVER w, 0) + 1 AS expected_seq
        FROM catalog.audit a WINDOW w AS (ORDER BY a.seq)
    ) x
    WHERE x.previous <> x.expected_previous OR x.seq <> x.expected_seq
       OR x.hash <> sha256(x.previous || convert_to(jsonb_build_array(x.seq, extract(epoch FROM x.at), x.actor, x.action, x.tenant, x.target, x.detail)::text, 'UTF8'))
$$;

CREATE FUNCTION catalog.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is append only', TG_TABLE_NAME USING ERRCODE = '42501'; END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON catalog.audit FOR EACH ROW EXECUTE FUNCTION catalog.refuse();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON catalog.audit FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse();

-- The application's bundle: tenant migrations and the seed, kept by the control plane so that it can provision alone.
CREATE TABLE catalog.migration (
    version     bigint PRIMARY KEY CHECK (version > 0),
    name        text NOT NULL,
    sql         text NOT NULL,
    checksum    bytea NOT NULL,                        -- sha256 of sql
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE catalog.seed (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    sql         text NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now()
);
-- What was applied where.
CREATE TABLE catalog.migration_run (
    cell        text NOT NULL,
    database    text NOT NULL,
    schema      text NOT NULL,
    version     bigint NOT NULL REFERENCES catalog.migration (version),
    applied_at  timestamptz NOT NULL DEFAULT now(),
    duration_ms integer NOT NULL,
    PRIMARY KEY (cell, database, schema, version)
);

CREATE TABLE catalog.api_key (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    scope       text NOT NULL CHECK (scope IN ('admin', 'provisioner', 'read')),
    hash        bytea NOT NULL UNIQUE,                 -- sha256 of the key (256 random bits: no salt needed)
    created_at  timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at  timestamptz
);

-- Answers to requests that carried an Idempotency-Key. The response is kept without its secrets.
CREATE TABLE catalog.idempotency (
    actor       text NOT NULL,
    key         text NOT NULL,
    request     bytea NOT NULL,                        -- sha256 of method, path and body: another request under the key is refused
    status      integer,
    response    jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, key)
);

-- Events for the outside (webhooks now, NATS later), written with what they tell of.
CREATE TABLE catalog.outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic       text NOT NULL,
    tenant      uuid,
    payload     jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    attempts    integer NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    last_error  text
);
CREATE INDEX outbox_due ON catalog.outbox (next_at, id) WHERE delivered_at IS NULL;
CREATE TABLE catalog.webhook (
    id          uuid PRIMARY KEY,
    url         text NOT NULL,
    topics      text[] NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);

-- The change feed. `kind` and `id` name what changed; a reader looks for itself at what it is now.
CREATE TABLE catalog.change (
    rev         bigint NOT NULL,                       -- one for all that a transaction changed
    kind        text NOT NULL CHECK (kind IN ('tenant', 'domain', 'plan', 'cell', 'database', 'placement')),
    id          text NOT NULL,                         -- tenant id (tenant, domain, placement), plan, cell, or cell/database
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (rev, kind, id)
);
-- Every change above `oldest` is still in the feed; a reader that has seen less loads everything anew.
CREATE TABLE catalog.revision (one boolean PRIMARY KEY DEFAULT true CHECK (one), rev bigint NOT NULL, oldest bigint NOT NULL DEFAULT 0);
INSERT INTO catalog.revision (rev) VALUES (0);

CREATE FUNCTION catalog.feed_id(what text, row_ jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE what
        WHEN 'tenant' THEN row_ ->> 'id'
        WHEN 'domain' THEN row_ ->> 'tenant'
        WHEN 'placement' THEN row_ ->> 'tenant'
        WHEN 'database' THEN (row_ ->> 'cell') || '/' || (row_ ->> 'name')
        ELSE row_ ->> 'name' END
$$;

-- Deferred to the commit, so that the revision's row is locked for the length of a commit and no longer; the lock makes
-- revisions appear in their order. A reader that has seen N will never see something at or below N later.
-- A row that changes its name (a warm database at its claim, a domain given to another tenant) is a change of both names.
-- The first row of a transaction takes its revision and notifies; the others find it in a setting that ends with the transaction.
CREATE FUNCTION catalog.feed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE r bigint := NULLIF(current_setting('insula.feed_rev', true), ''); whom text; before text;
BEGIN
    IF TG_OP <> 'INSERT' THEN before := catalog.feed_id(TG_ARGV[0], to_jsonb(OLD)); END IF;
    IF TG_OP <> 'DELETE' THEN whom := catalog.feed_id(TG_ARGV[0], to_jsonb(NEW)); END IF;
    IF r IS NULL THEN
        UPDATE catalog.revision SET rev = rev + 1 RETURNING rev INTO r;
        PERFORM set_config('insula.feed_rev', r::text, true), pg_notify('insula_change', '');
    END IF;
    INSERT INTO catalog.change (rev, kind, id)
    SELECT r, TG_ARGV[0], x FROM unnest(ARRAY[before, whom]) x WHERE x IS NOT NULL
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

-- Forgets all but the newest `keep` revisions; answers how many changes went.
CREATE FUNCTION catalog.trim_feed(keep bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE cut bigint; n bigint;
BEGIN
    UPDATE catalog.revision SET oldest = greatest(oldest, rev - keep) RETURNING oldest INTO cut;
    DELETE FROM catalog.change WHERE rev <= cut;
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.plan DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('plan');
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.cell DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('cell');
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.cell_database DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('database');
CREATE CONSTRAINT TRIGGER feed AFTER UPDATE OR DELETE ON catalog.tenant DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('tenant');
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.domain DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('domain');
CREATE CONSTRAINT TRIGGER feed AFTER UPDATE OR DELETE ON catalog.placement DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('placement');
-- A tenant being made is nobody's business until it is active: its INSERT writes no change, the UPDATE that activates it does.

-- Data planes read, and read only this.
DO $$ BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'insula_reader') THEN
        -- Roles belong to the server: another catalog on it may be making this one right now.
        BEGIN CREATE ROLE insula_reader LOGIN NOINHERIT; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    END IF;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO insula_reader', current_database());
END $$;
GRANT USAGE ON SCHEMA catalog TO insula_reader;
GRANT SELECT ON catalog.plan, catalog.cell, catalog.cell_database, catalog.tenant, catalog.domain, catalog.placement, catalog.change, catalog.revision TO insula_reader;

-- The default plans (data: edit them with `insula plan`).
INSERT INTO catalog.plan (name, tier, isolation, limits, features) VALUES
('bronze', '{"name":"bronze","weight":1,"pool_guarantee":10,"pool_cap":60}', 'row',
 '{"statement_timeout_ms":5000,"idle_in_transaction_timeout_ms":5000,"acquire_timeout_ms":1000,"max_connections":2,"max_body_bytes":2097152,"max_users":5,"requests_per_second":20,"request_burst":40}',
 '{"search":true,"custom_domain":false,"max_concurrent_exports":1}'),
('silver', '{"name":"silver","weight":2,"pool_guarantee":20,"pool_cap":80}', 'row',
 '{"statement_timeout_ms":10000,"idle_in_transaction_timeout_ms":10000,"acquire_timeout_ms":2000,"max_connections":4,"max_body_bytes":4194304,"max_users":25,"requests_per_second":100,"request_burst":200}',
 '{"search":true,"custom_domain":true,"max_concurrent_exports":2}'),
('gold', '{"name":"gold","weight":4,"pool_guarantee":30,"pool_cap":90}', 'database',
 '{"statement_timeout_ms":30000,"idle_in_transaction_timeout_ms":30000,"acquire_timeout_ms":3000,"max_connections":8,"max_body_bytes":8388608,"max_users":250,"requests_per_second":500,"request_burst":1000}',
 '{"search":true,"custom_domain":true,"max_concurrent_exports":4}'),
('platinum', '{"name":"platinum","weight":8,"pool_guarantee":30,"pool_cap":100}', 'cell',
 '{"statement_timeout_ms":60000,"idle_in_transaction_timeout_ms":60000,"acquire_timeout_ms":5000,"max_connections":16,"max_body_bytes":16777216,"max_users":10000,"requests_per_second":2000,"request_burst":4000}',
 '{"search":true,"custom_domain":true,"max_concurrent_exports":8}');
