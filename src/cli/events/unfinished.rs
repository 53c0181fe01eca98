//! Says of the one workflow that is shown why it has not ended.

use throughline_actors::ports::clock::Clock;
use throughline_schemas::WorkflowId;

use crate::{
    bus::nats::NatsBus,
    cli::{
        EventsArgs, Failure, output,
        standing::{Reason, Reasons},
    },
    config::{Config, Env},
    system::SystemClock,
};

/// Why it has not ended, where all of one workflow is asked for and not printed for a script; `None` if it has ended, or
/// the database does not know it.
pub(super) async fn reason(args: &EventsArgs, config: &Config, env: &Env, bus: &NatsBus) -> Option<Reason> {
    let is_whole = args.r#type.is_none() && args.until.is_none() && !args.failed && !args.json;
    let workflow = args.workflow.as_ref().filter(|_| is_whole)?;
    let workflow = WorkflowId::new(workflow).ok()?;
    let reasons = Reasons::open(config, env, bus).await?;
    let reason = reasons.of(&workflow).await;
    reasons.close();
    let reason = reason.ok().flatten()?;
    // Of the same id in another session there is nothing to say here.
    let is_asked_for = args.session.as_ref().is_none_or(|session| reason.is_in(session));
    is_asked_for.then_some(reason)
}

/// `alone`: nothing has been printed that says whose workflow it is.
pub(super) fn report(reason: &Reason, alone: bool) -> Result<(), Failure> {
    if alone {
        output::line(&reason.whose())?;
    }
    output::line(&format!("now: {}", reason.words(SystemClock.now())))
}
