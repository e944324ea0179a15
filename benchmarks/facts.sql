-- The facts of many leads, for benchmarks of reading: $LEADS leads of $LOCATIONS locations in
-- $DAYS days, and what belongs to them, in the tables that the projection writes.
INSERT INTO locations
SELECT 'location-' || lpad(n::text, 3, '0'), now() - interval '$DAYS days'
FROM generate_series(0, $LOCATIONS - 1) AS n;
CREATE TEMP TABLE lead AS
SELECT n, 'location-' || lpad((n % $LOCATIONS)::text, 3, '0') AS location_id,
       'lead-' || n AS contact_id, 'agent-' || (n * 7 % 23) AS agent_id,
       now() - random() * interval '$DAYS days' AS at,
       random() < 0.12 AS won, random() < 0.3 AS opened, random() < 0.8 AS answered,
       round((random() * 100)::numeric) AS score
FROM generate_series(1, $LEADS) AS n;
INSERT INTO contacts (location_id, contact_id, created_at, created_day, owner_id, deleted,
                      first_answer_at, first_answer_user, first_answer_day, has_deal, first_score,
                      first_score_at, scored_in_time)
SELECT location_id, contact_id, at, at::date, agent_id, false,
       CASE WHEN answered THEN at + interval '9 minutes' * (1 + n % 17) END,
       CASE WHEN answered THEN agent_id END,
       CASE WHEN answered THEN (at + interval '9 minutes' * (1 + n % 17))::date END,
       won, CASE WHEN n % 3 > 0 THEN score END, CASE WHEN n % 3 > 0 THEN at END, n % 3 > 0
FROM lead;
INSERT INTO messages
SELECT location_id, contact_id, true, at + interval '9 minutes' * (1 + n % 17), 'm-' || n,
       'outbound', agent_id
FROM lead WHERE answered;
INSERT INTO opportunities (location_id, opportunity_id, contact_id, status, monetary_value,
                           owner_id, first_seen_day, status_since, status_since_day, status_owner_id, deleted,
                           ever_won)
SELECT location_id, 'opp-' || n, contact_id,
       CASE WHEN won THEN 'won' WHEN n % 4 = 0 THEN 'open' ELSE 'lost' END,
       10000 + n % 400000, agent_id, at::date, at + interval '9 days',
       (at + interval '9 days')::date, agent_id, false, won
FROM lead WHERE opened OR won;
INSERT INTO deals (location_id, kind, deal_id, contact_id, agent_id, deal_value, closed_at,
                   closed_day, seconds_from_lead, ai_assisted)
SELECT location_id, 'opportunity', 'opp-' || n, contact_id, agent_id, 10000 + n % 400000,
       at + interval '9 days', (at + interval '9 days')::date, 9 * 86400, n % 2 = 0
FROM lead WHERE won;
INSERT INTO conversion_pipeline (location_id, contact_id, stage, reached_at, reached_day, advanced,
                                 offered)
SELECT location_id, contact_id, stage, at, at::date, opened, won
FROM lead, unnest(ARRAY['lead_created', 'ai_qualified', 'human_contacted']) AS stage;
INSERT INTO activities
SELECT location_id, 'a-' || n, agent_id, contact_id, at, at::date, n % 3600, n % 2 = 0
FROM lead WHERE n % 2 = 0;
INSERT INTO recommendations
SELECT location_id, 'rec-' || n, contact_id, agent_id, 'p-' || n % 5000, score / 100, at, at::date,
       n % 3 = 0, n % 9 = 0
FROM lead WHERE n % 2 = 1;
INSERT INTO interactions
SELECT location_id, 'rec-' || n, 'i-' || n, CASE WHEN n % 3 = 0 THEN 'liked' ELSE 'viewed' END,
       contact_id, at, at::date
FROM lead WHERE n % 2 = 1;
INSERT INTO platform_webhooks (location_id, tracking_id, webhook_type, started_at, completed_at,
                               times_out_at, finished_day, succeeded, enriched, ai_activated)
SELECT location_id, 't-' || n, 'ContactCreate', at, at + interval '1 s', at + interval '10 s',
       at::date, n % 100 > 0, n % 4 > 0, n % 3 > 0
FROM lead;
INSERT INTO webhook_outcomes
SELECT location_id, at::date, 'receiver', 'w-' || n, 'ContactCreate', false FROM lead;
DROP TABLE lead;
