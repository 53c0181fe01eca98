-- Ids and names are compared byte by byte (COLLATE "C"). PostgreSQL keeps no NUL character: texts that people or
-- models wrote have U+001A 0 for one and U+001A U+001A for U+001A itself, in JSON as in plain text.

-- One row for each workflow that reached its end with an answer.
CREATE TABLE interactions (
    workflow_id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    interaction_id      TEXT COLLATE "C" NOT NULL UNIQUE,
    user_id             TEXT COLLATE "C" NOT NULL,
    session_id          TEXT COLLATE "C" NOT NULL,
    input               TEXT        NOT NULL,
    response            TEXT        NOT NULL,
    provider            TEXT        NOT NULL,
    model               TEXT        NOT NULL,
    finish_reason       TEXT        NOT NULL,
    input_tokens        BIGINT      NOT NULL,
    cached_input_tokens BIGINT      NOT NULL,
    output_tokens       BIGINT      NOT NULL,
    reasoning_tokens    BIGINT      NOT NULL,
    cost_usd            NUMERIC,                -- NULL: no price is configured
    metadata            JSON        NOT NULL,   -- an object
    input_sequence      BIGINT      NOT NULL,
    received_at         TIMESTAMPTZ NOT NULL,
    generated_at        TIMESTAMPTZ NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL,
    total_ms            BIGINT      NOT NULL    -- from received_at to created_at
);

CREATE INDEX interactions_by_session ON interactions (session_id, user_id, input_sequence DESC);

-- One row for each workflow that was ever admitted, ended or not: what makes a workflow id run once.
CREATE TABLE turns (
    workflow_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    session_id     TEXT COLLATE "C" NOT NULL,
    user_id        TEXT COLLATE "C",            -- NULL: it failed before it was admitted
    input_sequence BIGINT      NOT NULL,
    state          TEXT        NOT NULL CHECK (state IN ('waiting', 'running', 'saved', 'failed')),
    event          BYTEA,                       -- encoded input_validated of an open turn, and of one that was superseded
    created_at     TIMESTAMPTZ NOT NULL,
    updated_at     TIMESTAMPTZ NOT NULL,        -- of a turn that runs: since when
    merges         BOOLEAN     NOT NULL DEFAULT FALSE,  -- takes in messages that come while it waits
    failure        TEXT CHECK (failure IN ('rejected', 'interrupted', 'merged')),   -- its session was busy
    superseded_by  TEXT COLLATE "C"             -- workflow that interrupted it, or that carries its text
);

-- The fence itself: a session has at most one running turn, whatever the code above it believes.
CREATE UNIQUE INDEX turns_running ON turns (session_id) WHERE state = 'running';
CREATE INDEX turns_waiting ON turns (session_id, input_sequence, workflow_id) WHERE state = 'waiting';
CREATE INDEX turns_superseded ON turns (superseded_by, failure, input_sequence) WHERE superseded_by IS NOT NULL;
-- For the sweeper.
CREATE INDEX turns_started ON turns (updated_at, workflow_id) WHERE state = 'running';

CREATE TABLE preferences (
    user_id    TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    value      JSON        NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, name)
);
