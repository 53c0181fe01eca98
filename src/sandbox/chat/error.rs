use std::borrow::Cow;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Serialize;

use crate::sandbox::respond::json;

/// An error as the `OpenAI` API words it: all four keys, always.
#[derive(Debug, Serialize)]
pub(in crate::sandbox) struct ApiError {
    #[serde(skip)]
    status: StatusCode,
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<Cow<'static, str>>,
    code: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a ApiError,
}

impl ApiError {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            kind: "invalid_request_error",
            param: None,
            code: None,
        }
    }

    pub(super) fn param(self, param: impl Into<Cow<'static, str>>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn model_not_found(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            ..Self::invalid(format!(
                "The model `{model}` does not exist or you do not have access to it. GET /v1/models lists those of the sandbox."
            ))
            .code("model_not_found")
        }
    }

    pub(super) fn unreadable(status: StatusCode) -> Self {
        Self { status, ..Self::invalid("The request body could not be read or is too large.") }
    }

    pub(in crate::sandbox) fn invalid_url(method: &Method, path: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::invalid(format!("Invalid URL ({method} {path})")) }
    }

    pub(in crate::sandbox) fn method_not_allowed(method: &Method, path: &str) -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Self::invalid(format!("Not allowed to {method} on {path}.")).code("method_not_supported")
        }
    }

    /// What the API would say with this status, for a fault that does not bring its own body.
    pub(in crate::sandbox) fn injected(status: StatusCode) -> Self {
        let (kind, code, message) = match status {
            StatusCode::UNAUTHORIZED => {
                ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided.")
            }
            StatusCode::TOO_MANY_REQUESTS => (
                "requests",
                Some("rate_limit_exceeded"),
                "Rate limit reached for requests. Please try again later.",
            ),
            StatusCode::SERVICE_UNAVAILABLE => {
                ("server_error", None, "The engine is currently overloaded, please try again later.")
            }
            status if status.is_server_error() => {
                ("server_error", None, "The server had an error while processing your request.")
            }
            _ => ("invalid_request_error", None, "The request was refused."),
        };
        Self { status, message: message.to_owned(), kind, param: None, code }
    }

    pub(in crate::sandbox) fn into_response(self) -> Response {
        json(self.status, &Body { error: &self })
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (u16, Option<&str>, Option<&str>) {
        (self.status.as_u16(), self.param.as_deref(), self.code)
    }
}
