//! Publishing a file of inputs.
//!
//! Lines of one session keep the order of the file: a line is sent only when the stream has the line before it of
//! its session. Lines of different sessions are sent side by side. Pipelining all of them on one connection would
//! be ordered too, but only until one of them has to be sent again. It costs no throughput that matters: workflows
//! of one session run one at a time anyway.

mod job;

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::Serialize;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::IngressLimits;
use tokio::time::Instant;

use super::{progress::Progress, tally::Tally};
use crate::{
    bus::nats::{NatsBus, PublishedInput, StoredEvent},
    cli::{
        Exit, Failure, PublishArgs, bus_error,
        lines::{Line, Lines},
        output,
        signal::Signals,
    },
    client::{self, End, Ends, Message, Saved, Whose},
    config::Config,
};
use job::Job;

/// Lines that are sent and not acknowledged yet.
const WINDOW: usize = 256;
/// How long acknowledgements are waited for after a signal.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// Between two looks at the progress.
const TICK: Duration = Duration::from_millis(200);

/// What became of one line.
struct Delivered {
    job: Job,
    published: Result<PublishedInput, BusError>,
    /// How its workflow had ended before; looked for where that is possible.
    stored_end: Option<StoredEvent>,
}

struct Run<'a> {
    args: &'a PublishArgs,
    started: Instant,
    tally: Tally,
    progress: Progress,
    watch: Option<Ends>,
    /// Sessions with a line that is not acknowledged.
    busy: HashSet<String>,
    /// Why no further line is read.
    stop: Option<Failure>,
}

pub(super) async fn publish(
    bus: &NatsBus,
    config: &Config,
    mut lines: Lines,
    args: &PublishArgs,
) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let watch = if args.wait {
        Some(Ends::open(bus).await.map_err(|error| bus_error::failure(&error))?)
    } else {
        None
    };
    let limits = IngressLimits {
        max_input_bytes: config.limits.max_input_bytes,
        max_metadata_bytes: config.limits.max_metadata_bytes,
    };
    let patience = Duration::from_secs(args.timeout);
    let mut run = Run {
        args,
        started: Instant::now(),
        tally: Tally::default(),
        progress: Progress::new(args.json, args.wait),
        watch,
        busy: HashSet::new(),
        stop: None,
    };
    let mut in_flight = FuturesUnordered::new();
    // Read, but its session is busy: everything behind it waits.
    let mut held: Option<Job> = None;
    let mut at_end = false;
    let mut ticker = tokio::time::interval(TICK);
    let mut last_news = Instant::now();
    loop {
        if run.stop.is_none()
            && let Some(job) = held.take_if(|job| !run.busy.contains(&job.session))
        {
            run.begin(&job);
            in_flight.push(deliver(bus, job, args.wait));
        }
        let reading = !at_end && run.stop.is_none();
        let publishing = reading || !in_flight.is_empty() || (held.is_some() && run.stop.is_none());
        let waiting = run.watch.as_ref().is_some_and(|watch| watch.unfinished() > 0) && run.stop.is_none();
        if !publishing && !waiting {
            break;
        }
        tokio::select! {
            line = lines.recv(), if reading && held.is_none() && in_flight.len() < WINDOW => match line {
                Some(line) => held = run.read(line, &limits)?,
                None => at_end = true,
            },
            Some(delivered) = in_flight.next() => {
                run.delivered(delivered)?;
                last_news = Instant::now();
            }
            end = next_end(&mut run.watch), if run.watch.is_some() => {
                match end {
                    Ok(event) => run.end(&event)?,
                    Err(failure) => run.stop = Some(failure),
                }
                last_news = Instant::now();
            }
            _ = ticker.tick() => run.show(),
            name = signals.next() => {
                run.stop = Some(Failure::failed(format!("stopped by {name}; what is published goes on")));
                break;
            }
            () = tokio::time::sleep_until(last_news + patience), if waiting && !publishing => {
                let why = format!(
                    "nothing ended for {} s (is a worker running? `throughline doctor` tells); what is published \
                     goes on",
                    patience.as_secs()
                );
                run.stop = Some(Failure::failed(why));
                break;
            }
        }
    }
    let settle = async {
        while let Some(delivered) = in_flight.next().await {
            run.delivered(delivered)?;
        }
        Ok::<(), Failure>(())
    };
    if let Ok(settled) = tokio::time::timeout(SETTLE_LIMIT, settle).await {
        settled?;
    }
    run.tally.unpublished += u64::try_from(in_flight.len() + usize::from(held.is_some())).unwrap_or(0);
    run.finish()
}

/// The next end, if ends are watched.
async fn next_end(watch: &mut Option<Ends>) -> Result<StoredEvent, Failure> {
    match watch {
        Some(watch) => watch.next().await.map_err(|error| bus_error::failure(&error)),
        None => std::future::pending().await,
    }
}

/// Sends one line. If its workflow may have ended before, that end is looked up.
async fn deliver(bus: &NatsBus, job: Job, wait: bool) -> Delivered {
    let published = bus.publish_input(&job.message.outgoing).await;
    let known_before = job.chosen_id || published.as_ref().is_ok_and(|published| published.duplicate);
    let mut stored_end = None;
    if wait && known_before && published.is_ok() {
        let Message { session, workflow, user, .. } = &job.message;
        match client::stored_end(bus, session, workflow).await {
            Ok(Some(end))
                if client::is_of(&end, user) && client::whose(bus, &job.message).await != Whose::Anothers =>
            {
                stored_end = Some(end);
            }
            // That this message is refused is told where ends are watched.
            Ok(_) => {}
            // It would only have been found sooner.
            Err(error) => tracing::debug!(%error, "end not looked up"),
        }
    }
    Delivered { job, published, stored_end }
}

/// One answer out of many: whose it is, and the text under it.
fn answer_in_words(line: u64, workflow: &str, saved: &Saved) -> String {
    let lacks = saved.lacks().map_or_else(String::new, |lacks| format!(", {lacks}"));
    let workflow = crate::cli::timeline::clean(workflow, 256);
    let text = crate::cli::timeline::clean_lines(saved.text());
    format!("line {line}: workflow {workflow}{lacks}\n  {}", text.trim_end().replace('\n', "\n  "))
}

impl Run<'_> {
    /// Checks a line; a bad one is reported.
    fn read(&mut self, line: Line, limits: &IngressLimits) -> Result<Option<Job>, Failure> {
        self.tally.lines += 1;
        let number = line.number;
        let job =
            line.content.map_err(|error| error.to_string()).and_then(|line| Job::read(number, &line, limits));
        match job {
            Ok(job) => Ok(Some(job)),
            Err(why) => self.bad(number, &why).map(|()| None),
        }
    }

    fn bad(&mut self, line: u64, why: &str) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Bad<'a> {
            line: u64,
            status: &'static str,
            error: &'a str,
        }
        self.tally.bad += 1;
        let shown = crate::cli::timeline::clean(why, 500);
        self.progress.complain(&format!("line {line}: {shown}"));
        self.record(&Bad { line, status: "bad", error: why })
    }

    fn begin(&mut self, job: &Job) {
        self.busy.insert(job.session.clone());
        if let Some(watch) = &mut self.watch {
            watch.expect(job.line, &job.message, job.chosen_id);
        }
    }

    fn delivered(&mut self, delivered: Delivered) -> Result<(), Failure> {
        let Delivered { job, published, stored_end } = delivered;
        self.busy.remove(&job.session);
        match published {
            Ok(published) => {
                self.tally.published += 1;
                self.tally.duplicates += u64::from(published.duplicate);
                match &mut self.watch {
                    Some(watch) => watch.published(job.line, &job.message, published.sequence),
                    None => self.published(&job, published)?,
                }
            }
            Err(error @ (BusError::TooLarge { .. } | BusError::Encode(_))) => {
                self.forget(&job);
                return self.bad(job.line, &error.to_string());
            }
            // The other lines would fare no better.
            Err(error) => {
                self.forget(&job);
                self.tally.unpublished += 1;
                let failure = bus_error::failure(&error);
                let message = format!(
                    "line {} was not acknowledged, so the rest was not read: {}",
                    job.line, failure.message
                );
                self.stop.get_or_insert(Failure { message, ..failure });
            }
        }
        match stored_end {
            Some(event) => self.end(&event),
            None => Ok(()),
        }
    }

    fn forget(&mut self, job: &Job) {
        if let Some(watch) = &mut self.watch {
            watch.forget(job.line, &job.message);
        }
    }

    fn published(&self, job: &Job, published: PublishedInput) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Published<'a> {
            line: u64,
            workflow_id: &'a str,
            sequence: Option<u64>,
            duplicate: bool,
        }
        let PublishedInput { sequence, duplicate } = published;
        let workflow_id = job.message.workflow.as_str();
        self.record(&Published { line: job.line, workflow_id, sequence, duplicate })
    }

    fn end(&mut self, event: &StoredEvent) -> Result<(), Failure> {
        let Some((workflow, expected)) = self.watch.as_mut().and_then(|watch| watch.settle(event)) else {
            return Ok(());
        };
        let end = End::read(event).unwrap_or_else(|error| End::unreadable(&error));
        let latency = expected.since.elapsed();
        self.tally.end(&end, latency);
        if let End::Failed(failed) = &end {
            let what =
                format!("line {}: workflow {workflow}: {}: {}", expected.number, failed.code, failed.message);
            self.progress.complain(&crate::cli::timeline::clean(&what, 500));
        }
        if let (End::Saved(saved), false) = (&end, self.args.json) {
            self.progress.print(&answer_in_words(expected.number, &workflow, saved))?;
        }
        let mut record = super::end::Record::new(&workflow, Some(&end), latency);
        record.line = Some(expected.number);
        self.record(&record)
    }

    fn record(&self, record: &impl Serialize) -> Result<(), Failure> {
        if !self.args.json {
            return Ok(());
        }
        self.progress.print(&serde_json::to_string(record).map_err(Failure::failed)?)
    }

    fn show(&mut self) {
        let unfinished = self.watch.as_ref().map_or(0, Ends::unfinished);
        self.progress.show(&self.tally, unfinished);
    }

    fn finish(self) -> Result<(), Failure> {
        self.progress.finish();
        let unfinished = self.watch.as_ref().map_or(0, Ends::unfinished);
        let unfinished = u64::try_from(unfinished).unwrap_or(u64::MAX);
        let summary = self.tally.summary(self.started.elapsed(), unfinished, self.watch.is_some());
        output::line(&if self.args.json { summary.json() } else { summary.to_string() })?;
        match self.stop {
            Some(failure) => Err(failure),
            None if summary.is_good() => Ok(()),
            None => Err(Failure { exit: Exit::Failed, message: String::new() }),
        }
    }
}
