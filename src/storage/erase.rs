//! The rows of one user or one session: handed out, counted and erased.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value as Json, value::RawValue};
use throughline_actors::ports::store::StoreError;
use throughline_schemas::recording::verbatim;

use super::{
    Database,
    copy::table::{Kind, Only, PageQuery, Row, TABLES, Table, Value},
    text::instant,
};
use crate::personal::Whom;

/// Rows that are erased in one transaction.
pub(super) const AT_ONCE: u32 = 1_000;

/// Rows that were erased, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Turns.
    pub turns: u64,
    /// Interactions.
    pub interactions: u64,
    /// Preferences, which are a user's.
    pub preferences: u64,
}

/// A row as it is handed out: its columns by name.
pub type JsonRow = BTreeMap<&'static str, Box<RawValue>>;

/// What one table has of them; `None` if it has no such column.
fn of<'a>(whom: &'a Whom, table: &Table) -> Option<Only<'a>> {
    let column = match whom {
        Whom::User(_) => "user_id",
        Whom::Session(_) => "session_id",
    };
    table.columns.iter().any(|of| of.0 == column).then_some(Only { column, id: whom.id() })
}

impl Database {
    /// How many rows are theirs.
    pub async fn count_of(&self, whom: &Whom) -> Result<Erased, StoreError> {
        let mut counted = Erased::default();
        for table in TABLES {
            let Some(only) = of(whom, table) else { continue };
            *counted.of(table) = self.count(table, Some(only)).await?;
        }
        Ok(counted)
    }

    /// Erases their rows, but for turns that are open. What stood there is overwritten by
    /// [`Self::overwrite_free_space`].
    pub async fn erase(&self, whom: &Whom) -> Result<Erased, StoreError> {
        let mut erased = Erased::default();
        for table in TABLES {
            let Some(only) = of(whom, table) else { continue };
            loop {
                let gone = match self {
                    Self::Sqlite(store) => store.erase(table, only).await?,
                    Self::Postgres(store) => store.erase(table, only).await?,
                };
                *erased.of(table) += gone;
                if gone == 0 {
                    break;
                }
            }
        }
        Ok(erased)
    }

    /// Leaves nothing in the files of what was deleted or replaced, as far as that can be done from here: an SQLite file
    /// is written again, during which others wait to write, and its write-ahead log is emptied; PostgreSQL frees dead rows.
    pub async fn overwrite_free_space(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.overwrite_free_space().await,
            Self::Postgres(store) => store.overwrite_free_space().await,
        }
    }

    /// The next rows of a table that are theirs, behind the last of those before; none behind the last one.
    pub async fn rows_of(&self, whom: &Whom, after: &mut Option<After>) -> Result<Vec<TheirRow>, StoreError> {
        let mut place = after.take().unwrap_or_default();
        loop {
            let Some(table) = TABLES.get(place.table) else {
                *after = Some(place);
                return Ok(Vec::new());
            };
            let rows = match of(whom, table) {
                Some(only) => self.page(PageQuery::new(table, Some(only), place.row.as_ref())).await?,
                None => Vec::new(),
            };
            if rows.is_empty() {
                place = After { table: place.table + 1, row: None };
                continue;
            }
            place.row = rows.last().cloned();
            *after = Some(place);
            return Ok(rows
                .iter()
                .map(|row| TheirRow { table: table.name, row: as_json(table, row) })
                .collect());
        }
    }
}

/// A row of theirs.
#[derive(Debug, serde::Serialize)]
pub struct TheirRow {
    /// Its table.
    #[serde(rename = "store")]
    pub table: &'static str,
    /// The row.
    pub row: JsonRow,
}

/// How far [`Database::rows_of`] has come.
#[derive(Debug, Default)]
pub struct After {
    table: usize,
    row: Option<Row>,
}

impl Erased {
    fn of(&mut self, table: &Table) -> &mut u64 {
        match table.name {
            "turns" => &mut self.turns,
            "interactions" => &mut self.interactions,
            _ => &mut self.preferences,
        }
    }
}

/// JSON stands as it is, other bytes in base64.
fn as_json(table: &Table, row: &Row) -> JsonRow {
    let value = |(value, column): (&Value, &super::copy::table::Column)| {
        let json = match (value, column.1) {
            (Value::Text(Some(text)), Kind::Json) => match verbatim(text.as_bytes()) {
                Some(json) => return Some((column.0, json)),
                None => Json::from(text.as_str()),
            },
            (Value::Bytes(Some(bytes)), _) => match verbatim(bytes) {
                Some(json) => return Some((column.0, json)),
                None => Json::from(STANDARD.encode(bytes)),
            },
            (Value::Text(text), _) => Json::from(text.as_deref()),
            (Value::Integer(number), _) => Json::from(*number),
            (Value::Instant(at), _) => Json::from(at.map(instant)),
            (Value::Flag(flag), _) => Json::from(*flag),
            (Value::Bytes(None), _) => Json::Null,
        };
        // A value of `serde_json` is JSON.
        RawValue::from_string(json.to_string()).ok().map(|json| (column.0, json))
    };
    row.iter().zip(table.columns).filter_map(value).collect()
}

/// `DELETE` of some rows of one id: `{mark}1` is the namespace, `{mark}2` the id, `{mark}3` how many. Turns that are open
/// stay.
pub(super) fn delete(table: &Table, only: Only<'_>, mark: char) -> String {
    let keys = Table::list(table.key_columns(), |column| column.0.to_owned());
    let is_turn = table.columns.iter().any(|column| column.0 == "state");
    let ended = if is_turn { " AND state IN ('saved', 'failed')" } else { "" };
    let Table { name, .. } = table;
    let Only { column, .. } = only;
    format!(
        "DELETE FROM {name} WHERE namespace = {mark}1 AND ({keys}) IN (
            SELECT {keys} FROM {name} WHERE namespace = {mark}1 AND {column} = {mark}2{ended} LIMIT {mark}3)"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{SessionId, UserId};

    use super::*;

    #[test]
    fn preferences_are_of_users_and_no_sessions() {
        let user = Whom::User(UserId::new("ann").unwrap());
        let session = Whom::Session(SessionId::new("s").unwrap());
        let has = |whom: &Whom| TABLES.map(|table| of(whom, table).is_some());
        assert_eq!(has(&user), [true, true, true]);
        assert_eq!(has(&session), [false, true, true]);
    }

    #[test]
    fn open_turns_are_not_deleted() {
        let only = Only { column: "user_id", id: "ann" };
        assert!(delete(TABLES[2], only, '$').contains("user_id = $2 AND state IN ('saved', 'failed')"));
        assert!(!delete(TABLES[1], only, '?').contains("state"));
    }
}
