-- Compute the cells ($1 location, $2 day) of daily_interactions anew.
INSERT INTO daily_interactions (location_id, day, interaction, interactions)
SELECT c.location_id, c.day, t.interaction, count(*)
FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
JOIN interactions t ON t.location_id = c.location_id AND t.happened_day = c.day
GROUP BY c.location_id, c.day, t.interaction
