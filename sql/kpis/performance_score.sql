/*
endpoint = "performance-grade"
labels = ["location", "window"]
uses = ["finished_webhooks", "performance_parts"]

[[metric]]
name = "ghl_performance_score_ratio"
explain = ["webhooks", "leads", "deals", "recommendations"]
unit = "ratio"
help = "Weighted mean of the scores of the grade's parts that have a value."

[[metric]]
name = "ghl_performance_score_coverage_ratio"
explain = ["webhooks", "leads", "deals", "recommendations"]
unit = "ratio"
help = "Weight of the grade's parts that have a value, divided by the weight of all."
*/
SELECT location, "window",
       sum(weight * score) / sum(weight) FILTER (WHERE score IS NOT NULL)
           AS ghl_performance_score_ratio,
       coalesce(sum(weight) FILTER (WHERE score IS NOT NULL), 0) / sum(weight)
           AS ghl_performance_score_coverage_ratio
FROM performance_parts
GROUP BY location, "window"
