//! Rows as a copy takes them along. Instants are texts here, flags are 0 and 1.

use sqlx::{AssertSqlSafe, Connection, Row as _, SqliteConnection, query::Query, sqlite::SqliteRow};
use throughline_actors::ports::store::StoreError;

use super::SqliteStore;
use crate::storage::{
    context_rows::undecodable,
    copy::table::{Column, Kind, Only, PageQuery, Row, Table, Value},
    kept::sequence,
    text::{instant, parse_instant},
};

const READING: &str = "reading rows to be copied";
const ADDING: &str = "adding rows that are copied";
const COUNTING: &str = "counting rows";

type Asked<'q> = Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

impl SqliteStore {
    pub(in crate::storage) async fn page(&self, query: PageQuery<'_>) -> Result<Vec<Row>, StoreError> {
        let (namespace, table, behind) = (self.file.namespace(), query.table, query.behind('?'));
        let weigh = format!("SELECT {} {behind}", weight(table));
        let read = format!("SELECT {} {behind}", Table::list(table.columns, |column| column.0.to_owned()));
        let bind_rest = |asked| {
            let asked = bind_key(asked, table, query.after);
            query.only.iter().fold(asked, |asked, only| asked.bind(only.id))
        };
        self.ask(READING, async |connection| {
            let weigh = sqlx::query(AssertSqlSafe(weigh.as_str())).bind(&**namespace).bind(query.most_rows);
            let weights = bind_rest(weigh).fetch_all(&mut *connection).await?;
            let fits = fitting(weights.iter().map(|row| row.try_get(0)), query.most_bytes)?;
            let read = sqlx::query(AssertSqlSafe(read.as_str())).bind(&**namespace).bind(fits);
            let rows = bind_rest(read).fetch_all(connection).await?;
            rows.iter().map(|row| decode(row, table)).collect()
        })
        .await
    }

    pub(in crate::storage) async fn same_keys(
        &self,
        table: &Table,
        rows: &[Row],
    ) -> Result<Vec<Row>, StoreError> {
        let namespace = self.file.namespace();
        let read = format!(
            "SELECT {} FROM {} WHERE namespace = ? AND ({}) = ({})",
            Table::list(table.columns, |column| column.0.to_owned()),
            table.name,
            Table::list(table.key_columns(), |column| column.0.to_owned()),
            Table::list(table.key_columns(), |_| "?".to_owned()),
        );
        self.ask(READING, async |connection| {
            let mut found = Vec::with_capacity(rows.len());
            for row in rows {
                let read = sqlx::query(AssertSqlSafe(read.as_str())).bind(&**namespace);
                let read = bind_key(read, table, Some(row)).fetch_optional(&mut *connection).await?;
                found.extend(read.map(|row| decode(&row, table)).transpose()?);
            }
            Ok(found)
        })
        .await
    }

    pub(in crate::storage) async fn add(&self, table: &Table, rows: &[Row]) -> Result<(), StoreError> {
        let namespace = self.file.namespace();
        let add = format!(
            "INSERT INTO {} (namespace, {}) VALUES (?, {}) ON CONFLICT DO NOTHING",
            table.name,
            Table::list(table.columns, |column| column.0.to_owned()),
            Table::list(table.columns, |_| "?".to_owned()),
        );
        self.ask(ADDING, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for row in rows {
                let add = sqlx::query(AssertSqlSafe(add.as_str())).bind(&**namespace);
                let add = row.iter().fold(add, bind);
                add.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        })
        .await
    }

    pub(in crate::storage) async fn count(
        &self,
        table: &Table,
        only: Option<Only<'_>>,
    ) -> Result<u64, StoreError> {
        let namespace = self.file.namespace();
        let only_these = only.map(|only| format!("AND {} = ?2", only.column)).unwrap_or_default();
        let count = format!("SELECT count(*) FROM {} WHERE namespace = ?1 {only_these}", table.name);
        self.ask(COUNTING, async |connection: &mut SqliteConnection| {
            let count = sqlx::query_scalar(AssertSqlSafe(count.as_str())).bind(&**namespace);
            let count = only.iter().fold(count, |count, only| count.bind(only.id));
            sequence(count.fetch_one(connection).await?)
        })
        .await
    }
}

/// Bytes of a row, nearly: what is long in it.
fn weight(table: &Table) -> String {
    let long = |column: &&Column| matches!(column.1, Kind::Text | Kind::Json | Kind::Bytes);
    let long = table.columns.iter().filter(long);
    let weights: Vec<_> =
        long.map(|column| format!("coalesce(length(CAST({} AS BLOB)), 0)", column.0)).collect();
    weights.join(" + ")
}

/// How many of the rows with these weights make a page: at least one.
pub(in crate::storage) fn fitting(
    weights: impl Iterator<Item = Result<i64, sqlx::Error>>,
    most: i64,
) -> Result<i64, sqlx::Error> {
    let (mut rows, mut bytes) = (0, 0_i64);
    for weight in weights {
        bytes = bytes.saturating_add(weight?);
        if bytes > most && rows > 0 {
            break;
        }
        rows += 1;
    }
    Ok(rows)
}

fn bind_key<'q>(query: Asked<'q>, table: &Table, row: Option<&'q Row>) -> Asked<'q> {
    row.into_iter().flatten().take(table.key).fold(query, bind)
}

fn bind<'q>(query: Asked<'q>, value: &'q Value) -> Asked<'q> {
    match value {
        Value::Text(text) => query.bind(text.as_deref()),
        Value::Integer(number) => query.bind(*number),
        Value::Instant(at) => query.bind(at.map(instant)),
        Value::Flag(flag) => query.bind(flag.map(i64::from)),
        Value::Bytes(bytes) => query.bind(bytes.as_deref()),
    }
}

fn decode(row: &SqliteRow, table: &Table) -> Result<Row, sqlx::Error> {
    let value = |(n, Column(_, kind)): (usize, &Column)| {
        Ok(match kind {
            Kind::Word | Kind::Text | Kind::Json => Value::Text(row.try_get(n)?),
            Kind::Decimal => Value::decimal(row.try_get(n)?),
            Kind::Integer => Value::Integer(row.try_get(n)?),
            Kind::Instant => {
                let text: Option<&str> = row.try_get(n)?;
                Value::Instant(text.map(parse_instant).transpose().map_err(undecodable)?)
            }
            Kind::Flag => Value::Flag(row.try_get::<Option<i64>, _>(n)?.map(|flag| flag != 0)),
            Kind::Bytes => Value::Bytes(row.try_get(n)?),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_has_at_least_one_row_and_no_more_than_fit() {
        let fit = |weights: &[i64]| fitting(weights.iter().map(|weight| Ok(*weight)), 10).unwrap();
        assert_eq!([fit(&[]), fit(&[99]), fit(&[99, 1]), fit(&[4, 6, 1]), fit(&[1, 1])], [0, 1, 1, 2, 2]);
    }
}
