-- Who may call the API. Not derived: a rebuild leaves it alone.

CREATE TABLE api_keys (
    key_id     text COLLATE "C" PRIMARY KEY,
    name       text NOT NULL,
    digest     bytea NOT NULL,             -- SHA-256 of the secret part, which is random
    scopes     text[] NOT NULL,            -- read, track, admin
    locations  text[] NOT NULL,            -- location ids, or * alone
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
