-- Users share what runs. A turn whose user has its share is held: it waits although its session is free. What this column
-- says of a turn that does not wait any more means nothing.
ALTER TABLE turns ADD COLUMN is_held BOOLEAN NOT NULL DEFAULT FALSE;

-- Which held turns start next, user by user.
CREATE INDEX turns_held ON turns (namespace, user_id, input_sequence, workflow_id) WHERE is_held AND state = 'waiting';

-- How many calls of models this worker can make at once; NULL: it is of an earlier version.
ALTER TABLE namespace_workers ADD COLUMN calls BIGINT;

-- Whoever has fewer running turns is never held up by others (Share::LEAST).
CREATE FUNCTION throughline_least() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT 2::bigint $$;

-- Every one of these sessions in which no turn runs starts its first waiting one, unless that is held. Workers of the version
-- before start turns with it, too, and restored ends do.
CREATE OR REPLACE FUNCTION throughline_start_2(space text, sessions text[], at timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE turns AS t SET state = 'running', updated_at = at
    FROM unnest(sessions) AS s(id) CROSS JOIN LATERAL (
        SELECT w.workflow_id, w.is_held FROM turns AS w
        WHERE w.namespace = space AND w.session_id = s.id AND w.state = 'waiting'
        ORDER BY w.input_sequence, w.workflow_id
        LIMIT 1
    ) AS w
    WHERE t.namespace = space AND t.workflow_id = w.workflow_id AND NOT w.is_held
        AND NOT EXISTS (
            SELECT FROM turns AS r WHERE r.namespace = space AND r.session_id = s.id AND r.state = 'running');
END
$$;

-- The same, but a turn whose user has its share is held: of its own `each` (NULL: any number), and beyond that, as long as
-- nobody's turn is held, of `everyone` for all users together (NULL: any number).
CREATE FUNCTION throughline_start_3(space text, sessions text[], at timestamptz, each bigint, everyone bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE turns AS t SET
        state = CASE WHEN f.starts THEN 'running' ELSE 'waiting' END,
        is_held = NOT f.starts,
        updated_at = CASE WHEN f.starts THEN at ELSE t.updated_at END
    FROM (
        SELECT c.workflow_id, CASE
                WHEN each IS NULL THEN TRUE
                WHEN each >= (
                    SELECT count(*) FROM (
                        SELECT FROM turns AS r
                        WHERE r.namespace = space AND r.user_id = c.user_id AND r.state = 'running'
                        LIMIT each) AS own)
                    + row_number() OVER (PARTITION BY c.user_id ORDER BY c.input_sequence, c.workflow_id) THEN TRUE
                WHEN EXISTS (
                    SELECT FROM turns AS h WHERE h.namespace = space AND h.is_held AND h.state = 'waiting') THEN FALSE
                WHEN everyone IS NULL THEN TRUE
                ELSE everyone >= (
                    SELECT count(*) FROM (
                        SELECT FROM turns AS r WHERE r.namespace = space AND r.state = 'running'
                        LIMIT everyone) AS others)
                    + row_number() OVER (ORDER BY c.input_sequence, c.workflow_id)
            END AS starts
        FROM (
            SELECT w.workflow_id, w.user_id, w.input_sequence
            FROM unnest(sessions) AS s(id) CROSS JOIN LATERAL (
                SELECT l.workflow_id, l.user_id, l.input_sequence, l.is_held FROM turns AS l
                WHERE l.namespace = space AND l.session_id = s.id AND l.state = 'waiting'
                ORDER BY l.input_sequence, l.workflow_id
                LIMIT 1
            ) AS w
            WHERE NOT w.is_held AND NOT EXISTS (
                SELECT FROM turns AS r WHERE r.namespace = space AND r.session_id = s.id AND r.state = 'running')
        ) AS c
    ) AS f
    WHERE t.namespace = space AND t.workflow_id = f.workflow_id;
END
$$;

-- The held turns that start next, with their sessions: of the user that would have the fewest running turns first, then in
-- the order of the stream.
CREATE FUNCTION throughline_next_held(space text, owners text[], each bigint, everyone bigint, most bigint)
RETURNS TABLE (workflow_id text, session_id text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.workflow_id, c.session_id
    FROM (
        SELECT b.*, row_number() OVER (ORDER BY b.of_user, b.input_sequence, b.workflow_id) AS place
        FROM (
            SELECT h.workflow_id, h.session_id, h.input_sequence, u.running
                + row_number() OVER (PARTITION BY u.id ORDER BY h.input_sequence, h.workflow_id) AS of_user
            FROM (
                SELECT o.id, (
                    SELECT count(*) FROM turns AS r
                    WHERE r.namespace = space AND r.user_id = o.id AND r.state = 'running') AS running
                FROM unnest(owners) AS o(id)) AS u
            CROSS JOIN LATERAL (
                SELECT l.workflow_id, l.session_id, l.input_sequence FROM turns AS l
                WHERE l.namespace = space AND l.user_id = u.id AND l.is_held AND l.state = 'waiting'
                    AND NOT EXISTS (
                        SELECT FROM turns AS r
                        WHERE r.namespace = space AND r.session_id = l.session_id AND r.state = 'running')
                    AND NOT EXISTS (
                        SELECT FROM turns AS w
                        WHERE w.namespace = space AND w.session_id = l.session_id AND w.state = 'waiting'
                            AND (w.input_sequence, w.workflow_id) < (l.input_sequence, l.workflow_id))
                ORDER BY l.input_sequence, l.workflow_id
                LIMIT most) AS h) AS b) AS c
    WHERE each IS NULL OR c.of_user <= each
        OR c.place <= everyone - (SELECT count(*) FROM turns AS r WHERE r.namespace = space AND r.state = 'running')
    ORDER BY c.place
    LIMIT most;
END
$$;

-- Starts held turns of users behind the user `behind`. The last row says whether turns are left that are held, and behind
-- which user to ask again, if there are further ones; the others what the turns begin with that were started.
--
-- Whoever starts holds the locks of the sessions, in the order in which everybody takes them (0004), and looks once more
-- under the locks: others may have started, ended or admitted turns meanwhile. Two that start turns of one user at once may
-- bring it over its share by as many as one of them starts, which lasts until as many have ended.
CREATE FUNCTION throughline_start_held(
    space text, behind text, at timestamptz, each bigint, everyone bigint, most bigint, most_users bigint)
RETURNS TABLE (opening bytea, merged bytea[], more boolean, last_user text)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    session_locks CONSTANT integer := 1952997996;
    lock_of_all CONSTANT integer := 1952997997;
    -- As in throughline_apply_4.
    most_locks CONSTANT integer := 48;
    owners text[] := '{}';
    next_owner text := behind;
    at_once bigint := least(most, most_locks);
    chosen text[];
    touched text[];
    started text[];
BEGIN
    WHILE cardinality(owners) < most_users LOOP
        SELECT h.user_id INTO next_owner FROM turns AS h
        WHERE h.namespace = space AND h.is_held AND h.state = 'waiting' AND h.user_id > next_owner
        ORDER BY h.user_id
        LIMIT 1;
        EXIT WHEN NOT FOUND;
        owners := owners || next_owner;
    END LOOP;
    IF cardinality(owners) > 0 THEN
        SELECT array_agg(n.workflow_id), array_agg(n.session_id) INTO chosen, touched
        FROM throughline_next_held(space, owners, each, everyone, at_once) AS n;
    END IF;
    IF cardinality(chosen) > 0 THEN
        PERFORM pg_advisory_xact_lock_shared(lock_of_all, hashtext(space));
        PERFORM pg_advisory_xact_lock(session_locks, k.hash)
        FROM (SELECT DISTINCT hashtext(space || '/' || s) AS hash FROM unnest(touched) AS s ORDER BY 1) AS k;
        WITH ran AS (
            UPDATE turns AS t SET state = 'running', updated_at = at
            FROM unnest(chosen) AS c(id)
            WHERE t.namespace = space AND t.workflow_id = c.id AND t.is_held AND t.state = 'waiting'
                AND NOT EXISTS (
                    SELECT FROM turns AS r
                    WHERE r.namespace = space AND r.session_id = t.session_id AND r.state = 'running')
                AND NOT EXISTS (
                    SELECT FROM turns AS w
                    WHERE w.namespace = space AND w.session_id = t.session_id AND w.state = 'waiting'
                        AND (w.input_sequence, w.workflow_id) < (t.input_sequence, t.workflow_id))
            RETURNING t.workflow_id
        )
        SELECT array_agg(r.workflow_id) INTO started FROM ran AS r;
    END IF;

    RETURN QUERY
    SELECT
        t.event,
        ARRAY (
            SELECT m.event FROM turns AS m
            WHERE m.namespace = space AND m.superseded_by = t.workflow_id AND m.failure = 'merged' AND m.event IS NOT NULL
            ORDER BY m.input_sequence),
        FALSE, NULL::text
    FROM unnest(started) AS s(id) JOIN turns AS t ON t.namespace = space AND t.workflow_id = s.id
    WHERE t.event IS NOT NULL;
    RETURN QUERY
    SELECT
        NULL::bytea, NULL::bytea[],
        EXISTS (SELECT FROM turns AS h WHERE h.namespace = space AND h.is_held AND h.state = 'waiting'),
        CASE WHEN cardinality(owners) >= most_users THEN owners[cardinality(owners)] END;
END
$$;

-- As throughline_apply_3 (0007; the comments of 0004 hold), which workers of the version before go on calling. `each` and
-- `everyone` are the share of a user, and most_open how many turns of a user may be open, or 0.
CREATE FUNCTION throughline_apply_4(
    space text, saved json, ids text[], sessions text[], users text[], sequences bigint[], asks text[], rounds integer[],
    strict boolean[], events bytea[], prints bytea[], codes text[], records bytea[], instants timestamptz[], latest timestamptz,
    merge_limit bigint, each bigint, everyone bigint, most_open bigint)
RETURNS TABLE (
    question bigint, state text, input_sequence bigint, failure text, superseded_by text,
    opening bytea, merged bytea[], interrupted bytea, session_id text, user_id text, fingerprint bytea, failure_code text, is_held boolean)
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
    touched text[] := throughline_sessions_2(space, ids, sessions);
    -- Endings of turns that nobody admitted.
    unknown boolean := EXISTS (
        SELECT FROM unnest(ids, asks) AS q(id, ask)
        WHERE q.ask IN ('save', 'fail') AND NOT EXISTS (
            SELECT FROM turns AS t WHERE t.namespace = space AND t.workflow_id = q.id));
    last_round integer := coalesce((SELECT max(r) FROM unnest(rounds) AS r), 0);
    ended text[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'throughline_apply_4 needs READ COMMITTED' USING ERRCODE = 'feature_not_supported';
    END IF;

    IF cardinality(touched) > most_locks OR last_round > 0 OR unknown AND asks && '{enqueue,reject,interrupt,merge,refused}' THEN
        PERFORM pg_advisory_xact_lock(lock_of_all, hashtext(space));
        touched := throughline_sessions_2(space, ids, sessions);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(lock_of_all, hashtext(space));
        PERFORM pg_advisory_xact_lock(session_locks, k.hash)
        FROM (SELECT DISTINCT hashtext(space || '/' || h) AS hash FROM unnest(touched) AS h ORDER BY 1) AS k;
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
            WHERE q.ask IN ('save', 'fail') AND t.session_id <> ALL (touched))
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
        -- The place of a turn that ended is free for the next one of its session.
        PERFORM throughline_start_3(space, touched, latest, throughline_least(), NULL);
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
                    AND NOT (q.only_owner AND throughline_owner(space, q.session) IS DISTINCT FROM q.owner)
                    -- Nor does one interrupt whose user would still have too many open turns.
                    AND NOT (most_open > 0 AND most_open <= (
                        SELECT count(*) FROM (
                            SELECT FROM turns AS o
                            WHERE o.namespace = space AND o.user_id = q.owner AND o.state IN ('waiting', 'running')
                                AND o.workflow_id <> t.workflow_id
                            LIMIT most_open) AS open));
            END IF;

            -- The first message with a workflow id wins. One that becomes part of a turn does so of the last that waits.
            -- Who is first in a session without an open turn runs at once, or is held if its user has its share.
            INSERT INTO turns (
                namespace, workflow_id, session_id, user_id, input_sequence, state, is_held, failure, superseded_by, merges,
                event, fingerprint, created_at, updated_at, failure_code, failure_record)
            SELECT
                space, n.id, n.session, n.owner, n.sequence,
                CASE
                    WHEN n.ask = 'refused' OR n.failure IS NOT NULL THEN 'failed'
                    WHEN n.starts THEN 'running'
                    ELSE 'waiting'
                END,
                n.is_first AND NOT n.starts,
                n.failure, CASE n.failure WHEN 'merged' THEN n.last_waiting END, n.ask = 'merge',
                CASE WHEN n.ask <> 'refused' AND n.failure IS DISTINCT FROM 'rejected' THEN n.event END,
                n.print, n.at, CASE WHEN n.starts THEN latest ELSE n.at END,
                CASE n.failure
                    WHEN 'rejected' THEN CASE
                        WHEN n.is_stranger THEN 'not_session_owner'
                        WHEN n.is_full THEN 'too_many_open'
                        ELSE 'session_busy'
                    END
                    WHEN 'merged' THEN 'merged'
                    ELSE n.code
                END,
                n.record
            FROM (
                SELECT f.*, f.is_first AND CASE
                        WHEN each IS NULL THEN TRUE
                        WHEN each >= (
                            SELECT count(*) FROM (
                                SELECT FROM turns AS r
                                WHERE r.namespace = space AND r.user_id = f.owner AND r.state = 'running'
                                LIMIT each) AS own)
                            + row_number() OVER (PARTITION BY f.owner, f.is_first ORDER BY f.sequence, f.id COLLATE "C")
                            THEN TRUE
                        WHEN EXISTS (
                            SELECT FROM turns AS h WHERE h.namespace = space AND h.is_held AND h.state = 'waiting') THEN FALSE
                        ELSE everyone >= (
                            SELECT count(*) FROM (
                                SELECT FROM turns AS r WHERE r.namespace = space AND r.state = 'running'
                                LIMIT everyone) AS others)
                            + row_number() OVER (PARTITION BY f.is_first ORDER BY f.sequence, f.id COLLATE "C")
                    END AS starts
                FROM (SELECT g.*, g.ask <> 'refused' AND g.failure IS NULL AND g.place = 1 AND NOT g.busy AS is_first
                FROM (SELECT p.*, CASE WHEN p.is_full THEN 'rejected' ELSE p.refusal END AS failure
                FROM (SELECT v.*, most_open > 0 AND v.takes_a_place AND most_open < row_number() OVER (
                            PARTITION BY v.owner, v.takes_a_place ORDER BY v.sequence, v.id COLLATE "C")
                        + CASE WHEN most_open > 0 AND v.takes_a_place THEN (
                            SELECT count(*) FROM (
                                SELECT FROM turns AS o
                                WHERE o.namespace = space AND o.user_id = v.owner AND o.state IN ('waiting', 'running')
                                LIMIT most_open) AS open) ELSE 0 END AS is_full
                FROM (SELECT
                    m.*, CASE WHEN m.is_stranger THEN 'rejected' ELSE m.busy_failure END AS refusal,
                    m.ask <> 'refused' AND m.is_stranger IS NOT TRUE AND m.busy_failure IS NULL AS takes_a_place
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
                ) AS o ON TRUE) AS m) AS v) AS p) AS g) AS f
            ) AS n
            ORDER BY n.id COLLATE "C"
            ON CONFLICT (namespace, workflow_id) DO NOTHING;

            -- An interruption left the session without a turn that runs, or whoever was to run was known already.
            PERFORM throughline_start_3(space, touched, latest, each, everyone);
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
        t.session_id, t.user_id, t.fingerprint, t.failure_code, t.is_held
    FROM unnest(ids, asks) WITH ORDINALITY AS q(id, ask, n)
    JOIN turns AS t ON t.namespace = space AND t.workflow_id = q.id
    LEFT JOIN turns AS r ON r.namespace = space AND r.session_id = t.session_id AND r.state = 'running'
        AND q.ask IN ('save', 'fail', 'interrupt', 'merge')
    ORDER BY q.n;
END
$$;
