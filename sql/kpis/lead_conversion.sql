/*
endpoint = "revenue-metrics"
labels = ["location", "window", "basis"]

[[metric]]
name = "ghl_lead_conversion_ratio"
explain = ["leads", "deals"]
unit = "ratio"
help = "period: deals closed divided by leads created, both in the window (can pass 1). cohort: of the leads created in the window, the share that has a deal by now."
*/
SELECT w.location, w."window", b.basis, b.closed / nullif(d.leads, 0) AS ghl_lead_conversion_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(leads_created) AS leads,
           sum(deals_closed) AS deals,
           sum(leads_with_deal) AS converted
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
CROSS JOIN LATERAL (VALUES ('period', d.deals), ('cohort', d.converted)) AS b (basis, closed)
