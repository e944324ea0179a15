-- What the AI platform tells, what back-filling finds, and what both add to the facts. All of it is
-- derived: the service asks for a `rebuild` after this migration.

ALTER TABLE contacts
    ADD COLUMN first_score numeric,
    ADD COLUMN first_score_at timestamptz,
    ADD COLUMN told_deal_at timestamptz,
    ADD COLUMN told_deal_value numeric,
    ADD COLUMN told_deal_agent text COLLATE "C",
    ADD COLUMN first_answer_day date,
    ADD COLUMN scored_in_time boolean NOT NULL DEFAULT false;
CREATE INDEX ON contacts (location_id, first_answer_day)
    INCLUDE (first_answer_user, created_at, first_answer_at) WHERE first_answer_at IS NOT NULL;
CREATE INDEX ON contacts (location_id, created_day)
    INCLUDE (first_score, has_deal) WHERE scored_in_time;

CREATE TABLE contact_stages (
    location_id text COLLATE "C" NOT NULL,
    contact_id  text COLLATE "C" NOT NULL,
    stage       text COLLATE "C" NOT NULL,
    told_at     timestamptz NOT NULL,
    PRIMARY KEY (location_id, contact_id, stage)
);

ALTER TABLE opportunities ADD COLUMN ever_won boolean NOT NULL DEFAULT false;

ALTER TABLE deals ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'opportunity';
ALTER TABLE deals ADD COLUMN ai_assisted boolean NOT NULL DEFAULT false;
ALTER TABLE deals RENAME COLUMN opportunity_id TO deal_id;
ALTER TABLE deals DROP CONSTRAINT deals_pkey, ADD PRIMARY KEY (location_id, kind, deal_id);
ALTER TABLE deals ALTER COLUMN kind DROP DEFAULT;

ALTER TABLE conversion_pipeline ADD COLUMN offered boolean NOT NULL DEFAULT false;
ALTER TABLE daily_stages ADD COLUMN offered bigint NOT NULL DEFAULT 0;

CREATE TABLE activities (
    location_id      text COLLATE "C" NOT NULL,
    idempotency_key  text COLLATE "C" NOT NULL,
    agent_id         text COLLATE "C" NOT NULL,
    contact_id       text COLLATE "C",
    happened_at      timestamptz NOT NULL,
    happened_day     date NOT NULL,
    response_seconds double precision,
    ai_used          boolean NOT NULL,
    PRIMARY KEY (location_id, idempotency_key)
);
CREATE INDEX ON activities (location_id, happened_day) INCLUDE (agent_id, response_seconds, ai_used);
CREATE INDEX ON activities (location_id, contact_id) WHERE ai_used;

CREATE TABLE recommendations (
    location_id       text COLLATE "C" NOT NULL,
    recommendation_id text COLLATE "C" NOT NULL,
    contact_id        text COLLATE "C",
    agent_id          text COLLATE "C",
    property_id       text COLLATE "C",
    score             numeric,
    made_at           timestamptz,  -- null: only interactions with it are known
    made_day          date,
    accepted          boolean NOT NULL,
    scheduled         boolean NOT NULL,
    PRIMARY KEY (location_id, recommendation_id)
);
CREATE INDEX ON recommendations (location_id, made_day) INCLUDE (agent_id, score, accepted, scheduled);

CREATE TABLE interactions (
    location_id       text COLLATE "C" NOT NULL,
    recommendation_id text COLLATE "C" NOT NULL,
    idempotency_key   text COLLATE "C" NOT NULL,
    interaction       text COLLATE "C" NOT NULL,
    contact_id        text COLLATE "C",
    happened_at       timestamptz NOT NULL,
    happened_day      date NOT NULL,
    PRIMARY KEY (location_id, recommendation_id, idempotency_key)
);
CREATE INDEX ON interactions (location_id, happened_day) INCLUDE (interaction);
CREATE INDEX ON interactions (location_id, contact_id) WHERE interaction IN ('liked', 'scheduled');

CREATE TABLE platform_webhooks (
    location_id  text COLLATE "C" NOT NULL,
    tracking_id  text COLLATE "C" NOT NULL,
    webhook_type text COLLATE "C",
    started_at   timestamptz,
    completed_at timestamptz,
    runs_out_at  timestamptz,
    finished_day date,  -- of the completion, else of the running out; null without a start
    succeeded    boolean NOT NULL,
    enriched     boolean NOT NULL,
    ai_activated boolean NOT NULL,
    PRIMARY KEY (location_id, tracking_id)
);
CREATE INDEX ON platform_webhooks (location_id, finished_day);
-- A completion may not say where its start was.
CREATE INDEX ON platform_webhooks (tracking_id);
CREATE INDEX ON platform_webhooks (location_id, runs_out_at)
    WHERE completed_at IS NULL AND started_at IS NOT NULL;

ALTER TABLE daily_business
    ADD COLUMN revenue_ai_assisted       numeric NOT NULL DEFAULT 0,
    ADD COLUMN recommendations_made      bigint NOT NULL DEFAULT 0,
    ADD COLUMN recommendations_accepted  bigint NOT NULL DEFAULT 0,
    ADD COLUMN recommendations_scheduled bigint NOT NULL DEFAULT 0;

CREATE TABLE daily_interactions (
    location_id  text COLLATE "C" NOT NULL,
    day          date NOT NULL,
    interaction  text COLLATE "C" NOT NULL,
    interactions bigint NOT NULL,
    PRIMARY KEY (location_id, day, interaction)
);

-- agent_id '': deals that nobody owns.
CREATE TABLE agent_performance (
    location_id              text COLLATE "C" NOT NULL,
    day                      date NOT NULL,
    agent_id                 text COLLATE "C" NOT NULL,
    deals_closed             bigint NOT NULL,
    deals_with_value         bigint NOT NULL,
    revenue                  numeric NOT NULL,
    leads_assigned           bigint NOT NULL,
    first_answers            bigint NOT NULL,
    activities               bigint NOT NULL,
    activities_with_ai       bigint NOT NULL,
    recommendations_made     bigint NOT NULL,
    recommendations_accepted bigint NOT NULL,
    PRIMARY KEY (location_id, day, agent_id)
);

ALTER TABLE webhook_performance
    ADD COLUMN completions          bigint NOT NULL DEFAULT 0,  -- of the platform
    ADD COLUMN enriched             bigint NOT NULL DEFAULT 0,  -- of those that succeeded
    ADD COLUMN ai_activated         bigint NOT NULL DEFAULT 0;
