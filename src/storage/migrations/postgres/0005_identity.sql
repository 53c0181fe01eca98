-- Which database a namespace has: the same identity is in the namespace's bucket on the NATS server.
CREATE TABLE namespaces (
    namespace  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    identity   TEXT        NOT NULL,
    created_at TIMESTAMPTZ NOT NULL
);

-- Worker processes that use this database, and with which log. A row is a sign of life by this server's clock.
CREATE TABLE namespace_workers (
    namespace TEXT COLLATE "C" NOT NULL,
    worker    TEXT COLLATE "C" NOT NULL,
    log       TEXT        NOT NULL,
    seen_at   TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (namespace, worker)
);

-- How far the log is known to be in the tables: every end up to this place is on record.
CREATE TABLE namespace_marks (
    namespace    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    log_sequence BIGINT NOT NULL
);
