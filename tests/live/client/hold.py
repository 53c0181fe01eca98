"""Holds the write lock of a SQLite database until stdin ends: hold.py DATABASE. Says `held` once it has it."""

import sqlite3
import sys

database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
