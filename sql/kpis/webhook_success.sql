/*
labels = ["location", "window", "source"]

[[metric]]
name = "ghl_webhook_success_ratio"
unit = "ratio"
help = "Webhooks that succeeded divided by all webhooks finished in the window, by source."
*/
SELECT w.location, w."window", d.source,
       d.successes / nullif(d.successes + d.failures, 0) AS ghl_webhook_success_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT source, sum(successes) AS successes, sum(failures) AS failures
    FROM webhook_performance
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
    GROUP BY source
) d
