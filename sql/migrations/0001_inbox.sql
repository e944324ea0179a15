-- What arrived, as it arrived. Everything else can be computed anew from these tables.

CREATE SEQUENCE inbox_id;

CREATE TABLE inbox (
    location_id     text COLLATE "C" NOT NULL,  -- '' where the body names none
    id              bigint NOT NULL DEFAULT nextval('inbox_id'),
    received_at     timestamptz NOT NULL,
    source          text COLLATE "C" NOT NULL,  -- ghl, workflow
    endpoint        text COLLATE "C" NOT NULL,  -- last part of the address, '' where it names no event
    event_type      text COLLATE "C" NOT NULL,  -- as the receiver understood it
    idempotency_key text COLLATE "C" NOT NULL,
    correlation_id  text COLLATE "C" NOT NULL,
    body            bytea NOT NULL,
    PRIMARY KEY (location_id, id, received_at)
) PARTITION BY RANGE (received_at);

ALTER SEQUENCE inbox_id OWNED BY inbox.id;

-- Takes what falls outside the monthly partitions (a clock that jumped), so that an insert never fails.
CREATE TABLE inbox_default PARTITION OF inbox DEFAULT;

CREATE INDEX ON inbox USING brin (id);

-- Deduplication, for good: keys outlive the bodies.
CREATE TABLE inbox_keys (
    location_id     text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    PRIMARY KEY (location_id, source, idempotency_key)
);

-- What is stored and not yet projected. A row leaves in the transaction that wrote its facts.
CREATE TABLE inbox_pending (
    id          bigint PRIMARY KEY,
    location_id text COLLATE "C" NOT NULL,
    received_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

-- Months of bodies that were dropped by age: a rebuild can't reach them.
CREATE TABLE inbox_dropped (
    partition_name text PRIMARY KEY,
    events         bigint NOT NULL,
    dropped_at     timestamptz NOT NULL DEFAULT now()
);
