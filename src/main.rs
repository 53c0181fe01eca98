//! The `throughline` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use throughline::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
