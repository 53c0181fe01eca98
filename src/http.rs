//! stub
#![allow(missing_docs)]
use std::net::SocketAddr;
use std::sync::Arc;
use throughline_actors::{
    engine::Observer,
    ports::{bus::Bus, store::Store},
};
pub struct HttpState {
    pub observer: Option<Observer>,
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub metrics: (),
}
pub struct HttpServer(SocketAddr);
impl HttpServer {
    pub async fn start(a: SocketAddr, _: HttpState) -> std::io::Result<Self> {
        Ok(Self(a))
    }
    pub fn address(&self) -> SocketAddr {
        self.0
    }
    pub async fn shutdown(self) {}
}
