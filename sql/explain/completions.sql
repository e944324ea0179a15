/*
help = "Webhooks whose processing the platform completed in the window."
order = "completed_at, tracking_id"
*/
SELECT tracking_id, webhook_type, started_at, completed_at, finished_day AS day, succeeded, enriched,
       ai_activated
FROM platform_webhooks
WHERE location_id = $1 AND finished_day BETWEEN $2 AND $3 AND completed_at IS NOT NULL
