//! The machines of one aggregation by protocol, and what they have sent by phase.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use super::lattice;
use super::run::{Dropped, Played, ProtocolName, RunArgs};
use crate::backend::{self, Backend, BackendKind};
use crate::cli::{Exit, Failure};
use crate::fl::protocol::{MasksConfig, ServerBehavior};
use crate::math::prg::{Address, Cipher, Purpose, Secret};
use crate::secagg::identity::{Identity, Roster};
use crate::secagg::local::{self, Lost, Tally};
use crate::secagg::masks::{self, MasksClient, MasksServer};
use crate::secagg::plain::{PlainClient, PlainServer};
use crate::secagg::{Party, PartyId, SecAggError, SessionId, VectorShape, frame};
use crate::secagg::{mphe, oneshot};

/// What is to be added up.
pub(super) struct Aggregation<'a> {
    pub(super) shape: VectorShape,
    pub(super) bound: u64,
    /// A vector a client, packed. Client i, from 1, has the one before that.
    pub(super) packed: &'a [Vec<u8>],
    /// What everybody's randomness comes from.
    pub(super) secret: &'a Secret,
}

/// What was sent in one phase.
pub(super) struct PhaseCount {
    pub(super) name: &'static str,
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) milliseconds: f64,
}

/// A phase: its name, the kinds of its frames, and the kind of what the parties answer.
pub(super) type Phases = &'static [(&'static str, &'static [u8], u8)];

const PLAIN: Phases = &[("input", &[frame::KIND_ANNOUNCE, frame::KIND_INPUT], frame::KIND_INPUT)];
const MASKS: Phases = {
    use masks::wire::{ANNOUNCE, CONSENT, DELIVERY, INPUT, KEYS, OPEN, PEERS, SHARES, SURVIVORS, UNMASK};
    &[
        ("keys", &[ANNOUNCE, KEYS], KEYS),
        ("shares", &[PEERS, SHARES], SHARES),
        ("input", &[DELIVERY, INPUT], INPUT),
        ("consistency", &[SURVIVORS, CONSENT], CONSENT),
        ("unmask", &[OPEN, UNMASK], UNMASK),
    ]
};
pub(super) const KEY_SETUP: Phases = {
    use mphe::wire::{ABORT, BEGIN, CERTIFICATE, COMMIT, COMPLAINT, DELIVERY, ROLL, SHARES, SIGN};
    &[
        ("commit", &[BEGIN, COMMIT], COMMIT),
        ("share", &[ROLL, SHARES], SHARES),
        ("sign", &[DELIVERY, SIGN, CERTIFICATE, COMPLAINT, ABORT], SIGN),
    ]
};
pub(super) const MPHE: Phases = {
    use mphe::wire::{AGREE, ANNOUNCE, INPUT, OPEN, PART, REQUEST};
    &[("input", &[ANNOUNCE, INPUT], INPUT), ("agree", &[REQUEST, AGREE], AGREE), ("open", &[OPEN, PART], PART)]
};

pub(super) const ONESHOT: Phases = {
    use oneshot::wire::{ANNOUNCE, ANSWER, INPUT, LACKS, OPEN, RELAY};
    &[("input", &[ANNOUNCE, INPUT, RELAY], INPUT), ("open", &[OPEN, ANSWER, LACKS], ANSWER)]
};

/// Phases in which clients and holders of a protocol answer.
const fn answering(protocol: ProtocolName) -> (&'static [&'static str], &'static [&'static str]) {
    match protocol {
        ProtocolName::Plain => (&["input"], &[]),
        ProtocolName::Masks => (&["keys", "shares", "input", "consistency", "unmask"], &[]),
        ProtocolName::Mphe => (&["input"], &["commit", "share", "sign", "agree", "open"]),
        ProtocolName::Oneshot => (&["input"], &["open"]),
    }
}

pub(super) fn refused(error: impl Display) -> Failure {
    Failure::new(Exit::Refused, error)
}

pub(super) fn failed(error: impl Display) -> Failure {
    Failure::new(Exit::Failure, error)
}

/// Plays the aggregation. Another protocol has its line here, its phases above, and its function below.
pub(super) fn play(args: &RunArgs, what: &Aggregation<'_>) -> Result<Played, Failure> {
    let lost = lost(args, what.packed.len())?;
    let backend = backend::open(Some(BackendKind::Simd)).map_err(failed)?;
    match args.protocol {
        ProtocolName::Plain => plain(args, what, &lost, backend),
        ProtocolName::Masks => masks(args, what, &lost, backend),
        ProtocolName::Mphe => lattice::mphe(args, what, &lost, &backend),
        ProtocolName::Oneshot => lattice::oneshot(args, what, &lost, &backend),
    }
}

/// Who vanishes, and from which kind of frame on.
fn lost(args: &RunArgs, clients: usize) -> Result<Lost, Failure> {
    let (of_clients, of_holders) = answering(args.protocol);
    let mut lost = Lost::new();
    let mut add = |list: &[Dropped], known: &[&str], most: u64, option: &str, id: &dyn Fn(u64) -> PartyId| {
        for dropped in list {
            let phase = known.iter().find(|name| **name == dropped.phase);
            let tables: &[Phases] = match args.protocol {
                ProtocolName::Plain => &[PLAIN],
                ProtocolName::Masks => &[MASKS],
                ProtocolName::Mphe => &[KEY_SETUP, MPHE],
                ProtocolName::Oneshot => &[ONESHOT],
            };
            let kind =
                tables.iter().flat_map(|t| t.iter()).find(|(name, ..)| phase == Some(name)).map(|(.., kind)| *kind);
            let Some(kind) = kind else {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message =
                    format!("{option}: {} has no phase `{}`; there are {known}", args.protocol, dropped.phase);
                return Err(Failure::new(Exit::Usage, message));
            };
            for &who in &dropped.who {
                if who > most {
                    let message = format!("{option}: there is no number {who}, they are 1 to {most}");
                    return Err(Failure::new(Exit::Usage, message));
                }
                let first = lost.entry(id(who)).or_insert(kind);
                *first = (*first).min(kind);
            }
        }
        Ok(())
    };
    add(&args.drop_clients, of_clients, clients as u64, "--drop-clients", &PartyId::Client)?;
    let holders = u64::from(args.holders);
    add(&args.drop_holders, of_holders, holders, "--drop-holders", &|j| PartyId::Holder(j as u16))?;
    Ok(lost)
}

/// Lets the parties talk; what was sent by phase, and the output of the first, the server.
pub(super) fn talk(
    parties: &mut [(PartyId, &mut dyn Party)],
    lost: &Lost,
    phases: Phases,
) -> Result<(Option<crate::secagg::Output>, Vec<PhaseCount>), Failure> {
    let start = Instant::now();
    let mut played = local::play(parties, lost, &|| start.elapsed()).map_err(failed)?;
    let of = |kinds: &[u8], tallies: &BTreeMap<u8, Tally>| {
        let found = || kinds.iter().filter_map(|kind| tallies.get(kind));
        (
            found().map(|t| t.frames).sum(),
            found().map(|t| t.bytes).sum(),
            found().map(|t| t.time.as_secs_f64()).sum::<f64>(),
        )
    };
    let counts = phases.iter().map(|(name, kinds, _)| {
        let (frames, bytes, seconds) = of(kinds, &played.tallies);
        PhaseCount { name, frames, bytes, milliseconds: 1e3 * seconds }
    });
    let counts = counts.collect();
    Ok((played.outputs.swap_remove(0), counts))
}

/// Names of this run, the same for everybody.
pub(super) struct Names {
    pub(super) id: SessionId,
    pub(super) cohort: Vec<u64>,
    pub(super) roster: Arc<Roster>,
    /// Public randomness.
    pub(super) public: [u8; 32],
}

impl Names {
    pub(super) fn new(what: &Aggregation<'_>) -> Result<Self, Failure> {
        let stream = what.secret.derive(&[0; 16], Address::default(), Purpose::Session, Cipher::ChaCha20);
        let (mut session, mut public) = ([0; 16], [0; 32]);
        stream.fill(0, &mut session);
        stream.fill(64, &mut public);
        let cohort: Vec<u64> = (1..=what.packed.len() as u64).collect();
        let roster =
            Roster::new(cohort.iter().map(|&c| (c, Identity::simulated(what.secret, c).public()))).map_err(failed)?;
        Ok(Self { id: SessionId { session, round: 1, attempt: 0 }, cohort, roster: Arc::new(roster), public })
    }
}

/// A party for every client.
pub(super) fn each<P>(
    what: &Aggregation<'_>,
    make: impl Fn(u64, &[u8]) -> Result<P, SecAggError>,
) -> Result<Vec<P>, Failure> {
    (1..).zip(what.packed).map(|(client, packed)| make(client, packed)).collect::<Result<_, _>>().map_err(failed)
}

pub(super) fn with_clients<'a, P: Party>(
    server: &'a mut dyn Party,
    clients: &'a mut [P],
) -> Vec<(PartyId, &'a mut dyn Party)> {
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, server)];
    parties.extend((1..).zip(clients).map(|(client, p)| (PartyId::Client(client), p as &mut dyn Party)));
    parties
}

fn plain(args: &RunArgs, what: &Aggregation<'_>, lost: &Lost, backend: Arc<dyn Backend>) -> Result<Played, Failure> {
    let names = Names::new(what)?;
    let mut clients = each(what, |client, packed| PlainClient::packed(names.id, client, what.shape, packed))?;
    let least = args.min_clients as usize;
    let mut server = PlainServer::new(names.id, &names.cohort, what.shape, least, Some(1), backend).map_err(refused)?;
    let (output, phases) = talk(&mut with_clients(&mut server, &mut clients), lost, PLAIN)?;
    Ok(Played { output, parameters: "added in the clear".to_owned(), fault: None, phases })
}

fn masks(args: &RunArgs, what: &Aggregation<'_>, lost: &Lost, backend: Arc<dyn Backend>) -> Result<Played, Failure> {
    let names = Names::new(what)?;
    let server = match args.server {
        super::ServerName::Malicious => ServerBehavior::Malicious,
        super::ServerName::SemiHonest => ServerBehavior::SemiHonest,
    };
    for (name, share) in [("--corrupt", args.corrupt), ("--dropouts", args.dropouts)] {
        if !(0.0..1.0).contains(&share) {
            return Err(Failure::new(Exit::Usage, format!("{name} is {share}, expected in [0, 1)")));
        }
    }
    let request = MasksConfig { corrupt: args.corrupt, dropouts: args.dropouts, server }.request(names.cohort.len());
    let min_survivors = request.min_survivors.max(args.min_clients as usize);
    let plan = masks::Plan::choose(&masks::Request { min_survivors, ..request }).map_err(refused)?;
    let session = masks::Session::new(masks::Setup {
        id: names.id,
        shape: what.shape,
        cohort: names.cohort.clone(),
        roster: Arc::clone(&names.roster),
        plan,
        graph_seed: names.public,
        deadlines: Some([1, 2, 3, 4, 5]),
    });
    let session = session.map_err(refused)?;
    let mut clients = each(what, |client, packed| {
        let identity = Identity::simulated(what.secret, client);
        MasksClient::packed(&session, client, &identity, &of(what.secret, client), Arc::clone(&backend), packed)
    })?;
    let mut server = MasksServer::new(&session, Arc::clone(&backend));
    let (output, phases) = talk(&mut with_clients(&mut server, &mut clients), lost, MASKS)?;
    Ok(Played { output, parameters: plan.to_string(), fault: None, phases })
}

/// A client's own secret.
pub(super) fn of(secret: &Secret, client: u64) -> Secret {
    let mut bytes = [0; 32];
    let address = Address { client, ..Address::default() };
    secret.derive(&[1; 16], address, Purpose::Draws, Cipher::ChaCha20).fill(0, &mut bytes);
    Secret::from_bytes(bytes)
}
