/*
endpoint = "webhook-performance"
labels = ["location", "window", "source", "outcome"]
uses = ["finished_webhooks"]

[[metric]]
name = "ghl_webhooks_processed"
explain = ["webhooks"]
unit = "webhooks"
help = "Webhooks finished in the window, success or failure. source receiver: what GHL sent, each counted once on the day it was first received; failure is what had to be set aside. source platform: what the platform tracked; a start without completion within WEBHOOK_PROCESSING_TIMEOUT is a failure until a completion comes."
*/
SELECT d.location, d."window", d.source, v.outcome, v.webhooks AS ghl_webhooks_processed
FROM finished_webhooks d
CROSS JOIN LATERAL (VALUES ('success', d.successes), ('failure', d.failures)) AS v (outcome, webhooks)
