-- Compute the cells ($1 location, $2 day) of daily_stages anew.
INSERT INTO daily_stages (location_id, day, stage, contacts, advanced, offered)
SELECT c.location_id, c.day, t.stage, count(*), count(*) FILTER (WHERE t.advanced),
       count(*) FILTER (WHERE t.offered)
FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
JOIN conversion_pipeline t ON t.location_id = c.location_id AND t.reached_day = c.day
GROUP BY c.location_id, c.day, t.stage
