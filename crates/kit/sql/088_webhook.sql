-- Webhooks of a tenant: addresses of its own that are told of its events. Guarded like any row of it. The secret that signs the posts is
-- sealed by the cell's key before it comes here (crates/events), so neither a dump of this database nor SQL in it shows one.
SET LOCAL ROLE insula_owner;

CREATE TABLE IF NOT EXISTS insula.webhook (
    tenant_id    bigint      NOT NULL DEFAULT insula.current_tenant(),
    id           uuid        NOT NULL,
    url          text        NOT NULL,
    topics       text[]      NOT NULL,
    sealed       bytea       NOT NULL,
    -- The cell whose key sealed it.
    sealed_in    text        NOT NULL,
    created_at   timestamptz NOT NULL,
    paused_at    timestamptz,
    -- Why, when it was not the tenant's wish.
    paused_why   text,
    -- Of the last post: when, the status that came, or why none came.
    last_at      timestamptz,
    last_status  integer,
    last_error   text,
    -- Posts in a row that were not taken.
    failures     integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 70);

ALTER TABLE insula.webhook ENABLE ROW LEVEL SECURITY;
ALTER TABLE insula.webhook FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON insula.webhook;
CREATE POLICY tenant ON insula.webhook USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}});

-- Adds one. False when the tenant has as many as it may.
CREATE OR REPLACE FUNCTION insula.webhook_create(id uuid, url text, topics text[], sealed bytea, sealed_in text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    me bigint := insula.current_tenant();
BEGIN
    IF me IS NULL THEN
        RAISE EXCEPTION 'insula: no tenant is bound to this transaction' USING ERRCODE = '28000';
    END IF;
    IF (octet_length(webhook_create.url) BETWEEN 1 AND 2000 AND cardinality(webhook_create.topics) BETWEEN 1 AND 50
        AND octet_length(webhook_create.sealed) BETWEEN 1 AND 500 AND octet_length(webhook_create.sealed_in) BETWEEN 1 AND 100
        AND NOT EXISTS (SELECT FROM unnest(webhook_create.topics) t
                         WHERE (t = '*' OR insula.is_topic(CASE WHEN right(t, 2) = '.*' THEN left(t, -2) ELSE t END)) IS NOT TRUE)) IS NOT TRUE THEN
        RAISE EXCEPTION 'insula: this is no webhook: see insula.webhook_create() for what its fields may be' USING ERRCODE = '22023';
    END IF;
    -- Two that come at once are counted one after the other.
    PERFORM pg_advisory_xact_lock(hashtext('insula.webhook'), hashint8(me));
    IF (SELECT count(*) FROM insula.webhook w WHERE w.tenant_id = me) >= 20 THEN
        RETURN false;
    END IF;
    INSERT INTO insula.webhook (tenant_id, id, url, topics, sealed, sealed_in, created_at)
        VALUES (me, webhook_create.id, webhook_create.url, webhook_create.topics, webhook_create.sealed, webhook_create.sealed_in, clock_timestamp());
    RETURN true;
END $fn$;

CREATE OR REPLACE FUNCTION insula.webhook_list()
RETURNS TABLE (id uuid, url text, topics text[], created_at timestamptz, paused_at timestamptz, paused_why text, last_at timestamptz,
               last_status integer, last_error text, failures integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT w.id, w.url, w.topics, w.created_at, w.paused_at, w.paused_why, w.last_at, w.last_status, w.last_error, w.failures
      FROM insula.webhook w WHERE w.tenant_id = {{tenant}} ORDER BY w.created_at, w.id
$fn$;

CREATE OR REPLACE FUNCTION insula.webhook_remove(webhook uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    DELETE FROM insula.webhook w WHERE w.tenant_id = insula.current_tenant() AND w.id = webhook;
    RETURN FOUND;
END $fn$;

-- Pauses one, or lets it go on. What is published while it is paused is not posted to it, then or later.
CREATE OR REPLACE FUNCTION insula.webhook_pause(webhook uuid, paused boolean) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    UPDATE insula.webhook w SET paused_at = CASE WHEN paused THEN coalesce(w.paused_at, clock_timestamp()) END, paused_why = NULL, failures = 0
     WHERE w.tenant_id = insula.current_tenant() AND w.id = webhook;
    RETURN FOUND;
END $fn$;

-- Another secret, sealed.
CREATE OR REPLACE FUNCTION insula.webhook_reseal(webhook uuid, sealed bytea, sealed_in text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
BEGIN
    UPDATE insula.webhook w SET sealed = webhook_reseal.sealed, sealed_in = webhook_reseal.sealed_in
     WHERE w.tenant_id = insula.current_tenant() AND w.id = webhook_reseal.webhook
       AND octet_length(webhook_reseal.sealed) BETWEEN 1 AND 500 AND octet_length(webhook_reseal.sealed_in) BETWEEN 1 AND 100;
    RETURN FOUND;
END $fn$;

-- Posts one event to one webhook: what "send a test" does. False when there is none, or it is paused.
CREATE OR REPLACE FUNCTION insula.webhook_send(webhook uuid, event uuid, topic text, body text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    IF NOT EXISTS (SELECT FROM insula.webhook w WHERE w.tenant_id = insula.current_tenant() AND w.id = webhook_send.webhook AND w.paused_at IS NULL) THEN
        RETURN false;
    END IF;
    PERFORM insula.enqueue('insula.webhook', ARRAY[gen_random_uuid()], ARRAY[json_build_object('webhook', webhook_send.webhook,
        'event', webhook_send.event, 'topic', webhook_send.topic, 'at', clock_timestamp(), 'data', webhook_send.body::json)::text],
        lane => 'insula.webhook', attempts => 15);
    RETURN true;
END $fn$;

-- For who posts: where to, and the sealed secret.
CREATE OR REPLACE FUNCTION insula.webhook_target(webhook uuid) RETURNS TABLE (url text, sealed bytea, sealed_in text, paused boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT w.url, w.sealed, w.sealed_in, w.paused_at IS NOT NULL FROM insula.webhook w WHERE w.tenant_id = {{tenant}} AND w.id = webhook_target.webhook
$fn$;

-- How a post went. `why_pause` ends them, until the tenant lets it go on. A worker's place is kept by this: when somebody has the webhook locked for longer
-- than a moment, it is not noted (and a receiver that is gone says so again, at the next post).
CREATE OR REPLACE FUNCTION insula.webhook_told(webhook uuid, status integer, error text, why_pause text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $fn$
BEGIN
    UPDATE insula.webhook w
       SET last_at = clock_timestamp(), last_status = webhook_told.status, last_error = left(webhook_told.error, 500),
           failures = CASE WHEN webhook_told.error IS NULL THEN 0 ELSE least(w.failures, 1000000) + 1 END,
           paused_at = CASE WHEN webhook_told.why_pause IS NULL THEN w.paused_at ELSE coalesce(w.paused_at, clock_timestamp()) END,
           paused_why = CASE WHEN webhook_told.why_pause IS NULL THEN w.paused_why ELSE left(webhook_told.why_pause, 500) END
     WHERE w.tenant_id = {{tenant}} AND w.id = webhook_told.webhook;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END $fn$;
RESET ROLE;
