//! The contract of the model port, kept with all three protocols.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use throughline::llm::{CallLimits, ModelProviders, ProviderKind, ProviderSettings, ProviderSpec};
use throughline_actors::ports::contract::model::{ModelRig, Scene, models_keep_their_contract, request};
use throughline_actors::ports::model::{ModelRequest, Models};
use throughline_schemas::TraceParent;

use super::clock;
use super::dialects::{
    Answer, KINDS, Refusal, base_path, chunk, closing_events, events, filtered, overloaded_event, refuse,
    send_stream, send_whole, stream_head, whole,
};
use super::models::limits;
use super::server::{Seen, Server, Step, answer, json as json_answer, partial, refusing};

struct Rig {
    kind: ProviderKind,
    server: Server,
    models: Arc<ModelProviders>,
}

/// What is on its way when a stream breaks.
fn begun(kind: ProviderKind) -> Vec<Step> {
    let mut events = events(kind, &Answer::text("It ships tomorrow."));
    events.truncate(events.len() - closing_events(kind));
    let mut steps = vec![stream_head()];
    steps.extend(events.iter().map(chunk));
    steps
}

/// A body that means the same as a whole answer and as the only event of a stream.
fn body(body: &serde_json::Value, stream: bool) -> Vec<Step> {
    if stream { send_stream(&[format!("data: {body}\n\n")]) } else { vec![json_answer(body.to_string())] }
}

impl Rig {
    fn answer(&self, answer: &Answer<'_>, stream: bool) -> Vec<Step> {
        if stream { send_stream(&events(self.kind, answer)) } else { vec![send_whole(self.kind, answer)] }
    }

    fn filtered(&self, stream: bool) -> Vec<Step> {
        match self.kind {
            ProviderKind::Gemini => body(&filtered(self.kind), stream),
            ProviderKind::OpenAi | ProviderKind::Anthropic => {
                let finish = throughline_schemas::FinishReason::ContentFilter;
                self.answer(&Answer { finish, ..Answer::text("") }, stream)
            }
        }
    }

    /// Begins well, if it is a stream, and ends with these steps.
    fn breaks(&self, stream: bool, end: impl IntoIterator<Item = Step>) -> Vec<Step> {
        let mut steps = if stream { begun(self.kind) } else { vec![partial(100, "{")] };
        steps.extend(end);
        steps
    }
}

#[async_trait]
impl ModelRig for Rig {
    fn models(&self) -> Arc<dyn Models> {
        Arc::clone(&self.models) as _
    }

    async fn stage(&self, scene: Scene, stream: bool) -> ModelRequest {
        let refuse = |refusal| vec![refuse(self.kind, refusal)];
        let end = || Step::Send(b"0\r\n\r\n".to_vec());
        let steps = match scene {
            Scene::Answer { text, finish_reason, usage } => {
                self.answer(&Answer { text, reasoning: "", finish: finish_reason, usage }, stream)
            }
            Scene::Thoughtful { reasoning, text } => {
                self.answer(&Answer { reasoning, ..Answer::text(text) }, stream)
            }
            Scene::RateLimited { retry_after } => {
                vec![answer(429, &[("retry-after", &retry_after.as_secs().to_string())], "{}")]
            }
            Scene::Overloaded => refuse(Refusal::Overloaded),
            Scene::BadKey => refuse(Refusal::BadKey),
            Scene::QuotaUsedUp => refuse(Refusal::QuotaUsedUp),
            Scene::UnknownModel => refuse(Refusal::UnknownModel),
            Scene::TooLong => refuse(Refusal::TooLong),
            Scene::BadRequest => refuse(Refusal::BadRequest),
            Scene::Filtered => self.filtered(stream),
            Scene::Empty => self.answer(&Answer::text(""), stream),
            Scene::NotJson if stream => send_stream(&["data: {\"choices\": [\n\n".to_owned()]),
            Scene::NotJson => vec![answer(200, &[("content-type", "text/html")], "<html></html>")],
            Scene::Huge if stream => {
                self.breaks(true, [chunk(format!("data: {}\n\n", json!({"x": "x".repeat(200_000)})))])
            }
            Scene::Huge => vec![json_answer(" ".repeat(200_000))],
            Scene::CutShort => self.breaks(stream, [Step::Close]),
            Scene::Unfinished => self.breaks(true, [end()]),
            Scene::FailsMidway => self.breaks(true, [chunk(overloaded_event(self.kind)), Step::Hang]),
            Scene::Silent => vec![Step::Hang],
            Scene::Stalls => self.breaks(stream, [Step::Hang]),
            Scene::Unreachable => return ModelRequest { stream, ..request("unreachable") },
        };
        self.server.script(steps);
        ModelRequest { stream, ..request("provider") }
    }

    fn seen(&self) -> Vec<TraceParent> {
        let traceparent = |seen: Seen| seen.header("traceparent").unwrap().parse().unwrap();
        self.server.seen().into_iter().map(traceparent).collect()
    }
}

async fn keeps_the_contract(kind: ProviderKind) {
    let server = Server::start().await;
    let (_socket, refusing) = refusing();
    let limits = CallLimits { first_token: Duration::from_secs(1), read: Duration::from_secs(1), ..limits() };
    let spec = |name: &str, base_url: String| ProviderSpec {
        name: name.to_owned(),
        kind,
        base_url,
        keys: Vec::new(),
        options: HashMap::new(),
        limits,
        settings: ProviderSettings::default(),
    };
    let specs = vec![
        spec("provider", server.url(base_path(kind))),
        spec("unreachable", format!("http://{refusing}")),
    ];
    let models = Arc::new(ModelProviders::new(specs, &clock()).unwrap());
    models_keep_their_contract(&Rig { kind, server, models }).await;
}

#[tokio::test]
async fn openai_keeps_the_contract() {
    keeps_the_contract(ProviderKind::OpenAi).await;
}

#[tokio::test]
async fn anthropic_keeps_the_contract() {
    keeps_the_contract(ProviderKind::Anthropic).await;
}

#[tokio::test]
async fn gemini_keeps_the_contract() {
    keeps_the_contract(ProviderKind::Gemini).await;
}

/// The stand-ins say the same both ways.
#[test]
fn a_stream_is_as_long_as_it_claims() {
    for kind in KINDS {
        let answer = Answer::text("one two");
        assert!(events(kind, &answer).len() > closing_events(kind) + 1);
        assert!(whole(kind, &answer).to_string().contains("one two"));
    }
}
