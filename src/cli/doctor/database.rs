//! Whether the database opens, has its tables and can be written to.

use std::{error::Error, fs::OpenOptions, path::Path, str::FromStr, time::Duration};

use sqlx::sqlite::SqliteConnectOptions;
use throughline_actors::{
    cause::told,
    ports::store::{Store, StoreError, StoreTrouble},
};

use super::{
    finding::{Finding, within},
    postgres,
};
use crate::{
    app::{AdapterError, open_store},
    cli::exit::with_causes,
    config::{Config, Env},
    storage::{Database, DatabaseError},
};

/// How long opening and asking may take; opening waits for the locks of other processes.
const LIMIT: Duration = Duration::from_secs(12);
pub(super) const NAME: &str = "database";

/// Opens an existing database as a worker would, which brings its tables up to date. One that does not exist is
/// not created.
pub(super) async fn check(config: &Config, env: &Env) -> Finding {
    within(NAME, LIMIT, async {
        let url = config.database.url.to_string();
        if config.database.url.expose().starts_with("sqlite:")
            && let Ok(options) = SqliteConnectOptions::from_str(config.database.url.expose())
            && !options.get_filename().exists()
        {
            // The folder of the default is made with it.
            return match &config.database.default_file {
                Some(file) if !file.parent().is_some_and(Path::is_dir) => {
                    let detail =
                        format!("{} does not exist yet; the first worker creates it", file.display());
                    Finding::ok(NAME, detail)
                }
                Some(_) | None => to_be_created(options.get_filename()),
            };
        }
        let store = match open_store(config, env).await {
            Ok(store) => store,
            Err(error) => return not_open(&url, &error),
        };
        let answered = match &store {
            Database::Sqlite(store) => store.ping().await.map(|()| {
                Finding::ok(NAME, format!("{url} opens, its tables are up to date, it can be written to"))
            }),
            Database::Postgres(store) => {
                store.server().await.map(|server| postgres::judge(&url, &server, config))
            }
        };
        store.close().await;
        answered.unwrap_or_else(|error| trouble(&url, &error))
    })
    .await
}

fn not_open(url: &str, error: &AdapterError) -> Finding {
    match error {
        AdapterError::Store { source: DatabaseError::Store(error), .. } => trouble(url, error),
        AdapterError::Store { source: DatabaseError::Unknown, .. }
        | AdapterError::Namespace(_)
        | AdapterError::Secret { .. }
        | AdapterError::Nats(_)
        | AdapterError::NoDatabase
        | AdapterError::DatabaseFile { .. }
        | AdapterError::Sources(_)
        | AdapterError::HeaderName(_)
        | AdapterError::Models(_)
        | AdapterError::Prompt(_) => Finding::fail(NAME, with_causes(error), "correct database.url"),
    }
}

/// What is wrong, in the driver's own words, too, and what to do about it.
fn trouble(url: &str, error: &StoreError) -> Finding {
    let trouble = error.trouble();
    let words = error.source().map(told).map(|words| format!(": {words}")).unwrap_or_default();
    let detail = format!("{url}: {}{words}", trouble.what());
    match trouble {
        StoreTrouble::Unreachable
        | StoreTrouble::TooSlow
        | StoreTrouble::Locked
        | StoreTrouble::Conflict
        | StoreTrouble::TooManyConnections
        | StoreTrouble::OutOfResources
        | StoreTrouble::CannotOpen
        | StoreTrouble::Io
        | StoreTrouble::Closed => Finding::unreachable(NAME, detail, trouble.advice()),
        StoreTrouble::DiskFull
        | StoreTrouble::ReadOnly
        | StoreTrouble::Denied
        | StoreTrouble::Corrupt
        | StoreTrouble::WrongPassword
        | StoreTrouble::NoDatabase
        | StoreTrouble::OtherVersion
        | StoreTrouble::Misconfigured
        | StoreTrouble::Refused => Finding::fail(NAME, detail, trouble.advice()),
    }
}

/// Whether the first worker will be able to create it.
fn to_be_created(file: &Path) -> Finding {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let shown = file.display();
    if !folder.is_dir() {
        let advice = format!("create the folder {}, or correct database.url", folder.display());
        return Finding::fail(NAME, format!("{shown} cannot be created"), advice);
    }
    let probe = folder.join(format!(".throughline-doctor-{}", std::process::id()));
    match OpenOptions::new().write(true).create_new(true).open(&probe) {
        Ok(_) => {
            // Nothing depends on it; the worst is an empty file.
            let _ = std::fs::remove_file(&probe);
            Finding::ok(NAME, format!("{shown} does not exist yet; the first worker creates it"))
        }
        Err(error) => {
            let advice = format!("make {} writable, or correct database.url", folder.display());
            Finding::fail(NAME, format!("{shown} cannot be created: {error}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    fn config(file: &Path) -> Config {
        let url = toml::Value::from(format!("sqlite://{}", file.display()));
        Layers::default().load_text("t.toml", &format!("[database]\nurl = {url}\n")).unwrap()
    }

    #[tokio::test]
    async fn a_database_is_looked_at_and_never_created() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.db");
        let finding = check(&config(&file), &Env::new()).await;
        assert_eq!(finding.status, Status::Ok, "{}", finding.detail);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");

        open_store(&config(&file), &Env::new()).await.unwrap().close().await;
        assert_eq!(check(&config(&file), &Env::new()).await.status, Status::Ok);

        let url = format!("sqlite://{}", file.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (99, 'of a later version', TRUE, x'00', 0)";
        sqlx::query(later).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let finding = check(&config(&file), &Env::new()).await;
        assert_eq!(finding.status, Status::Fail);
        assert!(
            finding.detail.contains("migration 99 is not known here); run that version"),
            "{}",
            finding.detail
        );
        assert!(!finding.is_unreachable, "trying again would not help");

        std::fs::write(&file, "this is no database, however long one looks at it".repeat(100)).unwrap();
        assert_eq!(check(&config(&file), &Env::new()).await.status, Status::Fail);
        assert_eq!(check(&config(&dir.path().join("no/such/a.db")), &Env::new()).await.status, Status::Fail);
    }
}
