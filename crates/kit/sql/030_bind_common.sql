-- The text form of a grant, and who may call what. Runs after the way's own file.
SET LOCAL ROLE insula_owner;
CREATE OR REPLACE FUNCTION insula.enter(grant_text text) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $fn$
DECLARE
    f pg_catalog.text[];
BEGIN
    IF insula.is_grant(grant_text) IS NOT TRUE THEN
        PERFORM insula.refuse(4);
    END IF;
    f := pg_catalog.string_to_array(grant_text, '.');
    IF f[4]::pg_catalog.int4 OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() THEN
        PERFORM insula.refuse(1);
    END IF;
    PERFORM insula.enter(f[1]::pg_catalog.int8, f[2]::pg_catalog.int8, f[3]::pg_catalog.int8, f[5]::pg_catalog.int8,
        f[6]::pg_catalog.int4, pg_catalog.decode(f[7], 'hex'));
END $fn$;

-- Which way of binding is in force: 1 a protected setting, 2 a signed ticket.
CREATE OR REPLACE FUNCTION insula.way() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN {{way}};
RESET ROLE;
