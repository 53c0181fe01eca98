-- A batch of operations is one transaction and, as a rule, one trip to SQLite: end.sql, admit.sql (once for each run
-- of admissions), answer.sql. All three have the same parameters:
-- $1 interactions   JSON array of rows; texts as (from, length) into $2
-- $2 their texts    one BLOB: long texts need no escaping that way
-- $3 endings        JSON array of turns, saves before fails; failures as (from, length) into $2
-- $4 admissions     JSON array of turns; events, fingerprints and failures as (from, length) into $5
-- $5 their events   one BLOB
-- $6 questions      JSON array of (workflow, what the session's running turn began with is wanted), one for each
--                   answer that is wanted
-- $7 now            latest instant of the batch
-- $8 merge limit    most bytes of events that one turn is merged from
-- $9 namespace      that all of it is about
-- $10 each          running turns of a user that start whatever else runs; NULL: all
-- $11 all           running turns of all users, beyond which further ones are held; NULL: any number
-- $12 open          most open turns of a user; 0: any number
-- They are written $n because sqlx leaves ?n unbound in a statement that skips a number.
-- JSON is taken apart with jsonb_each: json_each would write each row as text again for every column read from it.

BEGIN IMMEDIATE;

-- A workflow that has ended is not stored again: not one that failed, nor one whose row was since deleted.
INSERT INTO interactions (
    namespace, workflow_id, interaction_id, user_id, session_id, input, response, provider, model, finish_reason,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, metadata,
    input_sequence, received_at, generated_at, created_at, total_ms, more)
SELECT
    $9, q.value ->> 'workflow_id', q.value ->> 'interaction_id', q.value ->> 'user_id', q.value ->> 'session_id',
    CAST(substr($2, q.value ->> 'input_from', q.value ->> 'input_length') AS TEXT),
    CAST(substr($2, q.value ->> 'response_from', q.value ->> 'response_length') AS TEXT),
    q.value ->> 'provider', q.value ->> 'model', q.value ->> 'finish_reason',
    q.value ->> 'input_tokens', q.value ->> 'cached_input_tokens',
    q.value ->> 'output_tokens', q.value ->> 'reasoning_tokens', q.value ->> 'cost_usd',
    CAST(substr($2, q.value ->> 'metadata_from', q.value ->> 'metadata_length') AS TEXT),
    q.value ->> 'input_sequence', q.value ->> 'received_at', q.value ->> 'generated_at',
    q.value ->> 'created_at', q.value ->> 'total_ms',
    iif(q.value ->> 'more_length' > 0,
        CAST(substr($2, q.value ->> 'more_from', q.value ->> 'more_length') AS TEXT), NULL)
FROM jsonb_each($1) AS q
WHERE NOT EXISTS (
    SELECT 1 FROM turns AS t
    WHERE t.namespace = $9 AND t.workflow_id = q.value ->> 'workflow_id' AND t.state IN ('saved', 'failed'))
ON CONFLICT (namespace, workflow_id) DO NOTHING;

-- What was merged into a turn that ends now is not needed any more.
UPDATE turns SET event = NULL
FROM jsonb_each($3) AS q
WHERE turns.namespace = $9 AND turns.superseded_by = q.value ->> 'workflow_id' AND turns.failure = 'merged';

-- The first ending wins; a turn nobody admitted is created ended, so that it can never run. Failing one message leaves
-- the turn of another alone (one that was not known to belong to a message is anybody's).
INSERT INTO turns (
    namespace, workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at, failure_code,
    failure_record)
SELECT
    $9, q.value ->> 'workflow_id', q.value ->> 'session_id', q.value ->> 'user_id', q.value ->> 'input_sequence',
    q.value ->> 'state', q.value ->> 'at', q.value ->> 'at', q.value ->> 'failure_code',
    iif(q.value ->> 'failure_length' > 0,
        substr($2, q.value ->> 'failure_from', q.value ->> 'failure_length'), NULL)
FROM jsonb_each($3) AS q
WHERE true
ON CONFLICT (namespace, workflow_id) DO UPDATE
SET state = excluded.state, event = NULL, updated_at = excluded.updated_at, failure_code = excluded.failure_code,
    failure_record = excluded.failure_record
WHERE turns.state IN ('waiting', 'running')
    AND (excluded.state = 'saved' OR turns.input_sequence IS excluded.input_sequence);
