/*
endpoint = "revenue-metrics"
labels = ["location", "window"]

[[metric]]
name = "ghl_win_ratio"
explain = ["finished_opportunities"]
unit = "ratio"
help = "Of the opportunities whose present run of won or lost began in the window: won divided by won and lost."
*/
SELECT w.location, w."window", d.won / nullif(d.won + d.lost, 0) AS ghl_win_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(runs_won) AS won, sum(runs_lost) AS lost
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
