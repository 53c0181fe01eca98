-- Ids and names are compared byte by byte (COLLATE "C"). PostgreSQL keeps no NUL character: texts that people or
-- models wrote have U+001A 0 for one and U+001A U+001A for U+001A itself, in JSON as in plain text.

-- One row for each workflow that reached its end with an answer.
CREATE TABLE interactions (
    workflow_id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    interaction_id      TEXT COLLATE "C" NOT NULL UNIQUE,
    user_id             TEXT COLLATE "C" NOT NULL,
    session_id          TEXT COLLATE "C" NOT NULL,
    input               TEXT        NOT NULL,
    response            TEXT        NOT NULL,
    provider            TEXT        NOT NULL,
    model               TEXT        NOT NULL,
    finish_reason       TEXT        NOT NULL,
    input_tokens        BIGINT      NOT NULL,
    cached_input_tokens BIGINT      NOT NULL,
    output_tokens       BIGINT      NOT NULL,
    reasoning_tokens    BIGINT      NOT NULL,
    cost_usd            NUMERIC,                -- NULL: no price is configured
    metadata            JSON        NOT NULL,   -- an object
    input_sequence      BIGINT      NOT NULL,
    received_at         TIMESTAMPTZ NOT NULL,
    generated_at        TIMESTAMPTZ NOT NULL,
    created_at          TIMESTAMPTZ NOT NULL,
    total_ms            BIGINT      NOT NULL    -- from received_at to created_at
);

CREATE INDEX interactions_by_session ON interactions (session_id, user_id, input_sequence DESC);

-- One row for each workflow that was ever admitted, ended or not: what makes a workflow id run once.
CREATE TABLE turns (
    workflow_id    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    session_id     TEXT COLLATE "C" NOT NULL,
    user_id        TEXT COLLATE "C",            -- NULL: it failed before it was admitted
    input_sequence BIGINT,                      -- NULL: as above
    state          TEXT        NOT NULL CHECK (state IN ('waiting', 'running', 'saved', 'failed')),
    event          BYTEA,                       -- encoded input_validated of an open turn that had to wait
    created_at     TIMESTAMPTZ NOT NULL,
    updated_at     TIMESTAMPTZ NOT NULL
);

-- The fence itself: a session has at most one running turn, whatever the code above it believes.
CREATE UNIQUE INDEX turns_running ON turns (session_id) WHERE state = 'running';
CREATE INDEX turns_waiting ON turns (session_id, input_sequence, workflow_id) WHERE state = 'waiting';

CREATE TABLE preferences (
    user_id    TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    value      JSON        NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (user_id, name)
);

-- Applies a batch of operations as the one statement of its transaction: one round trip, one commit.
--
-- Request n (of ids[n], sessions[n], ...) ends a turn or admits one; its answer is the row with question = n.
-- `states` are 'saved' or 'failed' for endings, and for admissions 'waiting' or, when the input was refused,
-- 'failed'. `saved` are the interactions of the batch, as JSON objects that are rows of the table.
--
-- Many processes call this at once. A session's turns are touched only under the session's lock, which is held until
-- the commit. Locks are taken in one order everywhere: sessions by their hash, keys of `interactions` by workflow,
-- keys of `turns` by workflow; so nobody waits in a circle. Under READ COMMITTED each statement below sees all that
-- was committed before it began, so also what the holder of a lock before us did.
CREATE FUNCTION throughline_apply(
    saved json, ids text[], sessions text[], users text[], sequences bigint[], states text[], endings boolean[],
    instants timestamptz[], events bytea[], latest timestamptz)
RETURNS TABLE (question bigint, state text, input_sequence bigint, next bytea)
LANGUAGE plpgsql
-- Every table is reached by an index, whatever the statistics say of a table that was empty a minute ago.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    sessions_class CONSTANT integer := 1952997996;
    everything_class CONSTANT integer := 1952997997;
    -- PostgreSQL has room for 64 locks a connection (max_locks_per_transaction); whoever needs more takes one for all.
    most_locks CONSTANT integer := 48;
    locks integer[];
    fresh text[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'throughline_apply needs READ COMMITTED' USING ERRCODE = 'feature_not_supported';
    END IF;

    -- A workflow that is known may belong to another session than the one named here.
    SELECT array_agg(DISTINCT hashtext(s.session_id) ORDER BY hashtext(s.session_id)) INTO locks
    FROM (
        SELECT unnest(sessions)
        UNION ALL
        SELECT t.session_id FROM unnest(ids) AS q(id) JOIN turns AS t ON t.workflow_id = q.id
    ) AS s(session_id);
    IF cardinality(locks) > most_locks THEN
        PERFORM pg_advisory_xact_lock(everything_class, 0);
    ELSE
        PERFORM pg_advisory_xact_lock_shared(everything_class, 0);
        PERFORM pg_advisory_xact_lock(sessions_class, l.session) FROM unnest(locks) AS l(session);
    END IF;

    -- A workflow that has ended is not stored again: not one that failed, nor one whose row was since deleted.
    INSERT INTO interactions
    SELECT (json_populate_record(NULL::interactions, q.value)).*
    FROM json_array_elements(saved) AS q
    WHERE NOT EXISTS (
        SELECT FROM turns AS t WHERE t.workflow_id = q.value ->> 'workflow_id' AND t.state IN ('saved', 'failed'))
    ORDER BY q.value ->> 'workflow_id' COLLATE "C"
    ON CONFLICT (workflow_id) DO NOTHING;

    -- The first message with a workflow id wins; a turn nobody admitted is created ended, so that it can never run.
    -- Should several requests of the batch name one workflow, an answer comes before a failure, and an ending before
    -- an admission. Whoever is first in a session without an open turn runs at once.
    WITH first AS (
        SELECT DISTINCT ON (q.id COLLATE "C") q.*
        FROM unnest(ids, sessions, users, sequences, states, endings, instants, events) WITH ORDINALITY
            AS q(id, session, owner, sequence, state, ending, at, event, n)
        ORDER BY q.id COLLATE "C", q.ending DESC, q.state = 'saved' DESC, q.n
    ), placed AS (
        SELECT f.*, f.state = 'waiting'
            AND row_number() OVER (PARTITION BY f.session, f.state ORDER BY f.sequence, f.id COLLATE "C") = 1
            AND NOT EXISTS (
                SELECT FROM turns AS t WHERE t.session_id = f.session AND t.state = 'running')
            AND NOT EXISTS (
                SELECT FROM turns AS t WHERE t.session_id = f.session AND t.state = 'waiting') AS runs
        FROM first AS f
    ), opened AS (
        INSERT INTO turns (workflow_id, session_id, user_id, input_sequence, state, event, created_at, updated_at)
        SELECT
            p.id, p.session, p.owner, p.sequence, CASE WHEN p.runs THEN 'running' ELSE p.state END,
            CASE WHEN p.state = 'waiting' AND NOT p.runs THEN p.event END, p.at, p.at
        FROM placed AS p
        ORDER BY p.id COLLATE "C"
        ON CONFLICT (workflow_id) DO NOTHING
        RETURNING workflow_id
    )
    SELECT array_agg(o.workflow_id) INTO fresh FROM opened AS o;

    -- While we waited for its key, somebody admitted one of our workflows into a session whose lock we do not hold.
    IF cardinality(locks) <= most_locks AND EXISTS (
        SELECT FROM unnest(ids) AS q(id) JOIN turns AS t ON t.workflow_id = q.id
        WHERE hashtext(t.session_id) <> ALL (locks))
    THEN
        RAISE 'a workflow was admitted into another session' USING ERRCODE = 'serialization_failure';
    END IF;

    -- The first ending wins.
    UPDATE turns AS t
    SET state = e.state, event = NULL, updated_at = e.at
    FROM (
        SELECT DISTINCT ON (q.id COLLATE "C") q.id, q.state, q.at
        FROM unnest(ids, states, endings, instants) AS q(id, state, ending, at)
        WHERE q.ending
        ORDER BY q.id COLLATE "C", q.state = 'saved' DESC
    ) AS e
    WHERE t.workflow_id = e.id AND t.state IN ('waiting', 'running');

    -- Every session of the batch in which no turn runs now starts its first waiting one. One that runs at once never
    -- has an event, which is how an ending knows whether there is anything to publish.
    UPDATE turns AS t
    SET state = 'running', updated_at = latest,
        event = CASE WHEN t.workflow_id = ANY (fresh) THEN NULL ELSE t.event END
    FROM (
        SELECT DISTINCT k.session_id FROM unnest(ids) AS q(id) JOIN turns AS k ON k.workflow_id = q.id
    ) AS s CROSS JOIN LATERAL (
        SELECT w.workflow_id FROM turns AS w
        WHERE w.session_id = s.session_id AND w.state = 'waiting'
        ORDER BY w.input_sequence, w.workflow_id
        LIMIT 1
    ) AS w
    WHERE t.workflow_id = w.workflow_id AND NOT EXISTS (
        SELECT FROM turns AS r WHERE r.session_id = s.session_id AND r.state = 'running');

    RETURN QUERY
    SELECT
        q.n, t.state, t.input_sequence,
        CASE WHEN q.ending THEN (
            SELECT r.event FROM turns AS r WHERE r.session_id = t.session_id AND r.state = 'running') END
    FROM unnest(ids, endings) WITH ORDINALITY AS q(id, ending, n) JOIN turns AS t ON t.workflow_id = q.id
    ORDER BY q.n;
END
$$;

-- What is known about several (user, session) pairs; at most `turns` of the latest turns of each, in no order.
CREATE FUNCTION throughline_context(users text[], sessions text[], turns bigint)
RETURNS TABLE (
    question bigint, workflow_id text, name text, input text, response text, created_at timestamptz,
    input_sequence bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT q.n, NULL, p.name, p.value::text, NULL, NULL::timestamptz, NULL::bigint
    FROM unnest(users) WITH ORDINALITY AS q(id, n) JOIN preferences AS p ON p.user_id = q.id
    UNION ALL
    SELECT q.n, i.workflow_id, NULL, i.input, i.response, i.created_at, i.input_sequence
    FROM unnest(users, sessions) WITH ORDINALITY AS q(id, session, n) CROSS JOIN LATERAL (
        SELECT l.* FROM interactions AS l
        WHERE l.session_id = q.session AND l.user_id = q.id
        ORDER BY l.input_sequence DESC
        LIMIT turns
    ) AS i;
END
$$;
