-- Keeps a key's pads as the text of a function that is never run. The text ends in a fixed form, which enter() counts on:
-- 128 digits, a colon, 128 digits, and what pg_get_functiondef() closes with.
SET LOCAL ROLE insula_owner;
CREATE OR REPLACE FUNCTION insula.keep_key(slot text, kid integer, inner_pad text, outer_pad text) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    IF slot !~ '^key_(current|previous)$' OR inner_pad !~ '^[0-9a-f]{128}$' OR outer_pad !~ '^[0-9a-f]{128}$' THEN
        RAISE EXCEPTION 'insula: that is not a key' USING ERRCODE = '22023';
    END IF;
    EXECUTE format('CREATE OR REPLACE FUNCTION insula.%I() RETURNS void LANGUAGE plpgsql AS %L', slot,
        format('BEGIN RAISE EXCEPTION ''not to be run''; END -- %s:%s', inner_pad, outer_pad));
    EXECUTE format('ALTER FUNCTION insula.%I() OWNER TO insula_owner', slot);
    EXECUTE format('REVOKE ALL ON FUNCTION insula.%I() FROM PUBLIC', slot);
END $fn$;
RESET ROLE;
