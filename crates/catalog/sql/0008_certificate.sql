-- Certificates for tenants' own host names: what gateways show in a TLS handshake. The private key is sealed with a key that is derived from
-- the root key and given to gateways alone, so nothing here is a secret to whoever reads the catalog.
CREATE TABLE catalog.certificate (
    name        text PRIMARY KEY CHECK (name ~ '^(\*\.)?[a-z0-9.-]{1,251}$'),   -- `docs.acme.example`, `*.acme.example`
    chain       text NOT NULL,                                                  -- PEM, the host's own certificate first
    sealed_key  bytea NOT NULL,
    fingerprint text NOT NULL,                                                  -- SHA-256 of the host's own certificate
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
