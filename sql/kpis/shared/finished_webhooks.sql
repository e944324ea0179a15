-- Webhooks finished in each window, by source; 0 where there is none. A start of the platform that
-- is not completed and still in time is neither success nor failure yet.
SELECT w.location, w."window", source.name AS source, d.successes,
       d.failures - CASE WHEN source.name = 'platform' THEN running.webhooks ELSE 0 END AS failures
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN (VALUES ('receiver'), ('platform')) AS source (name)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(successes), 0) AS successes, coalesce(sum(failures), 0) AS failures
    FROM webhook_performance
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
      AND source = source.name
) d
CROSS JOIN LATERAL (
    SELECT count(*) AS webhooks
    FROM platform_webhooks
    WHERE source.name = 'platform' AND location_id = w.location AND times_out_at > $5
      AND completed_at IS NULL AND started_at IS NOT NULL
      AND finished_day BETWEEN w.first_day AND w.last_day
) running
