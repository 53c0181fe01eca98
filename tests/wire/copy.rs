//! A namespace is moved from one SQLite file to another; with PostgreSQL on either side: `tests/live/postgres/copy.rs`.

pub(crate) mod material;

use futures_util::future::{Either, select};
use material::{NAMESPACE, OTHER, WAITING, admission, copied, copied_telling, file, fill, rows};
use sqlx::{Connection, Executor, SqliteConnection};
use throughline::{
    identity::place,
    storage::{
        Beat, CopiedTo, Database, Identity, Peeked,
        copy::{CopyError, Occupied},
        peek,
    },
};
use throughline_actors::ports::store::Store;

#[tokio::test]
async fn everything_of_a_namespace_goes_over_and_what_is_left_is_retired() {
    let dir = tempfile::tempdir().unwrap();
    let ((_, from), (_, to)) = (file(dir.path(), "from.db"), file(dir.path(), "to.db"));
    fill(&from).await;
    let (before, of_other) = (rows(&from, NAMESPACE).await, rows(&from, OTHER).await);
    assert_eq!(before["turns"].len() as u64, WAITING + 6);

    let report = copied(&from, &to).await.unwrap();
    assert_eq!(report.tables, [("preferences", 3), ("interactions", 1), ("turns", WAITING + 6)]);
    assert_eq!(rows(&to, NAMESPACE).await, before, "to the byte");
    assert_eq!(rows(&from, NAMESPACE).await, before, "nothing is taken away");
    assert_eq!(rows(&from, OTHER).await, of_other);
    assert!(rows(&to, OTHER).await["interactions"].is_empty(), "another namespace is another matter");
    let identity = |copied| Peeked::Identity(Identity { id: "identity-of-the-shop".to_owned(), copied });
    assert_eq!(peek(&to, NAMESPACE).await.unwrap(), identity(None));
    let went = Some(CopiedTo { place: place(&to), is_complete: true });
    assert_eq!(peek(&from, NAMESPACE).await.unwrap(), identity(went));

    // What is asked for again is done, also when the new database has been used since.
    let store = Database::open(&to, 1, NAMESPACE).await.unwrap();
    store.admit(vec![admission("later", "later", 9_000)]).await.unwrap();
    store.close().await;
    assert!(copied(&from, &to).await.unwrap().before);
    let (_, third) = file(dir.path(), "third.db");
    let elsewhere = copied(&from, &third).await.unwrap_err();
    assert!(matches!(&elsewhere, CopyError::CopiedElsewhere { to: went, .. } if *went == place(&to)));
    assert_eq!(peek(&third, NAMESPACE).await.unwrap(), Peeked::Missing);
    let back = copied(&to, &from).await.unwrap_err();
    assert!(matches!(back, CopyError::Occupied { why: Occupied::SameIdentity, .. }), "{back}");
    // The other namespace may go its own way, and the shop again.
    assert_eq!(copied(&to, &third).await.unwrap().tables[2], ("turns", WAITING + 7));
}

/// Whoever is killed at any page goes on, and comes to the same end.
#[tokio::test]
async fn a_copy_that_was_killed_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let ((_, from), (_, to)) = (file(dir.path(), "from.db"), file(dir.path(), "to.db"));
    fill(&from).await;
    let before = rows(&from, NAMESPACE).await;
    let mut pages = 0;
    loop {
        pages += 1;
        let (kill, killed) = tokio::sync::oneshot::channel::<()>();
        let (mut kill, mut told) = (Some(kill), 0);
        let copying = copied_telling(&from, &to, |_, _| {
            told += 1;
            if told == pages {
                kill.take();
            }
        });
        // What is killed first has the word.
        match select(Box::pin(killed), Box::pin(copying)).await {
            Either::Left(_) => {
                let seen = peek(&from, NAMESPACE).await.unwrap();
                let Peeked::Identity(Identity { copied: Some(copied), .. }) = seen else {
                    panic!("{seen:?}")
                };
                assert!(!copied.is_complete);
                assert_eq!(peek(&to, NAMESPACE).await.unwrap(), Peeked::Nothing, "the identity comes last");
            }
            Either::Right((report, _)) => {
                assert!(!report.unwrap().before);
                break;
            }
        }
    }
    assert!(pages > 4, "it was killed at every page: {pages}");
    assert_eq!(rows(&to, NAMESPACE).await, before);
}

/// Each refusal says what to do, and leaves both sides as they were.
#[tokio::test]
async fn what_must_not_be_copied_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let ((path, from), (_, to)) = (file(dir.path(), "from.db"), file(dir.path(), "to.db"));
    let (_, nowhere) = file(dir.path(), "nowhere.db");
    let refused = async |from: &str, to: &str, words: &[&str]| {
        let error = copied(from, to).await.unwrap_err();
        let told = error.to_string();
        for part in words {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!error.is_unavailable());
    };
    refused(&nowhere, &to, &["no database", "--from"]).await;
    fill(&from).await;
    let still = format!("sqlite://{}/./from.db", dir.path().display());
    refused(&from, &still, &["same database", "--to"]).await;
    let (_, bare) = file(dir.path(), "bare.db");
    Database::open(&bare, 1, NAMESPACE).await.unwrap().close().await;
    refused(&bare, &to, &["does not belong to the namespace shop", "nats.namespace"]).await;

    // A file that was copied by hand has the same identity.
    let (twin, twin_url) = file(dir.path(), "twin.db");
    std::fs::copy(&path, twin).unwrap();
    refused(&from, &twin_url, &["has the identity of the source"]).await;
    let (_, taken) = file(dir.path(), "taken.db");
    let store = Database::open(&taken, 1, NAMESPACE).await.unwrap();
    store.claim_identity(NAMESPACE, "of somebody else").await.unwrap();
    store.close().await;
    refused(&from, &taken, &["belongs to another log", "empty database"]).await;

    // Rows of the namespace, which nobody claims: one that is not in the source, one that is there and differs.
    let (_, used) = file(dir.path(), "used.db");
    let store = Database::open(&used, 1, NAMESPACE).await.unwrap();
    store.admit(vec![admission("of-its-own", "s", 1)]).await.unwrap();
    store.close().await;
    refused(&from, &used, &["rows that the source does not have"]).await;
    let (_, differs) = file(dir.path(), "differs.db");
    let store = Database::open(&differs, 1, NAMESPACE).await.unwrap();
    store.admit(vec![admission("saved", "elsewhere", 1)]).await.unwrap();
    store.close().await;
    refused(&from, &differs, &["rows that the source does not have"]).await;

    let source = Database::open(&from, 1, NAMESPACE).await.unwrap();
    let beat = Beat { worker: "another-host:7:0".to_owned(), log: "l".to_owned(), calls: 1 };
    source.beat(NAMESPACE, &beat).await.unwrap();
    refused(&from, &to, &["another-host:7:0", "Stop all workers"]).await;
    source.leave(NAMESPACE, &beat.worker).await.unwrap();
    // One that ended without a word on this machine does not count.
    let gone = Beat {
        worker: format!("{}:4194305:0", throughline::system::host_name()),
        log: "l".to_owned(),
        calls: 1,
    };
    source.beat(NAMESPACE, &gone).await.unwrap();
    source.close().await;

    let Peeked::Identity(seen) = peek(&from, NAMESPACE).await.unwrap() else { panic!("it has one") };
    assert_eq!(seen.copied, None, "nothing was begun");
    copied(&from, &to).await.unwrap();
}

/// What somebody else wrote meanwhile is noticed, and then the new database has no identity.
#[tokio::test]
async fn a_target_in_which_somebody_else_writes_does_not_become_the_namespaces() {
    let dir = tempfile::tempdir().unwrap();
    let ((_, from), (_, to)) = (file(dir.path(), "from.db"), file(dir.path(), "to.db"));
    fill(&from).await;
    Database::open(&to, 1, OTHER).await.unwrap().close().await;
    let mut hand = SqliteConnection::connect(&to).await.unwrap();
    hand.execute(
        "CREATE TRIGGER meddle AFTER INSERT ON turns WHEN new.workflow_id = 'saved' BEGIN
            INSERT INTO turns (namespace, workflow_id, session_id, state, created_at, updated_at)
            VALUES ('shop', 'meddled', 'x', 'failed', '', ''); END",
    )
    .await
    .unwrap();
    hand.close().await.unwrap();
    let counted = copied(&from, &to).await.unwrap_err();
    assert!(matches!(counted, CopyError::Counts { table: "turns", .. }), "{counted}");
    assert_eq!(peek(&to, NAMESPACE).await.unwrap(), Peeked::Nothing);
}
