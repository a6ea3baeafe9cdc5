-- Dead letters, host side: no login may call these. The administrator does, for whoever asked him; he writes the audit line.
GRANT CREATE ON SCHEMA insula TO insula_queue;
SET LOCAL ROLE insula_queue;

-- Dead letters of a tenant, the newest first; of all tenants when `tenant` is NULL.
CREATE OR REPLACE FUNCTION insula.dead_letters(tenant bigint, most integer)
RETURNS TABLE (tenant_id bigint, id uuid, kind text, attempt integer, ended_at timestamptz, error text, body json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT e.tenant_id, e.id, e.kind, e.attempt, e.ended_at, e.error, e.body FROM insula.job_end e
     WHERE e.outcome = 'dead' AND (tenant IS NULL OR e.tenant_id = tenant) ORDER BY e.ended_at DESC LIMIT most
$fn$;

-- Lets dead letters wait again, with as many attempts as they had; all of the tenant's when `ids` is NULL. One whose key a living job has stays dead.
-- The attempt goes on counting, because it is the fence.
CREATE OR REPLACE FUNCTION insula.dead_replay(tenant bigint, ids uuid[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    given bigint;
BEGIN
    WITH e AS (
        DELETE FROM insula.job_end e
         WHERE e.tenant_id = tenant AND e.outcome = 'dead' AND (ids IS NULL OR e.id = ANY (ids))
           AND NOT EXISTS (SELECT FROM insula.job j WHERE j.tenant_id = e.tenant_id AND (j.id = e.id OR (j.kind = e.kind AND j.key = e.key)))
        RETURNING e.*
    ), c AS (
        -- One that came too late.
        DELETE FROM insula.cancellation c USING e WHERE c.tenant_id = e.tenant_id AND c.id = e.id
    ), j AS (
        INSERT INTO insula.job (tenant_id, id, rank, due, attempt, attempts, cost, keep, created_at, lane, kind, key, principal, trace, error, body)
            SELECT e.tenant_id, e.id, e.rank, clock_timestamp(), e.attempt, e.attempt + greatest(e.attempts - e.attempt, 1) + 9, e.cost, e.keep,
                   e.created_at, e.lane, e.kind, e.key, e.principal, e.trace, e.error, e.body
              FROM e RETURNING tenant_id, lane, rank, due
    )
    INSERT INTO insula.arrival (tenant_id, lane, rank, due) SELECT j.tenant_id, j.lane, j.rank, j.due FROM j;
    GET DIAGNOSTICS given = ROW_COUNT;
    RETURN given;
END $fn$;

-- Forgets dead letters of a tenant that ended before a moment.
CREATE OR REPLACE FUNCTION insula.dead_purge(tenant bigint, before timestamptz) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    gone bigint;
BEGIN
    DELETE FROM insula.job_end e WHERE e.tenant_id = tenant AND e.outcome = 'dead' AND e.ended_at < before;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $fn$;
RESET ROLE;
REVOKE CREATE ON SCHEMA insula FROM insula_queue;
