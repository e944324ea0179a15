/*
help = "Tracked activities of agents in the window."
order = "happened_at, agent_id"
filters = { agent = "agent_id" }
*/
SELECT agent_id, contact_id, happened_at, happened_day, response_seconds,
       ai_used AS ai_recommendation_used
FROM activities
WHERE location_id = $1 AND happened_day BETWEEN $2 AND $3
