-- Namespaces whose rows went to another database: nobody uses those that are left here.
CREATE TABLE namespace_copies (
    namespace    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    copied_to    TEXT        NOT NULL,  -- where
    completed_at TIMESTAMPTZ            -- NULL: the copy is being made
);
