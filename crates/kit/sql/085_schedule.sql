-- Schedules: jobs that come again. Rows are the tenant's, guarded like its jobs, and of two origins: what the application put in a transaction
-- of the tenant, and what its code declares for every tenant, which workers keep here. When one comes next is computed by workers
-- (crates/planner/src/cron.rs) from this server's clock; here it is compared and carried out.
SET LOCAL ROLE insula_owner;

CREATE TABLE IF NOT EXISTS insula.schedule (
    tenant_id     bigint      NOT NULL DEFAULT insula.current_tenant(),
    name          text        NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 100),
    origin        text        NOT NULL DEFAULT 'tenant' CHECK (origin IN ('code', 'tenant')),
    paused        boolean     NOT NULL DEFAULT false,
    kind          text        NOT NULL CHECK (octet_length(kind) BETWEEN 1 AND 100),
    cron          text        NOT NULL CHECK (octet_length(cron) BETWEEN 1 AND 200),
    -- An IANA name; NULL is the tenant's own, and `local` is what that was when next_at was computed.
    zone          text        CHECK (octet_length(zone) <= 100),
    local         text,
    -- Minutes of the tenant's day that it may come in.
    off_peak_from smallint    CHECK (off_peak_from BETWEEN 0 AND 1439),
    off_peak_to   smallint    CHECK (off_peak_to BETWEEN 0 AND 1439),
    -- How long after the pattern's moment: what falls together is spread.
    shift_ms      bigint      NOT NULL DEFAULT 0,
    -- NULL: a worker is to compute it, as the first after `since`; 'infinity': `error` says why it never comes.
    next_at       timestamptz,
    since         timestamptz NOT NULL,
    last_at       timestamptz,
    -- Counts changes. What was computed from another version is not believed: so a firing is one worker's.
    version       bigint      NOT NULL DEFAULT 1,
    -- The worker's mark of what it told, for origin 'code'.
    told          bigint      NOT NULL DEFAULT 0,
    rank          smallint    NOT NULL DEFAULT 0,
    -- NULL: as the kind has it.
    attempts      integer     CHECK (attempts BETWEEN 1 AND 100),
    cost          integer     CHECK (cost BETWEEN 1 AND 1000000),
    keep          integer     CHECK (keep BETWEEN 0 AND 31622400),
    deadline_ms   bigint      CHECK (deadline_ms BETWEEN 0 AND 31622400000),
    principal     text        CHECK (octet_length(principal) <= 500),
    error         text,
    body          json        NOT NULL,
    PRIMARY KEY (tenant_id, name)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS schedule_next ON insula.schedule (next_at) WHERE NOT paused;

-- The names that the code of some worker declares, for tenants or (089) for the host side, and when one last said so.
CREATE TABLE IF NOT EXISTS insula.declared (
    name    text        NOT NULL,
    host    boolean     NOT NULL,
    kept_at timestamptz NOT NULL,
    PRIMARY KEY (name, host)
);

ALTER TABLE insula.schedule ENABLE ROW LEVEL SECURITY;
ALTER TABLE insula.schedule FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON insula.schedule;
CREATE POLICY tenant ON insula.schedule USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}});
DROP POLICY IF EXISTS queue ON insula.schedule;
CREATE POLICY queue ON insula.schedule TO insula_queue USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON insula.schedule, insula.declared TO insula_queue;

-- Puts a schedule of this tenant, or changes the one of its name; a pause stays. The pattern is checked by the caller; one that a worker cannot
-- read never comes, and says so.
CREATE OR REPLACE FUNCTION insula.schedule_put(
    name text, kind text, body text, cron text, zone text DEFAULT NULL, off_peak_from smallint DEFAULT NULL, off_peak_to smallint DEFAULT NULL,
    priority smallint DEFAULT 0::smallint, attempts integer DEFAULT NULL, cost integer DEFAULT NULL, retention_s integer DEFAULT NULL,
    deadline_ms bigint DEFAULT NULL, principal text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    me bigint := insula.current_tenant();
BEGIN
    IF me IS NULL THEN
        RAISE EXCEPTION 'insula: no tenant is bound to this transaction' USING ERRCODE = '28000';
    ELSIF (schedule_put.priority BETWEEN -1000 AND 1000 AND (schedule_put.off_peak_from IS NULL) = (schedule_put.off_peak_to IS NULL)
           AND schedule_put.off_peak_from IS DISTINCT FROM coalesce(schedule_put.off_peak_to, -1)) IS NOT TRUE THEN
        RAISE EXCEPTION 'insula: this is no schedule: see insula.schedule_put() for what its fields may be' USING ERRCODE = '22023';
    ELSIF octet_length(schedule_put.body) > 262144 THEN
        RAISE EXCEPTION 'insula: a job''s body has % bytes; 262144 are allowed: keep large things in a table or in the object store',
            octet_length(schedule_put.body) USING ERRCODE = '54000';
    ELSIF (SELECT count(*) FROM insula.schedule s WHERE s.tenant_id = me) >= 1000
          AND NOT EXISTS (SELECT FROM insula.schedule s WHERE s.tenant_id = me AND s.name = schedule_put.name) THEN
        RAISE EXCEPTION 'insula: a tenant has at most 1000 schedules' USING ERRCODE = '54000';
    END IF;
    -- A worker adds nothing for a tenant who is adding: it would wait for the end of this transaction, should the names be the same.
    PERFORM pg_advisory_xact_lock_shared(hashtext('insula.schedule'), (me & 2147483647)::integer);
    INSERT INTO insula.schedule AS s (tenant_id, name, kind, cron, zone, off_peak_from, off_peak_to, since, rank, attempts, cost, keep, deadline_ms,
                                      principal, body)
        VALUES (me, schedule_put.name, schedule_put.kind, schedule_put.cron, schedule_put.zone, schedule_put.off_peak_from,
                schedule_put.off_peak_to, clock_timestamp(), -schedule_put.priority, schedule_put.attempts, schedule_put.cost,
                schedule_put.retention_s, schedule_put.deadline_ms, schedule_put.principal, schedule_put.body::json)
        ON CONFLICT (tenant_id, name) DO UPDATE
           SET kind = excluded.kind, cron = excluded.cron, zone = excluded.zone, off_peak_from = excluded.off_peak_from,
               off_peak_to = excluded.off_peak_to, rank = excluded.rank, attempts = excluded.attempts, cost = excluded.cost,
               keep = excluded.keep, deadline_ms = excluded.deadline_ms, principal = excluded.principal, body = excluded.body,
               version = s.version + 1, error = NULL,
               -- Put again as it was, it comes when it would have come.
               next_at = CASE WHEN insula.schedule_same(s, excluded.cron, excluded.zone, excluded.local, excluded.off_peak_from, excluded.off_peak_to, excluded.shift_ms) THEN s.next_at END,
               since = CASE WHEN insula.schedule_same(s, excluded.cron, excluded.zone, excluded.local, excluded.off_peak_from, excluded.off_peak_to, excluded.shift_ms) THEN s.since ELSE excluded.since END
         WHERE s.origin = 'tenant';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'insula: the schedule "%" is the application''s own', schedule_put.name USING ERRCODE = '23505';
    END IF;
END $fn$;

-- Whether one comes at the same moments as it would by these.
DROP FUNCTION IF EXISTS insula.schedule_same(insula.schedule, insula.schedule);
CREATE OR REPLACE FUNCTION insula.schedule_same(s insula.schedule, cron text, zone text, local text, off_peak_from smallint, off_peak_to smallint, shift_ms bigint)
RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT s.error IS NULL AND s.cron = schedule_same.cron AND s.shift_ms = schedule_same.shift_ms
       AND (s.zone, s.off_peak_from, s.off_peak_to) IS NOT DISTINCT FROM (schedule_same.zone, schedule_same.off_peak_from, schedule_same.off_peak_to)
       AND (schedule_same.local IS NULL OR s.local IS NOT DISTINCT FROM schedule_same.local)
$fn$;
GRANT EXECUTE ON FUNCTION insula.schedule_same(insula.schedule, text, text, text, smallint, smallint, bigint) TO insula_queue;

-- This tenant's schedules, of both origins.
CREATE OR REPLACE FUNCTION insula.schedule_list()
RETURNS TABLE (name text, origin text, kind text, cron text, zone text, off_peak_from smallint, off_peak_to smallint, paused boolean,
               next_at timestamptz, last_at timestamptz, error text, body json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT s.name, s.origin, s.kind, s.cron, coalesce(s.zone, s.local), s.off_peak_from, s.off_peak_to, s.paused,
           CASE WHEN NOT s.paused THEN nullif(s.next_at, 'infinity') END, s.last_at, s.error, s.body
      FROM insula.schedule s WHERE s.tenant_id = {{tenant}} ORDER BY s.name
$fn$;

-- Pauses a schedule of this tenant, of either origin, or lets it go on: from now on, so that nothing of the time between is made up for.
-- False when there is none.
CREATE OR REPLACE FUNCTION insula.schedule_switch(name text, paused boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.schedule s
       SET paused = schedule_switch.paused, version = s.version + 1,
           next_at = CASE WHEN s.paused = schedule_switch.paused OR s.error IS NOT NULL THEN s.next_at END,
           since = CASE WHEN s.paused = schedule_switch.paused THEN s.since ELSE clock_timestamp() END
     WHERE s.tenant_id = insula.current_tenant() AND s.name = schedule_switch.name;
    RETURN FOUND;
END $fn$;

-- Takes a schedule of this tenant away. False when there is none. One that code declares can be paused, and would come back.
CREATE OR REPLACE FUNCTION insula.schedule_remove(name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    me bigint := insula.current_tenant();
BEGIN
    IF EXISTS (SELECT FROM insula.schedule s WHERE s.tenant_id = me AND s.name = schedule_remove.name AND s.origin = 'code') THEN
        RAISE EXCEPTION 'insula: the schedule "%" is the application''s own: pause it', schedule_remove.name USING ERRCODE = '23505';
    END IF;
    DELETE FROM insula.schedule s WHERE s.tenant_id = me AND s.name = schedule_remove.name;
    RETURN FOUND;
END $fn$;
RESET ROLE;

GRANT CREATE ON SCHEMA insula TO insula_queue;
SET LOCAL ROLE insula_queue;

-- What has come, or whose next time is to be computed: of active tenants, so that those of others are held; of those that code declares
-- only the names that the caller's code does. What its tenant's open transaction has locked is passed over, because it cannot be carried out, and would be in the way of
-- others' again and again. Moments in microseconds since 1970; what is NULL is to be computed as the first after `since_us`.
CREATE OR REPLACE FUNCTION insula.schedules_due(names text[], most integer)
RETURNS TABLE (tenant_id bigint, name text, version bigint, kind text, cron text, zone text, off_peak_from smallint, off_peak_to smallint,
               shift_ms bigint, next_us bigint, since_us bigint, now_us bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT s.tenant_id, s.name, s.version, s.kind, s.cron, s.zone, s.off_peak_from, s.off_peak_to, s.shift_ms,
           (extract(epoch FROM s.next_at) * 1000000)::bigint, (extract(epoch FROM s.since) * 1000000)::bigint,
           (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
      FROM (
        SELECT * FROM (
            SELECT s.* FROM insula.schedule s JOIN insula.tenant t ON t.no = s.tenant_id AND t.state = 'active'
             WHERE NOT s.paused AND s.next_at <= now() AND (s.origin = 'tenant' OR s.name = ANY (names)) ORDER BY s.next_at LIMIT most
               FOR UPDATE OF s SKIP LOCKED) come
        UNION ALL
        SELECT * FROM (
            SELECT s.* FROM insula.schedule s JOIN insula.tenant t ON t.no = s.tenant_id AND t.state = 'active'
             WHERE NOT s.paused AND s.next_at IS NULL AND (s.origin = 'tenant' OR s.name = ANY (names)) LIMIT most
               FOR UPDATE OF s SKIP LOCKED) new) s
$fn$;

-- Carries out what a worker computed: `{"t": tenant, "n": name, "v": the version that it was computed from, "x": next time, "z": the tenant's zone,
-- "e": why it never comes, "f": whether it fires, "i": the job's id, "l", "a", "c", "k": the kind's lane, attempts, cost, retention}`, in
-- the order that jobs are to stand in. The comparison, the step to the next time and the job are one statement: a firing is one job,
-- whoever else had the same in mind. Answers how many were carried out, and how many of those fired.
CREATE OR REPLACE FUNCTION insula.schedule_fire(firings jsonb) RETURNS TABLE (done bigint, fired bigint) LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH x AS MATERIALIZED (
        SELECT r.*, e.o FROM jsonb_array_elements(firings) WITH ORDINALITY e (r, o)
          CROSS JOIN LATERAL jsonb_to_record(e.r) r (t bigint, n text, v bigint, x bigint, z text, e text, f boolean, i uuid, l text, a integer, c integer, k integer)
    ), p AS MATERIALIZED (
        -- Whoever changes one at this moment is not waited for: it is looked at again.
        SELECT s.*, x.x, x.z, x.e, x.f, x.i, x.l, x.a, x.c, x.k, x.o
          FROM x JOIN insula.schedule s ON s.tenant_id = x.t AND s.name = x.n AND s.version = x.v AND NOT s.paused
          JOIN insula.tenant t ON t.no = x.t AND t.state = 'active'
           FOR UPDATE OF s SKIP LOCKED
    ), u AS (
        UPDATE insula.schedule s
           SET next_at = coalesce('epoch'::timestamptz + p.x * interval '1 microsecond', 'infinity'), local = coalesce(p.z, s.local), error = p.e, version = s.version + 1,
               since = CASE WHEN p.f THEN now ELSE s.since END, last_at = CASE WHEN p.f THEN now ELSE s.last_at END
          FROM p WHERE s.tenant_id = p.tenant_id AND s.name = p.name
        RETURNING 1
    ), j AS (
        INSERT INTO insula.job (tenant_id, id, rank, due, attempts, cost, keep, created_at, deadline, lane, kind, key, principal, body)
            SELECT p.tenant_id, p.i, p.rank, now + p.o * interval '1 microsecond', coalesce(p.attempts, p.a, 10), coalesce(p.cost, p.c, 1),
                   coalesce(p.keep, p.k, 0), now, now + p.deadline_ms * interval '1 millisecond', coalesce(p.l, ''), p.kind,
                   'schedule:' || p.name || ':' || to_char(p.next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), p.principal, p.body
              FROM p WHERE p.f AND p.next_at IS NOT NULL ORDER BY p.o
            ON CONFLICT (tenant_id, kind, key) WHERE key IS NOT NULL DO NOTHING
        RETURNING tenant_id, lane, rank, due
    ), a AS (
        INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT j.tenant_id, j.lane, j.rank, min(j.due) FROM j GROUP BY 1, 2, 3
    )
    SELECT (SELECT count(*) FROM u), (SELECT count(*) FROM j);
END $fn$;

-- How long until the next comes that has its time, in ms.
CREATE OR REPLACE FUNCTION insula.schedules_next() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT (extract(epoch FROM s.next_at - now()) * 1000)::bigint FROM insula.schedule s
     WHERE NOT s.paused AND s.next_at > now() AND s.next_at < 'infinity' ORDER BY s.next_at LIMIT 1
$fn$;

-- What workers know of the schedules that follow code or the tenant's zone, page by page in the order of the key.
CREATE OR REPLACE FUNCTION insula.schedules_known(after_tenant bigint, after_name text, most integer)
RETURNS TABLE (tenant_id bigint, name text, code boolean, told bigint, local text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT s.tenant_id, s.name, s.origin = 'code', s.told, s.local FROM insula.schedule s
     WHERE (s.tenant_id, s.name) > (after_tenant, after_name) AND (s.origin = 'code' OR s.zone IS NULL OR s.off_peak_from IS NOT NULL)
     ORDER BY s.tenant_id, s.name LIMIT most
$fn$;

-- Keeps what code declares: `{"t": tenant, "n": name, "k": kind, "b": body, "c": cron, "z": zone, "l": the tenant's zone, "of", "ot": off-peak, "s": shift
-- in ms, "m": mark, "r": rank, "a", "co", "ke", "d": attempts, cost, retention, deadline}`. A name that the tenant has for itself stays the
-- tenant's; those are the answer, and, as `left_out`, those that could not be kept now because an open transaction of the tenant's is in the way. Nobody is waited for.
DROP FUNCTION IF EXISTS insula.schedules_keep(jsonb);
CREATE FUNCTION insula.schedules_keep(kept jsonb) RETURNS TABLE (tenant_id bigint, name text, left_out boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    WITH x AS MATERIALIZED (
        SELECT x.* FROM jsonb_to_recordset(kept) x (t bigint, n text, k text, b json, c text, z text, l text, "of" smallint, ot smallint, s bigint,
                                                    m bigint, r smallint, a integer, co integer, ke integer, d bigint)
          JOIN insula.tenant t ON t.no = x.t AND t.state <> 'deleted'
    ), f AS MATERIALIZED (
        SELECT s.tenant_id, s.name, s.origin FROM x JOIN insula.schedule s ON s.tenant_id = x.t AND s.name = x.n FOR UPDATE OF s SKIP LOCKED
    ), u AS (
        UPDATE insula.schedule s
           SET kind = x.k, cron = x.c, zone = x.z, local = x.l, off_peak_from = x."of", off_peak_to = x.ot, shift_ms = x.s, told = x.m, rank = x.r,
               attempts = x.a, cost = x.co, keep = x.ke, deadline_ms = x.d, body = x.b, version = s.version + 1, error = NULL,
               next_at = CASE WHEN insula.schedule_same(s.*, x.c, x.z, x.l, x."of", x.ot, x.s) THEN s.next_at END,
               since = CASE WHEN insula.schedule_same(s.*, x.c, x.z, x.l, x."of", x.ot, x.s) THEN s.since ELSE clock_timestamp() END
          FROM f JOIN x ON x.t = f.tenant_id AND x.n = f.name
         WHERE s.tenant_id = f.tenant_id AND s.name = f.name AND f.origin = 'code' AND s.told <> x.m
    ), i AS (
        INSERT INTO insula.schedule (tenant_id, name, origin, kind, cron, zone, local, off_peak_from, off_peak_to, shift_ms, since, told, rank,
                                     attempts, cost, keep, deadline_ms, body)
            SELECT x.t, x.n, 'code', x.k, x.c, x.z, x.l, x."of", x.ot, x.s, clock_timestamp(), x.m, x.r, x.a, x.co, x.ke, x.d, x.b
              FROM (SELECT x.* FROM x WHERE NOT EXISTS (SELECT FROM insula.schedule s WHERE s.tenant_id = x.t AND s.name = x.n) ORDER BY x.t, x.n OFFSET 0) x
             -- Not while the tenant adds some itself (insula.schedule_put()).
             WHERE pg_try_advisory_xact_lock(hashtext('insula.schedule'), (x.t & 2147483647)::integer)
            ON CONFLICT DO NOTHING RETURNING tenant_id, name
    )
    SELECT x.t, x.n, f.name IS NULL FROM x LEFT JOIN f ON f.tenant_id = x.t AND f.name = x.n LEFT JOIN i ON i.tenant_id = x.t AND i.name = x.n
     WHERE f.origin = 'tenant' OR (f.name IS NULL AND i.name IS NULL)
$fn$;

-- Takes away what code declares for others, but not for these: `{"t": tenant, "n": name}`. A pause is remembered. Answers those that are there still, because
-- an open transaction of the tenant's has locked them.
DROP FUNCTION IF EXISTS insula.schedules_drop(jsonb);
CREATE FUNCTION insula.schedules_drop(dropped jsonb) RETURNS TABLE (tenant_id bigint, name text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    WITH x AS MATERIALIZED (SELECT x.* FROM jsonb_to_recordset(dropped) x (t bigint, n text)),
         f AS MATERIALIZED (SELECT s.tenant_id, s.name FROM x JOIN insula.schedule s ON s.tenant_id = x.t AND s.name = x.n
                             WHERE s.origin = 'code' AND NOT s.paused FOR UPDATE OF s SKIP LOCKED),
         d AS (DELETE FROM insula.schedule s USING f WHERE s.tenant_id = f.tenant_id AND s.name = f.name)
    SELECT s.tenant_id, s.name FROM x JOIN insula.schedule s ON s.tenant_id = x.t AND s.name = x.n
     WHERE s.origin = 'code' AND NOT s.paused AND NOT EXISTS (SELECT FROM f WHERE f.tenant_id = s.tenant_id AND f.name = s.name)
$fn$;

-- Tenants have another zone: `{"t": tenant, "z": zone}`. What follows it is computed anew; what had come already, comes. Answers those of whom some are left,
-- because an open transaction of theirs has locked them.
DROP FUNCTION IF EXISTS insula.schedules_follow(jsonb);
CREATE FUNCTION insula.schedules_follow(zones jsonb) RETURNS SETOF bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    WITH x AS MATERIALIZED (
        SELECT s.tenant_id, s.name, x.z FROM jsonb_to_recordset(zones) x (t bigint, z text) JOIN insula.schedule s ON s.tenant_id = x.t
         WHERE s.origin = 'tenant' AND (s.zone IS NULL OR s.off_peak_from IS NOT NULL) AND s.local IS DISTINCT FROM x.z
           AND s.next_at > clock_timestamp() AND s.error IS NULL
    ), f AS MATERIALIZED (
        SELECT s.tenant_id, s.name, x.z FROM x JOIN insula.schedule s ON s.tenant_id = x.tenant_id AND s.name = x.name FOR UPDATE OF s SKIP LOCKED
    ), u AS (
        UPDATE insula.schedule s SET next_at = NULL, since = clock_timestamp(), version = s.version + 1, local = f.z
          FROM f WHERE s.tenant_id = f.tenant_id AND s.name = f.name
    )
    SELECT DISTINCT x.tenant_id FROM x WHERE NOT EXISTS (SELECT FROM f WHERE f.tenant_id = x.tenant_id AND f.name = x.name)
$fn$;

-- House-keeping, by each worker once in a while: its code declares `names`. A name that nobody's code has declared for an hour is taken away, but for
-- pauses, so that what a tenant switched off is off when the name comes back. When this server's clock was far ahead and is not any more, what
-- was computed then is computed anew; a clock that was set back by less than an hour makes nothing come twice. What a tenant's open transaction has
-- locked is left to the next time.
CREATE OR REPLACE FUNCTION insula.schedules_tidy(names text[]) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    INSERT INTO insula.declared AS d SELECT n, false, now FROM unnest(names) n ORDER BY n
        ON CONFLICT (name, host) DO UPDATE SET kept_at = now WHERE d.kept_at NOT BETWEEN now - interval '1 minute' AND now;
    DELETE FROM insula.schedule s WHERE s.ctid = ANY (ARRAY(
        SELECT s.ctid FROM insula.declared d JOIN insula.schedule s ON s.name = d.name
         WHERE NOT d.host AND d.kept_at < now - interval '1 hour' AND s.origin = 'code' AND NOT s.paused FOR UPDATE OF s SKIP LOCKED));
    DELETE FROM insula.declared d WHERE NOT d.host AND d.kept_at < now - interval '1 hour'
       AND NOT EXISTS (SELECT FROM insula.schedule s WHERE s.name = d.name AND s.origin = 'code' AND NOT s.paused);
    UPDATE insula.schedule s SET next_at = NULL, since = now, version = s.version + 1 WHERE s.ctid = ANY (ARRAY(
        SELECT s.ctid FROM insula.schedule s WHERE s.since > now + interval '1 hour' AND s.error IS NULL FOR UPDATE SKIP LOCKED));
END $fn$;

-- Host side, for the administrator: a tenant's schedules, or everybody's when `tenant` is NULL.
CREATE OR REPLACE FUNCTION insula.schedules_of(tenant bigint, most integer)
RETURNS TABLE (tenant_id bigint, name text, origin text, kind text, cron text, zone text, paused boolean, next_at timestamptz, last_at timestamptz, error text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT s.tenant_id, s.name, s.origin, s.kind, s.cron, coalesce(s.zone, s.local), s.paused,
           CASE WHEN NOT s.paused THEN nullif(s.next_at, 'infinity') END, s.last_at, s.error
      FROM insula.schedule s WHERE tenant IS NULL OR s.tenant_id = tenant ORDER BY s.tenant_id, s.name LIMIT most
$fn$;

-- Host side: pauses a tenant's schedule, or lets it go on from now. False when there is none.
CREATE OR REPLACE FUNCTION insula.schedule_pause(tenant bigint, name text, paused boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.schedule s
       SET paused = schedule_pause.paused, version = s.version + 1,
           next_at = CASE WHEN s.paused = schedule_pause.paused OR s.error IS NOT NULL THEN s.next_at END,
           since = CASE WHEN s.paused = schedule_pause.paused THEN s.since ELSE clock_timestamp() END
     WHERE s.tenant_id = tenant AND s.name = schedule_pause.name;
    RETURN FOUND;
END $fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;
