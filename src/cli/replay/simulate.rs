//! `throughline replay simulate`.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use rust_decimal::Decimal;
use serde_json::json;
use throughline_actors::replay::{Decided, Decisions, Recorded, Simulated};
use throughline_schemas::{Usd, event::generation::AttemptError};

use super::{ChangeArgs, close, nothing, open_whole, progress::Progress, setups, unreadable};
use crate::{
    cli::{Failure, exit::with_causes, output, signal::Signals, timeline::clean},
    config::{Config, Env, Layers},
    replay::{
        selection::{Selection, SelectionArgs},
        simulate::{MAX_WORKFLOWS, changed_providers, simulate},
        source::Source,
    },
};

/// Longest id that is printed, in characters.
const ID_CHARS: usize = 64;

const SIMULATE_HELP: &str = "\
Runs the generation stage over the whole selection on a clock that nobody waits for, every workflow beginning when it did. What
models did is taken from the record; routes, fallbacks, retries, waits, breakers, rate limits and prices are decided again. Where
a provider's limits are as configured now, what they decided is taken from the record too; where --set changes them, they
decide anew as those of one process. A call that is not on record is assumed to end as the last one of its workflow to that
model, or with the recorded answer; such calls are counted.
Without --set it shows whether the record follows from the present configuration: exit 1 if not.

  throughline replay simulate --since 1d --set providers.openai.requests_per_minute=60
  throughline replay simulate --since 1d --set models.gpt-4o-mini.output_usd_per_million=0.30";

/// `throughline replay simulate`
#[derive(Debug, Clone, Args)]
#[command(after_help = SIMULATE_HELP)]
pub(in crate::cli) struct SimulateArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    change: ChangeArgs,
    /// Print each workflow for which something is decided otherwise
    #[arg(long)]
    changed: bool,
    /// Print JSON lines: one for each workflow, and a summary
    #[arg(long)]
    json: bool,
}

/// Sums over all workflows, as decided once.
#[derive(Debug, Default)]
struct Sum {
    answered: u64,
    failed: u64,
    attempts: u64,
    retries: u64,
    fallbacks: u64,
    refused: u64,
    held_back: u64,
    held_ms: u64,
    cost: Decimal,
    unknown_cost: u64,
    by_model: BTreeMap<String, u64>,
}

pub(super) async fn run(
    args: &SimulateArgs,
    layers: &Layers,
    config: &Config,
    env: &Env,
) -> Result<(), Failure> {
    let (source, selection) = open_whole(&args.selection, config, env).await?;
    let (recorded, changed) = setups(&source, &args.change, layers, config)?;
    let mut signals = Signals::install()?;
    let workflows = tokio::select! {
        workflows = read(args, source, &selection) => workflows?,
        name = signals.next() => return Err(Failure::failed(format!("stopped by {name}"))),
    };
    let total = workflows.len() as u64;
    let redecided = changed_providers(&recorded.settings, &changed.settings);
    let (mut results, thread) = simulate(&recorded, &changed, workflows);
    let progress = Progress::new(Some(total));
    let (mut before, mut after) = (Sum::default(), Sum::default());
    let (mut different, mut assumed, mut endless) = (0_u64, 0_u64, 0_u64);
    loop {
        let simulated = tokio::select! {
            simulated = results.recv() => simulated,
            name = signals.next() => {
                progress.finish();
                return Err(Failure::failed(format!("stopped by {name}")));
            }
        };
        let Some(simulated) = simulated else { break };
        before.add(&simulated.recorded);
        match &simulated.now {
            Some(now) => after.add(now),
            None => endless += 1,
        }
        different += u64::from(simulated.is_changed());
        assumed += u64::from(simulated.assumed_calls);
        if args.json {
            progress.print(&json_line(&simulated))?;
        } else if args.changed && simulated.is_changed() {
            progress.print(&text_line(&simulated))?;
        }
        progress.one(&format!("{different} decided otherwise"));
    }
    progress.finish();
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Failure::configuration(&error)),
        Err(_) => return Err(Failure::failed("the simulation broke; this is a bug")),
    }
    let summary = Summary { total, different, assumed, endless, before, after };
    if args.json {
        output::line(&summary.json())?;
    } else {
        output::line(&summary.table())?;
        if !redecided.is_empty() {
            let names: Vec<_> = redecided.into_iter().collect();
            output::note(&format!("limits decided again for: {}", names.join(", ")));
        }
    }
    if args.change.settings.is_empty() && different > 0 {
        return Err(Failure::failed(format!(
            "{different} workflows would be decided otherwise by the present configuration, with which they were not \
             recorded; --changed names them"
        )));
    }
    Ok(())
}

/// Everything that can be simulated.
async fn read(
    args: &SimulateArgs,
    mut source: Source,
    selection: &Selection,
) -> Result<Vec<Recorded>, Failure> {
    let progress = Progress::new(None);
    let mut workflows = Vec::new();
    while let Some(history) = source.next().await.map_err(|error| unreadable(&error, &args.selection))? {
        let workflow = history.workflow.clone();
        let past = history
            .read()
            .map_err(|error| Failure::failed(format!("{workflow}: {}", with_causes(&error))))?;
        workflows.extend(Recorded::of(&past));
        if workflows.len() > MAX_WORKFLOWS {
            return Err(Failure::usage(format!(
                "the selection has more than {MAX_WORKFLOWS} workflows, which is what fits into memory; narrow it with \
                 --since, --until or --limit"
            )));
        }
        progress.one("");
    }
    progress.finish();
    close(source).await;
    if workflows.is_empty() { Err(nothing(selection)) } else { Ok(workflows) }
}

impl Sum {
    fn add(&mut self, decisions: &Decisions) {
        let Decisions { route: _, attempts, failed, cost_usd } = decisions;
        if failed.is_some() {
            self.failed += 1;
        } else {
            self.answered += 1;
        }
        for (n, attempt) in attempts.iter().enumerate() {
            let Decided { provider: _, model, error, waited_ms, retry_in_ms: _, cost_usd: _ } = attempt;
            self.attempts += 1;
            *self.by_model.entry(model.clone()).or_default() += 1;
            if let Some(previous) = n.checked_sub(1).and_then(|previous| attempts.get(previous)) {
                if previous.model == *model { self.retries += 1 } else { self.fallbacks += 1 }
            }
            let prevented =
                [AttemptError::BreakerOpen, AttemptError::Paced, AttemptError::OwnRateLimit].map(Some);
            self.refused += u64::from(prevented.contains(error));
            self.held_back += u64::from(*waited_ms > 0);
            self.held_ms = self.held_ms.saturating_add(*waited_ms);
        }
        match cost_usd {
            Some(cost) => self.cost = self.cost.saturating_add(cost.dollars()),
            None => self.unknown_cost += 1,
        }
    }

    fn cost(&self) -> String {
        let cost = Usd::new(self.cost);
        match self.unknown_cost {
            0 => format!("${cost}"),
            unknown => format!("${cost} and {unknown} unknown"),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "answered": self.answered, "failed": self.failed, "attempts": self.attempts, "retries": self.retries,
            "fallbacks": self.fallbacks, "refused": self.refused, "held_back": self.held_back,
            "held_back_ms": self.held_ms, "cost_usd": Usd::new(self.cost), "cost_unknown": self.unknown_cost,
            "attempts_by_model": self.by_model,
        })
    }
}

struct Summary {
    total: u64,
    different: u64,
    assumed: u64,
    endless: u64,
    before: Sum,
    after: Sum,
}

impl Summary {
    fn json(&self) -> String {
        json!({
            "summary": {
                "workflows": self.total, "changed": self.different, "assumed_calls": self.assumed,
                "without_end": self.endless, "recorded": self.before.json(), "simulated": self.after.json(),
            }
        })
        .to_string()
    }

    fn table(&self) -> String {
        let Self { total, different, assumed, endless, before, after } = self;
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["", "recorded", "simulated"]);
        let number = |table: &mut Table, name: &str, of: fn(&Sum) -> u64| {
            table.add_row([name.to_owned(), of(before).to_string(), of(after).to_string()]);
        };
        number(&mut table, "answered", |sum| sum.answered);
        number(&mut table, "failed", |sum| sum.failed);
        number(&mut table, "attempts", |sum| sum.attempts);
        number(&mut table, "  again, same model", |sum| sum.retries);
        number(&mut table, "  then another model", |sum| sum.fallbacks);
        number(&mut table, "  prevented by breaker, pace or limit", |sum| sum.refused);
        number(&mut table, "held back by rate limits", |sum| sum.held_back);
        number(&mut table, "  for, in all, ms", |sum| sum.held_ms);
        table.add_row(["cost".to_owned(), before.cost(), after.cost()]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!("{total} workflows, {different} decided otherwise\n{table}");
        if *assumed > 0 {
            let _ = write!(text, "\n{assumed} calls are not on record, and how they end is assumed");
        }
        if *endless > 0 {
            let _ = write!(text, "\n{endless} workflows would not come to an end");
        }
        text
    }
}

fn json_line(simulated: &Simulated) -> String {
    let Simulated { workflow, recorded, now, assumed_calls, took_ms } = simulated;
    json!({
        "workflow": workflow, "changed": simulated.is_changed(), "assumed_calls": assumed_calls, "took_ms": took_ms,
        "recorded": decisions(recorded), "simulated": now.as_ref().map(decisions),
    })
    .to_string()
}

fn decisions(decisions: &Decisions) -> serde_json::Value {
    let attempt = |attempt: &Decided| {
        json!({
            "provider": attempt.provider, "model": attempt.model, "error": attempt.error,
            "waited_ms": attempt.waited_ms, "retry_in_ms": attempt.retry_in_ms, "cost_usd": attempt.cost_usd,
        })
    };
    json!({
        "route": decisions.route, "failed": decisions.failed, "cost_usd": decisions.cost_usd,
        "attempts": decisions.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn text_line(simulated: &Simulated) -> String {
    let now = simulated.now.as_ref().map_or_else(|| "no end".to_owned(), in_words);
    let id = clean(simulated.workflow.as_str(), ID_CHARS);
    format!("{id}  {}  ->  {now}", in_words(&simulated.recorded))
}

fn in_words(decisions: &Decisions) -> String {
    let attempt = |attempt: &Decided| {
        let mut text = clean(&attempt.model, ID_CHARS);
        if attempt.waited_ms > 0 {
            let _ = write!(text, " after {} ms", attempt.waited_ms);
        }
        if let Some(error) = attempt.error {
            let _ = write!(text, " {}", error.as_str());
        }
        text
    };
    let attempts: Vec<_> = decisions.attempts.iter().map(attempt).collect();
    let end = decisions.failed.map_or_else(String::new, |code| format!(", failed ({code})"));
    let cost = decisions.cost_usd.map_or_else(String::new, |cost| format!(", ${cost}"));
    format!("{}{end}{cost}", attempts.join(", "))
}
