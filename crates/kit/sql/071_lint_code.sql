-- The rules of the lint about code and about what carries rows elsewhere: functions, triggers, publications, extensions.
SET LOCAL ROLE insula_owner;

CREATE OR REPLACE FUNCTION insula.lint_code() RETURNS TABLE (rule text, severity text, object text, detail text)
LANGUAGE sql STABLE AS $fn$
    WITH authored AS (
        SELECT p.oid, p.oid::regprocedure::text AS name, p.prosecdef, p.proleakproof, p.proconfig, l.lanname, l.lanpltrusted,
               o.rolname AS owner, o.rolsuper OR o.rolbypassrls AS free
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
          JOIN pg_roles o ON o.oid = p.proowner
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'insula') AND n.nspname !~ '^pg_(temp|toast)'
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    )
    SELECT 'function-definer', CASE WHEN f.free THEN 'error' ELSE 'warning' END, f.name,
           CASE WHEN f.free THEN 'runs with the rights of ' || f.owner || ', which row security does not bind: write SECURITY INVOKER'
                ELSE 'SECURITY DEFINER without its own search_path: write SECURITY INVOKER, or SET search_path = pg_catalog, pg_temp' END
      FROM authored f
     WHERE f.prosecdef AND (f.free OR NOT EXISTS (SELECT FROM unnest(f.proconfig) c WHERE c LIKE 'search_path=%'))
    UNION ALL
    SELECT 'function-owner', 'error', f.name, 'owned by ' || f.owner || ': ALTER FUNCTION ... OWNER TO insula_owner'
      FROM authored f WHERE f.owner <> 'insula_owner' AND NOT (f.prosecdef AND f.free)
    UNION ALL
    SELECT 'function-leakproof', 'error', f.name, 'marked LEAKPROOF: it is shown rows before the policy has looked. ALTER FUNCTION ... NOT LEAKPROOF'
      FROM authored f WHERE f.proleakproof
    UNION ALL
    SELECT 'function-language', 'error', f.name, 'written in ' || f.lanname || ', which may do anything: use sql or plpgsql'
      FROM authored f WHERE NOT f.lanpltrusted
    UNION ALL
    SELECT 'trigger-owner', 'error', r.name, 'trigger ' || quote_ident(t.tgname) || ' runs ' || t.tgfoid::regprocedure
           || ' with rights that row security does not bind'
      FROM insula.lint_relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
      JOIN pg_proc p ON p.oid = t.tgfoid AND p.prosecdef JOIN pg_roles o ON o.oid = p.proowner AND (o.rolsuper OR o.rolbypassrls)
    UNION ALL
    SELECT 'trigger-disabled', 'error', t.tgrelid::regclass::text, 'trigger ' || quote_ident(t.tgname) || ' does not always fire: install the kit again'
      FROM pg_trigger t WHERE t.tgrelid = 'insula.tenant'::regclass AND t.tgname ~ '^raise_fence'
       AND t.tgenabled NOT IN ('A', CASE t.tgname WHEN 'raise_fence_truncate' THEN 'O' ELSE 'A' END)
    UNION ALL
    SELECT 'event-trigger', 'warning', e.evtname, 'event trigger: make sure that it copies nothing between tenants'
      FROM pg_event_trigger e
    UNION ALL
    SELECT 'publication', 'error', p.pubname, 'publishes all tables of all tenants: publish tenant by tenant, with a row filter'
      FROM pg_publication p WHERE p.puballtables
    UNION ALL
    SELECT 'publication', 'error', p.pubname, 'publishes schema ' || pn.pnnspid::regnamespace || ' of all tenants: publish tables with a row filter'
      FROM pg_publication p JOIN pg_publication_namespace pn ON pn.pnpubid = p.oid
    UNION ALL
    SELECT 'publication', 'error', p.pubname, 'publishes ' || pr.prrelid::regclass || ' of all tenants: add WHERE (tenant_id = ...)'
      FROM pg_publication p JOIN pg_publication_rel pr ON pr.prpubid = p.oid JOIN insula.lint_relation r ON r.oid = pr.prrelid AND r.tenant
     WHERE coalesce(pg_get_expr(pr.prqual, pr.prrelid), '') !~ '\mtenant_id = '
    UNION ALL
    SELECT 'extension', CASE WHEN e.extname IN ('dblink', 'postgres_fdw', 'file_fdw', 'adminpack', 'plpython3u', 'plperlu', 'pltclu') THEN 'error' ELSE 'warning' END,
           e.extname, 'is not on the list of extensions that were looked at: it may read around row security. DROP EXTENSION, or review it'
      FROM pg_extension e
     WHERE e.extname NOT IN ('plpgsql', 'btree_gin', 'btree_gist', 'citext', 'pg_trgm', 'unaccent', 'hstore', 'ltree', 'intarray', 'fuzzystrmatch', 'uuid-ossp', 'pgcrypto', 'pg_stat_statements', 'vector')
    UNION ALL
    SELECT 'search-expression', 'notice', i.indexrelid::regclass::text,
           'an index over an expression is not used under row security: store it in a generated column and call insula.search_index()'
      FROM insula.lint_relation r JOIN pg_index i ON i.indrelid = r.oid AND i.indexprs IS NOT NULL
      JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam AND m.amname IN ('gin', 'gist')
     WHERE r.tenant
$fn$;
RESET ROLE;
