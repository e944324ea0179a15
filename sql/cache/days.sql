-- The figures of some days ($1 locations, $2 days: arrays of one length) by their names in Redis.
-- A value that is null is no longer one.
WITH days AS (
    SELECT * FROM unnest($1::text[], $2::date[]) AS d (location_id, day)
)
SELECT v.name, v.value::text AS value
FROM days d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(successes + failures), 0) AS received, coalesce(sum(successes), 0) AS successful
    FROM webhook_performance
    WHERE location_id = d.location_id AND day = d.day AND source = 'receiver'
) w
CROSS JOIN LATERAL (
    -- Seconds from a start to its completion: the mean of the day.
    SELECT avg(extract(epoch FROM completed_at - started_at))::float8 AS seconds
    FROM platform_webhooks
    WHERE location_id = d.location_id AND finished_day = d.day AND completed_at IS NOT NULL
) p
CROSS JOIN LATERAL (VALUES
    ('webhooks_received:' || d.location_id || ':' || d.day, w.received::float8),
    ('webhooks_successful:' || d.location_id || ':' || d.day, w.successful::float8),
    ('webhook_processing_time:' || d.location_id || ':' || d.day, p.seconds)
) AS v (name, value)
UNION ALL
SELECT 'revenue:' || d.location_id || ':' || d.day, coalesce(b.revenue, 0)::text
FROM days d LEFT JOIN daily_business b ON b.location_id = d.location_id AND b.day = d.day
UNION ALL
SELECT 'conversions:' || s.stage || ':' || d.location_id || ':' || d.day, coalesce(t.contacts, 0)::text
FROM days d
CROSS JOIN unnest($3::text[]) AS s (stage)
LEFT JOIN daily_stages t
    ON t.location_id = d.location_id AND t.day = d.day AND t.stage = s.stage
UNION ALL
SELECT 'property_interactions:' || i.interaction || ':' || d.location_id || ':' || d.day,
       coalesce(t.interactions, 0)::text
FROM days d
CROSS JOIN unnest($4::text[]) AS i (interaction)
LEFT JOIN daily_interactions t
    ON t.location_id = d.location_id AND t.day = d.day AND t.interaction = i.interaction
UNION ALL
SELECT 'agent_deals:' || d.location_id || ':' || a.agent_id || ':' || d.day, a.deals_closed::text
FROM days d
JOIN agent_performance a ON a.location_id = d.location_id AND a.day = d.day
WHERE a.agent_id <> ''
