//! The three accepted forms of `user_input_received`: bare JSON, structured CloudEvents, binary CloudEvents.

use serde_json::{Map, Value};

use crate::{
    EventType, SessionId, TraceParent, UserId, WorkflowId,
    event::{Redo, input::WhenBusy},
    ids::MAX_ID_BYTES,
    version,
};

/// How large an input may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngressLimits {
    /// Longest `user_input`, in bytes of UTF-8.
    pub max_input_bytes: usize,
    /// Largest `metadata`, in bytes of JSON.
    pub max_metadata_bytes: usize,
}

/// The message cannot be read far enough to be a workflow at all; it becomes a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// The body is empty.
    #[error("the message is empty; send a JSON object with user_id, session_id and user_input")]
    Empty,
    /// The body is not JSON.
    #[error("the message is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The body is JSON, but not an object.
    #[error("the message is JSON but {0}; send an object with user_id, session_id and user_input")]
    NotAnObject(&'static str),
}

/// A readable message that is not acceptable; it becomes a `workflow_failed` with code `invalid_input`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The workflow it would have been.
    pub workflow_id: WorkflowId,
    /// The session, or `unknown`.
    pub session_id: SessionId,
    /// The user, or `unknown`.
    pub user_id: UserId,
    /// The publisher's trace, if it sent one.
    pub traceparent: Option<TraceParent>,
    /// The CloudEvents `id` of the message, if it is a CloudEvent: what its workflow's first event was caused by.
    pub event_id: Option<String>,
    /// The CloudEvents `source`, where the workflow has the CloudEvents `id`, which is unique within its source only.
    pub source: Option<String>,
    /// Everything that is wrong, for a person.
    pub message: String,
}

/// An acceptable message, normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    /// From, in order: `workflow_id` in the data, CloudEvents `id`, `Nats-Msg-Id`, the fallback.
    pub workflow_id: WorkflowId,
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// Trimmed, line ends as `\n`, NUL replaced by U+FFFD.
    pub user_input: String,
    /// Passed through.
    pub metadata: Map<String, Value>,
    /// What to do if the session is busy, if the publisher said so.
    pub when_busy: Option<WhenBusy>,
    /// The earlier workflow that it takes up.
    pub redo: Option<Redo>,
    /// The publisher's trace, if it sent one.
    pub traceparent: Option<TraceParent>,
    /// The CloudEvents `id` of the message, if it is a CloudEvent: what its workflow's first event was caused by.
    pub event_id: Option<String>,
    /// The CloudEvents `source`, where the workflow has the CloudEvents `id`, which is unique within its source only.
    pub source: Option<String>,
}

impl Ingress {
    /// Reads one message. `header` looks a header up by its lower-case name, `fallback` is the workflow id for a
    /// message that names none; it must be the same for each delivery of the same message.
    pub fn read<'h>(
        body: &[u8],
        header: impl Fn(&str) -> Option<&'h str>,
        fallback: WorkflowId,
        limits: &IngressLimits,
    ) -> Result<Result<Self, Box<Refused>>, IngressError> {
        if body.is_empty() {
            return Err(IngressError::Empty);
        }
        let mut top = match serde_json::from_slice(body)? {
            Value::Object(object) => object,
            other
            @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                return Err(IngressError::NotAnObject(kind(&other)));
            }
        };
        let mut form = Form::default();
        let mut data = if header("ce-specversion").is_some() {
            form.binary(&header);
            top
        } else if top.contains_key("specversion") || is_structured(header("content-type")) {
            form.structured(&mut top)
        } else {
            top
        };
        Ok(form.finish(&mut data, &header, fallback, limits))
    }
}

fn is_structured(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("application/cloudevents"))
}

/// What the form of the message contributed, and everything found wrong so far.
#[derive(Default)]
struct Form {
    id: Option<String>,
    source: Option<String>,
    user: Option<String>,
    session: Option<String>,
    traceparent: Option<String>,
    problems: Vec<String>,
}

impl Form {
    fn attributes(&mut self, specversion: Option<&str>, r#type: Option<&str>, schema: Option<&str>) {
        match specversion {
            Some(spec) => self.check(version::check_spec(spec)),
            None => self.problems.push("specversion is missing; CloudEvents 1.0 needs it".to_owned()),
        }
        self.check(version::check_schema(schema));
        match r#type {
            Some(t) if t == EventType::UserInputReceived.as_str() => {}
            Some(t) => self.problems.push(format!("type is {t:?}; it must be \"user_input_received\"")),
            None => self.problems.push("type is missing; it must be \"user_input_received\"".to_owned()),
        }
    }

    fn check(&mut self, result: Result<(), version::VersionError>) {
        if let Err(error) = result {
            self.problems.push(error.to_string());
        }
    }

    /// Binary mode: attributes are percent-encoded `ce-` headers, the body is the data.
    fn binary<'h>(&mut self, header: &impl Fn(&str) -> Option<&'h str>) {
        let attribute = |name| header(name).map(percent_decode);
        self.attributes(
            attribute("ce-specversion").as_deref(),
            attribute("ce-type").as_deref(),
            attribute("ce-dataschema").as_deref(),
        );
        self.id = attribute("ce-id");
        self.source = attribute("ce-source");
        self.user = attribute("ce-userid");
        self.session = attribute("ce-sessionid");
        self.traceparent = attribute("ce-traceparent");
    }

    /// Structured mode: attributes and `data` are members of one object.
    fn structured(&mut self, top: &mut Map<String, Value>) -> Map<String, Value> {
        let specversion = self.text(top, "specversion");
        let r#type = self.text(top, "type");
        let schema = self.text(top, "dataschema");
        self.attributes(specversion.as_deref(), r#type.as_deref(), schema.as_deref());
        self.id = self.text(top, "id");
        self.source = self.text(top, "source");
        self.user = self.text(top, "userid");
        self.session = self.text(top, "sessionid");
        self.traceparent = self.text(top, "traceparent");
        match top.remove("data") {
            Some(Value::Object(data)) => data,
            Some(other) => {
                self.problems.push(format!("data must be an object, it {}", kind(&other)));
                Map::new()
            }
            None if top.contains_key("data_base64") => {
                self.problems.push("data_base64 is not accepted; send data as a JSON object".to_owned());
                Map::new()
            }
            None => {
                self.problems.push("data is missing".to_owned());
                Map::new()
            }
        }
    }

    /// Takes an optional string; another type is a problem, null is absence.
    fn text(&mut self, object: &mut Map<String, Value>, key: &str) -> Option<String> {
        match object.remove(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.problems.push(format!("{key} must be a string, it {}", kind(&other)));
                None
            }
        }
    }

    fn id<T: TryFrom<String, Error = crate::IdError>>(
        &mut self,
        key: &str,
        text: Option<String>,
    ) -> Option<T> {
        match T::try_from(text?) {
            Ok(id) => Some(id),
            Err(error) => {
                self.problems.push(format!("{key} {error}"));
                None
            }
        }
    }

    fn finish<'h>(
        mut self,
        data: &mut Map<String, Value>,
        header: &impl Fn(&str) -> Option<&'h str>,
        fallback: WorkflowId,
        limits: &IngressLimits,
    ) -> Result<Ingress, Box<Refused>> {
        let event_id = self.id.clone().filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        let workflow = self.text(data, "workflow_id");
        let names_itself = workflow.is_none() && self.id.is_some();
        let source = self.source.take().filter(|_| names_itself);
        let workflow = match (workflow, self.id.take(), header("nats-msg-id")) {
            (Some(id), _, _) => self.id("workflow_id", Some(id)),
            (None, Some(id), _) => self.id("the CloudEvents id", Some(id)),
            (None, None, id) => self.id("the Nats-Msg-Id header", id.map(str::to_owned)),
        };
        let user = self.text(data, "user_id").or_else(|| self.user.take());
        let session = self.text(data, "session_id").or_else(|| self.session.take());
        for (key, given) in [("user_id", &user), ("session_id", &session)] {
            if given.is_none() && !self.problems.iter().any(|problem| problem.starts_with(key)) {
                self.problems.push(format!("{key} is missing"));
            }
        }
        let user: Option<UserId> = self.id("user_id", user);
        let session: Option<SessionId> = self.id("session_id", session);
        let user_input = self.user_input(data, limits);
        let metadata = self.metadata(data, limits);
        let when_busy = self.when_busy(data);
        let redo = self.redo(data);
        let traceparent = self
            .traceparent
            .take()
            .or_else(|| header("traceparent").map(str::to_owned))
            .and_then(|text| text.parse().ok());

        let workflow_id = workflow.unwrap_or(fallback);
        match (user, session) {
            (Some(user_id), Some(session_id)) if self.problems.is_empty() => Ok(Ingress {
                workflow_id,
                session_id,
                user_id,
                user_input,
                metadata,
                when_busy,
                redo,
                traceparent,
                event_id,
                source,
            }),
            (user, session) => Err(Box::new(Refused {
                workflow_id,
                session_id: session.unwrap_or_else(SessionId::unknown),
                user_id: user.unwrap_or_else(UserId::unknown),
                traceparent,
                event_id,
                source,
                message: self.problems.join("; "),
            })),
        }
    }

    fn user_input(&mut self, data: &mut Map<String, Value>, limits: &IngressLimits) -> String {
        let known = self.problems.len();
        let Some(text) = self.text(data, "user_input") else {
            if self.problems.len() == known {
                self.problems.push("user_input is missing".to_owned());
            }
            return String::new();
        };
        if text.len() > limits.max_input_bytes {
            self.problems.push(format!(
                "user_input is {} bytes long; at most {} are allowed",
                text.len(),
                limits.max_input_bytes
            ));
        }
        let text = normalise(&text);
        if text.is_empty() {
            self.problems.push("user_input is empty".to_owned());
        }
        text
    }

    fn when_busy(&mut self, data: &mut Map<String, Value>) -> Option<WhenBusy> {
        match self.text(data, "when_busy")?.parse() {
            Ok(when_busy) => Some(when_busy),
            Err(error) => {
                self.problems.push(format!("when_busy: {error}"));
                None
            }
        }
    }

    fn redo(&mut self, data: &mut Map<String, Value>) -> Option<Redo> {
        let given = data.remove("redo").filter(|given| !given.is_null())?;
        match serde_json::from_value(given) {
            Ok(redo) => Some(redo),
            Err(error) => {
                self.problems.push(format!("redo must be {{\"of\": WORKFLOW, \"from\": STAGE}}: {error}"));
                None
            }
        }
    }

    fn metadata(&mut self, data: &mut Map<String, Value>, limits: &IngressLimits) -> Map<String, Value> {
        match data.remove("metadata") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(metadata)) => {
                let bytes = serde_json::to_vec(&metadata).map_or(usize::MAX, |json| json.len());
                if bytes > limits.max_metadata_bytes {
                    self.problems.push(format!(
                        "metadata is {bytes} bytes long; at most {} are allowed",
                        limits.max_metadata_bytes
                    ));
                }
                metadata
            }
            Some(other) => {
                self.problems.push(format!("metadata must be an object, it {}", kind(&other)));
                Map::new()
            }
        }
    }
}

/// A text as the input stage takes it: trimmed, line ends as `\n`, NUL replaced by U+FFFD.
pub fn normalise(text: &str) -> String {
    text.trim().replace("\r\n", "\n").replace('\0', "\u{fffd}")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "is null",
        Value::Bool(_) => "is a boolean",
        Value::Number(_) => "is a number",
        Value::String(_) => "is a string",
        Value::Array(_) => "is an array",
        Value::Object(_) => "is an object",
    }
}

/// Decodes `%XX` as the CloudEvents NATS and HTTP bindings write header values; anything else stands for itself.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
