/*
labels = ["location", "window", "source", "outcome"]

[[metric]]
name = "ghl_webhooks_processed"
unit = "webhooks"
help = "Webhooks finished in the window, each counted once on the day it was first received: success, or failure for one that had to be set aside. source receiver: what GHL sent."
*/
SELECT s.location, s."window", 'receiver' AS source, v.outcome, v.webhooks AS ghl_webhooks_processed
FROM (
    SELECT w.location, w."window",
           coalesce(sum(d.successes), 0) AS successes,
           coalesce(sum(d.failures), 0) AS failures
    FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
    LEFT JOIN webhook_performance d
        ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
       AND d.source = 'receiver'
    GROUP BY w.location, w."window"
) s
CROSS JOIN LATERAL (VALUES ('success', s.successes), ('failure', s.failures))
    AS v (outcome, webhooks)
