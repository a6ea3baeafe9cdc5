-- The rules of the lint about roles and privileges; and insula.lint(), which runs all.
SET LOCAL ROLE insula_owner;

CREATE OR REPLACE FUNCTION insula.lint_roles() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT 'role-attribute', 'error', r.rolname, 'may step around the boundary: ALTER ROLE ' || quote_ident(r.rolname)
           || ' NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION'
      FROM pg_roles r WHERE r.rolname IN (SELECT l.role FROM insula.login l UNION SELECT unnest(ARRAY['insula_owner', 'insula_app', 'insula_guest', 'insula_queue', 'insula_worker']))
       AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication)
    UNION ALL
    SELECT 'owner-login', 'error', r.rolname, 'can log in: ALTER ROLE ' || r.rolname || ' NOLOGIN'
      FROM pg_roles r WHERE r.rolname IN ('insula_owner', 'insula_queue') AND r.rolcanlogin
    UNION ALL
    SELECT 'role-member', 'error', g.name, 'is a member of ' || pg_get_userbyid(m.roleid) || ': REVOKE it; logins are members of nothing'
      FROM insula.lint_grantee g JOIN pg_auth_members m ON m.member = g.oid WHERE pg_get_userbyid(m.roleid) <> 'insula_guest'
    UNION ALL
    SELECT 'setting-grant', 'error', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
           'may write ' || p.parname || ', which holds the binding: REVOKE ' || a.privilege_type || ' ON PARAMETER ' || p.parname
      FROM pg_parameter_acl p, aclexplode(p.paracl) a
     WHERE p.parname IN ('backtrace_functions', 'dynamic_library_path')
       AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.grantee AND (r.rolsuper OR (r.rolname = 'insula_owner' AND a.privilege_type = 'SET')))
    UNION ALL
    -- A login's own binding must be its own tenant's number; a group of tenants has no such thing as a common one.
    SELECT 'login-binding', 'error', g.name, 'is not bound to its tenant: create the login again'
      FROM insula.lint_grantee g JOIN insula.tenant t ON t.role = g.name
     WHERE insula.way() = 1
       AND NOT EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setrole = g.oid AND s.setdatabase = 0
                          AND ('backtrace_functions=' || t.no) = ANY (s.setconfig))
    UNION ALL
    SELECT 'login-binding', 'error', CASE s.setrole WHEN 0 THEN 'every role' ELSE pg_get_userbyid(s.setrole) END,
           'is bound to a tenant for good: ALTER ROLE or DATABASE ... RESET backtrace_functions'
      FROM pg_db_role_setting s
     WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
       AND EXISTS (SELECT FROM unnest(s.setconfig) c WHERE c LIKE 'backtrace_functions=%')
       AND (s.setrole = 0 OR pg_get_userbyid(s.setrole) IN ('insula_app', 'insula_owner') OR s.setdatabase <> 0)
$fn$;

-- What a login, or everybody, may do to relations beyond what tenant_table() and shared_table() give.
CREATE OR REPLACE FUNCTION insula.lint_grants() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT 'table-grant', 'error', r.name, g.name || ' has ' || a.privilege_type || ': REVOKE ' || a.privilege_type || ' ON ' || r.name || ' FROM ' || g.name
      FROM insula.lint_relation r, aclexplode(r.relacl) a JOIN insula.lint_grantee g ON g.oid = a.grantee
     WHERE NOT r.extension AND r.relkind <> 'v'
       AND (a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER') OR g.name = 'PUBLIC' OR a.is_grantable
            OR r.relkind IN ('S', 'm', 'f') OR (r.shared AND a.privilege_type <> 'SELECT') OR NOT (r.tenant OR r.shared) OR r.relispartition
            OR NOT EXISTS (SELECT FROM insula.login l WHERE l.role = g.name AND l.schema = r.schema))
    UNION ALL
    SELECT 'table-ungranted', 'warning', r.name, l.role || ' may not use it: SELECT insula.tenant_table(''' || r.relname || ''') again'
      FROM insula.lint_relation r JOIN insula.login l ON l.schema = r.schema
     WHERE r.tenant AND r.relkind IN ('r', 'p') AND NOT r.relispartition AND NOT has_table_privilege(l.role, r.oid, 'SELECT')
    UNION ALL
    SELECT 'kit-grant', 'error', c.oid::regclass::text, g.name || ' has ' || a.privilege_type || ' on the kit''s own: install the kit again'
      FROM pg_class c, aclexplode(c.relacl) a JOIN insula.lint_grantee g ON g.oid = a.grantee WHERE c.relnamespace = 'insula'::regnamespace
    UNION ALL
    SELECT 'kit-grant', 'error', p.oid::regprocedure::text, 'PUBLIC may run it: install the kit again'
      FROM pg_proc p WHERE p.pronamespace = 'insula'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
    UNION ALL
    SELECT 'kit-grant', 'error', p.oid::regprocedure::text, g.name || ' may run it: install the kit again'
      FROM pg_proc p, aclexplode(p.proacl) a JOIN insula.lint_grantee g ON g.oid = a.grantee AND g.oid <> 0
     WHERE p.pronamespace = 'insula'::regnamespace AND p.proname NOT IN ('enter', 'current_tenant', 'way', 'next_number', 'enqueue', 'cancel_job', 'job_state', 'must_ring', 'ring',
        'schedule_put', 'schedule_list', 'schedule_switch', 'schedule_remove')
       AND p.proname NOT IN ('publish', 'event_new', 'event_failed', 'webhook_create', 'webhook_list', 'webhook_remove', 'webhook_pause', 'webhook_reseal',
                             'webhook_send', 'webhook_target', 'webhook_told')
    UNION ALL
    SELECT 'worker-grant', 'error', c.oid::regclass::text, 'insula_worker has ' || a.privilege_type || ': workers call the queue''s functions and have no other right. REVOKE it'
      FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = 'insula_worker'::regrole
    UNION ALL
    SELECT 'worker-grant', 'error', p.oid::regprocedure::text, 'insula_worker may run it, and it is not the queue''s: REVOKE it'
      FROM pg_proc p, aclexplode(p.proacl) a WHERE a.grantee = 'insula_worker'::regrole AND (p.proowner <> 'insula_queue'::regrole OR p.pronamespace <> 'insula'::regnamespace)
    UNION ALL
    SELECT 'schema-grant', 'error', n.nspname, g.name || ' has ' || a.privilege_type || ' on the schema: REVOKE it'
      FROM pg_namespace n, aclexplode(n.nspacl) a JOIN insula.lint_grantee g ON g.oid = a.grantee
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
       AND (a.privilege_type = 'CREATE' OR (g.oid = 0)
            OR (n.nspname <> 'insula' AND NOT EXISTS (SELECT FROM insula.login l WHERE l.role = g.name AND l.schema = n.nspname)))
    UNION ALL
    SELECT 'database-grant', 'error', d.datname, g.name || ' has ' || a.privilege_type || ' on the database: REVOKE it'
      FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a JOIN insula.lint_grantee g ON g.oid = a.grantee
     WHERE d.datname = current_database() AND (g.oid = 0 OR a.privilege_type <> 'CONNECT')
    UNION ALL
    SELECT 'default-privilege', 'error', pg_get_userbyid(d.defaclrole), 'default privileges give ' || a.privilege_type || ' to '
           || coalesce(g.name, '?') || ' on whatever is made next: ALTER DEFAULT PRIVILEGES ... REVOKE'
      FROM pg_default_acl d, aclexplode(d.defaclacl) a JOIN insula.lint_grantee g ON g.oid = a.grantee
     WHERE NOT (d.defaclobjtype IN ('f', 'T') AND g.oid = 0)
    UNION ALL
    SELECT 'language-grant', 'error', l.lanname, g.name || ' may write code in it (DO): REVOKE USAGE ON LANGUAGE ' || l.lanname
      FROM pg_language l, aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) a JOIN insula.lint_grantee g ON g.oid = a.grantee
     WHERE insula.way() = 1 AND l.lanname NOT IN ('internal', 'c')
$fn$;

-- One of each sort that 090_harden.sql takes away; way 2 cannot take them, and says so.
CREATE OR REPLACE FUNCTION insula.lint_server() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT 'way-ticket', 'notice', current_database()::text,
           'no superuser installed the kit: catalog functions and views are open to the application''s role, and search loses its index. The statement gate is the only guard against them'
     WHERE insula.way() = 2
    UNION ALL
    SELECT 'catalog-function', 'error', p.oid::regprocedure::text, 'PUBLIC may run it: install the kit again'
      FROM pg_proc p WHERE insula.way() = 1 AND p.pronamespace = 'pg_catalog'::regnamespace
       AND p.proname IN ('set_config', 'pg_advisory_lock', 'pg_notify', 'query_to_xml', 'lo_get', 'pg_stat_get_activity', 'pg_sleep', 'currtid2',
                         'pg_relation_size', 'pg_current_xact_id', 'pg_current_wal_lsn', 'pg_terminate_backend', 'pg_get_functiondef', 'ts_stat')
       AND has_function_privilege('public', p.oid, 'EXECUTE')
    UNION ALL
    SELECT 'catalog-relation', 'error', c.relname, 'PUBLIC may read it: install the kit again'
      FROM pg_class c WHERE insula.way() = 1 AND c.relnamespace = 'pg_catalog'::regnamespace
       AND c.relname IN ('pg_stat_activity', 'pg_stat_user_tables', 'pg_locks', 'pg_settings', 'pg_stats', 'pg_roles', 'pg_database', 'pg_namespace',
                         'pg_prepared_statements', 'pg_cursors', 'pg_db_role_setting', 'pg_class', 'pg_proc')
       AND has_table_privilege('public', c.oid, 'SELECT')
    UNION ALL
    SELECT 'catalog-column', 'error', 'pg_class.' || a.attname, 'PUBLIC may read it: install the kit again'
      FROM pg_attribute a WHERE insula.way() = 1 AND a.attrelid = 'pg_catalog.pg_class'::regclass AND a.attname IN ('relpages', 'reltuples', 'relallvisible')
       AND has_column_privilege('public', a.attrelid, a.attnum, 'SELECT')
    UNION ALL
    SELECT 'server-database', CASE insula.way() WHEN 1 THEN 'error' ELSE 'notice' END, d.datname,
           'PUBLIC may connect, so the application''s role sees there what its other sessions run, and can end them: REVOKE CONNECT ON DATABASE ' || d.datname || ' FROM PUBLIC'
      FROM pg_database d WHERE d.datname IN ('postgres', 'template1') AND has_database_privilege('public', d.oid, 'CONNECT')
    UNION ALL
    SELECT 'prepared-transactions', 'warning', 'max_prepared_transactions', 'PREPARE TRANSACTION leaves locks behind that outlive a session: set it to 0'
     WHERE current_setting('max_prepared_transactions')::int > 0
$fn$;

CREATE OR REPLACE FUNCTION insula.lint() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT * FROM insula.lint_tables()
    UNION ALL SELECT * FROM insula.lint_constraints()
    UNION ALL SELECT * FROM insula.lint_code()
    UNION ALL SELECT * FROM insula.lint_roles()
    UNION ALL SELECT * FROM insula.lint_grants()
    UNION ALL SELECT * FROM insula.lint_server()
$fn$;
RESET ROLE;
