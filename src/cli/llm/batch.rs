//! `throughline llm batch`: a file of questions, answered in order.
//!
//! One line of output belongs to one line of input and names it by number and content hash, so that a run that
//! was stopped, or killed in the middle of a line, goes on where it was.

mod input;
mod progress;
mod sink;

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};

use super::{
    BatchArgs,
    record::{Answered, Failed},
};
use crate::{
    cli::{Failure, lines, lines::Line, output, signal::Signals},
    config::{Config, Env},
    llm::{Answer, Client},
};
use progress::{Progress, Tally};
use sink::Sink;

/// How long questions under way may take once the command is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// What became of one line.
struct Done {
    line: u64,
    hash: String,
    id: Option<Value>,
    result: Result<Box<Answer>, Failed>,
}

pub(super) async fn run(args: &BatchArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let client = Client::from_config(config, env)?;
    let mut lines = lines::open(&args.input)?;
    let mut signals = Signals::install()?;
    let mut sink = Sink::open(args.out.as_deref())?;
    let mut tally = Tally::after(sink.skip_answered(&mut lines).await?);
    let mut progress = Progress::new(input::count(&args.input));

    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let jobs = stream::unfold(lines, |mut lines| async { Some((lines.recv().await?, lines)) });
    let jobs = jobs.take_until(stopped).map(|line| answer(&client, line));
    let mut answers = pin!(jobs.buffered(usize::from(args.max_concurrency)));
    let mut stopped_by: Option<(&str, Instant)> = None;
    loop {
        let deadline = stopped_by.map(|(_, deadline)| deadline);
        tokio::select! {
            next = answers.next() => {
                let Some(done) = next else { break };
                tally.add(&done);
                if let Err(failed) = &done.result {
                    progress.complain(&format!("line {}: {}", done.line, failed.message()));
                }
                sink.write(&json(&done).map_err(Failure::failed)?)?;
                progress.show(&tally);
            }
            name = signals.next() => {
                let Some(stop) = stop.take() else { break };
                // No more lines are taken; an error means that there were none.
                let _ = stop.send(());
                let grace = GRACE.as_secs();
                progress.note(&format!("stopped by {name}; waiting up to {grace} s for what is under way"));
                stopped_by = Some((name, Instant::now() + GRACE));
            }
            () = until(deadline) => break,
        }
    }
    progress.finish();
    output::note(&tally.summary());
    let resumable = if args.out.is_some() { "; the same command goes on from there" } else { "" };
    match stopped_by {
        Some((name, _)) => Err(Failure::failed(format!("stopped by {name}{resumable}"))),
        None if tally.failed > 0 => Err(Failure::failed(format!("{} lines have no answer", tally.failed))),
        None => Ok(()),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn answer(client: &Client, line: Line) -> Done {
    let Line { number, content } = line;
    let hash = input::hash(&content);
    let (id, request) = match content.map_err(|error| error.to_string()) {
        Ok(content) => input::read(&content),
        Err(error) => (None, Err(error)),
    };
    let result = match request {
        Ok(request) => client.generate(request).await.map(Box::new).map_err(|error| Failed::of(&error)),
        Err(message) => Err(Failed::refused(message)),
    };
    Done { line: number, hash, id, result }
}

fn json(done: &Done) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Record<'a> {
        line: u64,
        input: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        #[serde(flatten)]
        answer: Option<Answered<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a Failed>,
    }
    serde_json::to_string(&Record {
        line: done.line,
        input: &done.hash,
        id: done.id.as_ref(),
        answer: done.result.as_ref().ok().map(|answer| Answered::of(answer)),
        error: done.result.as_ref().err(),
    })
}
