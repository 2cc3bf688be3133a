//! `veilsum devices`.

use std::io::{ErrorKind, Write as _};

use serde_json::{Map, Value, json};

use super::{Exit, Failure};
use crate::backend::OpenOptions;
use crate::backend::probe::{Found, probe};
use crate::report::terminal::{Align, Table};

/// Arguments of `veilsum devices`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "List what the kernels can run on here, in the order in which it is taken, and why something cannot \
        be used.\n\nA software adapter is a GPU played by the CPU, hundreds of times slower than simd: it is refused \
        unless --allow-software or VEILSUM_ALLOW_SOFTWARE=1 asks for it, for tests.",
    after_help = "Examples:
  veilsum devices
  veilsum devices --json | jq '.[] | select(.usable)'"
)]
pub struct Args {
    /// A JSON list on stdout.
    #[arg(long)]
    pub json: bool,
    /// Counts a software adapter as usable.
    #[arg(long)]
    pub allow_software: bool,
}

/// Runs the command.
///
/// # Errors
/// Exit 1 if stdout cannot be written.
pub fn run(args: &Args) -> Result<(), Failure> {
    let found = probe(&OpenOptions { allow_software: args.allow_software || OpenOptions::from_env().allow_software });
    let text = if args.json { json(&found) } else { table(&found) };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

fn table(found: &[Found]) -> String {
    let mut table = Table::new(["backend", "device", "what", "driver", "usable"]).with_align([Align::Left; 5]);
    for one in found {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.push([
            one.backend.name().to_owned(),
            one.name.clone().unwrap_or("-".into()),
            dash(one.class),
            dash(&one.driver),
            one.refused.as_ref().map_or("yes".into(), |reason| format!("no: {reason}")),
        ]);
    }
    let mut text = table.to_string();
    for one in found.iter().filter(|one| one.name.is_some()) {
        let limits: Vec<String> = one.limits.iter().map(|(name, value)| format!("{name} {value}")).collect();
        text += &format!("{}: {}\n", one.backend.name(), limits.join(", "));
    }
    text
}

fn json(found: &[Found]) -> String {
    let one = |one: &Found| {
        let limits: Map<String, Value> = one.limits.iter().map(|&(name, value)| (name.into(), value.into())).collect();
        json!({
            "backend": one.backend.name(),
            "device": one.name,
            "class": one.class,
            "driver": one.driver,
            "limits": limits,
            "usable": one.refused.is_none(),
            "reason": one.refused,
        })
    };
    format!("{:#}\n", Value::from(found.iter().map(one).collect::<Vec<_>>()))
}
