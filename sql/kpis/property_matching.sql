/*
endpoint = "property-matching"
labels = ["location", "window"]

[[metric]]
name = "ghl_recommendations_made"
explain = ["recommendations"]
unit = "recommendations"
help = "Property recommendations made in the window; the same recommendation_id again is the same one."

[[metric]]
name = "ghl_recommendation_acceptance_ratio"
explain = ["recommendations"]
unit = "ratio"
help = "Of the recommendations made in the window, the share accepted by now: liked or scheduled at least once."

[[metric]]
name = "ghl_match_to_showing_ratio"
explain = ["recommendations"]
unit = "ratio"
help = "Of the recommendations made in the window, the share that was scheduled by now."
*/
SELECT w.location, w."window",
       d.made AS ghl_recommendations_made,
       d.accepted / nullif(d.made, 0) AS ghl_recommendation_acceptance_ratio,
       d.scheduled / nullif(d.made, 0) AS ghl_match_to_showing_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(recommendations_made), 0) AS made,
           sum(recommendations_accepted) AS accepted,
           sum(recommendations_scheduled) AS scheduled
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
