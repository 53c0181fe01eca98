//! TLS and SCRAM: what a server on another machine asks for.

use std::path::Path;

use sqlx::{Connection, Executor, PgConnection, Row};
use throughline::storage::postgres::PostgresStore;
use throughline_actors::ports::store::Store;

use super::{CONNECTIONS, NAMESPACE, material::*, open};
use crate::{
    harness::{certificates::self_signed, eventually},
    postgres_server::PostgresServer,
};

#[tokio::test]
async fn a_server_with_a_certificate_is_spoken_to_in_secret() {
    let (ours, another) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    if !self_signed(ours.path(), "localhost") || !self_signed(another.path(), "localhost") {
        return;
    }
    let Some(server) = PostgresServer::start_with_tls().await else { return };
    let database = server.database().await;
    let mut operator = PgConnection::connect(&database).await.unwrap();
    server.take_certificate(ours.path()).await;
    // From now on only over TLS, and only with SCRAM.
    let only = "COPY (VALUES ('local all all trust'), ('hostssl all all all scram-sha-256')) TO PROGRAM 'cat > pg_hba.conf'";
    operator.execute(only).await.unwrap();
    operator.execute("SELECT pg_reload_conf()").await.unwrap();

    let with = |mode: &str| {
        database.replace("127.0.0.1", "localhost").replace("sslmode=disable", &format!("sslmode={mode}"))
    };
    let trusted = |dir: &Path| with(&format!("verify-full&sslrootcert={}", dir.join("cert.pem").display()));
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    eventually("the server takes TLS", async || PgConnection::connect(&with("require")).await.ok()).await;
    for url in [with("prefer"), with("require"), trusted(ours.path())] {
        let store = open(&url).await;
        store.save(interaction("w", "s", 1)).await.unwrap();
        store.ping().await.unwrap();
        store.close().await;
        let mut look = PgConnection::connect(&url).await.unwrap();
        assert!(look.fetch_one(encrypted).await.unwrap().get::<bool, _>(0), "{url}");
    }
    // Somebody else's certificate, another host, and a client that would speak in the open.
    let another_host = trusted(ours.path()).replace("localhost", "127.0.0.1");
    for url in [trusted(another.path()), with("verify-full"), another_host, with("disable")] {
        let refused = PostgresStore::open(&url, CONNECTIONS, NAMESPACE).await;
        assert!(refused.is_err(), "{url}");
    }
}
