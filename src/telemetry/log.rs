//! Log lines: for people or for machines.

use std::fmt;

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::{RecordFields, VisitOutput},
    filter::{FilterExt, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
        format::{DefaultVisitor, Format, Json, JsonVisitor, Writer, format},
    },
    registry::LookupSpan,
};

use super::{AnyLayer, TelemetryError};
use crate::{
    config::{Env, Log, LogFormat},
    foreign::{escaped, escaped_json, is_hostile},
    system::host_name,
};

/// Attributes of these namespaces are for the trace. In the log they would make each line several times as long, and
/// formatting them is most of what a span costs.
const TRACE_ONLY: [&str; 3] = ["otel.", "messaging.", "gen_ai."];

/// In the log for machines only: a reader finds a workflow by its id, and 32 digits more would make each line longer.
const TRACE_ID: &str = "trace_id";

/// Spans of the library that runs the actors: its numbers of actors say nothing to anybody.
const OF_ACTORS: &str = "ractor";

/// Whether to use colours: on a terminal that shows them, unless `NO_COLOR` (<https://no-color.org>) forbids it.
pub(super) fn colours(terminal: bool, env: &Env) -> bool {
    let set = |name: &str| env.get(name).map_or("", String::as_str);
    terminal && set("NO_COLOR").is_empty() && set("TERM") != "dumb"
}

pub(super) fn layer<W>(log: &Log, colours: bool, writer: W) -> Result<AnyLayer, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&log.filter)
        .map_err(|source| TelemetryError::Filter { filter: log.filter.clone(), source })?;
    let filter = filter.and(filter_fn(|about| about.is_event() || !about.target().starts_with(OF_ACTORS)));
    // Lines that are not written must not lead to lines that say so: stderr may be closed for good.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    Ok(match log.format {
        LogFormat::Pretty => {
            layer.compact().with_ansi(colours).fmt_fields(PrettyFields).with_filter(filter).boxed()
        }
        LogFormat::Json => {
            let line = JsonLine {
                inner: format().json().flatten_event(true).with_current_span(false),
                process: process(),
            };
            layer.fmt_fields(JsonSpanFields).event_format(line).with_filter(filter).boxed()
        }
    })
}

/// Which process says something, as JSON: several write to one place.
fn process() -> String {
    serde_json::Value::from(format!("{}-{}", host_name(), std::process::id())).to_string()
}

/// One JSON object for each event, of which the first field is the process.
struct JsonLine {
    inner: Format<Json>,
    process: String,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        // What JSON does not escape by itself and a terminal obeys, or shows in another order.
        let line = escaped_json(&line);
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{\"process\":{},{rest}", self.process),
            None => writer.write_str(&line),
        }
    }
}

fn is_trace_only(field: &Field) -> bool {
    TRACE_ONLY.iter().any(|namespace| field.name().starts_with(namespace))
}

/// Passes on what is for the log.
struct Logged<'a, V>(&'a mut V);

/// Passes on what is for the log, on one line and without what would act on a terminal: ids, errors and other words may be
/// those of strangers, who must not write lines of their own.
struct Plain<'a, V>(&'a mut V);

macro_rules! pass_on {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(&mut self, field: &Field, value: $type) {
            if !is_trace_only(field) {
                self.0.$method(field, value);
            }
        })*
    };
}

impl<V: Visit> Visit for Logged<'_, V> {
    pass_on! {
        record_f64: f64,
        record_i64: i64,
        record_u64: u64,
        record_i128: i128,
        record_u128: u128,
        record_bool: bool,
        record_str: &str,
        record_error: &(dyn std::error::Error + 'static),
        record_debug: &dyn fmt::Debug,
    }
}

impl<V: Visit> Plain<'_, V> {
    fn words(&mut self, field: &Field, words: &str) {
        self.0.record_debug(field, &format_args!("{}", escaped(words)));
    }
}

impl<V: Visit> Visit for Plain<'_, V> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Where it is in quotes, they are escaped with it.
        if value.contains(is_hostile) { self.words(field, value) } else { self.0.record_str(field, value) }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(value.source(), |cause| cause.source());
        let told = causes.fold(value.to_string(), |told, cause| format!("{told}: {cause}"));
        if told.contains(is_hostile) { self.words(field, &told) } else { self.0.record_error(field, value) }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == TRACE_ID {
            return;
        }
        let told = format!("{value:?}");
        if told.contains(is_hostile) { self.words(field, &told) } else { self.0.record_debug(field, value) }
    }
}

/// `name=value` pairs of spans and events.
struct PrettyFields;

impl<'w> FormatFields<'w> for PrettyFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = DefaultVisitor::new(writer, true);
        fields.record(&mut Logged(&mut Plain(&mut visitor)));
        visitor.finish()
    }
}

/// One JSON object for each span.
struct JsonSpanFields;

impl<'w> FormatFields<'w> for JsonSpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = JsonVisitor::new(&mut writer);
        fields.record(&mut Logged(&mut visitor));
        visitor.finish()
    }

    /// Fields recorded later: merged into the object, as text appended to it would be no JSON.
    fn add_fields(
        &self,
        current: &'w mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let mut added = String::new();
        self.format_fields(Writer::new(&mut added), fields)?;
        let merged = match (current.fields.strip_suffix('}'), added.strip_prefix('{')) {
            (_, Some("}")) => return Ok(()),
            (None | Some("{"), _) | (_, None) => added,
            (Some(before), Some(after)) => format!("{before},{after}"),
        };
        current.fields = merged;
        Ok(())
    }
}
