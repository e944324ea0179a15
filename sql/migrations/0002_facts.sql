-- Facts and roll-ups. All of them are derived: `ghl-exporter rebuild` makes them anew from the inbox.
-- location_id leads every key, so that each table can be distributed by it.

CREATE TABLE locations (
    location_id text COLLATE "C" PRIMARY KEY,
    first_seen  timestamptz NOT NULL
);

-- The history: what each event tells of its entity. An absent field is absent in `fields`, an
-- explicit null is null. Folded in the order (event_time, precedence, idempotency_key).
CREATE TABLE entity_events (
    location_id     text COLLATE "C" NOT NULL,
    family          text COLLATE "C" NOT NULL,  -- contact, opportunity, appointment, user
    entity_id       text COLLATE "C" NOT NULL,
    event_time      timestamptz NOT NULL,
    precedence      smallint NOT NULL,          -- at one instant: 1 GHL
    idempotency_key text COLLATE "C" NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    fields          jsonb NOT NULL,
    PRIMARY KEY (location_id, family, entity_id, event_time, precedence, idempotency_key)
);

CREATE TABLE contacts (
    location_id        text COLLATE "C" NOT NULL,
    contact_id         text COLLATE "C" NOT NULL,
    created_at         timestamptz,
    created_day        date,
    owner_id           text COLLATE "C",
    deleted            boolean NOT NULL,
    first_answer_at    timestamptz,
    first_answer_user  text COLLATE "C",
    has_deal           boolean NOT NULL,
    PRIMARY KEY (location_id, contact_id)
);
CREATE INDEX ON contacts (location_id, created_day)
    INCLUDE (created_at, first_answer_at, has_deal) WHERE NOT deleted;
CREATE INDEX ON contacts (location_id, created_at) WHERE NOT deleted AND first_answer_at IS NULL;

CREATE TABLE opportunities (
    location_id    text COLLATE "C" NOT NULL,
    opportunity_id text COLLATE "C" NOT NULL,
    contact_id     text COLLATE "C",
    status         text COLLATE "C",
    monetary_value numeric,
    owner_id       text COLLATE "C",
    opened_day     date NOT NULL,   -- day of the first event known
    run_began_at   timestamptz,     -- of the present run of one status; null: unknown
    run_began_day  date,
    run_owner_id   text COLLATE "C",
    deleted        boolean NOT NULL,
    PRIMARY KEY (location_id, opportunity_id)
);
CREATE INDEX ON opportunities (location_id, contact_id);
CREATE INDEX ON opportunities (location_id, run_began_day) WHERE status IN ('won', 'lost');
CREATE INDEX ON opportunities (location_id, opened_day) WHERE status = 'open';

-- Pipeline stages that PIPELINE_STAGES maps to a stage: when each was first told. They stay.
CREATE TABLE opportunity_stages (
    location_id    text COLLATE "C" NOT NULL,
    opportunity_id text COLLATE "C" NOT NULL,
    stage          text COLLATE "C" NOT NULL,
    told_at        timestamptz NOT NULL,
    PRIMARY KEY (location_id, opportunity_id, stage)
);

CREATE TABLE appointments (
    location_id    text COLLATE "C" NOT NULL,
    appointment_id text COLLATE "C" NOT NULL,
    contact_id     text COLLATE "C",
    calendar_id    text COLLATE "C",
    status         text COLLATE "C",
    starts_at      timestamptz,
    start_day      date,
    scheduled_at   timestamptz NOT NULL,  -- event time of its first event
    showed_at      timestamptz,           -- beginning of the present run of `showed`, of a showing
    deleted        boolean NOT NULL,
    PRIMARY KEY (location_id, appointment_id)
);
CREATE INDEX ON appointments (location_id, contact_id);
CREATE INDEX ON appointments (location_id, start_day) INCLUDE (status) WHERE NOT deleted;

CREATE TABLE messages (
    location_id     text COLLATE "C" NOT NULL,
    contact_id      text COLLATE "C" NOT NULL,
    human_answer    boolean NOT NULL,
    sent_at         timestamptz NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    direction       text COLLATE "C" NOT NULL,  -- inbound, outbound
    user_id         text COLLATE "C",
    PRIMARY KEY (location_id, contact_id, human_answer, sent_at, idempotency_key)
);

CREATE TABLE users (
    location_id text COLLATE "C" NOT NULL,
    user_id     text COLLATE "C" NOT NULL,
    name        text,
    role        text,
    deleted     boolean NOT NULL,
    PRIMARY KEY (location_id, user_id)
);

CREATE TABLE deals (
    location_id          text COLLATE "C" NOT NULL,
    opportunity_id       text COLLATE "C" NOT NULL,
    contact_id           text COLLATE "C",
    agent_id             text COLLATE "C",
    deal_value           numeric,
    closed_at            timestamptz,  -- null: nobody knows when, so it is in no window
    closed_day           date,
    seconds_from_lead    double precision,  -- null: negative, or the contact is no lead
    PRIMARY KEY (location_id, opportunity_id)
);
CREATE INDEX ON deals (location_id, closed_day) INCLUDE (deal_value, seconds_from_lead);
CREATE INDEX ON deals (location_id, contact_id);

CREATE TABLE conversion_pipeline (
    location_id text COLLATE "C" NOT NULL,
    contact_id  text COLLATE "C" NOT NULL,
    stage       text COLLATE "C" NOT NULL,
    reached_at  timestamptz,
    reached_day date,
    advanced    boolean NOT NULL,  -- reached any later stage by now
    PRIMARY KEY (location_id, contact_id, stage)
);
CREATE INDEX ON conversion_pipeline (location_id, reached_day, stage) INCLUDE (advanced);

CREATE TABLE webhook_outcomes (
    location_id     text COLLATE "C" NOT NULL,
    received_day    date NOT NULL,
    source          text COLLATE "C" NOT NULL,  -- receiver
    idempotency_key text COLLATE "C" NOT NULL,
    event_type      text COLLATE "C" NOT NULL,
    failed          boolean NOT NULL,
    PRIMARY KEY (location_id, received_day, source, idempotency_key)
);

-- Events that could not be projected, with the reason. `ghl-exporter replay` tries them again.
CREATE TABLE quarantine (
    location_id    text COLLATE "C" NOT NULL,
    id             bigint NOT NULL,
    received_at    timestamptz NOT NULL,
    source         text COLLATE "C" NOT NULL,
    event_type     text COLLATE "C" NOT NULL,
    error          text NOT NULL,
    PRIMARY KEY (location_id, id)
);

-- Roll-ups: a cell (location, day) is computed anew from the facts whenever one of them changes.
-- A cell of zeros is not kept.
CREATE TABLE daily_business (
    location_id         text COLLATE "C" NOT NULL,
    day                 date NOT NULL,
    leads_created       bigint NOT NULL,
    leads_with_deal     bigint NOT NULL,
    leads_answered      bigint NOT NULL,
    answered_in_300_s   bigint NOT NULL,
    answered_in_900_s   bigint NOT NULL,
    answered_in_3600_s  bigint NOT NULL,
    deals_closed        bigint NOT NULL,
    deals_with_value    bigint NOT NULL,
    revenue             numeric NOT NULL,
    runs_won            bigint NOT NULL,
    runs_lost           bigint NOT NULL,
    appointments_showed bigint NOT NULL,
    appointments_noshow bigint NOT NULL,
    PRIMARY KEY (location_id, day)
);

CREATE TABLE daily_stages (
    location_id text COLLATE "C" NOT NULL,
    day         date NOT NULL,
    stage       text COLLATE "C" NOT NULL,
    contacts    bigint NOT NULL,
    advanced    bigint NOT NULL,
    PRIMARY KEY (location_id, day, stage)
);

CREATE TABLE open_pipeline (
    location_id   text COLLATE "C" NOT NULL,
    day           date NOT NULL,  -- of the first event known of the opportunities
    opportunities bigint NOT NULL,
    open_value    numeric NOT NULL,
    PRIMARY KEY (location_id, day)
);

CREATE TABLE webhook_performance (
    location_id text COLLATE "C" NOT NULL,
    day         date NOT NULL,
    source      text COLLATE "C" NOT NULL,
    event_type  text COLLATE "C" NOT NULL,
    successes   bigint NOT NULL,
    failures    bigint NOT NULL,
    PRIMARY KEY (location_id, day, source, event_type)
);

-- Not derived: by which settings the facts were made, to tell when a rebuild is due.
CREATE TABLE projection_state (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    fingerprint text NOT NULL
);
