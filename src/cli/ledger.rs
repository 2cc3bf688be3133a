//! `veilsum ledger`.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{Exit, Failure};
use crate::privacy::View;
use crate::privacy::ledger::file::{Checked, check};
use crate::privacy::ledger::{LedgerError, LedgerFile, Limit, Opening, Standing};
use crate::report::terminal::{Align, Table};

/// Arguments of `veilsum ledger`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "The ledger: what has been released about whom, and what it cost. Append-only, chained by hashes, one \
        JSON line an entry.\n\nA principal is whom the protection is for: the population whose data the releases are made \
        from. Runs that share a ledger (veilsum train --ledger FILE --principal NAME) charge every release to it before \
        they make it, and stop before the principal's limit is passed. A run without one keeps a ledger of its own, \
        ledger.jsonl in its folder.\n\nThe hashes show damage and edits, and FILE.head shows a missing end; whoever can \
        write both files can forge them. Keep the last hash that verify prints elsewhere to notice that too.",
    after_help = "Examples:
  veilsum ledger open study.jsonl --principal ward-7 --epsilon 8 --delta 1e-6
  veilsum train configs/smm_mnist.json --ledger study.jsonl --principal ward-7
  veilsum ledger show study.jsonl
  veilsum ledger verify study.jsonl --json

Exit codes: 0 success, 1 the file could not be read or written, 2 bad usage, 3 a damaged ledger."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enter a principal, in a new ledger or one that is there.
    Open(Open),
    /// Where every principal stands.
    Show(File),
    /// Check every entry; name the first bad one.
    Verify(File),
}

#[derive(Debug, clap::Args)]
struct Open {
    /// The ledger; made if it is not there.
    file: PathBuf,
    /// The name of the principal.
    #[arg(long)]
    principal: String,
    /// The most that it may lose, over all runs. Absent: recorded, not limited.
    #[arg(long)]
    epsilon: Option<f64>,
    /// The delta at which its epsilons are stated, in (0, 1).
    #[arg(long)]
    delta: f64,
    /// Whose view the limit is about.
    #[arg(long, value_enum, default_value_t = ViewName::Public)]
    view: ViewName,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The ledger.
    file: PathBuf,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ViewName {
    /// Those who see releases only.
    Public,
    /// The server, or whoever knows the cohorts.
    Server,
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in its help.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Open(open) => enter(open),
        Command::Show(File { file, json }) => show(&check(&file)?, json),
        Command::Verify(File { file, json }) => verify(&file, json),
    }
}

fn enter(open: Open) -> Result<(), Failure> {
    let view = match open.view {
        ViewName::Public => View::Public,
        ViewName::Server => View::Server,
    };
    let opening = Opening {
        principal: open.principal,
        delta: open.delta,
        limit: open.epsilon.map(|epsilon| Limit { epsilon, view }),
    };
    LedgerFile::open(&open.file)?.enter(opening.clone())?;
    if open.json {
        println!("{}", json!(opening));
    } else {
        println!("{}: opened `{}`, {}", open.file.display(), opening.principal, allowed(&opening));
    }
    Ok(())
}

fn allowed(opening: &Opening) -> String {
    match opening.limit {
        None => format!("no limit, delta {:e}", opening.delta),
        Some(Limit { epsilon, view }) => {
            format!("at most epsilon {epsilon} in the {} view, delta {:e}", view.name(), opening.delta)
        }
    }
}

fn show(checked: &Checked, json: bool) -> Result<(), Failure> {
    let standings = checked.book.standings()?;
    if json {
        standings.iter().for_each(|standing| println!("{}", json!(standing)));
    } else {
        print!("{}", table(&standings));
    }
    Ok(())
}

fn table(standings: &[Standing]) -> Table {
    let mut table = Table::new(["principal", "releases", "runs", "epsilon (public)", "(server)", "allowed"])
        .with_align([Align::Left, Align::Right, Align::Right, Align::Right, Align::Right, Align::Left]);
    let number = |epsilon: Option<f64>| epsilon.map_or("infinite".to_owned(), |e| format!("{e:.4}"));
    for s in standings {
        table.push([
            s.opening.principal.clone(),
            s.releases.to_string(),
            s.runs.to_string(),
            number(s.epsilon.public),
            number(s.epsilon.server),
            allowed(&s.opening),
        ]);
    }
    table
}

fn verify(path: &Path, json: bool) -> Result<(), Failure> {
    let checked = check(path)?;
    let standings = checked.book.standings()?;
    if json {
        let Checked { entries, hash, torn, .. } = &checked;
        println!("{}", json!({"entries": entries, "hash": hash, "torn_line": torn, "principals": standings}));
        return Ok(());
    }
    println!("{}: {} entries, whole; the last hash is {}", path.display(), checked.entries, checked.hash);
    if checked.torn {
        println!("a line after them was not finished by a process that died; nothing was released for it");
    }
    print!("{}", table(&standings));
    Ok(())
}

impl From<LedgerError> for Failure {
    fn from(e: LedgerError) -> Self {
        let exit = match &e {
            LedgerError::Io { .. } => Exit::Failure,
            LedgerError::Damaged { .. } | LedgerError::Overspent { .. } | LedgerError::Reused { .. } => Exit::Refused,
            LedgerError::Busy(_)
            | LedgerError::Absent(_)
            | LedgerError::Unknown { .. }
            | LedgerError::Opened(_)
            | LedgerError::Privacy(_) => Exit::Usage,
        };
        Self::new(exit, e)
    }
}
