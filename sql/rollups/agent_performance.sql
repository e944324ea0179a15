-- Compute the cells ($1 location, $2 day) of agent_performance anew. Agent '': of nobody.
WITH cells AS (
    SELECT * FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
), told AS (
    SELECT c.location_id, c.day, coalesce(t.agent_id, '') AS agent_id,
           1 AS deals_closed, (t.deal_value IS NOT NULL)::int AS deals_with_value,
           coalesce(t.deal_value, 0) AS revenue, 0 AS leads_assigned, 0 AS first_answers,
           0 AS activities, 0 AS activities_with_ai, 0 AS recommendations_made,
           0 AS recommendations_accepted
    FROM cells c JOIN deals t ON t.location_id = c.location_id AND t.closed_day = c.day
    UNION ALL
    SELECT c.location_id, c.day, t.owner_id, 0, 0, 0, 1, 0, 0, 0, 0, 0
    FROM cells c JOIN contacts t ON t.location_id = c.location_id AND t.created_day = c.day
    WHERE NOT t.deleted AND t.owner_id IS NOT NULL
    UNION ALL
    SELECT c.location_id, c.day, t.first_answer_user, 0, 0, 0, 0, 1, 0, 0, 0, 0
    FROM cells c JOIN contacts t ON t.location_id = c.location_id AND t.first_answer_day = c.day
    WHERE t.first_answer_at IS NOT NULL
    UNION ALL
    SELECT c.location_id, c.day, t.agent_id, 0, 0, 0, 0, 0, 1, t.ai_used::int, 0, 0
    FROM cells c JOIN activities t ON t.location_id = c.location_id AND t.happened_day = c.day
    UNION ALL
    SELECT c.location_id, c.day, t.agent_id, 0, 0, 0, 0, 0, 0, 0, 1, t.accepted::int
    FROM cells c JOIN recommendations t ON t.location_id = c.location_id AND t.made_day = c.day
    WHERE t.agent_id IS NOT NULL
)
INSERT INTO agent_performance (
    location_id, day, agent_id, deals_closed, deals_with_value, revenue, leads_assigned,
    first_answers, activities, activities_with_ai, recommendations_made, recommendations_accepted)
SELECT location_id, day, agent_id, sum(deals_closed), sum(deals_with_value), sum(revenue),
       sum(leads_assigned), sum(first_answers), sum(activities), sum(activities_with_ai),
       sum(recommendations_made), sum(recommendations_accepted)
FROM told
GROUP BY location_id, day, agent_id
