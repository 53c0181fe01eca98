-- Which turn of a session ended last before another: whoever begins that one looks whether the end has been told.
CREATE INDEX turns_ended ON turns (session_id, input_sequence) WHERE state IN ('saved', 'failed') AND failure IS NULL;
