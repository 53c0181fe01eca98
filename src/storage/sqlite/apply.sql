-- One batch of operations, as one transaction and one trip to SQLite.
-- $1 interactions   JSON array of rows; texts as (from, length) into $2
-- $2 their texts    one BLOB: long texts need no escaping that way
-- $3 endings        JSON array of turns, saves before fails
-- $4 admissions     JSON array of turns; events as (from, length) into $5
-- $5 their events   one BLOB
-- $6 questions      JSON array of (workflow, is it an ending), one for each answer that is wanted
-- $7 now            latest instant of the batch
-- They are written $n because sqlx leaves ?n unbound in a statement that skips a number.
-- JSON is taken apart with jsonb_each: json_each would write each row as text again for every column read from it.

BEGIN IMMEDIATE;

-- A workflow that has ended is not stored again: not one that failed, nor one whose row was since deleted.
INSERT INTO interactions (
    workflow_id, interaction_id, user_id, session_id, input, response, provider, model, finish_reason,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, metadata,
    input_sequence, received_at, generated_at, created_at, total_ms)
SELECT
    q.value ->> 'workflow_id', q.value ->> 'interaction_id', q.value ->> 'user_id', q.value ->> 'session_id',
    CAST(substr($2, q.value ->> 'input_from', q.value ->> 'input_length') AS TEXT),
    CAST(substr($2, q.value ->> 'response_from', q.value ->> 'response_length') AS TEXT),
    q.value ->> 'provider', q.value ->> 'model', q.value ->> 'finish_reason',
    q.value ->> 'input_tokens', q.value ->> 'cached_input_tokens',
    q.value ->> 'output_tokens', q.value ->> 'reasoning_tokens', q.value ->> 'cost_usd',
    CAST(substr($2, q.value ->> 'metadata_from', q.value ->> 'metadata_length') AS TEXT),
    q.value ->> 'input_sequence', q.value ->> 'received_at', q.value ->> 'generated_at',
    q.value ->> 'created_at', q.value ->> 'total_ms'
FROM jsonb_each($1) AS q
WHERE NOT EXISTS (
    SELECT 1 FROM turns AS t
    WHERE t.workflow_id = q.value ->> 'workflow_id' AND t.state IN ('saved', 'failed'))
ON CONFLICT (workflow_id) DO NOTHING;

-- The first ending wins; a turn nobody admitted is created ended, so that it can never run.
INSERT INTO turns (workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at)
SELECT
    q.value ->> 'workflow_id', q.value ->> 'session_id', q.value ->> 'user_id', q.value ->> 'input_sequence',
    q.value ->> 'state', q.value ->> 'at', q.value ->> 'at'
FROM jsonb_each($3) AS q
WHERE true
ON CONFLICT (workflow_id) DO UPDATE
SET state = excluded.state, event = NULL, updated_at = excluded.updated_at
WHERE turns.state IN ('waiting', 'running');

-- The first message with a workflow id wins.
INSERT INTO turns (workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at)
SELECT
    q.value ->> 'workflow_id', q.value ->> 'session_id', q.value ->> 'user_id', q.value ->> 'input_sequence',
    q.value ->> 'state', q.value ->> 'at', q.value ->> 'at'
FROM jsonb_each($4) AS q
WHERE true
ON CONFLICT (workflow_id) DO NOTHING;

-- Every session of the batch in which no turn runs now starts its first waiting one.
UPDATE turns SET state = 'running', updated_at = $7
WHERE workflow_id IN (
    SELECT (
        SELECT w.workflow_id FROM turns AS w
        WHERE w.session_id = s.session_id AND w.state = 'waiting'
        ORDER BY w.input_sequence, w.workflow_id
        LIMIT 1)
    FROM (
        SELECT DISTINCT t.session_id
        FROM jsonb_each($6) AS q CROSS JOIN turns AS t ON t.workflow_id = q.value ->> 0) AS s
    WHERE NOT EXISTS (
        SELECT 1 FROM turns AS r WHERE r.session_id = s.session_id AND r.state = 'running'));

-- Whoever still waits leaves its event for the one who will start it. A turn that ran at once never has one,
-- which is how an ending knows whether there is anything to publish.
UPDATE turns SET event = substr($5, q.value ->> 'event_from', q.value ->> 'event_length')
FROM jsonb_each($4) AS q
WHERE turns.workflow_id = q.value ->> 'workflow_id'
    AND turns.input_sequence = q.value ->> 'input_sequence'
    AND turns.state = 'waiting' AND turns.event IS NULL;

SELECT
    q.key, t.state, t.input_sequence,
    CASE WHEN q.value ->> 1 THEN (
        SELECT r.event FROM turns AS r WHERE r.session_id = t.session_id AND r.state = 'running') END
FROM jsonb_each($6) AS q CROSS JOIN turns AS t ON t.workflow_id = q.value ->> 0;

COMMIT;
