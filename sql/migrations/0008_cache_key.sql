-- The key by which instances recognize their own answers in Redis. Not derived: a rebuild leaves it alone.

CREATE TABLE cache_key (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    key      bytea NOT NULL CHECK (length(key) = 32)
);
-- Three random UUIDs are 366 random bits; no extension is needed for them.
INSERT INTO cache_key (key)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
