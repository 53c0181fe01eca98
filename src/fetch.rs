//! Data sources over HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    InvalidHeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::source::{FetchCall, FetchError, Method, Sources};
use throughline_schemas::TraceParent;
use tokio::time::timeout_at;

pub use crate::http_client::credential::Credential;
use crate::http_client::{self, body, credential::Redactor, retry_after};

/// Longest time for resolving a name, connecting and TLS; the call's own limit is usually shorter.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Headers that the adapter or the protocol decides.
const RESERVED: [HeaderName; 6] =
    [ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE];
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// One source: its name and the headers that go with every call to it.
#[derive(Clone, Debug)]
pub struct HttpSource {
    /// As [`FetchCall::source`] has it.
    pub name: String,
    /// Sent besides `accept: application/json` (which they may replace) and `traceparent`.
    pub headers: Vec<(HeaderName, HeaderText)>,
}

/// The value of a configured header.
#[derive(Clone, Debug)]
pub enum HeaderText {
    /// Not secret.
    Plain(String),
    /// `prefix` (`Bearer `, say), then a secret. The secret is removed from the source's answers, should it echo it.
    Secret {
        /// Not secret.
        prefix: String,
        /// The rest.
        secret: Credential,
    },
}

/// Why the data sources cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HttpSourcesError {
    /// The HTTP library refused its settings.
    #[error("the HTTP client for the data sources cannot be made")]
    Client(#[source] reqwest::Error),
    /// Two sources of one name.
    #[error("two data sources are named {0:?}; rename one")]
    Duplicate(String),
    /// A value with line breaks or other control characters.
    #[error(
        "the value of the header {header} of the source {source_name:?} has characters that no header can have"
    )]
    Header {
        /// The source.
        source_name: String,
        /// The header.
        header: HeaderName,
        /// The library's words, which do not repeat the value.
        #[source]
        reason: InvalidHeaderValue,
    },
    /// A header that is not the configuration's to set.
    #[error(
        "the source {source_name:?} must not set the header {header}, which the HTTP client decides; remove it"
    )]
    Reserved {
        /// The source.
        source_name: String,
        /// The header.
        header: HeaderName,
    },
}

/// [`Sources`] over HTTP/1.1 (TLS by rustls), one pool of connections for all of them.
///
/// A call is one GET or POST. Redirects, retries, proxies from the environment and compression are off. Bodies are read in
/// pieces up to the call's cap.
pub struct HttpSources {
    client: Client,
    sources: HashMap<String, Prepared>,
    clock: Arc<dyn Clock>,
}

struct Prepared {
    headers: HeaderMap,
    redactor: Redactor,
}

impl HttpSources {
    /// Prepares the headers of all sources. `clock` is asked when a source names a date to wait for.
    pub fn new(specs: Vec<HttpSource>, clock: Arc<dyn Clock>) -> Result<Self, HttpSourcesError> {
        let client = http_client::client(CONNECT_TIMEOUT, true, &crate::http_client::proxy::Proxies::none())
            .map_err(HttpSourcesError::Client)?;
        let mut sources = HashMap::with_capacity(specs.len());
        for HttpSource { name, headers } in specs {
            if sources.contains_key(&name) {
                return Err(HttpSourcesError::Duplicate(name));
            }
            let prepared = Prepared::new(&name, headers)?;
            sources.insert(name, prepared);
        }
        Ok(Self { client, sources, clock })
    }

    async fn call(&self, source: &Prepared, call: &FetchCall) -> Result<Value, FetchError> {
        let url = Url::parse(&call.url)
            .map_err(|error| FetchError::Misconfigured(format!("its URL is not valid: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Misconfigured(format!(
                "its URL starts with {}:, not http(s):",
                url.scheme()
            )));
        }
        let mut headers = source.headers.clone();
        for (name, value) in &call.headers {
            let (name, value) = filled_header(name, value)?;
            headers.insert(name, value);
        }
        if call.body.is_some() {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        let method = match call.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
        };
        let mut request = self
            .client
            .request(method, url.clone())
            .headers(headers)
            .header(TRACEPARENT, traceparent(call.traceparent));
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let deadline = http_client::after(call.timeout);
        let broken = |error: &reqwest::Error| FetchError::Unreachable(http_client::describe(&url, error));
        let response = timeout_at(deadline, request.send())
            .await
            .map_err(|_| FetchError::TimedOut(call.timeout))?
            .map_err(|error| broken(&error))?;
        self.check_status(&response)?;
        if let Some(encoding) = http_client::unwanted_encoding(response.headers()) {
            return Err(FetchError::NotJson(format!(
                "it is compressed ({encoding}), which was not asked for"
            )));
        }
        let content_type = http_client::content_type(response.headers());
        let limits = body::BodyLimits { max_bytes: call.max_bytes, between_pieces: None, deadline };
        let body = body::read(response, limits).await.map_err(|error| match error {
            body::BodyError::TooLarge => FetchError::TooLarge(call.max_bytes),
            body::BodyError::Stalled | body::BodyError::Late => FetchError::TimedOut(call.timeout),
            body::BodyError::Broken(error) => broken(&error),
        })?;
        // serde_json says what it expected and where, not what it found.
        let mut value = serde_json::from_slice(http_client::without_bom(&body))
            .map_err(|error| FetchError::NotJson(format!("{error} ({content_type})")))?;
        source.redactor.json(&mut value);
        Ok(value)
    }

    fn check_status(&self, response: &Response) -> Result<(), FetchError> {
        let retry_after = || retry_after::from_headers(response.headers(), self.clock.now());
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_FOUND | StatusCode::GONE => {
                Err(FetchError::NotFound(response.status().as_u16()))
            }
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(FetchError::RateLimited { retry_after: retry_after() }),
            status
                if status.is_server_error()
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY) =>
            {
                Err(FetchError::Server { status: status.as_u16(), retry_after: retry_after() })
            }
            status => Err(FetchError::Refused(status.as_u16())),
        }
    }
}

impl Prepared {
    fn new(source: &str, specs: Vec<(HeaderName, HeaderText)>) -> Result<Self, HttpSourcesError> {
        let mut headers = HeaderMap::with_capacity(specs.len() + 2);
        let mut secrets = Vec::new();
        for (header, text) in specs {
            if header == TRACEPARENT || RESERVED.contains(&header) {
                return Err(HttpSourcesError::Reserved { source_name: source.to_owned(), header });
            }
            let value = match text {
                HeaderText::Plain(text) => HeaderValue::try_from(text),
                HeaderText::Secret { prefix, secret } => {
                    let value = secret.header(&prefix);
                    secrets.push(secret);
                    value
                }
            };
            let value = value.map_err(|reason| HttpSourcesError::Header {
                source_name: source.to_owned(),
                header: header.clone(),
                reason,
            })?;
            headers.append(header, value);
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        Ok(Self { headers, redactor: Redactor::new(&secrets) })
    }
}

#[async_trait]
impl Sources for HttpSources {
    async fn fetch(&self, call: &FetchCall) -> Result<Value, FetchError> {
        let source = self.sources.get(&call.source).ok_or_else(|| {
            FetchError::Misconfigured(format!(
                "no source is named {:?}; add it under [[sources]]",
                call.source
            ))
        })?;
        self.call(source, call).await
    }
}

/// A header of one call. Its value is from the message, which is not repeated, and may have what no header can have.
fn filled_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), FetchError> {
    let header = HeaderName::try_from(name)
        .ok()
        .filter(|header| *header != TRACEPARENT && !RESERVED.contains(header))
        .ok_or_else(|| FetchError::Misconfigured(format!("it must not set the header {name}")))?;
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        FetchError::Misconfigured(format!(
            "what the message gives for its header {name} has line breaks or other control characters"
        ))
    })?;
    Ok((header, value))
}

/// The trace context as a header.
pub(crate) fn traceparent(parent: TraceParent) -> HeaderValue {
    // Hexadecimal digits and hyphens are always a valid value.
    HeaderValue::try_from(parent.to_string()).unwrap_or(HeaderValue::from_static(""))
}
