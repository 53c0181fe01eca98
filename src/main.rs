//! The `throughline` program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use throughline::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
