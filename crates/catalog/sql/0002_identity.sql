-- Who may speak for a tenant: identity providers (OIDC), API keys; and the keys that sign tenant contexts. Nothing here is a secret:
-- providers are named by their public keys, API keys are kept as SHA-256 of 256 random bits, signing keys as their public half.

-- An issuer whose tokens are believed. With a tenant: for that tenant alone. Without: the host side's own, which names the
-- tenants itself, by a claim.
CREATE TABLE catalog.identity_provider (
    id            uuid PRIMARY KEY,
    tenant        uuid REFERENCES catalog.tenant (id),
    issuer        text NOT NULL CHECK (length(issuer) BETWEEN 1 AND 500),      -- `iss`, letter by letter
    audience      text NOT NULL CHECK (length(audience) BETWEEN 1 AND 500),    -- one of `aud`
    jwks_url      text,                                                        -- NULL: found by OpenID Connect Discovery
    subject_claim text NOT NULL DEFAULT 'sub',
    scopes_claim  text NOT NULL DEFAULT 'scope',       -- a text with spaces between (RFC 8693) or a list
    tenant_claim  text,                                -- a claim that must hold `tenant_value`, or, of the host side, the tenants
    tenant_value  text,
    version       bigint NOT NULL DEFAULT 1,           -- ETag
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (CASE WHEN tenant IS NULL THEN tenant_claim IS NOT NULL AND tenant_value IS NULL
                ELSE (tenant_claim IS NULL) = (tenant_value IS NULL) END),
    UNIQUE NULLS NOT DISTINCT (tenant, issuer, audience, tenant_value)
);
CREATE INDEX identity_provider_issuer ON catalog.identity_provider (issuer, audience);

-- Keys of tenants' own programs. A revoked one stays for the record and leaves the snapshots at once.
CREATE TABLE catalog.tenant_key (
    id          uuid PRIMARY KEY,
    tenant      uuid NOT NULL REFERENCES catalog.tenant (id),
    name        text NOT NULL,
    hash        bytea NOT NULL UNIQUE CHECK (length(hash) = 32),
    scopes      text[] NOT NULL DEFAULT '{}',          -- in the application's words
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX tenant_key_tenant ON catalog.tenant_key (tenant, created_at, id);

-- Keys that sign tenant contexts at the gateways: derived from the root key by number, so only the public half is here. A key
-- is published before it signs and after it has signed for the last time, so that rotation is noticed by nobody.
CREATE TABLE catalog.context_key (
    no          integer PRIMARY KEY CHECK (no > 0),
    kid         text NOT NULL UNIQUE,
    public_key  bytea NOT NULL CHECK (length(public_key) = 32),
    created_at  timestamptz NOT NULL DEFAULT now(),
    signs_from  timestamptz NOT NULL,
    ends_at     timestamptz                            -- NULL: the newest
);

-- Kinds are words of their writers; a reader passes over one that it does not know.
ALTER TABLE catalog.change DROP CONSTRAINT change_kind_check;
ALTER TABLE catalog.change ADD CONSTRAINT change_kind_check CHECK (kind ~ '^[a-z_]{1,40}$');

CREATE OR REPLACE FUNCTION catalog.feed_id(what text, row_ jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN what IN ('tenant', 'provider', 'key') THEN row_ ->> 'id'
        WHEN what IN ('domain', 'placement') THEN row_ ->> 'tenant'
        WHEN what = 'database' THEN (row_ ->> 'cell') || '/' || (row_ ->> 'name')
        ELSE row_ ->> 'name' END
$$;
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.identity_provider DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('provider');
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON catalog.tenant_key DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION catalog.feed('key');

GRANT SELECT ON catalog.identity_provider, catalog.tenant_key, catalog.context_key TO insula_reader;
