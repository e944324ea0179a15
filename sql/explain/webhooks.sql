/*
help = "Webhooks finished in the window: what GHL sent, and what the platform processed."
order = "day, source, webhook"
filters = { source = "source", outcome = "outcome" }
*/
SELECT 'receiver' AS source, idempotency_key AS webhook, event_type, received_day AS day,
       CASE WHEN failed THEN 'failure' ELSE 'success' END AS outcome
FROM webhook_outcomes
WHERE location_id = $1 AND received_day BETWEEN $2 AND $3
UNION ALL
SELECT 'platform', tracking_id, coalesce(webhook_type, ''), finished_day,
       CASE WHEN succeeded THEN 'success' ELSE 'failure' END
FROM platform_webhooks
WHERE location_id = $1 AND finished_day BETWEEN $2 AND $3
  -- Still running is neither yet.
  AND (completed_at IS NOT NULL OR times_out_at <= $4)
