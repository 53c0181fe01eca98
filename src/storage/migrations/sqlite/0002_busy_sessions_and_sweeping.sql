-- What an open turn began with is kept of every turn, not only of those that had to wait. Turns that failed on
-- admission, because their session was busy, say why.

ALTER TABLE turns ADD COLUMN merges INTEGER NOT NULL DEFAULT 0;     -- 1: takes in messages that come while it waits
ALTER TABLE turns ADD COLUMN failure TEXT CHECK (failure IN ('rejected', 'interrupted', 'merged'));
ALTER TABLE turns ADD COLUMN superseded_by TEXT;                    -- workflow that interrupted it, or that carries its text

CREATE INDEX turns_superseded ON turns (superseded_by, failure, input_sequence) WHERE superseded_by IS NOT NULL;
-- For the sweeper. A turn that runs was last updated when it started.
CREATE INDEX turns_started ON turns (updated_at, workflow_id) WHERE state = 'running';
