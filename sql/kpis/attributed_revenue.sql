/*
endpoint = "revenue-metrics"
labels = ["location", "window"]

[[metric]]
name = "ghl_attributed_revenue"
explain = ["deals"]
unit = "currency"
help = "Revenue of the window's deals, in two parts that add up to all of it: ai_assisted (in the ATTRIBUTION_DAYS up to the close the contact reached ai_qualified, accepted a recommendation, or had an activity with an AI recommendation used) and manual."
label = "attribution"
columns = { ai_assisted = "assisted", manual = "manual" }
*/
SELECT w.location, w."window", d.assisted, d.revenue - d.assisted AS manual
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(revenue), 0) AS revenue, coalesce(sum(revenue_ai_assisted), 0) AS assisted
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
