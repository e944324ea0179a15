-- Locations that were erased. Not derived: whatever is sent, replayed or drained for one of them
-- later is acknowledged and not stored.

CREATE TABLE erased_locations (
    location_id text COLLATE "C" PRIMARY KEY,
    erased_at   timestamptz NOT NULL DEFAULT now()
);
