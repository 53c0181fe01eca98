//! `throughline llm batch`: a file of questions, answered in order.
//!
//! One line of output belongs to one line of input and names it by number and content hash, so that a run that
//! was stopped, or killed in the middle of a line, goes on where it was. Lines without an answer are asked again.

mod earlier;
mod input;
mod progress;
mod sink;

use std::{path::PathBuf, pin::pin, time::Duration};

use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};

use super::{
    BatchArgs,
    record::{Answered, Failed},
};
use crate::{
    cli::{
        Failure, lines,
        lines::{Line, Lines},
        output,
        signal::Signals,
    },
    config::{Config, Env},
    llm::{Answer, Client},
};
use earlier::Earlier;
use progress::{Before, Progress, Tally};
use sink::Sink;

/// How long questions under way may take once the command is told to stop.
const GRACE: Duration = Duration::from_secs(10);

/// The lines that are to be asked: all but those that earlier runs have done.
struct Jobs {
    lines: Lines,
    earlier: Option<(Earlier, PathBuf)>,
    keep_failed: bool,
    has_failed: bool,
}

impl Jobs {
    /// The next one; a failure, which is the last, if earlier runs had another input.
    async fn next(&mut self) -> Option<Result<Line, Failure>> {
        let next = self.look().await.transpose();
        self.has_failed = matches!(next, Some(Err(_)));
        next
    }

    async fn look(&mut self) -> Result<Option<Line>, Failure> {
        while !self.has_failed
            && let Some(line) = self.lines.recv().await
        {
            let Some((earlier, path)) = &mut self.earlier else { return Ok(Some(line)) };
            match earlier.of(line.number, &input::hash(&line.content), path)? {
                Some(asked) if asked.has_answer || self.keep_failed => {}
                Some(_) | None => return Ok(Some(line)),
            }
        }
        match &mut self.earlier {
            Some((earlier, path)) if !self.has_failed => earlier.finish(path).map(|()| None),
            Some(_) | None => Ok(None),
        }
    }

    fn before(&self) -> Before {
        let (asked, failed) = self.earlier.as_ref().map_or((0, 0), |(earlier, _)| earlier.count());
        if self.keep_failed {
            Before { done: asked, failed, again: 0 }
        } else {
            Before { done: asked - failed, failed: 0, again: failed }
        }
    }
}

/// What became of one line.
struct Done {
    line: u64,
    hash: String,
    id: Option<Value>,
    result: Result<Box<Answer>, Failed>,
}

pub(super) async fn run(args: &BatchArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let client = Client::from_config(config, env)?;
    let lines = lines::open(&args.input)?;
    let mut signals = Signals::install()?;
    let mut sink = Sink::open(args.out.as_deref())?;
    let jobs = Jobs { lines, earlier: sink.earlier()?, keep_failed: args.keep_failed, has_failed: false };
    let mut tally = Tally::after(jobs.before());
    let mut progress = Progress::new(input::count(&args.input));

    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let jobs = stream::unfold(jobs, |mut jobs| async { Some((jobs.next().await?, jobs)) });
    let jobs = jobs.take_until(stopped).map(|line| async { Ok::<_, Failure>(answer(&client, line?).await) });
    let mut answers = pin!(jobs.buffered(usize::from(args.max_concurrency)));
    let mut stopped_by: Option<(&str, Instant)> = None;
    loop {
        let deadline = stopped_by.map(|(_, deadline)| deadline);
        tokio::select! {
            next = answers.next() => {
                let Some(done) = next else { break };
                let done = match done {
                    Ok(done) => done,
                    Err(failure) => {
                        progress.finish();
                        return Err(failure);
                    }
                };
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
    let asked_again = if args.out.is_some() { "; the same command asks them again" } else { "" };
    let resumable = if args.out.is_some() { "; the same command goes on from there" } else { "" };
    if let Some((name, _)) = stopped_by {
        return Err(Failure::failed(format!("stopped by {name}{resumable}")));
    }
    sink.finish()?;
    match tally.unanswered() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!("1 line has no answer{asked_again}"))),
        lines => Err(Failure::failed(format!("{lines} lines have no answer{asked_again}"))),
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
