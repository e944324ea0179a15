/*
labels = ["location", "window"]

[[metric]]
name = "ghl_appointment_no_show_ratio"
unit = "ratio"
help = "Of the appointments whose start lies in the window: noshow divided by showed and noshow."
*/
SELECT w.location, w."window",
       sum(d.appointments_noshow) / nullif(sum(d.appointments_noshow + d.appointments_showed), 0)
           AS ghl_appointment_no_show_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
JOIN daily_business d
    ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
GROUP BY w.location, w."window"
