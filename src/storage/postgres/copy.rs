//! Rows as a copy takes them along. What this database does not keep: instants below a microsecond, and the lack of a place
//! in the log, which turns of early versions may have and is 0 here.

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use throughline_actors::ports::store::StoreError;
use throughline_schemas::Timestamp;
use time::OffsetDateTime;

use super::{
    PostgresStore,
    connection::Statement,
    nul::{from_stored, source_from_stored, source_to_stored, to_stored},
};
use crate::storage::{
    copy::table::{Column, Kind, Only, PageQuery, Row, Table, Value},
    kept::sequence,
    sqlite::fitting,
};

const READING: &str = "reading rows to be copied";
const ADDING: &str = "adding rows that are copied";
const COUNTING: &str = "counting rows";

/// Nanoseconds of the smallest span that the database distinguishes.
const RESOLUTION_NS: i128 = 1_000;

/// The one column that may be empty elsewhere and not here.
const PLACE_IN_LOG: &str = "input_sequence";

/// Every table is reached by its key, whatever the statistics say of one that was empty a minute ago.
const BY_INDEX: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

type Asked<'q> = Query<'q, Postgres, PgArguments>;

impl PostgresStore {
    pub(in crate::storage) async fn page(&self, query: PageQuery<'_>) -> Result<Vec<Row>, StoreError> {
        self.ask(READING, &Page { namespace: &self.namespace, query }).await
    }

    pub(in crate::storage) async fn same_keys(
        &self,
        table: &Table,
        rows: &[Row],
    ) -> Result<Vec<Row>, StoreError> {
        self.ask(READING, &SameKeys { namespace: &self.namespace, table, rows }).await
    }

    pub(in crate::storage) async fn add(&self, table: &Table, rows: &[Row]) -> Result<(), StoreError> {
        self.ask(ADDING, &Add { namespace: &self.namespace, table, rows }).await
    }

    pub(in crate::storage) async fn count(
        &self,
        table: &Table,
        only: Option<Only<'_>>,
    ) -> Result<u64, StoreError> {
        self.ask(COUNTING, &Count { namespace: &self.namespace, table, only }).await
    }
}

/// What is left of a row of another database when this one keeps it.
pub(in crate::storage) fn kept(table: &Table, row: Row) -> Row {
    let keep = |(value, column): (Value, &Column)| match value {
        Value::Instant(Some(at)) => Value::Instant(Some(in_microseconds(at))),
        Value::Integer(None) if column.0 == PLACE_IN_LOG => Value::Integer(Some(0)),
        other @ (Value::Text(_)
        | Value::Integer(_)
        | Value::Instant(None)
        | Value::Flag(_)
        | Value::Bytes(_)) => other,
    };
    row.into_iter().zip(table.columns).map(keep).collect()
}

fn in_microseconds(at: Timestamp) -> Timestamp {
    let nanos = OffsetDateTime::from(at).unix_timestamp_nanos();
    let kept = OffsetDateTime::from_unix_timestamp_nanos(nanos - nanos.rem_euclid(RESOLUTION_NS));
    kept.map_or(at, Timestamp::from)
}

struct Page<'a> {
    namespace: &'a str,
    query: PageQuery<'a>,
}

impl Page<'_> {
    fn bind<'q>(&'q self, asked: Asked<'q>) -> Asked<'q> {
        let PageQuery { table, only, after, .. } = &self.query;
        let key = after.iter().copied().flatten().zip(table.key_columns());
        let asked = key.fold(asked, |asked, (value, column)| match value {
            Value::Text(text) => asked.bind(text.as_deref().map(|text| stored(text, column.1))),
            Value::Integer(number) => asked.bind(*number),
            Value::Instant(at) => asked.bind(at.map(OffsetDateTime::from)),
            Value::Flag(flag) => asked.bind(*flag),
            Value::Bytes(bytes) => asked.bind(bytes.as_deref()),
        });
        only.iter().fold(asked, |asked, only| asked.bind(only.id))
    }
}

impl Statement for Page<'_> {
    type Answer = Vec<Row>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<Row>, sqlx::Error> {
        let (table, behind) = (self.query.table, self.query.behind('$'));
        let weigh = format!("SELECT {} {behind}", weight(table));
        let read = format!("SELECT {} {behind}", Table::list(table.columns, readable));
        let mut reading = connection.begin().await?;
        sqlx::raw_sql(BY_INDEX).execute(&mut *reading).await?;
        let most = i64::from(self.query.most_rows);
        let weigh = sqlx::query(AssertSqlSafe(weigh)).bind(self.namespace).bind(most);
        let weights = self.bind(weigh).fetch_all(&mut *reading).await?;
        let fits = fitting(weights.iter().map(|row| row.try_get(0)), self.query.most_bytes)?;
        let read = sqlx::query(AssertSqlSafe(read)).bind(self.namespace).bind(fits);
        let rows = self.bind(read).fetch_all(&mut *reading).await?;
        reading.commit().await?;
        rows.iter().map(|row| decode(row, table)).collect()
    }
}

struct SameKeys<'a> {
    namespace: &'a str,
    table: &'a Table,
    rows: &'a [Row],
}

impl Statement for SameKeys<'_> {
    type Answer = Vec<Row>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<Row>, sqlx::Error> {
        let Self { namespace, table, rows } = self;
        let keys = table.key_columns();
        let read = format!(
            "SELECT {} FROM unnest({}) WITH ORDINALITY AS k({}, n) JOIN {} AS t ON t.namespace = $1 AND {} ORDER BY k.n",
            Table::list(table.columns, |column| readable_of("t.", column)),
            arrays(keys),
            Table::list(keys, |column| format!("k_{}", column.0)),
            table.name,
            keys.iter().map(|column| format!("t.{0} = k.k_{0}", column.0)).collect::<Vec<_>>().join(" AND "),
        );
        let mut reading = connection.begin().await?;
        sqlx::raw_sql(BY_INDEX).execute(&mut *reading).await?;
        let read = sqlx::query(AssertSqlSafe(read)).bind(*namespace);
        let found = bind_columns(read, keys, rows)?.fetch_all(&mut *reading).await?;
        reading.commit().await?;
        found.iter().map(|row| decode(row, table)).collect()
    }
}

struct Add<'a> {
    namespace: &'a str,
    table: &'a Table,
    rows: &'a [Row],
}

impl Statement for Add<'_> {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Self { namespace, table, rows } = self;
        let add = format!(
            "INSERT INTO {} (namespace, {}) SELECT $1, {} FROM unnest({}) AS q({}) ON CONFLICT DO NOTHING",
            table.name,
            Table::list(table.columns, name),
            Table::list(table.columns, |Column(name, kind)| match kind {
                Kind::Json => format!("q.{name}::json"),
                Kind::Decimal => format!("q.{name}::numeric"),
                Kind::Word | Kind::Text | Kind::Integer | Kind::Instant | Kind::Flag | Kind::Bytes =>
                    format!("q.{name}"),
            }),
            arrays(table.columns),
            Table::list(table.columns, name),
        );
        let add = sqlx::query(AssertSqlSafe(add)).bind(*namespace);
        bind_columns(add, table.columns, rows)?.execute(connection).await.map(drop)
    }
}

struct Count<'a> {
    namespace: &'a str,
    table: &'a Table,
    only: Option<Only<'a>>,
}

impl Statement for Count<'_> {
    type Answer = u64;

    async fn send(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let only_these = self.only.map(|only| format!("AND {} = $2", only.column)).unwrap_or_default();
        let count = format!("SELECT count(*) FROM {} WHERE namespace = $1 {only_these}", self.table.name);
        let count = sqlx::query_scalar(AssertSqlSafe(count)).bind(self.namespace);
        let count = self.only.iter().fold(count, |count, only| count.bind(only.id));
        sequence(count.fetch_one(connection).await?)
    }
}

fn name(column: Column) -> String {
    column.0.to_owned()
}

fn readable(column: Column) -> String {
    readable_of("", column)
}

/// The column as it is read: what has no type here that says it all is read as text.
fn readable_of(table: &str, Column(name, kind): Column) -> String {
    match kind {
        Kind::Json | Kind::Decimal => format!("{table}{name}::text"),
        Kind::Word | Kind::Text | Kind::Integer | Kind::Instant | Kind::Flag | Kind::Bytes => {
            format!("{table}{name}")
        }
    }
}

/// `$2::text[], $3::bigint[], ...`
fn arrays(columns: &[Column]) -> String {
    let array = |(n, Column(_, kind)): (usize, &Column)| {
        let of = match kind {
            Kind::Word | Kind::Text | Kind::Json | Kind::Decimal => "text",
            Kind::Integer => "bigint",
            Kind::Instant => "timestamptz",
            Kind::Flag => "boolean",
            Kind::Bytes => "bytea",
        };
        format!("${}::{of}[]", n + 2)
    };
    columns.iter().enumerate().map(array).collect::<Vec<_>>().join(", ")
}

/// Bytes of a row, nearly: what is long in it.
fn weight(table: &Table) -> String {
    let long = |column: &&Column| matches!(column.1, Kind::Text | Kind::Json | Kind::Bytes);
    let long = table.columns.iter().filter(long);
    let weights: Vec<_> =
        long.map(|column| format!("coalesce(octet_length({}), 0)", readable(*column))).collect();
    format!("({})::bigint", weights.join(" + "))
}

/// One array for each column.
fn bind_columns<'q>(
    mut query: Asked<'q>,
    columns: &[Column],
    rows: &'q [Row],
) -> Result<Asked<'q>, sqlx::Error> {
    for (n, Column(name, kind)) in columns.iter().enumerate() {
        let values = rows.iter().map(|row| row.get(n));
        let other = || sqlx::Error::Encode(format!("a value of another kind in {name}").into());
        query = match kind {
            Kind::Word | Kind::Text | Kind::Json | Kind::Decimal => {
                let text = |value: Option<&'q Value>| match value {
                    Some(Value::Text(text)) => Ok(text.as_deref().map(|text| stored(text, *kind))),
                    Some(_) | None => Err(other()),
                };
                query.bind(values.map(text).collect::<Result<Vec<_>, _>>()?)
            }
            Kind::Integer => {
                let number = |value: Option<&Value>| match value {
                    Some(Value::Integer(number)) => Ok(*number),
                    Some(_) | None => Err(other()),
                };
                query.bind(values.map(number).collect::<Result<Vec<_>, _>>()?)
            }
            Kind::Instant => {
                let at = |value: Option<&Value>| match value {
                    Some(Value::Instant(at)) => Ok(at.map(OffsetDateTime::from)),
                    Some(_) | None => Err(other()),
                };
                query.bind(values.map(at).collect::<Result<Vec<_>, _>>()?)
            }
            Kind::Flag => {
                let flag = |value: Option<&Value>| match value {
                    Some(Value::Flag(flag)) => Ok(*flag),
                    Some(_) | None => Err(other()),
                };
                query.bind(values.map(flag).collect::<Result<Vec<_>, _>>()?)
            }
            Kind::Bytes => {
                let bytes = |value: Option<&'q Value>| match value {
                    Some(Value::Bytes(bytes)) => Ok(bytes.as_deref()),
                    Some(_) | None => Err(other()),
                };
                query.bind(values.map(bytes).collect::<Result<Vec<_>, _>>()?)
            }
        };
    }
    Ok(query)
}

/// A text as it stands in a column of this kind.
fn stored(text: &str, kind: Kind) -> String {
    match kind {
        Kind::Text => to_stored(text).into_owned(),
        Kind::Json => source_to_stored(text),
        Kind::Word | Kind::Decimal | Kind::Integer | Kind::Instant | Kind::Flag | Kind::Bytes => {
            text.to_owned()
        }
    }
}

fn decode(row: &PgRow, table: &Table) -> Result<Row, sqlx::Error> {
    let value = |(n, Column(_, kind)): (usize, &Column)| {
        let text = || row.try_get::<Option<&str>, _>(n);
        Ok(match kind {
            Kind::Word => Value::Text(row.try_get(n)?),
            Kind::Text => Value::Text(text()?.map(from_stored)),
            Kind::Json => Value::Text(text()?.map(source_from_stored)),
            Kind::Decimal => Value::decimal(row.try_get(n)?),
            Kind::Integer => Value::Integer(row.try_get(n)?),
            Kind::Instant => {
                let at: Option<OffsetDateTime> = row.try_get(n)?;
                Value::Instant(at.map(Timestamp::from))
            }
            Kind::Flag => Value::Flag(row.try_get(n)?),
            Kind::Bytes => Value::Bytes(row.try_get(n)?),
        })
    };
    table.columns.iter().enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::{copy::table::TABLES, text::parse_instant};

    #[test]
    fn what_is_kept_of_an_instant_is_its_microseconds() {
        let at = |text: &str| parse_instant(text).unwrap();
        for (whole, left) in [
            ("2026-01-31T09:00:00.123456789Z", "2026-01-31T09:00:00.123456Z"),
            ("2026-01-31T09:00:00.123456Z", "2026-01-31T09:00:00.123456Z"),
            ("1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(in_microseconds(at(whole)), at(left));
        }
    }

    #[test]
    fn a_turn_without_a_place_in_the_log_is_at_its_beginning() {
        let table = TABLES[2];
        let none: Row = table
            .columns
            .iter()
            .map(|column| if column.1 == Kind::Integer { Value::Integer(None) } else { Value::Text(None) })
            .collect();
        let numbers = kept(table, none).into_iter().filter(|value| matches!(value, Value::Integer(_)));
        assert_eq!(numbers.collect::<Vec<_>>(), [Value::Integer(Some(0))]);
    }
}
