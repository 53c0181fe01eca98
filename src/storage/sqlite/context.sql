-- What is known about several (user, session) pairs, as one trip to SQLite.
-- $1 questions   JSON array of (user, session)
-- $2 turns       how many turns at most for each; they come in no order
-- $3 namespace
SELECT q.key, NULL, p.name, p.value, NULL, NULL
FROM jsonb_each($1) AS q CROSS JOIN preferences AS p ON p.namespace = $3 AND p.user_id = q.value ->> 0
UNION ALL
SELECT q.key, i.workflow_id, i.input, i.response, i.created_at, i.input_sequence
FROM jsonb_each($1) AS q CROSS JOIN interactions AS i ON i.rowid IN (
    SELECT l.rowid FROM interactions AS l
    WHERE l.namespace = $3 AND l.session_id = q.value ->> 1 AND l.user_id = q.value ->> 0
    ORDER BY l.input_sequence DESC
    LIMIT $2)
