-- What tenants used, by the hour. No foreign key: a bill outlives its tenant.
CREATE TABLE catalog.usage (
    tenant      uuid NOT NULL,
    hour        timestamptz NOT NULL CHECK (date_trunc('hour', hour, 'UTC') = hour),
    requests    bigint NOT NULL DEFAULT 0 CHECK (requests >= 0),
    bytes_in    bigint NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out   bigint NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    cpu_us      bigint NOT NULL DEFAULT 0 CHECK (cpu_us >= 0),
    database_us bigint NOT NULL DEFAULT 0 CHECK (database_us >= 0),
    rows        bigint NOT NULL DEFAULT 0 CHECK (rows >= 0),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, hour)
);

-- Batches that have arrived: one that is sent again is not counted again. Kept for longer than a batch may wait at its sender.
CREATE TABLE catalog.usage_batch (
    id          uuid NOT NULL,
    part        integer NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, part)
);
CREATE INDEX usage_batch_age ON catalog.usage_batch (received_at);
