/*
labels = ["location", "window", "source"]

[[metric]]
name = "ghl_webhook_success_ratio"
unit = "ratio"
help = "Webhooks that succeeded divided by all webhooks finished in the window, by source."
*/
SELECT w.location, w."window", d.source,
       sum(d.successes) / nullif(sum(d.successes + d.failures), 0) AS ghl_webhook_success_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
JOIN webhook_performance d
    ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
GROUP BY w.location, w."window", d.source
