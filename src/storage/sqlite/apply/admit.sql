-- Admissions $4 with their events $5; see end.sql. A run of admissions that are content to wait, or a single one that
-- asks for something else, since that depends on which turn runs when it comes.

-- An interruption ends the running turn, if that one came before it. Once: later it may be another that runs. Where a
-- session has an owner, the user of its first turn that is on record, only the owner interrupts.
WITH interruptions AS MATERIALIZED (
    SELECT r.workflow_id, q.value ->> 'workflow_id' AS interrupted_by
    FROM jsonb_each($4) AS q
        CROSS JOIN turns AS r ON r.namespace = $9 AND r.session_id = q.value ->> 'session_id' AND r.state = 'running'
    WHERE q.value ->> 'when_busy' = 'interrupt'
        AND r.input_sequence < q.value ->> 'input_sequence'
        AND NOT EXISTS (SELECT 1 FROM turns AS k WHERE k.namespace = $9 AND k.workflow_id = q.value ->> 'workflow_id')
        AND NOT (q.value ->> 'owned' AND coalesce(
                (SELECT o.user_id FROM turns AS o
                    WHERE o.namespace = $9 AND o.session_id = q.value ->> 'session_id' AND o.state IN ('saved', 'failed')
                        AND o.failure IS NULL AND o.failure_code IS NOT 'invalid_input' AND o.user_id IS NOT NULL
                    ORDER BY o.input_sequence LIMIT 1),
                (SELECT o.user_id FROM turns AS o
                    WHERE o.namespace = $9 AND o.session_id = q.value ->> 'session_id' AND o.state = 'running'),
                (SELECT o.user_id FROM turns AS o
                    WHERE o.namespace = $9 AND o.session_id = q.value ->> 'session_id' AND o.state = 'waiting'
                    ORDER BY o.input_sequence, o.workflow_id LIMIT 1)) IS NOT q.value ->> 'user_id')
        -- Nor does one interrupt whose user would still have too many open turns.
        AND NOT ($12 > 0 AND $12 <= (
            SELECT count(*) FROM (
                SELECT 1 FROM turns AS o
                WHERE o.namespace = $9 AND o.user_id = q.value ->> 'user_id' AND o.state IN ('waiting', 'running')
                    AND o.workflow_id <> r.workflow_id
                LIMIT $12))))
UPDATE turns SET
    state = 'failed', failure = 'interrupted', failure_code = 'interrupted', superseded_by = i.interrupted_by, updated_at = $7
FROM interruptions AS i
WHERE turns.namespace = $9 AND turns.workflow_id = i.workflow_id;

-- The first message with a workflow id wins; of one run, which is sorted below, it is the row that is not `again`. A message that becomes part of a turn does so of the last that waits. One that
-- is not of its session's owner has no place in it; of a session that nobody owns yet, the first of the batch is the owner.
-- One that would take a place has none if its user has as many open turns as it may have.
WITH firsts AS MATERIALIZED (
    SELECT b.value ->> 'session_id' AS session_id, b.value ->> 'user_id' AS user_id, min(b.value ->> 'input_sequence')
    FROM jsonb_each($4) AS b
    WHERE b.value ->> 'owned'
        AND NOT EXISTS (SELECT 1 FROM turns AS k WHERE k.namespace = $9 AND k.workflow_id = b.value ->> 'workflow_id')
    GROUP BY b.value ->> 'session_id')
INSERT INTO turns (
    namespace, workflow_id, session_id, user_id, input_sequence, state, failure, superseded_by, merges, event,
    fingerprint, created_at, updated_at, failure_code, failure_record)
SELECT
    $9, n.v ->> 'workflow_id', n.v ->> 'session_id', n.v ->> 'user_id', n.v ->> 'input_sequence',
    iif(n.failure IS NULL, n.v ->> 'state', 'failed'), n.failure, iif(n.failure = 'merged', n.last_waiting, NULL),
    n.v ->> 'when_busy' = 'merge',
    iif(n.v ->> 'state' = 'waiting' AND n.failure IS NOT 'rejected',
        substr($5, n.v ->> 'event_from', n.v ->> 'event_length'), NULL),
    substr($5, n.v ->> 'fingerprint_from', n.v ->> 'fingerprint_length'), n.v ->> 'at', n.v ->> 'at',
    CASE n.failure WHEN 'rejected' THEN CASE WHEN n.is_stranger THEN 'not_session_owner' WHEN n.is_full THEN 'too_many_open' ELSE 'session_busy' END WHEN 'merged' THEN 'merged' ELSE n.v ->> 'failure_code' END,
    iif(n.v ->> 'failure_length' > 0, substr($5, n.v ->> 'failure_from', n.v ->> 'failure_length'), NULL)
FROM (
    SELECT p.v, p.last_waiting, p.is_stranger, p.is_full, iif(p.is_full, 'rejected', p.refusal) AS failure
    FROM (SELECT m.v, m.last_waiting, m.is_stranger, m.refusal,
        iif($12 > 0 AND m.takes_a_place, $12 < row_number() OVER (
                PARTITION BY m.v ->> 'user_id', m.takes_a_place ORDER BY m.v ->> 'input_sequence', m.v ->> 'workflow_id')
            + (SELECT count(*) FROM (
                SELECT 1 FROM turns AS o
                WHERE o.namespace = $9 AND o.user_id = m.v ->> 'user_id' AND o.state IN ('waiting', 'running')
                LIMIT $12)), FALSE) AS is_full
    FROM (SELECT x.v, x.last_waiting, x.is_stranger, iif(x.is_stranger, 'rejected', x.busy_failure) AS refusal,
        $12 > 0 AND x.v ->> 'state' = 'waiting' AND NOT x.is_stranger AND x.busy_failure IS NULL AND NOT x.v ->> 'again'
            AND NOT EXISTS (SELECT 1 FROM turns AS k WHERE k.namespace = $9 AND k.workflow_id = x.v ->> 'workflow_id')
            AS takes_a_place
    FROM (SELECT
        q.value AS v, w.workflow_id AS last_waiting,
        iif(q.value ->> 'owned', coalesce(
            (SELECT o.user_id FROM turns AS o
                WHERE o.namespace = $9 AND o.session_id = q.value ->> 'session_id' AND o.state IN ('saved', 'failed')
                    AND o.failure IS NULL AND o.failure_code IS NOT 'invalid_input' AND o.user_id IS NOT NULL
                ORDER BY o.input_sequence LIMIT 1),
            (SELECT o.user_id FROM turns AS o
                WHERE o.namespace = $9 AND o.session_id = q.value ->> 'session_id' AND o.state = 'running'),
            (SELECT o.user_id FROM turns AS o
                WHERE o.namespace = $9 AND o.session_id = q.value ->> 'session_id' AND o.state = 'waiting'
                ORDER BY o.input_sequence, o.workflow_id LIMIT 1),
            f.user_id) IS NOT q.value ->> 'user_id', FALSE)
            AS is_stranger,
        CASE q.value ->> 'when_busy'
            WHEN 'reject' THEN iif(EXISTS (
                SELECT 1 FROM turns AS r
                WHERE r.namespace = $9 AND r.session_id = q.value ->> 'session_id' AND r.state = 'running')
                OR EXISTS (
                SELECT 1 FROM turns AS r
                WHERE r.namespace = $9 AND r.session_id = q.value ->> 'session_id' AND r.state = 'waiting'), 'rejected', NULL)
            WHEN 'merge' THEN iif(w.merges
                AND w.user_id = q.value ->> 'user_id'
                AND w.input_sequence < q.value ->> 'input_sequence'
                AND $8 >= length(w.event) + (q.value ->> 'event_length') + (
                    SELECT coalesce(sum(length(m.event)), 0) FROM turns AS m
                    WHERE m.namespace = $9 AND m.superseded_by = w.workflow_id AND m.failure = 'merged'), 'merged', NULL)
        END AS busy_failure
    FROM jsonb_each($4) AS q LEFT JOIN firsts AS f ON f.session_id = q.value ->> 'session_id'
    LEFT JOIN turns AS w ON w.namespace = $9 AND w.workflow_id = iif(
        q.value ->> 'when_busy' = 'merge', (
            SELECT l.workflow_id FROM turns AS l
            WHERE l.namespace = $9 AND l.session_id = q.value ->> 'session_id' AND l.state = 'waiting'
            ORDER BY l.input_sequence DESC, l.workflow_id DESC
            LIMIT 1), NULL)) AS x) AS m) AS p) AS n
WHERE NOT n.v ->> 'again'
ON CONFLICT (namespace, workflow_id) DO NOTHING;

-- Every session of the batch in which no turn runs now starts its first waiting one, unless that is held. It is held now
-- if its user has its share ($10 of its own; $11 of all, as long as nobody's turn is held); see Share in the port.
UPDATE turns SET
    state = iif(f.starts, 'running', 'waiting'), is_held = NOT f.starts, updated_at = iif(f.starts, $7, turns.updated_at)
FROM (
    SELECT c.workflow_id,
        CASE
            WHEN $10 IS NULL OR c.of_user <= $10 THEN TRUE
            WHEN EXISTS (SELECT 1 FROM turns AS h WHERE h.namespace = $9 AND h.is_held = 1 AND h.state = 'waiting') THEN FALSE
            WHEN $11 IS NULL THEN TRUE
            ELSE $11 >= c.place + (
                SELECT count(*) FROM (SELECT 1 FROM turns AS r WHERE r.namespace = $9 AND r.state = 'running' LIMIT $11))
        END AS starts
    FROM (
        SELECT w.workflow_id, row_number() OVER (ORDER BY w.input_sequence, w.workflow_id) AS place,
            row_number() OVER (PARTITION BY w.user_id ORDER BY w.input_sequence, w.workflow_id) + (
                SELECT count(*) FROM (
                    SELECT 1 FROM turns AS r
                    WHERE r.namespace = $9 AND r.user_id = w.user_id AND r.state = 'running'
                    LIMIT coalesce($10, 0))) AS of_user
        FROM (
            SELECT DISTINCT t.session_id
            FROM jsonb_each($6) AS q CROSS JOIN turns AS t ON t.namespace = $9 AND t.workflow_id = q.value ->> 0) AS s
        CROSS JOIN turns AS w ON w.namespace = $9 AND w.workflow_id = (
            SELECT l.workflow_id FROM turns AS l
            WHERE l.namespace = $9 AND l.session_id = s.session_id AND l.state = 'waiting'
            ORDER BY l.input_sequence, l.workflow_id
            LIMIT 1)
        WHERE w.is_held = 0 AND NOT EXISTS (
            SELECT 1 FROM turns AS r WHERE r.namespace = $9 AND r.session_id = s.session_id AND r.state = 'running')
        ) AS c) AS f
WHERE turns.namespace = $9 AND turns.workflow_id = f.workflow_id;
