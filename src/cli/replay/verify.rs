//! `throughline replay verify`.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use clap::Args;
use serde_json::json;
use throughline_actors::replay::NotReplayed;
use throughline_schemas::Timestamp;
use tokio::time::Instant;

use super::{ChangeArgs, close, nothing, open_whole, progress::Progress, setups, unreadable};
use crate::{
    cli::{Failure, exit::with_causes, signal::Signals, timeline::clean},
    config::{Config, Env, Layers},
    replay::{
        history::History,
        selection::SelectionArgs,
        verify::{Deviation, Verified, Verifier},
    },
};

/// Longest excerpt of a field that is printed, in characters.
const MAX_SHOWN: usize = 400;

const VERIFY_HELP: &str = "\
Every stage runs again on what is recorded, with the model, the sources, the database, the clock and chance answering from
the record, and with the prompt and the configuration of here and now; with --file, with those in the file. Nothing is called and nothing is written.
Exit 0: all came out as they were. Exit 1: some did not; each is named with its first event and field that differ.

  throughline replay verify --since 1h
  throughline replay verify order-4711 --set generation.max_tokens=200
  throughline replay verify --file bug.jsonl.gz";

/// `throughline replay verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = VERIFY_HELP)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    change: ChangeArgs,
    /// Print JSON lines: one for each workflow, and a summary
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default)]
struct Tally {
    identical: u64,
    different: u64,
    unreadable: u64,
    results: usize,
    as_recorded: BTreeMap<String, u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

pub(super) async fn run(
    args: &VerifyArgs,
    layers: &Layers,
    config: &Config,
    env: &Env,
) -> Result<(), Failure> {
    let (mut source, selection) = open_whole(&args.selection, config, env).await?;
    let (_, setup) = setups(&source, &args.change, layers, config)?;
    let mut signals = Signals::install()?;
    let mut verifier = Verifier::start(&setup).map_err(|error| Failure::configuration(&error))?;
    let began = Instant::now();
    let progress = Progress::new(None);
    let mut tally = Tally::default();
    let mut reading = true;
    let mut stopped = None;
    loop {
        tokio::select! {
            biased;
            name = signals.next() => {
                stopped = Some(name);
                break;
            }
            one = verifier.next() => {
                let Some(one) = one else { break };
                tally.add(&one);
                if let Some(line) = line(&one, args.json) {
                    progress.print(&line)?;
                }
                progress.one(&format!("{} different", tally.different));
            }
            history = source.next(), if reading => {
                let history = history.map_err(|error| unreadable(&error, &args.selection))?;
                if let Some(history) = history {
                    give(&mut verifier, &mut tally, history, &progress).await?;
                } else {
                        reading = false;
                        verifier.close();
                }
            }
        }
    }
    progress.finish();
    close(source).await;
    if let Some(name) = stopped {
        return Err(Failure::failed(format!("stopped by {name}; {}", tally.summary(began.elapsed()))));
    }
    if tally.workflows() == 0 {
        return Err(nothing(&selection));
    }
    tally.report(args.json, began.elapsed())
}

async fn give(
    verifier: &mut Verifier,
    tally: &mut Tally,
    history: History,
    progress: &Progress,
) -> Result<(), Failure> {
    let times = history.events.iter().map(|event| event.stored_at);
    tally.first = tally.first.into_iter().chain(times.clone()).min();
    tally.last = tally.last.into_iter().chain(times).max();
    let workflow = history.workflow.clone();
    match history.read() {
        Ok(past) => {
            if !verifier.give(past).await {
                return Err(Failure::failed("a thread that verifies has ended; this is a bug"));
            }
        }
        Err(error) => {
            tally.unreadable += 1;
            let named = clean(workflow.as_str(), MAX_SHOWN);
            progress.print(&format!("{named}: {}", clean(&with_causes(&error), MAX_SHOWN)))?;
        }
    }
    Ok(())
}

impl Tally {
    fn workflows(&self) -> u64 {
        self.identical + self.different + self.unreadable
    }

    fn add(&mut self, verified: &Verified) {
        let (identical, taken) = verified.counts();
        self.results += identical;
        for why in taken {
            *self.as_recorded.entry(reason(why)).or_default() += 1;
        }
        match (&verified.results, verified.deviation()) {
            (Err(_), _) => self.unreadable += 1,
            (Ok(_), Some(_)) => self.different += 1,
            (Ok(_), None) => self.identical += 1,
        }
    }

    fn summary(&self, took: Duration) -> String {
        let mut text = format!(
            "{} workflows: {} identical, {} different",
            self.workflows(),
            self.identical,
            self.different
        );
        if self.unreadable > 0 {
            let _ = write!(text, ", {} unreadable", self.unreadable);
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "; {} results replayed in {:.1} s", self.results, took.as_secs_f64());
        if let Some((first, last)) = self.first.zip(self.last) {
            let _ = write!(text, ", recorded over {} s", last.ms_since(first) / 1_000);
        }
        for (reason, count) in &self.as_recorded {
            let _ = write!(text, "\n{count} results taken as they are: {reason}");
        }
        text
    }

    fn report(&self, json: bool, took: Duration) -> Result<(), Failure> {
        let text = if json {
            json!({
                "summary": {
                    "workflows": self.workflows(),
                    "identical": self.identical,
                    "different": self.different,
                    "unreadable": self.unreadable,
                    "results_identical": self.results,
                    "results_as_recorded": self.as_recorded,
                    "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    "recorded_ms": self.first.zip(self.last).map(|(first, last)| last.ms_since(first)),
                }
            })
            .to_string()
        } else {
            self.summary(took)
        };
        crate::cli::output::line(&text)?;
        if self.different + self.unreadable > 0 { Err(Failure::failed("")) } else { Ok(()) }
    }
}

fn reason(why: NotReplayed) -> String {
    match why {
        NotReplayed::FromOutside(code) => format!("ended from outside its stages ({code})"),
        NotReplayed::CallsMissing(code) => {
            format!("told from the database, which has not the calls that were made ({code})")
        }
        NotReplayed::CauseMissing(event_type) => format!("their {event_type} is not on record"),
    }
}

/// What to say about one workflow: everything in JSON, else only what differs.
fn line(verified: &Verified, json: bool) -> Option<String> {
    let workflow = &verified.workflow;
    if let Err(error) = &verified.results {
        return Some(if json {
            json!({"workflow": workflow, "verdict": "unreadable", "error": with_causes(error)}).to_string()
        } else {
            format!("{}: {}", clean(workflow.as_str(), MAX_SHOWN), clean(&with_causes(error), MAX_SHOWN))
        });
    }
    let Some(Deviation { event_type, sequence, difference, instead }) = verified.deviation() else {
        let (identical, taken) = verified.counts();
        return json.then(|| {
            json!({"workflow": workflow, "verdict": "identical", "results": identical, "as_recorded": taken.len()})
                .to_string()
        });
    };
    if json {
        let (field, recorded, now) = difference.map_or((None, None, None), |difference| {
            (Some(difference.pointer), difference.recorded, difference.now)
        });
        return Some(
            json!({
                "workflow": workflow, "verdict": "different", "event": event_type, "sequence": sequence,
                "field": field, "recorded": recorded, "now": now, "instead": instead,
            })
            .to_string(),
        );
    }
    let what = match (&difference, &instead) {
        (Some(difference), _) => difference.to_string(),
        (None, Some(instead)) => format!("now {instead}"),
        (None, None) => String::new(),
    };
    let named = clean(workflow.as_str(), MAX_SHOWN);
    Some(format!("{named}  {event_type} ({sequence})  {}", clean(&what, MAX_SHOWN)))
}
