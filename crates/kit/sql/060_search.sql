-- Search that keeps its index under row security. See docs/decisions/0003-search-under-row-security.md.
SET LOCAL ROLE insula_owner;

-- Makes the index that full text (a stored tsvector column), jsonb containment or array containment is answered by: one GIN
-- index over the tenant and the column where btree_gin is there, otherwise over the column alone, which Postgres then combines
-- with the tenant's own index. `operators` is an operator class, for example jsonb_path_ops. Returns the index's name.
CREATE OR REPLACE FUNCTION insula.search_index(name text, column_name text, operators text DEFAULT '') RETURNS text
LANGUAGE plpgsql AS $fn$
DECLARE
    relation regclass := insula.resolve(name);
    kind     regtype  := (SELECT a.atttypid FROM pg_attribute a
                           WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped);
    led      boolean  := EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'gin'
                                  WHERE o.opcintype = 'bigint'::regtype AND o.opcdefault);
    index    text     := left((SELECT c.relname FROM pg_class c WHERE c.oid = relation), 40) || '_' || left(column_name, 15) || '_search';
BEGIN
    IF NOT insula.is_tenant_table(relation) THEN
        RAISE EXCEPTION 'insula: % is not a tenant table: call insula.tenant_table(%) first', relation, quote_literal(name)
            USING ERRCODE = '42809';
    ELSIF kind IS NULL THEN
        RAISE EXCEPTION 'insula: % has no column %', relation, column_name USING ERRCODE = '42703';
    ELSIF kind NOT IN ('tsvector'::regtype, 'jsonb'::regtype) AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid = kind AND t.typcategory = 'A') THEN
        RAISE EXCEPTION 'insula: %.% is %, which is not searched by containment', relation, column_name, kind
            USING ERRCODE = '42804',
                  HINT = format('For words in text: ALTER TABLE %s ADD COLUMN search tsvector GENERATED ALWAYS AS (to_tsvector(''english'', %I)) STORED.',
                                relation, column_name);
    ELSIF operators !~ '^[a-z_]*$' THEN
        RAISE EXCEPTION 'insula: "%" is not an operator class', operators USING ERRCODE = '22023';
    END IF;
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON %s USING gin (%s%I %s)', index, relation,
        CASE WHEN led THEN 'tenant_id, ' ELSE '' END, column_name, operators);
    RETURN index;
END $fn$;
RESET ROLE;
