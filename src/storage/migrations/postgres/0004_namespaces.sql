-- Several namespaces may share a database and have nothing in common: every key begins with the namespace. Rows of an
-- earlier version have '' for one until a namespace opens the database, which adopts them.

ALTER TABLE turns
    ADD COLUMN namespace TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN fingerprint BYTEA,           -- what its message says; NULL: not known
    ADD COLUMN failure_code TEXT,           -- of a turn that failed; NULL: an earlier version did not keep it
    ADD COLUMN failure_record BYTEA,        -- its workflow_failed as JSON, without attempts, at most 4096 bytes
    DROP CONSTRAINT turns_pkey,
    ADD CONSTRAINT turns_pkey PRIMARY KEY (namespace, workflow_id);
ALTER TABLE turns ALTER COLUMN namespace DROP DEFAULT;
UPDATE turns SET failure_code = CASE failure WHEN 'rejected' THEN 'session_busy' ELSE failure END
WHERE failure IS NOT NULL;

DROP INDEX turns_running, turns_waiting, turns_superseded, turns_started, turns_ended;
-- The fence itself: a session has at most one running turn, whatever the code above it believes.
CREATE UNIQUE INDEX turns_running ON turns (namespace, session_id) WHERE state = 'running';
CREATE INDEX turns_waiting ON turns (namespace, session_id, input_sequence, workflow_id) WHERE state = 'waiting';
CREATE INDEX turns_superseded ON turns (namespace, superseded_by, failure, input_sequence)
    WHERE superseded_by IS NOT NULL;
-- For the sweeper.
CREATE INDEX turns_started ON turns (namespace, updated_at, workflow_id) WHERE state = 'running';
-- Which turn of a session ended last before another.
CREATE INDEX turns_ended ON turns (namespace, session_id, input_sequence)
    WHERE state IN ('saved', 'failed') AND failure IS NULL;
-- What of the log is still needed.
CREATE INDEX turns_open ON turns (namespace, input_sequence) WHERE state IN ('waiting', 'running');
-- What is forgotten first.
CREATE INDEX turns_over ON turns (namespace, updated_at, workflow_id) WHERE state IN ('saved', 'failed');
-- Lists, the newest first.
CREATE INDEX turns_by_state ON turns (namespace, state, created_at, workflow_id);
CREATE INDEX turns_by_user ON turns (namespace, user_id, state, created_at, workflow_id);
CREATE INDEX turns_by_session ON turns (namespace, session_id, state, created_at, workflow_id);

ALTER TABLE interactions
    ADD COLUMN namespace TEXT COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN more JSON,                   -- an object: what the answer has beyond the columns; NULL: nothing
    DROP CONSTRAINT interactions_pkey,
    DROP CONSTRAINT interactions_interaction_id_key,
    ADD CONSTRAINT interactions_pkey PRIMARY KEY (namespace, workflow_id),
    ADD CONSTRAINT interactions_interaction_id_key UNIQUE (namespace, interaction_id);
ALTER TABLE interactions ALTER COLUMN namespace DROP DEFAULT;
DROP INDEX interactions_by_session;
CREATE INDEX interactions_by_session ON interactions (namespace, session_id, user_id, input_sequence DESC);

ALTER TABLE preferences
    ADD COLUMN namespace TEXT COLLATE "C" NOT NULL DEFAULT '',
    DROP CONSTRAINT preferences_pkey,
    ADD CONSTRAINT preferences_pkey PRIMARY KEY (namespace, user_id, name);
ALTER TABLE preferences ALTER COLUMN namespace DROP DEFAULT;

-- Workers of the earlier version that still run know no namespaces and must not write without one. They are told that
-- the database is busy, which they wait out with their messages in hand, until they are stopped.
CREATE OR REPLACE FUNCTION throughline_apply(
    saved json, ids text[], sessions text[], users text[], sequences bigint[], asks text[], rounds integer[],
    events bytea[], instants timestamptz[], latest timestamptz, merge_limit bigint)
RETURNS TABLE (
    question bigint, state text, input_sequence bigint, failure text, superseded_by text,
    opening bytea, merged bytea[], interrupted bytea)
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE 'the tables are of a later version of Throughline; stop this worker and start one of that version'
        USING ERRCODE = 'lock_not_available';
END
$$;

CREATE OR REPLACE FUNCTION throughline_context(users text[], sessions text[], most bigint)
RETURNS TABLE (
    question bigint, workflow_id text, name text, value text, input text, response text, created_at timestamptz,
    input_sequence bigint)
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RAISE 'the tables are of a later version of Throughline; stop this worker and start one of that version'
        USING ERRCODE = 'lock_not_available';
END
$$;

DROP FUNCTION throughline_sessions, throughline_start;

-- Applies a batch of operations as the one statement of its transaction: one round trip, one commit. All of it is about
-- one namespace.
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
CREATE FUNCTION throughline_apply_2(
    space text, saved json, ids text[], sessions text[], users text[], sequences bigint[], asks text[], rounds integer[],
    events bytea[], prints bytea[], codes text[], records bytea[], instants timestamptz[], latest timestamptz,
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
        RAISE 'throughline_apply_2 needs READ COMMITTED' USING ERRCODE = 'feature_not_supported';
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
                FROM unnest(ids, sessions, sequences, asks, rounds) AS q(id, session, sequence, ask, round)
                WHERE q.ask = 'interrupt' AND q.round = this
                    AND t.namespace = space AND t.session_id = q.session AND t.state = 'running'
                    AND t.input_sequence < q.sequence
                    AND NOT EXISTS (SELECT FROM turns AS k WHERE k.namespace = space AND k.workflow_id = q.id);
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
                CASE n.failure WHEN 'rejected' THEN 'session_busy' WHEN 'merged' THEN 'merged' ELSE n.code END, n.record
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
                                WHERE m.namespace = space AND m.superseded_by = w.workflow_id AND m.failure = 'merged')
                            THEN 'merged'
                    END AS failure
                FROM (
                    SELECT DISTINCT ON (r.id COLLATE "C") r.*
                    FROM unnest(
                        ids, sessions, users, sequences, asks, rounds, events, prints, codes, records, instants)
                        WITH ORDINALITY
                        AS r(id, session, owner, sequence, ask, round, event, print, code, record, at, n)
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
                ) AS w ON TRUE
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

-- The sessions that requests name, and those of the turns that they are about.
CREATE FUNCTION throughline_sessions_2(space text, ids text[], sessions text[]) RETURNS text[]
LANGUAGE plpgsql
AS $$
BEGIN
    RETURN ARRAY (
        SELECT unnest(sessions)
        UNION
        SELECT t.session_id
        FROM unnest(ids) AS q(id) JOIN turns AS t ON t.namespace = space AND t.workflow_id = q.id);
END
$$;

-- Every one of these sessions in which no turn runs starts its first waiting one.
CREATE FUNCTION throughline_start_2(space text, sessions text[], at timestamptz) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE turns AS t SET state = 'running', updated_at = at
    FROM unnest(sessions) AS s(id) CROSS JOIN LATERAL (
        SELECT w.workflow_id FROM turns AS w
        WHERE w.namespace = space AND w.session_id = s.id AND w.state = 'waiting'
        ORDER BY w.input_sequence, w.workflow_id
        LIMIT 1
    ) AS w
    WHERE t.namespace = space AND t.workflow_id = w.workflow_id
        AND NOT EXISTS (
            SELECT FROM turns AS r WHERE r.namespace = space AND r.session_id = s.id AND r.state = 'running');
END
$$;

-- What is known about several (user, session) pairs; at most `most` of the latest turns of each, in no order.
CREATE FUNCTION throughline_context_2(space text, users text[], sessions text[], most bigint)
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
    FROM unnest(users) WITH ORDINALITY AS q(id, n) JOIN preferences AS p ON p.namespace = space AND p.user_id = q.id
    UNION ALL
    SELECT q.n, i.workflow_id, NULL, NULL, i.input, i.response, i.created_at, i.input_sequence
    FROM unnest(users, sessions) WITH ORDINALITY AS q(id, session, n) CROSS JOIN LATERAL (
        SELECT l.* FROM interactions AS l
        WHERE l.namespace = space AND l.session_id = q.session AND l.user_id = q.id
        ORDER BY l.input_sequence DESC
        LIMIT most
    ) AS i;
END
$$;

-- Records an end as it was told, whatever is on record: 'saved' with the interaction `saved`, or 'failed'. Says what the
-- session's running turn began with, if one runs.
CREATE FUNCTION throughline_restore(
    space text, saved json, id text, session text, owner text, sequence bigint, ending text, at timestamptz, why text,
    by text, code text, record bytea)
RETURNS TABLE (opening bytea, merged bytea[])
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    session_locks CONSTANT integer := 1952997996;
    lock_of_all CONSTANT integer := 1952997997;
    held text[] := throughline_sessions_2(space, ARRAY[id], ARRAY[session]);
BEGIN
    PERFORM pg_advisory_xact_lock_shared(lock_of_all, hashtext(space));
    PERFORM pg_advisory_xact_lock(session_locks, k.hash)
    FROM (SELECT DISTINCT hashtext(space || '/' || h) AS hash FROM unnest(held) AS h ORDER BY 1) AS k;

    DELETE FROM interactions AS i WHERE i.namespace = space AND i.workflow_id = id;
    IF ending = 'saved' THEN
        INSERT INTO interactions SELECT q.* FROM json_populate_record(NULL::interactions, saved) AS q;
    END IF;

    INSERT INTO turns AS t (
        namespace, workflow_id, session_id, user_id, input_sequence, state, created_at, updated_at, failure,
        superseded_by, failure_code, failure_record)
    VALUES (space, id, session, owner, sequence, ending, at, at, why, by, code, record)
    ON CONFLICT (namespace, workflow_id) DO UPDATE SET
        session_id = excluded.session_id, user_id = excluded.user_id, input_sequence = excluded.input_sequence,
        state = excluded.state, updated_at = excluded.updated_at, merges = FALSE, failure = excluded.failure,
        superseded_by = excluded.superseded_by, failure_code = excluded.failure_code,
        failure_record = excluded.failure_record,
        -- The turn that it is part of may still have to begin.
        event = CASE WHEN t.failure = excluded.failure AND t.superseded_by = excluded.superseded_by THEN t.event END,
        fingerprint = CASE WHEN t.input_sequence = excluded.input_sequence THEN t.fingerprint END
    -- While we waited for its key, it was admitted into a session whose lock we do not hold.
    WHERE t.session_id = ANY (held);
    IF NOT FOUND THEN
        RAISE 'a workflow was admitted into another session' USING ERRCODE = 'serialization_failure';
    END IF;
    UPDATE turns AS t SET event = NULL
    WHERE t.namespace = space AND t.superseded_by = id AND t.failure = 'merged' AND t.event IS NOT NULL;
    PERFORM throughline_start_2(space, held, at);

    RETURN QUERY
    SELECT r.event, ARRAY (
        SELECT m.event FROM turns AS m
        WHERE m.namespace = space AND m.superseded_by = r.workflow_id AND m.failure = 'merged' AND m.event IS NOT NULL
        ORDER BY m.input_sequence)
    FROM turns AS r
    WHERE r.namespace = space AND r.session_id = session AND r.state = 'running' AND r.event IS NOT NULL;
END
$$;

-- Forgets turns that ended before an instant, and their interactions: the oldest ones, at most `most`. What an open turn
-- was made from is still needed. Waits for nobody: what somebody else holds is forgotten another time.
CREATE FUNCTION throughline_forget(space text, before timestamptz, most bigint) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    old text[] := ARRAY (
        SELECT t.workflow_id FROM turns AS t
        WHERE t.namespace = space AND t.state IN ('saved', 'failed') AND t.updated_at < before
            AND NOT EXISTS (
                SELECT FROM turns AS o
                WHERE o.namespace = space AND o.workflow_id = t.superseded_by AND o.state IN ('waiting', 'running'))
        ORDER BY t.updated_at, t.workflow_id
        LIMIT most
        FOR UPDATE OF t SKIP LOCKED);
BEGIN
    DELETE FROM interactions AS i USING unnest(old) AS o(id) WHERE i.namespace = space AND i.workflow_id = o.id;
    DELETE FROM turns AS t USING unnest(old) AS o(id) WHERE t.namespace = space AND t.workflow_id = o.id;
    RETURN cardinality(old);
END
$$;

-- Turns, the newest first: those of one workflow, or of these states. Each state is read to the limit by its index, and
-- what all have is put in order.
CREATE FUNCTION throughline_list(
    space text, workflow text, states text[], owner text, session text, after_at timestamptz, after_id text, most bigint)
RETURNS TABLE (
    workflow_id text, session_id text, user_id text, input_sequence bigint, state text, waits_for text,
    failure_code text, superseded_by text, created_at timestamptz, updated_at timestamptz, cost_usd text)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    ids text[];
BEGIN
    IF workflow IS NOT NULL THEN
        ids := ARRAY[workflow];
    ELSIF session IS NOT NULL THEN
        ids := ARRAY (
            SELECT l.workflow_id FROM unnest(states) AS s(name) CROSS JOIN LATERAL (
                SELECT t.workflow_id, t.created_at FROM turns AS t
                WHERE t.namespace = space AND t.session_id = session AND t.state = s.name
                    AND (owner IS NULL OR t.user_id = owner)
                    AND (t.created_at, t.workflow_id) < (after_at, after_id)
                ORDER BY t.created_at DESC, t.workflow_id DESC LIMIT most
            ) AS l ORDER BY l.created_at DESC, l.workflow_id DESC LIMIT most);
    ELSIF owner IS NOT NULL THEN
        ids := ARRAY (
            SELECT l.workflow_id FROM unnest(states) AS s(name) CROSS JOIN LATERAL (
                SELECT t.workflow_id, t.created_at FROM turns AS t
                WHERE t.namespace = space AND t.user_id = owner AND t.state = s.name
                    AND (t.created_at, t.workflow_id) < (after_at, after_id)
                ORDER BY t.created_at DESC, t.workflow_id DESC LIMIT most
            ) AS l ORDER BY l.created_at DESC, l.workflow_id DESC LIMIT most);
    ELSE
        ids := ARRAY (
            SELECT l.workflow_id FROM unnest(states) AS s(name) CROSS JOIN LATERAL (
                SELECT t.workflow_id, t.created_at FROM turns AS t
                WHERE t.namespace = space AND t.state = s.name
                    AND (t.created_at, t.workflow_id) < (after_at, after_id)
                ORDER BY t.created_at DESC, t.workflow_id DESC LIMIT most
            ) AS l ORDER BY l.created_at DESC, l.workflow_id DESC LIMIT most);
    END IF;
    RETURN QUERY
    SELECT
        t.workflow_id, t.session_id, t.user_id, t.input_sequence, t.state,
        (SELECT r.workflow_id FROM turns AS r
            WHERE t.state = 'waiting' AND r.namespace = space AND r.session_id = t.session_id AND r.state = 'running'),
        t.failure_code, t.superseded_by, t.created_at, t.updated_at,
        (SELECT i.cost_usd::text FROM interactions AS i
            WHERE t.state = 'saved' AND i.namespace = space AND i.workflow_id = t.workflow_id)
    FROM unnest(ids) WITH ORDINALITY AS q(id, n) JOIN turns AS t ON t.namespace = space AND t.workflow_id = q.id
    ORDER BY q.n;
END
$$;

-- How many turns are open, and when the oldest was admitted.
CREATE FUNCTION throughline_open(space text)
RETURNS TABLE (state text, open bigint, oldest timestamptz)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT s.name, count(*), min(t.created_at)
    FROM unnest('{waiting,running}'::text[]) AS s(name) JOIN turns AS t ON t.namespace = space AND t.state = s.name
    GROUP BY s.name;
END
$$;

-- The smallest input sequence of all open turns.
CREATE FUNCTION throughline_oldest_open(space text) RETURNS bigint
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET jit = off
AS $$
BEGIN
    RETURN (
        SELECT t.input_sequence FROM turns AS t
        WHERE t.namespace = space AND t.state IN ('waiting', 'running')
        ORDER BY t.input_sequence LIMIT 1);
END
$$;
