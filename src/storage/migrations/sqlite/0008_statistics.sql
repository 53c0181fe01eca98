-- What SQLite shall take the tables for when it chooses an index: a million turns and interactions of one namespace. Without this
-- it believes that a namespace has ten rows, as of any first column of an index, and reads all of them.
-- Nothing is counted here, however large the tables are: `namespaces` has a row for each namespace, and analysing one table
-- makes the table of statistics, where the others are written by hand (https://sqlite.org/lang_analyze.html).
ANALYZE namespaces;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('turns', 'turns', '1000000 1000000 1'),
    ('turns', 'turns_by_state', '1000000 1000000 250000 1 1'),
    ('turns', 'turns_by_user', '1000000 1000000 100 50 1 1'),
    ('turns', 'turns_by_session', '1000000 1000000 10 5 1 1'),
    ('turns', 'turns_over', '1000000 1000000 1 1'),
    ('turns', 'turns_ended', '1000000 1000000 10 1'),
    ('turns', 'turns_superseded', '10000 10000 2 2 1'),
    ('turns', 'turns_open', '10000 10000 1'),
    ('turns', 'turns_running', '1000 1000 1'),
    ('turns', 'turns_started', '1000 1000 1 1'),
    ('turns', 'turns_waiting', '10000 10000 10 1 1'),
    ('turns', 'turns_held', '1000 1000 10 1 1'),
    ('interactions', 'sqlite_autoindex_interactions_1', '1000000 1000000 1'),
    ('interactions', 'sqlite_autoindex_interactions_2', '1000000 1000000 1'),
    ('interactions', 'interactions_by_session', '1000000 1000000 10 10 1');
-- This connection takes them for true from now on; others read them when they are opened.
ANALYZE sqlite_schema;
