//! `throughline setup`.

use super::{Failure, bus_error, output};
use crate::{
    app::{connect_bus, stream_limits},
    bus::nats::topology,
    config::{Config, Env},
};

pub(super) async fn run(config: &Config, env: &Env) -> Result<(), Failure> {
    let bus = connect_bus(config, env, "setup").await?;
    let report =
        topology::setup(&bus, &stream_limits(config)).await.map_err(|error| bus_error::failure(&error))?;
    output::line(report.to_string().trim_end())
}
