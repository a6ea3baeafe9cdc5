-- Standbys of a cell's server, which reads may go to: [{"host", "port"}]. Who may read there is said by plans (feature `read_replica`).
ALTER TABLE catalog.cell ADD COLUMN replicas jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(replicas) = 'array');
