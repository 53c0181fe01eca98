//! `throughline replay redo`.

use clap::Args;
use throughline_schemas::{Event, EventType, StageName, WorkflowId, decode, event::input::WhenBusy};

use super::CLOSE_LIMIT;
use crate::{
    app::connect_bus,
    bus::nats::{NatsBus, ReadRequest},
    cli::{Failure, PublishArgs, bus_error, publish},
    client::Input,
    config::{Config, Env},
    replay::redo::{self, MAX_ATTEMPTS, Plan, RedoError},
};

const REDO_HELP: &str = "\
Publishes the text of a workflow that failed again, as a new workflow at the end of the same session: order-4711-redo-1, then
order-4711-redo-2. The stages before --from hand on what the old workflow has on record and call nobody; the others do their work.
The new workflow's events name the old one, and both stay in the log: `throughline events --session S` shows them.

  throughline replay redo order-4711 --wait
  throughline replay redo order-4711 --from external";

/// `throughline replay redo`
#[derive(Debug, Clone, Args)]
#[command(after_help = REDO_HELP)]
pub(in crate::cli) struct RedoArgs {
    /// A workflow that failed
    workflow: String,
    /// Stage to run again, with all after it: input, context, external, generation or persistence [default: where it
    /// failed]
    #[arg(long, value_name = "STAGE")]
    from: Option<StageName>,
    /// Wait for the end; print the answer, or the failure and exit 1
    #[arg(long)]
    wait: bool,
    /// How long to wait for the end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "wait", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &RedoArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let workflow =
        WorkflowId::new(&args.workflow).map_err(|error| Failure::usage(format!("WORKFLOW {error}")))?;
    let bus = connect_bus(config, env, "replay").await?;
    let done = redo(&bus, &workflow, args, config, env).await;
    bus.close(CLOSE_LIMIT).await;
    done
}

async fn redo(
    bus: &NatsBus,
    workflow: &WorkflowId,
    args: &RedoArgs,
    config: &Config,
    env: &Env,
) -> Result<(), Failure> {
    let events = events(bus, workflow).await?;
    let plan = Plan::new(workflow, &events, args.from)?;
    let input = Input {
        workflow: free_id(bus, workflow).await?,
        user: plan.user,
        session: plan.session,
        text: plan.text,
        metadata: plan.metadata,
        // Whatever the workers are configured to do: it is not to be merged away.
        when_busy: Some(WhenBusy::Enqueue),
        redo: Some(plan.redo),
    };
    let message = input.encode(publish::SOURCE).map_err(Failure::failed)?;
    let waiting = PublishArgs::waiting(args.wait, args.timeout, args.json);
    Box::pin(publish::one(bus, config, env, message, &waiting)).await
}

/// What is stored of a workflow by the stages; what publishers sent is not needed.
async fn events(bus: &NatsBus, workflow: &WorkflowId) -> Result<Vec<Event>, Failure> {
    let filter = bus.namespace().events_of_workflow(None, workflow);
    let failed = |error| bus_error::failure(&error);
    let mut reader = bus.read(ReadRequest::events(filter)).await.map_err(failed)?;
    let mut events = Vec::new();
    while let Some(stored) = reader.next().await.map_err(failed)? {
        // What publishers send is in three forms; stages write one.
        if let Ok(event) = decode(&stored.body)
            && event.event_type() != EventType::UserInputReceived
        {
            events.push(event);
        }
    }
    Ok(events)
}

/// The first id under which it was not taken up yet. An attempt that is under way is enough.
async fn free_id(bus: &NatsBus, workflow: &WorkflowId) -> Result<WorkflowId, Failure> {
    for attempt in 1..=MAX_ATTEMPTS {
        let id = redo::id(workflow, attempt);
        let failed = |error| bus_error::failure(&error);
        let known = bus.has_any(&id).await.map_err(failed)?;
        if !known {
            return Ok(id);
        }
        if !bus.has_ended(&id).await.map_err(failed)? {
            return Err(Failure::failed(format!(
                "workflow {workflow} is taken up already, as {id}, which has not ended; look at it with: throughline events --workflow {id}"
            )));
        }
    }
    Err(Failure::failed(format!("workflow {workflow} was taken up {MAX_ATTEMPTS} times")))
}

impl From<RedoError> for Failure {
    fn from(error: RedoError) -> Self {
        match &error {
            RedoError::TooLate { .. } => Self::usage(error),
            RedoError::Unknown(_) | RedoError::Open(_) | RedoError::Saved(_) | RedoError::Refused(..) => {
                Self::failed(error)
            }
        }
    }
}
