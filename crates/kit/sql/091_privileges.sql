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
-- Workers call the queue's functions, and have no other right in a tenant database.
DO $do$
DECLARE
    f record;
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO insula_worker', current_database());
    GRANT USAGE ON SCHEMA insula TO insula_queue, insula_worker;
    FOR f IN SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = 'insula'::regnamespace AND p.proname IN
        ('work', 'settle', 'worker_begin', 'worker_beat', 'worker_end', 'worker_bury', 'worker_sleeps', 'worker_away', 'glance', 'workers', 'worker_holds', 'tell_lanes', 'sweep_queue',
         'queue_state', 'outbox_waits', 'outbox_take', 'outbox_sent', 'outbox_refused', 'outbox_state',
         'schedules_due', 'schedule_fire', 'schedules_next', 'schedules_known', 'schedules_keep', 'schedules_drop', 'schedules_follow', 'schedules_tidy',
         'sweep_begin', 'sweeps_open', 'sweep_marks', 'sweep_step', 'sweep_end', 'sweep_stop', 'sweep_state', 'sweeps_tidy',
         'host_keep', 'host_due', 'host_plan', 'host_take', 'host_end', 'host_tidy') LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO insula_worker', f.name);
    END LOOP;
END $do$;
-- Logins known from before an upgrade get what it brought.
SELECT insula.open_schema(l.role, l.schema) FROM insula.login l;
