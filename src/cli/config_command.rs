//! `throughline config check|show`.

use super::{ConfigCommand, Exit, Failure, doctor::message_memory, output};
use crate::{
    app::{FORGEABLE, Tried, load_tried_prompt, mistake_in_words},
    config::{Config, process_env},
    machine::Machine,
};

pub(super) fn run(command: &ConfigCommand, config: &Config) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check => {
            for problem in config.missing_secrets(&process_env()) {
                output::note(&format!("warning: {problem}"));
            }
            for problem in config.written_secrets() {
                output::note(&format!("warning: {problem}"));
            }
            let cleartext = config.cleartext(&process_env());
            if !cleartext.is_empty() {
                let told: Vec<String> = cleartext.iter().map(ToString::to_string).collect();
                return Err(Failure { exit: Exit::BadConfiguration, message: told.join("\n") });
            }
            if let Some(unused) = config.unused_database() {
                output::note(&format!("warning: {unused}"));
            }
            if let Some(warning) = message_memory::warning(config, Machine::here()) {
                output::note(&format!("warning: {warning}"));
            }
            let Tried { template, doubts } =
                load_tried_prompt(config).map_err(|error| Failure::configuration(&error))?;
            for doubt in &doubts {
                output::note(&format!("warning: prompt: {}", mistake_in_words(doubt)));
            }
            if template.is_forgeable() {
                output::note(&format!("warning: prompt: {FORGEABLE}"));
            }
            output::line("the configuration is good")
        }
        ConfigCommand::Show { json: false } => output::line(config.show().trim_end()),
        ConfigCommand::Show { json: true } => output::line(&config.show_json().to_string()),
    }
}
