//! What a database knows of the namespaces that use it; the same story for each kind (`tests/live/postgres/namespaces.rs`).

mod story;

use throughline::storage::Peeked;

#[tokio::test]
async fn an_sqlite_file_knows_its_namespaces() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/a.db", dir.path().display());
    story::story(&url, Peeked::Missing).await;
}
