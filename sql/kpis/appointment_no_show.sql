/*
endpoint = "revenue-metrics"
labels = ["location", "window"]

[[metric]]
name = "ghl_appointment_no_show_ratio"
explain = ["appointments"]
unit = "ratio"
help = "Of the appointments whose start lies in the window: noshow divided by showed and noshow."
*/
SELECT w.location, w."window", d.noshow / nullif(d.noshow + d.showed, 0)
           AS ghl_appointment_no_show_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(appointments_noshow) AS noshow, sum(appointments_showed) AS showed
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
