/*
endpoint = "webhook-performance"
labels = ["location", "window"]

[[metric]]
name = "ghl_contact_enrichment_ratio"
explain = ["completions"]
unit = "ratio"
help = "Of the platform's successful completions in the window, the share whose enrichment_data has an entry that is not null, false or empty (0 is a value)."

[[metric]]
name = "ghl_ai_activation_ratio"
explain = ["completions"]
unit = "ratio"
help = "Of the platform's completions in the window, the share with ai_activated."
*/
SELECT w.location, w."window",
       d.enriched / nullif(d.successes, 0) AS ghl_contact_enrichment_ratio,
       d.ai_activated / nullif(d.completions, 0) AS ghl_ai_activation_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(successes) AS successes, sum(enriched) AS enriched,
           sum(completions) AS completions, sum(ai_activated) AS ai_activated
    FROM webhook_performance
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
      AND source = 'platform'
) d
