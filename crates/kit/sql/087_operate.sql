-- What operators see of the queue and do to single jobs, host side: no login may call these. The control plane does, as the database's
-- administrator, for whoever asked it; it writes the audit line. 084 has dead letters by the many.
GRANT CREATE ON SCHEMA insula TO insula_queue;
SET LOCAL ROLE insula_queue;

-- Jobs of a tenant, the newest first, without what is the tenant's own in them (body, result, key, who asked). Of one state and one kind, where
-- given; states are those of insula.job_state(). `before` is the last id of the page before: ids are in the order of time. Planned for each
-- call, because what is quick depends on the state: running ones have an index of their own.
DROP FUNCTION IF EXISTS insula.job_list(bigint, text, text, uuid, integer);
CREATE FUNCTION insula.job_list(tenant bigint, of_state text, of_kind text, before uuid, most integer)
RETURNS TABLE (id uuid, state text, kind text, lane text, priority smallint, attempt integer, attempts integer, created_at timestamptz, due timestamptz,
               started_at timestamptz, deadline timestamptz, ended_at timestamptz, expires_at timestamptz, worker bigint, error text, progress json,
               cancelling boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    ended  text := CASE WHEN of_state IN ('done', 'dead', 'cancelled') THEN format('AND e.outcome = %L', of_state) ELSE '' END;
    living text;
    told   text;
    parts  text[];
BEGIN
    -- Each state for itself, because each has an index of its own that begins with the tenant, or is small; a tenant with many jobs is found by id.
    FOREACH living IN ARRAY ARRAY['waiting', 'later', 'running'] LOOP
        CONTINUE WHEN of_state <> living;
        told := CASE living WHEN 'running' THEN 'EXISTS (SELECT FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id)' ELSE 'false' END;
        parts := array_append(parts, format($q$(SELECT j.id, %L, j.kind, j.lane, (-j.rank)::smallint,
            j.attempt, j.attempts, j.created_at, j.due, j.started_at, j.deadline, NULL::timestamptz, NULL::timestamptz, j.worker, j.error, j.progress, %s
            FROM insula.job j WHERE j.tenant_id = $1 AND ($2 IS NULL OR j.kind = $2) AND ($3 IS NULL OR j.id < $3) AND j.state = %L %s ORDER BY j.id DESC LIMIT $4)$q$,
            living, told, CASE living WHEN 'waiting' THEN 'w' WHEN 'later' THEN 'l' ELSE 'r' END,
            CASE WHEN living <> 'running' THEN 'AND NOT EXISTS (SELECT FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id)' ELSE '' END));
    END LOOP;
    IF of_state IS NULL OR of_state IN ('done', 'dead', 'cancelled') THEN
        parts := array_append(parts, format($q$(SELECT e.id, e.outcome, e.kind, e.lane, (-e.rank)::smallint,
            e.attempt, e.attempts, e.created_at, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, e.ended_at, e.expires_at, NULL::bigint, e.error, NULL::json, false
            FROM insula.job_end e WHERE e.tenant_id = $1 AND e.expires_at > clock_timestamp() AND ($2 IS NULL OR e.kind = $2) AND ($3 IS NULL OR e.id < $3) %s ORDER BY e.id DESC LIMIT $4)$q$, ended));
    END IF;
    -- Those that are cancelled, and are ended when somebody chooses next.
    IF of_state IS NULL OR of_state = 'cancelled' THEN
        parts := array_append(parts, $q$(SELECT j.id, 'cancelled', j.kind, j.lane, (-j.rank)::smallint,
            j.attempt, j.attempts, j.created_at, NULL::timestamptz, NULL::timestamptz, NULL::timestamptz, c.at, c.at + greatest(j.keep, 86400) * interval '1 second',
            NULL::bigint, j.error, NULL::json, false
            FROM insula.cancellation c JOIN insula.job j ON j.tenant_id = c.tenant_id AND j.id = c.id AND j.state <> 'r'
            WHERE c.tenant_id = $1 AND ($2 IS NULL OR j.kind = $2) AND ($3 IS NULL OR j.id < $3) ORDER BY j.id DESC LIMIT $4)$q$);
    END IF;
    IF parts IS NULL THEN
        RAISE EXCEPTION 'insula: % is no state of a job', of_state USING ERRCODE = '22023';
    END IF;
    RETURN QUERY EXECUTE format('SELECT * FROM (%s) x ORDER BY 1 DESC LIMIT $4', array_to_string(parts, ' UNION ALL '))
        USING job_list.tenant, of_kind, job_list.before, job_list.most;
END $fn$;

-- One job of a tenant, with its key, its principal and its trace; still without body and result. No row when there is none, or its end is not kept.
CREATE OR REPLACE FUNCTION insula.job_show(tenant bigint, job uuid)
RETURNS TABLE (id uuid, state text, kind text, lane text, priority smallint, attempt integer, attempts integer, created_at timestamptz, due timestamptz,
               started_at timestamptz, deadline timestamptz, ended_at timestamptz, expires_at timestamptz, worker bigint, error text, progress json,
               cancelling boolean, key text, principal text, trace text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT j.id, CASE WHEN j.state = 'r' THEN 'running' WHEN c.id IS NOT NULL THEN 'cancelled' WHEN j.state = 'l' THEN 'later' ELSE 'waiting' END,
           j.kind, j.lane, (-j.rank)::smallint, j.attempt, j.attempts, j.created_at, CASE WHEN j.state = 'r' OR c.id IS NULL THEN j.due END,
           j.started_at, j.deadline, CASE WHEN j.state <> 'r' THEN c.at END,
           CASE WHEN j.state <> 'r' THEN c.at + greatest(j.keep, 86400) * interval '1 second' END, j.worker, j.error, j.progress,
           j.state = 'r' AND c.id IS NOT NULL, j.key, j.principal, j.trace
      FROM insula.job j LEFT JOIN insula.cancellation c ON c.tenant_id = j.tenant_id AND c.id = j.id
     WHERE j.tenant_id = job_show.tenant AND j.id = job_show.job
    UNION ALL
    SELECT e.id, e.outcome, e.kind, e.lane, (-e.rank)::smallint, e.attempt, e.attempts, e.created_at, NULL, NULL, NULL, e.ended_at, e.expires_at, NULL,
           e.error, NULL, false, e.key, e.principal, e.trace
      FROM insula.job_end e WHERE e.tenant_id = job_show.tenant AND e.id = job_show.job AND e.expires_at > clock_timestamp()
$fn$;

-- What a job was asked, and what it answered: the tenant's own data.
CREATE OR REPLACE FUNCTION insula.job_body(tenant bigint, job uuid) RETURNS TABLE (body json, result json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT j.body, NULL::json FROM insula.job j WHERE j.tenant_id = job_body.tenant AND j.id = job_body.job
    UNION ALL
    SELECT e.body, e.result FROM insula.job_end e WHERE e.tenant_id = job_body.tenant AND e.id = job_body.job AND e.expires_at > clock_timestamp()
$fn$;

-- Cancels a job, as insula.cancel_job() does for its tenant. Answers the state that it found, by which the caller knows what came of it: `waiting`
-- and `later` are over, `running` is told; others had ended. NULL when there is none.
CREATE OR REPLACE FUNCTION insula.job_cancel(tenant bigint, job uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    state "char";
BEGIN
    SELECT x.state INTO state FROM insula.job x WHERE x.tenant_id = job_cancel.tenant AND x.id = job_cancel.job;
    IF state IS NULL THEN
        RETURN (SELECT e.outcome FROM insula.job_end e WHERE e.tenant_id = job_cancel.tenant AND e.id = job_cancel.job);
    END IF;
    INSERT INTO insula.cancellation (tenant_id, id) VALUES (job_cancel.tenant, job_cancel.job) ON CONFLICT DO NOTHING;
    RETURN CASE WHEN state = 'r' THEN 'running' WHEN NOT FOUND THEN 'cancelled' WHEN state = 'l' THEN 'later' ELSE 'waiting' END;
END $fn$;

-- Has a job tried again now: a dead letter waits again, with as many attempts as it had; one that waits for its time goes at once. Answers the state
-- that it found: `dead` and `later` wait now, `key` is a dead one whose key a living job has, others are as they were. NULL when there is none.
CREATE OR REPLACE FUNCTION insula.job_retry(tenant bigint, job uuid) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    j insula.job;
    o text;
BEGIN
    SELECT * INTO j FROM insula.job x WHERE x.tenant_id = job_retry.tenant AND x.id = job_retry.job;
    IF j.state <> 'r' AND EXISTS (SELECT FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id) THEN
        RETURN 'cancelled';
    ELSIF j.state = 'l' THEN
        UPDATE insula.job x SET state = 'w', due = clock_timestamp() WHERE x.tenant_id = j.tenant_id AND x.id = j.id AND x.state = 'l';
        INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES (j.tenant_id, j.lane, j.rank, clock_timestamp() - interval '1 second');
        RETURN 'later';
    ELSIF j.id IS NOT NULL THEN
        RETURN CASE j.state WHEN 'r' THEN 'running' ELSE 'waiting' END;
    END IF;
    SELECT e.outcome INTO o FROM insula.job_end e WHERE e.tenant_id = job_retry.tenant AND e.id = job_retry.job;
    IF o = 'dead' AND insula.dead_replay(job_retry.tenant, ARRAY[job_retry.job]) = 0 THEN
        RETURN 'key';
    END IF;
    RETURN o;
END $fn$;

-- All workers that this queue knows, and what they are at: `kinds` is an object of kind and number.
CREATE OR REPLACE FUNCTION insula.worker_list()
RETURNS TABLE (no bigint, name text, lease_ms integer, beats bigint, started_at timestamptz, running bigint, kinds json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT w.no, w.name, w.lease_ms, w.beats, w.started_at, coalesce(r.running, 0)::bigint, coalesce(r.kinds, '{}')
      FROM insula.worker w
      LEFT JOIN (SELECT k.worker, sum(k.n) AS running, json_object_agg(k.kind, k.n) AS kinds
                   FROM (SELECT j.worker, j.kind, count(*) AS n FROM insula.job j WHERE j.state = 'r' GROUP BY 1, 2) k GROUP BY 1) r ON r.worker = w.no
     ORDER BY w.no
$fn$;

-- Whether there is work that a worker would begin, as far as can be told without being one: what has arrived is not in its lane before somebody looks.
CREATE OR REPLACE FUNCTION insula.queue_waits() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT EXISTS (SELECT FROM insula.lane l WHERE l.ready)
        OR EXISTS (SELECT FROM insula.arrival a JOIN insula.tenant t ON t.no = a.tenant_id AND t.state = 'active')
        OR EXISTS (SELECT FROM insula.job j JOIN insula.tenant t ON t.no = j.tenant_id AND t.state = 'active'
                    WHERE j.state = 'l' AND j.due < clock_timestamp() - interval '10 seconds')
$fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;
