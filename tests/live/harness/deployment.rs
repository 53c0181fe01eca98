//! The two deployments in which a story is told that must hold in all: one server and a file; three servers and PostgreSQL.

use super::cluster::Parts;
use crate::postgres_server::PostgresServer;

pub enum Deployment {
    Small,
    Large { server: &'static PostgresServer, database: String, url: String },
}

impl Deployment {
    /// Three servers with accounts and a new database of the PostgreSQL that tests share, or says why this machine cannot.
    pub async fn large() -> Option<Self> {
        let server = PostgresServer::shared().await?;
        let database = server.new_database().await;
        Some(Self::Large { server, url: server.url(&database), database })
    }

    pub fn parts(&self) -> Parts<'_> {
        match self {
            Self::Small => Parts::default(),
            Self::Large { url, .. } => {
                Parts { database_url: Some(url), three_servers: true, ..Parts::default() }
            }
        }
    }
}
