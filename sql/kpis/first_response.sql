/*
labels = ["location", "window", "statistic"]

[[metric]]
name = "ghl_first_response_seconds"
unit = "seconds"
help = "Time from a lead's creation to the first human answer, over the leads created in the window that have one: median, p90."
*/
SELECT s.location, s."window", v.statistic, v.seconds AS ghl_first_response_seconds
FROM (
    SELECT w.location, w."window",
           percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (
               ORDER BY extract(epoch FROM c.first_answer_at - c.created_at)::float8
           ) AS middle
    FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
    JOIN contacts c
        ON c.location_id = w.location AND c.created_day BETWEEN w.first_day AND w.last_day
    WHERE NOT c.deleted AND c.first_answer_at IS NOT NULL
    GROUP BY w.location, w."window"
) s
CROSS JOIN LATERAL (VALUES ('median', s.middle[1]), ('p90', s.middle[2])) AS v (statistic, seconds)
