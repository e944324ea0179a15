/*
labels = ["location", "agent", "name"]

[[metric]]
name = "ghl_agent_info"
unit = "1"
help = "Always 1: an agent's name, as GHL told it (its id where GHL did not), for the agents with the most revenue of the longest window, AGENT_SERIES_LIMIT of each location."
*/
SELECT s.location,
       CASE WHEN s.agent_id = '' THEN 'unassigned' ELSE s.agent_id END AS agent,
       CASE WHEN s.agent_id = '' THEN 'Unassigned'
            -- A quote would end the name where a board reads it.
            ELSE left(translate(coalesce(nullif(u.name, ''), s.agent_id), '"\', '''/'), 100) END AS name,
       1 AS ghl_agent_info
FROM (
    SELECT w.location, a.agent_id,
           row_number() OVER (PARTITION BY w.location, a.agent_id = ''
                              ORDER BY a.revenue DESC, a.agent_id) AS rank
    FROM (
        SELECT location, min(first_day) AS first_day, max(last_day) AS last_day
        FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
             AS w (location, "window", first_day, last_day)
        GROUP BY location
    ) w
    CROSS JOIN LATERAL (
        SELECT agent_id, sum(revenue) AS revenue
        FROM agent_performance
        WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
        GROUP BY agent_id
    ) a
) s
LEFT JOIN users u ON u.location_id = s.location AND u.user_id = s.agent_id
WHERE s.rank <= ($6 ->> 'agent_series_limit')::int
