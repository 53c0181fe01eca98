//! Whether a PostgreSQL server keeps what it answers.

use throughline_actors::ports::store::StoreTrouble;

use super::{
    database::{NAME, judge_tables},
    finding::Finding,
};
use crate::{
    config::Config,
    storage::{Tables, postgres::ServerFacts},
};

/// `url` is shown as it is, so it must be without its password.
pub(super) fn judge(url: &str, server: &ServerFacts, tables: &Tables, config: &Config) -> Finding {
    let seen = format!("{url} (PostgreSQL {})", server.version);
    if server.is_standby {
        return Finding::fail(
            NAME,
            format!("{seen} is a standby and takes no writes"),
            "set database.url to the primary",
        );
    }
    if server.is_read_only {
        let advice = StoreTrouble::ReadOnly.advice();
        return Finding::fail(NAME, format!("{seen}: {}", StoreTrouble::ReadOnly.what()), advice);
    }
    if *tables != Tables::Current && !server.may_make_tables {
        return Finding::fail(
            NAME,
            format!("{seen} lacks tables of this version, and this user may not make them"),
            "grant it CREATE on the first schema of its search_path, or start the first worker as a user who may",
        );
    }
    let off: Vec<&str> = [
        ("fsync", server.flushes),
        ("full_page_writes", server.writes_full_pages),
        ("synchronous_commit", server.waits_for_flush),
    ]
    .into_iter()
    .filter_map(|(setting, on)| (!on).then_some(setting))
    .collect();
    if !off.is_empty() {
        return Finding::warn(
            NAME,
            format!(
                "{seen} may lose what it has answered when its machine fails: {} = off",
                off.join(" = off, ")
            ),
            format!("switch on: {}", off.join(", ")),
        );
    }
    let (ours, all) = (config.database.max_connections, server.max_connections);
    if i64::from(ours) * 2 > i64::from(all) {
        return Finding::warn(
            NAME,
            format!("{seen} takes {all} connections from everybody, and each worker may open {ours}"),
            "lower database.max_connections, or raise max_connections of the server",
        );
    }
    judge_tables(&format!("{seen} flushes before it answers"), tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    fn facts() -> ServerFacts {
        ServerFacts {
            version: "17.4".to_owned(),
            flushes: true,
            waits_for_flush: true,
            writes_full_pages: true,
            is_standby: false,
            max_connections: 100,
            is_read_only: false,
            may_make_tables: true,
        }
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_server_that_may_lose_answers_is_named_with_its_setting() {
        let config = Layers::default().load_text("t.toml", "").unwrap();
        let judge = |server: ServerFacts| judge("postgres://h/d", &server, &Tables::Current, &config);
        assert_eq!(judge(facts()).status, Status::Ok);
        let lossy = judge(ServerFacts { flushes: false, waits_for_flush: false, ..facts() });
        assert_eq!(lossy.status, Status::Warn);
        assert!(lossy.detail.ends_with("fsync = off, synchronous_commit = off"), "{}", lossy.detail);
        assert_eq!(judge(ServerFacts { is_standby: true, ..facts() }).status, Status::Fail);
        assert_eq!(judge(ServerFacts { max_connections: 7, ..facts() }).status, Status::Warn);
        assert_eq!(judge(ServerFacts { is_read_only: true, ..facts() }).status, Status::Fail);
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn tables_that_are_not_there_yet_are_the_first_workers_who_must_be_allowed_to_make_them() {
        let config = Layers::default().load_text("t.toml", "").unwrap();
        let judge = |tables: &Tables, may_make_tables| {
            super::judge("postgres://h/d", &ServerFacts { may_make_tables, ..facts() }, tables, &config)
        };
        let earlier = Tables::Earlier { pending: vec!["5 identity".to_owned()] };
        assert_eq!(judge(&Tables::None, true).status, Status::Ok);
        let migrated = judge(&earlier, true);
        assert_eq!(migrated.status, Status::Warn);
        assert!(
            migrated.detail.ends_with("the first worker migrates them: 5 identity"),
            "{}",
            migrated.detail
        );
        assert_eq!(judge(&Tables::Current, false).status, Status::Ok);
        assert_eq!(judge(&Tables::None, false).status, Status::Fail);
        assert_eq!(judge(&earlier, false).status, Status::Fail);
    }
}
