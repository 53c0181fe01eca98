-- How the workflow $1 of namespace $2 stands, with its interaction if it has one.
SELECT
    t.state, t.user_id, t.session_id, t.failure_code, t.failure_record, t.superseded_by, t.updated_at,
    i.workflow_id, i.interaction_id, i.user_id, i.session_id, i.input, i.response, i.provider, i.model, i.finish_reason,
    i.input_tokens, i.cached_input_tokens, i.output_tokens, i.reasoning_tokens, i.cost_usd, i.metadata, i.input_sequence,
    i.received_at, i.generated_at, i.created_at, i.more
FROM turns AS t LEFT JOIN interactions AS i
    ON i.namespace = t.namespace AND i.workflow_id = t.workflow_id AND t.state = 'saved'
WHERE t.namespace = $2 AND t.workflow_id = $1
