-- One million rows of 1,000 tenants, twice: under the boundary (app.entry) and without row security (peer.entry), with the same indexes.
SET search_path = public, insula;   -- where the kit keeps the operator class of btree_gin
CREATE SCHEMA peer;
CREATE TABLE peer.entry (
    tenant_id bigint NOT NULL,
    id        uuid NOT NULL DEFAULT gen_random_uuid(),
    data      jsonb NOT NULL,
    search    tsvector NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

-- Words are skewed as in real text: word n is drawn with a probability that falls with n.
INSERT INTO peer.entry (tenant_id, data, search)
SELECT i % 1000 + 1,
       jsonb_build_object('status', (ARRAY['open', 'done', 'held'])[1 + (i / 1000) % 3], 'customer', 'c' || (i / 1000) % 40, 'n', i),
       to_tsvector('simple', words)
FROM generate_series(0, 999999::bigint) AS i,
     LATERAL (SELECT string_agg('w' || floor(5000 * power(random(), 3))::int, ' ') AS words FROM generate_series(1, 25) WHERE i >= 0) AS text;

INSERT INTO app.entry (tenant_id, id, data, search) SELECT tenant_id, id, data, search FROM peer.entry;

CREATE INDEX entry_data ON peer.entry USING gin (tenant_id, data jsonb_path_ops);
CREATE INDEX entry_search ON peer.entry USING gin (tenant_id, search);
SELECT insula.search_index('app.entry', 'data', 'jsonb_path_ops');
SELECT insula.search_index('app.entry', 'search');

GRANT USAGE ON SCHEMA peer TO insula_app;
GRANT SELECT ON peer.entry TO insula_app;
VACUUM ANALYZE peer.entry;
VACUUM ANALYZE app.entry;
