//! Parses the command line, runs it, reports errors.

use std::process::ExitCode;

use clap::Parser;
use veilsum::cli::{Cli, run};

/// Blocks of rows (tens of MiB) and small frames alternate in a round; the allocator of glibc leaves holes between them that
/// no later block fits into, which took three times the memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    end_with_the_reader();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Whoever reads our output may stop (`| head`): then there is nothing left to say, and no reason to panic.
fn end_with_the_reader() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str().is_some_and(|message| message.starts_with("failed printing to stdout")) {
            std::process::exit(0);
        }
        usual(panic);
    }));
}
