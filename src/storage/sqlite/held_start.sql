-- Starts held turns: of the user that would have the fewest running turns first, then in the order of the stream.
-- $1 namespace
-- $2 users      JSON array, of whose turns
-- $3 each       running turns of a user that start whatever else runs; NULL: all
-- $4 all        running turns of all users, beyond which no further ones start
-- $5 most       at most so many
-- $6 now
UPDATE turns SET state = 'running', updated_at = $6
WHERE namespace = $1 AND workflow_id IN (
    SELECT c.workflow_id
    FROM (
        SELECT b.workflow_id, b.of_user, row_number() OVER (ORDER BY b.of_user, b.input_sequence, b.workflow_id) AS place
        FROM (
            SELECT h.workflow_id, h.input_sequence,
                row_number() OVER (PARTITION BY h.user_id ORDER BY h.input_sequence, h.workflow_id) + u.running AS of_user
            FROM (
                SELECT q.value AS user_id, (
                    SELECT count(*) FROM turns AS r
                    WHERE r.namespace = $1 AND r.user_id = q.value AND r.state = 'running') AS running
                FROM json_each($2) AS q) AS u
            CROSS JOIN turns AS h ON h.namespace = $1 AND h.workflow_id IN (
                SELECT l.workflow_id FROM turns AS l
                WHERE l.namespace = $1 AND l.user_id = u.user_id AND l.is_held = 1 AND l.state = 'waiting'
                    AND NOT EXISTS (
                        SELECT 1 FROM turns AS r
                        WHERE r.namespace = $1 AND r.session_id = l.session_id AND r.state = 'running')
                    AND NOT EXISTS (
                        SELECT 1 FROM turns AS w
                        WHERE w.namespace = $1 AND w.session_id = l.session_id AND w.state = 'waiting'
                            AND (w.input_sequence, w.workflow_id) < (l.input_sequence, l.workflow_id))
                ORDER BY l.input_sequence, l.workflow_id
                LIMIT $5)) AS b) AS c
    WHERE $3 IS NULL OR c.of_user <= $3
        OR c.place <= $4 - (SELECT count(*) FROM turns AS r WHERE r.namespace = $1 AND r.state = 'running')
    ORDER BY c.place
    LIMIT $5)
RETURNING workflow_id
