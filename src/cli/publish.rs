//! `throughline publish`: one text, or a file of them.

mod end;
mod many;
mod one;
mod progress;
mod tally;
mod waiting;

use std::time::Duration;

pub(super) use one::{publish as one, text as read_text};

use super::{Failure, PublishArgs, lines};
use crate::{
    app::connect_bus,
    client::Message,
    config::{Config, Env},
};

/// Who publishes, in events of these commands.
pub(super) const SOURCE: &str = "throughline/cli";
/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &PublishArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    // What can be wrong with the arguments is found out before anything is opened.
    let work = match &args.file {
        Some(file) => Work::Many(lines::open(file)?),
        None => Work::One(Box::new(one::message(args)?)),
    };
    let bus = connect_bus(config, env, "publish").await?;
    let done = match work {
        Work::One(message) => Box::pin(one::publish(&bus, config, env, *message, args)).await,
        Work::Many(lines) => Box::pin(many::publish(&bus, config, lines, args)).await,
    };
    bus.close(CLOSE_LIMIT).await;
    done
}

enum Work {
    One(Box<Message>),
    Many(lines::Lines),
}
