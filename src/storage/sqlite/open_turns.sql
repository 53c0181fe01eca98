-- How many turns of namespace $1 are open, and when the oldest was admitted.
SELECT q.value, count(*), min(t.created_at)
FROM jsonb_each('["waiting", "running"]') AS q CROSS JOIN turns AS t ON t.namespace = $1 AND t.state = q.value
GROUP BY q.value
