-- What search needs of a superuser (way 1). Row security lets only LEAKPROOF functions look at a row before the policy has, so
-- an operator whose function is not marked loses its index. These answer yes or no and raise no error that depends on the row.
ALTER FUNCTION pg_catalog.ts_match_vq(tsvector, tsquery) LEAKPROOF;
ALTER FUNCTION pg_catalog.ts_match_qv(tsquery, tsvector) LEAKPROOF;
ALTER FUNCTION pg_catalog.jsonb_contains(jsonb, jsonb) LEAKPROOF;
ALTER FUNCTION pg_catalog.jsonb_contained(jsonb, jsonb) LEAKPROOF;
ALTER FUNCTION pg_catalog.jsonb_exists(jsonb, text) LEAKPROOF;
ALTER FUNCTION pg_catalog.jsonb_exists_any(jsonb, text[]) LEAKPROOF;
ALTER FUNCTION pg_catalog.jsonb_exists_all(jsonb, text[]) LEAKPROOF;
ALTER FUNCTION pg_catalog.arraycontains(anyarray, anyarray) LEAKPROOF;
ALTER FUNCTION pg_catalog.arraycontained(anyarray, anyarray) LEAKPROOF;
ALTER FUNCTION pg_catalog.arrayoverlap(anyarray, anyarray) LEAKPROOF;
-- The operator class that lets a GIN index begin with tenant_id.
DO $do$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'btree_gin')
       AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'btree_gin') THEN
        CREATE EXTENSION btree_gin SCHEMA insula;
    END IF;
END $do$;
