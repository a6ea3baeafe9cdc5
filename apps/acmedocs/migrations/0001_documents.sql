-- AcmeDocs' tables, written as for one customer; each call of the kit makes the table above it every customer's own.
-- Unique keys double as the indexes that the queries in src/ name.

CREATE TABLE users (
    id         uuid PRIMARY KEY,
    email      text NOT NULL CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    password   text NOT NULL,                          -- argon2id, PHC string
    role       text NOT NULL CHECK (role IN ('admin', 'editor', 'reader')),
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email UNIQUE (email)
);
SELECT insula.tenant_table('users');

-- A session is known by the hash of its token alone: who reads this table logs in as nobody.
CREATE TABLE sessions (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id    uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_expiry UNIQUE (expires_at, token_hash)
);
SELECT insula.tenant_table('sessions');
SELECT insula.tenant_key('sessions', 'user_id', 'users', 'CASCADE');

-- Failed log-ins by hashed email, known or not, so that the answer does not tell which.
CREATE TABLE login_attempts (
    email_hash bytea NOT NULL CHECK (length(email_hash) = 32),
    attempts   integer NOT NULL,
    since      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT login_attempts_email PRIMARY KEY (email_hash),
    CONSTRAINT login_attempts_since UNIQUE (since, email_hash)
);
SELECT insula.tenant_table('login_attempts');

CREATE TABLE documents (
    id         uuid PRIMARY KEY,                       -- version 7: sorts by the time it was made
    number     bigint NOT NULL,                        -- shown as DOC-000123
    title      text NOT NULL CHECK (length(title) BETWEEN 1 AND 300),
    body       text NOT NULL CHECK (octet_length(body) <= 1048576),
    format     text NOT NULL CHECK (format IN ('markdown', 'plain')),
    version    integer NOT NULL DEFAULT 1 CHECK (version > 0),
    source     text CHECK (length(source) BETWEEN 1 AND 1000),   -- where it was imported from, once
    author     uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- The beginning of a long text stands for the whole: a tsvector ends at 1 MB.
    search     tsvector NOT NULL GENERATED ALWAYS AS (
                   setweight(to_tsvector('english', title), 'A') || setweight(to_tsvector('english', left(body, 200000)), 'B')
               ) STORED,
    CONSTRAINT documents_number UNIQUE (number),
    CONSTRAINT documents_source UNIQUE (source),
    CONSTRAINT documents_created UNIQUE (created_at, id)
);
SELECT insula.tenant_table('documents');
SELECT insula.tenant_key('documents', 'author', 'users', 'SET NULL');
SELECT insula.search_index('documents', 'search');

-- Every version, the current one too.
CREATE TABLE document_versions (
    document   uuid NOT NULL,
    version    integer NOT NULL CHECK (version > 0),
    title      text NOT NULL,
    body       text NOT NULL,
    format     text NOT NULL,
    author     uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (document, version),
    CONSTRAINT document_versions_created UNIQUE (created_at, document, version)
);
SELECT insula.tenant_table('document_versions');
SELECT insula.tenant_key('document_versions', 'document', 'documents', 'CASCADE');
SELECT insula.tenant_key('document_versions', 'author', 'users', 'SET NULL');

CREATE TABLE tags (
    document   uuid NOT NULL,
    tag        text NOT NULL CHECK (length(tag) BETWEEN 1 AND 50),
    PRIMARY KEY (document, tag),
    CONSTRAINT tags_tag UNIQUE (tag, document)
);
SELECT insula.tenant_table('tags');
SELECT insula.tenant_key('tags', 'document', 'documents', 'CASCADE');

-- What the customer is called; one row, made by the seed.
CREATE TABLE workspace (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    name       text NOT NULL,
    settings   jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
SELECT insula.tenant_table('workspace');
