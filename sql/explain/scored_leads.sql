/*
help = "Leads created in the window whose first AI score was told before their first deal closed."
order = "created_at, contact_id"
*/
SELECT contact_id, created_at, created_day, first_score, first_score_at, has_deal
FROM contacts
WHERE location_id = $1 AND created_day BETWEEN $2 AND $3 AND scored_in_time
