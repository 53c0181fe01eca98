//! Logs as their reader sees them, and what the variables of OpenTelemetry do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use serde_json::{Value, json};
use throughline_schemas::TraceParent;
use tracing::dispatcher::with_default;

use super::{exporter::OnRuntime, *};
use crate::config::LogFormat;

/// What was logged so far.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a piece of work logs.
fn logged(format: LogFormat, filter: &str, colours: bool, work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let to = lines.clone();
    let log = Log { format, filter: filter.to_owned() };
    with_default(&registry(log::layer(&log, colours, move || to.clone()).unwrap(), None), work);
    lines.text()
}

/// A delivery as the engine's spans describe it, with a call to a model in which something is logged.
fn delivery(log: impl FnOnce()) {
    let process = tracing::info_span!(
        "process",
        otel.name = "process external_data_fetched",
        messaging.system = "nats",
        throughline.stage = "generation",
        throughline.workflow = "wf-1",
        trace_id = %format_args!("{:032x}", 0x17),
    );
    let _in_process = process.enter();
    let chat = tracing::info_span!("chat", gen_ai.request.model = "m", error.type = tracing::field::Empty);
    let _in_chat = chat.enter();
    chat.record("error.type", "timed_out");
    log();
}

#[test]
fn a_line_for_people_names_the_workflow_and_leaves_attributes_to_the_trace() {
    let text = logged(LogFormat::Pretty, "info", false, || {
        delivery(|| tracing::warn!(attempts = 3, "the model did not answer"));
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in
        ["WARN", "the model did not answer", "attempts=3", "generation", "wf-1", "error.type=\"timed_out\""]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    for part in ["otel.name", "messaging.system", "gen_ai.request.model", "trace_id", "\u{1b}"] {
        assert!(!text.contains(part), "{part} is in {text}");
    }
}

#[test]
fn a_line_for_machines_is_one_object_whatever_it_says() {
    let hostile = "line one\nline two \"quoted\" \u{1b}[31m \u{0} {\"level\":\"ERROR\"}";
    let text = logged(LogFormat::Json, "info", true, || {
        delivery(|| tracing::warn!(reason = hostile, "{hostile}"));
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&line["level"], &line["reason"], &line["message"]),
        (&json!("WARN"), &json!(hostile), &json!(hostile))
    );
    let process = line["process"].as_str().unwrap();
    assert!(process.ends_with(&format!("-{}", std::process::id())), "{process}");
    assert_eq!(
        line["spans"],
        json!([
            {
                "name": "process",
                "throughline.stage": "generation",
                "throughline.workflow": "wf-1",
                "trace_id": "00000000000000000000000000000017",
            },
            {"name": "chat", "error.type": "timed_out"},
        ])
    );
}

#[test]
fn the_library_of_actors_adds_nothing_to_a_line() {
    let work = || {
        let actor = tracing::info_span!(target: "ractor::actor", "Actor", id = "0.7");
        let _in_actor = actor.enter();
        let within = tracing::info_span!(target: "ractor::actor", "Actor", id = "0.8");
        let _in_both = within.enter();
        delivery(|| tracing::warn!("the model did not answer"));
        tracing::error!(target: "ractor::actor", "what it says itself");
    };
    for format in [LogFormat::Pretty, LogFormat::Json] {
        let text = logged(format, "info", false, work);
        assert!(!text.contains("Actor") && !text.contains("0.7") && !text.contains("0.8"), "{text}");
        assert!(text.contains("wf-1") && text.contains("what it says itself"), "{text}");
    }
}

#[test]
fn what_strangers_write_makes_no_line_of_its_own_and_acts_on_no_terminal() {
    let sequences = regex::Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    let foreign = "w1\n2026-11-30T00:00:00Z ERROR all is lost \u{1b}]0;x\u{7}\u{9b}2J\u{202e}\r\u{2028}";
    let work = || {
        let span =
            tracing::info_span!("process", throughline.workflow = %foreign, shown = ?foreign, text = foreign);
        let _inside = span.enter();
        let error = io::Error::other(io::Error::other(foreign));
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(workflow = %foreign, error, text = foreign, "it says {foreign}");
    };
    for (format, colours) in [(LogFormat::Pretty, false), (LogFormat::Pretty, true), (LogFormat::Json, false)]
    {
        let text = logged(format, "info", colours, work);
        assert_eq!(text.lines().count(), 1, "{text:?}");
        let line = text.strip_suffix('\n').unwrap();
        // The sequences that choose our colours are the only ones.
        let plain = sequences.replace_all(line, "");
        assert!(!plain.contains(crate::foreign::is_hostile), "{plain:?}");
        assert!(plain.matches("all is lost").count() >= 4, "{plain}");
        if format == LogFormat::Json {
            let object: Value = serde_json::from_str(line).unwrap();
            assert_eq!((&object["workflow"], &object["text"]), (&json!(foreign), &json!(foreign)));
        }
    }
}

#[test]
fn fields_recorded_later_keep_the_object_whole() {
    let text = logged(LogFormat::Json, "info", false, || {
        let empty = || tracing::field::Empty;
        let span = tracing::info_span!(
            "work",
            first = 1,
            second = empty(),
            gen_ai.usage.input_tokens = empty(),
            third = empty()
        );
        span.record("gen_ai.usage.input_tokens", 7);
        span.record("second", "two").record("third", true);
        let _inside = span.enter();
        tracing::info!("done");
    });
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["spans"], json!([{"name": "work", "first": 1, "second": "two", "third": true}]));
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let env = |name: &str, value: &str| Env::from([(name.to_owned(), value.to_owned())]);
    assert!(log::colours(true, &Env::new()));
    assert!(!log::colours(false, &Env::new()));
    assert!(!log::colours(true, &env("NO_COLOR", "1")));
    assert!(log::colours(true, &env("NO_COLOR", "")));
    assert!(!log::colours(true, &env("TERM", "dumb")));
    assert!(logged(LogFormat::Pretty, "info", true, || tracing::info!("seen")).contains("\u{1b}["));
}

#[test]
fn the_filter_decides_what_is_logged() {
    let filter = "warn,throughline::telemetry=debug,other=off";
    let text = logged(LogFormat::Pretty, filter, false, || {
        tracing::debug!("ours");
        tracing::info!(target: "elsewhere", "theirs");
        tracing::error!(target: "other", "silenced");
    });
    assert!(text.contains("ours") && !text.contains("theirs") && !text.contains("silenced"), "{text}");
    let log = Log { filter: "throughline=loud".to_owned(), ..Log::default() };
    let error = log::layer(&log, false, io::stderr).err().unwrap().to_string();
    assert!(error.contains("throughline=loud") && error.contains("info,throughline=debug"), "{error}");
}

fn env(set: &[(&str, &str)]) -> Env {
    set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn traces_are_exported_only_where_a_variable_says_so() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let exports = |set: &[(&str, &str)]| otlp::provider(&env(set), &Handle::current()).unwrap().is_some();
    assert!(exports(&[endpoint]));
    assert!(exports(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector.example/v1/traces")]));
    assert!(!exports(&[]));
    assert!(!exports(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
    assert!(!exports(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
    assert!(!exports(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
}

#[tokio::test]
async fn wrong_variables_are_named_and_secrets_in_them_are_not() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    for (set, name) in [
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2@collector:4318")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://u:hunter2@h")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (vec![endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "OTEL_EXPORTER_OTLP_PROTOCOL"),
        (vec![endpoint, ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")], "OTEL_EXPORTER_OTLP_TIMEOUT"),
        (vec![endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")], "OTEL_EXPORTER_OTLP_HEADERS"),
        (vec![endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "k=hunter2%0A")], "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        let error = otlp::provider(&env(&set), &Handle::current()).map(drop).unwrap_err();
        let all = format!("{error} {error:?}");
        assert!(all.contains(name) && !all.contains("hunter2"), "{all}");
    }
}

#[test]
fn without_export_the_context_is_handed_on() {
    let publisher: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse().unwrap();
    let span = tracing::Span::none();
    let adopt = |parent| tracer::HandedOn.adopt(&span, parent);
    let first = adopt(Some(publisher));
    let second = adopt(Some(first));
    // One trace, another span each time, and the publisher's decision not to sample.
    assert_eq!([first.trace_id(), second.trace_id()], [publisher.trace_id(); 2]);
    assert!(first.span_id() != publisher.span_id() && second.span_id() != first.span_id());
    assert_eq!((first.flags(), second.flags()), (0, 0));
    // New traces differ, and other services may record them.
    let (one, other) = (adopt(None), adopt(None));
    assert_ne!(one.trace_id(), other.trace_id());
    assert_eq!(one.flags(), 1);
}

/// Fails as often as it is told to, then works.
#[derive(Debug)]
struct Failing(Mutex<usize>);

impl SpanExporter for Failing {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        Err(OTelSdkError::InternalFailure("HTTP export failed with status code: 503".to_owned()))
    }
}

#[tokio::test]
async fn a_collector_that_is_down_for_long_is_worth_two_lines() {
    let lines = Lines::default();
    let to = lines.clone();
    let layer = log::layer(&Log::default(), false, move || to.clone()).unwrap();
    let _in_use = tracing::dispatcher::set_default(&registry(layer, None));
    let exporter = OnRuntime::new(Failing(Mutex::new(100)), Handle::current(), FLUSH_LIMIT);
    for _ in 0..200 {
        let _ = exporter.export(Vec::new()).await;
    }
    let text = lines.text();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("503") && text.contains("traces are exported again"), "{text}");
}

/// Hangs for ever.
#[derive(Debug)]
struct Hanging;

impl SpanExporter for Hanging {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_has_a_limit() {
    let exporter = OnRuntime::new(Hanging, Handle::current(), FLUSH_LIMIT);
    assert!(matches!(exporter.export(Vec::new()).await, Err(OTelSdkError::Timeout(FLUSH_LIMIT))));
}
