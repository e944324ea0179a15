/*
endpoint = "webhook-performance"
labels = ["location", "window", "source"]
uses = ["finished_webhooks"]

[[metric]]
name = "ghl_webhook_success_ratio"
explain = ["webhooks"]
unit = "ratio"
help = "Webhooks that succeeded divided by all webhooks finished in the window, by source."
*/
SELECT location, "window", source,
       successes / nullif(successes + failures, 0) AS ghl_webhook_success_ratio
FROM finished_webhooks
