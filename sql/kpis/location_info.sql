/*
labels = ["location", "name", "currency", "time_zone"]

[[metric]]
name = "ghl_location_info"
unit = "1"
help = "Always 1: what boards call a location (LOCATION_NAMES), the currency of its values (CURRENCIES, or empty) and the time zone of its days (TIME_ZONES)."
*/
SELECT w.location,
       -- A quote would end the name where a board reads it.
       left(translate(coalesce(nullif($6 -> 'location_names' ->> w.location, ''), w.location), '"\', '''/'), 100)
           AS name,
       coalesce($6 -> 'currencies' ->> w.location, $6 -> 'currencies' ->> '*', '') AS currency,
       coalesce($6 -> 'time_zones' ->> w.location, $6 -> 'time_zones' ->> '*', 'UTC') AS time_zone,
       1 AS ghl_location_info
FROM (SELECT DISTINCT unnest($1::text[]) AS location) w
