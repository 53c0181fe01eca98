//! `explain --model`, `--template` and `--source`: a table, or JSON lines, while the log is read.

use std::fmt::Write as _;

use super::ExplainArgs;
use crate::{
    bus::nats::{Log, NatsBus, ReadRequest},
    cli::{
        Failure, bus_error, output,
        timeline::{Style, Tone, clean, cost, model_words},
    },
    config::Config,
    explain::{Use, UseOf, Uses},
    period::Period,
};

/// Longest id or name that is printed, in characters; that of an id is longer than any of ours.
const CHARS: usize = 80;
/// Characters of a template's hash that are shown: nobody has two templates that begin alike.
const HASH_CHARS: usize = 12;
/// How wide the columns are at least.
const WIDTHS: [usize; 5] = [24, 36, 20, 26, 12];

/// What is asked for.
pub(super) struct Wanted {
    of: UseOf,
    period: Period,
    /// In words, for messages.
    words: String,
}

impl Wanted {
    /// `None` if it is about one workflow.
    pub(super) fn new(args: &ExplainArgs, config: &Config) -> Result<Option<Self>, Failure> {
        let (of, words) = match (&args.model, &args.template, &args.source) {
            (Some(model), _, _) => {
                let configured = config.models.iter().find(|configured| configured.name == *model);
                let configured = configured.map(|found| (found.provider.clone(), found.model.clone()));
                let of = UseOf::Model { name: named("--model", model)?, configured };
                (of, format!("model {model}"))
            }
            (_, Some(template), _) => {
                let of = UseOf::template(template)
                    .map_err(|error| Failure::usage(format!("--template {error}")))?;
                (of, format!("template {template}"))
            }
            (_, _, Some(source)) => (UseOf::Source(named("--source", source)?), format!("source {source}")),
            (None, None, None) => return Ok(None),
        };
        let period = Period::new(args.since.as_deref(), args.until.as_deref()).map_err(Failure::usage)?;
        Ok(Some(Self { of, period, words: clean(&words, CHARS) }))
    }
}

fn named(flag: &str, name: &str) -> Result<String, Failure> {
    if name.trim().is_empty() {
        return Err(Failure::usage(format!("{flag} needs a name")));
    }
    Ok(name.to_owned())
}

pub(super) async fn run(wanted: Wanted, args: &ExplainArgs, bus: &NatsBus) -> Result<(), Failure> {
    let failed = |error| bus_error::failure(&error);
    let Wanted { of, period, words } = wanted;
    let filters = of.filters(bus.namespace());
    let request = ReadRequest { log: Log::Events, filters, since: period.since, from: None, follow: false };
    let mut reader = bus.read(request).await.map_err(failed)?;
    let mut uses = Uses::new(of);
    let style = Style::of_stdout();
    let mut found = 0;
    while let Some(event) = reader.next().await.map_err(failed)? {
        if period.is_over(event.stored_at) {
            break;
        }
        // Its sources were asked before the period began, or so many workflows ago that they are forgotten.
        if let Some(subject) = uses.needs(&event) {
            for earlier in bus.few(&subject).await.map_err(failed)?.unwrap_or_default() {
                uses.take(&earlier);
            }
        }
        let Some(one) = uses.take(&event) else { continue };
        if args.json {
            let json = serde_json::to_string(&one)
                .map_err(|error| Failure::failed(format!("cannot write it as JSON: {error}")))?;
            output::line(&json)?;
        } else {
            if found == 0 {
                let heading = row(["stored", "workflow", "session", "model", "cost", "template"]);
                output::line(&style.paint(Tone::Faint, &heading))?;
            }
            output::line(&cells(&one))?;
        }
        found += 1;
        if args.limit.is_some_and(|limit| found >= limit) {
            return Ok(());
        }
    }
    if uses.unreadable > 0 {
        output::note(&format!("{} answers could not be read", uses.unreadable));
    }
    if found == 0 { Err(nothing(&uses, &words)) } else { Ok(()) }
}

fn nothing(uses: &Uses, words: &str) -> Failure {
    let mut message = match uses.answers {
        0 => format!("no answer came from {words}: none is stored in that time"),
        1 => format!("no answer came from {words}, of the one that is stored in that time"),
        answers => format!("no answer came from {words}, of {answers} that are stored in that time"),
    };
    let names: Vec<String> = uses.names().map(|name| clean(name, CHARS)).collect();
    if !names.is_empty() {
        let _ = write!(message, "; there is {}", names.join(", "));
    }
    Failure::failed(message)
}

fn cells(one: &Use) -> String {
    let hash: String = one.template_hash.chars().take(HASH_CHARS).collect();
    let at = throughline_schemas::Timestamp::from_unix_ms(one.at.unix_ms()).to_string();
    row([
        &at,
        &clean(&one.workflow, CHARS),
        &clean(&one.session, CHARS),
        &clean(&model_words(one.model_name.as_deref(), &one.model), CHARS),
        &one.cost_usd.map_or_else(|| "unknown".to_owned(), |known| cost(known, false)),
        &clean(&format!("{}@{hash}", one.template), CHARS),
    ])
}

fn row(cells: [&str; 6]) -> String {
    let mut text = String::new();
    for (at, cell) in cells.into_iter().enumerate() {
        let width = WIDTHS.get(at).copied().unwrap_or_default();
        let _ = write!(text, "{cell:<width$}  ");
    }
    text.trim_end().to_owned()
}
