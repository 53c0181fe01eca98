-- Applies a batch of operations as the one statement of its transaction: one round trip, one commit.
--
-- Request n is ids[n], sessions[n], and so on; its answer is the row with question = n. asks[n] says what it is:
-- 'save' or 'fail' a turn; or admit one that, when its session is busy, is to 'enqueue', 'reject', 'interrupt' or
-- 'merge'; or record one that was 'refused'. `saved` are the interactions that the saves bring, as JSON objects that are rows.
-- Endings come first, saves before fails, then admissions, round by round: those of one session that are content to
-- wait share a round, and one that asks for something else has a round of its own, since it depends on who runs then.
--
-- Many processes call this at once. A session's turns are touched only under the session's lock, which is held until
-- the commit. Whoever takes several locks takes them in one order, everywhere: sessions by their hash, keys of
-- `interactions` by workflow, keys of `turns` by workflow; so nobody waits in a circle. A batch that cannot keep to that,
-- or needs many locks, runs alone. Under READ COMMITTED each statement below sees all that was committed before it
-- began, so also what the holder of a lock before us did.
CREATE FUNCTION throughline_apply(
    saved json, ids text[], sessions text[], users text[], sequences bigint[], asks text[], rounds integer[],
    events bytea[], instants timestamptz[], latest timestamptz, merge_limit bigint)
RETURNS TABLE (
    question bigint, state text, input_sequence bigint, failure text, superseded_by text,
    opening bytea, merged bytea[], interrupted bytea)
LANGUAGE plpgsql
-- Every table is reached by an index, whatever the statistics say of a table that was empty a minute ago.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    session_locks CONSTANT integer := 1952997996;
    lock_of_all CONSTANT integer := 1952997997;
    -- PostgreSQL has room for 64 locks a connection (max_locks_per_transaction).
    most_locks CONSTANT integer := 48;
    held text[] := throughline_sessions(ids, sessions);
    -- Endings of turns that nobody admitted.
    unknown boolean := EXISTS (
        SELECT FROM unnest(ids, asks) AS q(id, ask)
        WHERE q.ask IN ('save', 'fail') AND NOT EXISTS (SELECT FROM turns AS t WHERE t.workflow_id = q.id));
    last_round integer := coalesce((SELECT max(r) FROM unnest(rounds) AS r), 0);
    ended text[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'throughline_apply needs READ COMMITTED' USING ERRCODE = 'feature_not_supported';
    END IF;

    IF cardinality(held) > most_locks OR last_round > 0 OR unknown AND asks && '{enqueue,reject,interrupt,merge,refused}' THEN
        PERFORM pg_advisory_xact_lock(lock_of_all, 0);
        held := throughline_sessions(ids, sessions);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(lock_of_all, 0);
        PERFORM pg_advisory_xact_lock(session_locks, k.hash)
        FROM (SELECT DISTINCT hashtext(h) AS hash FROM unnest(held) AS h ORDER BY 1) AS k;
    END IF;

    IF 'save' = ANY (asks) THEN
        -- A workflow that has ended is not stored again: not one that failed, nor one whose row was since deleted.
        INSERT INTO interactions
        SELECT q.*
        FROM json_populate_recordset(NULL::interactions, saved) AS q
        WHERE NOT EXISTS (
            SELECT FROM turns AS t WHERE t.workflow_id = q.workflow_id AND t.state IN ('saved', 'failed'))
        ORDER BY q.workflow_id
        -- Without a target: of two that insert the same row at once, the one that is late may meet the other's
        -- interaction_id before its workflow_id.
        ON CONFLICT DO NOTHING;
        IF EXISTS (
            SELECT FROM json_populate_recordset(NULL::interactions, saved) AS q
            JOIN interactions AS i ON i.interaction_id = q.interaction_id
            WHERE i.workflow_id <> q.workflow_id)
        THEN
            RAISE 'an interaction id belongs to another workflow' USING ERRCODE = 'unique_violation';
        END IF;
    END IF;

    IF unknown THEN
        -- Created ended, so that it can never run.
        INSERT INTO turns (workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at)
        SELECT DISTINCT ON (q.id COLLATE "C")
            q.id, q.session, q.owner, q.sequence, CASE q.ask WHEN 'save' THEN 'saved' ELSE 'failed' END, q.at, q.at
        FROM unnest(ids, sessions, users, sequences, asks, instants) WITH ORDINALITY
            AS q(id, session, owner, sequence, ask, at, n)
        WHERE q.ask IN ('save', 'fail')
        ORDER BY q.id COLLATE "C", q.ask = 'save' DESC, q.n
        ON CONFLICT (workflow_id) DO NOTHING;
        -- While we waited for its key, somebody admitted the workflow into a session whose lock we do not hold.
        IF EXISTS (
            SELECT FROM unnest(ids, asks) AS q(id, ask) JOIN turns AS t ON t.workflow_id = q.id
            WHERE q.ask IN ('save', 'fail') AND t.session_id <> ALL (held))
        THEN
            RAISE 'a workflow was admitted into another session' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;

    IF asks && '{save,fail}' THEN
        -- The first ending wins. Failing one message leaves the turn of another alone.
        WITH saves AS (
            UPDATE turns AS t SET state = 'saved', event = NULL, updated_at = q.at
            FROM unnest(ids, asks, instants) AS q(id, ask, at)
            WHERE q.ask = 'save' AND t.workflow_id = q.id AND t.state IN ('waiting', 'running')
            RETURNING t.workflow_id
        ), fails AS (
            UPDATE turns AS t SET state = 'failed', event = NULL, updated_at = q.at
            FROM unnest(ids, asks, sequences, instants) AS q(id, ask, sequence, at)
            WHERE q.ask = 'fail' AND t.workflow_id = q.id AND t.input_sequence = q.sequence
                AND t.state IN ('waiting', 'running')
                AND NOT EXISTS (
                    SELECT FROM unnest(ids, asks) AS s(id, ask) WHERE s.id = q.id AND s.ask = 'save')
            RETURNING t.workflow_id
        )
        SELECT array_agg(e.workflow_id) INTO ended
        FROM (SELECT * FROM saves UNION ALL SELECT * FROM fails) AS e;
        -- What was merged into a turn that has ended is not needed any more.
        UPDATE turns AS t SET event = NULL
        FROM unnest(ended) AS e(id)
        WHERE t.superseded_by = e.id AND t.failure = 'merged' AND t.event IS NOT NULL;
        PERFORM throughline_start(held, latest);
    END IF;

    IF asks && '{enqueue,reject,interrupt,merge,refused}' THEN
        FOR this IN 0 .. last_round LOOP
            IF 'interrupt' = ANY (asks) THEN
                -- It ends the running turn, if that one came before it. Once: later it may be another that runs.
                UPDATE turns AS t
                SET state = 'failed', failure = 'interrupted', superseded_by = q.id, updated_at = latest
                FROM unnest(ids, sessions, sequences, asks, rounds) AS q(id, session, sequence, ask, round)
                WHERE q.ask = 'interrupt' AND q.round = this
                    AND t.session_id = q.session AND t.state = 'running' AND t.input_sequence < q.sequence
                    AND NOT EXISTS (SELECT FROM turns AS k WHERE k.workflow_id = q.id);
            END IF;

            -- The first message with a workflow id wins. One that becomes part of a turn does so of the last that waits.
            -- Who is first in a session without an open turn runs at once.
            INSERT INTO turns (
                workflow_id, session_id, user_id, input_sequence, state, failure, superseded_by, merges, event,
                created_at, updated_at)
            SELECT
                n.id, n.session, n.owner, n.sequence,
                CASE
                    WHEN n.ask = 'refused' OR n.failure IS NOT NULL THEN 'failed'
                    WHEN n.place = 1 AND NOT n.busy THEN 'running'
                    ELSE 'waiting'
                END,
                n.failure, CASE n.failure WHEN 'merged' THEN n.last_waiting END, n.ask = 'merge',
                CASE WHEN n.ask <> 'refused' AND n.failure IS DISTINCT FROM 'rejected' THEN n.event END,
                n.at, CASE WHEN n.place = 1 AND NOT n.busy THEN latest ELSE n.at END
            FROM (
                SELECT
                    q.*, w.workflow_id AS last_waiting, b.busy,
                    row_number() OVER (
                        PARTITION BY q.session, q.ask = 'refused' ORDER BY q.sequence, q.id COLLATE "C") AS place,
                    CASE
                        WHEN q.ask = 'reject' AND b.busy THEN 'rejected'
                        WHEN w.merges AND w.user_id = q.owner AND w.input_sequence < q.sequence
                            AND merge_limit >= octet_length(w.event) + octet_length(q.event) + (
                                SELECT coalesce(sum(octet_length(m.event)), 0) FROM turns AS m
                                WHERE m.superseded_by = w.workflow_id AND m.failure = 'merged')
                            THEN 'merged'
                    END AS failure
                FROM (
                    SELECT DISTINCT ON (r.id COLLATE "C") r.*
                    FROM unnest(ids, sessions, users, sequences, asks, rounds, events, instants) WITH ORDINALITY
                        AS r(id, session, owner, sequence, ask, round, event, at, n)
                    WHERE r.round = this AND r.ask NOT IN ('save', 'fail')
                        AND NOT EXISTS (SELECT FROM turns AS k WHERE k.workflow_id = r.id)
                    ORDER BY r.id COLLATE "C", r.n
                ) AS q CROSS JOIN LATERAL (
                    SELECT EXISTS (SELECT FROM turns AS o WHERE o.session_id = q.session AND o.state = 'running')
                        OR EXISTS (SELECT FROM turns AS o WHERE o.session_id = q.session AND o.state = 'waiting')
                ) AS b(busy) LEFT JOIN LATERAL (
                    SELECT l.* FROM turns AS l
                    WHERE q.ask = 'merge' AND l.session_id = q.session AND l.state = 'waiting'
                    ORDER BY l.input_sequence DESC, l.workflow_id DESC
                    LIMIT 1
                ) AS w ON TRUE
            ) AS n
            ORDER BY n.id COLLATE "C"
            ON CONFLICT (workflow_id) DO NOTHING;

            -- An interruption left the session without a turn that runs, or whoever was to run was known already.
            PERFORM throughline_start(held, latest);
        END LOOP;
    END IF;

    RETURN QUERY
    SELECT
        q.n, t.state, t.input_sequence, t.failure, t.superseded_by, r.event,
        ARRAY (
            SELECT m.event FROM turns AS m
            WHERE m.superseded_by = r.workflow_id AND m.failure = 'merged' AND m.event IS NOT NULL
            ORDER BY m.input_sequence),
        (SELECT i.event FROM turns AS i WHERE i.superseded_by = q.id AND i.failure = 'interrupted')
    FROM unnest(ids, asks) WITH ORDINALITY AS q(id, ask, n)
    JOIN turns AS t ON t.workflow_id = q.id
    LEFT JOIN turns AS r ON r.session_id = t.session_id AND r.state = 'running'
        AND q.ask IN ('save', 'fail', 'interrupt', 'merge')
    ORDER BY q.n;
END
$$;

-- The sessions that requests name, and those of the turns that they are about.
CREATE FUNCTION throughline_sessions(ids text[], sessions text[]) RETURNS text[]
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN ARRAY (
        SELECT unnest(sessions)
        UNION
        SELECT t.session_id FROM unnest(ids) AS q(id) JOIN turns AS t ON t.workflow_id = q.id);
END
$$;

-- Every one of these sessions in which no turn runs starts its first waiting one.
CREATE FUNCTION throughline_start(sessions text[], at timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE turns AS t SET state = 'running', updated_at = at
    FROM unnest(sessions) AS s(id) CROSS JOIN LATERAL (
        SELECT w.workflow_id FROM turns AS w
        WHERE w.session_id = s.id AND w.state = 'waiting'
        ORDER BY w.input_sequence, w.workflow_id
        LIMIT 1
    ) AS w
    WHERE t.workflow_id = w.workflow_id
        AND NOT EXISTS (SELECT FROM turns AS r WHERE r.session_id = s.id AND r.state = 'running');
END
$$;

-- What is known about several (user, session) pairs; at most `most` of the latest turns of each, in no order.
CREATE FUNCTION throughline_context(users text[], sessions text[], most bigint)
RETURNS TABLE (
    question bigint, workflow_id text, name text, value text, input text, response text, created_at timestamptz,
    input_sequence bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT q.n, NULL, p.name, p.value::text, NULL, NULL, NULL::timestamptz, NULL::bigint
    FROM unnest(users) WITH ORDINALITY AS q(id, n) JOIN preferences AS p ON p.user_id = q.id
    UNION ALL
    SELECT q.n, i.workflow_id, NULL, NULL, i.input, i.response, i.created_at, i.input_sequence
    FROM unnest(users, sessions) WITH ORDINALITY AS q(id, session, n) CROSS JOIN LATERAL (
        SELECT l.* FROM interactions AS l
        WHERE l.session_id = q.session AND l.user_id = q.id
        ORDER BY l.input_sequence DESC
        LIMIT most
    ) AS i;
END
$$;
