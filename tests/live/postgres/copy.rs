//! A namespace is moved from SQLite to PostgreSQL, to another PostgreSQL database, and back.

#[path = "../../wire/copy/material.rs"]
mod material;

use material::{NAMESPACE, copied, file, fill, rows};
use throughline::storage::{Peeked, copy::CopyError, peek};

use crate::postgres_server::PostgresServer;

/// What PostgreSQL does not keep: instants below a microsecond, and that an early version knew no place in the log.
fn as_postgres_keeps_it(value: &mut (String, Vec<u8>)) {
    let (kind, bytes) = value;
    let is_instant = kind == "text" && bytes.len() == 30 && bytes.ends_with(b"Z") && bytes[10] == b'T';
    if is_instant {
        bytes[26..29].copy_from_slice(b"000");
    }
}

#[tokio::test]
async fn a_round_trip_over_postgres_gives_the_same_rows() {
    let Some(server) = PostgresServer::shared().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let ((_, from), (_, back)) = (file(dir.path(), "from.db"), file(dir.path(), "back.db"));
    let (there, onward) = (server.database().await, server.database().await);
    fill(&from).await;
    let mut expected = rows(&from, NAMESPACE).await;
    for row in expected.values_mut().flatten() {
        row.iter_mut().for_each(as_postgres_keeps_it);
    }
    let early = expected.get_mut("turns").unwrap().iter_mut().find(|row| row[1].1 == b"early").unwrap();
    assert_eq!(early[4].0, "null");
    early[4] = ("integer".to_owned(), b"0".to_vec());

    copied(&from, &there).await.unwrap();
    // A password is no part of a place, and the same database is known by it.
    let same = there.replace("postgres://", "postgresql://");
    assert!(matches!(copied(&there, &same).await.unwrap_err(), CopyError::SameDatabase(_)));
    copied(&there, &onward).await.unwrap();
    copied(&onward, &back).await.unwrap();
    assert_eq!(rows(&back, NAMESPACE).await, expected);
    for retired in [&from, &there, &onward] {
        let Peeked::Identity(seen) = peek(retired, NAMESPACE).await.unwrap() else { panic!("it has one") };
        assert!(seen.copied.is_some_and(|copied| copied.is_complete));
    }
}
