-- Turns of a user, the newest first.
-- $1 states         JSON array; each is read to the limit by its index, and what all have is put in order
-- $2, $3 after      instant and workflow behind which the list begins; NULL: it begins with the newest
-- $4 limit
-- $5 namespace
-- $6, $7            user and session, in statements that ask for them
SELECT
    t.workflow_id, t.session_id, t.user_id, t.input_sequence, t.state,
    (SELECT r.workflow_id FROM turns AS r
        WHERE t.state = 'waiting' AND r.namespace = $5 AND r.session_id = t.session_id AND r.state = 'running'),
    t.failure_code, t.superseded_by, t.created_at, t.updated_at,
    (SELECT i.cost_usd FROM interactions AS i
        WHERE t.state = 'saved' AND i.namespace = $5 AND i.workflow_id = t.workflow_id)
FROM jsonb_each($1) AS q CROSS JOIN turns AS t ON t.namespace = $5 AND t.workflow_id IN (
    SELECT l.workflow_id FROM turns AS l
    WHERE l.namespace = $5 AND l.state = q.value AND l.user_id = $6
        AND (l.created_at, l.workflow_id) < (coalesce($2, ':'), coalesce($3, ''))
    ORDER BY l.created_at DESC, l.workflow_id DESC
    LIMIT $4)
ORDER BY t.created_at DESC, t.workflow_id DESC
LIMIT $4
