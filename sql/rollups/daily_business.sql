-- Compute the cells ($1 location, $2 day) of daily_business anew.
WITH cells AS (
    SELECT * FROM unnest($1::text[], $2::date[]) AS c (location_id, day)
), computed AS (
    SELECT c.location_id, c.day, leads.*, closed.*, runs.*, visits.*, made.*
    FROM cells c
    CROSS JOIN LATERAL (
        SELECT count(*) AS leads_created,
               count(*) FILTER (WHERE has_deal) AS leads_with_deal,
               count(first_answer_at) AS leads_answered,
               count(*) FILTER (WHERE first_answer_at <= created_at + interval '300 s')
                   AS answered_in_300_s,
               count(*) FILTER (WHERE first_answer_at <= created_at + interval '900 s')
                   AS answered_in_900_s,
               count(*) FILTER (WHERE first_answer_at <= created_at + interval '3600 s')
                   AS answered_in_3600_s
        FROM contacts t
        WHERE t.location_id = c.location_id AND t.created_day = c.day AND NOT t.deleted
    ) leads
    CROSS JOIN LATERAL (
        SELECT count(*) AS deals_closed,
               count(deal_value) AS deals_with_value,
               coalesce(sum(deal_value), 0) AS revenue,
               coalesce(sum(deal_value) FILTER (WHERE ai_assisted), 0) AS revenue_ai_assisted
        FROM deals t
        WHERE t.location_id = c.location_id AND t.closed_day = c.day
    ) closed
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = 'won') AS runs_won,
               count(*) FILTER (WHERE status = 'lost') AS runs_lost
        FROM opportunities t
        WHERE t.location_id = c.location_id AND t.status_since_day = c.day
          AND t.status IN ('won', 'lost') AND NOT t.deleted
    ) runs
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE status = 'showed') AS appointments_showed,
               count(*) FILTER (WHERE status = 'noshow') AS appointments_noshow
        FROM appointments t
        WHERE t.location_id = c.location_id AND t.start_day = c.day AND NOT t.deleted
    ) visits
    CROSS JOIN LATERAL (
        SELECT count(*) AS recommendations_made,
               count(*) FILTER (WHERE accepted) AS recommendations_accepted,
               count(*) FILTER (WHERE scheduled) AS recommendations_scheduled
        FROM recommendations t
        WHERE t.location_id = c.location_id AND t.made_day = c.day
    ) made
)
INSERT INTO daily_business (
    location_id, day, leads_created, leads_with_deal, leads_answered, answered_in_300_s,
    answered_in_900_s, answered_in_3600_s, deals_closed, deals_with_value, revenue, runs_won,
    runs_lost, appointments_showed, appointments_noshow, revenue_ai_assisted,
    recommendations_made, recommendations_accepted, recommendations_scheduled)
SELECT location_id, day, leads_created, leads_with_deal, leads_answered, answered_in_300_s,
       answered_in_900_s, answered_in_3600_s, deals_closed, deals_with_value, revenue, runs_won,
       runs_lost, appointments_showed, appointments_noshow, revenue_ai_assisted,
       recommendations_made, recommendations_accepted, recommendations_scheduled
FROM computed
WHERE leads_created + deals_closed + runs_won + runs_lost + appointments_showed
      + appointments_noshow + recommendations_made > 0
