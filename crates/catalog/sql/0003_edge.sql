-- What the edge needs: keys that may only follow the catalog, cells with several versions of the application, and configuration
-- documents that are rolled out step by step.

-- Which catalog this is. A data plane that has seen another one (made anew, or put back from a backup, after which this is to be
-- renewed: the operator's guide says how) loads everything, whatever the revisions say.
CREATE TABLE catalog.identity (one boolean PRIMARY KEY DEFAULT true CHECK (one), id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO catalog.identity DEFAULT VALUES;

-- `edge` may follow the catalog and hand in usage, and nothing else.
ALTER TABLE catalog.api_key DROP CONSTRAINT api_key_scope_check;
ALTER TABLE catalog.api_key ADD CONSTRAINT api_key_scope_check CHECK (scope IN ('admin', 'provisioner', 'read', 'edge'));

-- A kind that a reader does not know is skipped by it, so the list is open.
ALTER TABLE catalog.change DROP CONSTRAINT change_kind_check;
ALTER TABLE catalog.change ADD CONSTRAINT change_kind_check CHECK (kind ~ '^[a-z][a-z_]{0,39}$');

-- Applications of a cell beside or instead of app_url: [{"url", "min_schema", "max_schema", "weight"}]. A tenant is sent to one
-- that serves its schema_version. Empty: app_url serves all.
ALTER TABLE catalog.cell ADD COLUMN app_versions jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(app_versions) = 'array');

-- Configuration documents: what was ever put, and what is in force for whom.
CREATE TABLE catalog.document_version (
    name        text NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    version     bigint NOT NULL CHECK (version > 0),
    body        jsonb NOT NULL,
    note        text NOT NULL DEFAULT '',
    created_by  text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version)
);
CREATE TRIGGER document_immutable BEFORE UPDATE OR DELETE ON catalog.document_version FOR EACH ROW EXECUTE FUNCTION catalog.refuse();
CREATE TRIGGER document_no_truncate BEFORE TRUNCATE ON catalog.document_version FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse();

CREATE TABLE catalog.document (
    name           text PRIMARY KEY,
    stable         bigint,                             -- in force for all but the canaries; NULL: nothing yet
    previous       bigint,                             -- in force before `stable`: where a rollback leads
    canary         bigint,                             -- in force for the canaries; NULL: no rollout is under way
    canary_percent integer NOT NULL DEFAULT 0 CHECK (canary_percent BETWEEN 0 AND 100),   -- of tenants, by a stable hash
    canary_tenants uuid[] NOT NULL DEFAULT '{}',       -- besides
    version        bigint NOT NULL DEFAULT 1,          -- ETag
    updated_at     timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (name, stable) REFERENCES catalog.document_version (name, version),
    FOREIGN KEY (name, previous) REFERENCES catalog.document_version (name, version),
    FOREIGN KEY (name, canary) REFERENCES catalog.document_version (name, version)
);
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.document DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('document');

GRANT SELECT ON catalog.identity, catalog.document_version, catalog.document TO insula_reader;
