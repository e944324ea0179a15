/*
endpoint = "revenue-metrics"
labels = ["location", "window"]

[[metric]]
name = "ghl_ai_score_correlation"
explain = ["scored_leads"]
unit = "correlation"
help = "Pearson correlation of a lead's first AI score with having a deal by now (1 or 0), over the leads created in the window whose score was told before their first deal closed; needs 30 such leads."

[[metric]]
name = "ghl_ai_score_auc"
explain = ["scored_leads"]
unit = "area"
help = "Area under the ROC curve of the same scores, ties counted half; needs 30 leads and both outcomes. 0.5 is chance."
*/
SELECT w.location, w."window",
       CASE WHEN s.leads >= 30 THEN
               (s.leads * s.score_of_deals - s.scores * s.deals)
               / nullif(sqrt((s.leads * s.squares - s.scores * s.scores) * (s.leads * s.deals - s.deals * s.deals)), 0)
           END
           AS ghl_ai_score_correlation,
       CASE WHEN s.leads >= 30 THEN
               (s.ranks_of_deals - s.deals * (s.deals + 1) / 2)
               / nullif(s.deals * (s.leads - s.deals), 0)
           END AS ghl_ai_score_auc
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT count(*)::numeric AS leads, sum(score) AS scores, sum(score * score) AS squares,
           (count(*) FILTER (WHERE has_deal))::numeric AS deals,
           coalesce(sum(score) FILTER (WHERE has_deal), 0) AS score_of_deals,
           coalesce(sum(rank) FILTER (WHERE has_deal), 0) AS ranks_of_deals
    FROM (
        SELECT first_score AS score, has_deal,
               -- Those of equal score share the mean of their places.
               rank() OVER (ORDER BY first_score)
                   + (count(*) OVER (PARTITION BY first_score) - 1) / 2.0 AS rank
        FROM contacts
        WHERE location_id = w.location AND created_day BETWEEN w.first_day AND w.last_day
          AND scored_in_time
    ) t
) s
