-- Events: an outbox in each tenant database. An event is a row of its tenant's, written in the transaction of the change that it tells of, so
-- that it exists exactly when the change does. A relay (crates/events) sends it to the bus and deletes it; what a consumer has handled is
-- remembered in insula.event_seen, in the same transaction as what it did.
--
-- Nothing is overlooked: a relay reads what is there and deletes what it sent, so an event that commits later is seen later. Its order is
-- that of `seq`: who publishes after another's commit has the greater one.
SET LOCAL ROLE insula_owner;

-- Never shown to an application: it counts the events of all tenants.
CREATE SEQUENCE IF NOT EXISTS insula.event_seq AS bigint;
CREATE TABLE IF NOT EXISTS insula.event (
    tenant_id bigint      NOT NULL DEFAULT insula.current_tenant(),
    id        uuid        NOT NULL,
    seq       bigint      NOT NULL DEFAULT pg_catalog.nextval('insula.event_seq'),
    topic     text        NOT NULL,
    at        timestamptz NOT NULL,
    principal text,
    trace     text,
    -- Why the bus will never take it; then it is not tried again, and kept for two weeks.
    refused   text,
    -- Of the body, as a relay holds it: what is stored may be a hundredth of that.
    bytes     integer,
    body      json        NOT NULL,
    PRIMARY KEY (tenant_id, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE insula.event ADD COLUMN IF NOT EXISTS bytes integer;
-- Who has some that wait, from one tenant to the next, and what is next of each.
CREATE INDEX IF NOT EXISTS event_waiting ON insula.event (tenant_id, seq) WHERE refused IS NULL;
-- The oldest of all, and one that was taken.
CREATE INDEX IF NOT EXISTS event_next ON insula.event (seq) WHERE refused IS NULL;
CREATE INDEX IF NOT EXISTS event_refused ON insula.event (at) WHERE refused IS NOT NULL;

-- What a consumer has handled, or failed to. It is the tenant's, so it goes along when the tenant moves.
CREATE TABLE IF NOT EXISTS insula.event_seen (
    tenant_id bigint      NOT NULL DEFAULT insula.current_tenant(),
    consumer  text        NOT NULL,
    id        uuid        NOT NULL,
    at        timestamptz NOT NULL,
    handled   boolean     NOT NULL,
    failures  integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, consumer, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS event_seen_at ON insula.event_seen (at);

-- One row, locked by the relay that is at work: so there is one in a database at a time, and the order of a tenant's events is kept.
CREATE TABLE IF NOT EXISTS insula.outbox (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- When a relay was last here, give or take a minute.
    relayed_at timestamptz NOT NULL DEFAULT '-infinity',
    swept_at   timestamptz NOT NULL DEFAULT '-infinity',
    -- Whose event was the last that was taken: the next round begins behind him.
    turn       bigint      NOT NULL DEFAULT 0
);
ALTER TABLE insula.outbox ADD COLUMN IF NOT EXISTS turn bigint NOT NULL DEFAULT 0;
INSERT INTO insula.outbox DEFAULT VALUES ON CONFLICT DO NOTHING;

DO $do$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['insula.event', 'insula.event_seen'] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t);
        EXECUTE format('DROP POLICY IF EXISTS tenant ON %s', t);
        EXECUTE format('CREATE POLICY tenant ON %s USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}})', t);
        EXECUTE format('DROP POLICY IF EXISTS queue ON %s', t);
        EXECUTE format('CREATE POLICY queue ON %s TO insula_queue USING (true) WITH CHECK (true)', t);
    END LOOP;
END $do$;
GRANT SELECT, UPDATE, DELETE ON insula.event TO insula_queue;
GRANT SELECT, UPDATE, DELETE ON insula.event_seen TO insula_queue;
GRANT SELECT, UPDATE ON insula.outbox TO insula_queue;

-- Publishes events of this tenant, in its transaction. Whoever of its own webhooks wants one gets a job to post it. Answers how many.
CREATE OR REPLACE FUNCTION insula.publish(topics text[], ids uuid[], bodies text[], principal text DEFAULT NULL, trace text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    me    bigint      := insula.current_tenant();
    now   timestamptz := clock_timestamp();
    given bigint;
    topic text;
    body  text;
BEGIN
    IF me IS NULL THEN
        RAISE EXCEPTION 'insula: no tenant is bound to this transaction' USING ERRCODE = '28000';
    END IF;
    -- NULL would slip through a comparison.
    IF (cardinality(topics) BETWEEN 1 AND 500 AND cardinality(ids) = cardinality(topics) AND cardinality(bodies) = cardinality(topics)
        AND coalesce(octet_length(publish.principal), 0) <= 500 AND coalesce(octet_length(publish.trace), 0) <= 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'insula: these are no events: see insula.publish() for what its fields may be' USING ERRCODE = '22023';
    END IF;
    FOREACH topic IN ARRAY topics LOOP
        IF (insula.is_topic(topic)) IS NOT TRUE THEN
            RAISE EXCEPTION 'insula: % is no topic: words of a-z, 0-9, _ and - with dots between, at most 100 characters', quote_nullable(topic)
                USING ERRCODE = '22023';
        END IF;
    END LOOP;
    FOREACH body IN ARRAY bodies LOOP
        -- Less than a job's, because it goes into one when a webhook wants it.
        IF octet_length(body) > 245760 THEN
            RAISE EXCEPTION 'insula: an event''s body has % bytes; 245760 are allowed: keep large things in a table or in the object store',
                octet_length(body) USING ERRCODE = '54000';
        END IF;
    END LOOP;
    INSERT INTO insula.event (tenant_id, id, topic, at, principal, trace, bytes, body)
        SELECT me, e.id, e.topic, now, publish.principal, publish.trace, octet_length(e.body), e.body::json
          FROM (SELECT * FROM unnest(publish.ids, publish.topics, publish.bodies) WITH ORDINALITY x (id, topic, body, n) ORDER BY x.n) e;
    GET DIAGNOSTICS given = ROW_COUNT;
    IF EXISTS (SELECT FROM insula.webhook w WHERE w.tenant_id = me AND w.paused_at IS NULL) THEN
        PERFORM insula.enqueue('insula.webhook', array_agg(gen_random_uuid() ORDER BY e.n), array_agg(json_build_object('webhook', w.id,
                    'event', e.id, 'topic', e.topic, 'at', now, 'data', e.body::json)::text ORDER BY e.n),
                lane => 'insula.webhook', attempts => 15, principal => publish.principal, trace => publish.trace)
          FROM unnest(publish.ids, publish.topics, publish.bodies) WITH ORDINALITY e (id, topic, body, n)
          JOIN insula.webhook w ON w.tenant_id = me AND w.paused_at IS NULL AND insula.wants(w.topics, e.topic)
        HAVING count(*) > 0;
    END IF;
    RETURN given;
END $fn$;

CREATE OR REPLACE FUNCTION insula.is_topic(topic text) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN octet_length(topic) OPERATOR(pg_catalog.<=) 100 AND topic OPERATOR(pg_catalog.~) '^[a-z0-9_-]+([.][a-z0-9_-]+)*$';

-- `*`, `document.*` or the topic itself.
CREATE OR REPLACE FUNCTION insula.wants(wanted text[], topic text) RETURNS boolean LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT EXISTS (SELECT FROM unnest(wanted) w WHERE w IN ('*', topic) OR (right(w, 2) = '.*' AND starts_with(topic, left(w, -1))))
$fn$;

-- True when this consumer has not handled the event yet; from now on it has, if this transaction commits. Another that handles it at the
-- same moment waits here.
CREATE OR REPLACE FUNCTION insula.event_new(consumer text, event uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
BEGIN
    IF (octet_length(event_new.consumer) BETWEEN 1 AND 100) IS NOT TRUE THEN
        RAISE EXCEPTION 'insula: a consumer''s name has 1 to 100 bytes' USING ERRCODE = '22023';
    END IF;
    INSERT INTO insula.event_seen AS s (tenant_id, consumer, id, at, handled)
        VALUES (insula.current_tenant(), event_new.consumer, event_new.event, clock_timestamp(), true)
        ON CONFLICT (tenant_id, consumer, id) DO UPDATE SET handled = true, at = excluded.at WHERE NOT s.handled;
    RETURN FOUND;
END $fn$;

-- Counts a failure of this consumer with the event. Answers how many there were.
CREATE OR REPLACE FUNCTION insula.event_failed(consumer text, event uuid) RETURNS integer
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    INSERT INTO insula.event_seen AS s (tenant_id, consumer, id, at, handled, failures)
        VALUES (insula.current_tenant(), event_failed.consumer, event_failed.event, clock_timestamp(), false, 1)
        ON CONFLICT (tenant_id, consumer, id) DO UPDATE SET failures = s.failures + 1, at = excluded.at
        RETURNING failures
$fn$;
RESET ROLE;

-- What a relay calls. Its role may call these and read no table.
GRANT CREATE ON SCHEMA insula TO insula_queue;
SET LOCAL ROLE insula_queue;

-- Whether anything waits: what a relay asks again and again.
CREATE OR REPLACE FUNCTION insula.outbox_waits() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT EXISTS (SELECT FROM insula.event e WHERE e.refused IS NULL)
$fn$;

-- Events that wait, at most `most` and about `bytes` of bodies, without those of the tenants in `skip`. Tenants take turns: each one's first, then
-- each one's second, and so on, beginning behind whoever had the last turn of the round before; so nobody's many delay another's few. Who is there is
-- found by stepping through the index from tenant to tenant, which takes as long whatever waits. None also when another relay is at work
-- here: who has been given some is alone until his transaction ends.
CREATE OR REPLACE FUNCTION insula.outbox_take(most integer, bytes bigint, skip bigint[])
RETURNS TABLE (tenant_id bigint, epoch bigint, id uuid, seq bigint, topic text, at timestamptz, principal text, trace text, body text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off AS $fn$
#variable_conflict use_column
DECLARE
    last  bigint;
    taken bigint[];
BEGIN
    SELECT o.turn INTO last FROM insula.outbox o FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE insula.outbox SET relayed_at = clock_timestamp() WHERE relayed_at < clock_timestamp() - interval '1 minute';
    WITH RECURSIVE behind (no) AS (
        (SELECT e.tenant_id FROM insula.event e WHERE e.refused IS NULL AND e.tenant_id > last ORDER BY e.tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT e.tenant_id FROM insula.event e WHERE e.refused IS NULL AND e.tenant_id > w.no ORDER BY e.tenant_id LIMIT 1)
          FROM behind w WHERE w.no IS NOT NULL
    ), before (no) AS (
        (SELECT e.tenant_id FROM insula.event e WHERE e.refused IS NULL AND e.tenant_id <= last ORDER BY e.tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT e.tenant_id FROM insula.event e WHERE e.refused IS NULL AND e.tenant_id > w.no AND e.tenant_id <= last ORDER BY e.tenant_id LIMIT 1)
          FROM before w WHERE w.no IS NOT NULL
    ), t AS MATERIALIZED (
        -- In the order of their turns, as many as have one.
        SELECT w.no, row_number() OVER () AS turn
          FROM (SELECT w.no FROM (SELECT no FROM behind UNION ALL SELECT no FROM before) w
                 WHERE w.no <> ALL (skip) AND (SELECT x.state FROM insula.tenant x WHERE x.no = w.no) <> 'deleted' LIMIT most) w
    ), share AS MATERIALIZED (
        SELECT ceil(most::numeric / count(*))::integer AS n FROM t HAVING count(*) > 0
    ), f AS MATERIALIZED (
        SELECT t.no, t.turn, e.seq, e.size, row_number() OVER (PARTITION BY t.turn ORDER BY e.seq) AS place
          FROM t CROSS JOIN LATERAL (
              SELECT e.seq, coalesce(e.bytes, pg_column_size(e.body)) AS size FROM insula.event e
               WHERE e.tenant_id = t.no AND e.refused IS NULL ORDER BY e.seq LIMIT (SELECT n FROM share)) e
    ), m AS MATERIALIZED (
        -- Who may have more.
        SELECT f.no, f.turn, max(f.seq) AS seq, max(f.place) AS place FROM f GROUP BY 1, 2 HAVING count(*) >= (SELECT n FROM share)
    ), g AS (
        -- What others leave of the round is theirs.
        SELECT m.no, m.turn, e.seq, e.size, m.place + row_number() OVER (PARTITION BY m.turn ORDER BY e.seq) AS place
          FROM m CROSS JOIN LATERAL (
              SELECT e.seq, coalesce(e.bytes, pg_column_size(e.body)) AS size FROM insula.event e
               WHERE e.tenant_id = m.no AND e.refused IS NULL AND e.seq > m.seq ORDER BY e.seq
               LIMIT (SELECT greatest(most - (SELECT count(*) FROM f), 0) / greatest(count(*), 1) FROM m)) e
    ), x AS (
        SELECT x.no, x.seq, row_number() OVER line AS n, sum(x.size) OVER line - x.size AS held
          FROM (SELECT * FROM f UNION ALL SELECT * FROM g) x
        WINDOW line AS (ORDER BY x.place, x.turn ROWS UNBOUNDED PRECEDING)
    )
    SELECT array_agg(x.seq ORDER BY x.n), (array_agg(x.no ORDER BY x.n DESC))[1] INTO taken, last
      FROM x WHERE x.n <= most AND x.held < outbox_take.bytes;
    UPDATE insula.outbox SET turn = last WHERE turn <> last;
    RETURN QUERY
        SELECT e.tenant_id, t.epoch, e.id, e.seq, e.topic, e.at, e.principal, e.trace, e.body::text
          FROM unnest(taken) WITH ORDINALITY x (seq, n) JOIN insula.event e ON e.seq = x.seq AND e.refused IS NULL JOIN insula.tenant t ON t.no = e.tenant_id
         ORDER BY x.n;
END $fn$;

-- The bus has these: in the transaction that took them.
CREATE OR REPLACE FUNCTION insula.outbox_sent(seqs bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM insula.event e WHERE e.seq = ANY (seqs) AND e.refused IS NULL;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $fn$;

-- The bus will never take this one.
CREATE OR REPLACE FUNCTION insula.outbox_refused(seq bigint, reason text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    UPDATE insula.event e SET refused = left(reason, 1000) WHERE e.seq = outbox_refused.seq AND e.refused IS NULL
$fn$;

-- What metrics show: how many wait, for how long the oldest, and how many were refused (both counted to 10,000).
CREATE OR REPLACE FUNCTION insula.outbox_state() RETURNS TABLE (waiting bigint, oldest_ms bigint, refused bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
    SELECT (SELECT count(*) FROM (SELECT FROM insula.event e WHERE e.refused IS NULL ORDER BY e.seq LIMIT 10000) n),
           coalesce((SELECT (extract(epoch FROM clock_timestamp() - e.at) * 1000)::bigint FROM insula.event e
                      WHERE e.refused IS NULL ORDER BY e.seq LIMIT 1), 0),
           (SELECT count(*) FROM (SELECT FROM insula.event e WHERE e.refused IS NOT NULL LIMIT 10000) n)
$fn$;

-- House-keeping, part of insula.sweep_queue(), when there was none for a minute: forgets what consumers saw more than two weeks ago (longer than the bus keeps
-- an event), events that were refused as long ago, and those of tenants that are no more. Where there never was a relay, nobody is told of
-- events at all: then they are kept for a day and no longer. Where there was one, it may come back: they are kept for a month.
CREATE OR REPLACE FUNCTION insula.sweep_events(every_ms integer) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $fn$
DECLARE
    now  timestamptz := clock_timestamp();
    o    insula.outbox;
    kept interval;
    past bigint[];
    gone bigint := 0;
    n    bigint;
BEGIN
    SELECT * INTO o FROM insula.outbox WHERE swept_at < now - every_ms * interval '1 millisecond' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    UPDATE insula.outbox SET swept_at = now;
    -- A tenant's open transaction may be at one of them, and this is under the queue's lock.
    DELETE FROM insula.event_seen s WHERE s.ctid = ANY (ARRAY(SELECT x.ctid FROM insula.event_seen x WHERE x.at < now - interval '14 days' ORDER BY x.at LIMIT 5000
                                                               FOR UPDATE SKIP LOCKED));
    DELETE FROM insula.event e WHERE e.ctid = ANY (ARRAY(SELECT x.ctid FROM insula.event x WHERE x.refused IS NOT NULL AND x.at < now - interval '14 days'
                                                          ORDER BY x.at LIMIT 5000));
    GET DIAGNOSTICS gone = ROW_COUNT;
    -- From tenant to tenant, and not through all that waits.
    WITH RECURSIVE w (no) AS (
        (SELECT e.tenant_id FROM insula.event e WHERE e.refused IS NULL ORDER BY e.tenant_id LIMIT 1)
        UNION ALL
        SELECT (SELECT e.tenant_id FROM insula.event e WHERE e.refused IS NULL AND e.tenant_id > w.no ORDER BY e.tenant_id LIMIT 1) FROM w WHERE w.no IS NOT NULL
    )
    SELECT array_agg(w.no) INTO past FROM w
     WHERE w.no IS NOT NULL AND coalesce((SELECT t.state FROM insula.tenant t WHERE t.no = w.no), 'deleted') = 'deleted';
    IF past IS NOT NULL THEN
        DELETE FROM insula.event e WHERE e.ctid = ANY (ARRAY(SELECT x.ctid FROM insula.event x WHERE x.refused IS NULL AND x.tenant_id = ANY (past) LIMIT 5000));
        GET DIAGNOSTICS n = ROW_COUNT;
        gone := gone + n;
    END IF;
    kept := CASE WHEN isfinite(o.relayed_at) THEN interval '30 days' ELSE interval '1 day' END;
    IF o.relayed_at < now - kept THEN
        -- The oldest are the first.
        DELETE FROM insula.event e WHERE e.ctid = ANY (ARRAY(
            SELECT x.ctid FROM (SELECT x.ctid, x.at FROM insula.event x WHERE x.refused IS NULL ORDER BY x.seq LIMIT 5000) x WHERE x.at < now - kept));
        GET DIAGNOSTICS n = ROW_COUNT;
        gone := gone + n;
    END IF;
    RETURN gone;
END $fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;
