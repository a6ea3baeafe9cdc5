-- The rules of the lint about relations. Each returns rule, severity, object, detail.
SET LOCAL ROLE insula_owner;

-- Everything that an application's or an extension's author made: not the system's, not the kit's.
CREATE OR REPLACE VIEW insula.lint_relation AS
    SELECT c.oid, c.oid::regclass::text AS name, n.nspname AS schema, c.relname, c.relkind, c.relowner, c.relacl, c.relpersistence,
           c.relrowsecurity, c.relforcerowsecurity, c.relispartition, c.reloptions,
           EXISTS (SELECT FROM insula.shared s WHERE s.relation = c.oid) AS shared,
           EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant') AS tenant,
           EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS extension
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'insula', 'pg_toast') AND n.nspname !~ '^pg_(temp|toast_temp)_';

-- Who could be an attacker: every role that can log in and is no superuser, and PUBLIC (oid 0).
CREATE OR REPLACE VIEW insula.lint_grantee AS
    SELECT 0::oid AS oid, 'PUBLIC' AS name
    UNION ALL
    SELECT r.oid, r.rolname FROM pg_roles r WHERE r.rolname IN (SELECT l.role FROM insula.login l);

-- The text that a tenant's policy deparses to; it differs by way.
CREATE OR REPLACE FUNCTION insula.policy_text() RETURNS text LANGUAGE sql STABLE AS $fn$
    SELECT CASE insula.way() WHEN 1 THEN '(tenant_id = insula.current_tenant())'
           ELSE '(tenant_id = ( SELECT insula.current_tenant() AS current_tenant))' END
$fn$;

CREATE OR REPLACE FUNCTION insula.lint_tables() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT 'table-uncovered', 'error', r.name,
           'not a tenant table: SELECT insula.tenant_table(''' || r.relname || '''), or insula.shared_table() for reference data'
      FROM insula.lint_relation r WHERE r.relkind IN ('r', 'p') AND NOT r.tenant AND NOT r.shared AND NOT r.extension AND NOT r.relispartition
    UNION ALL
    SELECT 'row-security-off', 'error', r.name, 'ALTER TABLE ' || r.name || ' ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY'
      FROM insula.lint_relation r WHERE r.relkind IN ('r', 'p') AND (r.tenant OR r.relispartition) AND NOT (r.relrowsecurity AND r.relforcerowsecurity)
    UNION ALL
    SELECT 'policy-altered', 'error', r.name, 'the policy "tenant" is not as tenant_table() makes it: call it again. It says '
           || coalesce(pg_get_expr(p.polqual, p.polrelid), 'nothing')
      FROM insula.lint_relation r JOIN pg_policy p ON p.polrelid = r.oid AND p.polname = 'tenant'
     WHERE (pg_get_expr(p.polqual, p.polrelid) <> insula.policy_text() OR pg_get_expr(p.polwithcheck, p.polrelid) <> insula.policy_text()
            OR p.polqual IS NULL OR p.polwithcheck IS NULL OR p.polcmd <> '*' OR NOT p.polpermissive OR p.polroles <> '{0}')
    UNION ALL
    SELECT 'policy-extra', 'error', r.name, 'policy ' || quote_ident(p.polname) || ' is permissive: it lets in what "tenant" keeps out. Write AS RESTRICTIVE'
      FROM insula.lint_relation r JOIN pg_policy p ON p.polrelid = r.oid AND p.polname <> 'tenant' AND p.polpermissive
    UNION ALL
    SELECT 'owner', 'error', r.name, 'owned by ' || pg_get_userbyid(r.relowner) || ': ALTER ... OWNER TO insula_owner'
      FROM insula.lint_relation r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT r.extension
       AND pg_get_userbyid(r.relowner) <> 'insula_owner'
    UNION ALL
    SELECT 'tenant-column', 'error', r.name, 'tenant_id must be bigint NOT NULL DEFAULT insula.current_tenant(): call insula.tenant_table() again'
      FROM insula.lint_relation r WHERE r.tenant AND r.relkind IN ('r', 'p')
       AND NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                        WHERE a.attrelid = r.oid AND a.attname = 'tenant_id' AND a.attnotnull AND a.atttypid = 'bigint'::regtype
                          AND pg_get_expr(d.adbin, d.adrelid) = 'insula.current_tenant()')
    UNION ALL
    SELECT 'inheritance', 'error', r.name, 'inherits or is inherited from: row security does not follow inheritance'
      FROM insula.lint_relation r WHERE r.relkind = 'r' AND NOT r.relispartition
       AND EXISTS (SELECT FROM pg_inherits i WHERE r.oid IN (i.inhrelid, i.inhparent))
    UNION ALL
    SELECT 'materialized-view', 'error', r.name, 'holds rows of all tenants without row security: use a view, or a tenant table that a job fills'
      FROM insula.lint_relation r WHERE r.relkind = 'm' AND NOT r.extension
    UNION ALL
    SELECT 'foreign-table', 'error', r.name, 'rows on another server have no row security here'
      FROM insula.lint_relation r WHERE r.relkind = 'f'
    UNION ALL
    SELECT 'view-definer', 'error', r.name, 'runs with the rights of ' || pg_get_userbyid(r.relowner) || ', which row security does not bind: CREATE VIEW ... WITH (security_invoker = true)'
      FROM insula.lint_relation r JOIN pg_roles o ON o.oid = r.relowner
     WHERE r.relkind = 'v' AND NOT r.extension AND (o.rolsuper OR o.rolbypassrls) AND NOT coalesce(r.reloptions && ARRAY['security_invoker=true', 'security_invoker=on'], false)
    UNION ALL
    SELECT 'rule', 'error', r.name, 'rewrite rule ' || quote_ident(w.rulename) || ': rules are rewritten around row security; use a trigger'
      FROM insula.lint_relation r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE w.rulename NOT IN ('_RETURN', 'no_merge') AND NOT r.extension
    UNION ALL
    SELECT 'merge', 'error', r.name, 'takes MERGE, which can count the rows of all tenants: call insula.tenant_table() again, for its rule no_merge'
      FROM insula.lint_relation r WHERE r.relkind IN ('r', 'p') AND (r.tenant OR r.relispartition)
       AND NOT EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = r.oid AND w.rulename = 'no_merge' AND w.ev_type = '4' AND w.ev_enabled = 'O'
                          AND NOT w.is_instead AND pg_get_ruledef(w.oid) LIKE '% DO NOTHING;')
    UNION ALL
    SELECT 'sequence', 'error', r.name, 'a sequence that all tenants share tells each how much the others do: use uuid or insula.next_number()'
      FROM insula.lint_relation r WHERE r.relkind = 'S' AND NOT r.extension
$fn$;

CREATE OR REPLACE FUNCTION insula.lint_constraints() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    SELECT 'unique-without-tenant', 'error', i.indexrelid::regclass::text,
           'a duplicate tells that another tenant has the value: UNIQUE (tenant_id, ...), not ' || pg_get_indexdef(i.indexrelid)
      FROM insula.lint_relation r JOIN pg_index i ON i.indrelid = r.oid AND (i.indisunique OR i.indisexclusion)
      LEFT JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = 'tenant_id'
     WHERE r.tenant AND ((i.indisunique AND i.indkey[0] IS DISTINCT FROM a.attnum)
        OR (i.indisexclusion AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype = 'x'
                                                AND pg_get_constraintdef(c.oid) ~ '\mtenant_id WITH =')))
    UNION ALL
    SELECT 'foreign-key-without-tenant', 'error', r.name,
           'foreign key ' || quote_ident(c.conname) || ' tells whether another tenant''s row exists: FOREIGN KEY (tenant_id, ...) REFERENCES ... (tenant_id, ...)'
      FROM insula.lint_relation r JOIN pg_constraint c ON c.conrelid = r.oid AND c.contype = 'f'
      JOIN insula.lint_relation t ON t.oid = c.confrelid AND NOT t.shared
     WHERE NOT EXISTS (SELECT FROM pg_attribute a, pg_attribute b
                        WHERE a.attrelid = c.conrelid AND a.attname = 'tenant_id' AND a.attnum = c.conkey[1]
                          AND b.attrelid = c.confrelid AND b.attname = 'tenant_id' AND b.attnum = c.confkey[1])
    UNION ALL
    SELECT 'tenant-index', 'warning', r.name, 'no index begins with tenant_id: every query reads all tenants'' rows'
      FROM insula.lint_relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = 'tenant_id'
     WHERE r.tenant AND r.relkind = 'r'
       AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL)
$fn$;
RESET ROLE;
