//! Parses the command line, runs it, reports errors.

use std::process::ExitCode;

use clap::Parser;
use veilsum::cli::{Cli, run};

/// Blocks of rows (tens of MiB) and small frames alternate in a round; the allocator of glibc leaves holes between them that
/// no later block fits into, which took three times the memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}
