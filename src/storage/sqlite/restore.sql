-- Records an end as it was told, whatever is on record.
-- $1 namespace, $2 workflow, $3 session, $4 user, $5 input sequence, $6 state, $7 when, $8 failure, $9 superseded by,
-- $10 failure code, $11 failure record
INSERT INTO turns (
    namespace, workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at, failure, superseded_by,
    failure_code, failure_record)
VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11)
ON CONFLICT (namespace, workflow_id) DO UPDATE SET
    session_id = excluded.session_id, user_id = excluded.user_id, input_sequence = excluded.input_sequence,
    state = excluded.state, updated_at = excluded.updated_at, merges = 0, failure = excluded.failure,
    superseded_by = excluded.superseded_by, failure_code = excluded.failure_code,
    failure_record = excluded.failure_record,
    -- The turn that it is part of may still have to begin.
    event = iif(turns.failure = excluded.failure AND turns.superseded_by = excluded.superseded_by, turns.event, NULL),
    fingerprint = iif(turns.input_sequence = excluded.input_sequence, turns.fingerprint, NULL)
