//! Export of traces by OTLP over HTTP (protobuf), set up by the variables that all OpenTelemetry SDKs share.
//!
//! | variable | meaning, default |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_ENDPOINT` | base URL of the collector, such as `http://127.0.0.1:4318`; not set: no export |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the whole URL, instead |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `..._TRACES_HEADERS` | `name=value,...`, percent-encoded; never shown |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, `..._TRACES_TIMEOUT` | limit of one export in milliseconds, 10000 |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `..._TRACES_PROTOCOL` | only `http/protobuf` |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who we are, `throughline` |
//! | `OTEL_TRACES_SAMPLER`, `..._ARG` | `parentbased_always_on` |
//! | `OTEL_BSP_MAX_QUEUE_SIZE` | spans that may wait, 2048; more are dropped |
//! | `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none` | no export |

use std::{collections::HashMap, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchSpanProcessor, SdkTracerProvider},
};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::runtime::Handle;

use super::exporter::OnRuntime;
use crate::config::Env;

/// Limit on connecting to the collector.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Default limit on one export, as the specification has it.
const EXPORT_LIMIT: Duration = Duration::from_secs(10);
const SERVICE_NAME: &str = "throughline";
const PATH: &str = "v1/traces";

/// Why traces cannot be exported. Endpoints and headers may hold secrets and are not repeated.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The address of the collector.
    #[error("{variable} is no URL of an OTLP collector; use one such as http://127.0.0.1:4318")]
    Endpoint {
        /// Which variable.
        variable: &'static str,
    },
    /// A protocol that we do not speak.
    #[error(
        "{variable} is {value:?}, but traces are only sent as http/protobuf; set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL to \
         that, and the endpoint to the collector's HTTP port (4318 by default)"
    )]
    Protocol {
        /// Which variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// A header.
    #[error("{variable} is not of the form name=value,name=value")]
    Headers {
        /// Which variable.
        variable: &'static str,
    },
    /// The time limit.
    #[error("{variable} is {value:?}; use a number of milliseconds above 0")]
    Timeout {
        /// Which variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// The HTTP client.
    #[error("the HTTP client for the export of traces cannot be made")]
    Client(#[source] reqwest::Error),
    /// The exporter.
    #[error("the exporter of traces cannot be made")]
    Exporter(#[source] ExporterBuildError),
}

/// What a variable says: the one for traces, else the one for all signals, if not empty; with the variable's name.
fn setting<'e>(env: &'e Env, names: [&'static str; 2]) -> Option<(&'static str, &'e str)> {
    names.into_iter().find_map(|name| {
        let value = env.get(name)?.trim();
        (!value.is_empty()).then_some((name, value))
    })
}

/// What exports traces, if any does.
pub(super) fn provider(env: &Env, runtime: &Handle) -> Result<Option<SdkTracerProvider>, OtlpError> {
    let is =
        |name: &str, value: &str| env.get(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let Some(endpoint) = endpoint(env)? else { return Ok(None) };
    check_protocol(env)?;
    let limit = timeout(env)?;
    let client = crate::http_client::client(
        CONNECT_LIMIT,
        endpoint.starts_with("https:"),
        &crate::http_client::proxy::Proxies::none(),
    )
    .map_err(OtlpError::Client)?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_headers(headers(env)?)
        .with_timeout(limit)
        .with_http_client(client)
        .build()
        .map_err(OtlpError::Exporter)?;
    let exporter = OnRuntime::new(exporter, runtime.clone(), limit);
    let processor = BatchSpanProcessor::builder(exporter).build();
    Ok(Some(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource(env)).build()))
}

fn endpoint(env: &Env) -> Result<Option<String>, OtlpError> {
    const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let Some((variable, text)) = setting(env, [WHOLE, "OTEL_EXPORTER_OTLP_ENDPOINT"]) else {
        return Ok(None);
    };
    let wrong = OtlpError::Endpoint { variable };
    let text =
        if variable == WHOLE { text.to_owned() } else { format!("{}/{PATH}", text.trim_end_matches('/')) };
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Some(url.into())),
        Ok(_) | Err(_) => Err(wrong),
    }
}

fn check_protocol(env: &Env) -> Result<(), OtlpError> {
    match setting(env, ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]) {
        None | Some((_, "http/protobuf")) => Ok(()),
        Some((variable, value)) => Err(OtlpError::Protocol { variable, value: value.to_owned() }),
    }
}

fn timeout(env: &Env) -> Result<Duration, OtlpError> {
    match setting(env, ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]) {
        None => Ok(EXPORT_LIMIT),
        Some((variable, value)) => match value.parse() {
            Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
            Ok(_) | Err(_) => Err(OtlpError::Timeout { variable, value: value.to_owned() }),
        },
    }
}

fn headers(env: &Env) -> Result<HashMap<String, String>, OtlpError> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
    let Some((variable, text)) = setting(env, names) else { return Ok(HashMap::new()) };
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        // The exporter would leave out, silently, what is no header.
        reqwest::header::HeaderName::try_from(name.trim()).ok()?;
        reqwest::header::HeaderValue::try_from(value.as_ref()).ok()?;
        Some((name.trim().to_owned(), value.into_owned()))
    };
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| header(pair).ok_or(OtlpError::Headers { variable }))
        .collect()
}

/// Who we are. The builder itself reads `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(env: &Env) -> Resource {
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
    ]);
    let names =
        |attributes: &String| attributes.split(',').any(|pair| pair.trim().starts_with("service.name="));
    if let Some(name) = env.get("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        resource = resource.with_service_name(name.clone());
    } else if !env.get("OTEL_RESOURCE_ATTRIBUTES").is_some_and(names) {
        resource = resource.with_service_name(SERVICE_NAME);
    }
    resource.build()
}
