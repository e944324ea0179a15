/*
endpoint = "agent-performance"
labels = ["location", "window", "agent"]
ranked = "agent"  # the column `rank`: 0 is beside the limit

[[metric]]
name = "ghl_agent_deals_closed"
explain = ["deals"]
unit = "deals"
help = "The agent's deals closed in the window. agent unassigned: deals without an owner."

[[metric]]
name = "ghl_agent_revenue"
explain = ["deals"]
unit = "currency"
help = "Sum of the values of the agent's deals closed in the window, in the location's currency."

[[metric]]
name = "ghl_agent_average_deal_size"
explain = ["deals"]
unit = "currency"
help = "The agent's revenue divided by the deals that have a value."

[[metric]]
name = "ghl_agent_leads_assigned"
explain = ["leads"]
unit = "leads"
help = "Leads created in the window whose owner is now the agent."

[[metric]]
name = "ghl_agent_conversion_ratio"
explain = ["deals", "leads"]
unit = "ratio"
help = "The agent's deals closed divided by leads assigned (two populations: can pass 1)."

[[metric]]
name = "ghl_agent_first_response_seconds"
explain = ["answers"]
unit = "seconds"
help = "Time to the first answers that the agent gave in the window (the lead may be older), and tracked response times of activities in it: median, mean."
label = "statistic"
columns = { median = "response_median", mean = "response_mean" }

[[metric]]
name = "ghl_agent_ai_usage_ratio"
explain = ["activities"]
unit = "ratio"
help = "Tracked activities with an AI recommendation used divided by tracked activities, of the agent in the window."

[[metric]]
name = "ghl_agent_match_effectiveness_ratio"
explain = ["recommendations"]
unit = "ratio"
help = "Of the recommendations that the agent made in the window, the share accepted by now."

[[metric]]
name = "ghl_agent_productivity_score"
explain = ["deals", "leads", "answers", "activities"]
unit = "points"
help = "0 to 100: 40 for conversion, 25 for deal size, 20 for response time and 15 for AI use, each against its target (TARGET_CONVERSION, TARGET_DEAL_SIZE, TARGET_RESPONSE_SECONDS). Parts without a value drop out and the rest is scaled up; fewer than two parts: no score."

[[metric]]
name = "ghl_agent_deals_change_ratio"
explain = ["deals"]
unit = "ratio"
help = "The agent's deals closed in the window divided by those in as many days before it, minus 1."
*/
SELECT s.location, s."window",
       CASE WHEN s.agent_id = '' THEN 'unassigned' ELSE s.agent_id END AS agent,
       CASE WHEN s.agent_id = '' THEN 0
            ELSE row_number() OVER (PARTITION BY s.location, s."window", s.agent_id = ''
                                    ORDER BY s.revenue DESC, s.agent_id) END AS rank,
       s.deals AS ghl_agent_deals_closed,
       s.revenue AS ghl_agent_revenue,
       s.deal_size AS ghl_agent_average_deal_size,
       CASE WHEN s.agent_id <> '' THEN s.leads END AS ghl_agent_leads_assigned,
       s.conversion AS ghl_agent_conversion_ratio,
       s.response_median, s.response_mean,
       s.ai_usage AS ghl_agent_ai_usage_ratio,
       s.accepted / nullif(s.made, 0) AS ghl_agent_match_effectiveness_ratio,
       CASE WHEN s.agent_id <> '' AND marks.parts >= 2 THEN 100 * marks.score / marks.weight END
           AS ghl_agent_productivity_score,
       CASE WHEN s.agent_id <> '' THEN s.deals / nullif(s.deals_before, 0) - 1 END
           AS ghl_agent_deals_change_ratio
FROM (
    SELECT w.location, w."window", a.*,
           a.revenue / nullif(a.deals_with_value, 0) AS deal_size,
           a.deals / nullif(a.leads, 0) AS conversion,
           a.with_ai / nullif(a.activities, 0) AS ai_usage,
           r.response_median, r.response_mean, b.deals_before
    FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
         AS w (location, "window", first_day, last_day)
    CROSS JOIN LATERAL (
        SELECT agent_id, sum(deals_closed) AS deals, sum(deals_with_value) AS deals_with_value,
               sum(revenue) AS revenue, sum(leads_assigned) AS leads,
               sum(activities) AS activities, sum(activities_with_ai) AS with_ai,
               sum(recommendations_made) AS made, sum(recommendations_accepted) AS accepted
        FROM agent_performance
        WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
        GROUP BY agent_id
    ) a
    LEFT JOIN LATERAL (
        SELECT agent_id, sum(deals_closed) AS deals_before
        FROM agent_performance
        WHERE location_id = w.location
          AND day BETWEEN w.first_day - (w.last_day - w.first_day + 1) AND w.first_day - 1
        GROUP BY agent_id
    ) b ON b.agent_id = a.agent_id
    LEFT JOIN LATERAL (
        SELECT t.agent_id, avg(t.seconds::numeric)::float8 AS response_mean,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY t.seconds) AS response_median
        FROM (
            SELECT first_answer_user AS agent_id,
                   extract(epoch FROM first_answer_at - created_at)::float8 AS seconds
            FROM contacts
            WHERE location_id = w.location AND first_answer_day BETWEEN w.first_day AND w.last_day
              AND first_answer_at IS NOT NULL
            UNION ALL
            SELECT agent_id, response_seconds
            FROM activities
            WHERE location_id = w.location AND happened_day BETWEEN w.first_day AND w.last_day
              AND response_seconds IS NOT NULL
        ) t
        GROUP BY t.agent_id
    ) r ON r.agent_id = a.agent_id
) s
CROSS JOIN LATERAL (
    SELECT count(*) AS parts, sum(p.weight) AS weight,
           -- No part counts more than in full; a slow answer costs no other part's points.
           sum(p.weight * least(CASE p.weight WHEN 20 THEN greatest(p.share, 0) ELSE p.share END, 1))
               AS score
    FROM (VALUES (40, s.conversion::float8 / ($6 ->> 'target_conversion')::float8),
                 (25, s.deal_size::float8 / ($6 ->> 'target_deal_size')::float8),
                 (20, 1 - s.response_median / ($6 ->> 'target_response_seconds')::float8),
                 (15, s.ai_usage::float8)) AS p (weight, share)
    WHERE p.share IS NOT NULL
) marks
