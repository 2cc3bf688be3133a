//! What parties of one process know together of a run, and what a round asks of one of them, for its policy.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::LocalData;
use crate::config::build::{Experiment, Given, Seat, deal, federate};
use crate::config::{Algorithm, Config, overrides};
use crate::data::Split;
use crate::data::partition::Partition;
use crate::files::write_atomic;
use crate::fl::coordinator::RoundTask;
use crate::fl::protocol::{Directory, Protocol, RoundProtocol};
use crate::fl::spend::{Attempt, Spend};
use crate::net::keys::PartyKeys;
use crate::net::plan::{Key, Parties};
use crate::net::policy::{Fingerprint, HolderOffer, LocalTime, Offer, changed_keys};
use crate::net::{NetError, now};
use crate::report::ReportError;

/// The keys of clients that a party has seen.
const KEYS: &str = "clients.json";

/// What a round asks.
pub(super) struct Asked<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) task: &'a RoundTask,
    pub(super) roster: &'a Roster,
    /// The keys of clients that were seen first.
    pub(super) kept: &'a BTreeMap<u64, [u8; 32]>,
    /// When this party was asked before, seconds since 1970.
    pub(super) previous: Option<u64>,
}

/// The parties of a run as a plan names them: the same ones for round after round.
pub(super) struct Roster {
    /// SHA-256 of the object.
    id: [u8; 32],
    pub(super) directory: Directory,
    clients: BTreeMap<u64, [u8; 32]>,
    fingerprint: Fingerprint,
}

impl Roster {
    /// What an object says whose hash was checked.
    fn read(id: [u8; 32], bytes: &[u8]) -> Result<Self, NetError> {
        let parties: Parties = serde_json::from_slice(bytes).map_err(|e| NetError::Dishonest {
            what: "the roster",
            expected: "one of this version".into(),
            found: e.to_string(),
        })?;
        let directory = parties.directory().map_err(crate::fl::FlError::from)?;
        let clients = (0..).zip(parties.clients.iter().map(|key| key.0)).collect();
        Ok(Self { id, directory, clients, fingerprint: Fingerprint(Sha256::digest(parties.to_bytes()).into()) })
    }
}

/// A run.
struct RunKnown {
    key: ([u8; 16], [u8; 32]),
    config: Arc<Config>,
    party: Arc<Experiment>,
    dealt: Option<Arc<Partition>>,
    /// Epsilon to everybody and to the server after so many rounds; `None` without a bound.
    epsilon: HashMap<u32, (Option<f64>, Option<f64>)>,
}

/// What the parties of a process share: it is made once, however many they are.
#[derive(Default)]
pub(super) struct Standing {
    run: Mutex<Option<RunKnown>>,
    roster: Mutex<Option<Arc<Roster>>>,
}

impl Standing {
    /// The roster of this name, if it is the one that came last: it need not come again.
    pub(super) fn roster(&self, id: &[u8; 32]) -> Option<Arc<Roster>> {
        let known = self.roster.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|roster| roster.id == *id).map(Arc::clone)
    }

    /// Reads a roster that has come, and keeps it.
    pub(super) fn learn(&self, id: [u8; 32], bytes: &[u8]) -> Result<Arc<Roster>, NetError> {
        let roster = Arc::new(Roster::read(id, bytes)?);
        *self.roster.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&roster));
        Ok(roster)
    }

    fn run(&self) -> MutexGuard<'_, Option<RunKnown>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The experiment of a run without data, from the server's config.
    pub(super) fn party(&self, key: ([u8; 16], [u8; 32]), text: &str) -> Result<Arc<Experiment>, NetError> {
        let mut run = self.run();
        if let Some(known) = run.as_ref().filter(|known| known.key == key) {
            return Ok(Arc::clone(&known.party));
        }
        let value = overrides::parse(text, "the server's config")?;
        let config: Config = overrides::typed(&value, "the server's config")?;
        // No secret of a party: each has its own.
        let given = Given {
            secret: Some(crate::math::prg::Secret::fresh().map_err(crate::config::ConfigError::from)?),
            ..Given::default()
        };
        let party = Arc::new(federate(&config, Path::new("."), given, Seat::Party { session: key.0 })?);
        *run = Some(RunKnown {
            key,
            config: Arc::new(config),
            party: Arc::clone(&party),
            dealt: None,
            epsilon: HashMap::new(),
        });
        Ok(party)
    }

    /// The data of a client.
    pub(super) fn data(
        &self,
        data: &LocalData,
        client: u64,
        key: [u8; 32],
    ) -> Result<(Arc<Split>, Vec<usize>), NetError> {
        match data {
            LocalData::None | LocalData::Command(_) => {
                Err(NetError::Refused { reason: "a client needs data: name them with --data".into() })
            }
            LocalData::Own(split) => Ok((Arc::clone(split), (0..split.train.len()).collect())),
            LocalData::Dealt(split) => {
                let mut run = self.run();
                let Some(known) = run.as_mut() else {
                    return Err(NetError::Refused { reason: "the run is not known yet".into() });
                };
                let dealt = match &known.dealt {
                    Some(dealt) => Arc::clone(dealt),
                    None => Arc::clone(known.dealt.insert(Arc::new(deal(&known.config, &split.train, key)?))),
                };
                Ok((Arc::clone(split), dealt.clients.get(client as usize).cloned().unwrap_or_default()))
            }
        }
    }

    /// Epsilon after a round, if all before it were released and it is: of a client that is in every one, to the server.
    fn epsilon(&self, experiment: &Experiment, round: u32) -> Result<(Option<f64>, Option<f64>), NetError> {
        let mut run = self.run();
        if let Some(known) = run.as_ref().and_then(|known| known.epsilon.get(&round)) {
            return Ok(*known);
        }
        let released = |_| vec![Attempt { attempt: 0, input: [0; 32], charged: true, abandoned: false }];
        let journal: BTreeMap<u32, Vec<Attempt>> = (1..=round).map(|round| (round, released(round))).collect();
        let views = Spend::new(&experiment.plan, journal)?.epsilon(round)?;
        let finite = |x: f64| x.is_finite().then_some(x);
        let epsilon = (finite(views.public.epsilon), finite(views.server.epsilon));
        if let Some(known) = run.as_mut() {
            known.epsilon.insert(round, epsilon);
        }
        Ok(epsilon)
    }

    /// The round as the policy is asked about it.
    pub(super) fn offer(&self, asked: &Asked<'_>, keys: &PartyKeys) -> Result<Offer, NetError> {
        let Asked { experiment, task, roster, kept, previous } = asked;
        let plan = &experiment.plan;
        let (epsilon_public, epsilon_server) = self.epsilon(experiment, task.id.round)?;
        let config = self.run().as_ref().map(|known| Arc::clone(&known.config));
        let Some(config) = config else { return Err(NetError::Refused { reason: "the run is not known yet".into() }) };
        let at = now().as_secs();
        Ok(Offer {
            clients: plan.clients,
            cohort: task.cohort.len() as u64,
            threshold: opened(task) as u64,
            epsilon_public,
            epsilon_server,
            delta: plan.delta,
            protocol: (&plan.protocol).into(),
            holders: match &plan.protocol {
                Protocol::Oneshot(c) => {
                    Some(HolderOffer { holders: c.holders, needed: c.needed(), corrupt: c.corrupt_holders })
                }
                _ => None,
            },
            mechanism: config.privacy.mechanism,
            private: plan.is_private(),
            noise: plan.placement,
            model: experiment.model.as_ref().map_or_else(String::new, ToString::to_string),
            parameters: plan.dim as u64,
            algorithm: (&config.algorithm).into(),
            epochs: match config.algorithm {
                Algorithm::FedAvg { epochs, .. } => Some(epochs),
                _ => None,
            },
            rounds: plan.rounds,
            round: task.id.round,
            authority: Fingerprint(keys.authority().map_or([0; 32], |authority| authority.fingerprint)),
            roster: roster.fingerprint,
            changed: changed_keys(kept, &roster.clients),
            previous: *previous,
            now: at,
            local: LocalTime::at(at),
        })
    }
}

/// The least number of vectors that are opened together.
fn opened(task: &RoundTask) -> usize {
    let protocol = match &task.protocol {
        RoundProtocol::Plain | RoundProtocol::Mphe(_) => 1,
        RoundProtocol::Masks(session) => session.plan().request().min_survivors,
        RoundProtocol::Oneshot(session) => session.plan().request().min_survivors,
    };
    protocol.max(task.threshold)
}

#[derive(Serialize, Deserialize)]
struct Kept {
    clients: BTreeMap<u64, Key>,
}

/// The keys that were seen first.
pub(super) fn kept_keys(folder: &Path) -> Result<BTreeMap<u64, [u8; 32]>, NetError> {
    let path = folder.join(KEYS);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(ReportError::Io { action: "read", path, source }.into()),
    };
    let kept: Kept = serde_json::from_slice(&text).map_err(|e| NetError::Io {
        action: "read",
        what: path.display().to_string(),
        source: e.into(),
    })?;
    Ok(kept.clients.into_iter().map(|(client, key)| (client, key.0)).collect())
}

/// Keeps the keys of clients that are new beside those that are kept.
pub(super) fn keep_keys(folder: &Path, mut kept: BTreeMap<u64, [u8; 32]>, roster: &Roster) -> Result<(), NetError> {
    let known = kept.len();
    for (client, key) in &roster.clients {
        kept.entry(*client).or_insert(*key);
    }
    if kept.len() == known {
        return Ok(());
    }
    let kept = Kept { clients: kept.into_iter().map(|(client, key)| (client, Key(key))).collect() };
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    write_atomic(&folder.join(KEYS), &text).map_err(ReportError::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secagg::identity::Identity;

    #[test]
    fn a_roster_is_read_once_and_another_takes_its_place() {
        let parties = |names: &[u8]| {
            let key = |name: &u8| Key(Identity::from_bytes(&[*name; 32]).public());
            Parties { clients: names.iter().map(key).collect(), holders: Vec::new() }.to_bytes()
        };
        let (first, second) = (parties(&[1, 2]), parties(&[1, 3]));
        let id = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let standing = Standing::default();
        assert!(standing.roster(&id(&first)).is_none());
        let learned = standing.learn(id(&first), &first).unwrap();
        assert!(Arc::ptr_eq(&learned, &standing.roster(&id(&first)).unwrap()));
        assert_eq!((learned.clients.len(), learned.fingerprint), (2, Fingerprint(id(&first))));
        // One that cannot be read takes no place.
        assert!(matches!(standing.learn([7; 32], b"{"), Err(NetError::Dishonest { what: "the roster", .. })));
        assert!(standing.roster(&[7; 32]).is_none() && standing.roster(&id(&first)).is_some());
        assert!(!Arc::ptr_eq(&learned, &standing.learn(id(&second), &second).unwrap()));
        assert!(standing.roster(&id(&first)).is_none());
    }
}
