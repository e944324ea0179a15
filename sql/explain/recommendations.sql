/*
help = "Property recommendations made in the window."
order = "made_at, recommendation_id"
filters = { agent = "agent_id" }
*/
SELECT recommendation_id, contact_id, agent_id, property_id, score, made_at, made_day, accepted,
       scheduled
FROM recommendations
WHERE location_id = $1 AND made_day BETWEEN $2 AND $3
