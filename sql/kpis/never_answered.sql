/*
endpoint = "agent-performance"
labels = ["location", "window"]

[[metric]]
name = "ghl_leads_never_answered_ratio"
explain = ["leads"]
unit = "ratio"
help = "Leads without a human answer divided by leads created in the window, leaving out unanswered ones younger than 3600 s."
*/
SELECT w.location, w."window",
       (d.leads - d.answered - young.leads) / nullif(d.leads - young.leads, 0)
           AS ghl_leads_never_answered_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(leads_created) AS leads, sum(leads_answered) AS answered
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
CROSS JOIN LATERAL (
    SELECT count(*) AS leads
    FROM contacts
    WHERE location_id = w.location AND created_at > $5 - interval '3600 s'
      AND created_day BETWEEN w.first_day AND w.last_day
      AND NOT deleted AND first_answer_at IS NULL
) young
