/*
help = "Leads created in the window."
order = "created_at, contact_id"
filters = { agent = "owner_id" }
*/
SELECT contact_id, created_at, created_day, owner_id, first_answer_at, first_answer_user,
       extract(epoch FROM first_answer_at - created_at)::float8 AS first_answer_seconds, has_deal
FROM contacts
WHERE location_id = $1 AND created_day BETWEEN $2 AND $3 AND NOT deleted
