-- Exports: what was asked for, and how it ended. While one waits or runs, the queue knows how far it is.

CREATE TABLE exports (
    id           uuid PRIMARY KEY,                     -- its job's
    format       text NOT NULL CHECK (format IN ('zip')),
    requested_by uuid,
    attempt      integer NOT NULL DEFAULT 0,           -- of the job: an earlier one ends nothing any more
    outcome      text CHECK (outcome IN ('done', 'failed', 'cancelled', 'expired')),
    documents    bigint,
    bytes        bigint,
    object       text,                                 -- its name in the object store, while it is there
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    expires_at   timestamptz,
    CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CONSTRAINT exports_ended UNIQUE (ended_at, id)
);
SELECT insula.tenant_table('exports');
SELECT insula.tenant_key('exports', 'requested_by', 'users', 'SET NULL');
