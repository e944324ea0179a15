-- One commit for many events. Keys are inserted in their order: two batches with the same keys in
-- opposite order would deadlock. Events of erased locations are left out. Returns the positions
-- ($n, from 1) of the events that are new, and whether this commit waits for the disk: a pooler may
-- have put another session in the place of the one that was asked at its beginning.
WITH incoming AS (
    SELECT *
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                $7::timestamptz[], $8::bytea[])
        WITH ORDINALITY
        AS t (location_id, source, endpoint, event_type, idempotency_key, correlation_id,
              received_at, body, n)
), fresh AS (
    INSERT INTO inbox_keys (location_id, source, idempotency_key)
    SELECT location_id, source, idempotency_key
    FROM incoming
    WHERE NOT EXISTS (SELECT FROM erased_locations e WHERE e.location_id = incoming.location_id)
    ORDER BY location_id COLLATE "C", source COLLATE "C", idempotency_key COLLATE "C"
    ON CONFLICT DO NOTHING
    RETURNING location_id, source, idempotency_key
), stored AS (
    INSERT INTO inbox (location_id, source, endpoint, event_type, idempotency_key, correlation_id,
                       received_at, body)
    SELECT location_id, source, endpoint, event_type, idempotency_key, correlation_id,
           received_at, body
    FROM incoming JOIN fresh USING (location_id, source, idempotency_key)
    ORDER BY n
    RETURNING id, location_id, received_at
), queued AS (
    INSERT INTO inbox_pending (id, location_id, received_at)
    SELECT id, location_id, received_at FROM stored
)
SELECT n, current_setting('synchronous_commit') <> 'off' AS durable
FROM incoming JOIN fresh USING (location_id, source, idempotency_key)
