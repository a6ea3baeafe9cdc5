-- Who owns a host name is proven by a TXT record: several tenants may claim a name, it leads to the first that proves it.
ALTER TABLE catalog.domain DROP CONSTRAINT domain_pkey;
ALTER TABLE catalog.domain ADD PRIMARY KEY (host, tenant);
CREATE UNIQUE INDEX domain_verified ON catalog.domain (host) WHERE verified_at IS NOT NULL;

-- What the record has to say. No secret: it is published; 122 random bits, so that nobody has it there by accident.
ALTER TABLE catalog.domain ADD COLUMN challenge text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', '');
