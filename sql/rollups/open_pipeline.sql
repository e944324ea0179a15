-- Compute the cells ($1 location, $2 day of the first event) of open_pipeline anew.
INSERT INTO open_pipeline (location_id, day, opportunities, open_value)
SELECT c.location_id, c.day, count(*), coalesce(sum(t.monetary_value), 0)
FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
JOIN opportunities t
    ON t.location_id = c.location_id AND t.first_seen_day = c.day AND t.status = 'open'
WHERE NOT t.deleted
GROUP BY c.location_id, c.day
