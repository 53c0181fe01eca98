-- What the turns $2 (JSON array of workflows) of namespace $1 begin with: 0 its own event, 1 those merged into it.
SELECT q.key, 0, t.input_sequence, t.event
FROM json_each($2) AS q CROSS JOIN turns AS t ON t.namespace = $1 AND t.workflow_id = q.value
WHERE t.event IS NOT NULL
UNION ALL
SELECT q.key, 1, m.input_sequence, m.event
FROM json_each($2) AS q CROSS JOIN turns AS m
    ON m.namespace = $1 AND m.superseded_by = q.value AND m.failure = 'merged'
WHERE m.event IS NOT NULL
ORDER BY 1, 2, 3
