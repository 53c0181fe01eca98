//! `throughline config check|show`.

use super::{ConfigCommand, Failure, output};
use crate::config::{Config, process_env};

pub(super) fn run(command: &ConfigCommand, config: &Config) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check => {
            for problem in config.missing_secrets(&process_env()) {
                output::note(&format!("warning: {problem}"));
            }
            if let Some(unused) = config.unused_database() {
                output::note(&format!("warning: {unused}"));
            }
            output::line("the configuration is good")
        }
        ConfigCommand::Show { json: false } => output::line(config.show().trim_end()),
        ConfigCommand::Show { json: true } => output::line(&config.show_json().to_string()),
    }
}
