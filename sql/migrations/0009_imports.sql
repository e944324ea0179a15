-- Imports, by the file's place: until one has ended, and its events are facts, figures are of a part of the history.
-- Not derived: a rebuild leaves it alone.

CREATE TABLE imports (
    file       text PRIMARY KEY,
    started_at timestamptz NOT NULL,
    -- What it stored has no higher id in the inbox; NULL until it has come to its end.
    last_id    bigint
);
