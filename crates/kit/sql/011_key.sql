-- The keys that grants are verified with, as HMAC pads (RFC 2104: the key padded to 64 bytes, XOR 0x36 and 0x5c).
--
-- In a table, and never in a function's body: a literal that is ever parsed can be had out of an error's CONTEXT (by a timeout
-- or at the stack's limit) or by debug_print_plan. Never in a plpgsql variable that an SQL statement takes as a parameter
-- either: the planner may fold it into the plan. Simple expressions are planned without their values.
SET LOCAL ROLE insula_owner;
CREATE TABLE IF NOT EXISTS insula.secret (
    kid  integer PRIMARY KEY,
    ipad bytea NOT NULL CHECK (octet_length(ipad) = 64),
    opad bytea NOT NULL CHECK (octet_length(opad) = 64)
);

-- Adds a key and forgets those that are neither it nor the one before.
CREATE OR REPLACE FUNCTION insula.keep_key(kid integer, previous integer, inner_pad bytea, outer_pad bytea) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO insula.secret AS s (kid, ipad, opad) VALUES (keep_key.kid, inner_pad, outer_pad)
        ON CONFLICT ON CONSTRAINT secret_pkey DO UPDATE SET ipad = excluded.ipad, opad = excluded.opad
        WHERE (s.ipad, s.opad) IS DISTINCT FROM (excluded.ipad, excluded.opad);
    DELETE FROM insula.secret s WHERE s.kid <> keep_key.kid AND s.kid IS DISTINCT FROM previous;
END $fn$;

-- NULL, which equals no MAC, for a key that is not known.
CREATE OR REPLACE FUNCTION insula.hmac(kid integer, message text) RETURNS bytea LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    i pg_catalog.bytea;
    o pg_catalog.bytea;
BEGIN
    SELECT s.ipad, s.opad INTO i, o FROM insula.secret s WHERE s.kid OPERATOR(pg_catalog.=) hmac.kid;
    RETURN pg_catalog.sha256(pg_catalog.byteacat(o, pg_catalog.sha256(pg_catalog.byteacat(i, pg_catalog.textsend(message)))));
END $fn$;
RESET ROLE;
