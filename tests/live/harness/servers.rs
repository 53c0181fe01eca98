//! The event bus of a deployment: one nats-server, or three that are one cluster.

use std::path::{Path, PathBuf};

use super::{Nodes, nodes::NODES};
use crate::nats_server::NatsServer;

pub enum Servers {
    One(NatsServer),
    Three(Nodes),
}

/// Whose rights a cluster's processes and its test have where there are accounts.
const ROLE: &str = "admin";

impl Servers {
    pub fn one(store: Option<&Path>) -> Option<Self> {
        NatsServer::start_on(store, &[]).map(Self::One)
    }

    pub async fn three() -> Option<Self> {
        Nodes::start().await.map(Self::Three)
    }

    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Three(nodes) => nodes.urls(),
        }
    }

    /// How a configuration names them.
    pub fn settings(&self) -> String {
        match self {
            Self::One(server) => format!("nats.url = {:?}", server.url()),
            Self::Three(nodes) => nodes.settings(ROLE),
        }
    }

    /// A client that may do everything.
    pub async fn connect(&self) -> async_nats::Client {
        match self {
            Self::One(server) => async_nats::connect(server.url()).await.expect("a NATS client"),
            Self::Three(nodes) => nodes.connect(ROLE, None).await,
        }
    }

    /// All of them crash.
    pub fn kill(&mut self) {
        match self {
            Self::One(server) => server.kill(),
            Self::Three(nodes) => (0..NODES).for_each(|at| nodes.kill(at)),
        }
    }

    /// They come back with the same stores on the same ports.
    pub fn restart(&mut self) {
        match self {
            Self::One(server) => server.restart(),
            Self::Three(nodes) => (0..NODES).for_each(|at| nodes.run(at)),
        }
    }

    /// The folder of each of them.
    pub fn dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::One(server) => vec![server.dir().to_owned()],
            Self::Three(nodes) => (0..NODES).map(|at| nodes.node_dir(at)).collect(),
        }
    }

    /// The folder of the one server.
    pub fn dir(&self) -> &Path {
        match self {
            Self::One(server) => server.dir(),
            Self::Three(_) => panic!("each of three servers has a folder of its own"),
        }
    }

    /// The process of the one server, if it is one of this machine.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::One(server) => server.pid(),
            Self::Three(_) => panic!("each of three servers is a process of its own"),
        }
    }
}
