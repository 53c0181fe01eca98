-- Turns that are forgotten next: $1 ended before that instant, $2 at most so many, $3 namespace. What an open turn was
-- made from is still needed.
SELECT t.workflow_id
FROM turns AS t
WHERE t.namespace = $3 AND t.state IN ('saved', 'failed') AND t.updated_at < $1
    AND NOT EXISTS (
        SELECT 1 FROM turns AS o
        WHERE o.namespace = $3 AND o.workflow_id = t.superseded_by AND o.state IN ('waiting', 'running'))
ORDER BY t.updated_at, t.workflow_id
LIMIT $2
