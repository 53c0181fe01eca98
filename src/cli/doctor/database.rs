//! Whether the database opens, has its tables and can be written to. Nothing is changed to find out.

use std::{error::Error, path::Path, str::FromStr, time::Duration};

use rustix::fs::{Access, access};
use sqlx::sqlite::SqliteConnectOptions;
use throughline_actors::{
    dependency::cause::error_chain,
    ports::store::{StoreError, StoreTrouble},
};

use super::{
    finding::{Finding, within},
    postgres,
};
use crate::{
    app::{AdapterError, database_url},
    cli::exit::with_causes,
    config::{Config, Env},
    storage::{DatabaseError, Looked, Tables, look},
};

/// How long connecting and asking may take.
const LIMIT: Duration = Duration::from_secs(12);
pub(super) const NAME: &str = "database";

/// Looks at the database and changes nothing: its tables are made and migrated by the first worker.
pub(super) async fn check(config: &Config, env: &Env) -> Finding {
    within(NAME, LIMIT, async {
        let shown = config.database.url.to_string();
        let looked = match database_url(config, env) {
            Ok(url) => look(url.expose()).await,
            Err(error) => return not_open(&error),
        };
        match looked {
            Ok(Looked::NoFile) => not_there(config),
            Ok(Looked::File(tables)) => {
                judge_tables(&format!("{shown} opens and can be written to"), &tables)
            }
            Ok(Looked::Server(server, tables)) => postgres::judge(&shown, &server, &tables, config),
            Err(DatabaseError::Store(error)) => trouble(&shown, &error),
            Err(source @ DatabaseError::Unknown) => not_open(&AdapterError::Store { url: shown, source }),
        }
    })
    .await
}

/// What is said of a database that is fine but for its tables, perhaps.
pub(super) fn judge_tables(seen: &str, tables: &Tables) -> Finding {
    match tables {
        Tables::Current => Finding::ok(NAME, format!("{seen}; its tables are up to date")),
        Tables::None => {
            Finding::ok(NAME, format!("{seen}; it has no tables yet, the first worker makes them"))
        }
        Tables::Earlier { pending } => Finding::warn(
            NAME,
            format!(
                "{seen}; its tables are of an earlier version, and the first worker migrates them: {}",
                pending.join(", ")
            ),
            "back it up and stop the workers of the earlier version before you start one of this version",
        ),
    }
}

/// A file that is not there is not created to find out whether it could be.
fn not_there(config: &Config) -> Finding {
    let file = match &config.database.default_file {
        // Its folder is made with it.
        Some(file) if !file.parent().is_some_and(Path::is_dir) => {
            let detail = format!("{} does not exist yet; the first worker creates it", file.display());
            return Finding::ok(NAME, detail);
        }
        Some(file) => file.clone(),
        None => match SqliteConnectOptions::from_str(config.database.url.expose()) {
            Ok(options) => options.get_filename().to_owned(),
            Err(error) => return Finding::fail(NAME, error_chain(&error), "correct database.url"),
        },
    };
    to_be_created(&file)
}

fn not_open(error: &AdapterError) -> Finding {
    match error {
        AdapterError::Store { .. }
        | AdapterError::Look { .. }
        | AdapterError::Namespace(_)
        | AdapterError::Secret { .. }
        | AdapterError::Cleartext(_)
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
    let words = error.source().map(error_chain).map(|words| format!(": {words}")).unwrap_or_default();
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
        | StoreTrouble::Untrusted
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
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(NAME, format!("{shown} does not exist yet; the first worker creates it")),
        Err(error) => {
            let error = std::io::Error::from(error);
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
    use crate::{app::open_store, cli::doctor::finding::Status, config::Layers};

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
