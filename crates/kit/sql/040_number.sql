-- Numbers without gaps, per tenant and name: INV-1, INV-2, ... The row stays locked until the transaction ends, so that a
-- number that was rolled back is given again; writers of one name in one tenant therefore wait for each other.
SET LOCAL ROLE insula_owner;
CREATE TABLE IF NOT EXISTS insula.number (
    tenant_id bigint NOT NULL DEFAULT insula.current_tenant(),
    name      text   NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 100),
    value     bigint NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
ALTER TABLE insula.number ENABLE ROW LEVEL SECURITY;
ALTER TABLE insula.number FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS tenant ON insula.number;
CREATE POLICY tenant ON insula.number USING (tenant_id = {{tenant}}) WITH CHECK (tenant_id = {{tenant}});

CREATE OR REPLACE FUNCTION insula.next_number(name text) RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $fn$
DECLARE
    me    pg_catalog.int8 := insula.current_tenant();
    given pg_catalog.int8;
BEGIN
    IF me IS NULL THEN
        RAISE EXCEPTION 'insula: no tenant is bound to this transaction' USING ERRCODE = '28000';
    END IF;
    INSERT INTO insula.number AS n (tenant_id, name, value) VALUES (me, next_number.name, 1)
        ON CONFLICT ON CONSTRAINT number_pkey DO UPDATE SET value = n.value OPERATOR(pg_catalog.+) 1
        RETURNING n.value INTO given;
    RETURN given;
END $fn$;
RESET ROLE;
