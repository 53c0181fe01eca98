//! `throughline forget`: erases everything that is kept about a user or a session.

use clap::Args;
use serde_json::json;
use throughline_schemas::{SessionId, UserId};

use super::{
    Exit, Failure,
    exit::with_causes,
    output,
    together::{Statements, Together},
};
use crate::{
    config::{Config, Env},
    personal::{Forgotten, OUT_OF_REACH, PersonalError, Stores, Whom, forget},
    system::SystemClock,
};

const FORGET_HELP: &str = "\
Erases what is kept about a user, or about a session with everybody who spoke in it: rows of turns, interactions and (of a user)
preferences; messages of the event log, which the server overwrites; large bodies that only they name; dead letters; claims and
notes of attempts; and their messages in the archives of retention.archive, each of which is rewritten, read back, and
renamed over the old one. An SQLite file is rewritten as well, during which workers wait to write.

Turns that are open are not touched: then nothing is erased (exit 1), since stages still work on them. What has only just ended
is waited for, up to the ack wait. Workers may go on with everything else. Killed, the same command goes on. The ids of their
workflows are forgotten, too, so that a message with one of them would run again; such an id stays only where it stands in
somebody else's record, of a turn that one of theirs interrupted.

The log of the command (stderr) gets one line about it that names the id by its SHA-256 only.
It needs the role admin on the NATS server.

  throughline forget --user ada --dry-run
  throughline forget --session s1 --json";

/// Of whom something is to be done.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub(super) struct WhomArgs {
    /// This user, in all sessions
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// This session, with everybody who spoke in it
    #[arg(long, value_name = "ID")]
    session: Option<String>,
}

impl WhomArgs {
    pub(super) fn read(&self) -> Result<Whom, Failure> {
        match (&self.user, &self.session) {
            (Some(user), _) => {
                let user = UserId::new(user).map_err(|error| Failure::usage(format!("--user {error}")))?;
                Ok(Whom::User(user))
            }
            (None, session) => {
                let session = SessionId::new(session.as_deref().unwrap_or_default());
                let session = session.map_err(|error| Failure::usage(format!("--session {error}")))?;
                Ok(Whom::Session(session))
            }
        }
    }
}

/// `throughline forget`
#[derive(Debug, Clone, Args)]
#[command(after_help = FORGET_HELP)]
pub(super) struct ForgetArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// Only say what would be erased
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &ForgetArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let whom = args.whom.read()?;
    let together = Together::open(config, env, "forget", Statements::Long).await?;
    let stores = stores(&together, config);
    let forgotten = Box::pin(forget(stores, &whom, args.dry_run, &SystemClock)).await;
    if !args.dry_run {
        audit(&whom, &forgotten);
    }
    together.close().await;
    report(&forgotten.map_err(|error| failure(&error))?, &whom, args)
}

/// Where everything of the namespace is kept.
pub(super) fn stores<'a>(together: &'a Together, config: &'a Config) -> Stores<'a> {
    Stores { bus: &together.bus, store: &together.store, archives: &config.retention.archive }
}

pub(super) fn failure(error: &PersonalError) -> Failure {
    let exit = if error.is_unavailable() { Exit::Unavailable } else { Exit::Failed };
    Failure { exit, message: with_causes(error) }
}

/// That it was done, when, and how much went; not of whom, and nothing of what was said.
fn audit(whom: &Whom, forgotten: &Result<Forgotten, PersonalError>) {
    let (kind, id_sha256) = (whom.kind(), whom.hash());
    let Ok(forgotten) = forgotten else {
        // The words of an error may have the id.
        tracing::warn!(kind, id_sha256, "not everything was forgotten");
        return;
    };
    let Forgotten { workflows, events, bodies, letters, claims, archives, rows } = forgotten;
    tracing::info!(
        kind,
        id_sha256,
        workflows,
        turns = rows.turns,
        interactions = rows.interactions,
        preferences = rows.preferences,
        events,
        bodies,
        dead_letters = letters,
        claims,
        archives = archives.archives,
        archived_messages = archives.messages,
        "forgotten"
    );
}

fn report(forgotten: &Forgotten, whom: &Whom, args: &ForgetArgs) -> Result<(), Failure> {
    let Forgotten { workflows, events, bodies, letters, claims, archives, rows } = forgotten;
    if args.json {
        let said = json!({
            "of": whom.kind(), "id": whom.id(), "dry_run": args.dry_run, "workflows": workflows,
            "turns": rows.turns, "interactions": rows.interactions, "preferences": rows.preferences,
            "events": events, "large_bodies": bodies, "dead_letters": letters, "claims": claims,
            "archives": archives.archives, "archived_messages": archives.messages, "out_of_reach": OUT_OF_REACH,
        });
        return output::line(&said.to_string());
    }
    let verb = if args.dry_run { "would erase" } else { "erased" };
    output::line(&format!(
        "{verb} of {}: {workflows} workflows",
        super::timeline::clean(&whom.to_string(), usize::MAX)
    ))?;
    for (what, count) in [
        (
            "database",
            format!(
                "{} turns, {} interactions, {} preferences",
                rows.turns, rows.interactions, rows.preferences
            ),
        ),
        ("event log", format!("{events} messages, {bodies} large bodies")),
        ("dead letters", letters.to_string()),
        ("claims, notes", claims.to_string()),
        ("archives", format!("{} messages of {} archives", archives.messages, archives.archives)),
    ] {
        output::line(&format!("  {what:<14} {count}"))?;
    }
    output::note("out of reach:");
    for place in OUT_OF_REACH {
        output::note(&format!("  {place}"));
    }
    Ok(())
}
