//! `throughline explain`: where an answer came from, and which answers came from something.

mod text;
mod uses;

use std::time::Duration;

use clap::{ArgGroup, Args};
use throughline_actors::ports::clock::Clock;
use throughline_schemas::{EventType, WorkflowId};

use super::{
    Failure, bus_error,
    doctor::space::removed,
    exit::with_causes,
    output,
    standing::{Reason, Reasons},
    timeline::{Style, clean},
};
use crate::{
    app::{connect_bus, load_prompt},
    bus::nats::{NatsBus, StoredEvent},
    config::{Config, Env},
    explain::{Explanation, Renderer},
    replay::history::History,
    system::SystemClock,
};

/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Longest id in a message, in characters.
const ID_CHARS: usize = 256;

const EXPLAIN_HELP: &str = "\
With a workflow: what was asked, what was known, what each source answered, the prompt as it was sent, every attempt, and
the answer. The prompt is on record; it is rendered again from the data on record with the template that is configured
here and now, and it is said whether the same comes out.

With --model, --template or --source: the answers that came from it, in the order of the log. A source counts where it gave
data, and a model where it gave the answer. A template is named by its id, by ID@VERSION, or by its hash; a version is the
beginning of the hash, of 6 characters or more.

  throughline explain my-own-id
  throughline explain my-own-id --json
  throughline explain --model sandbox-small --since 1h
  throughline explain --template assistant --limit 10
  throughline explain --source order_history --since 2026-01-31T09:00:00Z --json";

/// `throughline explain`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXPLAIN_HELP)]
#[command(group(ArgGroup::new("what").required(true).args(["workflow", "model", "template", "source"])))]
pub(super) struct ExplainArgs {
    /// Where the answer of this workflow came from
    #[arg(value_name = "WORKFLOW")]
    workflow: Option<String>,
    /// Answers of this model, by its name in the configuration or by the provider's
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Answers to prompts of this template
    #[arg(long, value_name = "HASH|ID|ID@VERSION")]
    template: Option<String>,
    /// Answers to prompts with data from this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only answers stored since then: a span such as 10m, 2h, 1d, or an instant such as 2026-01-31T09:00:00Z
    #[arg(long, value_name = "WHEN", conflicts_with = "workflow")]
    since: Option<String>,
    /// Only answers stored before then
    #[arg(long, value_name = "WHEN", conflicts_with = "workflow")]
    until: Option<String>,
    /// At most so many answers, the earliest first
    #[arg(long, value_name = "N", conflicts_with = "workflow", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print JSON: one object for a workflow, else a line for each answer
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &ExplainArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let wanted = uses::Wanted::new(args, config)?;
    let workflow = args.workflow.as_ref().map(WorkflowId::new).transpose();
    let workflow = workflow.map_err(|error| Failure::usage(format!("WORKFLOW {error}")))?;
    let bus = connect_bus(config, env, "explain").await?;
    let shown = match (&workflow, wanted) {
        (Some(workflow), _) => Box::pin(one(workflow, args.json, config, env, &bus)).await,
        (None, Some(wanted)) => Box::pin(uses::run(wanted, args, &bus)).await,
        (None, None) => Err(Failure::usage("say which workflow, or --model, --template or --source")),
    };
    bus.close(CLOSE_LIMIT).await;
    shown
}

async fn one(
    workflow: &WorkflowId,
    json: bool,
    config: &Config,
    env: &Env,
    bus: &NatsBus,
) -> Result<(), Failure> {
    let events = stored(workflow, bus).await?;
    let is_over = events.iter().any(|event| event.event_type().is_some_and(EventType::is_end));
    let reason = if is_over || json { None } else { reason(workflow, config, env, bus).await };
    let now = reason.as_ref().map(|reason| format!("now: {}", reason.words(SystemClock.now())));
    if events.is_empty() {
        if let (Some(reason), Some(now)) = (&reason, &now) {
            output::line(&reason.whose())?;
            return output::line(now);
        }
        let removed = bus.last_purge().await.ok().flatten().map(|purge| removed(&purge)).unwrap_or_default();
        return Err(Failure::failed(format!(
            "no event of workflow {} is stored: the id is wrong, its input has not been taken up yet (is a worker \
             running?), or its events have expired{removed}",
            clean(workflow.as_str(), ID_CHARS)
        )));
    }
    let recorded = History { workflow: workflow.clone(), events }
        .read()
        .map_err(|error| Failure::failed(clean(&with_causes(&error), ID_CHARS)))?;
    let template = load_prompt(&config.prompt).map_err(|error| with_causes(&error));
    let renderer = Renderer::new(template, config.context.max_history_chars);
    let explanation = Explanation::new(&recorded, &renderer);
    if json {
        let json = serde_json::to_string(&explanation)
            .map_err(|error| Failure::failed(format!("cannot write it as JSON: {error}")))?;
        return output::line(&json);
    }
    output::line(text::render(&explanation, Style::of_stdout()).trim_end())?;
    now.map_or(Ok(()), |now| output::line(&now))
}

/// Why it has not ended; `None` where that is not known.
async fn reason(workflow: &WorkflowId, config: &Config, env: &Env, bus: &NatsBus) -> Option<Reason> {
    let reasons = Reasons::open(config, env, bus).await?;
    let reason = reasons.of(workflow).await;
    reasons.close();
    reason.ok().flatten()
}

/// What is stored of a workflow, with its input wherever that was published.
async fn stored(workflow: &WorkflowId, bus: &NatsBus) -> Result<Vec<StoredEvent>, Failure> {
    let failed = |error| bus_error::failure(&error);
    let found = bus.few(&bus.namespace().events_of_workflow(None, workflow)).await.map_err(failed)?;
    let mut events = found.ok_or_else(|| {
        Failure::failed(format!(
            "more events of workflow {} are stored than one can have: its id is in use for something else",
            clean(workflow.as_str(), ID_CHARS)
        ))
    })?;
    // Subjects tell anything of an input; what stages publish is theirs.
    events.retain(|event| event.event_type().is_some());
    let request = events.iter().find_map(|event| {
        let decoded = throughline_schemas::decode(&event.body).ok()?;
        decoded.data.request().map(|request| request.input_sequence)
    });
    if let Some(sequence) = request
        && !events.iter().any(|event| event.sequence == sequence)
        && let Some(input) = bus.stored_at(sequence).await.map_err(failed)?
    {
        events.insert(0, input);
    }
    Ok(events)
}
