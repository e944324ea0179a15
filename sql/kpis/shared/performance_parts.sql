-- The parts of the performance grade that GRADE_PARTS has, each with its value in the window and its
-- score: straight lines through the part's points, from (0, 0), flat after the last.
SELECT w.location, w."window", p.part, (p.setting ->> 'weight')::numeric AS weight,
       CASE WHEN v.value >= last.x THEN last.y
            WHEN v.value <= 0 THEN 0
            ELSE line.y0 + (v.value - line.x0) / (line.x1 - line.x0) * (line.y1 - line.y0)
       END AS score
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(revenue) / nullif(sum(leads_created), 0) AS revenue_per_lead,
           sum(deals_closed) / nullif(sum(leads_created), 0) AS lead_conversion,
           sum(recommendations_accepted) / nullif(sum(recommendations_made), 0) AS acceptance
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
CROSS JOIN LATERAL (
    SELECT min(successes / nullif(successes + failures, 0)) AS success
    FROM finished_webhooks o
    WHERE o.location = w.location AND o."window" = w."window"
) webhooks
CROSS JOIN jsonb_each($6 -> 'grade_parts') AS p (part, setting)
CROSS JOIN LATERAL (
    SELECT CASE p.part
               WHEN 'webhook_success' THEN webhooks.success
               WHEN 'lead_conversion' THEN d.lead_conversion
               WHEN 'revenue_per_lead' THEN d.revenue_per_lead
               WHEN 'recommendation_acceptance' THEN d.acceptance
           END AS value
) v
CROSS JOIN LATERAL (
    SELECT (p.setting -> 'points' -> -1 ->> 0)::numeric AS x,
           (p.setting -> 'points' -> -1 ->> 1)::numeric AS y
) last
LEFT JOIN LATERAL (
    SELECT coalesce(lag(t.x) OVER (ORDER BY t.x), 0) AS x0,
           coalesce(lag(t.y) OVER (ORDER BY t.x), 0) AS y0, t.x AS x1, t.y AS y1
    FROM (
        SELECT (point ->> 0)::numeric AS x, (point ->> 1)::numeric AS y
        FROM jsonb_array_elements(p.setting -> 'points') AS point
    ) t
) line ON v.value > 0 AND v.value >= line.x0 AND v.value < line.x1
