/*
endpoint = "performance-grade"
labels = ["location", "window", "grade"]
uses = ["finished_webhooks", "performance_parts"]

[[metric]]
name = "ghl_performance_grade"
explain = ["webhooks", "leads", "deals", "recommendations"]
unit = "1"
help = "1 for the grade held and 0 for the others, by the score; no grade where the parts that have a value weigh less than GRADE_COVERAGE of all."
*/
SELECT s.location, s."window", g.grade,
       (s.score >= g.from_score AND s.score < g.below)::int AS ghl_performance_grade
FROM (
    SELECT location, "window",
           round(sum(weight * score) / sum(weight) FILTER (WHERE score IS NOT NULL), 9) AS score,
           sum(weight) FILTER (WHERE score IS NOT NULL) / sum(weight) AS coverage
    FROM performance_parts
    GROUP BY location, "window"
) s
CROSS JOIN (VALUES
    ('A+', 0.97, 2), ('A', 0.93, 0.97), ('A-', 0.90, 0.93),
    ('B+', 0.87, 0.90), ('B', 0.83, 0.87), ('B-', 0.80, 0.83),
    ('C+', 0.77, 0.80), ('C', 0.73, 0.77), ('C-', 0.70, 0.73),
    ('D', 0.60, 0.70), ('F', -1, 0.60)) AS g (grade, from_score, below)
WHERE s.coverage >= ($6 ->> 'grade_coverage')::numeric
