/*
labels = ["location", "window"]

[[metric]]
name = "ghl_leads_never_answered_ratio"
unit = "ratio"
help = "Leads without a human answer divided by leads created in the window, leaving out unanswered ones younger than 3600 s."
*/
SELECT s.location, s."window",
       (s.leads - s.answered - young.leads) / nullif(s.leads - young.leads, 0)
           AS ghl_leads_never_answered_ratio
FROM (
    SELECT w.location, w."window", w.first_day, w.last_day,
           sum(d.leads_created) AS leads,
           sum(d.leads_answered) AS answered
    FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
    JOIN daily_business d
        ON d.location_id = w.location AND d.day BETWEEN w.first_day AND w.last_day
    GROUP BY w.location, w."window", w.first_day, w.last_day
) s
CROSS JOIN LATERAL (
    SELECT count(*) AS leads
    FROM contacts c
    WHERE c.location_id = s.location AND c.created_at > $5 - interval '3600 s'
      AND c.created_day BETWEEN s.first_day AND s.last_day
      AND NOT c.deleted AND c.first_answer_at IS NULL
) young
