/*
endpoint = "property-matching"
labels = ["location", "window"]

[[metric]]
name = "ghl_recommendation_confidence_correlation"
explain = ["recommendations"]
unit = "correlation"
help = "Pearson correlation of a recommendation's score with being accepted by now (1 or 0), over those made in the window; needs 30 with a score."
*/
SELECT w.location, w."window",
       CASE WHEN s.made >= 30 THEN
               (s.made * s.score_of_accepted - s.scores * s.accepted)
               / nullif(sqrt((s.made * s.squares - s.scores * s.scores) * (s.made * s.accepted - s.accepted * s.accepted)), 0)
           END
           AS ghl_recommendation_confidence_correlation
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT count(*)::numeric AS made, sum(score) AS scores, sum(score * score) AS squares,
           (count(*) FILTER (WHERE accepted))::numeric AS accepted,
           coalesce(sum(score) FILTER (WHERE accepted), 0) AS score_of_accepted
    FROM recommendations
    WHERE location_id = w.location AND made_day BETWEEN w.first_day AND w.last_day
      AND score IS NOT NULL
) s
