-- Way 2: for servers that give nobody a superuser. enter() verifies the grant and leaves a ticket, signed by this database for
-- this backend and this transaction, in an ordinary setting; current_tenant() verifies the ticket once per statement. Whoever
-- overwrites the setting has overwritten it with something that does not verify.
SET LOCAL ROLE insula_owner;

-- What a ticket signs. The letter keeps it apart from every grant; the transaction's start ties it to this transaction.
CREATE OR REPLACE FUNCTION insula.ticket_message(no bigint, epoch bigint, fence bigint, kid integer) RETURNS text
LANGUAGE plpgsql STABLE AS $fn$
BEGIN
    RETURN pg_catalog.concat_ws('|', 't', no, epoch, fence, kid, pg_catalog.pg_backend_pid(),
        pg_catalog.date_part('epoch', pg_catalog.transaction_timestamp())::pg_catalog.numeric(20, 6));
END $fn$;

-- VOLATILE, so that each statement in it has a fresh snapshot: the row is looked at as it is now, not as it was when the
-- caller's statement began. Policies call it as (SELECT insula.current_tenant()), once a statement.
CREATE OR REPLACE FUNCTION insula.current_tenant() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $fn$
DECLARE
    f      pg_catalog.text[];
    ticket pg_catalog.text := NULLIF(pg_catalog.current_setting('insula.ticket', true), '');
    own    pg_catalog.int8;
BEGIN
    IF ticket IS NULL THEN
        SELECT t.no INTO own FROM insula.tenant t
         WHERE t.role OPERATOR(pg_catalog.=) SESSION_USER AND t.state OPERATOR(pg_catalog.=) 'active';
        RETURN own;
    END IF;
    IF ticket OPERATOR(pg_catalog.!~) '^[1-9][0-9]{0,17}[.][0-9]{1,18}[.][0-9]{1,18}[.][0-9]{1,9}[.][0-9a-f]{64}$' THEN
        RETURN NULL;
    END IF;
    f := pg_catalog.string_to_array(ticket, '.');
    IF (insula.hmac(f[4]::pg_catalog.int4, insula.ticket_message(f[1]::pg_catalog.int8, f[2]::pg_catalog.int8,
            f[3]::pg_catalog.int8, f[4]::pg_catalog.int4)) OPERATOR(pg_catalog.=) pg_catalog.decode(f[5], 'hex')) IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    -- Held already, unless a savepoint was rolled back under a ticket that was put back by hand.
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(f[1]::pg_catalog.int8);
    IF f[2] OPERATOR(pg_catalog.<>) '0'
       AND f[3]::pg_catalog.int8 OPERATOR(pg_catalog.<>) pg_catalog.pg_sequence_last_value('insula.fence') THEN
        PERFORM insula.admit(f[1]::pg_catalog.int8, f[2]::pg_catalog.int8);
    END IF;
    RETURN f[1]::pg_catalog.int8;
END $fn$;

-- Epoch 0 is the host side's: it binds tenants in any state.
CREATE OR REPLACE FUNCTION insula.write_ticket(no bigint, epoch bigint, fence bigint, kid integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $fn$
BEGIN
    PERFORM pg_catalog.set_config('insula.ticket', pg_catalog.concat_ws('.', no, epoch, fence, kid,
        pg_catalog.encode(insula.hmac(kid, insula.ticket_message(no, epoch, fence, kid)), 'hex')), true);
END $fn$;

CREATE OR REPLACE FUNCTION insula.enter(no bigint, epoch bigint, expires bigint, fence bigint, kid integer, mac bytea)
RETURNS void LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER AS $fn$
DECLARE
    present pg_catalog.int8;
BEGIN
    IF (insula.hmac(kid, pg_catalog.concat_ws('|', no, epoch, expires, pg_catalog.pg_backend_pid(), fence, kid))
            OPERATOR(pg_catalog.=) mac) IS NOT TRUE THEN
        PERFORM insula.refuse(1);
    END IF;
    IF (expires OPERATOR(pg_catalog.>=) pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())) IS NOT TRUE THEN
        PERFORM insula.refuse(2);
    END IF;
    -- The shared locks that this transaction holds are the one memory of it that SQL cannot rewrite.
    IF EXISTS (SELECT FROM pg_catalog.pg_locks l
                WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
                  AND l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.mode OPERATOR(pg_catalog.=) 'ShareLock'
                  AND l.objsubid OPERATOR(pg_catalog.=) 1
                  AND ((l.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32)
                       OPERATOR(pg_catalog.|) l.objid::pg_catalog.int8) OPERATOR(pg_catalog.<>) no) THEN
        PERFORM insula.refuse(3);
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(no);
    present := pg_catalog.pg_sequence_last_value('insula.fence');
    IF (fence OPERATOR(pg_catalog.=) present) IS NOT TRUE THEN
        PERFORM insula.admit(no, epoch);
    END IF;
    PERFORM insula.write_ticket(no, epoch, present, kid);
END $fn$;

CREATE OR REPLACE FUNCTION insula.host_enter(no bigint) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $fn$
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock_shared(no);
    IF NOT EXISTS (SELECT FROM insula.tenant t WHERE t.no OPERATOR(pg_catalog.=) host_enter.no) THEN
        RAISE EXCEPTION 'insula: no tenant % in this database', no USING ERRCODE = '28T01';
    END IF;
    PERFORM insula.write_ticket(no, 0, pg_catalog.pg_sequence_last_value('insula.fence'),
        (SELECT c.kid FROM insula.config c));
END $fn$;
RESET ROLE;
