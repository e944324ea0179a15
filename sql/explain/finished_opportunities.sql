/*
help = "Opportunities whose present run of won or lost began in the window."
order = "run_began_at, opportunity_id"
*/
SELECT opportunity_id, contact_id, status, monetary_value, run_owner_id AS agent_id, run_began_at,
       run_began_day
FROM opportunities
WHERE location_id = $1 AND run_began_day BETWEEN $2 AND $3
  AND status IN ('won', 'lost') AND NOT deleted
