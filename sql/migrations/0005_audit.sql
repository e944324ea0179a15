-- Who read or changed what. Not derived: a rebuild leaves it alone.

CREATE TABLE audit (
    at          timestamptz NOT NULL,
    actor       text NOT NULL,             -- key:<id> over HTTP, command:<user> on the machine
    action      text NOT NULL,             -- the method and the path, or the command
    location_id text COLLATE "C",
    outcome     text NOT NULL,             -- HTTP status, or done
    detail      text NOT NULL
);
CREATE INDEX ON audit (at);
CREATE INDEX ON audit (actor, at);
