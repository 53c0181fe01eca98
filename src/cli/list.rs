//! `throughline list`: the workflows that are on record, one a line.

mod json;
mod pages;
mod table;
mod terminal;

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use throughline_actors::ports::{
    clock::Clock,
    store::{ListedTurn, TurnState},
};
use throughline_schemas::Timestamp;
use tokio::time::Instant;

use super::{
    Failure,
    exit::with_causes,
    output,
    signal::Signals,
    standing::{Standing, look_up_steps},
};
use crate::{
    app::{connect_bus, database_url, open_onlooker},
    bus::nats::NatsBus,
    config::{Config, Env},
    storage::{Identity, Onlooker, Peeked, peek},
    system::SystemClock,
};
use pages::Wanted;
use table::Table;

/// Between two drawings of --watch.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// How long connecting to NATS may take. Only the stages of running workflows are asked for there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Before the next attempt to connect, while watching.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

const LIST_HELP: &str = "\
A workflow `waits for` the one that runs in its session, or, where none runs there, for running workflows of its user, which has
its share of what runs (users.running); `runs` in the stage that has to act now, and for how long that has
been so; is `saved` with an answer; or `failed` with a code. AGE counts from its admission, TOOK from its admission to its end.
Workflows are listed from the database, which is only read; which stage a workflow is in is asked of NATS, and left out if
that does not answer. What no worker has taken up yet is in `throughline events` only.

Fields of --json, null where not known: workflow_id, session_id, user_id, state (waiting, running, saved, failed), waits_for (a
workflow; null of one that waits for its user's share), stage and stage_since (of one that runs), code (of one that failed), superseded_by (the workflow that interrupted
it or answers for it), input_sequence, created_at (its admission), updated_at (since when it stands so), age_ms, duration_ms (of
one that has ended), cost_usd (a decimal).

  throughline list --state waiting,running
  throughline list --user demo --since 1h --limit 10
  throughline list --session s1 --json | jq -r 'select(.state == \"failed\") | .workflow_id'
  throughline list --watch";

/// `throughline list`
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = LIST_HELP)]
pub(super) struct ListArgs {
    /// Only workflows of this user
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only workflows of this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only workflows that stand so; several states are separated by commas
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = PossibleValuesParser::new(TurnState::ALL.map(TurnState::as_str)).try_map(|name| TurnState::named(&name).ok_or("no such state")))]
    state: Vec<TurnState>,
    /// Only workflows admitted since then: a span such as 10m, 2h, 1d, or an instant such as 2026-01-31T09:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// List again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &ListArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    // What can be wrong with the arguments is found out before anything is opened.
    let wanted = Wanted::new(args)?;
    let mut list =
        List { args, config, env, wanted, onlooker: open_onlooker(config, env).await?, log: Log::NotAsked };
    list.say_if_copied().await;
    let listed = if args.watch { list.watch().await } else { list.once().await };
    list.close().await;
    listed
}

struct List<'a> {
    args: &'a ListArgs,
    config: &'a Config,
    env: &'a Env,
    wanted: Wanted,
    onlooker: Onlooker,
    log: Log,
}

/// Where it is asked in which stage a workflow is.
enum Log {
    NotAsked,
    Connected(NatsBus),
    /// It cannot be reached; another attempt is made then.
    Away(Instant),
}

impl List<'_> {
    async fn once(&mut self) -> Result<(), Failure> {
        let json = self.args.json;
        let now = SystemClock.now();
        let mut table = Table::new(now);
        let mut after = None;
        let mut count = 0;
        while let Some(page) = self.wanted.next_page(&self.onlooker, &mut after, count).await? {
            count += page.len();
            for standing in &self.with_steps(page).await {
                if json {
                    output::line(&json::line(standing, now)?)?;
                } else {
                    table.add(standing);
                }
            }
        }
        if count == 0 {
            self.say_that_there_is_none().await;
            return Ok(());
        }
        if json { Ok(()) } else { output::line(&table.render()) }
    }

    async fn watch(&mut self) -> Result<(), Failure> {
        let mut signals = Signals::install()?;
        let is_terminal = io::stdout().is_terminal() && !self.args.json;
        loop {
            let next = Instant::now() + REDRAW_EVERY;
            tokio::select! {
                drawn = self.draw(is_terminal) => drawn?,
                _ = signals.next() => return Ok(()),
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                _ = signals.next() => return Ok(()),
            }
        }
    }

    /// Draws what there is now over what there was, or behind it where that cannot be.
    async fn draw(&mut self, is_terminal: bool) -> Result<(), Failure> {
        let now = SystemClock.now();
        // No more than can be seen at once.
        let rows = if is_terminal { terminal::rows() } else { None };
        let room = rows.map_or(usize::MAX, |rows| rows.saturating_sub(table::FRAME_LINES + 1).max(1));
        let mut standings = Vec::new();
        let mut after = None;
        while let Some(page) = self.wanted.next_page(&self.onlooker, &mut after, standings.len()).await? {
            standings.extend(self.with_steps(page).await);
            if standings.len() >= room {
                break;
            }
        }
        standings.truncate(room);
        if self.args.json {
            return standings.iter().try_for_each(|standing| output::line(&json::line(standing, now)?));
        }
        let mut table = Table::new(now);
        for standing in &standings {
            table.add(standing);
        }
        let body = if standings.is_empty() { "no workflow matches".to_owned() } else { table.render() };
        let head = format!("{}  every second; Ctrl-C ends", Timestamp::from_unix_ms(now.unix_ms()));
        output::bytes(terminal::drawing(&head, &body, is_terminal).as_bytes())
    }

    async fn with_steps(&mut self, page: Vec<ListedTurn>) -> Vec<Standing> {
        let mut standings: Vec<Standing> = page.into_iter().map(Standing::new).collect();
        if standings.iter().any(|standing| standing.turn.state == TurnState::Running)
            && let Some(bus) = self.bus().await
        {
            look_up_steps(bus, &mut standings).await;
        }
        standings
    }

    /// The log, if it can be reached; says once if not.
    async fn bus(&mut self) -> Option<&NatsBus> {
        let is_due = match &self.log {
            Log::NotAsked => true,
            Log::Connected(_) => false,
            Log::Away(until) => Instant::now() >= *until,
        };
        if is_due {
            let is_first = matches!(self.log, Log::NotAsked);
            let connecting = tokio::time::timeout(CONNECT_LIMIT, connect_bus(self.config, self.env, "list"));
            self.log = match connecting.await {
                Ok(Ok(bus)) => Log::Connected(bus),
                Ok(Err(error)) => self.without_log(is_first, &with_causes(&error)),
                Err(_) => self.without_log(is_first, &format!("no answer within {CONNECT_LIMIT:?}")),
            };
        }
        match &self.log {
            Log::Connected(bus) => Some(bus),
            Log::NotAsked | Log::Away(_) => None,
        }
    }

    fn without_log(&self, is_first: bool, why: &str) -> Log {
        if is_first {
            let url = &self.config.nats.url;
            output::note(&format!(
                "the stages of running workflows are not shown, because {url} was not reached: {why}"
            ));
        }
        Log::Away(Instant::now() + CONNECT_AGAIN_AFTER)
    }

    /// What is listed of a database whose rows went to another one is the past.
    async fn say_if_copied(&self) {
        let Ok(url) = database_url(self.config, self.env) else { return };
        let peeked = peek(url.expose(), &self.config.nats.namespace).await;
        if let Ok(Peeked::Identity(Identity { copied: Some(copied), .. })) = peeked {
            output::note(&format!(
                "the namespace was copied to {}, and nothing happens in the database {} any more; set database.url to that one",
                copied.place, self.config.database.url
            ));
        }
    }

    /// An empty list may be that of another database, or of another namespace, than was meant.
    async fn say_that_there_is_none(&self) {
        let namespace = &self.config.nats.namespace;
        let known = match database_url(self.config, self.env) {
            Ok(url) => peek(url.expose(), namespace).await.ok(),
            Err(_) => None,
        };
        let url = &self.config.database.url;
        output::note(&match known {
            Some(Peeked::Nothing | Peeked::Missing) => format!(
                "no workflow matches: no worker of the namespace {namespace} has used the database {url}; see whether \
                 database.url and nats.namespace are those of the workers"
            ),
            Some(Peeked::Identity(_)) | None => "no workflow matches".to_owned(),
        });
    }

    async fn close(self) {
        self.onlooker.close();
        if let Log::Connected(bus) = self.log {
            bus.close(CLOSE_LIMIT).await;
        }
    }
}
