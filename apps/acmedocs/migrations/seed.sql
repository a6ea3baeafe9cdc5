-- A new customer's first rows. $1 admin's email, $2 its argon2 PHC hash, $3 the customer's name, $4 its settings. May run twice.
WITH named AS (
    INSERT INTO workspace (name, settings) VALUES ($3::text, $4::jsonb) ON CONFLICT DO NOTHING
)
INSERT INTO users (id, email, password, role) VALUES (gen_random_uuid(), lower($1::text), $2::text, 'admin') ON CONFLICT DO NOTHING
