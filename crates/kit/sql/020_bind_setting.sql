-- Way 1: the binding lives in backtrace_functions, a setting that only a superuser and, by GRANT SET ON PARAMETER, insula_owner
-- may write. A tenant's number as its value has no effect (no C function is named by digits).
--
-- A second protected setting, dynamic_library_path, is the session's memory of grants whose MAC it has verified: one that only
-- insula_owner may write and only it (and pg_read_all_settings) may read. Behind the path proper stand entries
-- ":/.no.epoch.expires.fence.kid.mac."; no directory is called that, and library names of Insula's sessions are never searched
-- for past $libdir. A grant that stands there is the same grant of the same session again, and is not hashed again. Everything
-- else about it (expiry, lock, fence, state) is checked every time.
SET LOCAL ROLE insula_owner;

CREATE OR REPLACE FUNCTION insula.current_tenant() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(pg_catalog.current_setting('backtrace_functions'), '')::pg_catalog.int8;

-- The long way in: verifies everything. Raises, or has bound the transaction.
CREATE OR REPLACE FUNCTION insula.enter_anew(no bigint, epoch bigint, expires bigint, fence bigint, kid integer, mac bytea)
RETURNS void LANGUAGE plpgsql VOLATILE AS $fn$
DECLARE
    bound pg_catalog.text := pg_catalog.current_setting('backtrace_functions');
BEGIN
    IF (insula.hmac(kid, pg_catalog.concat_ws('|', no, epoch, expires, pg_catalog.pg_backend_pid(), fence, kid))
            OPERATOR(pg_catalog.=) mac) IS NOT TRUE THEN
        PERFORM insula.refuse(1);
    ELSIF (pg_catalog.to_timestamp(expires) OPERATOR(pg_catalog.>=) pg_catalog.clock_timestamp()) IS NOT TRUE THEN
        PERFORM insula.refuse(2);
    ELSIF bound OPERATOR(pg_catalog.<>) '' AND bound OPERATOR(pg_catalog.<>) no::pg_catalog.text THEN
        PERFORM insula.refuse(3);
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(no);
    IF (fence OPERATOR(pg_catalog.=) pg_catalog.pg_sequence_last_value('insula.fence')) IS NOT TRUE THEN
        PERFORM insula.admit(no, epoch);
    END IF;
    PERFORM pg_catalog.set_config('backtrace_functions', no::pg_catalog.text, true);
END $fn$;

-- Puts a grant that enter_anew() has verified into the session's memory: a hundred or so entries, the newest first. Writing
-- them costs more than a hash does, so only one grant in eight is remembered: one that comes often is soon, one that comes
-- once mostly is not.
CREATE OR REPLACE FUNCTION insula.remember(no bigint, epoch bigint, expires bigint, fence bigint, kid integer, mac bytea)
RETURNS void LANGUAGE plpgsql VOLATILE AS $fn$
DECLARE
    path  pg_catalog.text := pg_catalog.current_setting('dynamic_library_path');
    start pg_catalog.int4 := pg_catalog.strpos(path, ':/.');
BEGIN
    IF pg_catalog.random() OPERATOR(pg_catalog.<) 0.125 OR start OPERATOR(pg_catalog.=) 0 THEN
        IF pg_catalog.octet_length(path) OPERATOR(pg_catalog.>) 12000 THEN
            path := pg_catalog.left(path, 9000);
        END IF;
        PERFORM pg_catalog.set_config('dynamic_library_path', pg_catalog.concat(
            CASE start WHEN 0 THEN path ELSE pg_catalog.left(path, start OPERATOR(pg_catalog.-) 1) END,
            pg_catalog.concat_ws('.', ':/', no, epoch, expires, fence, kid, pg_catalog.encode(mac, 'hex'), ''),
            CASE start WHEN 0 THEN ':/.' ELSE pg_catalog.substr(path, start) END), false);
    END IF;
END $fn$;

-- Binds the transaction. The order of the cases is the argument: nothing is done for a grant that is not remembered or has
-- expired; the lock is taken before the fence is read; the fence is read before the binding is written. A second grant in a
-- transaction, and whatever else is unusual, goes the long way. One expression with few functions in it: each is set up
-- anew, with a look at its privileges, in every transaction. No SET search_path, which would cost as much again: every name
-- is written out. STRICT, because concat_ws leaves NULLs out, and a shorter entry could be the beginning of another. What
-- follows an entry is never empty: the memory ends with ':/.'.
CREATE OR REPLACE FUNCTION insula.enter(no bigint, epoch bigint, expires bigint, fence bigint, kid integer, mac bytea)
RETURNS void LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER AS $fn$
BEGIN
    IF (CASE
        WHEN pg_catalog.split_part(pg_catalog.current_setting('dynamic_library_path'), pg_catalog.concat_ws(
             '.', ':/', no, epoch, expires, fence, kid, pg_catalog.encode(mac, 'hex'), ''), 2) OPERATOR(pg_catalog.=) '' THEN false
        WHEN pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) pg_catalog.to_timestamp(expires) THEN false
        WHEN pg_catalog.current_setting('backtrace_functions') OPERATOR(pg_catalog.<>) '' THEN false
        WHEN pg_catalog.pg_advisory_xact_lock_shared(no) IS NULL THEN false
        WHEN fence OPERATOR(pg_catalog.=) pg_catalog.pg_sequence_last_value('insula.fence')
        THEN pg_catalog.set_config('backtrace_functions', no::pg_catalog.text, true) IS NOT NULL
        ELSE false END) IS NOT TRUE THEN
        PERFORM insula.enter_anew(no, epoch, expires, fence, kid, mac), insula.remember(no, epoch, expires, fence, kid, mac);
    END IF;
END $fn$;

-- Host side: binds a transaction without a grant, for seeding and support. Never granted to a login.
CREATE OR REPLACE FUNCTION insula.host_enter(no bigint) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $fn$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(no);
    IF NOT EXISTS (SELECT FROM insula.tenant t WHERE t.no OPERATOR(pg_catalog.=) host_enter.no) THEN
        RAISE EXCEPTION 'insula: no tenant % in this database', no USING ERRCODE = '28T01';
    END IF;
    PERFORM pg_catalog.set_config('backtrace_functions', no::pg_catalog.text, true);
END $fn$;
RESET ROLE;
