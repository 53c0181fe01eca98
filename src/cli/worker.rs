//! `throughline worker`.

use std::time::Duration;

use throughline_actors::delivery::stage::Drained;
use throughline_schemas::StageName;

use super::{Exit, Failure, WorkerArgs, signal::Signals};
use crate::{
    app::Worker,
    config::{Config, Env},
    http::{HttpPort, HttpServer},
    telemetry::Telemetry,
};

pub(super) async fn run(
    args: &WorkerArgs,
    config: &Config,
    env: &Env,
    telemetry: &Telemetry,
) -> Result<(), Failure> {
    let stages = if args.stages.is_empty() { StageName::ALL.to_vec() } else { args.stages.clone() };
    let mut signals = Signals::install()?;
    let (mut worker, port) = Worker::start(config, env, &stages, telemetry.tracer()).await?;
    let mut http = serve(port, &worker, telemetry);
    let names: Vec<&str> = stages.iter().map(|stage| stage.as_str()).collect();
    tracing::info!(address = %http.address(), stages = names.join(","), "worker ready");
    let ended = until_stopped(&mut signals, &mut worker, &mut http).await;
    let finished = stop(signals, worker, config.worker.drain_grace).await;
    http.shutdown().await;
    ended.and(finished)
}

/// Serves a worker's endpoints.
pub(super) fn serve(port: HttpPort, worker: &Worker, telemetry: &Telemetry) -> HttpServer {
    port.serve(worker.http_state(telemetry.metrics()))
}

/// Waits for a signal, or for the end of something that the worker cannot do without.
pub(super) async fn until_stopped(
    signals: &mut Signals,
    worker: &mut Worker,
    http: &mut HttpServer,
) -> Result<(), Failure> {
    let broken = tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping; a second signal stops at once");
            return Ok(());
        }
        broken = worker.broken() => broken,
        () = http.ended() => "the HTTP server ended".to_owned(),
    };
    tracing::error!(%broken, "stopping, because nothing would get better");
    Err(Failure::failed(format!("{broken}; the log says why")))
}

/// Drains the worker; a second signal ends the grace period.
pub(super) async fn stop(mut signals: Signals, worker: Worker, grace: Duration) -> Result<(), Failure> {
    tokio::select! {
        report = worker.stop(grace) => {
            let Drained { finished, handed_back } = report.total();
            tracing::info!(finished, handed_back, %report, "stopped; what was handed back is with other workers");
            Ok(())
        }
        name = signals.next() => Err(Failure {
            exit: Exit::Failed,
            message: format!("stopped at once by a second {name}; work in hand comes again after the ack wait"),
        }),
    }
}
