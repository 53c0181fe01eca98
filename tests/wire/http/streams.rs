//! Streams: nothing is held back, nothing that is incomplete passes, and nobody makes us read for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline::llm::{
    CallLimits, Credential, KeySource, ModelProviders, ProviderKind, ProviderSettings, ProviderSpec,
};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{
    Delta, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models, Phase,
};
use tokio::sync::Semaphore;

use super::clock;
use super::dialects::{
    Answer, KINDS, base_path, chunk, closing_events, end, events, send_stream, stream_head,
};
use super::models::{KEY, limits};
use super::server::{Server, Step, answer, json};

/// Keeps what it hears, and counts it.
#[derive(Default)]
pub(super) struct Collector {
    text: Mutex<String>,
    pieces: Option<Arc<Semaphore>>,
}

impl Collector {
    pub(super) fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

impl DeltaSink for Collector {
    fn delta(&self, delta: Delta<'_>) {
        if let Delta::Text(text) = delta {
            self.text.lock().unwrap().push_str(text);
        }
        if let Some(pieces) = &self.pieces {
            pieces.add_permits(1);
        }
    }
}

pub(super) fn provider(
    kind: ProviderKind,
    server: &Server,
    keys: &[&str],
    limits: CallLimits,
) -> ModelProviders {
    let spec = ProviderSpec {
        name: "provider".to_owned(),
        kind,
        base_url: server.url(base_path(kind)),
        keys: keys.iter().map(|key| KeySource::Fixed(Credential::new(*key))).collect(),
        options: HashMap::new(),
        limits,
        settings: ProviderSettings::default(),
    };
    ModelProviders::new(vec![spec], &clock()).unwrap()
}

pub(super) fn streaming() -> ModelRequest {
    ModelRequest { stream: true, ..request("provider") }
}

/// What comes of one scripted stream, and what was heard of it.
async fn stream(
    kind: ProviderKind,
    limits: CallLimits,
    steps: Vec<Step>,
) -> (Result<ModelAnswer, ModelFailure>, String) {
    let server = Server::start().await;
    server.script(steps);
    let collector = Collector::default();
    let result = provider(kind, &server, &[KEY], limits).generate(&streaming(), &collector).await;
    (result, collector.text())
}

#[tokio::test]
async fn every_piece_is_heard_before_the_next_is_sent() {
    for kind in KINDS {
        let heard = Arc::new(Semaphore::new(0));
        let events = events(kind, &Answer::text("It ships tomorrow."));
        let mut steps = vec![stream_head()];
        for event in &events {
            steps.push(chunk(event));
            if ["It ", "ships ", "tomorrow."].iter().any(|word| event.contains(&format!("\"{word}\""))) {
                steps.push(Step::Await(Arc::clone(&heard)));
            }
        }
        assert_eq!(steps.len(), events.len() + 4);
        steps.push(end());
        let server = Server::start().await;
        server.script(steps);
        let collector = Collector { pieces: Some(heard), ..Collector::default() };
        let answer = provider(kind, &server, &[], limits()).generate(&streaming(), &collector).await.unwrap();
        assert_eq!(
            (answer.text, collector.text()),
            ("It ships tomorrow.".to_owned(), "It ships tomorrow.".to_owned())
        );
    }
}

#[tokio::test]
async fn a_stream_that_lacks_its_reason_to_stop_is_no_answer() {
    for kind in KINDS {
        let events = events(kind, &Answer::text("It ships tomorrow."));
        for left in 0..events.len() {
            // Usage and the marker of the end may be missing, not what says why the answer ends.
            let mut cut = events.clone();
            cut.truncate(left);
            let (result, _) = stream(kind, limits(), send_stream(&cut)).await;
            if left + closing_events(kind) > events.len() {
                assert_eq!(result.unwrap().text, "It ships tomorrow.", "{kind:?} {left}");
            } else {
                let failure = result.unwrap_err();
                assert!(matches!(failure.error, ModelError::BadResponse(_)), "{kind:?} {left}: {failure:?}");
            }
            // Nor if the server means to go on.
            let steps = send_stream(&cut);
            let without_end = steps[..steps.len() - 1].iter().cloned().chain([Step::Reset]).collect();
            let (result, _) = stream(kind, limits(), without_end).await;
            let failure = result.unwrap_err();
            assert!(matches!(failure.error, ModelError::CutShort(_)), "{kind:?} {left}: {failure:?}");
        }
        let (result, heard) = stream(kind, limits(), send_stream(&events)).await;
        assert_eq!(
            (result.unwrap().text, heard),
            ("It ships tomorrow.".to_owned(), "It ships tomorrow.".to_owned())
        );
    }
}

#[tokio::test]
async fn signs_of_life_between_good_events_are_none_of_the_answer_s() {
    let signs: [&[u8]; 13] = [
        b": ping\n\n",
        b"data:\n\n",
        b"data: {}\n\n",
        b"data: null\n\n",
        b"data: []\n\n",
        b"data: true\n\n",
        b"data: \"ping\"\n\n",
        b"data: keep-alive\n\n",
        b"data: [PING]\n\n",
        b"event: heartbeat\ndata: 1700000000\n\n",
        b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        b"data: {\"a\":\"\xff\"}\n\n",
        b"\n\n\r\n",
    ];
    for kind in KINDS {
        let events = events(kind, &Answer::text("It ships tomorrow."));
        for bytes in signs {
            let mut steps = send_stream(&events);
            steps.insert(4, chunk(bytes));
            let (result, heard) = stream(kind, limits(), steps).await;
            assert_eq!(result.unwrap().text, heard, "{kind:?} {}", String::from_utf8_lossy(bytes));
            assert_eq!(heard, "It ships tomorrow.");
        }
    }
}

#[tokio::test]
async fn garbage_between_good_events_is_an_error() {
    let garbage: [&[u8]; 3] = [b"data: {\"choices\": [{]}\n\n", b"data: [{\n\n", b"data: <html>\n\n"];
    for kind in KINDS {
        let events = events(kind, &Answer::text("It ships tomorrow."));
        for bytes in garbage {
            let mut steps = send_stream(&events);
            steps.insert(4, chunk(bytes));
            let (result, heard) = stream(kind, limits(), steps).await;
            let failure = result.unwrap_err();
            assert!(matches!(failure.error, ModelError::BadResponse(_)), "{kind:?}: {failure:?}");
            assert!("It ships tomorrow.".starts_with(&heard) && failure.to_string().len() < 500);
        }
    }
}

#[tokio::test]
async fn what_is_no_stream_is_read_for_what_it_is() {
    for kind in KINDS {
        let whole = super::dialects::whole(kind, &Answer::text("It ships tomorrow.")).to_string();
        let (result, heard) = stream(kind, limits(), vec![json(whole)]).await;
        assert_eq!(
            (result.unwrap().text, heard),
            ("It ships tomorrow.".to_owned(), "It ships tomorrow.".to_owned())
        );
        let page = answer(200, &[("content-type", "text/html")], "<html>502</html>");
        let nothing = answer(200, &[("content-type", "text/event-stream")], "");
        let page_as_stream = answer(200, &[("content-type", "text/event-stream")], "<html>502</html>\n\n");
        let compressed = answer(
            200,
            &[("content-type", "text/event-stream"), ("content-encoding", "gzip")],
            b"\x1f\x8b\x08",
        );
        for step in [page, nothing, page_as_stream, compressed, answer(204, &[], "")] {
            let (result, heard) = stream(kind, limits(), vec![step]).await;
            let failure = result.unwrap_err();
            assert!(matches!(failure.error, ModelError::BadResponse(_)), "{kind:?}: {failure:?}");
            assert_eq!(heard, "");
        }
    }
}

#[tokio::test]
async fn a_stream_that_never_ends_ends() {
    let short = Duration::from_millis(300);
    let limits = CallLimits { max_response_bytes: 10_000, ..limits() };
    for kind in KINDS {
        let events = events(kind, &Answer::text("It ships tomorrow."));
        let piece = events.iter().find(|event| event.contains("ships")).unwrap();
        let begin = || {
            let opening = events.iter().take_while(|event| !event.contains("ships")).map(chunk);
            [stream_head()].into_iter().chain(opening).collect::<Vec<_>>()
        };
        let framed = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
        let comment = ": still there\n\n";
        for (story, bytes) in [
            ("text", framed(piece)),
            ("a line without an end", framed("data: xxxxxxxxxxxxxxxxxxxx")),
            ("an event without an end", framed("data: xxxxxxxxxxxxxxxxxxxx\n")),
            ("comments", framed(comment)),
        ] {
            let mut steps = begin();
            steps.push(Step::Endless(bytes));
            let (result, heard) = stream(kind, limits, steps).await;
            let failure = result.unwrap_err();
            assert_eq!(failure.error, ModelError::TooLarge(10_000), "{kind:?}, {story}");
            assert!(heard.len() <= 10_000, "{kind:?}, {story}: {} bytes were heard", heard.len());
        }
        // One byte at a time, each in time for the pause between two.
        for (total, first_token, phase) in
            [(short, short * 9, Phase::Total), (short * 9, short, Phase::FirstToken)]
        {
            let drip = Step::Drip(framed(comment).repeat(100), Duration::from_millis(5));
            let limits = CallLimits { total, first_token, ..limits };
            let (result, _) = stream(kind, limits, vec![stream_head(), drip]).await;
            assert_eq!(result.unwrap_err().error, ModelError::TimedOut(phase), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_key_in_pieces_is_heard_by_nobody() {
    for kind in KINDS {
        let (front, back) = KEY.split_at(9);
        let text = format!("Your key is {front} {back}. Or {KEY}!");
        let spread: Vec<String> = events(kind, &Answer::text(&text))
            .into_iter()
            // The stand-in cuts at spaces; this space is none.
            .map(|event| event.replace(&format!("\"{front} \""), &format!("\"{front}\"")))
            .collect();
        let (result, heard) = stream(kind, limits(), send_stream(&spread)).await;
        let answer = result.unwrap();
        assert_eq!(heard, "Your key is ***. Or ***!", "{kind:?}");
        assert_eq!(answer.text, heard);
        assert!(!answer.raw.to_string().contains("canary"), "{}", answer.raw);
        let error = format!(
            "data: {{\"error\":{{\"message\":\"bad {KEY}\",\"code\":\"{KEY}\",\"type\":\"error\"}}}}\n\n"
        );
        let (result, _) = stream(kind, limits(), send_stream(&[error])).await;
        let failure = result.unwrap_err();
        assert!(!format!("{failure} {failure:?}").contains("canary"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_stream() {
    for kind in KINDS {
        let server = Server::start().await;
        let models = provider(kind, &server, &[], limits());
        for _ in 0..3 {
            server.script(send_stream(&events(kind, &Answer::text("It ships tomorrow."))));
            models.generate(&streaming(), &Collector::default()).await.unwrap();
        }
        assert_eq!(server.connections(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn what_was_used_before_a_stream_broke_is_known() {
    let usage = throughline_schemas::Usage { input_tokens: 24, output_tokens: 4, ..Default::default() };
    let kind = ProviderKind::Anthropic;
    let mut events = events(kind, &Answer { usage: Some(usage), ..Answer::text("It ships tomorrow.") });
    events.truncate(events.len() - closing_events(kind));
    let (result, _) = stream(kind, limits(), send_stream(&events)).await;
    let failure = result.unwrap_err();
    assert_eq!(failure.usage, Some(usage));
    assert!(failure.may_have_been_billed() && failure.facts.first_token.is_some());
}
