/*
endpoint = "revenue-metrics"
labels = ["location", "window", "stage"]

[[metric]]
name = "ghl_stage_contacts"
explain = ["stage_contacts"]
unit = "contacts"
help = "Contacts that reached the stage in the window, each at the earliest moment told."

[[metric]]
name = "ghl_stage_conversion_ratio"
explain = ["stage_contacts"]
unit = "ratio"
help = "Of the contacts that reached the stage in the window, the share that by now reached any later stage."
*/
SELECT w.location, w."window", d.stage,
       d.contacts AS ghl_stage_contacts,
       CASE WHEN d.stage <> 'deal_closed' THEN d.advanced / nullif(d.contacts, 0) END
           AS ghl_stage_conversion_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT s.stage, coalesce(sum(t.contacts), 0) AS contacts, sum(t.advanced) AS advanced
    FROM unnest(ARRAY['lead_created', 'ai_qualified', 'human_contacted', 'appointment_scheduled',
                      'property_showing', 'offer_submitted', 'contract_signed', 'deal_closed'])
        AS s (stage)
    LEFT JOIN daily_stages t
        ON t.stage = s.stage AND t.location_id = w.location
       AND t.day BETWEEN w.first_day AND w.last_day
    GROUP BY s.stage
) d
