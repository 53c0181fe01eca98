-- Users with held turns, in their order, behind the user $2, at most $3. Each is one step into the index, however many turns
-- of it are held.
-- $1 namespace
WITH RECURSIVE users (user_id, n) AS (
    SELECT (
        SELECT h.user_id FROM turns AS h
        WHERE h.namespace = $1 AND h.is_held = 1 AND h.state = 'waiting' AND h.user_id > $2
        ORDER BY h.user_id LIMIT 1), 1
    UNION ALL
    SELECT (
        SELECT h.user_id FROM turns AS h
        WHERE h.namespace = $1 AND h.is_held = 1 AND h.state = 'waiting' AND h.user_id > u.user_id
        ORDER BY h.user_id LIMIT 1), u.n + 1
    FROM users AS u WHERE u.user_id IS NOT NULL AND u.n < $3)
SELECT user_id FROM users WHERE user_id IS NOT NULL ORDER BY n
