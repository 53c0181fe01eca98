//! `throughline doctor`: everything that a worker needs, looked at without paying for anything.

mod capacity;
mod database;
mod finding;
mod identity;
mod keys;
pub(super) mod message_memory;
mod nats;
mod postgres;
mod prices;
pub(super) mod reach;
mod settings;
pub(super) mod space;
mod strict;
mod sync;
mod turns;
mod whoami;
mod worker;

use super::{DoctorArgs, Exit, Failure, output, timeline::Style};
use crate::{
    config::{Config, Env},
    machine::{Machine, raise_open_files},
    system::SystemClock,
};
use finding::{Finding, Status};
use throughline_actors::ports::clock::Clock;

pub(super) async fn run(args: &DoctorArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    // As a worker does, so that it is told what a worker would have.
    raise_open_files();
    // Nobody else of this process may look at a file meanwhile: this closes a handle of it, which drops all locks that
    // the process has there, those of a reader's too.
    let database = Box::pin(database::check(config, env)).await;
    let (nats, reach, worker) = tokio::join!(
        Box::pin(nats::check(config, env, args.role)),
        Box::pin(reach::check(config, env)),
        Box::pin(worker::check(config)),
    );
    let findings: Vec<Finding> = settings::check(config, env)
        .into_iter()
        .chain(capacity::check(config, Machine::here()))
        .chain([message_memory::check(config, Machine::here())])
        .chain(prices::check(config, SystemClock.now()))
        .chain(nats)
        .chain([database])
        .chain(reach)
        .chain(worker)
        .collect();
    if args.json {
        output::line(&serde_json::to_string(&findings).map_err(Failure::failed)?)?;
    } else {
        let style = Style::of_stdout();
        for finding in &findings {
            output::line(&finding.line(style))?;
        }
    }
    verdict(&findings)
}

/// What the findings mean for the exit code; they have been printed already.
fn verdict(findings: &[Finding]) -> Result<(), Failure> {
    let failed = || findings.iter().filter(|finding| finding.status == Status::Fail);
    if failed().next().is_none() {
        return Ok(());
    }
    let exit = if failed().any(|finding| finding.is_unreachable) { Exit::Unavailable } else { Exit::Failed };
    Err(Failure { exit, message: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_pass_failures_do_not_and_what_cannot_be_reached_has_its_own_code() {
        let exit = |findings: &[Finding]| verdict(findings).err().map(|failure| failure.exit);
        let ok = Finding::ok("a", "fine");
        let warn = Finding::warn("b", "odd", "look");
        let fail = Finding::fail("c", "wrong", "change it");
        let gone = Finding::unreachable("d", "gone", "start it");
        assert_eq!(exit(&[ok.clone(), warn.clone()]), None);
        assert_eq!(exit(&[ok.clone(), fail.clone()]), Some(Exit::Failed));
        assert_eq!(exit(&[ok, warn, fail, gone]), Some(Exit::Unavailable));
    }
}
