//! `veilsum rounds`: what a server's store says, without the server.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Exit, Failure};
use crate::fl::replay::{Played, Replay};
use crate::net::NetError;
use crate::net::backup::{self, Manifest};
use crate::net::keys::Role;
use crate::net::objects::Objects;
use crate::net::server::{OBJECTS, STORE, survivors};
use crate::net::store::{self, AttemptState, Store, StoredBody, StoredPayload};
use crate::report::terminal::{Align, Table};
use crate::sim::RoundRecord;

/// Arguments of `veilsum rounds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  veilsum rounds list runs/federation-server
  veilsum rounds show runs/federation-server 12
  veilsum rounds export runs/federation-server > rounds.json
  veilsum train experiment.json --replay rounds.json      the same rounds as a simulation: the same model, with the same seed
  veilsum rounds verify runs/federation-server
  veilsum rounds revoke runs/federation-server client:17
  veilsum rounds backup runs/federation-server backups/monday
  veilsum rounds restore backups/monday runs/federation-server
  veilsum rounds verify runs/federation-server --store postgres://user@db/veilsum --objects s3://bucket/federation

All but restore work beside a running server. A backup is older than what follows it: releases that were made after it are not in
its accounts, so that a run that goes on from it may release more than its budget; the ledger of the run, kept elsewhere, knows.

Exit codes: 0 success, 1 failure, 2 bad usage, 3 what is stored is damaged.")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One line an attempt.
    List(Place),
    /// Who took part in a round, and when its phases ended.
    Show {
        /// The store.
        #[command(flatten)]
        place: Place,
        /// Round, from 1.
        round: u32,
    },
    /// Who has enrolled.
    Parties(Place),
    /// Shuts a party out: its number and its key stay taken.
    Revoke {
        /// The store.
        #[command(flatten)]
        place: Place,
        /// client:N or holder:N.
        party: Role,
    },
    /// Who was in every sum, as JSON: what `veilsum train --replay` takes.
    Export(Place),
    /// Reads and checks everything that is stored.
    Verify(Place),
    /// Copies one moment of a store, verified.
    Backup {
        /// The store.
        #[command(flatten)]
        place: Place,
        /// A folder that does not exist or is empty.
        to: PathBuf,
    },
    /// Puts a backup where no store is.
    Restore {
        /// The backup.
        from: PathBuf,
        /// Where it goes: a state folder that does not exist or is empty, or an empty store and object store.
        #[command(flatten)]
        place: Place,
    },
}

/// Where a store is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The state folder of a server.
    pub state: PathBuf,
    /// The store, where it is not in the state folder: postgres://...
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Where large messages lie, if not in the state folder: a folder, or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "URL")]
    pub objects: Option<String>,
    /// JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

impl Place {
    fn store(&self) -> Result<std::sync::Arc<dyn Store>, Failure> {
        let path = self.state.join(STORE);
        match &self.store {
            Some(url) => Ok(store::open(url)?),
            None if path.exists() => Ok(store::open(&path.display().to_string())?),
            None => Err(Failure::new(
                Exit::Usage,
                format!("{} is no state folder: it has no {STORE}", self.state.display()),
            )),
        }
    }

    fn objects(&self) -> Result<Objects, Failure> {
        let folder = self.state.join(OBJECTS);
        Ok(match &self.objects {
            Some(address) => Objects::open(address, &folder)?,
            None => Objects::folder(&folder)?,
        })
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::List(place) => list(place),
        Command::Show { place, round } => show(place, *round),
        Command::Parties(place) => parties(place),
        Command::Revoke { place, party } => {
            place.store()?.revoke(*party)?;
            say(place.json, &json!({"revoked": party.to_string()}), &format!("{party} is shut out"));
            Ok(())
        }
        Command::Export(place) => export(place),
        Command::Verify(place) => verify(place),
        Command::Backup { place, to } => {
            let copied = backup::backup(&*place.store()?, &place.objects()?, to).map_err(backup_failure)?;
            say(place.json, &json!(copied), &format!("{}: {}", to.display(), summary(&copied)));
            Ok(())
        }
        Command::Restore { from, place } => restore(from, place),
    }
}

fn backup_failure(e: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, e)
}

fn restore(from: &Path, place: &Place) -> Result<(), Failure> {
    let to = &place.state;
    std::fs::create_dir_all(to).map_err(|e| Failure::new(Exit::Failure, format!("{}: {e}", to.display())))?;
    let address = place.store.clone().unwrap_or_else(|| to.join(STORE).display().to_string());
    let copied = backup::restore(from, &*store::open(&address)?, &place.objects()?).map_err(backup_failure)?;
    say(place.json, &json!(copied), &format!("{}: {}", to.display(), summary(&copied)));
    Ok(())
}

fn summary(manifest: &Manifest) -> String {
    let objects: u64 = manifest.objects.values().sum();
    format!("a store of {} bytes and {} objects of {objects} bytes", manifest.store_bytes, manifest.objects.len())
}

fn say(as_json: bool, value: &Value, text: &str) {
    if as_json { println!("{value}") } else { println!("{text}") }
}

fn record(row: &store::RoundRow) -> Result<RoundRecord, Failure> {
    serde_json::from_str(&row.record).map_err(|e| NetError::Record { round: row.round, problem: e.to_string() }.into())
}

fn list(place: &Place) -> Result<(), Failure> {
    let store = place.store()?;
    let (attempts, rounds) = (store.attempts()?, store.rounds()?);
    let mut table = Table::new(["round", "attempt", "state", "messages", "survivors", "accuracy", "epsilon"])
        .with_align([Align::Right, Align::Right, Align::Left, Align::Right, Align::Right, Align::Right, Align::Right]);
    for row in attempts {
        let released = rounds.iter().find(|r| (r.round, r.attempt) == (row.round, row.attempt));
        let record = released.map(record).transpose()?;
        if place.json {
            let state = row.state.to_string();
            println!(
                "{}",
                json!({"round": row.round, "attempt": row.attempt, "state": state, "messages": row.entries, "record": record})
            );
            continue;
        }
        let number = |x: Option<f64>, digits| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.digits$}"));
        table.push([
            row.round.to_string(),
            row.attempt.to_string(),
            row.state.to_string(),
            row.entries.to_string(),
            record.as_ref().map_or_else(|| "-".to_owned(), |r| r.survivors.to_string()),
            number(record.as_ref().and_then(|r| r.accuracy), 4),
            number(record.as_ref().and_then(|r| r.epsilon), 4),
        ]);
    }
    if !place.json {
        println!("{table}");
    }
    Ok(())
}

fn show(place: &Place, round: u32) -> Result<(), Failure> {
    let store = place.store()?;
    let attempts: Vec<_> = store.attempts()?.into_iter().filter(|row| row.round == round).collect();
    if attempts.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("round {round} was never begun")));
    }
    for row in attempts {
        say(
            place.json,
            &json!({"round": round, "attempt": row.attempt, "state": row.state.to_string(), "input": hex::encode(row.input)}),
            &format!("round {round} attempt {}: {}, input {}", row.attempt, row.state, hex::encode(row.input)),
        );
        for entry in store.entries(round, row.attempt)? {
            let (what, bytes) = match &entry.body {
                StoredBody::Frame { from, payload } => (
                    format!("message of {from}"),
                    match payload {
                        StoredPayload::Inline(bytes) => bytes.len() as u64,
                        StoredPayload::Object { len, .. } | StoredPayload::Dropped { len, .. } => *len,
                    },
                ),
                StoredBody::Clock { millis } => (format!("a phase ended after {millis} ms"), 0),
                StoredBody::Note { bytes, .. } => ("survivors".to_owned(), bytes.len() as u64),
            };
            say(
                place.json,
                &json!({"seq": entry.seq, "what": what, "bytes": bytes, "id": hex::encode(entry.id)}),
                &format!("  {:>6}  {what}, {bytes} bytes", entry.seq),
            );
        }
    }
    Ok(())
}

fn parties(place: &Place) -> Result<(), Failure> {
    let mut table = Table::new(["party", "name", "key", "state"]).with_align([Align::Left; 4]);
    for row in place.store()?.parties()? {
        let (role, key) = (row.party.role.to_string(), hex::encode(row.party.identity));
        let state = if row.revoked { "revoked" } else { "enrolled" };
        if place.json {
            println!("{}", json!({"party": role, "name": row.party.name, "identity": key, "state": state}));
        } else {
            table.push([role, crate::net::status::format::one_line(&row.party.name, 40), key, state.to_owned()]);
        }
    }
    if !place.json {
        println!("{table}");
    }
    Ok(())
}

fn export(place: &Place) -> Result<(), Failure> {
    let store = place.store()?;
    let mut replay = Replay::default();
    for row in store.attempts()? {
        let played = match row.state {
            AttemptState::Abandoned => Played::Abandoned,
            AttemptState::Charged | AttemptState::Released => match survivors(&*store, row.round, row.attempt)? {
                Some(survivors) => Played::Released { survivors },
                None => continue,
            },
            AttemptState::Begun => continue,
        };
        replay.attempts.push((row.round, row.attempt, played));
    }
    println!("{}", json!(replay));
    Ok(())
}

fn verify(place: &Place) -> Result<(), Failure> {
    let findings = backup::verify(&*place.store()?, &place.objects()?).map_err(backup_failure)?;
    for finding in &findings {
        say(place.json, &json!({"finding": finding.to_string(), "damage": finding.is_damage()}), &finding.to_string());
    }
    let damage = findings.iter().filter(|finding| finding.is_damage()).count();
    if damage == 0 {
        say(place.json, &json!({"damage": 0}), "everything is as it was written");
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{damage} findings of damage; restore the newest backup")))
}
