//! `throughline record import`.

use std::{fs::File, time::Duration};

use throughline_actors::ports::bus::Published;

use super::{ImportArgs, broken};
use crate::{
    app::{connect_bus, stream_limits},
    bus::nats::{ImportError, NatsBus},
    cli::{Failure, bus_error, exit::with_causes, output, signal::Signals},
    config::{Config, Env},
    replay::recording::Reader,
};

/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &ImportArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    // All of it is read once before anything is written: half of a damaged file is worse than none.
    let mut reader = open(args)?;
    while reader.next_message().map_err(|error| broken(&args.file, &error))?.is_some() {}
    let reader = open(args)?;
    let bus = connect_bus(config, env, "record").await?;
    let mut signals = Signals::install()?;
    let done = tokio::select! {
        biased;
        name = signals.next() => {
            Err(Failure::failed(format!("stopped by {name}; importing again adds what is missing")))
        }
        done = Box::pin(import(args, config, reader, &bus)) => done,
    };
    bus.close(CLOSE_LIMIT).await;
    done
}

fn open(args: &ImportArgs) -> Result<Reader<File>, Failure> {
    Reader::open(&args.file).map_err(|error| broken(&args.file, &error))
}

async fn import(
    args: &ImportArgs,
    config: &Config,
    mut reader: Reader<File>,
    bus: &NatsBus,
) -> Result<(), Failure> {
    let namespace = reader.header().namespace.clone();
    let mut importer =
        bus.import(&namespace, &stream_limits(config)).await.map_err(|error| failure(&error))?;
    let (mut added, mut known) = (0_u64, 0_u64);
    while let Some(event) = reader.next_message().map_err(|error| broken(&args.file, &error))? {
        match importer.add(event).await.map_err(|error| failure(&error))? {
            Published::New => added += 1,
            Published::Already => known += 1,
        }
    }
    output::line(&format!("{added} messages imported into {}, {known} were there already", bus.namespace()))
}

fn failure(error: &ImportError) -> Failure {
    match error {
        ImportError::Bus(error) => bus_error::failure(error),
        ImportError::Live(_) | ImportError::TooMany(_) => Failure::usage(error),
        ImportError::Subject { .. } => Failure::failed(with_causes(error)),
    }
}
