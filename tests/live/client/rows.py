"""Prints every row of `interactions` as a JSON array of objects: rows.py DATABASE"""

import json
import sqlite3
import sys

database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
database.row_factory = sqlite3.Row
rows = database.execute("SELECT * FROM interactions ORDER BY created_at, workflow_id")
json.dump([dict(row) for row in rows], sys.stdout)
