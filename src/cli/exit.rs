//! How the process ends.

use std::{fmt, process::ExitCode};

use crate::config::ConfigErrors;

/// Documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The workflow or the check failed.
    Failed,
    /// Wrong usage; what clap uses, too.
    Usage,
    /// Bad configuration (`EX_CONFIG` would be 78; 64 is the contract's).
    BadConfiguration,
    /// A needed service cannot be reached.
    Unavailable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::BadConfiguration => 64,
            Exit::Unavailable => 69,
        })
    }
}

/// A command did not succeed: what to tell the user, and how to exit.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// For a person; empty if everything has been said.
    pub message: String,
}

impl Failure {
    /// The workflow or the check failed.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: error.to_string() }
    }

    /// Wrong usage.
    pub fn usage(error: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: error.to_string() }
    }

    /// A needed service cannot be reached. The causes are part of the message.
    pub fn unavailable(error: &dyn std::error::Error) -> Self {
        Self { exit: Exit::Unavailable, message: with_causes(error) }
    }

    /// Bad configuration.
    pub fn configuration(error: &dyn std::error::Error) -> Self {
        Self { exit: Exit::BadConfiguration, message: with_causes(error) }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self { exit: Exit::BadConfiguration, message: errors.to_string() }
    }
}

/// An error and its causes, on one line; a cause that the error has said already is not repeated.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
