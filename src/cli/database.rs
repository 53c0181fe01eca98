//! `throughline database`: moving everything of a namespace to another database.

mod copy;

use clap::{Args, Subcommand};

use super::Failure;
use crate::config::{Config, Env, Secret};

const COPY_HELP: &str = "\
Copies everything of the configured namespace: turns, what was said, preferences, and the identity by which the log knows its
database; from SQLite or PostgreSQL to either. NATS is not needed. The target is an empty database, or one that is empty
but for other namespaces; an SQLite file is made.

Stop all workers first: while one uses the source nothing is copied. From its beginning on the source is retired, and whatever
opens it is told where the namespace is now. Killed or cut off, the same command goes on; in the end the rows of both are
compared and counted. Turns that wait or run go on when workers have started with database.url set to the target. What is left
in the source can be deleted then.

PostgreSQL keeps instants to the microsecond; everything else comes back from it as it was.

  throughline database copy --to postgres://user@host/shop --to-password file:/run/secrets/shop
  throughline database copy --from sqlite:///var/lib/shop.db --to sqlite:///srv/shop.db";

/// `throughline database ...`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum DatabaseCommand {
    /// Copy everything of the namespace to another database, and retire the one it was in
    Copy(CopyArgs),
}

/// `throughline database copy`
#[derive(Debug, Clone, Args)]
#[command(after_help = COPY_HELP)]
pub(super) struct CopyArgs {
    /// Database to copy to: `sqlite://FILE` or `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    to: String,
    /// Password for a --to URL with a user and without one, as `env:NAME` or `file:PATH`
    #[arg(long, value_name = "SECRET", value_parser = Secret::parse)]
    to_password: Option<Secret>,
    /// Database to copy from [default: database.url]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Password for a --from URL with a user and without one, as `env:NAME` or `file:PATH`
    #[arg(long, value_name = "SECRET", requires = "from", value_parser = Secret::parse)]
    from_password: Option<Secret>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: &DatabaseCommand, config: &Config, env: &Env) -> Result<(), Failure> {
    match command {
        DatabaseCommand::Copy(args) => copy::run(args, config, env).await,
    }
}
