//! A message that can be read: which form it has, and everything that is wrong with it.

use std::collections::BTreeMap;

use super::{Ingress, IngressLimits, Refused, broken::Named, is_structured, percent_decode};
use crate::{
    EventType, Metadata, SessionId, UserId, WorkflowId,
    event::{Redo, input::WhenBusy},
    ids::{IdError, MAX_ID_BYTES, stands_for},
    json::{Kind, Members},
    version,
};

/// Most characters of a member's name that a problem repeats.
const MAX_NAME_CHARS: usize = 64;

/// What the form of the message contributed, and everything found wrong so far.
#[derive(Default)]
pub(super) struct Form {
    id: Option<String>,
    source: Option<String>,
    user: Option<String>,
    session: Option<String>,
    traceparent: Option<String>,
    problems: Vec<String>,
    /// Numbers where texts have to be: no ids, but their publisher listens for them.
    numbers: BTreeMap<&'static str, String>,
}

impl Form {
    pub(super) fn read<'h>(
        mut top: Members<'_>,
        subject: &str,
        header: &impl Fn(&str) -> Option<&'h str>,
        fallback: WorkflowId,
        limits: &IngressLimits,
    ) -> Result<Ingress, Box<Refused>> {
        let mut form = Self::default();
        form.repeated(&top, "");
        let mut data = if header("ce-specversion").is_some() {
            form.binary(header);
            top
        } else if top.contains("specversion") || is_structured(header("content-type")) {
            form.structured(&mut top)
        } else {
            top
        };
        form.finish(&mut data, subject, header, fallback, limits)
    }

    /// Readers differ in which of several members with one name they believe, so none is.
    fn repeated(&mut self, members: &Members<'_>, within: &str) {
        let known = [
            "specversion",
            "type",
            "dataschema",
            "id",
            "source",
            "traceparent",
            "userid",
            "sessionid",
            "data",
            "user_id",
            "session_id",
            "workflow_id",
            "user_input",
            "metadata",
            "when_busy",
            "redo",
        ];
        for name in known.into_iter().filter(|name| members.repeated.iter().any(|repeated| repeated == name))
        {
            self.problems.push(format!("{within}{name} is there more than once; send it once"));
        }
    }

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
    fn structured<'t>(&mut self, top: &mut Members<'t>) -> Members<'t> {
        let specversion = self.text(top, "specversion");
        let r#type = self.text(top, "type");
        let schema = self.text(top, "dataschema");
        self.attributes(specversion.as_deref(), r#type.as_deref(), schema.as_deref());
        self.id = self.text(top, "id");
        self.source = self.text(top, "source");
        self.user = self.text(top, "userid");
        self.session = self.text(top, "sessionid");
        self.traceparent = self.text(top, "traceparent");
        match top.take("data") {
            Some(data) if Kind::of(data) == Kind::Object => match serde_json::from_str(data.get()) {
                Ok(members) => {
                    self.repeated(&members, "data.");
                    members
                }
                Err(error) => {
                    self.problems.push(format!("data cannot be read: {error}"));
                    Members::default()
                }
            },
            Some(other) => {
                self.problems.push(format!("data must be an object, it {}", Kind::of(other).said()));
                Members::default()
            }
            None if top.contains("data_base64") => {
                self.problems.push("data_base64 is not accepted; send data as a JSON object".to_owned());
                Members::default()
            }
            None => {
                self.problems.push("data is missing".to_owned());
                Members::default()
            }
        }
    }

    /// Takes an optional string; another type is a problem, null is absence.
    fn text(&mut self, object: &mut Members<'_>, key: &'static str) -> Option<String> {
        let value = object.take(key)?;
        match Kind::of(value) {
            Kind::Null => None,
            Kind::Text => match serde_json::from_str(value.get()) {
                Ok(text) => Some(text),
                Err(error) => {
                    self.problems.push(format!("{key} cannot be read: {error}"));
                    None
                }
            },
            other @ (Kind::Boolean | Kind::Number | Kind::Array | Kind::Object) => {
                if other == Kind::Number {
                    self.numbers.insert(key, value.get().to_owned());
                }
                self.problems.push(format!("{key} must be a string, it {}", other.said()));
                None
            }
        }
    }

    fn id<T: TryFrom<String, Error = IdError>>(&mut self, key: &str, text: Option<&str>) -> Option<T> {
        let text = text?;
        let id = match stands_for(text) {
            Some(_) => Err(IdError::Reserved),
            None => T::try_from(text.to_owned()),
        };
        match id {
            Ok(id) => Some(id),
            Err(error) => {
                self.problems.push(format!("{key} {error}"));
                None
            }
        }
    }

    fn finish<'h>(
        mut self,
        data: &mut Members<'_>,
        subject: &str,
        header: &impl Fn(&str) -> Option<&'h str>,
        fallback: WorkflowId,
        limits: &IngressLimits,
    ) -> Result<Ingress, Box<Refused>> {
        let event_id = self.id.clone().filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        let workflow = self.text(data, "workflow_id");
        let names_itself = workflow.is_none() && self.id.is_some();
        let source = self.source.take().filter(|_| names_itself);
        let (key, workflow) = match (workflow, self.id.take()) {
            (Some(id), _) => ("workflow_id", Some(id)),
            (None, Some(id)) => ("the CloudEvents id", Some(id)),
            (None, None) => ("the Nats-Msg-Id header", header("nats-msg-id").map(str::to_owned)),
        };
        let workflow_id: Option<WorkflowId> = self.id(key, workflow.as_deref());
        let user = self.text(data, "user_id").or_else(|| self.user.take());
        let session = self.text(data, "session_id").or_else(|| self.session.take());
        for (key, given) in [("user_id", &user), ("session_id", &session)] {
            if given.is_none() && !self.problems.iter().any(|problem| problem.starts_with(key)) {
                self.problems.push(format!("{key} is missing"));
            }
        }
        let user_id: Option<UserId> = self.id("user_id", user.as_deref());
        let session_id: Option<SessionId> = self.id("session_id", session.as_deref());
        let user_input = self.user_input(data, limits);
        let metadata = self.metadata(data, limits);
        let when_busy = self.when_busy(data);
        let redo = self.redo(data);
        let traceparent = self
            .traceparent
            .take()
            .or_else(|| header("traceparent").map(str::to_owned))
            .and_then(|text| text.parse().ok());

        if let (Some(user_id), Some(session_id), true) = (user_id, session_id, self.problems.is_empty()) {
            return Ok(Ingress {
                workflow_id: workflow_id.unwrap_or(fallback),
                session_id,
                user_id,
                user_input,
                metadata,
                when_busy,
                redo,
                traceparent,
                event_id,
                source,
            });
        }
        let named = Named::by(subject);
        let mut number = |key| self.numbers.remove(key);
        let workflow = number("workflow_id").or(workflow).or(named.workflow);
        let session = number("session_id").or(session).or(named.session);
        let user = number("user_id").or(user);
        Err(Box::new(Refused {
            workflow_id: workflow.map_or(fallback, |id| WorkflowId::of_refused(&id)),
            session_id: session.map_or_else(SessionId::unknown, |id| SessionId::of_refused(&id)),
            user_id: user.map_or_else(UserId::unknown, |id| UserId::of_refused(&id)),
            traceparent,
            event_id,
            source,
            message: self.problems.join("; "),
        }))
    }

    fn user_input(&mut self, data: &mut Members<'_>, limits: &IngressLimits) -> String {
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

    fn when_busy(&mut self, data: &mut Members<'_>) -> Option<WhenBusy> {
        match self.text(data, "when_busy")?.parse() {
            Ok(when_busy) => Some(when_busy),
            Err(error) => {
                self.problems.push(format!("when_busy: {error}"));
                None
            }
        }
    }

    fn redo(&mut self, data: &mut Members<'_>) -> Option<Redo> {
        let given = data.take("redo").filter(|given| Kind::of(given) != Kind::Null)?;
        match serde_json::from_str(given.get()) {
            Ok(redo) => Some(redo),
            Err(error) => {
                self.problems.push(format!("redo must be {{\"of\": WORKFLOW, \"from\": STAGE}}: {error}"));
                None
            }
        }
    }

    fn metadata(&mut self, data: &mut Members<'_>, limits: &IngressLimits) -> Metadata {
        let Some(given) = data.take("metadata") else { return Metadata::default() };
        match Kind::of(given) {
            Kind::Null => return Metadata::default(),
            Kind::Object => {}
            other @ (Kind::Boolean | Kind::Number | Kind::Text | Kind::Array) => {
                self.problems.push(format!("metadata must be an object, it {}", other.said()));
                return Metadata::default();
            }
        }
        let metadata = match Metadata::read(given.get()) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.problems.push(format!("metadata cannot be read: {error}"));
                return Metadata::default();
            }
        };
        // Those are read by name, and readers differ in which of two they believe; what is deeper is handed on unread.
        let repeated = serde_json::from_str(metadata.as_str()).map(|members: Members<'_>| members.repeated);
        if let Some(name) = repeated.unwrap_or_default().first() {
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            self.problems.push(format!("metadata has a member {name:?} more than once; send it once"));
        }
        let bytes = metadata.as_str().len();
        if bytes > limits.max_metadata_bytes {
            self.problems.push(format!(
                "metadata is {bytes} bytes long; at most {} are allowed",
                limits.max_metadata_bytes
            ));
        }
        metadata
    }
}

/// A text as the input stage takes it: trimmed, line ends as `\n`, NUL replaced by U+FFFD.
pub fn normalise(text: &str) -> String {
    text.trim().replace("\r\n", "\n").replace('\0', "\u{fffd}")
}
