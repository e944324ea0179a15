/*
labels = ["location", "window"]

[[metric]]
name = "ghl_win_ratio"
unit = "ratio"
help = "Of the opportunities whose present run of won or lost began in the window: won divided by won and lost."
*/
SELECT w.location, w."window",
       sum(d.runs_won) / nullif(sum(d.runs_won + d.runs_lost), 0) AS ghl_win_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
JOIN daily_business d
    ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
GROUP BY w.location, w."window"
