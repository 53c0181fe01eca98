-- An interaction in place of the one that was deleted: $1 and $2 as in apply/end.sql, $3 namespace.
INSERT INTO interactions (
    namespace, workflow_id, interaction_id, user_id, session_id, input, response, provider, model, finish_reason,
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_usd, metadata,
    input_sequence, received_at, generated_at, created_at, total_ms, more)
SELECT
    $3, q.value ->> 'workflow_id', q.value ->> 'interaction_id', q.value ->> 'user_id', q.value ->> 'session_id',
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
