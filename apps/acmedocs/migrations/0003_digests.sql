-- What happened on a day of the workspace's own time zone, written in the night after it.

CREATE TABLE digests (
    day     date NOT NULL,
    zone    text NOT NULL,
    created bigint NOT NULL,
    changed bigint NOT NULL,
    deleted bigint NOT NULL,
    entries jsonb NOT NULL,                            -- the latest of them, newest first
    made_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT digests_day PRIMARY KEY (day)
);
SELECT insula.tenant_table('digests');

-- A document that is deleted takes its versions along; this is kept of it, for the digest.
CREATE TABLE deletions (
    document   uuid PRIMARY KEY,
    number     bigint NOT NULL,
    title      text NOT NULL,
    deleted_by uuid,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT deletions_deleted UNIQUE (deleted_at, document)
);
SELECT insula.tenant_table('deletions');
SELECT insula.tenant_key('deletions', 'deleted_by', 'users', 'SET NULL');
