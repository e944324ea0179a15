/*
help = "Opportunities that are open now; none for a window that ended before today."
order = "first_seen_day, opportunity_id"
filters = { agent = "owner_id" }
current = true
*/
SELECT opportunity_id, contact_id, owner_id, monetary_value, first_seen_day
FROM opportunities
WHERE location_id = $1 AND status = 'open' AND NOT deleted
