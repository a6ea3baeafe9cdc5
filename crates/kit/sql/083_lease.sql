-- Leases, ends that are more than "done", and the house-keeping of the queue. What workers call besides insula.work().
SET LOCAL ROLE insula_queue;

-- A worker process begins: its number, which no other ever has.
CREATE OR REPLACE FUNCTION insula.worker_begin(name text, lease_ms integer) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    INSERT INTO insula.worker (no, name, lease_ms) VALUES (nextval('insula.worker_no'), left(name, 100), lease_ms) RETURNING no
$fn$;

-- Jobs whose worker is no more wait again, or are dead when that was their last attempt. Their attempt stays counted: a job that kills its
-- worker does not do so for ever. Answers how many wait.
CREATE OR REPLACE FUNCTION insula.release_orphans() RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    tenants bigint[];
    freed   bigint;
BEGIN
    -- Who is choosing has counted them as running, and may block their lane by that: so after him.
    PERFORM FROM insula.queue FOR UPDATE;
    WITH o AS MATERIALIZED (
        -- What somebody else has locked, like their worker that is only thought to be lost and says how they ended, is left to the next time.
        SELECT j.tenant_id, j.id FROM insula.job j
         WHERE j.state = 'r' AND NOT EXISTS (SELECT FROM insula.worker w WHERE w.no = j.worker) FOR UPDATE OF j SKIP LOCKED
    ), d AS (
        DELETE FROM insula.job j USING o WHERE j.tenant_id = o.tenant_id AND j.id = o.id AND j.attempt >= j.attempts RETURNING j.*
    ), e AS (
        INSERT INTO insula.job_end (tenant_id, id, outcome, kind, lane, rank, attempt, attempts, cost, keep, created_at, ended_at, expires_at, key,
                                    principal, trace, error, body)
            SELECT d.tenant_id, d.id, 'dead', d.kind, d.lane, d.rank, d.attempt, d.attempts, d.cost, d.keep, d.created_at, clock_timestamp(),
                   clock_timestamp() + greatest(d.keep, 1209600) * interval '1 second', d.key, d.principal, d.trace,
                   'its worker was lost, and that was its last attempt', d.body
              FROM d ON CONFLICT DO NOTHING
    ), w AS (
        UPDATE insula.job j SET state = 'w', worker = NULL, error = 'its worker was lost'
          FROM o WHERE j.tenant_id = o.tenant_id AND j.id = o.id AND j.attempt < j.attempts
        RETURNING j.tenant_id, j.lane, j.rank, j.due
    ), a AS (
        INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT w.tenant_id, w.lane, w.rank, w.due FROM w
    )
    SELECT array_agg(DISTINCT x.tenant_id), count(*) FILTER (WHERE x.waits) INTO tenants, freed
      FROM (SELECT w.tenant_id, true AS waits FROM w UNION ALL SELECT d.tenant_id, false FROM d) x;
    IF tenants IS NOT NULL THEN
        -- All lanes of theirs: a tenant's cap blocks those of other kinds, too.
        UPDATE insula.lane l SET blocked = false WHERE l.blocked AND l.tenant_id = ANY (tenants);
        INSERT INTO insula.arrival (tenant_id, lane, rank, due)
            SELECT l.tenant_id, l.lane, l.head_rank, l.head_due FROM insula.lane l WHERE l.tenant_id = ANY (tenants) AND NOT l.ready;
    END IF;
    RETURN freed;
END $fn$;

-- Ends waiting jobs that are cancelled, at most so many, and forgets cancellations of jobs that are over. Answers how many it ended. Under the lock
-- on insula.queue, so that none of them is chosen meanwhile; and whatever somebody else has locked is left to the next time.
CREATE OR REPLACE FUNCTION insula.end_cancelled(most integer) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    now     timestamptz := clock_timestamp();
    tenants bigint[];
    ended   bigint;
BEGIN
    WITH x AS MATERIALIZED (
        SELECT c.tenant_id, c.id, c.at, c.heir
          FROM insula.cancellation c JOIN insula.job j ON j.tenant_id = c.tenant_id AND j.id = c.id AND j.state <> 'r'
         LIMIT most FOR UPDATE OF c, j SKIP LOCKED
    ), c AS (
        DELETE FROM insula.cancellation c USING x WHERE c.tenant_id = x.tenant_id AND c.id = x.id
    ), j AS (
        DELETE FROM insula.job j USING x WHERE j.tenant_id = x.tenant_id AND j.id = x.id RETURNING j.*, x.at, x.heir
    ), e AS (
        INSERT INTO insula.job_end (tenant_id, id, outcome, kind, lane, rank, attempt, attempts, cost, keep, created_at, ended_at, expires_at, key,
                                    principal, trace, error, body)
            SELECT j.tenant_id, j.id, 'cancelled', j.kind, j.lane, j.rank, j.attempt, j.attempts, j.cost, j.keep, j.created_at, j.at,
                   now + greatest(j.keep, 86400) * interval '1 second', j.key, j.principal, j.trace, j.error, j.body
              FROM j ON CONFLICT DO NOTHING
    ), h AS (
        -- Nobody else can have come to the key, which the row before had until now. An heir that is cancelled itself needs none.
        UPDATE insula.job h SET key = k.key
          FROM (SELECT h.tenant_id, h.id, j.key FROM j CROSS JOIN LATERAL (
                    SELECT h.tenant_id, h.id FROM insula.job h WHERE h.tenant_id = j.tenant_id AND h.id = j.heir AND h.kind = j.kind AND h.key IS NULL
                       AND NOT EXISTS (SELECT FROM insula.cancellation c WHERE c.tenant_id = h.tenant_id AND c.id = h.id)
                       FOR UPDATE SKIP LOCKED) h WHERE j.heir IS NOT NULL) k
         WHERE h.tenant_id = k.tenant_id AND h.id = k.id
    )
    SELECT array_agg(DISTINCT j.tenant_id), count(*) INTO tenants, ended FROM j;
    IF ended > 0 THEN
        -- One that was chosen and then passed counted against its lane.
        UPDATE insula.lane l SET blocked = false WHERE l.blocked AND l.tenant_id = ANY (tenants);
        INSERT INTO insula.arrival (tenant_id, lane, rank, due)
            SELECT l.tenant_id, l.lane, l.head_rank, l.head_due FROM insula.lane l WHERE l.tenant_id = ANY (tenants) AND NOT l.ready;
    END IF;
    DELETE FROM insula.cancellation c WHERE c.ctid = ANY (ARRAY(
        SELECT c.ctid FROM insula.cancellation c WHERE NOT EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = c.tenant_id AND j.id = c.id)
         LIMIT most FOR UPDATE SKIP LOCKED));
    RETURN ended;
END $fn$;

-- A sign of life, at least three in a lease. Brings progress (`{"t": tenant, "i": id, "a": attempt, "p": anything}`) and how far measured costs
-- were from those charged (`{"t": tenant, "l": lane, "u": units}`); takes along what is to be cancelled. No row means no lease: the worker was
-- given up, and must stop its jobs.
CREATE OR REPLACE FUNCTION insula.worker_beat(me bigint, progress jsonb, corrections jsonb)
RETURNS TABLE (alive boolean, tenant_id bigint, id uuid) LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
#variable_conflict use_column
DECLARE
    q insula.queue;
BEGIN
    UPDATE insula.worker w SET beats = w.beats + 1 WHERE w.no = me;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF progress IS NOT NULL THEN
        UPDATE insula.job j SET progress = x.p FROM jsonb_to_recordset(worker_beat.progress) x (t bigint, i uuid, a integer, p json)
         WHERE j.tenant_id = x.t AND j.id = x.i AND j.attempt = x.a AND j.worker = me;
    END IF;
    IF corrections IS NOT NULL THEN
        SELECT * INTO q FROM insula.queue FOR UPDATE;
        -- Never before the present: what nobody else wanted is not saved up.
        UPDATE insula.lane l SET start = greatest(l.start + x.u * 80640 / l.weight, least(l.start, q.present))
          FROM (SELECT x.t, sum(x.u) AS u FROM jsonb_to_recordset(corrections) x (t bigint, u bigint) GROUP BY 1) x WHERE l.tenant_id = x.t;
    END IF;
    RETURN QUERY SELECT true, NULL::bigint, NULL::uuid;
    IF EXISTS (SELECT FROM insula.cancellation) THEN
        -- From what runs, of which there is less than may be cancelled.
        RETURN QUERY WITH j AS MATERIALIZED (SELECT j.tenant_id, j.id FROM insula.job j WHERE j.state = 'r' AND j.worker = me)
            SELECT true, j.tenant_id, j.id FROM j
             WHERE (SELECT c.id FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id) IS NOT NULL;
    END IF;
END $fn$;

-- What a worker has, as the queue sees it: for one that lost an answer, and does not know what it was given.
CREATE OR REPLACE FUNCTION insula.worker_holds(me bigint) RETURNS TABLE (tenant_id bigint, id uuid, attempt integer, lane text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT j.tenant_id, j.id, j.attempt, j.lane FROM insula.job j WHERE j.state = 'r' AND j.worker = me
$fn$;

-- All workers, for whoever watches.
CREATE OR REPLACE FUNCTION insula.workers() RETURNS TABLE (no bigint, name text, lease_ms integer, beats bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT w.no, w.name, w.lease_ms, w.beats FROM insula.worker w
$fn$;

-- Gives up a worker that has not beaten since it was seen at `seen`: by the clock of the caller, which waited for longer than a lease.
CREATE OR REPLACE FUNCTION insula.worker_bury(no bigint, seen bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    DELETE FROM insula.worker w WHERE w.no = worker_bury.no AND w.beats = seen;
    RETURN CASE WHEN FOUND THEN insula.release_orphans() ELSE -1 END;
END $fn$;

-- A worker ends in good order. What it still has waits again.
CREATE OR REPLACE FUNCTION insula.worker_end(me bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    DELETE FROM insula.worker w WHERE w.no = me;
    RETURN insula.release_orphans();
END $fn$;

-- Ends that are more than "done": `{"t": tenant, "i": id, "a": attempt, "o": outcome, "d": delay in ms, "e": error, "r": result}`.
-- Outcomes: done (with a result, or kept), retry, dead, cancelled, back (not started: tried again, and not counted; in the lane "n" where that is given,
-- at once). Answers how many were believed.
CREATE OR REPLACE FUNCTION insula.settle(me bigint, ends jsonb) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    now  timestamptz := clock_timestamp();
    well jsonb;
    gone bigint;
    kept bigint;
BEGIN
    WITH x AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(ends) x (t bigint, i uuid, a integer, o text, d bigint, e text, r json)),
         j AS (DELETE FROM insula.job j USING x
                WHERE j.tenant_id = x.t AND j.id = x.i AND j.attempt = x.a AND j.worker = me AND x.o IN ('done', 'dead', 'cancelled')
               RETURNING j.*, x.o, x.e, x.r),
         -- One that its tenant has locked is forgotten later, by insula.end_cancelled().
         c AS (DELETE FROM insula.cancellation c WHERE c.ctid = ANY (ARRAY(
                   SELECT c.ctid FROM j JOIN insula.cancellation c ON c.tenant_id = j.tenant_id AND c.id = j.id FOR UPDATE OF c SKIP LOCKED))),
         e AS (
        INSERT INTO insula.job_end AS e (tenant_id, id, outcome, kind, lane, rank, attempt, attempts, cost, keep, created_at, ended_at, expires_at, key,
                                         principal, trace, error, result, body)
            SELECT j.tenant_id, j.id, j.o, j.kind, j.lane, j.rank, j.attempt, j.attempts, j.cost, j.keep, j.created_at, now,
                   now + CASE j.o WHEN 'done' THEN j.keep WHEN 'dead' THEN greatest(j.keep, 1209600) ELSE greatest(j.keep, 86400) END * interval '1 second',
                   j.key, j.principal, j.trace, left(coalesce(j.e, j.error), 4000), j.r, j.body
              FROM j
            ON CONFLICT (tenant_id, id) DO UPDATE SET outcome = excluded.outcome, ended_at = excluded.ended_at, expires_at = excluded.expires_at,
                error = excluded.error, result = excluded.result, attempt = excluded.attempt)
    SELECT count(*), jsonb_agg(DISTINCT jsonb_build_object('t', j.tenant_id, 'l', j.lane)) FILTER (WHERE j.o = 'done') INTO gone, well FROM j;
    WITH x AS MATERIALIZED (SELECT x.t, x.i, x.a, x.o, x.e, x.n, CASE WHEN x.n IS NULL THEN coalesce(x.d, 0) ELSE 0 END AS d
                              FROM jsonb_to_recordset(ends) x (t bigint, i uuid, a integer, o text, d bigint, e text, n text)),
         j AS (UPDATE insula.job j
                  SET state = CASE WHEN x.d > 0 THEN 'l'::"char" ELSE 'w'::"char" END, worker = NULL, progress = NULL,
                      due = CASE WHEN x.d > 0 THEN now + x.d * interval '1 millisecond' ELSE j.due END,
                      lane = coalesce(x.n, j.lane),
                      -- The attempt only ever grows, because it is the fence; so what was not tried may be tried once more.
                      attempts = CASE x.o WHEN 'back' THEN j.attempts + 1 ELSE j.attempts END,
                      error = CASE x.o WHEN 'back' THEN j.error ELSE left(x.e, 4000) END
                 FROM x
                WHERE j.tenant_id = x.t AND j.id = x.i AND j.attempt = x.a AND j.worker = me AND x.o IN ('retry', 'back')
               RETURNING j.tenant_id, j.lane, j.rank, j.due, j.state)
    INSERT INTO insula.arrival (tenant_id, lane, rank, due)
        SELECT j.tenant_id, j.lane, j.rank, j.due FROM j WHERE j.state = 'w';
    GET DIAGNOSTICS kept = ROW_COUNT;
    -- Who is choosing has counted these jobs as running, and may block their lanes by that: so lanes are looked at after him, and as he left them. Not
    -- before: outputs may be large, and whoever chooses would wait for their being written.
    PERFORM FROM insula.queue FOR UPDATE;
    UPDATE insula.lane l SET failures = 0 FROM jsonb_to_recordset(well) d (t bigint, l text)
     WHERE l.tenant_id = d.t AND l.lane = d.l AND l.failures > 0;
    -- The breaker: ten failures in a row, whichever jobs', stop the lane for a second, and each time that it fails again for twice as long, up to five
    -- minutes. Then one job may try. Those that were at work together fail as one. Whatever ended may also have let a blocked lane go on: an arrival has it looked at.
    UPDATE insula.lane l
       SET failures = least(l.failures + f.n, greatest(10, l.failures + 1)), blocked = false,
           wake_at = CASE WHEN l.failures + f.n >= 10 THEN now + least(power(2, least(greatest(l.failures - 9, 0), 20)), 300) * interval '1 second' ELSE l.wake_at END,
           ready = l.ready AND l.failures + f.n < 10
      FROM (SELECT x.t, j.lane, count(*)::integer AS n FROM jsonb_to_recordset(ends) x (t bigint, o text, l text) CROSS JOIN LATERAL (SELECT x.l AS lane) j
             WHERE x.o IN ('retry', 'dead') GROUP BY 1, 2) f
     WHERE l.tenant_id = f.t AND l.lane = f.lane;
    UPDATE insula.lane l SET blocked = false WHERE l.blocked AND l.tenant_id IN (SELECT x.t FROM jsonb_to_recordset(ends) x (t bigint));
    INSERT INTO insula.arrival (tenant_id, lane, rank, due)
        SELECT l.tenant_id, l.lane, l.head_rank, l.head_due
          FROM (SELECT DISTINCT x.t FROM jsonb_to_recordset(ends) x (t bigint)) x JOIN insula.lane l ON l.tenant_id = x.t WHERE NOT l.ready;
    RETURN gone + kept;
END $fn$;

-- What a worker knows of lanes: `{"t": tenant, "l": lane, "w": weight, "c": cap, "tc": the tenant's cap, "p": pace in us, "b": burst, "m": its mark}`.
CREATE OR REPLACE FUNCTION insula.tell_lanes(lanes jsonb) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    PERFORM FROM insula.queue FOR UPDATE;
    UPDATE insula.lane l SET weight = greatest(x.w, 1), cap = x.c, tenant_cap = x.tc, pace = x.p, burst = greatest(coalesce(x.b, 1), 1), told = x.m,
           blocked = false, wake_at = CASE WHEN x.p IS NULL AND l.failures < 10 THEN NULL ELSE l.wake_at END
      FROM jsonb_to_recordset(lanes) x (t bigint, l text, w integer, c integer, tc integer, p bigint, b integer, m bigint)
     WHERE l.tenant_id = x.t AND l.lane = x.l;
    INSERT INTO insula.arrival (tenant_id, lane, rank, due)
        SELECT l.tenant_id, l.lane, l.head_rank, l.head_due FROM jsonb_to_recordset(lanes) x (t bigint, l text)
          JOIN insula.lane l ON l.tenant_id = x.t AND l.lane = x.l WHERE NOT l.ready;
END $fn$;

-- Whether enqueueing is to notify: a worker with free places that found nothing sleeps.
CREATE OR REPLACE FUNCTION insula.worker_sleeps(sleeps boolean) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT setval('insula.asleep', CASE WHEN sleeps THEN 2 ELSE 1 END)
$fn$;

-- The same in a database of one tenant, where workers only pass by: whether whoever enqueues is to ring in the pool's database.
CREATE OR REPLACE FUNCTION insula.worker_away(away boolean) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT setval('insula.asleep', CASE WHEN away THEN 3 ELSE 1 END)
$fn$;

-- What a worker that passes by has to know: whether there is anything to do now, how many workers are here (or were, and have left jobs), and
-- in how many milliseconds there will be something by time alone; NULL: never.
CREATE OR REPLACE FUNCTION insula.glance() RETURNS TABLE (work boolean, workers bigint, next_ms bigint) LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $fn$
DECLARE
    now  timestamptz := clock_timestamp();
    next timestamptz := least((SELECT min(j.due) FROM insula.job j WHERE j.state = 'l'), (SELECT min(l.wake_at) FROM insula.lane l));
BEGIN
    -- What a clock that was set back has left is to be put right.
    RETURN QUERY SELECT EXISTS (SELECT FROM insula.arrival) OR EXISTS (SELECT FROM insula.lane l WHERE l.ready) OR coalesce(next <= now, false)
            OR EXISTS (SELECT FROM insula.queue q WHERE q.swept_at > now + interval '1 second'),
        (SELECT count(*) FROM insula.worker), (extract(epoch FROM next - now) * 1000)::bigint;
END $fn$;

-- Forgets lanes with a name that are idle: nothing is in them, and nothing was for `idle`. Looks at so many at most. Under the lock on insula.queue.
-- What comes later makes its lane anew.
CREATE OR REPLACE FUNCTION insula.forget_lanes(idle interval, most integer) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    now  timestamptz := clock_timestamp();
    gone bigint;
BEGIN
    WITH n AS MATERIALIZED (
        SELECT n.ctid AS place, n.tenant_id, n.lane FROM insula.lane_name n WHERE n.seen_at < now - idle ORDER BY n.seen_at LIMIT most
    ), f AS MATERIALIZED (
        SELECT DISTINCT n.tenant_id, n.lane FROM n
         WHERE NOT EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = n.tenant_id AND j.lane = n.lane AND j.state = 'w')
           AND NOT EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = n.tenant_id AND j.lane = n.lane AND j.state = 'r')
           AND NOT EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = n.tenant_id AND j.lane = n.lane AND j.state = 'l' AND j.lane <> '')
           AND NOT EXISTS (SELECT FROM insula.lane l WHERE l.tenant_id = n.tenant_id AND l.lane = n.lane
                              AND (l.ready OR l.since > now - idle OR l.paid_until > now OR l.wake_at > now))
    ), l AS (
        DELETE FROM insula.lane l USING f WHERE l.tenant_id = f.tenant_id AND l.lane = f.lane RETURNING l.tenant_id, l.start, l.held
    ), o AS (
        -- What the tenant owes for them it goes on owing, in its common lane.
        INSERT INTO insula.lane AS x (tenant_id, start, siblings, held)
            SELECT l.tenant_id, max(l.start), true, bool_or(l.held) FROM l CROSS JOIN insula.queue q WHERE l.start > q.present GROUP BY 1
            ON CONFLICT (tenant_id, lane) DO UPDATE SET start = greatest(x.start, excluded.start)
    ), d AS (
        DELETE FROM insula.lane_name n USING f WHERE n.tenant_id = f.tenant_id AND n.lane = f.lane
    ), a AS (
        -- There is a place now for those that did not find one.
        INSERT INTO insula.arrival (tenant_id, lane, rank, due)
            SELECT DISTINCT w.tenant_id, w.lane, -32768, '-infinity'::timestamptz
              FROM (SELECT DISTINCT l.tenant_id FROM l) t JOIN insula.lane_name w ON w.tenant_id = t.tenant_id
             WHERE NOT EXISTS (SELECT FROM insula.lane l WHERE l.tenant_id = w.tenant_id AND l.lane = w.lane)
               AND EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = w.tenant_id AND j.lane = w.lane AND j.state = 'w')
    ), u AS (
        UPDATE insula.lane_name x SET seen_at = now FROM n
         WHERE x.ctid = n.place AND NOT EXISTS (SELECT FROM f WHERE f.tenant_id = n.tenant_id AND f.lane = n.lane)
    )
    SELECT count(*) INTO gone FROM f;
    RETURN gone;
END $fn$;

-- This server's clock was set back, by so much about. Nobody is to wait for the time of before: lanes begin their paces and breakers anew, and jobs that
-- were delayed by that clock come when they would have. Whether that is all of them; a part at a time, because there may be many.
CREATE OR REPLACE FUNCTION insula.clock_set_back(much interval) RETURNS boolean LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    now  timestamptz := clock_timestamp();
    done bigint;
BEGIN
    UPDATE insula.lane l SET since = least(l.since, now), served_at = least(l.served_at, now), wake_at = CASE WHEN l.wake_at > now THEN now ELSE l.wake_at END,
           paid_until = CASE WHEN l.paid_until > now THEN now ELSE l.paid_until END
     WHERE l.since > now OR l.served_at > now OR l.wake_at > now OR l.paid_until > now;
    WITH x AS MATERIALIZED (
        SELECT j.tenant_id, j.id FROM insula.job j WHERE j.state = 'l' AND j.due > now AND (j.created_at > now OR j.started_at > now)
         ORDER BY j.due LIMIT 10000 FOR UPDATE SKIP LOCKED
    )
    UPDATE insula.job j SET due = greatest(j.due - much, now), created_at = least(j.created_at, now),
           started_at = CASE WHEN j.started_at > now THEN now ELSE j.started_at END
      FROM x WHERE j.tenant_id = x.tenant_id AND j.id = x.id;
    GET DIAGNOSTICS done = ROW_COUNT;
    RETURN done < 10000;
END $fn$;

-- House-keeping, by whoever comes when nobody has for `every_ms`: forgets ends that are over, events that are, and idle lanes, frees jobs
-- without a worker, and sets the floor right. One that was done later than now tells that the clock was set back.
CREATE OR REPLACE FUNCTION insula.sweep_queue(every_ms integer) RETURNS boolean LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    before timestamptz;
BEGIN
    SELECT q.swept_at INTO before FROM insula.queue q
     WHERE q.swept_at < clock_timestamp() - every_ms * interval '1 millisecond' OR q.swept_at > clock_timestamp() + interval '1 second'
       FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF before > clock_timestamp() AND NOT insula.clock_set_back(before - clock_timestamp()) THEN
        RETURN true;
    END IF;
    UPDATE insula.queue SET swept_at = clock_timestamp(), floor = least(floor, (SELECT min(l.start) FROM insula.lane l WHERE l.ready));
    -- One that is being written by insula.settle(), which wants this lock, too, is passed over.
    DELETE FROM insula.job_end e WHERE e.ctid = ANY (ARRAY(
        SELECT x.ctid FROM insula.job_end x WHERE x.expires_at < clock_timestamp() ORDER BY x.expires_at LIMIT 5000 FOR UPDATE SKIP LOCKED));
    PERFORM insula.release_orphans(), insula.end_cancelled(2000), insula.forget_lanes('1 hour', 1000), insula.sweep_events(60000);
    RETURN true;
END $fn$;

-- What metrics show: lanes, and of each weight the thousand that were not served for longest. By weight, which is the tier's, so that those who wait in one
-- tier do not hide those who wait in another; many, because a lane of which nothing was begun yet has the least.
CREATE OR REPLACE FUNCTION insula.queue_state() RETURNS TABLE (tenant_id bigint, waits_ms bigint, ready bigint, held bigint, blocked bigint, stopped bigint, running bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT o.tenant_id, (extract(epoch FROM clock_timestamp() - o.since) * 1000)::bigint, n.ready, n.held, n.blocked, n.stopped,
           (SELECT count(*) FROM insula.job j WHERE j.state = 'r')
      FROM (SELECT count(*) FILTER (WHERE l.ready) AS ready, count(*) FILTER (WHERE l.held) AS held, count(*) FILTER (WHERE l.blocked) AS blocked,
                   count(*) FILTER (WHERE l.failures >= 10) AS stopped FROM insula.lane l) n
      LEFT JOIN (SELECT x.tenant_id, x.since
                   FROM (SELECT l.tenant_id, l.since, row_number() OVER (PARTITION BY l.weight ORDER BY l.since) AS place FROM insula.lane l WHERE l.ready) x
                  WHERE x.place <= 1000) o ON true
$fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;
