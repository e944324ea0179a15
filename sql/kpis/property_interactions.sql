/*
endpoint = "property-matching"
labels = ["location", "window", "interaction"]

[[metric]]
name = "ghl_property_interactions"
explain = ["interactions"]
unit = "interactions"
help = "Interactions with recommended properties in the window, by kind."
*/
SELECT w.location, w."window", d.interaction, d.interactions AS ghl_property_interactions
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT k.interaction, coalesce(sum(t.interactions), 0) AS interactions
    FROM unnest(ARRAY['viewed', 'liked', 'scheduled', 'rejected', 'shared']) AS k (interaction)
    LEFT JOIN daily_interactions t
        ON t.interaction = k.interaction AND t.location_id = w.location
       AND t.day BETWEEN w.first_day AND w.last_day
    GROUP BY k.interaction
) d
