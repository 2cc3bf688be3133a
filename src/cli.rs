//! The command line: one subcommand a file; each prints and never computes.
//!
//! Exit codes: see [`Exit`].

pub mod account;
pub mod audit;
pub mod bench;
pub mod completions;
pub mod data;
pub mod devices;
pub mod dse;
pub mod eval;
#[cfg(feature = "net")]
pub mod join;
#[cfg(feature = "net")]
pub mod keys;
pub mod ledger;
#[cfg(feature = "net")]
mod log;
pub mod man;
#[cfg(feature = "net")]
pub mod policy;
pub mod query;
#[cfg(feature = "net")]
pub mod rounds;
pub mod sample;
pub mod secagg;
#[cfg(feature = "net")]
pub mod serve;
pub mod sweep;
pub mod train;
#[cfg(feature = "net")]
pub mod watch;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Private federated learning: the privacy loss is accounted and printed.
#[derive(Debug, Parser)]
#[command(name = "veilsum", version, about, long_about = None, after_help = "Exit codes: 0 success, 1 a failure while running, 2 bad usage or config, 3 refused to protect privacy or the budget, 4 data could not be had, 130 interrupted.\nStdout carries results, stderr everything else.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model privately over simulated clients.
    Train(train::Args),
    /// Run an experiment for clients that call over the network: rounds survive crashes, a dashboard shows them.
    #[cfg(feature = "net")]
    Serve(serve::Args),
    /// Take part in a server's rounds with local data, or as a key holder.
    #[cfg(feature = "net")]
    Join(join::Args),
    /// Authorities, certificates and enrolment tokens.
    #[cfg(feature = "net")]
    Keys(keys::Args),
    /// What a client lets be done with its data.
    #[cfg(feature = "net")]
    Policy(policy::Args),
    /// A server's stored rounds: list, inspect, export, verify, back up, restore.
    #[cfg(feature = "net")]
    Rounds(rounds::Args),
    /// A running server in the terminal.
    #[cfg(feature = "net")]
    Watch(watch::Args),
    /// Completions for a shell.
    Completions(completions::Args),
    /// Manual pages.
    Man(man::Args),
    /// Privacy loss of a mechanism, or the noise that meets a target.
    Account(Box<account::Entry>),
    /// Attack a mechanism as it runs here: a lower bound of epsilon beside the claimed one.
    Audit(audit::Args),
    /// What has been released about whom: open, show and verify a ledger.
    Ledger(ledger::Args),
    /// Private answers about a table: counts, histograms, quantiles, selections.
    Query(query::Args),
    /// What secure aggregation needs: parameters, security, failure, bytes.
    Secagg(secagg::Args),
    /// Loss and accuracy of a saved model on a data set.
    Eval(eval::Args),
    /// Run a grid of overrides over seeds; mean and spread as a table and a figure.
    Sweep(sweep::Args),
    /// Distributed sum estimation: error, slope, clip ratio and wrap rate of a mechanism.
    Dse(dse::Args),
    /// Draw from the exact samplers and test the draws against the exact law.
    Sample(sample::Args),
    /// Fetch, list, describe and partition data sets.
    Data(data::Args),
    /// Measure the kernels and the limits of this machine.
    Bench(bench::Args),
    /// List what the kernels can run on here, and why something cannot be used.
    Devices(devices::Args),
}

/// Exit codes of the `veilsum` command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A failure while running (I/O, a kernel).
    Failure = 1,
    /// Bad usage, bad config, bad input file.
    Usage = 2,
    /// Refused: the request would break privacy, the budget or the ring.
    Refused = 3,
    /// Data could not be fetched or verified.
    Data = 4,
    /// Ctrl-C; the run can be resumed.
    Interrupted = 130,
}

/// Why a command ended early: a code for machines and a sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code of the process.
    pub exit: Exit,
    /// What, where, and what would be right.
    pub message: String,
}

impl Failure {
    /// A failure with a message.
    pub fn new(exit: Exit, message: impl std::fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

/// A number that JSON can hold; infinity becomes the string "inf".
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!("inf") }
}

/// Runs a parsed command line.
///
/// # Errors
/// A [`Failure`] with the exit code and a sentence for stderr.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Train(args) => train::run(args),
        #[cfg(feature = "net")]
        Command::Serve(args) => serve::run(&args),
        #[cfg(feature = "net")]
        Command::Join(args) => join::run(&args),
        #[cfg(feature = "net")]
        Command::Keys(args) => keys::run(args),
        #[cfg(feature = "net")]
        Command::Policy(args) => policy::run(args),
        #[cfg(feature = "net")]
        Command::Rounds(args) => rounds::run(&args),
        #[cfg(feature = "net")]
        Command::Watch(args) => watch::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
        Command::Account(args) => account::run(*args),
        Command::Audit(args) => audit::run(&args),
        Command::Ledger(args) => ledger::run(args),
        Command::Query(args) => query::run(args),
        Command::Secagg(args) => secagg::run(&args),
        Command::Eval(args) => eval::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Dse(args) => dse::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Data(args) => data::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Devices(args) => devices::run(&args),
    }
}
