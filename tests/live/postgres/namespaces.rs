//! What a database knows of the namespaces that use it.

#[path = "../../wire/namespaces/story.rs"]
mod story;

use throughline::storage::Peeked;

use crate::postgres_server::PostgresServer;

#[tokio::test]
async fn a_postgres_database_knows_its_namespaces() {
    let Some(server) = PostgresServer::shared().await else { return };
    story::story(&server.database().await, Peeked::Nothing).await;
}
