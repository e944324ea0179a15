-- business_metrics: the figures of each day by name, for whoever asks in SQL. A view, so that a late
-- event changes it with the roll-ups. The function stands between, for a view that names tables
-- itself would keep a rebuild from swapping them.

CREATE FUNCTION business_metrics_of_days() RETURNS TABLE (
    location_id text, metric_date date, metric_name text, metric_value numeric)
LANGUAGE sql STABLE AS $$
    SELECT d.location_id, d.day, v.name, v.value
    FROM daily_business d
    CROSS JOIN LATERAL (VALUES
        ('leads_created', d.leads_created::numeric),
        ('deals_closed', d.deals_closed),
        ('revenue', d.revenue),
        ('revenue_ai_assisted', d.revenue_ai_assisted),
        ('revenue_per_lead', d.revenue / nullif(d.leads_created, 0)),
        ('lead_conversion', d.deals_closed::numeric / nullif(d.leads_created, 0)),
        ('average_deal_size', d.revenue / nullif(d.deals_with_value, 0)),
        ('win_ratio', d.runs_won::numeric / nullif(d.runs_won + d.runs_lost, 0)),
        ('recommendations_made', d.recommendations_made),
        ('recommendation_acceptance',
         d.recommendations_accepted::numeric / nullif(d.recommendations_made, 0))
    ) AS v (name, value)
    WHERE v.value IS NOT NULL
$$;

CREATE VIEW business_metrics AS SELECT * FROM business_metrics_of_days();
