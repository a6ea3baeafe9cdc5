-- Way 1: the binding lives in backtrace_functions, a setting that only a superuser and, by GRANT SET ON PARAMETER, insula_owner
-- may write. A tenant's number as its value has no effect (no C function is named by digits).
--
-- The pads of the key are kept as the text of functions that are never run, and read back with pg_get_functiondef(), which the
-- application's roles may not call, as they may not read pg_proc.prosrc. Not as constants of enter() itself: a literal that is
-- ever parsed can be had out of an error's CONTEXT (statement_timeout, stack depth) or by debug_print_plan.
SET LOCAL ROLE insula_owner;

CREATE OR REPLACE FUNCTION insula.current_tenant() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(pg_catalog.current_setting('backtrace_functions'), '')::pg_catalog.int8;

-- Binds the transaction. The order of the cases is the argument: nothing is said about a grant before its MAC holds; the lock
-- is taken before the fence is read; the fence is read before the binding is written.
CREATE OR REPLACE FUNCTION insula.enter(no bigint, epoch bigint, expires bigint, fence bigint, kid integer, mac bytea)
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $fn$
DECLARE
    pads    pg_catalog.text := pg_catalog.right(pg_catalog.pg_get_functiondef(CASE kid {{key_cases}} END), 268);
    verdict pg_catalog.int4 := CASE
        WHEN (pg_catalog.sha256(pg_catalog.byteacat(pg_catalog.decode(pg_catalog.substr(pads, 130, 128), 'hex'),
              pg_catalog.sha256(pg_catalog.byteacat(pg_catalog.decode(pg_catalog.substr(pads, 1, 128), 'hex'),
              pg_catalog.textsend(pg_catalog.concat_ws('|', no, epoch, expires, pg_catalog.pg_backend_pid(), fence, kid))))))
              OPERATOR(pg_catalog.=) mac) IS NOT TRUE THEN 1
        WHEN (expires OPERATOR(pg_catalog.>=) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())) IS NOT TRUE THEN 2
        WHEN pg_catalog.current_setting('backtrace_functions') OPERATOR(pg_catalog.<>) ''
             AND pg_catalog.current_setting('backtrace_functions') OPERATOR(pg_catalog.<>) no::pg_catalog.text THEN 3
        WHEN pg_catalog.pg_advisory_xact_lock_shared(no) IS NULL THEN 1
        WHEN fence OPERATOR(pg_catalog.=) pg_catalog.pg_sequence_last_value('insula.fence')
        THEN (pg_catalog.set_config('backtrace_functions', no::pg_catalog.text, true) IS NULL)::pg_catalog.int4
        ELSE 9 END;
BEGIN
    IF verdict OPERATOR(pg_catalog.=) 0 THEN
        RETURN;
    ELSIF verdict OPERATOR(pg_catalog.=) 9 THEN
        PERFORM insula.admit(no, epoch);
        PERFORM pg_catalog.set_config('backtrace_functions', no::pg_catalog.text, true);
    ELSE
        PERFORM insula.refuse(verdict);
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
