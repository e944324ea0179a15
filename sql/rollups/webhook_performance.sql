-- Compute the cells ($1 location, $2 day) of webhook_performance anew.
INSERT INTO webhook_performance (location_id, day, source, event_type, successes, failures)
SELECT c.location_id, c.day, t.source, t.event_type,
       count(*) FILTER (WHERE NOT t.failed), count(*) FILTER (WHERE t.failed)
FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
JOIN webhook_outcomes t ON t.location_id = c.location_id AND t.received_day = c.day
GROUP BY c.location_id, c.day, t.source, t.event_type
