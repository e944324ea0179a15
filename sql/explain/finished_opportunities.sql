/*
help = "Opportunities whose present run of won or lost began in the window."
order = "status_since, opportunity_id"
*/
SELECT opportunity_id, contact_id, status, monetary_value, status_owner_id AS agent_id, status_since,
       status_since_day
FROM opportunities
WHERE location_id = $1 AND status_since_day BETWEEN $2 AND $3
  AND status IN ('won', 'lost') AND NOT deleted
