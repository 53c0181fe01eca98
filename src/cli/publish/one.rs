//! Publishing one text, and waiting for its answer.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Read},
    time::Duration,
};

use serde::Serialize;
use serde_json::{Value, value::RawValue};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::{IdError, Metadata, SessionId, UserId, WorkflowId, normalise};
use tokio::time::Instant;

use super::{
    SOURCE,
    end::{Record, look_at, shown as shown_id},
    waiting,
};
use crate::{
    bus::nats::{NatsBus, PublishedInput},
    cli::{Exit, Failure, PublishArgs, bus_error, output, screen::Screen, signal::Signals, timeline::clean},
    client::{self, End, Frames, Input, Message, OwnEnd, Received, Transcript, new_workflow_id},
    config::{Config, Env},
};

/// Longest text read from stdin, in bytes; a NATS message is no longer by default.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// What the arguments ask to publish. Whether a text is acceptable is for the workflow to say, but a user who does not wait
/// hears nothing of that, and an empty one is a slip of the command line.
pub(super) fn message(args: &PublishArgs) -> Result<Message, Failure> {
    let id = |flag: &str, error: IdError| Failure::usage(format!("{flag} {error}"));
    let text = text(args.text.as_deref().unwrap_or_default())?;
    if normalise(&text).is_empty() {
        return Err(Failure::usage("the text is empty; give one, or `-` to read it from standard input"));
    }
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
        metadata: metadata(&args.metadata)?,
        when_busy: args.when_busy,
        redo: None,
    };
    input.encode(SOURCE).map_err(Failure::failed)
}

/// What the arguments ask to pass along; the last one that names a key decides.
fn metadata(arguments: &[String]) -> Result<Metadata, Failure> {
    let mut all: BTreeMap<String, Box<RawValue>> = BTreeMap::new();
    for argument in arguments {
        if argument.trim_start().starts_with('{') {
            let object = Metadata::read(argument)
                .map_err(|error| Failure::usage(format!("--metadata is no JSON object: {error}")))?;
            let members: BTreeMap<_, _> = serde_json::from_str(object.as_str()).map_err(Failure::failed)?;
            all.extend(members);
            continue;
        }
        match argument.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                let value = RawValue::from_string(Value::from(value).to_string()).map_err(Failure::failed)?;
                all.insert(key.to_owned(), value);
            }
            Some(_) | None => {
                let shown = clean(argument, 80);
                return Err(Failure::usage(format!(
                    "--metadata {shown} is neither KEY=VALUE nor a JSON object"
                )));
            }
        }
    }
    let all = serde_json::to_string(&all).map_err(Failure::failed)?;
    Metadata::read(&all).map_err(Failure::failed)
}

/// The text of an argument; `-` means stdin.
pub(in crate::cli) fn text(argument: &str) -> Result<String, Failure> {
    if argument == "-" { read_text(io::stdin().lock()) } else { Ok(argument.to_owned()) }
}

fn read_text(from: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(Failure::usage(format!("stdin has more than {MAX_TEXT_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("stdin is not UTF-8"))?;
    // Some shells begin what they hand on with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Publishes, and with `--wait` or `--stream` prints how it ended.
pub(in crate::cli) async fn publish(
    bus: &NatsBus,
    config: &Config,
    env: &Env,
    message: Message,
    args: &PublishArgs,
) -> Result<(), Failure> {
    let started = Instant::now();
    // Before publishing, so that no end is missed; a stored end comes first.
    let failed = |error: BusError| bus_error::failure(&error);
    let ends = if args.wait || args.stream {
        // Somebody who waits at a terminal wonders what for.
        let frames = if args.stream || (io::stderr().is_terminal() && !args.json) {
            Some(Frames::open(bus, &message.workflow).await.map_err(failed)?)
        } else {
            None
        };
        Some((bus.ends_of(&message.session, &message.workflow).await.map_err(failed)?, frames))
    } else {
        None
    };
    let published = bus.publish_input(&message.outgoing).await.map_err(failed)?;
    match ends {
        None => announce(&message, published, args.json),
        Some((ends, frames)) => {
            let end = OwnEnd::new(bus, ends, &message, published);
            let waited = Box::pin(wait(end, frames, &message.workflow, started, args));
            if args.json {
                return waited.await;
            }
            tokio::select! {
                done = waited => done,
                never = waiting::report(bus, config, env, &message) => match never {},
            }
        }
    }
}

fn announce(message: &Message, published: PublishedInput, json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Announcement<'a> {
        workflow_id: &'a str,
        sequence: Option<u64>,
        duplicate: bool,
    }
    if json {
        let PublishedInput { sequence, duplicate } = published;
        let line = Announcement { workflow_id: message.workflow.as_str(), sequence, duplicate };
        return output::line(&serde_json::to_string(&line).map_err(Failure::failed)?);
    }
    if published.duplicate {
        output::note("it had been published before; its workflow runs once");
    }
    output::line(&format!("published {}", shown_id(&message.workflow)))
}

async fn wait(
    mut own: OwnEnd,
    frames: Option<Frames>,
    workflow: &WorkflowId,
    started: Instant,
    args: &PublishArgs,
) -> Result<(), Failure> {
    let limit = Duration::from_secs(args.timeout);
    let mut signals = Signals::install()?;
    let mut shown = Shown::new(args.json, args.stream);
    let end = async {
        let own = async { own.wait().await.map_err(|error| bus_error::failure(&error)) };
        match frames {
            Some(mut frames) => {
                client::follow(&mut frames, Box::pin(own), |received| shown.observe(&received)).await
            }
            None => own.await,
        }
    };
    let unfinished = tokio::select! {
        end = end => return shown.end(&End::read(&end?).map_err(Failure::failed)?, workflow, started),
        name = signals.next() => format!("stopped waiting by {name}"),
        () = tokio::time::sleep_until(started + limit) => {
            let limit = limit.as_secs();
            format!("no end within {limit} s (is a worker running? `throughline doctor` tells)")
        }
    };
    shown.unfinished(workflow, started)?;
    let id = shown_id(workflow);
    let look = look_at(workflow);
    Err(Failure::failed(format!("{unfinished}; workflow {id} goes on, look at it with: {look}")))
}

/// What stdout has seen of a workflow that is waited for.
struct Shown {
    json: bool,
    /// Whether the text is shown as it comes.
    stream: bool,
    transcript: Transcript,
    screen: Screen,
}

impl Shown {
    fn new(json: bool, stream: bool) -> Self {
        Self { json, stream, transcript: Transcript::default(), screen: Screen::new() }
    }

    fn observe(&mut self, received: &Received) -> Result<(), Failure> {
        if self.json {
            // As it came, with the fields of a later version, but on one line.
            let frame: Value = serde_json::from_slice(&received.json).map_err(Failure::failed)?;
            return output::line(&frame.to_string());
        }
        let notices = self.transcript.observe(&received.frame);
        notices
            .iter()
            .filter(|notice| self.stream || notice.is_about_waiting())
            .try_for_each(|notice| self.screen.show(notice))
    }

    fn end(mut self, end: &End, workflow: &WorkflowId, started: Instant) -> Result<(), Failure> {
        if self.json {
            output::line(&Record::new(workflow.as_str(), Some(end), started.elapsed()).json())?;
        }
        match end {
            End::Saved(_) if self.json => Ok(()),
            End::Saved(saved) => {
                let broke_off = self.transcript.broke_off();
                if !self.stream {
                    // Nothing of it has been shown.
                    self.transcript = Transcript::default();
                }
                self.screen.finish(&self.transcript, saved.text())?;
                if let Some(lacks) = saved.lacks() {
                    output::note(&lacks);
                }
                self.screen.sign(&saved.signature(broke_off, started.elapsed()))
            }
            // Said already, to a script.
            End::Failed(_) if self.json => Err(Failure { exit: Exit::Failed, message: String::new() }),
            End::Failed(failed) => {
                self.screen.end_line()?;
                Err(Failure::failed(failed.explain(workflow)))
            }
        }
    }

    fn unfinished(mut self, workflow: &WorkflowId, started: Instant) -> Result<(), Failure> {
        if self.json {
            return output::line(&Record::new(workflow.as_str(), None, started.elapsed()).json());
        }
        self.screen.end_line()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn metadata_is_texts_by_key_or_json() {
        let given =
            |arguments: &[&str]| metadata(&arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>());
        let all = given(&["channel=web", "empty=", r#"{"n": 1, "channel": "mail"}"#, "a=b=c"]).unwrap();
        let wanted = serde_json::json!({"channel": "mail", "empty": "", "n": 1, "a": "b=c"});
        assert_eq!(Value::Object(all.view().clone()), wanted);
        let exact = r#"{"id":12345678901234567890123}"#;
        assert_eq!(given(&["id=1", exact]).unwrap().as_str(), exact, "digit by digit");
        for bad in ["channel", "=web", "{", "[1]", r#"{"a": NaN}"#] {
            assert!(given(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn stdin_is_bounded_text() {
        assert_eq!(read_text(&b"hi\n"[..]).unwrap(), "hi\n");
        assert_eq!(read_text(&b"\xef\xbb\xbfhi"[..]).unwrap(), "hi");
        assert!(read_text(&b"\xff"[..]).is_err());
        assert!(read_text(io::repeat(b'x')).is_err());
    }
}
