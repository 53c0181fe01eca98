-- A turn whose user has its share of running turns is held: it waits although its session is free. What this column says
-- of a turn that does not wait any more means nothing.
ALTER TABLE turns ADD COLUMN is_held INTEGER NOT NULL DEFAULT 0;

-- Which held turns start next, user by user.
CREATE INDEX turns_held ON turns (namespace, user_id, input_sequence, workflow_id) WHERE is_held = 1 AND state = 'waiting';

-- How many calls of models this worker can make at once; NULL: it is of an earlier version.
ALTER TABLE namespace_workers ADD COLUMN calls INTEGER;
