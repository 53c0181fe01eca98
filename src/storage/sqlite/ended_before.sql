-- The turn before each place $1: JSON array of (session, input sequence), of namespace $2.
SELECT q.key, t.workflow_id, t.updated_at, t.state = 'saved'
FROM jsonb_each($1) AS q CROSS JOIN turns AS t ON t.namespace = $2 AND t.workflow_id = (
    SELECT e.workflow_id FROM turns AS e
    WHERE e.namespace = $2 AND e.session_id = q.value ->> 0 AND e.input_sequence < q.value ->> 1
        AND e.state IN ('saved', 'failed') AND e.failure IS NULL
    ORDER BY e.input_sequence DESC
    LIMIT 1)
