-- What the owner of a database may settle on any server. Runs last: it also covers what the files before made.
DO $do$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO insula_owner', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    REVOKE ALL ON SCHEMA insula FROM PUBLIC;
    REVOKE ALL ON ALL TABLES IN SCHEMA insula FROM PUBLIC;
    REVOKE ALL ON ALL SEQUENCES IN SCHEMA insula FROM PUBLIC;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA insula FROM PUBLIC;
END $do$;
-- Logins known from before an upgrade get what it brought.
SELECT insula.open_schema(l.role, l.schema) FROM insula.login l;
