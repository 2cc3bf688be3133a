//! One attempt of a round at a client or a key holder: a machine, and what of it is on disk.
//!
//! ```text
//! FOLDER/journal.jsonl       every plan that was ever accepted: (session, round, attempt) and the plan's hash
//! FOLDER/ROUND-ATTEMPT/      while it goes on
//!     vector                 the encoded vector, written before anything of it is sent
//!     heard                  SHA-256 of every message of the server that the machine took, in order
//! ```
//! **One plaintext under a key.** What a client draws is addressed by session, round and attempt, so that another model under the
//! same numbers would meet the same noise. A plan is therefore in the journal, synced, before anything is computed, and another
//! plan under its numbers is refused for good. The vector is computed once: a client that comes back sends the same bytes. The folder
//! is made before the plan is on record, and goes when the round is over: a plan on record without a folder is not computed again.
//!
//! **One story.** A machine is rebuilt from the messages of the server, which the server repeats from the first. They have to be
//! those that were heard: a server that tells a client that comes back something else than before, to get another answer from
//! it, is refused.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::backend::Backend;
use crate::files::{sync_folder_of, write_atomic};
use crate::fl::FlError;
use crate::fl::coordinator::RoundTask;
use crate::fl::protocol::RoundProtocol;
use crate::math::prg::Secret;
use crate::net::NetError;
use crate::net::keys::Role;
use crate::report::ReportError;
use crate::report::jsonl::{self, JsonlWriter};
use crate::secagg::channel::PrivateKey;
use crate::secagg::identity::Identity;
use crate::secagg::masks::MasksClient;
use crate::secagg::oneshot::{OneshotClient, OneshotHolder};
use crate::secagg::plain::PlainClient;
use crate::secagg::{Party, PartyId};

const JOURNAL: &str = "journal.jsonl";
const VECTOR: &str = "vector";
const HEARD: &str = "heard";
/// Most messages that wait for the vector: under `plain` and `oneshot` there is one, which asks for it.
const MOST_EARLY: usize = 4;

/// A plan that was accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Accepted {
    session: String,
    round: u32,
    attempt: u32,
    plan: String,
    /// When, seconds since 1970; plans of an older version lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<u64>,
}

/// Every plan that a party has accepted.
pub(super) struct Journal {
    writer: JsonlWriter,
    plans: HashMap<Name, String>,
    /// The last two attempts that were begun, and when: the policy asks after the one before.
    last: [Option<(Name, u64)>; 2],
}

/// Session, round and attempt.
type Name = (String, u32, u32);

impl Journal {
    /// True if a plan is on record under these numbers.
    pub(super) fn has(&self, session: &[u8; 16], round: u32, attempt: u32) -> bool {
        self.plans.contains_key(&(hex::encode(session), round, attempt))
    }

    /// The journal of a folder.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(super) fn open(folder: &Path) -> Result<Self, NetError> {
        let path = folder.join(JOURNAL);
        let writer = JsonlWriter::open_truncated(&path, |_| true)?;
        let lines = jsonl::read::<Accepted>(&path)?;
        let mut journal = Self { writer, plans: HashMap::new(), last: [None, None] };
        lines.into_iter().for_each(|line| journal.enter(line));
        Ok(journal)
    }

    fn enter(&mut self, line: Accepted) {
        let name = (line.session, line.round, line.attempt);
        if let Some(at) = line.at {
            self.last = [self.last[1].take(), Some((name.clone(), at))];
        }
        self.plans.insert(name, line.plan);
    }

    /// When the last attempt was begun that is not this one, seconds since 1970.
    pub(super) fn previous(&self, session: &[u8; 16], round: u32, attempt: u32) -> Option<u64> {
        let this = (hex::encode(session), round, attempt);
        self.last.iter().flatten().filter(|(name, _)| *name != this).map(|(_, at)| *at).next_back()
    }

    /// Puts a plan on record, if it is not there.
    ///
    /// # Errors
    /// Another plan under these numbers; a file that cannot be written.
    pub(super) fn accept(&mut self, session: &[u8; 16], round: u32, attempt: u32, body: &[u8]) -> Result<(), NetError> {
        let (session, plan) = (hex::encode(session), hex::encode(Sha256::digest(body)));
        if let Some(known) = self.plans.get(&(session.clone(), round, attempt)) {
            if *known == plan {
                return Ok(());
            }
            return Err(NetError::Dishonest {
                what: "a second plan of one attempt",
                expected: known.clone(),
                found: plan,
            });
        }
        let line = Accepted { session, round, attempt, plan, at: Some(crate::net::now().as_secs()) };
        self.writer.write(&line)?;
        self.writer.sync()?;
        self.enter(line);
        Ok(())
    }
}

/// What the machine is.
enum Machine {
    /// Frames that wait for the vector, without which there is no machine.
    Later(Vec<Vec<u8>>),
    /// A client or a holder with nothing left to be given.
    Party(Box<dyn Party + Send>),
    /// A client of `masks`, which asks for its vector in the middle.
    Masks(Box<MasksClient>, Option<Vec<u8>>),
}

/// Who works.
pub(super) struct Worker {
    pub(super) role: Role,
    pub(super) identity: Identity,
    pub(super) secret: Secret,
    pub(super) channel: PrivateKey,
    pub(super) backend: Arc<dyn Backend>,
}

/// An attempt that goes on.
pub(super) struct Work {
    pub(super) round: u32,
    pub(super) attempt: u32,
    pub(super) task: Arc<RoundTask>,
    folder: PathBuf,
    machine: Machine,
    heard: File,
    /// Hashes of the messages that were heard, also before this process began.
    known: Vec<[u8; 32]>,
    /// Messages that the machine took in this process.
    taken: u64,
    unsynced: bool,
    /// What is to be sent.
    pub(super) outbox: Vec<Bytes>,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> NetError {
    let path = path.to_path_buf();
    move |source| ReportError::Io { action, path, source }.into()
}

impl Work {
    /// True if the folder of an attempt is there.
    pub(super) fn is_open(folder: &Path, round: u32, attempt: u32) -> bool {
        folder.join(format!("{round}-{attempt}")).is_dir()
    }

    /// Begins an attempt, or takes up one that this folder has.
    ///
    /// # Errors
    /// Files; a party that has no place in the round.
    pub(super) fn begin(folder: &Path, worker: &Worker, task: Arc<RoundTask>) -> Result<Self, NetError> {
        let (round, attempt) = (task.id.round, task.id.attempt);
        let folder = folder.join(format!("{round}-{attempt}"));
        std::fs::create_dir_all(&folder).map_err(io("create", &folder))?;
        sync_folder_of(&folder).map_err(ReportError::from)?;
        let path = folder.join(HEARD);
        let mut before = Vec::new();
        let mut heard =
            OpenOptions::new().create(true).read(true).append(true).open(&path).map_err(io("open", &path))?;
        heard.read_to_end(&mut before).map_err(io("read", &path))?;
        let (whole, torn) = before.as_chunks::<32>();
        if !torn.is_empty() {
            // The end of a line that was not synced: what it belongs to led to nothing.
            heard.set_len((whole.len() * 32) as u64).map_err(io("write", &path))?;
        }
        let known = whole.to_vec();
        let machine = match (&task.protocol, worker.role) {
            (RoundProtocol::Oneshot(session), Role::Holder(number)) => {
                let holder = OneshotHolder::new(session, number, &worker.identity, &worker.channel, None);
                Machine::Party(Box::new(holder.map_err(FlError::from)?))
            }
            (RoundProtocol::Masks(session), Role::Client(client)) => {
                let backend = Arc::clone(&worker.backend);
                let machine = MasksClient::new(session, client, &worker.identity, &worker.secret, backend);
                Machine::Masks(Box::new(machine.map_err(FlError::from)?), None)
            }
            _ => Machine::Later(Vec::new()),
        };
        Ok(Self { round, attempt, task, folder, machine, heard, known, taken: 0, unsynced: false, outbox: Vec::new() })
    }

    /// Messages of the server that the machine has.
    pub(super) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The vector, if it was computed before.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn stored_vector(&self) -> Result<Option<Vec<u8>>, NetError> {
        let path = self.folder.join(VECTOR);
        match std::fs::read(&path) {
            Ok(vector) => Ok(Some(vector)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io("read", &path)(e)),
        }
    }

    /// Keeps the vector and gives it to the machine.
    ///
    /// # Errors
    /// Files; a vector that the protocol refuses.
    pub(super) fn give(&mut self, worker: &Worker, vector: Vec<u8>) -> Result<(), NetError> {
        let path = self.folder.join(VECTOR);
        if !path.exists() {
            write_atomic(&path, &vector).map_err(ReportError::from)?;
        }
        let Role::Client(client) = worker.role else { return Ok(()) };
        let frames = match &mut self.machine {
            Machine::Masks(_, waiting) => {
                *waiting = Some(vector);
                return self.step();
            }
            Machine::Party(_) => return Ok(()),
            Machine::Later(frames) => std::mem::take(frames),
        };
        let (task, backend) = (&self.task, Arc::clone(&worker.backend));
        let mut party: Box<dyn Party + Send> = match &task.protocol {
            RoundProtocol::Oneshot(session) => {
                let (identity, secret) = (&worker.identity, &worker.secret);
                let made = OneshotClient::packed(session, client, identity, secret, backend, &vector);
                Box::new(made.map_err(FlError::from)?)
            }
            _ => Box::new(PlainClient::packed(task.id, client, task.shape, &vector).map_err(FlError::from)?),
        };
        for frame in frames {
            party.handle(PartyId::Server, &frame).map_err(FlError::from)?;
        }
        self.machine = Machine::Party(party);
        self.step()
    }

    /// Takes a message of the server.
    ///
    /// # Errors
    /// One out of order, or another than was heard in its place before; one that the protocol refuses.
    pub(super) fn hear(&mut self, index: u64, frame: &[u8]) -> Result<(), NetError> {
        if index > self.taken {
            let (expected, found) = (self.taken.to_string(), index.to_string());
            return Err(NetError::Dishonest { what: "the number of a message", expected, found });
        }
        if matches!(&self.machine, Machine::Later(frames) if index == self.taken && frames.len() >= MOST_EARLY) {
            let (expected, found) = (format!("at most {MOST_EARLY}"), "more".to_owned());
            return Err(NetError::Dishonest { what: "messages to a client that is still training", expected, found });
        }
        let hash: [u8; 32] = Sha256::digest(frame).into();
        match self.known.get(usize::try_from(index).unwrap_or(usize::MAX)) {
            Some(known) if *known != hash => {
                let (expected, found) = (hex::encode(known), hex::encode(hash));
                return Err(NetError::Dishonest { what: "a message that was another before", expected, found });
            }
            // Heard in this process already: a server that was started again begins with the first.
            Some(_) if index < self.taken => return Ok(()),
            Some(_) => {}
            None => {
                let path = self.folder.join(HEARD);
                self.heard.write_all(&hash).map_err(io("write", &path))?;
                self.unsynced = true;
                self.known.push(hash);
            }
        }
        self.taken += 1;
        match &mut self.machine {
            Machine::Later(frames) => frames.push(frame.to_vec()),
            Machine::Party(party) => party.handle(PartyId::Server, frame).map_err(FlError::from)?,
            Machine::Masks(party, _) => party.handle(PartyId::Server, frame).map_err(FlError::from)?,
        }
        self.step()
    }

    /// Collects what the machine has to say. What led to it is on disk first.
    fn step(&mut self) -> Result<(), NetError> {
        let mut said = Vec::new();
        match &mut self.machine {
            Machine::Later(_) => {}
            Machine::Party(party) => said.extend(std::iter::from_fn(|| party.poll_transmit())),
            Machine::Masks(party, vector) => {
                said.extend(std::iter::from_fn(|| party.poll_transmit()));
                if party.wants_vector()
                    && let Some(vector) = vector.take()
                {
                    party.submit(&vector).map_err(FlError::from)?;
                    said.extend(std::iter::from_fn(|| party.poll_transmit()));
                }
            }
        }
        if !said.is_empty() && self.unsynced {
            let path = self.folder.join(HEARD);
            self.heard.sync_data().map_err(io("write", &path))?;
            self.unsynced = false;
        }
        self.outbox.extend(said.into_iter().map(|transmit| Bytes::from(transmit.frame)));
        Ok(())
    }

    /// The attempt is over: its folder goes. The journal keeps that it was.
    ///
    /// # Errors
    /// A folder that cannot be removed.
    pub(super) fn end(self) -> Result<(), NetError> {
        std::fs::remove_dir_all(&self.folder).map_err(io("remove", &self.folder))
    }
}

/// Removes what attempts have left that are over.
///
/// # Errors
/// A folder that cannot be read or removed.
pub(super) fn sweep(folder: &Path, keep: Option<(u32, u32)>) -> Result<(), NetError> {
    let keep = keep.map(|(round, attempt)| format!("{round}-{attempt}"));
    for entry in std::fs::read_dir(folder).map_err(io("read", folder))? {
        let entry = entry.map_err(io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let attempt = name.split_once('-').is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok());
        if attempt && Some(&name) != keep.as_ref() {
            std::fs::remove_dir_all(entry.path()).map_err(io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_knows_after_a_restart_when_a_round_was_begun_last() {
        let folder = tempfile::tempdir().unwrap();
        // Of a version that did not write it down.
        let old = format!(r#"{{"session":"{}","round":1,"attempt":0,"plan":"x"}}"#, hex::encode([7; 16]));
        std::fs::write(folder.path().join(JOURNAL), old + "\n").unwrap();
        let (session, before) = ([7; 16], crate::net::now().as_secs());
        let mut journal = Journal::open(folder.path()).unwrap();
        assert!(journal.has(&session, 1, 0) && journal.previous(&session, 2, 0).is_none());
        journal.accept(&session, 2, 0, b"plan").unwrap();
        for mut journal in [journal, Journal::open(folder.path()).unwrap()] {
            // The same again is no other round: it is not refused for coming too soon.
            journal.accept(&session, 2, 0, b"plan").unwrap();
            assert_eq!(journal.previous(&session, 2, 0), None);
            assert!(journal.previous(&session, 2, 1).is_some_and(|at| at >= before));
            assert!(journal.accept(&session, 2, 0, b"another").is_err());
        }
    }
}
