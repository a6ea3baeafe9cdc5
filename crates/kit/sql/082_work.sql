-- insula.work(): ends what is done and takes what is next, in one round trip. The choice is start-time fair queueing on insula.lane, as
-- crates/planner/src/lanes.rs has it; 80640 is its unit. One chooser at a time (the row of insula.queue), so the order is exact, and
-- there is nothing to skip. What it reads grows with what it takes and not with what waits: the first `want` lanes from the floor, and
-- of each the first jobs from its head.
GRANT CREATE ON SCHEMA insula TO insula_queue;
GRANT USAGE ON SCHEMA insula TO insula_queue, insula_worker;
SET LOCAL ROLE insula_queue;

-- Lets delayed jobs wait whose time has come: the thousand oldest, and when there are more, up to a thousand of tenants by turns, so that one's many do
-- not delay another's few. Whoever has delayed jobs is found by stepping through the index from tenant to tenant, a thousand of them at a time.
CREATE OR REPLACE FUNCTION insula.let_go(now timestamptz) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    last  bigint;
    moved bigint;
    come  bigint[];
BEGIN
    WITH p AS (SELECT j.tenant_id, j.id FROM insula.job j WHERE j.state = 'l' AND j.due <= let_go.now ORDER BY j.due LIMIT 1000 FOR UPDATE SKIP LOCKED),
         u AS (UPDATE insula.job j SET state = 'w' FROM p WHERE j.tenant_id = p.tenant_id AND j.id = p.id RETURNING j.tenant_id, j.lane, j.rank, j.due),
         a AS (INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT u.tenant_id, u.lane, u.rank, min(u.due) FROM u GROUP BY 1, 2, 3)
    SELECT count(*) INTO moved FROM u;
    IF moved < 1000 THEN
        RETURN;
    END IF;
    SELECT q.turn INTO last FROM insula.queue q;
    WITH RECURSIVE behind (no, due) AS (
        (SELECT j.tenant_id, j.due FROM insula.job j WHERE j.state = 'l' AND j.tenant_id > last ORDER BY j.tenant_id, j.due LIMIT 1)
        UNION ALL
        SELECT n.* FROM behind w CROSS JOIN LATERAL (
            SELECT j.tenant_id, j.due FROM insula.job j WHERE j.state = 'l' AND j.tenant_id > w.no ORDER BY j.tenant_id, j.due LIMIT 1) n
    ), before (no, due) AS (
        (SELECT j.tenant_id, j.due FROM insula.job j WHERE j.state = 'l' AND j.tenant_id <= last ORDER BY j.tenant_id, j.due LIMIT 1)
        UNION ALL
        SELECT n.* FROM before w CROSS JOIN LATERAL (
            SELECT j.tenant_id, j.due FROM insula.job j WHERE j.state = 'l' AND j.tenant_id > w.no AND j.tenant_id <= last
             ORDER BY j.tenant_id, j.due LIMIT 1) n
    )
    SELECT array_agg(w.no ORDER BY w.n) FILTER (WHERE w.due <= let_go.now), (array_agg(w.no ORDER BY w.n DESC))[1] INTO come, last
      FROM (SELECT w.*, row_number() OVER () AS n FROM (SELECT * FROM (SELECT * FROM behind UNION ALL SELECT * FROM before) w LIMIT 1000) w) w;
    UPDATE insula.queue SET turn = last WHERE turn <> last;
    WITH p AS (SELECT j.tenant_id, j.id FROM unnest(come) t (no) CROSS JOIN LATERAL (
                   SELECT j.tenant_id, j.id FROM insula.job j WHERE j.tenant_id = t.no AND j.state = 'l' AND j.due <= let_go.now
                    ORDER BY j.due LIMIT 1000 / cardinality(come) FOR UPDATE SKIP LOCKED) j),
         u AS (UPDATE insula.job j SET state = 'w' FROM p WHERE j.tenant_id = p.tenant_id AND j.id = p.id RETURNING j.tenant_id, j.lane, j.rank, j.due)
    INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT u.tenant_id, u.lane, u.rank, min(u.due) FROM u GROUP BY 1, 2, 3;
END $fn$;

-- Puts lanes where arrivals say, and lets jobs and lanes go on whose time has come. Under the lock on insula.queue.
CREATE OR REPLACE FUNCTION insula.welcome(q insula.queue, now timestamptz) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $fn$
DECLARE
    more bigint[];
BEGIN
    IF EXISTS (SELECT FROM insula.job j WHERE j.state = 'l' AND j.due <= welcome.now) THEN
        PERFORM insula.let_go(welcome.now);
    END IF;
    IF EXISTS (SELECT FROM insula.lane l WHERE l.wake_at <= welcome.now) THEN
        UPDATE insula.lane l SET wake_at = NULL, ready = NOT (l.held OR l.blocked), start = greatest(l.start, q.present), since = welcome.now
         WHERE l.wake_at <= welcome.now;
    END IF;
    -- All of one's arrivals that are visible are consumed; those of transactions that had not ended stay. So what is before the oldest
    -- transaction need never be looked at again.
    WITH a AS (DELETE FROM insula.arrival a WHERE a.xid >= q.arrivals RETURNING a.tenant_id, a.lane, a.rank, a.due),
         -- The least rank with the least time: at or before every job that came.
         m AS MATERIALIZED (SELECT a.tenant_id, a.lane, min(a.rank) AS rank, min(a.due) AS due FROM a GROUP BY 1, 2),
         u AS (UPDATE insula.lane l
                  SET head_rank = least(l.head_rank, m.rank),
                      head_due = CASE WHEN m.rank < l.head_rank THEN m.due WHEN m.rank = l.head_rank THEN least(l.head_due, m.due) ELSE l.head_due END,
                      start = CASE WHEN l.ready THEN l.start ELSE greatest(l.start, q.present) END,
                      since = CASE WHEN l.ready THEN l.since ELSE welcome.now END,
                      ready = NOT (l.held OR l.blocked OR l.wake_at IS NOT NULL),
                      known_places = NULL, known_dues = NULL
                 FROM m
                WHERE l.tenant_id = m.tenant_id AND l.lane = m.lane
                  -- Also what is before the last that is known: it would be passed over.
                  AND (NOT l.ready OR (m.rank, m.due) < (l.head_rank, greatest(l.head_due, l.known_dues[cardinality(l.known_dues)])))),
         c AS MATERIALIZED (SELECT m.tenant_id, m.lane, count(*) OVER (PARTITION BY m.tenant_id) AS together,
                                   row_number() OVER (PARTITION BY m.tenant_id, m.lane = '' ORDER BY m.lane) AS nth
                              FROM m WHERE NOT EXISTS (SELECT FROM insula.lane x WHERE x.tenant_id = m.tenant_id AND x.lane = m.lane)),
         i AS (INSERT INTO insula.lane (tenant_id, lane, start, ready, held, siblings, since)
                   SELECT c.tenant_id, c.lane, greatest(q.present, s.start), t.no IS NOT NULL, t.no IS NULL,
                          s.start IS NOT NULL OR c.together > 1, welcome.now
                     FROM c
                     LEFT JOIN insula.tenant t ON t.no = c.tenant_id AND t.state = 'active'
                     CROSS JOIN LATERAL (SELECT max(x.start) AS start, count(*) FILTER (WHERE x.lane <> '') AS named
                                           FROM insula.lane x WHERE x.tenant_id = c.tenant_id) s
                    -- More than a tenant may have, by transactions that did not see each other's: those wait for insula.forget_lanes().
                    WHERE c.lane = '' OR s.named + c.nth <= 128
                   RETURNING tenant_id, siblings),
         -- Also those of schedules, sweeps and dead letters, and one that was forgotten while a transaction was enqueueing to it.
         n AS (INSERT INTO insula.lane_name (tenant_id, lane)
                   SELECT c.tenant_id, c.lane FROM c
                    WHERE c.lane <> '' AND NOT EXISTS (SELECT FROM insula.lane_name n WHERE n.tenant_id = c.tenant_id AND n.lane = c.lane))
    SELECT array_agg(i.tenant_id) FILTER (WHERE i.siblings) INTO more FROM i;
    -- By itself: of two changes of one row in one statement Postgres leaves one out without a word, and the other lane may be one of `u`.
    IF more IS NOT NULL THEN
        UPDATE insula.lane l SET siblings = true WHERE l.tenant_id = ANY (more) AND NOT l.siblings;
    END IF;
END $fn$;

-- How many jobs a lane may start now by its caps and its breaker, at most `want`; -1 when it is the turn of another lane of its tenant.
CREATE OR REPLACE FUNCTION insula.room(l insula.lane, want bigint) RETURNS bigint LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    room bigint := want;
BEGIN
    -- A count of what runs, which the cap bounds, and not of what waits.
    IF l.cap IS NOT NULL THEN
        room := least(room, l.cap - (SELECT count(*) FROM insula.job j WHERE j.tenant_id = l.tenant_id AND j.lane = l.lane AND j.state = 'r'));
    END IF;
    IF l.tenant_cap IS NOT NULL THEN
        room := least(room, l.tenant_cap - (SELECT count(*) FROM insula.job j WHERE j.tenant_id = l.tenant_id AND j.state = 'r'));
        -- One lane of a tenant at a time, so that together they keep its cap: the one that was not served for longest.
        IF l.siblings AND EXISTS (SELECT FROM insula.lane x WHERE x.tenant_id = l.tenant_id AND x.ready AND (x.served_at, x.lane) < (l.served_at, l.lane)) THEN
            RETURN -1;
        END IF;
    END IF;
    -- Half open: one at a time, until one goes well.
    IF l.failures >= 10 THEN
        room := least(room, 1 - (SELECT count(*) FROM insula.job j WHERE j.tenant_id = l.tenant_id AND j.lane = l.lane AND j.state = 'r'));
    END IF;
    RETURN greatest(room, 0);
END $fn$;

-- How many jobs a lane may start now by its rate.
CREATE OR REPLACE FUNCTION insula.paced(l insula.lane, now timestamptz) RETURNS bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT greatest(0, floor(extract(epoch FROM now - greatest(l.paid_until, now)) * 1000000 / l.pace) + l.burst)::bigint
$fn$;

-- Ends what is done (and leaves nothing behind; the rest is settled by insula.settle()) and takes up to `want`.
-- A row of another's, or of an attempt that is over, is left alone.
CREATE OR REPLACE FUNCTION insula.work(me bigint, done_tenants bigint[], done_ids uuid[], done_attempts integer[], want bigint)
RETURNS TABLE (tenant_id bigint, id uuid, kind text, lane text, attempt integer, attempts integer, cost integer, keep integer, priority smallint,
               overdue boolean, waited_us bigint, told bigint, principal text, trace text, body text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $fn$
#variable_conflict use_column
DECLARE
    now     timestamptz;
    horizon xid8;
    q       insula.queue;
    stopped boolean;
    mended  text[];
    came    boolean;
    crowd   boolean;
    top     bigint;
    upto    bigint;
    known   tid[];
    others  tid[];
    given   bigint;
    gave    boolean;
    cancels boolean;
BEGIN
    IF cardinality(done_ids) > 0 THEN
        -- Who has a worker runs. Not `state = 'r'` as well: the index of what runs would be taken for this, and it has no ids.
        IF EXISTS (SELECT FROM insula.lane l WHERE l.failures > 0) THEN
            WITH d AS (DELETE FROM insula.job j USING unnest(done_tenants, done_ids, done_attempts) f (tenant_id, id, attempt)
                        WHERE j.tenant_id = f.tenant_id AND j.id = f.id AND j.attempt = f.attempt AND j.worker = work.me RETURNING j.tenant_id, j.lane)
            SELECT array_agg(DISTINCT d.tenant_id || ':' || d.lane) INTO mended FROM d;
        ELSE
            DELETE FROM insula.job j USING unnest(done_tenants, done_ids, done_attempts) f (tenant_id, id, attempt)
             WHERE j.tenant_id = f.tenant_id AND j.id = f.id AND j.attempt = f.attempt AND j.worker = work.me;
        END IF;
    ELSIF want <= 0 THEN
        RETURN;
    END IF;
    SELECT * INTO q FROM insula.queue FOR UPDATE;
    now := clock_timestamp();
    -- Before arrivals are looked for: what is not seen by then is not behind it.
    horizon := pg_snapshot_xmin(pg_current_snapshot());
    -- What is seldom, asked for at once.
    SELECT EXISTS (SELECT FROM insula.lane l WHERE l.blocked),
           EXISTS (SELECT FROM insula.arrival a WHERE a.xid >= q.arrivals) OR EXISTS (SELECT FROM insula.job j WHERE j.state = 'l' AND j.due <= now)
           OR EXISTS (SELECT FROM insula.lane l WHERE l.wake_at <= now),
           EXISTS (SELECT FROM insula.cancellation)
      INTO stopped, came, cancels;
    IF cancels THEN
        -- Those that are more than it ends at once are passed when they are chosen, and what they blocked goes on when they are ended.
        came := insula.end_cancelled(500) > 0 OR came;
    END IF;
    IF cardinality(done_ids) > 0 THEN
        IF stopped THEN
            UPDATE insula.lane l SET blocked = false, ready = NOT (l.held OR l.wake_at IS NOT NULL), start = greatest(l.start, q.present), since = now
             WHERE l.blocked AND l.tenant_id = ANY (done_tenants);
        END IF;
        IF mended IS NOT NULL THEN
            UPDATE insula.lane l SET failures = 0 WHERE l.failures > 0 AND l.tenant_id || ':' || l.lane = ANY (mended);
        END IF;
    END IF;
    IF want <= 0 THEN
        RETURN;
    END IF;
    IF came THEN
        PERFORM insula.welcome(q, now);
    END IF;

    -- Lanes may turn out to have nothing for now: then the next are looked at.
    FOR round IN 1..50 LOOP
    gave := false;
    -- Lanes as many as jobs are wanted, and nobody's second comes before the last one's first: one of each, which takes less to choose.
    SELECT count(*) >= want AND min(l.start + 80640 / l.weight) > max(l.start) AND NOT bool_or(l.siblings),
           max(l.start), max(l.start) FILTER (WHERE l.known), array_agg(l.spot) FILTER (WHERE l.known), array_agg(l.spot) FILTER (WHERE NOT l.known)
      INTO crowd, top, upto, known, others
      FROM (SELECT l.ctid AS spot, l.start, l.weight, l.siblings,
                   NOT cancels AND l.known_dues[l.known_at + 1] IS NOT NULL AND l.pace IS NULL
                   AND CASE WHEN l.cap IS NULL AND l.tenant_cap IS NULL AND l.failures < 10 THEN true ELSE insula.room(l, 2) > 1 END AS known
              FROM insula.lane l WHERE l.ready AND l.start >= q.floor ORDER BY l.start LIMIT want) l;
    IF crowd AND known IS NOT NULL THEN
        -- Those of which is known what is next and what comes then, and that may go on then. No scan, and nothing else to find out.
        RETURN QUERY
        WITH s AS (
            UPDATE insula.lane l
               SET start = l.start + l.known_cost::bigint * 80640 / l.weight, head_due = l.known_dues[l.known_at + 1], known_at = l.known_at + 1, since = now
             WHERE l.ctid = ANY (known)
            RETURNING l.tenant_id, l.lane, l.head_rank AS rank, l.known_dues[l.known_at - 1] AS due, l.known_cost AS cost, l.known_places[l.known_at - 1] AS place, l.told
        ), v AS (
            UPDATE insula.queue SET arrivals = horizon, present = greatest(q.present, upto), floor = least(greatest(q.present, upto), top)
        )
        UPDATE insula.job j SET state = 'r', worker = me, attempt = j.attempt + 1, started_at = now
          FROM s
         WHERE j.ctid = s.place AND j.state = 'w' AND j.tenant_id = s.tenant_id AND j.lane = s.lane AND j.rank = s.rank AND j.due = s.due AND j.cost = s.cost
        RETURNING j.tenant_id, j.id, j.kind, j.lane, j.attempt, j.attempts, j.cost, j.keep, (-j.rank)::smallint, coalesce(j.deadline < now, false),
            (date_part('epoch', now - j.due) * 1000000)::bigint, s.told, j.principal, j.trace, j.body::text;
        GET DIAGNOSTICS given = ROW_COUNT;
        gave := given > 0;
        IF given < cardinality(known) THEN
            -- It was not there: taken out by hand, or the table was written anew. Those lanes are looked at again from where they were.
            UPDATE insula.lane l SET head_due = l.known_dues[l.known_at - 1], reach = 'infinity', known_places = NULL, known_dues = NULL
             WHERE l.since = now AND l.known_dues[l.known_at - 1] IS NOT NULL
               AND NOT EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = l.tenant_id AND j.lane = l.lane AND j.state = 'r'
                                  AND j.worker = me AND j.started_at = now);
        END IF;
    END IF;
    IF crowd AND others IS NOT NULL THEN
    RETURN QUERY
    WITH t AS MATERIALIZED (
        SELECT l.spot, l.start, l.weight, l.told, l.room, l.paced,
               coalesce(a.places[1], b.place) AS place, coalesce(a.rank, b.rank) AS rank, coalesce(a.dues[1], b.due) AS due, coalesce(a.costs[1], b.cost) AS cost,
               (a.places[1] IS NOT NULL OR b.place IS NOT NULL)::integer AS taken,
               CASE WHEN a.dues[2] IS NOT NULL THEN a.rank WHEN a.places[1] IS NOT NULL THEN b.rank ELSE b.next_rank END AS next_rank,
               CASE WHEN a.dues[2] IS NOT NULL THEN a.dues[2] WHEN a.places[1] IS NOT NULL THEN b.due ELSE b.next END AS next,
               a.dues[cardinality(a.dues)] AS last, greatest(cardinality(a.dues) - 1, 1) AS gaps, a.dues[3] IS NOT NULL AND a.costs[1] = ALL (a.costs) AS alike, a.places, a.dues
          FROM (SELECT l.ctid AS spot, l.*,
                       CASE WHEN l.cap IS NULL AND l.tenant_cap IS NULL AND l.failures < 10 THEN want + 1 ELSE insula.room(l, want + 1) END AS room,
                       CASE WHEN l.pace IS NULL THEN want + 1 ELSE insula.paced(l, now) END AS paced
                  FROM unnest(others) o (spot) JOIN insula.lane l ON l.ctid = o.spot OFFSET 0) l
          -- Its first and, to know whether anything is left and where, those behind it: from its head, as far as they reached when it was looked at last.
          -- The end matters: Postgres reads whatever a page of the index has up to there, and only then gives the first away.
          LEFT JOIN LATERAL (
              SELECT array_agg(j.place) AS places, array_agg(j.due) AS dues, array_agg(j.cost) AS costs, min(j.rank) AS rank
                FROM (SELECT j.ctid AS place, j.rank, j.due, j.cost FROM insula.job j
                       WHERE l.room > 0 AND l.paced > 0 AND j.tenant_id = l.tenant_id AND j.lane = l.lane AND j.state = 'w'
                         AND j.rank = l.head_rank AND j.due BETWEEN l.head_due AND l.reach
                       ORDER BY j.due LIMIT 8) j) a ON true
          -- Less often, what is behind that.
          LEFT JOIN LATERAL (
              SELECT j.place, j.rank, j.due, j.cost, lead(j.rank) OVER () AS next_rank, lead(j.due) OVER () AS next
                FROM (SELECT j.ctid AS place, j.rank, j.due, j.cost FROM insula.job j
                       WHERE a.dues[2] IS NULL AND l.room > 0 AND l.paced > 0 AND j.tenant_id = l.tenant_id AND j.lane = l.lane AND j.state = 'w'
                         AND (j.rank, j.due) >= (l.head_rank, l.head_due) AND (j.rank, j.due) > (l.head_rank, l.reach)
                       ORDER BY j.rank, j.due LIMIT 2) j LIMIT 1) b ON true
    ), s AS (
        UPDATE insula.lane l
           SET start = l.start + coalesce(t.cost, 0)::bigint * 80640 / t.weight,
               head_rank = coalesce(t.next_rank, t.rank, l.head_rank), head_due = coalesce(t.next, t.due, l.head_due),
               -- As far behind the last that was found as ten lie apart.
               reach = CASE WHEN t.next_rank = t.rank THEN greatest(t.last, t.next) + 10 * (greatest(t.last, t.next) - t.due) / t.gaps ELSE 'infinity' END,
               known_places = CASE WHEN t.alike THEN t.places END, known_dues = CASE WHEN t.alike THEN t.dues END, known_cost = t.cost, known_at = 2,
               since = CASE WHEN t.taken > 0 THEN now ELSE l.since END,
               paid_until = CASE WHEN l.pace IS NOT NULL THEN greatest(l.paid_until, now) + t.taken * l.pace * interval '1 microsecond' END,
               blocked = t.taken >= t.room,
               -- What `l` is by now, should somebody have taken it out without the queue's lock.
               wake_at = greatest(l.wake_at, CASE WHEN t.taken >= t.paced THEN greatest(l.paid_until, now) + (t.taken + 1 - l.burst) * l.pace * interval '1 microsecond' END),
               ready = l.ready AND t.taken < t.room AND t.taken < t.paced AND t.next IS NOT NULL
          FROM t
         WHERE l.ctid = t.spot
        RETURNING l.start, l.ready
    ), v AS (
        UPDATE insula.queue
           SET arrivals = horizon, present = greatest(q.present, upto, x.picked),
               floor = least(greatest(q.present, upto, x.picked), top, (SELECT min(s.start) FROM s WHERE s.ready))
          FROM (SELECT max(t.start) FILTER (WHERE t.taken > 0) AS picked FROM t) x
    )
    UPDATE insula.job j SET state = 'r', worker = me, attempt = j.attempt + 1, started_at = now
      FROM t
     WHERE j.ctid = t.place AND j.state = 'w'
       AND (NOT cancels OR (SELECT c.id FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id) IS NULL)
    RETURNING j.tenant_id, j.id, j.kind, j.lane, j.attempt, j.attempts, j.cost, j.keep, (-j.rank)::smallint, coalesce(j.deadline < now, false),
        (date_part('epoch', now - j.due) * 1000000)::bigint, t.told, j.principal, j.trace, j.body::text;
    gave := gave OR FOUND;
    ELSIF crowd IS NOT TRUE THEN
    RETURN QUERY
    WITH l AS MATERIALIZED (
        SELECT l.* FROM insula.lane l WHERE l.ready AND l.start >= q.floor ORDER BY l.start LIMIT want
    ), b AS MATERIALIZED (
        -- Up to which tag as many jobs as are wanted would start, did each lane have enough of cost 1; and where other lanes begin.
        SELECT CASE WHEN count(*) >= want THEN max(l.start) ELSE max(l.start) + want * 80640 / sum(l.weight)::bigint END AS level,
               CASE WHEN count(*) >= want THEN max(l.start) ELSE 9223372036854775807 END AS others
          FROM l
    ), c AS (
        SELECT l.tenant_id, l.lane, l.start, l.weight, l.head_rank, l.head_due, l.told, l.siblings, l.served_at,
               least(want, 1 + (b.level - l.start) * l.weight / 80640) AS fair,
               CASE WHEN l.cap IS NULL AND l.tenant_cap IS NULL AND l.failures < 10 THEN want + 1
                    ELSE insula.room(ROW (l.*)::insula.lane, want + 1) END AS room,
               CASE WHEN l.pace IS NULL THEN want + 1 ELSE insula.paced(ROW (l.*)::insula.lane, now) END AS paced
          FROM l, b
    ), p AS (
        -- One more than may be taken, to know whether anything is left.
        SELECT c.tenant_id, c.lane, c.told, c.siblings, c.weight, c.room, c.paced, j.place, j.rank, j.due, j.cost,
               row_number() OVER line <= c.asked AS may, c.start + (sum(j.cost) OVER line - j.cost) * 80640 / c.weight AS tag
          FROM (SELECT *, least(c.fair, c.room, c.paced) AS asked FROM c) c LEFT JOIN LATERAL (
              SELECT j.ctid AS place, j.rank, j.due, j.cost FROM insula.job j
               WHERE j.tenant_id = c.tenant_id AND j.lane = c.lane AND j.state = 'w' AND (j.rank, j.due) >= (c.head_rank, c.head_due)
               ORDER BY j.rank, j.due LIMIT CASE WHEN c.asked > 0 THEN c.asked + 1 ELSE 0 END) j ON true
        WINDOW line AS (PARTITION BY c.tenant_id, c.lane ORDER BY j.rank, j.due ROWS UNBOUNDED PRECEDING)
    ), t AS MATERIALIZED (
        SELECT p.*, p.place IS NOT NULL AND p.may AND p.tag <= b.others AND row_number() OVER (ORDER BY CASE WHEN p.may THEN p.tag END) <= want AS picked
          FROM p, b
    ), n AS (
        SELECT t.tenant_id, t.lane, bool_or(t.siblings) AS siblings, min(t.room) AS room, min(t.paced) AS paced,
               count(*) FILTER (WHERE t.picked) AS taken, count(t.place) AS found,
               coalesce(sum(t.cost) FILTER (WHERE t.picked), 0)::bigint * 80640 / min(t.weight) AS charge,
               -- The place of the next, or of the last when no next is known; or one before it.
               coalesce(min(t.rank) FILTER (WHERE NOT t.picked), max(t.rank)) AS rank,
               CASE WHEN min(t.rank) = max(t.rank) THEN coalesce(min(t.due) FILTER (WHERE NOT t.picked), max(t.due)) ELSE '-infinity' END AS due
          FROM t WHERE t.room >= 0 GROUP BY 1, 2
    ), m AS MATERIALIZED (
        SELECT n.*, sum(n.charge) OVER (PARTITION BY n.tenant_id)::bigint AS charges FROM n
    ), s AS (
        UPDATE insula.lane l
           SET start = l.start + m.charges,
               head_rank = CASE WHEN m.taken > 0 THEN m.rank ELSE l.head_rank END, head_due = CASE WHEN m.taken > 0 THEN m.due ELSE l.head_due END,
               known_places = NULL, known_dues = NULL,
               since = CASE WHEN m.taken > 0 THEN now ELSE l.since END, served_at = CASE WHEN m.taken > 0 THEN now ELSE l.served_at END,
               paid_until = CASE WHEN l.pace IS NOT NULL THEN greatest(l.paid_until, now) + m.taken * l.pace * interval '1 microsecond' END,
               blocked = m.taken >= m.room,
               wake_at = greatest(l.wake_at, CASE WHEN m.taken >= m.paced THEN greatest(l.paid_until, now) + (m.taken + 1 - l.burst) * l.pace * interval '1 microsecond' END),
               -- As above; and when nothing is left it is idle until something arrives.
               ready = l.ready AND m.taken < m.room AND m.taken < m.paced AND m.taken < m.found
          FROM m
         WHERE l.tenant_id = m.tenant_id AND l.lane = m.lane
           AND (m.charges > 0 OR m.found = 0)
        RETURNING l.start, l.ready
    ), o AS (
        UPDATE insula.lane l SET start = l.start + k.charge
          FROM (SELECT m.tenant_id, max(m.charges) AS charge, array_agg(m.lane) AS lanes FROM m WHERE m.siblings GROUP BY 1) k
         WHERE l.tenant_id = k.tenant_id AND l.lane <> ALL (k.lanes)
    ), y AS (
        -- One whose turn it is not yet goes behind that one, if that was not looked at: else it would be in the way of everybody behind it.
        UPDATE insula.lane l SET start = greatest(l.start, x.start + 1)
          FROM c CROSS JOIN LATERAL (SELECT max(x.start) AS start FROM insula.lane x
                                      WHERE x.tenant_id = c.tenant_id AND x.ready AND (x.served_at, x.lane) < (c.served_at, c.lane)) x
         WHERE c.room < 0 AND l.tenant_id = c.tenant_id AND l.lane = c.lane AND NOT EXISTS (SELECT FROM m WHERE m.tenant_id = c.tenant_id)
    ), v AS (
        UPDATE insula.queue
           SET arrivals = horizon, present = greatest(q.present, (SELECT max(t.tag)::bigint FROM t WHERE t.picked)),
               floor = least(greatest(q.present, (SELECT max(t.tag)::bigint FROM t WHERE t.picked)), (SELECT b.others FROM b),
                             (SELECT min(s.start) FROM s WHERE s.ready), (SELECT min(c.start) FROM c WHERE c.room < 0))
    )
    UPDATE insula.job j SET state = 'r', worker = me, attempt = j.attempt + 1, started_at = now
      FROM t
     WHERE t.picked AND j.ctid = t.place AND j.state = 'w'
       AND (NOT cancels OR (SELECT c.id FROM insula.cancellation c WHERE c.tenant_id = j.tenant_id AND c.id = j.id) IS NULL)
    RETURNING j.tenant_id, j.id, j.kind, j.lane, j.attempt, j.attempts, j.cost, j.keep, (-j.rank)::smallint, coalesce(j.deadline < now, false),
        (date_part('epoch', now - j.due) * 1000000)::bigint, t.told, j.principal, j.trace, j.body::text;
    gave := FOUND;
    END IF;
    EXIT WHEN gave;
    SELECT * INTO q FROM insula.queue;
    EXIT WHEN NOT EXISTS (SELECT FROM insula.lane l WHERE l.ready AND l.start >= q.floor);
    END LOOP;
END $fn$;
RESET ROLE;
