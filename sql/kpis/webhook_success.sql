/*
labels = ["location", "window", "source"]

[[metric]]
name = "ghl_webhook_success_ratio"
unit = "ratio"
help = "Webhooks that succeeded divided by all webhooks finished in the window, by source."
*/
SELECT w.location, w."window", d.source,
       d.successes
       / nullif(d.successes + d.failures
                - CASE WHEN d.source = 'platform' THEN running.webhooks ELSE 0 END, 0)
           AS ghl_webhook_success_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT source, sum(successes) AS successes, sum(failures) AS failures
    FROM webhook_performance
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
    GROUP BY source
) d
CROSS JOIN LATERAL (
    -- Started, not completed, and still in time: neither success nor failure yet.
    SELECT count(*) AS webhooks
    FROM platform_webhooks
    WHERE location_id = w.location AND runs_out_at > $5
      AND completed_at IS NULL AND started_at IS NOT NULL
      AND finished_day BETWEEN w.first_day AND w.last_day
) running
