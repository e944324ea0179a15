-- Compute the cells ($1 location, $2 day) of webhook_performance anew. A start that has not been
-- completed fails on the day its time runs out; whoever reads takes off those whose time still runs.
WITH cells AS (
    SELECT * FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
)
INSERT INTO webhook_performance (location_id, day, source, event_type, successes, failures,
                                 completions, enriched, ai_activated)
SELECT c.location_id, c.day, t.source, t.event_type,
       count(*) FILTER (WHERE NOT t.failed), count(*) FILTER (WHERE t.failed), 0, 0, 0
FROM cells c
JOIN webhook_outcomes t ON t.location_id = c.location_id AND t.received_day = c.day
GROUP BY c.location_id, c.day, t.source, t.event_type
UNION ALL
SELECT c.location_id, c.day, 'platform', coalesce(t.webhook_type, ''),
       count(*) FILTER (WHERE t.succeeded), count(*) FILTER (WHERE NOT t.succeeded),
       count(t.completed_at), count(*) FILTER (WHERE t.succeeded AND t.enriched),
       count(*) FILTER (WHERE t.ai_activated)
FROM cells c
JOIN platform_webhooks t ON t.location_id = c.location_id AND t.finished_day = c.day
GROUP BY c.location_id, c.day, coalesce(t.webhook_type, '')
