-- The smallest input sequence of the open turns of namespace $1.
SELECT min(input_sequence) FROM turns WHERE namespace = $1 AND state IN ('waiting', 'running')
