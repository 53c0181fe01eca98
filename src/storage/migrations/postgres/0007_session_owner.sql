-- A session can have an owner: the user of its first turn that is on record. Messages of others are then recorded as failed,
-- as if the session were busy and they had asked to be rejected, with a code of their own.

-- The owner of a session; NULL if it has no turn. What was refused makes nobody one.
CREATE FUNCTION throughline_owner(space text, session text) RETURNS text
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    found_user text;
BEGIN
    SELECT t.user_id INTO found_user FROM turns AS t
    WHERE t.namespace = space AND t.session_id = session AND t.state IN ('saved', 'failed') AND t.failure IS NULL
        AND t.failure_code IS DISTINCT FROM 'invalid_input' AND t.user_id IS NOT NULL
    ORDER BY t.input_sequence
    LIMIT 1;
    IF found_user IS NULL THEN
        SELECT t.user_id INTO found_user FROM turns AS t
        WHERE t.namespace = space AND t.session_id = session AND t.state = 'running';
    END IF;
    IF found_user IS NULL THEN
        SELECT t.user_id INTO found_user FROM turns AS t
        WHERE t.namespace = space AND t.session_id = session AND t.state = 'waiting'
        ORDER BY t.input_sequence, t.workflow_id
        LIMIT 1;
    END IF;
    RETURN found_user;
END
$$;

-- As throughline_apply_2 (0004), whose comments hold, and which workers of the version before go on calling. strict[n] says
-- that request n is only for the owner of its session to make.
CREATE FUNCTION throughline_apply_3(
    space text, saved json, ids text[], sessions text[], users text[], sequences bigint[], asks text[], rounds integer[],
    strict boolean[], events bytea[], prints bytea[], codes text[], records bytea[], instants timestamptz[], latest timestamptz,
    merge_limit bigint)
RETURNS TABLE (
    question bigint, state text, input_sequence bigint, failure text, superseded_by text,
    opening bytea, merged bytea[], interrupted bytea, session_id text, user_id text, fingerprint bytea, failure_code text)
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
    held text[] := throughline_sessions_2(space, ids, sessions);
    -- Endings of turns that nobody admitted.
    unknown boolean := EXISTS (
        SELECT FROM unnest(ids, asks) AS q(id, ask)
        WHERE q.ask IN ('save', 'fail') AND NOT EXISTS (
            SELECT FROM turns AS t WHERE t.namespace = space AND t.workflow_id = q.id));
    last_round integer := coalesce((SELECT max(r) FROM unnest(rounds) AS r), 0);
    ended text[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'throughline_apply_3 needs READ COMMITTED' USING ERRCODE = 'feature_not_supported';
    END IF;

    IF cardinality(held) > most_locks OR last_round > 0 OR unknown AND asks && '{enqueue,reject,interrupt,merge,refused}' THEN
        PERFORM pg_advisory_xact_lock(lock_of_all, hashtext(space));
        held := throughline_sessions_2(space, ids, sessions);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(lock_of_all, hashtext(space));
        PERFORM pg_advisory_xact_lock(session_locks, k.hash)
        FROM (SELECT DISTINCT hashtext(space || '/' || h) AS hash FROM unnest(held) AS h ORDER BY 1) AS k;
    END IF;

    IF 'save' = ANY (asks) THEN
        -- A workflow that has ended is not stored again: not one that failed, nor one whose row was since deleted.
        INSERT INTO interactions
        SELECT q.*
        FROM json_populate_recordset(NULL::interactions, saved) AS q
        WHERE NOT EXISTS (
            SELECT FROM turns AS t
            WHERE t.namespace = space AND t.workflow_id = q.workflow_id AND t.state IN ('saved', 'failed'))
        ORDER BY q.workflow_id
        -- Without a target: of two that insert the same row at once, the one that is late may meet the other's
        -- interaction_id before its workflow_id.
        ON CONFLICT DO NOTHING;
        IF EXISTS (
            SELECT FROM json_populate_recordset(NULL::interactions, saved) AS q
            JOIN interactions AS i ON i.namespace = space AND i.interaction_id = q.interaction_id
            WHERE i.workflow_id <> q.workflow_id)
        THEN
            RAISE 'an interaction id belongs to another workflow' USING ERRCODE = 'unique_violation';
        END IF;
    END IF;

    IF unknown THEN
        -- Created ended, so that it can never run.
        INSERT INTO turns (
            namespace, workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at, failure_code,
            failure_record)
        SELECT DISTINCT ON (q.id COLLATE "C")
            space, q.id, q.session, q.owner, q.sequence, CASE q.ask WHEN 'save' THEN 'saved' ELSE 'failed' END, q.at,
            q.at, q.code, q.record
        FROM unnest(ids, sessions, users, sequences, asks, codes, records, instants) WITH ORDINALITY
            AS q(id, session, owner, sequence, ask, code, record, at, n)
        WHERE q.ask IN ('save', 'fail')
        ORDER BY q.id COLLATE "C", q.ask = 'save' DESC, q.n
        ON CONFLICT (namespace, workflow_id) DO NOTHING;
        -- While we waited for its key, somebody admitted the workflow into a session whose lock we do not hold.
        IF EXISTS (
            SELECT FROM unnest(ids, asks) AS q(id, ask)
            JOIN turns AS t ON t.namespace = space AND t.workflow_id = q.id
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
            WHERE q.ask = 'save' AND t.namespace = space AND t.workflow_id = q.id AND t.state IN ('waiting', 'running')
            RETURNING t.workflow_id
        ), fails AS (
            UPDATE turns AS t
            SET state = 'failed', event = NULL, updated_at = q.at, failure_code = q.code, failure_record = q.record
            FROM unnest(ids, asks, sequences, codes, records, instants) AS q(id, ask, sequence, code, record, at)
            WHERE q.ask = 'fail' AND t.namespace = space AND t.workflow_id = q.id AND t.input_sequence = q.sequence
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
        WHERE t.namespace = space AND t.superseded_by = e.id AND t.failure = 'merged' AND t.event IS NOT NULL;
        PERFORM throughline_start_2(space, held, latest);
    END IF;

    IF asks && '{enqueue,reject,interrupt,merge,refused}' THEN
        FOR this IN 0 .. last_round LOOP
            IF 'interrupt' = ANY (asks) THEN
                -- It ends the running turn, if that one came before it. Once: later it may be another that runs.
                UPDATE turns AS t
                SET state = 'failed', failure = 'interrupted', failure_code = 'interrupted', superseded_by = q.id,
                    updated_at = latest
                FROM unnest(ids, sessions, users, sequences, asks, rounds, strict)
                    AS q(id, session, owner, sequence, ask, round, only_owner)
                WHERE q.ask = 'interrupt' AND q.round = this
                    AND t.namespace = space AND t.session_id = q.session AND t.state = 'running'
                    AND t.input_sequence < q.sequence
                    AND NOT EXISTS (SELECT FROM turns AS k WHERE k.namespace = space AND k.workflow_id = q.id)
                    AND NOT (q.only_owner AND throughline_owner(space, q.session) IS DISTINCT FROM q.owner);
            END IF;

            -- The first message with a workflow id wins. One that becomes part of a turn does so of the last that waits.
            -- Who is first in a session without an open turn runs at once.
            INSERT INTO turns (
                namespace, workflow_id, session_id, user_id, input_sequence, state, failure, superseded_by, merges, event,
                fingerprint, created_at, updated_at, failure_code, failure_record)
            SELECT
                space, n.id, n.session, n.owner, n.sequence,
                CASE
                    WHEN n.ask = 'refused' OR n.failure IS NOT NULL THEN 'failed'
                    WHEN n.place = 1 AND NOT n.busy THEN 'running'
                    ELSE 'waiting'
                END,
                n.failure, CASE n.failure WHEN 'merged' THEN n.last_waiting END, n.ask = 'merge',
                CASE WHEN n.ask <> 'refused' AND n.failure IS DISTINCT FROM 'rejected' THEN n.event END,
                n.print, n.at, CASE WHEN n.place = 1 AND NOT n.busy THEN latest ELSE n.at END,
                CASE n.failure
                    WHEN 'rejected' THEN CASE WHEN n.is_stranger THEN 'not_session_owner' ELSE 'session_busy' END WHEN 'merged' THEN 'merged' ELSE n.code END, n.record
            FROM (
                SELECT m.*, CASE WHEN m.is_stranger THEN 'rejected' ELSE m.busy_failure END AS failure
                FROM (SELECT
                    q.*, w.workflow_id AS last_waiting, b.busy,
                    q.only_owner AND coalesce(o.owner, first_value(q.owner) OVER (
                        PARTITION BY q.session, q.ask = 'refused' ORDER BY q.sequence, q.id COLLATE "C")) <> q.owner
                        AS is_stranger,
                    row_number() OVER (
                        PARTITION BY q.session, q.ask = 'refused' ORDER BY q.sequence, q.id COLLATE "C") AS place,
                    CASE
                        WHEN q.ask = 'reject' AND b.busy THEN 'rejected'
                        WHEN w.merges AND w.user_id = q.owner AND w.input_sequence < q.sequence
                            AND merge_limit >= octet_length(w.event) + octet_length(q.event) + (
                                SELECT coalesce(sum(octet_length(m.event)), 0) FROM turns AS m
                                WHERE m.namespace = space AND m.superseded_by = w.workflow_id AND m.failure = 'merged')
                            THEN 'merged'
                    END AS busy_failure
                FROM (
                    SELECT DISTINCT ON (r.id COLLATE "C") r.*
                    FROM unnest(
                        ids, sessions, users, sequences, asks, rounds, strict, events, prints, codes, records, instants)
                        WITH ORDINALITY
                        AS r(id, session, owner, sequence, ask, round, only_owner, event, print, code, record, at, n)
                    WHERE r.round = this AND r.ask NOT IN ('save', 'fail')
                        AND NOT EXISTS (SELECT FROM turns AS k WHERE k.namespace = space AND k.workflow_id = r.id)
                    ORDER BY r.id COLLATE "C", r.n
                ) AS q CROSS JOIN LATERAL (
                    SELECT EXISTS (
                            SELECT FROM turns AS o
                            WHERE o.namespace = space AND o.session_id = q.session AND o.state = 'running')
                        OR EXISTS (
                            SELECT FROM turns AS o
                            WHERE o.namespace = space AND o.session_id = q.session AND o.state = 'waiting')
                ) AS b(busy) LEFT JOIN LATERAL (
                    SELECT l.* FROM turns AS l
                    WHERE q.ask = 'merge' AND l.namespace = space AND l.session_id = q.session AND l.state = 'waiting'
                    ORDER BY l.input_sequence DESC, l.workflow_id DESC
                    LIMIT 1
                ) AS w ON TRUE LEFT JOIN LATERAL (
                    SELECT throughline_owner(space, q.session) AS owner WHERE q.only_owner
                ) AS o ON TRUE) AS m
            ) AS n
            ORDER BY n.id COLLATE "C"
            ON CONFLICT (namespace, workflow_id) DO NOTHING;

            -- An interruption left the session without a turn that runs, or whoever was to run was known already.
            PERFORM throughline_start_2(space, held, latest);
        END LOOP;
    END IF;

    RETURN QUERY
    SELECT
        q.n, t.state, t.input_sequence, t.failure, t.superseded_by, r.event,
        ARRAY (
            SELECT m.event FROM turns AS m
            WHERE m.namespace = space AND m.superseded_by = r.workflow_id AND m.failure = 'merged'
                AND m.event IS NOT NULL
            ORDER BY m.input_sequence),
        (SELECT i.event FROM turns AS i
            WHERE i.namespace = space AND i.superseded_by = q.id AND i.failure = 'interrupted'),
        t.session_id, t.user_id, t.fingerprint, t.failure_code
    FROM unnest(ids, asks) WITH ORDINALITY AS q(id, ask, n)
    JOIN turns AS t ON t.namespace = space AND t.workflow_id = q.id
    LEFT JOIN turns AS r ON r.namespace = space AND r.session_id = t.session_id AND r.state = 'running'
        AND q.ask IN ('save', 'fail', 'interrupt', 'merge')
    ORDER BY q.n;
END
$$;
