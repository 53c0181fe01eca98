-- Several namespaces may share a database and have nothing in common: every key begins with the namespace. Rows of an
-- earlier version have '' for one until a namespace opens the database, which adopts them.

CREATE TABLE turns_of_namespaces (
    namespace      TEXT NOT NULL,
    workflow_id    TEXT NOT NULL,
    session_id     TEXT NOT NULL,
    user_id        TEXT,                    -- NULL: an earlier version failed it before it was admitted
    input_sequence INTEGER,                 -- NULL: as above
    state          TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'saved', 'failed')),
    event          BLOB,                    -- encoded input_validated of an open turn, and of one that was superseded
    fingerprint    BLOB,                    -- what its message says; NULL: not known
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL,           -- of a turn that runs: since when
    merges         INTEGER NOT NULL DEFAULT 0,  -- 1: takes in messages that come while it waits
    failure        TEXT CHECK (failure IN ('rejected', 'interrupted', 'merged')),   -- its session was busy
    superseded_by  TEXT,                    -- workflow that interrupted it, or that carries its text
    failure_code   TEXT,                    -- of a turn that failed; NULL: an earlier version did not keep it
    failure_record BLOB,                    -- its workflow_failed as JSON, without attempts, at most 4096 bytes
    PRIMARY KEY (namespace, workflow_id)
) STRICT, WITHOUT ROWID;

INSERT INTO turns_of_namespaces (
    namespace, workflow_id, session_id, user_id, input_sequence, state, event, created_at, updated_at, merges, failure,
    superseded_by, failure_code)
SELECT
    '', workflow_id, session_id, user_id, input_sequence, state, event, created_at, updated_at, merges, failure,
    superseded_by,
    CASE failure WHEN 'rejected' THEN 'session_busy' WHEN 'interrupted' THEN 'interrupted' WHEN 'merged' THEN 'merged' END
FROM turns
ORDER BY workflow_id;

DROP TABLE turns;
ALTER TABLE turns_of_namespaces RENAME TO turns;

-- The fence itself: a session has at most one running turn, whatever the code above it believes.
CREATE UNIQUE INDEX turns_running ON turns (namespace, session_id) WHERE state = 'running';
CREATE INDEX turns_waiting ON turns (namespace, session_id, input_sequence, workflow_id) WHERE state = 'waiting';
CREATE INDEX turns_superseded ON turns (namespace, superseded_by, failure, input_sequence)
    WHERE superseded_by IS NOT NULL;
-- For the sweeper. A turn that runs was last updated when it started.
CREATE INDEX turns_started ON turns (namespace, updated_at, workflow_id) WHERE state = 'running';
-- Which turn of a session ended last before another.
CREATE INDEX turns_ended ON turns (namespace, session_id, input_sequence)
    WHERE state IN ('saved', 'failed') AND failure IS NULL;
-- What of the log is still needed.
CREATE INDEX turns_open ON turns (namespace, input_sequence) WHERE state IN ('waiting', 'running');
-- What is forgotten first.
CREATE INDEX turns_over ON turns (namespace, updated_at, workflow_id) WHERE state IN ('saved', 'failed');
-- Lists, the newest first.
CREATE INDEX turns_by_state ON turns (namespace, state, created_at, workflow_id);
CREATE INDEX turns_by_user ON turns (namespace, user_id, state, created_at, workflow_id);
CREATE INDEX turns_by_session ON turns (namespace, session_id, state, created_at, workflow_id);

CREATE TABLE interactions_of_namespaces (
    namespace           TEXT    NOT NULL,
    workflow_id         TEXT    NOT NULL,
    interaction_id      TEXT    NOT NULL,
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
    total_ms            INTEGER NOT NULL,   -- from received_at to created_at
    more                TEXT,               -- JSON object: what the answer has beyond these columns; NULL: nothing
    PRIMARY KEY (namespace, workflow_id),
    UNIQUE (namespace, interaction_id)
) STRICT;

INSERT INTO interactions_of_namespaces (
    namespace, workflow_id, interaction_id, user_id, session_id, input, response, provider, model, finish_reason,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, metadata, input_sequence, received_at,
    generated_at, created_at, total_ms)
SELECT
    '', workflow_id, interaction_id, user_id, session_id, input, response, provider, model, finish_reason,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, metadata, input_sequence, received_at,
    generated_at, created_at, total_ms
FROM interactions
ORDER BY rowid;

DROP TABLE interactions;
ALTER TABLE interactions_of_namespaces RENAME TO interactions;
CREATE INDEX interactions_by_session ON interactions (namespace, session_id, user_id, input_sequence DESC);

CREATE TABLE preferences_of_namespaces (
    namespace  TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    value      TEXT NOT NULL,               -- JSON
    updated_at TEXT NOT NULL,
    PRIMARY KEY (namespace, user_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO preferences_of_namespaces SELECT '', user_id, name, value, updated_at FROM preferences;
DROP TABLE preferences;
ALTER TABLE preferences_of_namespaces RENAME TO preferences;
