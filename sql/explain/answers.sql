/*
help = "First answers given in the window, and response times of activities in it."
order = "answered_at, agent_id, contact_id"
filters = { agent = "agent_id" }
*/
SELECT first_answer_user AS agent_id, contact_id, first_answer_at AS answered_at,
       first_answer_day AS day, 'first answer' AS kind,
       extract(epoch FROM first_answer_at - created_at)::float8 AS response_seconds
FROM contacts
WHERE location_id = $1 AND first_answer_day BETWEEN $2 AND $3 AND first_answer_at IS NOT NULL
UNION ALL
SELECT agent_id, contact_id, happened_at, happened_day, 'activity', response_seconds
FROM activities
WHERE location_id = $1 AND happened_day BETWEEN $2 AND $3 AND response_seconds IS NOT NULL
