//! Publishing one text, and waiting for its answer.

use std::{
    io::{self, IsTerminal, Read},
    time::Duration,
};

use serde::Serialize;
use throughline_schemas::{IdError, SessionId, UserId, WorkflowId};
use tokio::time::Instant;

use super::{
    end::{End, Record, look_at, shown},
    message::{Input, Message, new_workflow_id},
    send::{Sender, Sent},
};
use crate::{
    bus::nats::{EventReader, NatsBus},
    cli::{Exit, Failure, PublishArgs, bus_error, output, signal::Signals, timeline::clean_lines},
    config::Config,
};

/// Longest text read from stdin, in bytes; a NATS message is no longer by default.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// What the arguments ask to publish. Whether the text is acceptable is for the workflow to say.
pub(super) fn message(args: &PublishArgs) -> Result<Message, Failure> {
    let id = |flag: &str, error: IdError| Failure::usage(format!("{flag} {error}"));
    let text = match args.text.as_deref() {
        Some("-") => read_text(io::stdin().lock())?,
        given => given.unwrap_or_default().to_owned(),
    };
    let workflow = match &args.workflow_id {
        Some(given) => WorkflowId::new(given).map_err(|error| id("--workflow-id", error))?,
        None => new_workflow_id(),
    };
    let input = Input {
        workflow,
        user: UserId::new(args.user.as_deref().unwrap_or_default()).map_err(|error| id("--user", error))?,
        session: SessionId::new(args.session.as_deref().unwrap_or_default())
            .map_err(|error| id("--session", error))?,
        text,
        metadata: serde_json::Map::new(),
    };
    input.encode().map_err(Failure::failed)
}

fn read_text(from: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(Failure::usage(format!("stdin has more than {MAX_TEXT_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("stdin is not UTF-8"))
}

/// Publishes, and with `--wait` prints how it ended.
pub(super) async fn publish(
    bus: &NatsBus,
    config: &Config,
    message: Message,
    args: &PublishArgs,
) -> Result<(), Failure> {
    let started = Instant::now();
    // Before publishing, so that no end is missed; a stored end comes first.
    let ends = if args.wait {
        let ends = bus.ends_of(&message.workflow).await;
        Some(ends.map_err(|error| bus_error::failure(&error))?)
    } else {
        None
    };
    let sent = Sender::new(bus, config.nats.request_timeout).send(&message).await;
    let sent = sent.map_err(|error| bus_error::failure(&error))?;
    match ends {
        None => announce(&message, sent, args.json),
        Some(ends) => wait(ends, &message.workflow, started, args).await,
    }
}

fn announce(message: &Message, sent: Sent, json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Announcement<'a> {
        workflow_id: &'a str,
        sequence: Option<u64>,
        duplicate: bool,
    }
    if json {
        let Sent { sequence, duplicate } = sent;
        let line = Announcement { workflow_id: message.workflow.as_str(), sequence, duplicate };
        return output::line(&serde_json::to_string(&line).map_err(Failure::failed)?);
    }
    if sent.duplicate {
        output::note("it had been published before; its workflow runs once");
    }
    output::line(&format!("published {}", shown(&message.workflow)))
}

async fn wait(
    mut ends: EventReader,
    workflow: &WorkflowId,
    started: Instant,
    args: &PublishArgs,
) -> Result<(), Failure> {
    let limit = Duration::from_secs(args.timeout);
    let mut signals = Signals::install()?;
    let unfinished = |why: String| -> Result<(), Failure> {
        if args.json {
            output::line(&Record::new(workflow.as_str(), None, started.elapsed()).json())?;
        }
        let id = shown(workflow);
        Err(Failure::failed(format!("{why}; workflow {id} goes on, look at it with: {}", look_at(workflow))))
    };
    let event = tokio::select! {
        end = ends.next() => end.map_err(|error| bus_error::failure(&error))?,
        name = signals.next() => return unfinished(format!("stopped waiting by {name}")),
        () = tokio::time::sleep_until(started + limit) => {
            return unfinished(format!("no end within {} s", limit.as_secs()));
        }
    };
    let event = event.ok_or_else(|| Failure::failed("the event log ended"))?;
    let end = End::read(&event).map_err(Failure::failed)?;
    if args.json {
        output::line(&Record::new(workflow.as_str(), Some(&end), started.elapsed()).json())?;
    }
    match end {
        End::Saved(_) if args.json => Ok(()),
        End::Saved(saved) if io::stdout().is_terminal() => output::line(&clean_lines(saved.text())),
        End::Saved(saved) => output::line(saved.text()),
        // Said already, to a script.
        End::Failed(_) if args.json => Err(Failure { exit: Exit::Failed, message: String::new() }),
        End::Failed(failed) => Err(Failure::failed(failed.explain(workflow))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stdin_is_bounded_text() {
        assert_eq!(read_text(&b"hi\n"[..]).unwrap(), "hi\n");
        assert!(read_text(&b"\xff"[..]).is_err());
        assert!(read_text(io::repeat(b'x')).is_err());
    }
}
