//! Data sources over HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use percent_encoding::NON_ALPHANUMERIC;
use reqwest::header::{
    ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONNECTION, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_TYPE, FROM, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue, PRAGMA, TE,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use throughline_actors::policy::memory::FREE_ANSWER_BYTES;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::source::{FetchCall, FetchError, Method, Sources};
use throughline_schemas::{Document, JsonProblem, MAX_DEPTH};
use tokio::time::timeout_at;

pub use crate::http_client::credential::Credential;
use crate::http_client::{
    self, body,
    credential::Redactor,
    proxy::{Proxies, ProxyError},
    retry_after,
    traceparent::{TRACEPARENT, traceparent},
};

/// Longest time for resolving a name, connecting and TLS; the call's own limit is usually shorter.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Headers that the adapter or the protocol decides.
const RESERVED: [HeaderName; 6] =
    [ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE];

/// Headers of requests that say how to answer and never who asks. All others of the configuration are taken for secrets.
const NO_SECRETS: [HeaderName; 9] = [
    ACCEPT,
    ACCEPT_CHARSET,
    ACCEPT_LANGUAGE,
    CACHE_CONTROL,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    FROM,
    PRAGMA,
    USER_AGENT,
];

/// Whether the value of this header is no secret, whatever it is.
pub(crate) fn is_no_secret(header: &str) -> bool {
    NO_SECRETS.iter().any(|name| name.as_str().eq_ignore_ascii_case(header))
}

/// One source: its name, and what goes with every call to it.
#[derive(Clone, Debug, Default)]
pub struct HttpSource {
    /// As [`FetchCall::source`] has it.
    pub name: String,
    /// Sent besides `accept: application/json` (which they may replace) and `traceparent`. All but those that tell nothing
    /// of the caller (`accept-language`, say) are removed from the source's answers, should it echo them.
    pub headers: Vec<(HeaderName, HeaderText)>,
    /// What stands in the URL of a call for a secret, as `{env:NAME}`, and its value, which is put in percent-encoded.
    pub url_secrets: Vec<(String, Credential)>,
    /// Secrets that stand in the URL itself; removed from answers, too.
    pub in_url: Vec<Credential>,
    /// Through which proxies it is asked. The default is none.
    pub proxies: Proxies,
}

/// The value of a configured header.
#[derive(Clone, Debug)]
pub enum HeaderText {
    /// Written in the configuration.
    Plain(String),
    /// `prefix` (`Bearer `, say), then a secret.
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
    /// A proxy that cannot be used.
    #[error(
        "the data source {source_name:?} cannot be asked through its proxy; correct its `proxy`, HTTP_PROXY or HTTPS_PROXY"
    )]
    Proxy {
        /// The source.
        source_name: String,
        /// Why not.
        #[source]
        reason: ProxyError,
    },
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

/// [`Sources`] over HTTP/1.1 (TLS by rustls), one pool of connections for all that have the same proxies.
///
/// A call is one GET or POST. Redirects, retries and compression are off. Bodies are read in
/// pieces up to the call's cap.
pub struct HttpSources {
    sources: HashMap<String, Prepared>,
    clock: Arc<dyn Clock>,
}

struct Prepared {
    client: Client,
    headers: HeaderMap,
    url_secrets: Vec<(String, String)>,
    redactor: Redactor,
}

impl HttpSources {
    /// Prepares the headers of all sources. `clock` is asked when a source names a date to wait for.
    pub fn new(specs: Vec<HttpSource>, clock: Arc<dyn Clock>) -> Result<Self, HttpSourcesError> {
        let mut clients: Vec<(Proxies, Client)> = Vec::new();
        let mut sources = HashMap::with_capacity(specs.len());
        for spec in specs {
            if sources.contains_key(&spec.name) {
                return Err(HttpSourcesError::Duplicate(spec.name));
            }
            if let Err(reason) = spec.proxies.check() {
                return Err(HttpSourcesError::Proxy { source_name: spec.name, reason });
            }
            let known = clients.iter().find(|(proxies, _)| *proxies == spec.proxies);
            let client = if let Some((_, client)) = known {
                client.clone()
            } else {
                let client = http_client::client(CONNECT_TIMEOUT, true, &spec.proxies)
                    .map_err(HttpSourcesError::Client)?;
                clients.push((spec.proxies.clone(), client.clone()));
                client
            };
            let (name, prepared) = Prepared::new(spec, client)?;
            sources.insert(name, prepared);
        }
        Ok(Self { sources, clock })
    }

    async fn call(&self, source: &Prepared, call: &FetchCall) -> Result<Document, FetchError> {
        let url = Url::parse(&source.filled(&call.url))
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
        let mut request = source
            .client
            .request(method, url.clone())
            .headers(headers)
            .header(TRACEPARENT, traceparent(call.traceparent));
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let ask_again = request.try_clone();
        let (content_type, body) = match self.answer(request, &url, call).await? {
            Answered::Whole(content_type, body) => (content_type, body),
            // Nobody keeps a source waiting in the middle of its answer, which would end as its failure. It is asked again
            // when there is memory for what it answers.
            Answered::NoRoom(bytes) => {
                call.room.take(bytes).await;
                let request = ask_again
                    .ok_or_else(|| FetchError::Misconfigured("it cannot be asked again".to_owned()))?;
                match self.answer(request, &url, call).await? {
                    Answered::Whole(content_type, body) => (content_type, body),
                    Answered::NoRoom(_) => return Err(FetchError::TooLarge(call.max_bytes)),
                }
            }
        };
        // It says what is wrong and where, not what is there.
        let document = Document::read(&body)
            .map_err(|problem| FetchError::NotJson(format!("{} ({content_type})", in_words(&problem))))?;
        Ok(source.redactor.document(document))
    }

    /// Asks once.
    async fn answer(
        &self,
        request: RequestBuilder,
        url: &Url,
        call: &FetchCall,
    ) -> Result<Answered, FetchError> {
        let deadline = http_client::after(call.timeout);
        let broken = |error: &reqwest::Error| FetchError::Unreachable(http_client::describe(url, error));
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
        let has_room = |bytes| call.room.take_now(bytes);
        match body::read_where(response, limits, FREE_ANSWER_BYTES, has_room).await {
            Ok(body) => Ok(Answered::Whole(content_type, body)),
            Err(body::BodyError::NoRoom(bytes)) => Ok(Answered::NoRoom(bytes)),
            Err(body::BodyError::TooLarge) => Err(FetchError::TooLarge(call.max_bytes)),
            Err(body::BodyError::Stalled | body::BodyError::Late) => Err(FetchError::TimedOut(call.timeout)),
            Err(body::BodyError::Broken(error)) => Err(broken(&error)),
        }
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

/// What came of asking once.
enum Answered {
    /// The content type and the body.
    Whole(String, Bytes),
    /// There is no memory now for an answer of so many bytes.
    NoRoom(usize),
}

impl Prepared {
    fn new(spec: HttpSource, client: Client) -> Result<(String, Self), HttpSourcesError> {
        let HttpSource { name: source, headers: texts, url_secrets, in_url, proxies: _ } = spec;
        let mut headers = HeaderMap::with_capacity(texts.len() + 2);
        let mut secrets = in_url;
        for (header, text) in texts {
            if header == TRACEPARENT || RESERVED.contains(&header) {
                return Err(HttpSourcesError::Reserved { source_name: source, header });
            }
            let value = match text {
                HeaderText::Plain(text) if is_no_secret(header.as_str()) => HeaderValue::try_from(text),
                HeaderText::Plain(text) => {
                    let value = HeaderValue::try_from(&text);
                    // As a whole, and without what stands before it, as `Bearer` does.
                    secrets.extend(text.rsplit(' ').next().map(Credential::new));
                    secrets.push(Credential::new(text));
                    value
                }
                HeaderText::Secret { prefix, secret } => {
                    let value = secret.header(&prefix);
                    secrets.push(secret);
                    value
                }
            };
            let value = value.map_err(|reason| HttpSourcesError::Header {
                source_name: source.clone(),
                header: header.clone(),
                reason,
            })?;
            headers.append(header, value);
        }
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        secrets.extend(url_secrets.iter().map(|(_, secret)| secret.clone()));
        let redactor = Redactor::new(&secrets);
        let url_secrets = url_secrets.into_iter().map(|(name, secret)| {
            (name, percent_encoding::utf8_percent_encode(secret.expose(), NON_ALPHANUMERIC).to_string())
        });
        Ok((source, Self { client, headers, url_secrets: url_secrets.collect(), redactor }))
    }

    /// A call's URL with the secrets in it. What a message gave has no braces any more.
    fn filled(&self, url: &str) -> String {
        self.url_secrets.iter().fold(url.to_owned(), |url, (name, value)| url.replace(name, value))
    }

    /// The error without secrets, now that nothing of it is decoded any more.
    fn redacted(&self, mut error: FetchError) -> FetchError {
        match &mut error {
            FetchError::Unreachable(said) | FetchError::NotJson(said) | FetchError::Misconfigured(said) => {
                self.redactor.text(said);
            }
            FetchError::TimedOut(_)
            | FetchError::NotFound(_)
            | FetchError::RateLimited { .. }
            | FetchError::Server { .. }
            | FetchError::Refused(_)
            | FetchError::TooLarge(_) => {}
        }
        error
    }
}

#[async_trait]
impl Sources for HttpSources {
    async fn fetch(&self, call: &FetchCall) -> Result<Document, FetchError> {
        let source = self.sources.get(&call.source).ok_or_else(|| {
            FetchError::Misconfigured(format!(
                "no source is named {:?}; add it under [[sources]]",
                call.source
            ))
        })?;
        self.call(source, call).await.map_err(|error| source.redacted(error))
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

/// What is wrong with an answer and where, without anything that stands in it.
fn in_words(problem: &JsonProblem) -> String {
    match problem {
        JsonProblem::NotANumber { path: _, name, place } => format!("{name} at {place} is no number of JSON"),
        JsonProblem::TooDeep(place) => format!("it is nested more than {MAX_DEPTH} levels deep at {place}"),
        JsonProblem::Utf16
        | JsonProblem::NotUtf8(_)
        | JsonProblem::ByteOrderMark(_)
        | JsonProblem::Syntax(_) => problem.to_string(),
    }
}
