-- tenant_table(): makes an ordinary table a tenant's. For migration authors; runs as insula_owner, granted to nobody else.
SET LOCAL ROLE insula_owner;

-- Names a relation for people: as the search_path would find it.
CREATE OR REPLACE FUNCTION insula.resolve(name text) RETURNS regclass LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    found regclass := to_regclass(name);
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'insula: there is no table "%" on the search_path (%)', name, current_setting('search_path')
            USING ERRCODE = '42P01';
    END IF;
    RETURN found;
END $fn$;

CREATE OR REPLACE FUNCTION insula.is_tenant_table(relation regclass) RETURNS boolean LANGUAGE sql STABLE AS $fn$
    SELECT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = relation AND p.polname = 'tenant')
$fn$;

-- The table, and every table that foreign keys tie it to and that is not a tenant table yet: they are converted together.
CREATE OR REPLACE FUNCTION insula.table_cluster(relation regclass) RETURNS SETOF regclass LANGUAGE sql STABLE AS $fn$
    WITH RECURSIVE tied (relation) AS (
        SELECT relation::oid
        UNION
        SELECT CASE WHEN c.conrelid = t.relation THEN c.confrelid ELSE c.conrelid END
          FROM tied t
          JOIN pg_constraint c ON c.contype = 'f' AND c.conparentid = 0 AND t.relation IN (c.conrelid, c.confrelid)
         WHERE NOT insula.is_tenant_table((CASE WHEN c.conrelid = t.relation THEN c.confrelid ELSE c.conrelid END)::regclass)
           AND NOT EXISTS (SELECT FROM insula.shared s
                            WHERE s.relation = CASE WHEN c.conrelid = t.relation THEN c.confrelid ELSE c.conrelid END)
    )
    SELECT t.relation::regclass FROM tied t
$fn$;

-- Refuses what cannot be made safe, and says what to write instead.
CREATE OR REPLACE FUNCTION insula.refuse_unsafe(relation regclass) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    c   pg_class;
    bad record;
BEGIN
    SELECT * INTO c FROM pg_class x WHERE x.oid = relation;
    IF c.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'insula: % is not a table', relation USING ERRCODE = '42809';
    ELSIF c.relpersistence = 't' THEN
        RAISE EXCEPTION 'insula: % is temporary: tenant tables are permanent', relation USING ERRCODE = '42809';
    ELSIF c.relnamespace IN ('insula'::regnamespace, 'pg_catalog'::regnamespace) THEN
        RAISE EXCEPTION 'insula: % is not an application''s table', relation USING ERRCODE = '42809';
    ELSIF EXISTS (SELECT FROM insula.shared s WHERE s.relation = refuse_unsafe.relation) THEN
        RAISE EXCEPTION 'insula: % was declared with insula.shared_table(): it cannot be a tenant table too', relation
            USING ERRCODE = '42809';
    ELSIF EXISTS (SELECT FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
                   WHERE relation IN (i.inhrelid, i.inhparent) AND p.relkind = 'r') THEN
        RAISE EXCEPTION 'insula: % inherits or is inherited from: row security does not follow inheritance', relation
            USING ERRCODE = '0A000', HINT = 'Use separate tables, or declarative partitioning.';
    END IF;

    FOR bad IN
        SELECT a.attname, a.attidentity <> '' AS identity
          FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
           AND (a.attidentity <> '' OR (a.attgenerated = '' AND pg_get_expr(d.adbin, d.adrelid) ~ '\mnextval\('))
    LOOP
        RAISE EXCEPTION 'insula: %.% is numbered by a sequence that all tenants share: it tells each how much the others do',
                relation, bad.attname
            USING ERRCODE = '0A000',
                  HINT = format('Write "%s uuid NOT NULL DEFAULT gen_random_uuid()" or "%s bigint NOT NULL DEFAULT insula.next_number(''%s'')".',
                                bad.attname, bad.attname, c.relname);
    END LOOP;

    FOR bad IN SELECT con.conname, pg_get_constraintdef(con.oid) AS def FROM pg_constraint con
                WHERE con.conrelid = relation AND con.contype = 'x'
                  AND pg_get_constraintdef(con.oid) !~ '\mtenant_id WITH =' LOOP
        RAISE EXCEPTION 'insula: exclusion constraint % of % would compare rows of different tenants: %', bad.conname, relation, bad.def
            USING ERRCODE = '0A000',
                  HINT = 'Drop it, call insula.tenant_table(), then ADD CONSTRAINT ... EXCLUDE USING gist (tenant_id WITH =, ...) with the extension btree_gist.';
    END LOOP;

    FOR bad IN SELECT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                WHERE a.attrelid = relation AND a.attname = 'tenant_id' AND NOT a.attisdropped AND a.atttypid <> 'bigint'::regtype LOOP
        RAISE EXCEPTION 'insula: %.tenant_id is %, and must be bigint: leave it out and it is added', relation, bad.typname
            USING ERRCODE = '42804';
    END LOOP;
END $fn$;

-- The column, filled by the session's tenant.
CREATE OR REPLACE FUNCTION insula.add_tenant_column(relation regclass) RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    EXECUTE format('ALTER TABLE %s ADD COLUMN IF NOT EXISTS tenant_id bigint NOT NULL DEFAULT insula.current_tenant()', relation);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN tenant_id SET NOT NULL, ALTER COLUMN tenant_id SET DEFAULT insula.current_tenant()', relation);
EXCEPTION WHEN not_null_violation THEN
    RAISE EXCEPTION 'insula: % has rows already, and nobody knows whose they are', relation
        USING ERRCODE = '55000', HINT = 'Call insula.tenant_table() right after CREATE TABLE, before the first row.';
END $fn$;

-- A foreign key written out with tenant_id in front of both sides.
CREATE OR REPLACE FUNCTION insula.composite_key(con pg_constraint) RETURNS text LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    here  text;
    there text;
    rule  text := '';
    words constant jsonb := '{"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}';
BEGIN
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) INTO here
      FROM unnest(con.conkey) WITH ORDINALITY k (num, n) JOIN pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.num;
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) INTO there
      FROM unnest(con.confkey) WITH ORDINALITY k (num, n) JOIN pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.num;
    IF con.confupdtype IN ('n', 'd') THEN
        RAISE EXCEPTION 'insula: foreign key % of %: ON UPDATE % would also clear tenant_id', con.conname, con.conrelid::regclass,
                words ->> con.confupdtype::text USING ERRCODE = '0A000', HINT = 'Write ON UPDATE CASCADE or leave it out.';
    END IF;
    IF con.confdeltype IN ('n', 'd') THEN
        rule := format(' (%s)', CASE WHEN con.confdelsetcols IS NULL THEN here ELSE
            (SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute a
              WHERE a.attrelid = con.conrelid AND a.attnum = ANY (con.confdelsetcols)) END);
    END IF;
    RETURN format('FOREIGN KEY (tenant_id, %s) REFERENCES %s (tenant_id, %s) MATCH %s ON UPDATE %s ON DELETE %s%s%s%s',
        here, con.confrelid::regclass, there, CASE con.confmatchtype WHEN 'f' THEN 'FULL' ELSE 'SIMPLE' END,
        words ->> con.confupdtype::text, words ->> con.confdeltype::text, rule,
        CASE WHEN con.condeferrable THEN ' DEFERRABLE' ELSE '' END, CASE WHEN con.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END);
END $fn$;

-- Primary keys and unique constraints, and unique indexes without one, with tenant_id in front.
CREATE OR REPLACE FUNCTION insula.lead_with_tenant(relation regclass) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    tenant_column smallint := (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = 'tenant_id');
    con record;
    idx record;
BEGIN
    FOR con IN SELECT c.conname, pg_get_constraintdef(c.oid) AS def FROM pg_constraint c
                WHERE c.conrelid = relation AND c.contype IN ('p', 'u') AND c.conkey[1] <> tenant_column AND c.conparentid = 0 LOOP
        IF con.def ~ '\(.*\mtenant_id\M.*\)' THEN
            RAISE EXCEPTION 'insula: % of % has tenant_id, but not first: %', con.conname, relation, con.def
                USING ERRCODE = '0A000', HINT = 'Put tenant_id first.';
        END IF;
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', relation, con.conname);
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', relation, con.conname,
            regexp_replace(con.def, '^(PRIMARY KEY|UNIQUE|UNIQUE NULLS NOT DISTINCT) \(', '\1 (tenant_id, '));
    END LOOP;
    FOR idx IN SELECT i.indexrelid::regclass AS name, pg_get_indexdef(i.indexrelid) AS def FROM pg_index i
                WHERE i.indrelid = relation AND i.indisunique AND i.indkey[0] <> tenant_column
                  AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x')) LOOP
        EXECUTE format('DROP INDEX %s', idx.name);
        EXECUTE regexp_replace(idx.def, ' USING btree \(', ' USING btree (tenant_id, ');
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = relation AND i.indkey[0] = tenant_column AND i.indpred IS NULL) THEN
        EXECUTE format('CREATE INDEX ON %s (tenant_id)', relation);
    END IF;
END $fn$;

-- MERGE reads its target without the policy when it names none of its columns: it then counts, or stumbles over, the rows of
-- all tenants (PostgreSQL 15 to 18 add the policy for reading only where reading is asked for). A table with a rule takes no
-- MERGE. This rule does nothing else, and costs a DELETE nothing; one on INSERT or UPDATE would forbid ON CONFLICT.
CREATE OR REPLACE FUNCTION insula.forbid_merge(relation regclass) RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    EXECUTE format('CREATE OR REPLACE RULE no_merge AS ON DELETE TO %s DO ALSO NOTHING', relation);
END $fn$;

-- Row security, enabled and forced, with the one policy; and the grants.
CREATE OR REPLACE FUNCTION insula.guard(relation regclass) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    login record;
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', relation);
    EXECUTE format('DROP POLICY IF EXISTS tenant ON %s', relation);
    EXECUTE format('CREATE POLICY tenant ON %s USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}})', relation);
    PERFORM insula.forbid_merge(relation);
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', relation);
    FOR login IN SELECT l.role FROM insula.login l JOIN pg_class c ON c.oid = relation
                   JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = l.schema LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', relation, login.role);
    END LOOP;
END $fn$;

CREATE OR REPLACE FUNCTION insula.tenant_table(name text) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    relation regclass   := insula.resolve(name);
    tables   regclass[] := ARRAY(SELECT insula.table_cluster(relation));
    t        regclass;
    con      pg_constraint;
    keys     jsonb := '[]';
    key      jsonb;
BEGIN
    FOREACH t IN ARRAY tables LOOP
        PERFORM insula.refuse_unsafe(t);
        IF (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = t) <> 'insula_owner' THEN
            EXECUTE format('ALTER TABLE %s OWNER TO insula_owner', t);
        END IF;
        PERFORM insula.add_tenant_column(t);
    END LOOP;
    -- Foreign keys first away, because they hold on to the keys that they reference; last back, as composites.
    FOR con IN SELECT c.* FROM pg_constraint c WHERE c.contype = 'f' AND c.conparentid = 0
                  AND (c.conrelid = ANY (tables) OR c.confrelid = ANY (tables))
                  AND NOT EXISTS (SELECT FROM insula.shared s WHERE s.relation = c.confrelid)
                  AND c.conkey[1] <> (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attname = 'tenant_id') LOOP
        keys := keys || jsonb_build_object('on', con.conrelid::regclass::text, 'name', con.conname, 'def', insula.composite_key(con));
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', con.conrelid::regclass, con.conname);
    END LOOP;
    FOREACH t IN ARRAY tables LOOP
        PERFORM insula.lead_with_tenant(t);
    END LOOP;
    FOR key IN SELECT * FROM jsonb_array_elements(keys) LOOP
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I %s', key ->> 'on', key ->> 'name', key ->> 'def');
    END LOOP;
    FOREACH t IN ARRAY tables LOOP
        PERFORM insula.guard(t);
    END LOOP;
    -- A partition is a table of its own to whoever names it.
    FOR t IN SELECT p.relid FROM pg_partition_tree(relation) p WHERE p.relid <> relation LOOP
        PERFORM insula.guard(t);
        EXECUTE format('REVOKE ALL ON %s FROM %s', t,
            coalesce((SELECT string_agg(quote_ident(l.role), ', ') FROM insula.login l), 'PUBLIC'));
    END LOOP;
END $fn$;

-- A foreign key from a tenant table to a tenant table, for a table made after the one that it references was converted.
CREATE OR REPLACE FUNCTION insula.tenant_key(source text, columns text, target text, on_delete text DEFAULT 'NO ACTION')
RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    pk text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.n)
                  FROM pg_constraint c, unnest(c.conkey) WITH ORDINALITY k (num, n), pg_attribute a
                 WHERE c.conrelid = insula.resolve(target) AND c.contype = 'p' AND a.attrelid = c.conrelid AND a.attnum = k.num);
BEGIN
    IF upper(on_delete) NOT IN ('NO ACTION', 'RESTRICT', 'CASCADE', 'SET NULL') THEN
        RAISE EXCEPTION 'insula: on_delete is NO ACTION, RESTRICT, CASCADE or SET NULL, not "%"', on_delete USING ERRCODE = '22023';
    END IF;
    EXECUTE format('ALTER TABLE %s ADD FOREIGN KEY (tenant_id, %s) REFERENCES %s (%s) ON DELETE %s%s',
        insula.resolve(source), columns, insula.resolve(target), pk, upper(on_delete),
        CASE upper(on_delete) WHEN 'SET NULL' THEN format(' (%s)', columns) ELSE '' END);
END $fn$;

-- A table that belongs to no tenant: reference data that every login reads and none writes.
CREATE OR REPLACE FUNCTION insula.shared_table(name text) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    relation regclass := insula.resolve(name);
    login    record;
BEGIN
    IF insula.is_tenant_table(relation) THEN
        RAISE EXCEPTION 'insula: % is a tenant table: it cannot be shared', relation USING ERRCODE = '42809';
    END IF;
    INSERT INTO insula.shared VALUES (relation) ON CONFLICT DO NOTHING;
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', relation);
    FOR login IN SELECT l.role FROM insula.login l JOIN pg_class c ON c.oid = relation
                   JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = l.schema LOOP
        EXECUTE format('GRANT SELECT ON %s TO %I', relation, login.role);
    END LOOP;
END $fn$;

-- Lets a login use a schema: what is there now, and by tenant_table() what comes later.
CREATE OR REPLACE FUNCTION insula.open_schema(role text, schema text) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    t regclass;
BEGIN
    INSERT INTO insula.login VALUES (role, schema) ON CONFLICT DO NOTHING;
    EXECUTE format('GRANT USAGE ON SCHEMA insula, %I TO %I', schema, role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION insula.current_tenant(), insula.way(), insula.next_number(text),
        insula.enter(text), insula.enter(bigint, bigint, bigint, bigint, integer, bytea),
        insula.enqueue(text, uuid[], text[], text[], text, smallint, bigint, bigint, integer, integer, integer, text, text),
        insula.cancel_job(uuid), insula.job_state(uuid), insula.must_ring(), insula.ring(text),
        insula.schedule_put(text, text, text, text, text, smallint, smallint, smallint, integer, integer, integer, bigint, text),
        insula.schedule_list(), insula.schedule_switch(text, boolean), insula.schedule_remove(text) TO %I', role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION insula.publish(text[], uuid[], text[], text, text), insula.event_new(text, uuid),
        insula.event_failed(text, uuid), insula.webhook_create(uuid, text, text[], bytea, text), insula.webhook_list(), insula.webhook_remove(uuid),
        insula.webhook_pause(uuid, boolean), insula.webhook_reseal(uuid, bytea, text), insula.webhook_send(uuid, uuid, text, text),
        insula.webhook_target(uuid), insula.webhook_told(uuid, integer, text, text) TO %I', role);
    FOR t IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = schema AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                AND insula.is_tenant_table(c.oid::regclass) LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO %I', t, role);
    END LOOP;
    FOR t IN SELECT s.relation FROM insula.shared s JOIN pg_class c ON c.oid = s.relation
               JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = schema LOOP
        EXECUTE format('GRANT SELECT ON %s TO %I', t, role);
    END LOOP;
END $fn$;

CREATE OR REPLACE FUNCTION insula.close_schema(role text, schema text) RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    DELETE FROM insula.login l WHERE l.role = close_schema.role AND l.schema = close_schema.schema;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', schema, role);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM %I', schema, role);
END $fn$;

-- Tables from before the rule was known.
DO $do$
DECLARE
    t regclass;
BEGIN
    FOR t IN SELECT p.polrelid FROM pg_policy p WHERE p.polname = 'tenant'
                AND NOT EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = p.polrelid AND w.rulename = 'no_merge') LOOP
        PERFORM insula.forbid_merge(t);
    END LOOP;
END $do$;
RESET ROLE;
