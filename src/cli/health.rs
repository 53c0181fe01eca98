//! `throughline health`: asks a running worker whether it is ready, where there is no shell and no curl to ask with.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;

use super::{Exit, Failure, output};
use crate::{
    config::Config,
    http_client::{
        self,
        body::{self, BodyLimits},
    },
};

/// How long connecting and the answer may take together.
const LIMIT: Duration = Duration::from_secs(2);
/// Largest answer read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Prints what `/readyz` of the worker at `http.listen` says.
pub(super) async fn run(config: &Config) -> Result<(), Failure> {
    let address = reachable(config.http.listen);
    let unavailable = |why: &str| Failure {
        exit: Exit::Unavailable,
        message: format!("no worker answers at {address} (http.listen): {why}"),
    };
    let client = http_client::client(LIMIT, false, &crate::http_client::proxy::Proxies::none())
        .map_err(Failure::failed)?;
    let asked = async {
        let response = client.get(format!("http://{address}/readyz")).send().await?;
        Ok::<_, reqwest::Error>((response.status(), response))
    };
    let deadline = Instant::now() + LIMIT;
    let (status, response) = match tokio::time::timeout_at(deadline, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unavailable(&error.without_url().to_string())),
        Err(_) => return Err(unavailable("no answer in time")),
    };
    let limits = BodyLimits { max_bytes: MAX_BYTES, between_pieces: None, deadline };
    let text = body::read(response, limits).await.map_err(|_| unavailable("no whole answer"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if status.is_success() { output::line(&text) } else { Err(Failure::failed(text)) }
}

/// An address that listens on every interface is asked on loopback.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_interface_is_asked_on_loopback() {
        for (listen, asked) in
            [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("10.1.2.3:80", "10.1.2.3:80")]
        {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
