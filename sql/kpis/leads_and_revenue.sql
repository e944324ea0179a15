/*
labels = ["location", "window"]

[[metric]]
name = "ghl_leads_created"
unit = "leads"
help = "Leads created in the window."

[[metric]]
name = "ghl_deals_closed"
unit = "deals"
help = "Deals closed in the window: opportunities that are won now, since a day in it."

[[metric]]
name = "ghl_revenue"
unit = "currency"
help = "Sum of the values of the deals closed in the window, in the location's currency."

[[metric]]
name = "ghl_revenue_per_lead"
unit = "currency"
help = "Revenue divided by leads created, both in the window."

[[metric]]
name = "ghl_average_deal_size"
unit = "currency"
help = "Revenue divided by the deals closed in the window that have a value."
*/
SELECT w.location, w."window",
       coalesce(sum(d.leads_created), 0) AS ghl_leads_created,
       coalesce(sum(d.deals_closed), 0) AS ghl_deals_closed,
       coalesce(sum(d.revenue), 0) AS ghl_revenue,
       coalesce(sum(d.revenue), 0) / nullif(sum(d.leads_created), 0) AS ghl_revenue_per_lead,
       sum(d.revenue) / nullif(sum(d.deals_with_value), 0) AS ghl_average_deal_size
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
LEFT JOIN daily_business d
    ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
GROUP BY w.location, w."window"
