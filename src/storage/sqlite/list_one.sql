-- The turn of one workflow, in the form of a list.
-- $1 workflow
-- $2 namespace
SELECT
    t.workflow_id, t.session_id, t.user_id, t.input_sequence, t.state,
    (SELECT r.workflow_id FROM turns AS r
        WHERE t.state = 'waiting' AND r.namespace = $2 AND r.session_id = t.session_id AND r.state = 'running'),
    t.failure_code, t.superseded_by, t.created_at, t.updated_at,
    (SELECT i.cost_usd FROM interactions AS i
        WHERE t.state = 'saved' AND i.namespace = $2 AND i.workflow_id = t.workflow_id)
FROM turns AS t
WHERE t.namespace = $2 AND t.workflow_id = $1
