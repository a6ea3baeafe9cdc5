-- The rules of the lint about roles, privileges and code; and insula.lint(), which runs all.
SET LOCAL ROLE insula_owner;

CREATE OR REPLACE FUNCTION insula.lint_roles() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT 'role-attribute', 'error', r.rolname, 'may step around the boundary: ALTER ROLE ' || quote_ident(r.rolname)
           || ' NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION'
      FROM pg_roles r WHERE r.rolname IN (SELECT l.role FROM insula.login l UNION SELECT unnest(ARRAY['insula_owner', 'insula_app', 'insula_guest']))
       AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication)
    UNION ALL
    SELECT 'owner-login', 'error', 'insula_owner', 'can log in: ALTER ROLE insula_owner NOLOGIN'
      FROM pg_roles r WHERE r.rolname = 'insula_owner' AND r.rolcanlogin
    UNION ALL
    SELECT 'role-member', 'error', g.name, 'is a member of ' || pg_get_userbyid(m.roleid) || ': REVOKE it; logins are members of nothing'
      FROM insula.lint_grantee g JOIN pg_auth_members m ON m.member = g.oid WHERE pg_get_userbyid(m.roleid) <> 'insula_guest'
$fn$;

CREATE OR REPLACE FUNCTION insula.lint() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT * FROM insula.lint_tables()
    UNION ALL SELECT * FROM insula.lint_constraints()
    UNION ALL SELECT * FROM insula.lint_roles()
$fn$;
RESET ROLE;
