//! What a copy takes along: tables, columns, and rows that do not depend on the kind of database.

use rust_decimal::Decimal;
use throughline_schemas::Timestamp;

/// What a column holds, which each kind of database writes in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Kind {
    /// A text without NUL: an id, or a word of ours.
    Word,
    /// What people and models wrote: any text.
    Text,
    /// JSON, which is kept to the byte.
    Json,
    /// A decimal number, whose digits are kept.
    Decimal,
    /// A number of 64 bits.
    Integer,
    /// An instant.
    Instant,
    /// Yes or no.
    Flag,
    /// Bytes.
    Bytes,
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct Column(pub(in crate::storage) &'static str, pub(in crate::storage) Kind);

/// A table. The namespace, which begins every key, is not among its columns.
#[derive(Debug)]
pub(in crate::storage) struct Table {
    pub(in crate::storage) name: &'static str,
    /// So many of the first columns are the key, beside the namespace.
    pub(in crate::storage) key: usize,
    pub(in crate::storage) columns: &'static [Column],
}

impl Table {
    pub(in crate::storage) fn key_columns(&self) -> &'static [Column] {
        self.columns.get(..self.key).unwrap_or_default()
    }

    /// `a, b, c`, each as `write` has it.
    pub(in crate::storage) fn list(columns: &[Column], write: impl Fn(Column) -> String) -> String {
        columns.iter().map(|column| write(*column)).collect::<Vec<_>>().join(", ")
    }
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum Value {
    /// Of a kind that is written as text.
    Text(Option<String>),
    Integer(Option<i64>),
    Instant(Option<Timestamp>),
    Flag(Option<bool>),
    Bytes(Option<Vec<u8>>),
}

impl Value {
    /// The decimal in its one way of being written. What is no decimal stands as it is.
    pub(in crate::storage) fn decimal(text: Option<String>) -> Self {
        Self::Text(text.map(|text| match text.parse::<Decimal>() {
            Ok(decimal) => decimal.to_string(),
            Err(_) => text,
        }))
    }
}

/// The values of a row, in the order of its table's columns.
pub(in crate::storage) type Row = Vec<Value>;

/// Which rows to read.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct PageQuery<'a> {
    pub(in crate::storage) table: &'a Table,
    pub(in crate::storage) only: Option<Only<'a>>,
    /// Those behind this one in the order of keys.
    pub(in crate::storage) after: Option<&'a Row>,
    pub(in crate::storage) most_rows: u32,
    /// More only if one row has more.
    pub(in crate::storage) most_bytes: i64,
}

/// Only rows with this text in a column of ids.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Only<'a> {
    pub(in crate::storage) column: &'static str,
    pub(in crate::storage) id: &'a str,
}

impl<'a> PageQuery<'a> {
    /// A page of usual size.
    pub(in crate::storage) fn new(table: &'a Table, only: Option<Only<'a>>, after: Option<&'a Row>) -> Self {
        Self { table, only, after, most_rows: PAGE_ROWS, most_bytes: PAGE_BYTES }
    }

    /// The rest of a statement behind its columns: `{mark}1` is the namespace, `{mark}2` how many rows, then come the key and
    /// the id, as far as there are any.
    pub(in crate::storage) fn behind(&self, mark: char) -> String {
        let Self { table, only, after, .. } = self;
        let keys = Table::list(table.key_columns(), |column| column.0.to_owned());
        let mut next = 3;
        let mut place = || {
            next += 1;
            format!("{mark}{}", next - 1)
        };
        let places: Vec<_> = after.iter().flat_map(|_| 0..table.key).map(|_| place()).collect();
        let after = after.map(|_| format!(" AND ({keys}) > ({})", places.join(", "))).unwrap_or_default();
        let only = only.map(|only| format!(" AND {} = {}", only.column, place())).unwrap_or_default();
        format!("FROM {} WHERE namespace = {mark}1{after}{only} ORDER BY {keys} LIMIT {mark}2", table.name)
    }
}

/// Rows of a page.
const PAGE_ROWS: u32 = 500;
/// Bytes of a page.
const PAGE_BYTES: i64 = 8 << 20;

/// Every table of a namespace. What the database says of the namespace itself (identity, workers, marks) is no row of it.
pub(in crate::storage) const TABLES: [&Table; 3] = [&PREFERENCES, &INTERACTIONS, &TURNS];

const PREFERENCES: Table = Table {
    name: "preferences",
    key: 2,
    columns: &[
        Column("user_id", Kind::Word),
        Column("name", Kind::Text),
        Column("value", Kind::Json),
        Column("updated_at", Kind::Instant),
    ],
};

const INTERACTIONS: Table = Table {
    name: "interactions",
    key: 1,
    columns: &[
        Column("workflow_id", Kind::Word),
        Column("interaction_id", Kind::Word),
        Column("user_id", Kind::Word),
        Column("session_id", Kind::Word),
        Column("input", Kind::Text),
        Column("response", Kind::Text),
        Column("provider", Kind::Text),
        Column("model", Kind::Text),
        Column("finish_reason", Kind::Word),
        Column("input_tokens", Kind::Integer),
        Column("cached_input_tokens", Kind::Integer),
        Column("output_tokens", Kind::Integer),
        Column("reasoning_tokens", Kind::Integer),
        Column("cost_usd", Kind::Decimal),
        Column("metadata", Kind::Json),
        Column("input_sequence", Kind::Integer),
        Column("received_at", Kind::Instant),
        Column("generated_at", Kind::Instant),
        Column("created_at", Kind::Instant),
        Column("total_ms", Kind::Integer),
        Column("more", Kind::Json),
    ],
};

const TURNS: Table = Table {
    name: "turns",
    key: 1,
    columns: &[
        Column("workflow_id", Kind::Word),
        Column("session_id", Kind::Word),
        Column("user_id", Kind::Word),
        Column("input_sequence", Kind::Integer),
        Column("state", Kind::Word),
        Column("event", Kind::Bytes),
        Column("fingerprint", Kind::Bytes),
        Column("created_at", Kind::Instant),
        Column("updated_at", Kind::Instant),
        Column("merges", Kind::Flag),
        Column("failure", Kind::Word),
        Column("superseded_by", Kind::Word),
        Column("failure_code", Kind::Word),
        Column("failure_record", Kind::Bytes),
        Column("is_held", Kind::Flag),
    ],
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::storage::sqlite::migrations;

    /// What a later migration adds has to be taken along, too.
    #[tokio::test]
    async fn every_column_of_every_table_is_taken_along() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        migrations().run_direct(None, &mut connection, false).await.unwrap();
        let columns = "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c
            WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%'";
        let there: Vec<(String, String)> = sqlx::query_as(columns).fetch_all(&mut connection).await.unwrap();
        let about_the_namespace =
            ["namespaces", "namespace_workers", "namespace_marks", "namespace_copies", "_sqlx_migrations"];
        let there: BTreeSet<_> =
            there.into_iter().filter(|(table, _)| !about_the_namespace.contains(&&**table)).collect();
        let mut ours = BTreeSet::new();
        for table in TABLES {
            ours.insert((table.name.to_owned(), "namespace".to_owned()));
            ours.extend(table.columns.iter().map(|column| (table.name.to_owned(), column.0.to_owned())));
        }
        assert_eq!(ours, there);
    }

    #[test]
    fn a_page_begins_behind_a_key_and_may_be_of_one_id() {
        let row = vec![Value::Text(None); 4];
        let only = Some(Only { column: "user_id", id: "ann" });
        let behind = |only, after| PageQuery::new(&PREFERENCES, only, after).behind('?');
        assert_eq!(
            behind(None, None),
            "FROM preferences WHERE namespace = ?1 ORDER BY user_id, name LIMIT ?2"
        );
        assert_eq!(
            behind(only, Some(&row)),
            "FROM preferences WHERE namespace = ?1 AND (user_id, name) > (?3, ?4) AND user_id = ?5 \
             ORDER BY user_id, name LIMIT ?2"
        );
    }

    #[test]
    fn decimals_are_equal_if_their_digits_are() {
        let decimal = |text: &str| Value::decimal(Some(text.to_owned()));
        assert_eq!(decimal("0.10"), Value::Text(Some("0.10".to_owned())));
        assert_eq!(decimal("00.5"), decimal("0.5"));
        assert_ne!(decimal("0.5"), decimal("0.50"));
        assert_eq!(decimal("1e400"), Value::Text(Some("1e400".to_owned())));
    }
}
