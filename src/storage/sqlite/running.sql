-- Turns that run.
-- $1 started by   instant
-- $2, $3 after    instant and workflow of the turn behind which the answer begins; NULL: it begins with the first
-- $4 limit
-- $5 namespace
SELECT workflow_id, session_id, user_id, input_sequence, updated_at
FROM turns
WHERE namespace = $5 AND state = 'running'
    AND updated_at <= $1 AND (updated_at, workflow_id) > (coalesce($2, ''), coalesce($3, ''))
ORDER BY updated_at, workflow_id
LIMIT $4
