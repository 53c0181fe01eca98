//! How the tables come to be.

use sqlx::{
    Connection, PgConnection, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

/// The lock that is held while tables are changed: "throughl" in ASCII.
const LOCK: i64 = 0x7468_726f_7567_686c;

/// Texts are stored as they are, so the database must be able to hold any of them.
const ENCODING: &str = "UTF8";

const ADOPT: [&str; 3] = [
    "UPDATE turns SET namespace = $1 WHERE namespace = ''",
    "UPDATE interactions SET namespace = $1 WHERE namespace = ''",
    "UPDATE preferences SET namespace = $1 WHERE namespace = ''",
];

#[derive(Debug, thiserror::Error)]
#[error("its encoding is {0}; create it with ENCODING 'UTF8'")]
struct EncodingError(String);

/// Brings the tables up to date: all or nothing, and one process at a time. Nothing is written, and no right to create
/// anything is needed, when they are.
pub(super) async fn run(connection: &mut PgConnection, namespace: &str) -> Result<(), sqlx::Error> {
    check_encoding(connection).await?;
    let mut migrator = migrations();
    if is_up_to_date(&migrator, connection).await? {
        return adopt(connection, namespace).await;
    }
    let mut transaction = connection.begin().await?;
    // Many workers may start at once: each waits here until those before it are done, however long that takes.
    sqlx::query("SET LOCAL lock_timeout = 0").execute(&mut *transaction).await?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    // The migrator's own lock would be released before the commit.
    migrator.set_locking(false).run_direct(None, &mut *transaction, false).await?;
    adopt(&mut transaction, namespace).await?;
    transaction.commit().await
}

/// Whether the database can hold any text.
pub(super) async fn check_encoding(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let encoding: String = sqlx::query_scalar("SHOW server_encoding").fetch_one(connection).await?;
    if encoding == ENCODING {
        Ok(())
    } else {
        Err(sqlx::Error::Configuration(Box::new(EncodingError(encoding))))
    }
}

/// Rows of versions that knew no namespaces become those of the first one that comes. Nothing is written, and no right
/// to is needed, when there are none.
async fn adopt(connection: &mut PgConnection, namespace: &str) -> Result<(), sqlx::Error> {
    let left: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM turns WHERE namespace = '') OR EXISTS (SELECT FROM interactions WHERE namespace = '')
            OR EXISTS (SELECT FROM preferences WHERE namespace = '')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !left {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *transaction).await?;
    let mut rows = 0;
    for adopt in ADOPT {
        rows += sqlx::query(adopt).bind(namespace).execute(&mut *transaction).await?.rows_affected();
    }
    transaction.commit().await?;
    tracing::info!(
        rows,
        namespace,
        "the database was of a version without namespaces; its rows belong to this one now"
    );
    Ok(())
}

/// A database of another version is not, and the migrator says which.
async fn is_up_to_date(migrator: &Migrator, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let known: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !known {
        return Ok(false);
    }
    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(&mut *connection)
            .await?;
    Ok(migrator
        .iter()
        .map(|migration| (migration.version, &*migration.checksum))
        .eq(applied.iter().map(|(version, checksum)| (*version, checksum.as_slice()))))
}

pub(super) fn migrations() -> Migrator {
    let embedded = [
        (
            1,
            "turns interactions preferences",
            include_str!("../migrations/postgres/0001_turns_interactions_preferences.sql"),
        ),
        (2, "functions", include_str!("../migrations/postgres/0002_functions.sql")),
        (3, "ended turns", include_str!("../migrations/postgres/0003_ended_turns.sql")),
        (4, "namespaces", include_str!("../migrations/postgres/0004_namespaces.sql")),
        (5, "identity", include_str!("../migrations/postgres/0005_identity.sql")),
        (6, "copies", include_str!("../migrations/postgres/0006_copies.sql")),
        (7, "session owner", include_str!("../migrations/postgres/0007_session_owner.sql")),
        (8, "users", include_str!("../migrations/postgres/0008_users.sql")),
    ];
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(embedded.into_iter().map(migration).collect())
}
