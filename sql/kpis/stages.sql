/*
labels = ["location", "window", "stage"]

[[metric]]
name = "ghl_stage_contacts"
unit = "contacts"
help = "Contacts that reached the stage in the window, each at the earliest moment told."

[[metric]]
name = "ghl_stage_conversion_ratio"
unit = "ratio"
help = "Of the contacts that reached the stage in the window, the share that by now reached any later stage."
*/
SELECT w.location, w."window", s.stage,
       coalesce(sum(d.contacts), 0) AS ghl_stage_contacts,
       CASE WHEN s.stage <> 'deal_closed' THEN sum(d.advanced) / nullif(sum(d.contacts), 0) END
           AS ghl_stage_conversion_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN unnest(ARRAY['lead_created', 'ai_qualified', 'human_contacted', 'appointment_scheduled',
                        'property_showing', 'offer_submitted', 'contract_signed', 'deal_closed'])
    AS s (stage)
LEFT JOIN daily_stages d
    ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day AND d.stage = s.stage
GROUP BY w.location, w."window", s.stage
