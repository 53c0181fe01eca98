-- What a turn began with, if it runs, and what was merged into it: the turn itself first, then in stream order.
-- $1 workflow, $2 namespace
SELECT t.event
FROM turns AS t
WHERE t.namespace = $2 AND t.workflow_id = $1 AND t.state = 'running' AND t.event IS NOT NULL
UNION ALL
SELECT event FROM (
    SELECT m.event
    FROM turns AS r CROSS JOIN turns AS m
        ON m.namespace = r.namespace AND m.superseded_by = r.workflow_id AND m.failure = 'merged'
    WHERE r.namespace = $2 AND r.workflow_id = $1 AND r.state = 'running' AND r.event IS NOT NULL
    ORDER BY m.input_sequence)
