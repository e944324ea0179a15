/*
endpoint = "revenue-metrics"
labels = ["location"]

[[metric]]
name = "ghl_open_opportunities"
explain = ["open_opportunities"]
unit = "opportunities"
help = "Opportunities that are open now."

[[metric]]
name = "ghl_open_pipeline_value"
explain = ["open_opportunities"]
unit = "currency"
help = "Sum of the values of the opportunities that are open now, in the location's currency."
*/
SELECT w.location,
       coalesce(sum(p.opportunities), 0) AS ghl_open_opportunities,
       coalesce(sum(p.open_value), 0) AS ghl_open_pipeline_value
FROM (SELECT DISTINCT unnest($1::text[]) AS location) w
LEFT JOIN open_pipeline p ON p.location_id = w.location
GROUP BY w.location
