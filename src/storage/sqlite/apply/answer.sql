-- Answers to the questions $6, several rows for each; see end.sql. The second column says what a row is about:
-- 0 how the turn stands, 1 what the session's running turn began with, 2 what was merged into that one,
-- 3 the turn that it interrupted.
SELECT q.key, 0, t.state, t.input_sequence, t.failure, t.superseded_by, NULL, t.session_id, t.user_id, t.fingerprint,
    t.failure_code, t.is_held
FROM jsonb_each($6) AS q CROSS JOIN turns AS t ON t.namespace = $9 AND t.workflow_id = q.value ->> 0
UNION ALL
SELECT q.key, 1, NULL, r.input_sequence, NULL, NULL, r.event, NULL, NULL, NULL, NULL, NULL
FROM jsonb_each($6) AS q CROSS JOIN turns AS t ON t.namespace = $9 AND t.workflow_id = q.value ->> 0
    CROSS JOIN turns AS r ON r.namespace = $9 AND r.session_id = t.session_id AND r.state = 'running'
WHERE q.value ->> 1
UNION ALL
SELECT q.key, 2, NULL, m.input_sequence, NULL, NULL, m.event, NULL, NULL, NULL, NULL, NULL
FROM jsonb_each($6) AS q CROSS JOIN turns AS t ON t.namespace = $9 AND t.workflow_id = q.value ->> 0
    CROSS JOIN turns AS r ON r.namespace = $9 AND r.session_id = t.session_id AND r.state = 'running'
    CROSS JOIN turns AS m ON m.namespace = $9 AND m.superseded_by = r.workflow_id AND m.failure = 'merged'
WHERE q.value ->> 1
UNION ALL
SELECT q.key, 3, NULL, i.input_sequence, NULL, NULL, i.event, NULL, NULL, NULL, NULL, NULL
FROM jsonb_each($6) AS q CROSS JOIN turns AS i
    ON i.namespace = $9 AND i.superseded_by = q.value ->> 0 AND i.failure = 'interrupted'
WHERE q.value ->> 1;

COMMIT;
