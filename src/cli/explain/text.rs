//! An explanation for people. Nothing in it can move the terminal's cursor or change its colours.

use std::fmt::Write as _;

use serde_json::Value;
use throughline_schemas::{
    Timestamp,
    event::{
        external::{SourceRequest, SourceResult, SourceStatus},
        generation::{ChosenBy, Role, Route},
    },
};

use crate::{
    cli::timeline::{
        Style, Tone, attempt_line, between, clean, clean_lines, cost, count, duration, failed_call_line,
        tokens,
    },
    explain::{Answer, Asked, Explanation, Input, Known, Proof, Settings, State},
};

/// Longest id that is shown in full, in characters.
const ID_CHARS: usize = 80;
/// Longest excerpt of a source's data, in characters; all of it is in the JSON.
const DATA_CHARS: usize = 600;
/// Longest message of an error, in characters.
const ERROR_CHARS: usize = 400;
/// What stands before each line of a section.
const INDENT: &str = "  ";

pub(super) fn render(explanation: &Explanation<'_>, style: Style) -> String {
    let mut page = Page { text: String::new(), style };
    page.header(explanation);
    page.title("asked");
    match &explanation.input {
        Some(input) => page.input(input),
        None => page.faint("not on record any more"),
    }
    page.title("known");
    match &explanation.context {
        Some(known) => page.known(known),
        None => page.faint("nothing on record"),
    }
    page.title("fetched");
    match explanation.sources {
        Some(sources) if sources.is_empty() => page.faint("no source is configured"),
        Some(sources) => sources.iter().for_each(|(name, source)| page.source(name, source)),
        None => page.faint("nothing on record"),
    }
    page.title("prompt");
    match &explanation.prompt {
        Some(asked) => page.prompt(asked),
        None => page.faint("no model was asked, or it is not on record"),
    }
    page.title("model");
    page.attempts(explanation);
    page.end(explanation);
    page.text
}

struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn line(&mut self, tone: Tone, text: &str) {
        let _ = writeln!(self.text, "{INDENT}{}", self.style.paint(tone, text));
    }

    fn plain(&mut self, text: &str) {
        self.line(Tone::Plain, text);
    }

    fn faint(&mut self, text: &str) {
        self.line(Tone::Faint, text);
    }

    fn title(&mut self, text: &str) {
        let _ = writeln!(self.text, "{}", self.style.paint(Tone::Strong, text));
    }

    /// Text from elsewhere, whole.
    fn verbatim(&mut self, text: &str) {
        for line in clean_lines(text).lines() {
            self.plain(&format!("{INDENT}{line}"));
        }
    }

    fn header(&mut self, explanation: &Explanation<'_>) {
        let id = clean(explanation.workflow.as_str(), ID_CHARS);
        let mut text = self.style.paint(Tone::Strong, &format!("workflow {id}"));
        for (name, value) in
            [("user", &explanation.user), ("session", &explanation.session), ("trace", &explanation.trace)]
        {
            if let Some(value) = value {
                let _ = write!(text, "  {name} {}", clean(value, ID_CHARS));
            }
        }
        if let Some(at) = explanation.received_at {
            // Whole milliseconds: as a point in time nobody reads more digits.
            let at = Timestamp::from_unix_ms(at.unix_ms()).to_string();
            let _ = write!(text, "  {}", self.style.paint(Tone::Faint, &at));
        }
        let took = explanation
            .received_at
            .zip(explanation.ended_at)
            .map_or_else(String::new, |(began, ended)| format!(" after {}", duration(between(began, ended))));
        let (tone, state) = match explanation.state {
            State::Complete => (Tone::Good, format!("complete{took}")),
            State::Failed => (Tone::Bad, format!("failed{took}")),
            State::Open => (Tone::Caution, "not ended".to_owned()),
        };
        let _ = writeln!(self.text, "{text}  {}", self.style.paint(tone, &state));
    }

    fn input(&mut self, input: &Input<'_>) {
        self.verbatim(&input.text);
        if let Some(metadata) = input.metadata.filter(|metadata| !metadata.is_empty()) {
            self.faint(&format!("metadata {}", clean(metadata.as_str(), DATA_CHARS)));
        }
        for merged in input.merged {
            self.faint(&format!("with the text of workflow {}", clean(merged.as_str(), ID_CHARS)));
        }
    }

    fn known(&mut self, known: &Known<'_>) {
        let turns = known.earlier_turns.len();
        let mut text = count(turns, "earlier turn");
        if let (Some(left_out), true) = (known.left_out, turns > 0) {
            let summarised = known.summarised.unwrap_or_default();
            let whole = turns.saturating_sub(usize::try_from(left_out + summarised).unwrap_or(usize::MAX));
            let _ = write!(text, ": {whole} in the prompt");
            if summarised > 0 {
                let _ = write!(text, ", {summarised} as a summary");
            }
            if left_out > 0 {
                let _ = write!(text, ", {left_out} left out to fit");
            }
        }
        self.plain(&text);
        for turn in known.earlier_turns {
            self.faint(&format!("{INDENT}workflow {}", clean(turn.workflow_id.as_str(), ID_CHARS)));
        }
        if !known.preferences.is_empty() {
            self.plain(&format!("preferences {}", clipped(&Value::Object(known.preferences.clone()))));
        }
    }

    fn source(&mut self, name: &str, source: &SourceResult) {
        let name = clean(name, ID_CHARS);
        let calls = count(usize::try_from(source.calls).unwrap_or(usize::MAX), "call");
        let took = duration(source.duration_ms.duration());
        match source.status {
            SourceStatus::Ok => self.plain(&format!("{name} ok, {took}, {calls}")),
            SourceStatus::Skipped => self.faint(&format!("{name} skipped: the text did not ask for it")),
            SourceStatus::Failed => {
                let code = source.error.as_ref().map_or("failed", |error| error.code.as_str());
                let text = format!("{name} failed ({}), {took}, {calls}", clean(code, ID_CHARS));
                self.line(Tone::Bad, &text);
            }
        }
        for request in &source.requests {
            self.faint(&format!("{INDENT}{}", request_line(request)));
        }
        if let Some(data) = &source.data {
            self.plain(&format!("{INDENT}{}", clipped(data)));
        }
        if source.failed_calls.is_empty()
            && let Some(error) = &source.error
        {
            self.line(Tone::Caution, &format!("{INDENT}{}", clean(&error.message, ERROR_CHARS)));
        }
        for call in &source.failed_calls {
            self.line(
                Tone::Caution,
                &format!("{INDENT}call failed: {}", clean(&failed_call_line(call), ERROR_CHARS)),
            );
        }
    }

    fn prompt(&mut self, asked: &Asked<'_>) {
        if let Some(settings) = &asked.record {
            self.settings(settings);
        }
        let (tone, words) = in_words(&asked.proof);
        self.line(tone, &words);
        for message in asked.messages.iter() {
            let role = match message.role {
                Role::System => "system",
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            self.faint(&format!("--- {role}"));
            self.verbatim(&message.content);
        }
    }

    fn settings(&mut self, settings: &Settings<'_>) {
        let id = clean(settings.template, ID_CHARS);
        let hash = clean(settings.hash, ID_CHARS);
        let version: String = hash.chars().take(12).collect();
        self.plain(&format!("template {id}@{version}, hash {hash}"));
        self.plain(&format!("configuration {}", clean(settings.config, ID_CHARS)));
        let mut text = format!("at most {} tokens of answer", settings.max_tokens);
        for (name, milli) in [("temperature", settings.temperature_milli), ("top_p", settings.top_p_milli)] {
            if let Some(milli) = milli {
                let _ = write!(text, ", {name} {}.{:03}", milli / 1000, milli % 1000);
            }
        }
        if let Some(tokens) = settings.prompt_tokens {
            let _ = write!(text, ", prompt counted as {tokens} tokens");
        }
        self.plain(&text);
    }

    fn attempts(&mut self, explanation: &Explanation<'_>) {
        if let Some(route) = explanation.route {
            self.plain(&route_in_words(route));
        }
        if explanation.earlier_deliveries > 0 {
            let deliveries = usize::try_from(explanation.earlier_deliveries).unwrap_or(usize::MAX);
            let text = format!("{} before, whose attempts are not on record", count(deliveries, "delivery"));
            self.line(Tone::Caution, &text);
        }
        for attempt in explanation.attempts {
            let tone = if attempt.error.is_some() { Tone::Bad } else { Tone::Plain };
            self.line(tone, &clean(&attempt_line(attempt), ERROR_CHARS));
        }
        if explanation.attempts.is_empty() {
            self.faint("no attempt is on record");
        }
    }

    fn end(&mut self, explanation: &Explanation<'_>) {
        if let Some(failure) = explanation.failure {
            self.title("failed");
            let text =
                format!("{} in {}: {}", failure.code, failure.stage, clean(&failure.message, ERROR_CHARS));
            self.line(Tone::Bad, &text);
            if failure.may_have_happened {
                self.line(Tone::Bad, "it may have happened, and may have been billed");
            }
            if let Some(other) = &failure.superseded_by {
                self.plain(&format!("workflow {} goes on in its place", clean(other.as_str(), ID_CHARS)));
            }
        }
        let Some(answer) = &explanation.answer else { return };
        self.title("answer");
        self.answer(answer);
    }

    fn answer(&mut self, answer: &Answer<'_>) {
        let response = answer.response;
        let reason = serde_json::to_value(response.finish_reason);
        let reason = reason.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        let spent = answer
            .cost_usd
            .map_or_else(|| "cost unknown".to_owned(), |known| cost(known, answer.cost_is_partial));
        self.plain(&format!(
            "{} ({}), finish reason {reason}, {}, {spent}",
            clean(&response.model, ID_CHARS),
            clean(&response.provider, ID_CHARS),
            tokens(answer.usage)
        ));
        self.verbatim(&response.text);
        for call in &response.tool_calls {
            let text =
                format!("calls {} with {}", clean(&call.name, ID_CHARS), clean(&call.arguments, DATA_CHARS));
            self.plain(&text);
        }
    }
}

/// What a source was asked.
fn request_line(request: &SourceRequest) -> String {
    let method =
        request.method.as_ref().map_or_else(String::new, |method| format!("{} ", clean(method, ID_CHARS)));
    let mut line = format!("asked {method}{}", clean(&request.url, DATA_CHARS));
    let named = |(name, value): (&String, &String)| format!("{name} = {value}");
    let values: Vec<String> = request.values.iter().map(named).collect();
    if !values.is_empty() {
        let _ = write!(line, " with {}", clean(&values.join(", "), DATA_CHARS));
    }
    if let Some(body) = &request.body {
        let _ = write!(line, ": {}", clipped(body));
    }
    line
}

/// JSON on one line, of bounded length.
fn clipped(data: &Value) -> String {
    clean(&data.to_string(), DATA_CHARS)
}

fn in_words(proof: &Proof) -> (Tone, String) {
    match proof {
        Proof::Proved => (
            Tone::Good,
            "proved: rendered again from the data on record, with the template of this hash, it comes out the same"
                .to_owned(),
        ),
        Proof::ProvedButTurns => (
            Tone::Good,
            "proved but for earlier turns, of which some were left out or summarised: the rest comes out the same when \
             rendered again with the template of this hash"
                .to_owned(),
        ),
        Proof::OtherTemplate { id, hash } => (
            Tone::Caution,
            format!(
                "as recorded when it was sent; it cannot be rendered again, as the template of today is another one: {}, \
                 hash {}",
                clean(id, ID_CHARS),
                clean(hash, ID_CHARS)
            ),
        ),
        Proof::Differs { message } => (
            Tone::Bad,
            format!(
                "as recorded when it was sent; rendered again with the template of this hash, message {} comes out \
                 otherwise (is context.max_history_chars what it was?)",
                message + 1
            ),
        ),
        Proof::NotRendered { why } => (
            Tone::Caution,
            format!("as recorded when it was sent; not rendered again: {}", clean(why, ERROR_CHARS)),
        ),
        Proof::Rendered { id, hash } => (
            Tone::Caution,
            format!(
                "what was sent is not on record; this is what the template of today makes of the data: {}, hash {}",
                clean(id, ID_CHARS),
                clean(hash, ID_CHARS)
            ),
        ),
    }
}

fn route_in_words(route: &Route) -> String {
    let models: Vec<String> = route.models.iter().map(|model| clean(model, ID_CHARS)).collect();
    let why = match &route.chosen {
        ChosenBy::Default => "as configured, without rules".to_owned(),
        ChosenBy::Rule { rule } => format!("by the rule {}", clean(rule, ID_CHARS)),
        ChosenBy::NoRule => "as no rule matched".to_owned(),
        ChosenBy::RequestedModel => "as the request names it".to_owned(),
        ChosenBy::RequestedComplexity => "by the complexity that the request names".to_owned(),
        ChosenBy::Unrecognised => "for a reason of a later version".to_owned(),
    };
    let complexity = route
        .complexity
        .map_or_else(String::new, |complexity| format!(", taken for {}", complexity.as_str()));
    format!("route {}: {why}{complexity}", models.join(", then "))
}
