//! The parties of one aggregation, by protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drive::{Member, Members};
use super::{Case, Protocol};
use crate::backend::Backend;
use crate::he::OpeningGuard;
use crate::he::shamir::Threshold;
use crate::math::prg::Secret;
use crate::secagg::identity::{Identity, Roster};
use crate::secagg::local;
use crate::secagg::masks::{self, MasksClient, MasksServer, ServerModel};
use crate::secagg::mphe::{self, Epochs, KeyHolder, KeyServer, MpheClient, MpheServer, RoundHolder, simulated};
use crate::secagg::oneshot::{self, OneshotClient, OneshotHolder, OneshotServer};
use crate::secagg::plain::{PlainClient, PlainServer};
use crate::secagg::{Output, Party, PartyId, SecAggError, SessionId, Transmit, VectorShape};

const ID: SessionId = SessionId { session: [7; 16], round: 1, attempt: 0 };
/// Losses that a graph of masks is planned for at least.
const LEAST_LOSSES: f64 = 0.05;
/// Share of the clients that may be in league with the server.
const CORRUPT: f64 = 0.1;

/// All that takes part in one aggregation.
pub(super) struct Parties {
    pub(super) server: Box<dyn Party>,
    pub(super) members: Members,
    pub(super) silent: BTreeSet<PartyId>,
    /// The parameters, in a line.
    pub(super) parameters: String,
    /// Time of all parties of a key set-up, which serves many sums.
    pub(super) keys: Duration,
}

/// Makes them. A lattice client does not depend on how many others deliver: only `case.delivering` of them are there.
pub(super) fn parties(case: &Case, backend: &Arc<dyn Backend>, secret: &Secret) -> Result<Parties, SecAggError> {
    match case.protocol {
        Protocol::Plain => plain(case, backend),
        Protocol::Masks => with_masks(case, backend, secret),
        Protocol::Mphe => with_mphe(case, backend, secret),
        Protocol::Oneshot => with_oneshot(case, backend, secret),
    }
}

fn cohort(case: &Case) -> Vec<u64> {
    (0..u64::from(case.clients)).collect()
}

fn shape(case: &Case) -> VectorShape {
    VectorShape { len: case.dim, bits: case.bits }
}

/// The first so many clients.
fn first(case: &Case) -> impl Iterator<Item = u64> {
    0..u64::from(case.delivering)
}

fn plain(case: &Case, backend: &Arc<dyn Backend>) -> Result<Parties, SecAggError> {
    let members = first(case).map(|client| {
        let member: Box<dyn Member> = Box::new(Plain { client, shape: shape(case), announced: None, party: None });
        (PartyId::Client(client), member)
    });
    Ok(Parties {
        server: Box::new(PlainServer::new(ID, &cohort(case), shape(case), 1, Some(1), Arc::clone(backend))?),
        members: members.collect(),
        silent: BTreeSet::new(),
        parameters: "added in the clear".into(),
        keys: Duration::ZERO,
    })
}

fn with_masks(case: &Case, backend: &Arc<dyn Backend>, secret: &Secret) -> Result<Parties, SecAggError> {
    let share = |x: f64| (x * f64::from(case.clients) * (1.0 - 1e-12)).ceil() as usize;
    let losses = share(case.dropout.max(LEAST_LOSSES));
    let request = masks::Request::new(case.clients as usize, share(CORRUPT), losses, ServerModel::Malicious);
    let plan = masks::Plan::choose(&request)?;
    let parameters = plan.to_string();
    let identities: Vec<Identity> = cohort(case).iter().map(|&c| Identity::simulated(secret, c)).collect();
    let roster = Roster::new((0..).zip(identities.iter().map(Identity::public)))?;
    let session = masks::Session::new(masks::Setup {
        id: ID,
        shape: shape(case),
        cohort: cohort(case),
        roster: Arc::new(roster),
        plan,
        graph_seed: [9; 32],
        deadlines: Some([1, 2, 3, 4, 5]),
    })?;
    let mut members = Members::new();
    for (client, identity) in (0..).zip(&identities) {
        let party = MasksClient::new(&session, client, identity, secret, Arc::clone(backend))?;
        members.insert(PartyId::Client(client), Box::new(party));
    }
    // They vanish when the others hold shares of their keys, where it costs the server most.
    let silent = (case.delivering..case.clients).map(|client| PartyId::Client(client.into())).collect();
    let server = Box::new(MasksServer::new(&session, Arc::clone(backend)));
    Ok(Parties { server, members, silent, parameters, keys: Duration::ZERO })
}

fn with_oneshot(case: &Case, backend: &Arc<dyn Backend>, secret: &Secret) -> Result<Parties, SecAggError> {
    let holders = case.holders;
    let request = oneshot::Request::new(
        case.clients as usize,
        shape(case),
        1 << (case.bits - 1),
        (holders.holders, holders.needed, holders.corrupt),
    );
    let plan = oneshot::Plan::choose(&request)?;
    let parameters = plan.to_string();
    let identities: Vec<Identity> = cohort(case).iter().map(|&c| Identity::simulated(secret, c)).collect();
    let roster = Roster::new((0..).zip(identities.iter().map(Identity::public)))?;
    let keys: Vec<_> = (1..=holders.holders).map(|h| oneshot::simulated_holder(secret, h)).collect();
    let session = oneshot::Session::new(oneshot::Setup {
        id: ID,
        cohort: cohort(case),
        roster: Arc::new(roster),
        holders: keys.iter().map(|(_, public)| *public).collect(),
        plan,
        deadlines: Some([1, 2]),
    })?;
    let mut members = Members::new();
    for (client, identity) in first(case).zip(&identities) {
        let party = OneshotClient::new(&session, client, identity, secret, Arc::clone(backend))?;
        members.insert(PartyId::Client(client), Box::new(party));
    }
    for (holder, (identity, _)) in (1..).zip(&keys) {
        let channel = oneshot::simulated_channel(secret, holder);
        let party = OneshotHolder::new(&session, holder, identity, &channel, None)?;
        members.insert(PartyId::Holder(holder), Box::new(party));
    }
    let silent = lost_holders(case).map(PartyId::Holder).collect();
    let server = Box::new(OneshotServer::new(&session, Arc::clone(backend)));
    Ok(Parties { server, members, silent, parameters, keys: Duration::ZERO })
}

/// Sums that a key of `mphe` is made for.
const ROUNDS: u64 = 1000;

fn with_mphe(case: &Case, backend: &Arc<dyn Backend>, secret: &Secret) -> Result<Parties, SecAggError> {
    let holders = case.holders;
    let threshold = Threshold::new(holders.holders, holders.needed, holders.corrupt)?;
    let plan = mphe::Plan::choose(mphe::Request {
        rounds: ROUNDS,
        ..mphe::Request::new(shape(case), case.clients, threshold, mphe::Trust::SemiHonestServer)
    })?;
    let parameters = plan.to_string();
    let start = Instant::now();
    let keys = mphe_keys(case, plan, &**backend, secret)?;
    let spent = start.elapsed();
    let Some(first_key) = keys.first() else { return Err(SecAggError::Context) };
    let identities: Vec<Identity> = cohort(case).iter().map(|&c| Identity::simulated(secret, c)).collect();
    let session = mphe::RoundSession::new(mphe::Setup {
        id: ID,
        cohort: cohort(case),
        roster: Arc::new(Roster::new((0..).zip(identities.iter().map(Identity::public)))?),
        key: Arc::clone(first_key.key()),
        deadlines: Some(mphe::Deadlines { input: 1, agree: 2, open: 3 }),
    })?;
    let mut members = Members::new();
    for (client, identity) in first(case).zip(&identities) {
        let party = MpheClient::new(&session, client, identity, secret, Arc::clone(backend))?;
        members.insert(PartyId::Client(client), Box::new(party));
    }
    for keys in &keys {
        let party = simulated::round_holder(&session, keys, OpeningGuard::default(), secret, Arc::clone(backend))?;
        members.insert(PartyId::Holder(keys.holder()), Box::new(party));
    }
    let silent = lost_holders(case).map(PartyId::Holder).collect();
    let server = Box::new(MpheServer::new(&session, Arc::clone(backend)));
    Ok(Parties { server, members, silent, parameters, keys: spent })
}

/// The set-up of a key, by all holders.
fn mphe_keys(
    case: &Case,
    plan: mphe::Plan,
    backend: &dyn Backend,
    secret: &Secret,
) -> Result<Vec<mphe::HolderKeys>, SecAggError> {
    let session = simulated::key_session(secret, plan, (ID.session, [9; 32]), Some([1, 2, 3]))?;
    let holder = |j| simulated::key_holder(&session, j, secret, backend, &mut Epochs::new());
    let mut holders = (1..=case.holders.holders).map(holder).collect::<Result<Vec<_>, _>>()?;
    let mut server = KeyServer::new(&session);
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    parties.extend((1..).zip(&mut holders).map(|(j, p)| (PartyId::Holder(j), p as &mut dyn Party)));
    local::play(&mut parties, &BTreeMap::new(), &|| Duration::ZERO)?;
    Ok(holders.iter_mut().filter_map(KeyHolder::take_keys).collect())
}

/// As many holders as clients vanish, in parts of all, but for those that are needed.
fn lost_holders(case: &Case) -> impl Iterator<Item = u16> {
    let (all, needed) = (case.holders.holders, case.holders.needed);
    let lost = (f64::from(all) * case.dropout).ceil() as u16;
    (all - lost.min(all - needed) + 1)..=all
}

/// A client of `plain`, which takes its vector when it is made.
struct Plain {
    client: u64,
    shape: VectorShape,
    announced: Option<Vec<u8>>,
    party: Option<PlainClient>,
}

impl Party for Plain {
    fn handle(&mut self, _: PartyId, frame: &[u8]) -> Result<(), SecAggError> {
        self.announced = Some(frame.to_vec());
        Ok(())
    }

    fn handle_timeout(&mut self, _: u64) {}

    fn poll_timeout(&self) -> Option<u64> {
        None
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.party.as_mut()?.poll_transmit()
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.party.as_mut()?.poll_output()
    }
}

impl Member for Plain {
    fn wants_vector(&self) -> bool {
        self.announced.is_some() && self.party.is_none()
    }

    fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        let mut party = PlainClient::packed(ID, self.client, self.shape, packed)?;
        if let Some(frame) = &self.announced {
            party.handle(PartyId::Server, frame)?;
        }
        self.party = Some(party);
        Ok(())
    }
}

impl Member for MasksClient {
    fn wants_vector(&self) -> bool {
        Self::wants_vector(self)
    }

    fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        Self::submit(self, packed)
    }
}

impl Member for OneshotClient {
    fn wants_vector(&self) -> bool {
        Self::wants_vector(self)
    }

    fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        Self::submit(self, packed)
    }
}

impl Member for MpheClient {
    fn wants_vector(&self) -> bool {
        Self::wants_vector(self)
    }

    fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        Self::submit(self, packed)
    }
}

impl Member for OneshotHolder {
    /// Nobody asks a holder for a vector.
    fn submit(&mut self, _: &[u8]) -> Result<(), SecAggError> {
        Ok(())
    }
}

impl Member for RoundHolder {
    fn submit(&mut self, _: &[u8]) -> Result<(), SecAggError> {
        Ok(())
    }
}
