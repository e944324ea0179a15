/*
labels = ["location", "window", "source", "outcome"]

[[metric]]
name = "ghl_webhooks_processed"
unit = "webhooks"
help = "Webhooks finished in the window, success or failure. source receiver: what GHL sent, each counted once on the day it was first received; failure is what had to be set aside. source platform: what the platform tracked; a start without completion within WEBHOOK_PROCESSING_TIMEOUT is a failure until a completion comes."
*/
SELECT w.location, w."window", v.source, v.outcome, v.webhooks AS ghl_webhooks_processed
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(successes) FILTER (WHERE source = 'receiver'), 0) AS received,
           coalesce(sum(failures) FILTER (WHERE source = 'receiver'), 0) AS set_aside,
           coalesce(sum(successes) FILTER (WHERE source = 'platform'), 0) AS completed,
           coalesce(sum(failures) FILTER (WHERE source = 'platform'), 0) AS failed
    FROM webhook_performance
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
CROSS JOIN LATERAL (
    -- Started, not completed, and still in time: neither success nor failure yet.
    SELECT count(*) AS webhooks
    FROM platform_webhooks
    WHERE location_id = w.location AND runs_out_at > $5
      AND completed_at IS NULL AND started_at IS NOT NULL
      AND finished_day BETWEEN w.first_day AND w.last_day
) running
CROSS JOIN LATERAL (
    VALUES ('receiver', 'success', d.received), ('receiver', 'failure', d.set_aside),
           ('platform', 'success', d.completed), ('platform', 'failure', d.failed - running.webhooks)
) AS v (source, outcome, webhooks)
