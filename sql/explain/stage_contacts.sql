/*
help = "Contacts that reached a stage in the window."
order = "reached_at, stage, contact_id"
filters = { stage = "stage" }
*/
SELECT contact_id, stage, reached_at, reached_day, advanced AS reached_a_later_stage,
       offered AS reached_an_offer
FROM conversion_pipeline
WHERE location_id = $1 AND reached_day BETWEEN $2 AND $3
