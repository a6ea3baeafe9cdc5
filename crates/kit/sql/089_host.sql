-- What the host side has to do for all, or for nobody: sweeps, and schedules of its own.

-- Work for each tenant, once: a sweep enqueues one job for each tenant of this database, in batches, at a pace, in an order that workers know. It
-- goes on where it stood, whoever dies: a tenant's mark and its job are one statement.
SET LOCAL ROLE insula_owner;

CREATE TABLE IF NOT EXISTS insula.sweep (
    name          text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 100),
    state         text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'stopped')),
    kind          text        NOT NULL CHECK (octet_length(kind) BETWEEN 1 AND 100),
    lane          text        NOT NULL DEFAULT '',
    rank          smallint    NOT NULL DEFAULT 0,
    attempts      integer     NOT NULL CHECK (attempts BETWEEN 1 AND 100),
    cost          integer     NOT NULL CHECK (cost BETWEEN 1 AND 1000000),
    keep          integer     NOT NULL CHECK (keep BETWEEN 0 AND 31622400),
    deadline_ms   bigint      CHECK (deadline_ms BETWEEN 0 AND 31622400000),
    -- Tenants in a second; NULL: as fast as it goes. Most in one statement.
    pace          double precision CHECK (pace BETWEEN 0.001 AND 1000000),
    batch         integer     NOT NULL CHECK (batch BETWEEN 1 AND 10000),
    lowest_first  boolean     NOT NULL DEFAULT false,
    off_peak_from smallint    CHECK (off_peak_from BETWEEN 0 AND 1439),
    off_peak_to   smallint    CHECK (off_peak_to BETWEEN 0 AND 1439),
    -- Only tenants whose plan has it; the others are marked and have no job.
    feature       text,
    -- Tenants with greater numbers came after it began.
    last_no       bigint      NOT NULL,
    -- Not before this: what was enqueued is paid for by then.
    next_at       timestamptz NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    ended_at      timestamptz,
    body          json        NOT NULL
);

-- The tenants that a sweep has been at. A tenant's own rows: they go where it goes.
CREATE TABLE IF NOT EXISTS insula.sweep_mark (
    tenant_id bigint      NOT NULL DEFAULT insula.current_tenant(),
    sweep     text        NOT NULL,
    skipped   boolean     NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, sweep)
);
CREATE INDEX IF NOT EXISTS sweep_mark_sweep ON insula.sweep_mark (sweep, tenant_id);
ALTER TABLE insula.sweep_mark ENABLE ROW LEVEL SECURITY;
ALTER TABLE insula.sweep_mark FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON insula.sweep_mark;
CREATE POLICY tenant ON insula.sweep_mark USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}});
DROP POLICY IF EXISTS queue ON insula.sweep_mark;
CREATE POLICY queue ON insula.sweep_mark TO insula_queue USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON insula.sweep, insula.sweep_mark TO insula_queue;
RESET ROLE;

GRANT CREATE ON SCHEMA insula TO insula_queue;
SET LOCAL ROLE insula_queue;

-- Begins a sweep here; begun again by the same name, it goes on. `s`: the columns of insula.sweep that the caller decides.
CREATE OR REPLACE FUNCTION insula.sweep_begin(s jsonb) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF octet_length(s ->> 'body') > 262144 THEN
        RAISE EXCEPTION 'insula: a job''s body has % bytes; 262144 are allowed', octet_length(s ->> 'body') USING ERRCODE = '54000';
    END IF;
    INSERT INTO insula.sweep (name, kind, lane, rank, attempts, cost, keep, deadline_ms, pace, batch, lowest_first, off_peak_from, off_peak_to, feature,
                              last_no, next_at, body)
        SELECT x.name, x.kind, x.lane, x.rank, x.attempts, x.cost, x.keep, x.deadline_ms, x.pace, x.batch, x.lowest_first, x.off_peak_from,
               x.off_peak_to, x.feature, greatest(x.last_no, (SELECT max(t.no) FROM insula.tenant t)), clock_timestamp(), x.body
          FROM jsonb_to_record(s) x (name text, kind text, lane text, rank smallint, attempts integer, cost integer, keep integer, deadline_ms bigint,
                                     pace double precision, batch integer, lowest_first boolean, off_peak_from smallint, off_peak_to smallint,
                                     feature text, last_no bigint, body json)
        ON CONFLICT (name) DO NOTHING;
    RETURN FOUND;
END $fn$;

-- Sweeps that go on, and in how many ms they may take the next tenants.
CREATE OR REPLACE FUNCTION insula.sweeps_open()
RETURNS TABLE (name text, kind text, lowest_first boolean, off_peak_from smallint, off_peak_to smallint, feature text, most integer, paced boolean, last_no bigint,
               wait_ms bigint, now_us bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT s.name, s.kind, s.lowest_first, s.off_peak_from, s.off_peak_to, s.feature,
           least(s.batch, ceil(coalesce(s.pace, s.batch)))::integer, s.pace IS NOT NULL, s.last_no,
           -- No pace makes anybody wait for an hour: then the clock was set back.
           CASE WHEN s.next_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 hour'
                THEN ceil(extract(epoch FROM s.next_at - clock_timestamp()) * 1000)::bigint ELSE 0 END,
           (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
      FROM insula.sweep s WHERE s.state = 'open' ORDER BY s.started_at, s.name
$fn$;

-- The tenants that a sweep has been at here.
CREATE OR REPLACE FUNCTION insula.sweep_marks(sweep text) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT m.tenant_id FROM insula.sweep_mark m WHERE m.sweep = sweep_marks.sweep
$fn$;

-- Takes tenants, `{"t": tenant, "i": the job's id, "s": whether it is left out}`, in this order: those that are active and that it has not been at have
-- their job. Answers which of them it has been at by now, after a 0; nothing while it is not its time, or another worker is at it.
CREATE OR REPLACE FUNCTION insula.sweep_step(name text, tenants jsonb) RETURNS SETOF bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    now   timestamptz := clock_timestamp();
    w     insula.sweep;
    given bigint;
BEGIN
    SELECT * INTO w FROM insula.sweep x WHERE x.name = sweep_step.name AND x.state = 'open' AND x.next_at NOT BETWEEN now AND now + interval '1 hour'
       FOR UPDATE SKIP LOCKED;
    IF w.name IS NULL THEN
        RETURN;
    END IF;
    WITH x AS MATERIALIZED (
        SELECT r.*, e.o FROM jsonb_array_elements(tenants) WITH ORDINALITY e (v, o) CROSS JOIN LATERAL jsonb_to_record(e.v) r (t bigint, i uuid, s boolean)
         ORDER BY e.o LIMIT least(w.batch, ceil(coalesce(w.pace, w.batch)))
    ), m AS (
        INSERT INTO insula.sweep_mark (tenant_id, sweep, skipped, at)
            SELECT x.t, w.name, x.s, now FROM x JOIN insula.tenant t ON t.no = x.t AND (t.state = 'active' OR x.s) ORDER BY x.t
            ON CONFLICT DO NOTHING
        RETURNING tenant_id
    ), j AS (
        INSERT INTO insula.job (tenant_id, id, rank, due, attempts, cost, keep, created_at, deadline, lane, kind, key, body)
            SELECT x.t, x.i, w.rank, now + x.o * interval '1 microsecond', w.attempts, w.cost, w.keep, now, now + w.deadline_ms * interval '1 millisecond',
                   w.lane, w.kind, 'sweep:' || w.name, w.body
              FROM x JOIN m ON m.tenant_id = x.t WHERE NOT x.s ORDER BY x.o
            ON CONFLICT (tenant_id, kind, key) WHERE key IS NOT NULL DO NOTHING
        RETURNING tenant_id, lane, rank, due
    )
    INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT j.tenant_id, j.lane, j.rank, j.due FROM j;
    GET DIAGNOSTICS given = ROW_COUNT;
    UPDATE insula.sweep x SET next_at = now + coalesce(given / w.pace, 0) * interval '1 second' WHERE x.name = w.name;
    RETURN NEXT 0;
    RETURN QUERY SELECT m.tenant_id FROM insula.sweep_mark m
                  WHERE m.sweep = w.name AND m.tenant_id IN (SELECT (v ->> 't')::bigint FROM jsonb_array_elements(tenants) v);
END $fn$;

-- Ends a sweep that has been at every tenant that was there when it began. One that is not active is waited for; a deleted one is not.
CREATE OR REPLACE FUNCTION insula.sweep_end(name text) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.sweep s SET state = 'done', ended_at = clock_timestamp()
     WHERE s.name = sweep_end.name AND s.state = 'open'
       AND NOT EXISTS (SELECT FROM insula.tenant t WHERE t.no <= s.last_no AND t.state <> 'deleted'
                          AND NOT EXISTS (SELECT FROM insula.sweep_mark m WHERE m.tenant_id = t.no AND m.sweep = s.name));
    RETURN FOUND;
END $fn$;

-- Stops a sweep: it takes no more tenants. What it enqueued stays.
CREATE OR REPLACE FUNCTION insula.sweep_stop(name text) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.sweep s SET state = 'stopped', ended_at = clock_timestamp() WHERE s.name = sweep_stop.name AND s.state = 'open';
    RETURN FOUND;
END $fn$;

-- How a sweep stands here: its tenants, those that it has been at, those of them that were left out, jobs of it that wait or run, and dead ones.
CREATE OR REPLACE FUNCTION insula.sweep_state(name text)
RETURNS TABLE (state text, tenants bigint, reached bigint, skipped bigint, queued bigint, dead bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
    SELECT s.state, (SELECT count(*) FROM insula.tenant t WHERE t.no <= s.last_no AND t.state <> 'deleted'), m.reached, m.skipped, m.queued, m.dead
      FROM insula.sweep s
      CROSS JOIN LATERAL (
          SELECT count(*) AS reached, count(*) FILTER (WHERE m.skipped) AS skipped, count(j.id) AS queued, count(e.id) AS dead
            FROM insula.sweep_mark m
            LEFT JOIN insula.job j ON j.tenant_id = m.tenant_id AND j.kind = s.kind AND j.key = 'sweep:' || s.name
            LEFT JOIN LATERAL (SELECT e.id FROM insula.job_end e WHERE e.tenant_id = m.tenant_id AND e.outcome = 'dead' AND e.key = 'sweep:' || s.name
                                  AND e.kind = s.kind LIMIT 1) e ON true
           WHERE m.sweep = s.name) m
     WHERE s.name = sweep_state.name
$fn$;

-- House-keeping: marks of what ended a month ago are of no use.
CREATE OR REPLACE FUNCTION insula.sweeps_tidy() RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
    DELETE FROM insula.sweep_mark m USING insula.sweep s WHERE m.sweep = s.name AND s.ended_at < clock_timestamp() - interval '30 days'
$fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;

-- Schedules of the host side: work that comes again and is nobody's. They lie in one database of all, the pool of the first cell, so that a firing
-- is one worker's wherever workers are. Held under the worker's lease: one that dies leaves its firing to another.
SET LOCAL ROLE insula_owner;
CREATE TABLE IF NOT EXISTS insula.host_schedule (
    name     text PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 100),
    cron     text        NOT NULL,
    zone     text        NOT NULL,
    -- NULL: a worker is to compute it, as the first after `since`.
    next_at  timestamptz,
    since    timestamptz NOT NULL,
    version  bigint      NOT NULL DEFAULT 1,
    -- The firing that is at work, or is to be tried again: whose, and the how manieth try. With the worker's number the fence.
    firing   timestamptz,
    worker   bigint,
    attempt  integer     NOT NULL DEFAULT 0,
    retry_at timestamptz,
    -- When one last ended, and how when not well.
    last_at  timestamptz,
    error    text,
    -- Nothing new begins; what has begun is brought to its end.
    paused   boolean     NOT NULL DEFAULT false
);
ALTER TABLE insula.host_schedule ADD COLUMN IF NOT EXISTS paused boolean NOT NULL DEFAULT false;
-- Which word of the control plane on `paused` was heard here last.
ALTER TABLE insula.host_schedule ADD COLUMN IF NOT EXISTS told bigint NOT NULL DEFAULT 0;
GRANT SELECT, INSERT, UPDATE, DELETE ON insula.host_schedule TO insula_queue;
RESET ROLE;

GRANT CREATE ON SCHEMA insula TO insula_queue;
SET LOCAL ROLE insula_queue;

-- Keeps what the caller's code declares: `{"n": name, "c": cron, "z": zone}`.
CREATE OR REPLACE FUNCTION insula.host_keep(kept jsonb) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
    INSERT INTO insula.host_schedule AS h (name, cron, zone, since)
        SELECT x.n, x.c, x.z, clock_timestamp() FROM jsonb_to_recordset(kept) x (n text, c text, z text) ORDER BY x.n
        ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, zone = excluded.zone, next_at = NULL, since = excluded.since, version = h.version + 1
         WHERE (h.cron, h.zone) <> (excluded.cron, excluded.zone)
$fn$;

-- What is to be computed (`next_us` is NULL), has come, or is to be tried again. A firing waits until the one before has ended.
CREATE OR REPLACE FUNCTION insula.host_due(names text[])
RETURNS TABLE (name text, version bigint, cron text, zone text, next_us bigint, since_us bigint, now_us bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT h.name, h.version, h.cron, h.zone, (extract(epoch FROM h.next_at) * 1000000)::bigint, (extract(epoch FROM h.since) * 1000000)::bigint,
           (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
      FROM insula.host_schedule h
     WHERE h.name = ANY (names)
       AND ((NOT h.paused AND (h.next_at IS NULL OR (h.firing IS NULL AND h.next_at <= clock_timestamp())))
            OR (h.firing IS NOT NULL AND CASE WHEN h.worker IS NULL THEN h.retry_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 hour'
                                              ELSE NOT EXISTS (SELECT FROM insula.worker w WHERE w.no = h.worker) END))
     ORDER BY h.name
$fn$;

-- A time was computed from a version.
CREATE OR REPLACE FUNCTION insula.host_plan(name text, version bigint, next_us bigint) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.host_schedule h SET next_at = coalesce('epoch'::timestamptz + next_us * interval '1 microsecond', 'infinity'), version = h.version + 1
     WHERE h.name = host_plan.name AND h.version = host_plan.version;
END $fn$;

-- Takes a firing: a new one, or one that is to be tried again. No row when another was first, or this worker was given up.
CREATE OR REPLACE FUNCTION insula.host_take(me bigint, name text, version bigint, next_us bigint) RETURNS TABLE (firing timestamptz, attempt integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
BEGIN
    -- Who buries this worker waits, and then finds what it took.
    PERFORM FROM insula.worker w WHERE w.no = me FOR SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE insula.host_schedule h
       SET firing = coalesce(h.firing, h.next_at), worker = me, attempt = h.attempt + 1, retry_at = NULL, since = clock_timestamp(), version = h.version + 1,
           next_at = CASE WHEN h.firing IS NULL THEN coalesce('epoch'::timestamptz + next_us * interval '1 microsecond', 'infinity') ELSE h.next_at END
     WHERE h.name = host_take.name AND h.version = host_take.version AND h.next_at IS NOT NULL
    RETURNING h.firing, h.attempt;
END $fn$;

-- A try ended: well, or not (`error`), and is to be tried again after `retry_ms` when that is given. Only the holder's word counts.
CREATE OR REPLACE FUNCTION insula.host_end(me bigint, name text, attempt integer, error text, retry_ms bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.host_schedule h
       SET worker = NULL, error = left(host_end.error, 4000), version = h.version + 1, last_at = clock_timestamp(),
           firing = CASE WHEN retry_ms IS NOT NULL THEN h.firing END, attempt = CASE WHEN retry_ms IS NULL THEN 0 ELSE h.attempt END,
           retry_at = clock_timestamp() + retry_ms * interval '1 millisecond'
     WHERE h.name = host_end.name AND h.worker = me AND h.attempt = host_end.attempt;
    RETURN FOUND;
END $fn$;

-- House-keeping: a firing that took ten workers down is given up; a clock that was far ahead is forgotten; names that no code declares go.
CREATE OR REPLACE FUNCTION insula.host_tidy(names text[]) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    now timestamptz := clock_timestamp();
BEGIN
    UPDATE insula.host_schedule h SET firing = NULL, worker = NULL, attempt = 0, retry_at = NULL, version = h.version + 1, error = 'given up after ten attempts'
     WHERE h.firing IS NOT NULL AND h.attempt >= 10 AND NOT EXISTS (SELECT FROM insula.worker w WHERE w.no = h.worker);
    UPDATE insula.host_schedule h SET next_at = NULL, since = now, version = h.version + 1 WHERE h.since > now + interval '1 hour';
    INSERT INTO insula.declared AS d SELECT n, true, now FROM unnest(names) n ORDER BY n
        ON CONFLICT (name, host) DO UPDATE SET kept_at = now WHERE d.kept_at NOT BETWEEN now - interval '1 minute' AND now;
    WITH d AS (DELETE FROM insula.declared d WHERE d.host AND d.kept_at < now - interval '1 hour' RETURNING d.name)
    -- One that is paused stays, so that off is off when the name comes back.
    DELETE FROM insula.host_schedule h USING d WHERE h.name = d.name AND h.firing IS NULL AND NOT h.paused;
END $fn$;

-- Host side, for the administrator: what there is.
DROP FUNCTION IF EXISTS insula.host_schedules();
CREATE FUNCTION insula.host_schedules()
RETURNS TABLE (name text, cron text, zone text, paused boolean, next_at timestamptz, firing timestamptz, attempt integer, last_at timestamptz, error text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT h.name, h.cron, h.zone, h.paused, CASE WHEN NOT h.paused THEN nullif(h.next_at, 'infinity') END, h.firing, h.attempt, h.last_at, h.error
      FROM insula.host_schedule h WHERE h.cron <> '' ORDER BY h.name
$fn$;

-- Pauses a schedule, or lets it come again from now on; false when there is none. A firing that has begun goes on, and is tried again, either way.
CREATE OR REPLACE FUNCTION insula.host_pause(name text, paused boolean) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.host_schedule h
       SET paused = host_pause.paused, version = h.version + 1,
           next_at = CASE WHEN h.paused AND NOT host_pause.paused THEN NULL ELSE h.next_at END,
           since = CASE WHEN h.paused AND NOT host_pause.paused THEN clock_timestamp() ELSE h.since END
     WHERE h.name = host_pause.name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- So that one that no code declares any more goes after a while.
    INSERT INTO insula.declared VALUES (host_pause.name, true, clock_timestamp()) ON CONFLICT DO NOTHING;
    RETURN true;
END $fn$;

-- The same as every pool is told, whether schedules of the host lie there or will one day: one that is not kept here is paused when it comes (until
-- then its pattern is empty, and nobody sees it). A word that is older than what was heard changes nothing.
CREATE OR REPLACE FUNCTION insula.host_pause(name text, paused boolean, told bigint) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    was boolean;
BEGIN
    INSERT INTO insula.host_schedule (name, cron, zone, since, paused)
        SELECT host_pause.name, '', 'UTC', clock_timestamp(), true WHERE host_pause.paused
        ON CONFLICT DO NOTHING;
    UPDATE insula.host_schedule h SET told = host_pause.told WHERE h.name = host_pause.name AND h.told < host_pause.told RETURNING h.paused INTO was;
    IF was <> host_pause.paused THEN
        PERFORM insula.host_pause(host_pause.name, host_pause.paused);
    END IF;
    DELETE FROM insula.host_schedule h WHERE h.name = host_pause.name AND h.cron = '' AND NOT h.paused;
END $fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;
