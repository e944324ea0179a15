/*
help = "Interactions with recommended properties in the window."
order = "happened_at, recommendation_id, interaction"
filters = { interaction = "interaction" }
*/
SELECT recommendation_id, contact_id, interaction, happened_at, happened_day
FROM interactions
WHERE location_id = $1 AND happened_day BETWEEN $2 AND $3
