/*
help = "Deals closed in the window."
order = "closed_at, kind, deal_id"
filters = { agent = "agent_id", attribution = "attribution" }
*/
SELECT kind, deal_id, contact_id, coalesce(agent_id, 'unassigned') AS agent_id, deal_value, closed_at,
       closed_day, CASE WHEN ai_assisted THEN 'ai_assisted' ELSE 'manual' END AS attribution,
       seconds_from_lead
FROM deals
WHERE location_id = $1 AND closed_day BETWEEN $2 AND $3
