/*
labels = ["location", "window", "basis"]

[[metric]]
name = "ghl_lead_conversion_ratio"
unit = "ratio"
help = "period: deals closed divided by leads created, both in the window (can pass 1). cohort: of the leads created in the window, the share that has a deal by now."
*/
SELECT s.location, s."window", b.basis, b.closed / nullif(s.leads, 0) AS ghl_lead_conversion_ratio
FROM (
    SELECT w.location, w."window",
           sum(d.leads_created) AS leads,
           sum(d.deals_closed) AS deals,
           sum(d.leads_with_deal) AS converted
    FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
    JOIN daily_business d
        ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
    GROUP BY w.location, w."window"
) s
CROSS JOIN LATERAL (VALUES ('period', s.deals), ('cohort', s.converted)) AS b (basis, closed)
