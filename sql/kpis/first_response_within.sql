/*
labels = ["location", "window", "limit_seconds"]

[[metric]]
name = "ghl_first_response_within_ratio"
unit = "ratio"
help = "Leads answered within the limit (the limit included) divided by leads created in the window, leaving out unanswered ones younger than the limit."
*/
SELECT s.location, s."window", v.seconds::text AS limit_seconds,
       v.answered / nullif(s.leads - young.leads, 0) AS ghl_first_response_within_ratio
FROM (
    SELECT w.location, w."window", w.first_day, w.last_day,
           sum(d.leads_created) AS leads,
           sum(d.answered_in_300_s) AS in_300,
           sum(d.answered_in_900_s) AS in_900,
           sum(d.answered_in_3600_s) AS in_3600
    FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
    JOIN daily_business d
        ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
    GROUP BY w.location, w."window", w.first_day, w.last_day
) s
CROSS JOIN LATERAL (VALUES (300, s.in_300), (900, s.in_900), (3600, s.in_3600))
    AS v (seconds, answered)
CROSS JOIN LATERAL (
    SELECT count(*) AS leads
    FROM contacts c
    WHERE c.location_id = s.location AND c.created_at > $5 - v.seconds * interval '1 s'
      AND c.created_day BETWEEN s.first_day AND s.last_day
      AND NOT c.deleted AND c.first_answer_at IS NULL
) young
