/*
endpoint = "performance-grade"
labels = ["location", "window", "part"]
uses = ["finished_webhooks", "performance_parts"]

[[metric]]
name = "ghl_performance_part_ratio"
explain = ["webhooks", "leads", "deals", "recommendations"]
unit = "ratio"
help = "Score of each part of the performance grade, 0 to 1."
*/
SELECT location, "window", part, score AS ghl_performance_part_ratio
FROM performance_parts
