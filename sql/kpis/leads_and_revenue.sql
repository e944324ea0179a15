/*
endpoint = "revenue-metrics"
labels = ["location", "window"]

[[metric]]
name = "ghl_leads_created"
explain = ["leads"]
unit = "leads"
help = "Leads created in the window."

[[metric]]
name = "ghl_deals_closed"
explain = ["deals"]
unit = "deals"
help = "Deals closed in the window: opportunities that are won now, since a day in it."

[[metric]]
name = "ghl_revenue"
explain = ["deals"]
unit = "currency"
help = "Sum of the values of the deals closed in the window, in the location's currency."

[[metric]]
name = "ghl_revenue_per_lead"
explain = ["deals", "leads"]
unit = "currency"
help = "Revenue divided by leads created, both in the window."

[[metric]]
name = "ghl_average_deal_size"
explain = ["deals"]
unit = "currency"
help = "Revenue divided by the deals closed in the window that have a value."
*/
SELECT w.location, w."window",
       d.leads AS ghl_leads_created,
       d.deals AS ghl_deals_closed,
       d.revenue AS ghl_revenue,
       d.revenue / nullif(d.leads, 0) AS ghl_revenue_per_lead,
       d.revenue / nullif(d.deals_with_value, 0) AS ghl_average_deal_size
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT coalesce(sum(leads_created), 0) AS leads,
           coalesce(sum(deals_closed), 0) AS deals,
           coalesce(sum(revenue), 0) AS revenue,
           sum(deals_with_value) AS deals_with_value
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
