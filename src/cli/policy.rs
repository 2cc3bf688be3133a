//! `veilsum policy`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{Exit, Failure};
use crate::files::write_atomic;
use crate::net::policy::{Offer, Policy, PolicyError, Refusal, typed};
use crate::report::terminal::{Align, Table};

/// Arguments of `veilsum policy`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "The policy of a client: what it lets be done with its data. `veilsum join --policy FILE` checks every round that a \
        server offers against it before anything is computed, and refuses what it does not allow.\n\nA policy is JSON; every \
        key may be absent, and `{}` is the default: private runs with noise of the client's own, under a protocol in which the server \
        sees sums alone.",
    after_help = "Examples:
  veilsum policy init policy.json
  veilsum policy check policy.json
  veilsum policy check policy.json --plan offer.json   would this round be refused, and why

Exit codes: 0 the policy is good (and takes the round), 1 a file could not be written, 2 a bad policy or plan, 3 the round is refused."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the default policy with an explanation of every key.
    Init(Init),
    /// Check a policy, show what it says, and whether it takes a round.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// The file; it must not exist.
    file: PathBuf,
    /// Say what was written as a JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The policy.
    file: PathBuf,
    /// A round as a server offers it, as JSON.
    #[arg(long, value_name = "OFFER")]
    plan: Option<PathBuf>,
    /// A JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Most bytes of an offer: 1 MiB.
const MAX_OFFER: u64 = 1 << 20;

/// Runs the command.
///
/// # Errors
/// See the exit codes in its help.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Init(init) => write(&init),
        Command::Check(check) => examine(&check),
    }
}

/// A policy to begin with: the defaults, and its keys in words.
fn starting_point() -> Policy {
    let schema = Policy::json_schema();
    let mut comment =
        vec!["What this client lets be done with its data. Keys that are absent have their defaults.".to_owned()];
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let description = property["description"].as_str().unwrap_or_default();
        if !key.starts_with('$') {
            comment.push(format!("{key}: {}", description.replace('\n', " ")));
        }
    }
    Policy { comment, ..Policy::default() }
}

fn write(init: &Init) -> Result<(), Failure> {
    let path = init.file.display();
    if init.file.exists() {
        return Err(Failure::new(Exit::Usage, format!("{path} is there already; remove it, or name another file")));
    }
    let text = serde_json::to_string_pretty(&starting_point()).map_err(|e| Failure::new(Exit::Failure, e))?;
    write_atomic(&init.file, format!("{text}\n").as_bytes()).map_err(|e| Failure::new(Exit::Failure, e))?;
    if init.json {
        println!("{}", json!({ "written": init.file }));
    } else {
        println!("{path}: the default policy; check it with: veilsum policy check {path}");
    }
    Ok(())
}

fn examine(check: &Check) -> Result<(), Failure> {
    let policy = Policy::read(&check.file)?;
    let offer = check.plan.as_deref().map(read_offer).transpose()?;
    let refusals = offer.map_or_else(Vec::new, |offer| policy.check(&offer).err().unwrap_or_default());
    if check.json {
        let mut value = json!({ "policy": policy });
        if check.plan.is_some() {
            value["accepted"] = json!(refusals.is_empty());
            value["refusals"] = refusals.iter().map(reason).collect();
        }
        println!("{value}");
    } else {
        println!("{}", table(&policy));
        if check.plan.is_some() && refusals.is_empty() {
            println!("the round is accepted");
        }
        refusals.iter().for_each(|refusal| println!("refused: {refusal}"));
    }
    if refusals.is_empty() {
        return Ok(());
    }
    let count = refusals.len();
    let message =
        format!("{} refuses the round for {count} reason{}", check.file.display(), if count == 1 { "" } else { "s" });
    Err(Failure::new(Exit::Refused, message))
}

fn reason(refusal: &Refusal) -> Value {
    json!({ "key": refusal.key(), "reason": refusal.to_string(), "line": refusal.line(), "passes": refusal.passes() })
}

fn read_offer(path: &Path) -> Result<Offer, Failure> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_OFFER + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| PolicyError::Io { path: path.to_owned(), source })?;
    if text.len() as u64 > MAX_OFFER {
        return Err(PolicyError::Long { path: path.to_owned(), limit: MAX_OFFER }.into());
    }
    Ok(typed(&text, path)?)
}

/// Every key with its value, defaults included.
fn table(policy: &Policy) -> Table {
    let mut table = Table::new(["key", "value"]).with_align([Align::Left, Align::Left]);
    let Ok(Value::Object(values)) = serde_json::to_value(policy) else { return table };
    let given = |key: &str| values.get(key).map_or_else(|| absent(key).to_owned(), Value::to_string);
    let schema = Policy::json_schema();
    for key in schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key) {
        if !key.starts_with('$') {
            table.push([key.clone(), given(key)]);
        }
    }
    table
}

/// What the absence of a key means.
fn absent(key: &str) -> &'static str {
    match key {
        "mechanisms" => "any private one",
        "authority" => "that of the client's keys",
        "hours" => "always",
        "least_interval_seconds" => "none",
        _ => "any",
    }
}

impl From<PolicyError> for Failure {
    fn from(e: PolicyError) -> Self {
        Self::new(Exit::Usage, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn go(words: &[&str]) -> Result<(), Failure> {
        run(Program::try_parse_from(["policy"].iter().chain(words)).unwrap().args)
    }

    #[test]
    fn what_init_writes_is_the_default_and_explains_every_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let name = path.to_str().unwrap();
        go(&["init", name]).unwrap();
        let policy = Policy::read(&path).unwrap();
        assert_eq!(Policy { comment: vec![], ..policy.clone() }, Policy::default());
        let schema = Policy::json_schema();
        for key in schema["properties"].as_object().unwrap().keys().filter(|key| !key.starts_with('$')) {
            let line = policy.comment.iter().find(|line| line.starts_with(&format!("{key}: ")));
            assert!(line.is_some_and(|line| line.len() > key.len() + 20), "{key}");
        }
        let again = go(&["init", name]).unwrap_err();
        assert_eq!(again.exit, Exit::Usage);
        go(&["check", name]).unwrap();
    }

    #[test]
    fn a_round_is_accepted_or_refused_with_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let (policy, plan) = (folder.path().join("policy.json"), folder.path().join("offer.json"));
        let (policy, plan) = (policy.to_str().unwrap(), plan.to_str().unwrap());
        let zero = "00".repeat(32);
        let offer = format!(
            r#"{{"clients": 10, "cohort": 10, "threshold": 8, "epsilon_public": 1.0, "epsilon_server": 2.0, "delta": 1e-6,
            "protocol": "masks", "mechanism": "smm", "private": true, "noise": "per_client", "model": "digits_mlp",
            "parameters": 2410, "algorithm": "fed_avg", "epochs": 1, "rounds": 5, "round": 1, "authority": "{zero}",
            "roster": "{zero}", "now": 0, "local": {{"day": "mon", "time": "12:00"}}}}"#
        );
        std::fs::write(policy, "{}").unwrap();
        std::fs::write(plan, &offer).unwrap();
        go(&["check", policy, "--plan", plan, "--json"]).unwrap();
        std::fs::write(policy, r#"{"min_cohort": 9}"#).unwrap();
        assert_eq!(go(&["check", policy, "--plan", plan]).unwrap_err().exit, Exit::Refused);
        std::fs::write(plan, offer.replace("\"cohort\"", "\"cohorts\"")).unwrap();
        let failure = go(&["check", policy, "--plan", plan]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("offer.json at `cohorts`"), "{failure}");
        std::fs::write(policy, r#"{"min_cohort": 0}"#).unwrap();
        assert_eq!(go(&["check", policy]).unwrap_err().exit, Exit::Usage);
    }
}
