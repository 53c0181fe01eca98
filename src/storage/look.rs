//! A look at a database that changes nothing: no file, no table and no row is made.

use sqlx::migrate::{MigrateError, Migrator};

use super::{DatabaseError, postgres::ServerFacts};

/// What a look at a database shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// There is no such file yet.
    NoFile,
    /// One file, which can be written to.
    File(Tables),
    /// A database of a server.
    Server(ServerFacts, Tables),
}

/// A database's tables beside those of this version. Tables of a later version are an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tables {
    /// There are none; the first worker makes them.
    None,
    /// They are of an earlier version; the first worker migrates them.
    Earlier {
        /// The migrations that they lack, in their order, as `4 namespaces`.
        pending: Vec<String>,
    },
    /// They are of this version.
    Current,
}

/// A migration that a database has had: its version, its checksum, and whether it succeeded.
pub(super) type Applied = (i64, Vec<u8>, bool);

impl Tables {
    pub(super) fn compare(ours: &Migrator, applied: &[Applied]) -> Result<Self, sqlx::Error> {
        for (version, checksum, succeeded) in applied {
            let Some(ours) = ours.iter().find(|ours| ours.version == *version) else {
                return Err(MigrateError::VersionMissing(*version).into());
            };
            if !succeeded {
                return Err(MigrateError::Dirty(*version).into());
            }
            if *ours.checksum != **checksum {
                return Err(MigrateError::VersionMismatch(*version).into());
            }
        }
        let lacks = |version: i64| !applied.iter().any(|(applied, ..)| *applied == version);
        let pending: Vec<_> = ours
            .iter()
            .filter(|ours| lacks(ours.version))
            .map(|ours| format!("{} {}", ours.version, ours.description))
            .collect();
        Ok(match (applied.is_empty(), pending.is_empty()) {
            (true, _) => Self::None,
            (false, true) => Self::Current,
            (false, false) => Self::Earlier { pending },
        })
    }
}

/// Looks at the database of `url`: whether it can be opened, what its tables are, and whether it takes writes, as far
/// as that can be told without writing.
pub async fn look(url: &str) -> Result<Looked, DatabaseError> {
    if url.starts_with("sqlite:") {
        Ok(super::sqlite::look(url).await?.map_or(Looked::NoFile, Looked::File))
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        let (facts, tables) = super::postgres::look(url).await?;
        Ok(Looked::Server(facts, tables))
    } else {
        Err(DatabaseError::Unknown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sqlx::{
        SqlSafeStr,
        migrate::{Migration, MigrationType},
    };

    use super::*;

    #[test]
    fn tables_are_none_or_earlier_or_current_and_anything_else_is_an_error() {
        let migration = |version, name: &'static str| {
            Migration::new(version, name.into(), MigrationType::Simple, "SELECT 1".into_sql_str(), false)
        };
        let ours = Migrator::with_migrations(vec![migration(1, "first"), migration(2, "second")]);
        let checksum = ours.iter().next().unwrap().checksum.to_vec();
        let had = |version| (version, checksum.clone(), true);
        assert_eq!(Tables::compare(&ours, &[]).unwrap(), Tables::None);
        let pending = vec!["2 second".to_owned()];
        assert_eq!(Tables::compare(&ours, &[had(1)]).unwrap(), Tables::Earlier { pending });
        assert_eq!(Tables::compare(&ours, &[had(1), had(2)]).unwrap(), Tables::Current);
        for bad in [had(3), (1, vec![0], true), (1, checksum.clone(), false)] {
            assert!(matches!(Tables::compare(&ours, &[bad]), Err(sqlx::Error::Migrate(_))));
        }
    }
}
