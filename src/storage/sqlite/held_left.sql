-- Whether a turn of namespace $1 is held.
SELECT EXISTS (SELECT 1 FROM turns AS h WHERE h.namespace = $1 AND h.is_held = 1 AND h.state = 'waiting')
