/*
endpoint = "property-matching"
labels = ["location", "window"]

[[metric]]
name = "ghl_showing_to_offer_ratio"
explain = ["stage_contacts"]
unit = "ratio"
help = "Of the contacts that reached property_showing in the window, the share that by now reached offer_submitted or a later stage."
*/
SELECT w.location, w."window", d.offered / nullif(d.contacts, 0) AS ghl_showing_to_offer_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(contacts) AS contacts, sum(offered) AS offered
    FROM daily_stages
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
      AND stage = 'property_showing'
) d
