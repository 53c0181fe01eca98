-- Which database a namespace has: the same identity is in the namespace's bucket on the NATS server.
CREATE TABLE namespaces (
    namespace  TEXT NOT NULL PRIMARY KEY,
    identity   TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Worker processes that use this database, and with which log. A row is a sign of life by this machine's clock.
CREATE TABLE namespace_workers (
    namespace TEXT NOT NULL,
    worker    TEXT NOT NULL,
    log       TEXT NOT NULL,
    seen_at   TEXT NOT NULL,
    PRIMARY KEY (namespace, worker)
) STRICT, WITHOUT ROWID;

-- How far the log is known to be in the tables: every end up to this place is on record.
CREATE TABLE namespace_marks (
    namespace    TEXT    NOT NULL PRIMARY KEY,
    log_sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
