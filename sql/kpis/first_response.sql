/*
endpoint = "agent-performance"
labels = ["location", "window", "statistic"]

[[metric]]
name = "ghl_first_response_seconds"
explain = ["leads"]
unit = "seconds"
help = "Time from a lead's creation to the first human answer, over the leads created in the window that have one: median, p90."
*/
SELECT w.location, w."window", v.statistic, v.seconds AS ghl_first_response_seconds
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (
               ORDER BY extract(epoch FROM first_answer_at - created_at)::float8
           ) AS middle
    FROM contacts
    WHERE location_id = w.location AND created_day BETWEEN w.first_day AND w.last_day
      AND NOT deleted AND first_answer_at IS NOT NULL
) s
CROSS JOIN LATERAL (VALUES ('median', s.middle[1]), ('p90', s.middle[2])) AS v (statistic, seconds)
