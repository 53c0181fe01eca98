-- If no turn of the session $2 of namespace $1 runs, its first waiting one starts, at $3, unless it is held.
UPDATE turns SET state = 'running', updated_at = $3
WHERE namespace = $1 AND is_held = 0 AND workflow_id = (
        SELECT w.workflow_id FROM turns AS w
        WHERE w.namespace = $1 AND w.session_id = $2 AND w.state = 'waiting'
        ORDER BY w.input_sequence, w.workflow_id
        LIMIT 1)
    AND NOT EXISTS (
        SELECT 1 FROM turns AS r WHERE r.namespace = $1 AND r.session_id = $2 AND r.state = 'running')
