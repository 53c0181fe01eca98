//! From parsed arguments to an exit code.

use std::{process::ExitCode, time::Duration};

use super::{
    Cli, Command, Exit, Failure, Global, SchemaCommand, bench, config_command, database, dead, dev, doctor,
    events, exit::with_causes, explain, export, forget, health, list, llm, output, preferences, publish,
    record, replay, sandbox, schema, setup, worker,
};
use crate::{
    app::{AdapterError, WorkerError},
    config::{Config, Env, Layers, Override, process_env},
    identity::CheckInError,
    llm::SetupError,
    telemetry::{Telemetry, TelemetryError},
};

/// Threads that are blocked for longer than this after everything is over, in a read of stdin or a lock of another
/// process, end with this one.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(1);

impl Cli {
    /// Runs the command; says on stderr what went wrong.
    pub fn run(self) -> ExitCode {
        match self.dispatch() {
            Ok(()) => Exit::Done.into(),
            Err(failure) => {
                if !failure.message.is_empty() {
                    output::note(&format!("throughline: {}", failure.message));
                }
                failure.exit.into()
            }
        }
    }

    fn dispatch(self) -> Result<(), Failure> {
        if let Command::Schema(SchemaCommand::Export { out }) = &self.command {
            let written =
                schema::run(out.as_deref()).map_err(|error| Failure::failed(with_causes(&error)))?;
            for path in written {
                output::note(&format!("wrote {}", path.display()));
            }
            return Ok(());
        }
        let env = process_env();
        let layers = self.layers(&env);
        let config = layers.load()?;
        if let Command::Config(command) = &self.command {
            return config_command::run(command, &config);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
        let telemetry = runtime.block_on(async { Telemetry::init(&config.log, &env) })?;
        let result = runtime.block_on(self.perform(&layers, config, &env, &telemetry));
        runtime.block_on(telemetry.shutdown());
        runtime.shutdown_timeout(LEFTOVERS_LIMIT);
        result
    }

    fn layers(&self, env: &Env) -> Layers {
        let overrides = self.global.overrides().into_iter().chain(self.command.overrides()).collect();
        Layers { file: self.global.config.clone(), env: env.clone(), overrides, ..Layers::default() }
    }

    async fn perform(
        &self,
        layers: &Layers,
        config: Config,
        env: &Env,
        telemetry: &Telemetry,
    ) -> Result<(), Failure> {
        match &self.command {
            Command::Dev(args) => Box::pin(dev::run(args, layers, config, env, telemetry)).await,
            Command::Setup(args) => setup::run(args, &config, env).await,
            Command::Worker(args) => worker::run(args, &config, env, telemetry).await,
            Command::Sandbox(args) => sandbox::run(args).await,
            Command::Bench(args) => Box::pin(bench::run(args, self.global.database_url.as_deref())).await,
            Command::Publish(args) => publish::run(args, &config, env).await,
            Command::List(args) => Box::pin(list::run(args, &config, env)).await,
            Command::Events(args) => events::run(args, &config, env).await,
            Command::Explain(args) => Box::pin(explain::run(args, &config, env)).await,
            Command::Preferences(args) => Box::pin(preferences::run(args, &config, env)).await,
            Command::Database(command) => Box::pin(database::run(command, &config, env)).await,
            Command::Export(args) => Box::pin(export::run(args, &config, env)).await,
            Command::Forget(args) => Box::pin(forget::run(args, &config, env)).await,
            Command::Health(_) => health::run(&config).await,
            Command::Dead(args) => dead::run(args, &config, env).await,
            Command::Doctor(args) => doctor::run(args, &config, env).await,
            Command::Replay(command) => Box::pin(replay::run(command, layers, &config, env)).await,
            Command::Record(command) => Box::pin(record::run(command, &config, env)).await,
            Command::Llm(args) => Box::pin(llm::run(args, config, env)).await,
            // Answered before there was a runtime.
            Command::Config(_) | Command::Schema(_) => Ok(()),
        }
    }
}

impl Global {
    fn overrides(&self) -> Vec<Override> {
        let given = [
            ("--nats-url", "nats.url", &self.nats_url),
            ("--database-url", "database.url", &self.database_url),
            ("--namespace", "nats.namespace", &self.namespace),
        ];
        given
            .into_iter()
            .filter_map(|(flag, key, value)| Some(Override::new(flag, key, value.clone()?)))
            .collect()
    }
}

impl Command {
    fn overrides(&self) -> Vec<Override> {
        let listen = match self {
            Self::Dev(args) => args.listen,
            Self::Worker(args) => args.listen,
            Self::Health(args) => args.listen,
            Self::Setup(_)
            | Self::Publish(_)
            | Self::List(_)
            | Self::Events(_)
            | Self::Explain(_)
            | Self::Preferences(_)
            | Self::Database(_)
            | Self::Export(_)
            | Self::Forget(_)
            | Self::Dead(_)
            | Self::Doctor(_)
            | Self::Llm(_)
            | Self::Replay(_)
            | Self::Record(_)
            | Self::Config(_)
            | Self::Schema(_)
            | Self::Sandbox(_)
            | Self::Bench(_) => None,
        };
        listen
            .map(|listen| Override::new("--listen", "http.listen", listen.to_string()))
            .into_iter()
            .collect()
    }
}

impl From<AdapterError> for Failure {
    fn from(error: AdapterError) -> Self {
        let exit = if error.is_unavailable() { Exit::Unavailable } else { Exit::BadConfiguration };
        Self { exit, message: with_causes(&error) }
    }
}

impl From<CheckInError> for Failure {
    fn from(error: CheckInError) -> Self {
        let exit = if error.is_unavailable() { Exit::Unavailable } else { Exit::BadConfiguration };
        Self { exit, message: with_causes(&error) }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::configuration(&error)
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        Self::configuration(&error)
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Adapter(error) => error.into(),
            WorkerError::Identity(error) => error.into(),
            WorkerError::Route(_) | WorkerError::Prompt(_) => Self::configuration(&error),
            WorkerError::Http(_) | WorkerError::Start(_) => Self::unavailable(&error),
        }
    }
}
