/*
labels = ["location", "window", "source", "outcome"]

[[metric]]
name = "ghl_webhooks_processed"
unit = "webhooks"
help = "Webhooks finished in the window, each counted once on the day it was first received: success, or failure for one that had to be set aside. source receiver: what GHL sent."
*/
SELECT w.location, w."window", 'receiver' AS source, v.outcome, v.webhooks AS ghl_webhooks_processed
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(successes), 0) AS successes, coalesce(sum(failures), 0) AS failures
    FROM webhook_performance
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
      AND source = 'receiver'
) d
CROSS JOIN LATERAL (VALUES ('success', d.successes), ('failure', d.failures))
    AS v (outcome, webhooks)
