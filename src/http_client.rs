//! What every HTTP call shares: how a client is built, and what is read from an answer.

pub(crate) mod body;
pub(crate) mod coding;
pub(crate) mod credential;
pub(crate) mod proxy;
pub(crate) mod retry_after;
pub(crate) mod text;
pub(crate) mod traceparent;
pub(crate) mod url_secrets;

use std::error::Error;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Url};
use tokio::time::Instant;

use self::proxy::Proxies;

/// Idle connections kept for one host: all, so that full load does not reconnect. There are never more than the slots of a
/// stage, and each is closed after [`MAX_IDLE`].
const MAX_IDLE_PER_HOST: usize = usize::MAX;
/// An idle connection is closed after this time.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// A silent peer is probed after this time, so that a long wait for a model survives NAT and notices a dead host.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// Longer limits are as good as none, and adding them to the clock could overflow.
const LONGEST_WAIT: Duration = Duration::from_hours(366 * 24);
/// Longest content type that is repeated in a message, in characters.
const MAX_CONTENT_TYPE_CHARS: usize = 64;

/// Makes ring the process's TLS cryptography, unless one is installed already. Constructors of adapters that may
/// speak TLS call it; calling it again changes nothing.
pub(crate) fn install_tls() {
    // An error says that a provider was installed before, which is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Most headers that an answer may have: a chain of proxies adds some each.
const MAX_HEADERS: usize = 256;

/// A client that makes exactly the calls it is asked to, through no proxy but these: no redirects, no retries,
/// no compression. `connect_timeout` covers name resolution, TCP and TLS. Without `https`, the system's CA certificates
/// are not loaded (which takes tens of milliseconds), and calls to https fail.
pub(crate) fn client(
    connect_timeout: Duration,
    https: bool,
    proxies: &Proxies,
) -> Result<Client, reqwest::Error> {
    install_tls();
    let https = https || proxies.uses_tls();
    let builder = || {
        proxies
            .apply(Client::builder())
            .user_agent(concat!("throughline/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_max_headers(MAX_HEADERS)
            .tcp_nodelay(true)
            .tcp_keepalive(TCP_KEEPALIVE)
            .pool_idle_timeout(MAX_IDLE)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
    };
    if !https {
        return builder().tls_certs_only([]).build();
    }
    builder().build().or_else(|error| {
        // A container without CA certificates can still reach plain-HTTP services; https then fails call by call.
        let client = builder().tls_certs_only([]).build().map_err(|_| error)?;
        tracing::warn!("no CA certificates on this system: https calls will fail; install ca-certificates");
        Ok(client)
    })
}

/// The instant at which a limit that starts now is over.
pub(crate) fn after(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST_WAIT)
}

/// Where a call went and the innermost cause of its failure, without the URL's path and query (they may hold secrets).
pub(crate) fn describe(url: &Url, error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    // With nothing beneath it, reqwest's own text would include the URL.
    let cause = if error.source().is_some() { cause.to_string() } else { "the call failed".to_owned() };
    match (url.host_str(), url.port_or_known_default()) {
        (Some(host), Some(port)) => format!("{host}:{port}: {cause}"),
        _ => cause,
    }
}

/// The content type, fit for a message.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).map_or_else(
        || "no content type".to_owned(),
        |value| text::one_line(&String::from_utf8_lossy(value.as_bytes()), MAX_CONTENT_TYPE_CHARS),
    )
}

/// The compression that an answer claims although none was asked for.
pub(crate) fn unwanted_encoding(headers: &HeaderMap) -> Option<String> {
    let encoding = String::from_utf8_lossy(headers.get(CONTENT_ENCODING)?.as_bytes());
    (!encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"))
        .then(|| text::one_line(&encoding, MAX_CONTENT_TYPE_CHARS))
}

/// JSON text without the byte order mark that some servers put before it.
pub(crate) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}
