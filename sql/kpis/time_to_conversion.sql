/*
endpoint = "revenue-metrics"
labels = ["location", "window", "statistic"]

[[metric]]
name = "ghl_time_to_conversion_seconds"
explain = ["deals"]
unit = "seconds"
help = "Time from a lead's creation to its deal, over the deals closed in the window whose contact is a lead: mean, median, p90. Deals closed before their lead's creation are left out."
*/
SELECT w.location, w."window", v.statistic, v.seconds AS ghl_time_to_conversion_seconds
FROM unnest($1::text[], $2::text[], $3::date[], $4::date[])
     AS w (location, "window", first_day, last_day)
CROSS JOIN LATERAL (
    SELECT avg(seconds_from_lead::numeric)::float8 AS mean,
           percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY seconds_from_lead) AS middle
    FROM deals
    WHERE location_id = w.location AND closed_day BETWEEN w.first_day AND w.last_day
      AND seconds_from_lead IS NOT NULL
) s
CROSS JOIN LATERAL (VALUES ('mean', s.mean), ('median', s.middle[1]), ('p90', s.middle[2]))
    AS v (statistic, seconds)
