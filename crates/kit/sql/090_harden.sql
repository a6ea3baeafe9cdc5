-- Takes from PUBLIC, in this database, what tells about other tenants or steps around the boundary. Superuser only (way 1).
-- The owner keeps all of it: it runs nothing but the kit and migrations.
DO $do$
DECLARE
    r record;
BEGIN
    FOR r IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proname ~ ('^(' || concat_ws('|',
            -- locks, sleeps, signals, messages between sessions
            'pg_(try_)?advisory_.*', 'pg_sleep.*', 'pg_terminate_backend', 'pg_cancel_backend', 'pg_notify', 'pg_listening_channels',
            'pg_notification_queue_usage', 'pg_logical_emit_message', 'pg_export_snapshot', 'pg_isolation_test_session_is_blocked',
            -- large objects have no row security
            'lo_.*', 'loread', 'lowrite', 'be_lo_.*',
            -- the writable binding, and text run as SQL (which the statement gate would not see)
            'set_config', '(query|table|schema|database|cursor)_to_xml.*', 'ts_stat', 'ts_rewrite',
            -- what others do: activity, locks, sizes, counters
            'pg_stat_.*', 'pg_lock_status', 'pg_prepared_xact', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids',
            'pg_show_all_settings', 'pg_cursor', 'pg_prepared_statement', 'pg_get_replication_slots', 'pg_show_replication_origin_status',
            'pg_(total_)?relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_database_size', 'pg_tablespace_size',
            'pg_relation_filepath', 'pg_relation_filenode', 'pg_filenode_relation', 'pg_tablespace_databases', 'pg_tablespace_location',
            'txid_.*', 'pg_current_xact_id.*', 'pg_current_snapshot', 'pg_xact_.*', 'pg_last_committed_xact', 'pg_get_multixact_members',
            'pg_current_wal.*', 'pg_last_wal.*', 'pg_last_xact.*', 'pg_walfile_.*', 'pg_wal_lsn_diff', 'pg_control_.*', 'mxid_age',
            'pg_sequence_last_value', 'pg_sequence_parameters', 'pg_get_publication_tables', 'pg_get_shmem_allocations',
            -- ctid of a row's newest version, without row security
            'currtid2?',
            -- bodies of functions: what the application runs is its own affair
            'pg_get_functiondef', 'pg_get_function_sqlbody', 'pg_get_function_arg_default') || ')$')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', r.name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO insula_owner', r.name);
    END LOOP;
    REVOKE EXECUTE ON FUNCTION pg_catalog.age(xid) FROM PUBLIC;

    FOR r IN
        SELECT c.oid::regclass AS name FROM pg_class c
         WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
           AND has_table_privilege('public', c.oid, 'SELECT')
           AND c.relname ~ ('^(' || concat_ws('|', 'pg_stat.*', 'pg_locks', 'pg_cursors', 'pg_prepared_.*', 'pg_settings',
               'pg_db_role_setting', 'pg_roles', 'pg_user', 'pg_group', 'pg_auth_members', 'pg_user_mapping.*', 'pg_sequences', 'pg_sequence',
               'pg_tables', 'pg_indexes', 'pg_views', 'pg_matviews', 'pg_policies', 'pg_rules',
               'pg_database', 'pg_namespace', 'pg_tablespace', 'pg_publication.*', 'pg_subscription.*', 'pg_replication_.*', 'pg_largeobject.*',
               'pg_shdepend', 'pg_shdescription', 'pg_shseclabel', 'pg_seclabels?', 'pg_default_acl', 'pg_init_privs', 'pg_parameter_acl',
               'pg_foreign_.*', 'pg_backend_memory_contexts', 'pg_shmem_allocations', 'pg_available_.*') || ')$')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', r.name);
        EXECUTE format('GRANT SELECT ON %s TO insula_owner', r.name);
    END LOOP;

    -- Readable by columns: drivers and types need these two, and nobody needs their sizes and sources.
    FOR r IN SELECT * FROM (VALUES ('pg_class', '{relpages,reltuples,relallvisible,relallfrozen,relfilenode,relfrozenxid,relminmxid}'::text[]),
                                   ('pg_proc', '{prosrc,probin,prosqlbody,proargdefaults,proconfig}')) x (name, hidden) LOOP
        EXECUTE format('REVOKE SELECT ON pg_catalog.%I FROM PUBLIC', r.name);
        EXECUTE format('GRANT SELECT ON pg_catalog.%I TO insula_owner', r.name);
        EXECUTE (SELECT format('GRANT SELECT (%s) ON pg_catalog.%I TO PUBLIC', string_agg(quote_ident(a.attname), ', '), r.name)
                   FROM pg_attribute a WHERE a.attrelid = ('pg_catalog.' || r.name)::regclass AND a.attnum > 0
                    AND NOT a.attisdropped AND a.attname <> ALL (r.hidden));
    END LOOP;

    -- DO blocks and functions of one's own.
    REVOKE USAGE ON LANGUAGE plpgsql, sql FROM PUBLIC;
    GRANT USAGE ON LANGUAGE plpgsql, sql TO insula_owner, insula_queue;
    -- What the queue's functions read of transactions.
    GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_snapshot(), pg_catalog.pg_current_xact_id() TO insula_queue;
    -- By which they find out that somebody would be waited for.
    GRANT EXECUTE ON FUNCTION pg_catalog.pg_try_advisory_xact_lock(integer, integer) TO insula_queue;
    REVOKE USAGE ON SCHEMA information_schema FROM PUBLIC;
    GRANT USAGE ON SCHEMA information_schema TO insula_owner;
END $do$;
