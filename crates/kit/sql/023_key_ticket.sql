-- Keeps a key's pads in a table that only the owner reads.
SET LOCAL ROLE insula_owner;
CREATE OR REPLACE FUNCTION insula.keep_key(slot text, kid integer, inner_pad text, outer_pad text) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    IF inner_pad !~ '^[0-9a-f]{128}$' OR outer_pad !~ '^[0-9a-f]{128}$' THEN
        RAISE EXCEPTION 'insula: that is not a key' USING ERRCODE = '22023';
    END IF;
    INSERT INTO insula.secret AS s (kid, ipad, opad) VALUES (keep_key.kid, decode(inner_pad, 'hex'), decode(outer_pad, 'hex'))
        ON CONFLICT ON CONSTRAINT secret_pkey DO UPDATE SET ipad = excluded.ipad, opad = excluded.opad;
    DELETE FROM insula.secret s USING insula.config c WHERE s.kid <> c.kid AND s.kid IS DISTINCT FROM c.previous_kid;
END $fn$;
RESET ROLE;
