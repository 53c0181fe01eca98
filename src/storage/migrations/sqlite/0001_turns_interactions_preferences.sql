-- Instants are RFC 3339 in UTC with nine digits of a second, so that they sort as text.

-- One row for each workflow that reached its end with an answer.
CREATE TABLE interactions (
    workflow_id         TEXT    NOT NULL PRIMARY KEY,
    interaction_id      TEXT    NOT NULL UNIQUE,
    user_id             TEXT    NOT NULL,
    session_id          TEXT    NOT NULL,
    input               TEXT    NOT NULL,
    response            TEXT    NOT NULL,
    provider            TEXT    NOT NULL,
    model               TEXT    NOT NULL,
    finish_reason       TEXT    NOT NULL,
    input_tokens        INTEGER NOT NULL,
    cached_input_tokens INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    cost_usd            TEXT,               -- decimal; NULL: no price is configured
    metadata            TEXT    NOT NULL,   -- JSON object
    input_sequence      INTEGER NOT NULL,
    received_at         TEXT    NOT NULL,
    generated_at        TEXT    NOT NULL,
    created_at          TEXT    NOT NULL,
    total_ms            INTEGER NOT NULL    -- from received_at to created_at
) STRICT;

CREATE INDEX interactions_by_session ON interactions (session_id, user_id, input_sequence DESC);

-- One row for each workflow that was ever admitted, ended or not: what makes a workflow id run once.
CREATE TABLE turns (
    workflow_id    TEXT NOT NULL PRIMARY KEY,
    session_id     TEXT NOT NULL,
    user_id        TEXT,                    -- NULL: it failed before it was admitted
    input_sequence INTEGER,                 -- NULL: as above
    state          TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'saved', 'failed')),
    event          BLOB,                    -- encoded input_validated of an open turn that had to wait
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The fence itself: a session has at most one running turn, whatever the code above it believes.
CREATE UNIQUE INDEX turns_running ON turns (session_id) WHERE state = 'running';
CREATE INDEX turns_waiting ON turns (session_id, input_sequence, workflow_id) WHERE state = 'waiting';

CREATE TABLE preferences (
    user_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,               -- JSON
    updated_at TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
) STRICT, WITHOUT ROWID;
