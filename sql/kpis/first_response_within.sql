/*
endpoint = "agent-performance"
labels = ["location", "window", "limit_seconds"]

[[metric]]
name = "ghl_first_response_within_ratio"
explain = ["leads"]
unit = "ratio"
help = "Leads answered within the limit (the limit included) divided by leads created in the window, leaving out unanswered ones younger than the limit."
*/
SELECT w.location, w."window", v.seconds::text AS limit_seconds,
       v.answered / nullif(d.leads - young.leads, 0) AS ghl_first_response_within_ratio
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT sum(leads_created) AS leads,
           sum(answered_in_300_s) AS in_300,
           sum(answered_in_900_s) AS in_900,
           sum(answered_in_3600_s) AS in_3600
    FROM daily_business
    WHERE location_id = w.location AND day BETWEEN w.first_day AND w.last_day
) d
CROSS JOIN LATERAL (VALUES (300, d.in_300), (900, d.in_900), (3600, d.in_3600))
    AS v (seconds, answered)
CROSS JOIN LATERAL (
    SELECT count(*) AS leads
    FROM contacts
    WHERE location_id = w.location AND created_at > $5 - v.seconds * interval '1 s'
      AND created_day BETWEEN w.first_day AND w.last_day
      AND NOT deleted AND first_answer_at IS NULL
) young
