-- What an application may do with jobs: its own tenant's, in its own transaction, as insula_owner under the policy "tenant".
SET LOCAL ROLE insula_owner;

-- Enqueues jobs of one kind. Answers how many are new: one whose key is taken by a job of the kind that waits or runs is not.
-- `delay_ms` from now; `deadline_ms` from now, after which it is not started; `retention_s` is how long its end can be asked for.
CREATE OR REPLACE FUNCTION insula.enqueue(
    kind text, ids uuid[], bodies text[], keys text[] DEFAULT NULL, lane text DEFAULT '', priority smallint DEFAULT 0::smallint,
    delay_ms bigint DEFAULT 0, deadline_ms bigint DEFAULT NULL, attempts integer DEFAULT 10, cost integer DEFAULT 1,
    retention_s integer DEFAULT 0, principal text DEFAULT NULL, trace text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $fn$
#variable_conflict use_column
DECLARE
    me    bigint      := insula.current_tenant();
    now   timestamptz := clock_timestamp();
    due   timestamptz := now;
    given bigint;
    heirs bigint;
    body  text;
BEGIN
    IF me IS NULL THEN
        RAISE EXCEPTION 'insula: no tenant is bound to this transaction' USING ERRCODE = '28000';
    END IF;
    -- NULL would slip through a comparison.
    IF (octet_length(enqueue.kind) BETWEEN 1 AND 100 AND octet_length(enqueue.lane) <= 100 AND cardinality(ids) <= 10000
        AND cardinality(ids) = cardinality(bodies) AND (keys IS NULL OR cardinality(keys) = cardinality(ids))
        AND enqueue.priority BETWEEN -1000 AND 1000 AND delay_ms BETWEEN 0 AND 31622400000 AND enqueue.attempts BETWEEN 1 AND 100
        AND (deadline_ms IS NULL OR deadline_ms BETWEEN 0 AND 31622400000)
        AND enqueue.cost BETWEEN 1 AND 1000000 AND retention_s BETWEEN 0 AND 31622400
        AND coalesce(octet_length(enqueue.principal), 0) <= 500 AND coalesce(octet_length(enqueue.trace), 0) <= 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'insula: this is no job: see insula.enqueue() for what its fields may be' USING ERRCODE = '22023';
    END IF;
    FOREACH body IN ARRAY bodies LOOP
        IF octet_length(body) > 262144 THEN
            RAISE EXCEPTION 'insula: a job''s body has % bytes; 262144 are allowed: keep large things in a table or in the object store',
                octet_length(body) USING ERRCODE = '54000';
        END IF;
    END LOOP;
    -- Workers insert theirs for many tenants in one statement (085, 089), which would wait for the end of a transaction that has taken the same key.
    IF keys IS NOT NULL AND EXISTS (SELECT FROM unnest(keys) k WHERE starts_with(k, 'schedule:') OR starts_with(k, 'sweep:')) THEN
        RAISE EXCEPTION 'insula: keys that begin with "schedule:" or "sweep:" are the queue''s own: begin this one with another word'
            USING ERRCODE = '22023';
    END IF;
    IF enqueue.lane <> '' AND NOT EXISTS (SELECT FROM insula.lane_name n WHERE n.tenant_id = me AND n.lane = enqueue.lane) THEN
        IF (SELECT count(DISTINCT n.lane) FROM insula.lane_name n WHERE n.tenant_id = me) >= 128 THEN
            -- All of it in the message: drivers and logs leave hints out.
            RAISE EXCEPTION 'insula: a tenant has jobs in at most 128 lanes, and "%" would be one more: use one that it has, or the common one (''''). '
                    'A lane''s place is free again an hour after its last job', enqueue.lane USING ERRCODE = '54000';
        END IF;
        INSERT INTO insula.lane_name (tenant_id, lane) VALUES (me, enqueue.lane);
    END IF;
    IF delay_ms > 0 THEN
        due := now + delay_ms * interval '1 millisecond';
    END IF;
    INSERT INTO insula.job (tenant_id, id, state, rank, due, attempts, cost, keep, created_at, deadline, lane, kind, key, principal, trace, body)
        SELECT me, j.id, CASE WHEN enqueue.delay_ms > 0 THEN 'l'::"char" ELSE 'w'::"char" END, -enqueue.priority,
               due + j.n * interval '1 microsecond', enqueue.attempts, enqueue.cost, enqueue.retention_s, now,
               now + enqueue.deadline_ms * interval '1 millisecond', enqueue.lane, enqueue.kind, j.key, enqueue.principal, enqueue.trace,
               j.body::json
          FROM unnest(enqueue.ids, enqueue.bodies, enqueue.keys) WITH ORDINALITY j (id, body, key, n)
        ON CONFLICT (tenant_id, kind, key) WHERE key IS NOT NULL DO NOTHING;
    GET DIAGNOSTICS given = ROW_COUNT;
    -- The key of a waiting job that was cancelled is free, though the row has it until it is ended: who comes first is its heir, and has the key then.
    IF keys IS NOT NULL AND given < cardinality(ids) AND EXISTS (SELECT FROM insula.cancellation c WHERE c.tenant_id = me) THEN
        WITH k AS MATERIALIZED (
            SELECT DISTINCT ON (o.id) o.id AS old, c.heir, n.id, n.body, n.n
              FROM unnest(enqueue.ids, enqueue.bodies, enqueue.keys) WITH ORDINALITY n (id, body, key, n)
              JOIN insula.job o ON o.tenant_id = me AND o.kind = enqueue.kind AND o.key = n.key AND o.state <> 'r'
              JOIN insula.cancellation c ON c.tenant_id = me AND c.id = o.id
             WHERE NOT EXISTS (SELECT FROM insula.job h WHERE h.tenant_id = me AND h.id = c.heir
                                  AND NOT EXISTS (SELECT FROM insula.cancellation x WHERE x.tenant_id = me AND x.id = h.id))
             ORDER BY o.id, n.n
        ), c AS (
            UPDATE insula.cancellation c SET heir = k.id FROM k
             WHERE c.tenant_id = me AND c.id = k.old AND c.heir IS NOT DISTINCT FROM k.heir
            RETURNING k.id, k.body, k.n
        )
        INSERT INTO insula.job (tenant_id, id, state, rank, due, attempts, cost, keep, created_at, deadline, lane, kind, principal, trace, body)
            SELECT me, c.id, CASE WHEN enqueue.delay_ms > 0 THEN 'l'::"char" ELSE 'w'::"char" END, -enqueue.priority,
                   due + c.n * interval '1 microsecond', enqueue.attempts, enqueue.cost, enqueue.retention_s, now,
                   now + enqueue.deadline_ms * interval '1 millisecond', enqueue.lane, enqueue.kind, enqueue.principal, enqueue.trace, c.body::json
              FROM c;
        GET DIAGNOSTICS heirs = ROW_COUNT;
        given := given + heirs;
    END IF;
    IF given > 0 AND delay_ms = 0 THEN
        INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES (me, enqueue.lane, -enqueue.priority, now);
        IF pg_sequence_last_value('insula.asleep') = 2 THEN
            -- The first to see it rings for those who come meanwhile.
            PERFORM setval('insula.asleep', 1), pg_notify('insula_jobs', '');
        END IF;
    END IF;
    RETURN given;
END $fn$;

-- Whether somebody has to be told, once this transaction has committed, that something was enqueued: no worker stays in this database, and a
-- notification here would reach nobody. Asked before enqueueing, which may put a sleeping worker's mark out.
CREATE OR REPLACE FUNCTION insula.must_ring() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT pg_sequence_last_value('insula.asleep') <> 1
$fn$;

-- Rings the bell of a database of one tenant, in the cell's pool database, where workers listen for all of them. Applications ring for all their tenants
-- on a connection that is bound to none, so nobody does from within a tenant's transaction. Nothing is said of a database that there is not: one may
-- have gone meanwhile, and whoever guesses is told nothing. Whoever rings for nothing sends a worker to look: nothing else, and not more often than it may.
CREATE OR REPLACE FUNCTION insula.ring(database text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF (database ~ '^d[0-9a-f]{16}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'insula: this is no database of one tenant' USING ERRCODE = '22023';
    ELSIF insula.current_tenant() IS NOT NULL THEN
        RAISE EXCEPTION 'insula: the bell is rung outside of a tenant''s transaction' USING ERRCODE = '28000';
    END IF;
    PERFORM pg_notify('insula_bell', d.datname::text) FROM pg_database d WHERE d.datname = ring.database;
END $fn$;

-- Cancels a job, once this transaction has committed: one that waits is over, one that runs is told, and is over when it stops. False when there is
-- none that is not over. It locks nothing that the queue needs.
CREATE OR REPLACE FUNCTION insula.cancel_job(job uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    me    bigint := insula.current_tenant();
    state "char";
BEGIN
    SELECT x.state INTO state FROM insula.job x WHERE x.tenant_id = me AND x.id = job;
    IF state IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO insula.cancellation (tenant_id, id) VALUES (me, job) ON CONFLICT DO NOTHING;
    RETURN FOUND OR state = 'r';
END $fn$;

-- One job of this tenant, as it is now or as it ended. No row when there is none, or its end is not kept.
CREATE OR REPLACE FUNCTION insula.job_state(job uuid)
RETURNS TABLE (state text, kind text, attempt integer, created_at timestamptz, due timestamptz, ended_at timestamptz, progress json, result json, error text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT CASE WHEN j.state = 'r' THEN 'running' WHEN c.id IS NOT NULL THEN 'cancelled' WHEN j.state = 'l' THEN 'later' ELSE 'waiting' END,
           j.kind, j.attempt, j.created_at, CASE WHEN j.state = 'r' OR c.id IS NULL THEN j.due END, CASE WHEN j.state <> 'r' THEN c.at END,
           j.progress, NULL::json, j.error
      FROM insula.job j LEFT JOIN insula.cancellation c ON c.tenant_id = j.tenant_id AND c.id = j.id
     WHERE j.tenant_id = {{tenant}} AND j.id = job
    UNION ALL
    SELECT e.outcome, e.kind, e.attempt, e.created_at, NULL, e.ended_at, NULL, e.result, e.error
      FROM insula.job_end e WHERE e.tenant_id = {{tenant}} AND e.id = job
$fn$;
RESET ROLE;
