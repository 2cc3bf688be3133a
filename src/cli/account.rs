//! `veilsum account`.

use super::Failure;

/// Arguments of `veilsum account`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Failure> {
    Err(Failure::new(super::Exit::Failure, "not built yet"))
}
