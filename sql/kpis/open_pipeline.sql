/*
endpoint = "revenue-metrics"
labels = ["location"]
current = true

[[metric]]
name = "ghl_open_opportunities"
explain = ["open_opportunities"]
unit = "opportunities"
help = "Opportunities that are open now; null for a window that ended before today."

[[metric]]
name = "ghl_open_pipeline_value"
explain = ["open_opportunities"]
unit = "currency"
help = "Sum of the values of the opportunities that are open now, in the location's currency; null for a window that ended before today."
*/
SELECT w.location,
       coalesce(sum(p.opportunities), 0) AS ghl_open_opportunities,
       coalesce(sum(p.open_value), 0) AS ghl_open_pipeline_value
FROM (SELECT DISTINCT unnest($1::text[]) AS location) w
LEFT JOIN open_pipeline p ON p.location_id = w.location
GROUP BY w.location
