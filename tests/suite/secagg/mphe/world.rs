//! Parties of a key set-up and of rounds, and a network in virtual time that delays, repeats and loses.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use veilsum::backend::scalar::Scalar;
use veilsum::he::{HeError, OpeningGuard, Threshold};
use veilsum::math::prg::{Secret, StreamReader};
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::mphe::{
    Deadlines, Epochs, HolderKeys, KeyConfig, KeyHolder, KeyServer, KeySession, MpheClient, MpheServer, Plan, Request,
    RoundHolder, RoundSession, Setup, SignedKey, Trust,
};
use veilsum::secagg::plain::{PlainClient, PlainServer};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, SessionId, VectorShape};

use crate::secagg::net::{self, backend};

pub(super) const STEP: u64 = 1000;

pub(super) fn threshold(holders: u16, needed: u16, corrupt: u16) -> Threshold {
    Threshold::new(holders, needed, corrupt).unwrap()
}

/// Four clients, four holders of whom three open, two sets of holders a sum.
pub(super) fn request(trust: Trust, bits: u32) -> Request {
    let shape = VectorShape { len: 11, bits };
    Request { rounds: 20, ..Request::new(shape, 4, threshold(4, 3, 1), trust) }
}

pub(super) fn holder_identity(holder: u16) -> Identity {
    Identity::simulated(&Secret::from_seed(4242), u64::from(holder))
}

pub(super) fn holder_secret(holder: u16) -> Secret {
    Secret::from_seed(90_000 + u64::from(holder))
}

pub(super) fn holder_roster(holders: u16) -> Arc<Roster> {
    Arc::new(Roster::new((1..=holders).map(|j| (u64::from(j), holder_identity(j).public()))).unwrap())
}

pub(super) fn key_session(plan: &Plan, epoch: u8, deadlines: bool) -> Arc<KeySession> {
    KeySession::new(KeyConfig {
        epoch: [epoch; 16],
        seed: [7; 32],
        plan: plan.clone(),
        holders: holder_roster(plan.threshold().holders()),
        deadlines: deadlines.then_some([STEP, 2 * STEP, 3 * STEP]),
    })
    .unwrap()
}

pub(super) fn key_holder(session: &Arc<KeySession>, holder: u16) -> KeyHolder {
    let (identity, secret) = (holder_identity(holder), holder_secret(holder));
    KeyHolder::new(session, holder, &identity, &secret, &*backend(), &mut Epochs::new()).unwrap()
}

pub(super) fn key_holders(session: &Arc<KeySession>) -> Vec<KeyHolder> {
    (1..=session.holders()).map(|j| key_holder(session, j)).collect()
}

/// A frame on its way.
#[derive(Clone)]
struct Flight {
    from: PartyId,
    to: PartyId,
    frame: Vec<u8>,
}

/// What the network does.
pub(super) struct Weather {
    pub(super) random: StreamReader,
    /// Frames after which a party falls silent.
    pub(super) silent_after: BTreeMap<PartyId, usize>,
    /// Longest delay in milliseconds.
    pub(super) delay: u64,
    /// One in so many frames arrives twice; 0 none.
    pub(super) twice: u64,
    /// Everything that was sent.
    pub(super) capture: Vec<Vec<u8>>,
}

impl Weather {
    pub(super) fn calm() -> Self {
        Self { random: net::reader(4), silent_after: BTreeMap::new(), delay: 5, twice: 0, capture: Vec::new() }
    }
}

/// Everything that happens until nothing more does: the outputs, in the order of the parties.
pub(super) fn play(parties: &mut [(PartyId, &mut dyn Party)], weather: &mut Weather) -> Vec<Option<Output>> {
    let mut air: BTreeMap<(u64, u64), Flight> = BTreeMap::new();
    let mut sent = vec![0usize; parties.len()];
    let mut outputs: Vec<Option<Output>> = vec![None; parties.len()];
    let (mut now, mut serial) = (0u64, 0u64);
    loop {
        let mut new = Vec::new();
        for (at, (id, party)) in parties.iter_mut().enumerate() {
            while let Some(t) = party.poll_transmit() {
                sent[at] += 1;
                if weather.silent_after.get(id).is_none_or(|&most| sent[at] <= most) {
                    new.push(Flight { from: *id, to: t.to, frame: t.frame });
                }
            }
            outputs[at] = outputs[at].take().or_else(|| party.poll_output());
        }
        for flight in new {
            weather.capture.push(flight.frame.clone());
            let twice = weather.twice > 0 && weather.random.below(weather.twice) == 0;
            for _ in 0..=usize::from(twice) {
                serial += 1;
                air.insert((now + weather.random.below(weather.delay + 1), serial), flight.clone());
            }
        }
        let timeout = parties.iter().filter_map(|(_, p)| p.poll_timeout()).min();
        match (air.keys().next().map(|(at, _)| *at), timeout) {
            (None, None) => return outputs,
            (at, Some(timeout)) if at.is_none_or(|at| timeout < at) => {
                now = now.max(timeout);
                parties.iter_mut().for_each(|(_, p)| p.handle_timeout(now));
            }
            _ => {
                let ((at, _), flight) = air.pop_first().unwrap();
                now = at;
                let Some(place) = parties.iter().position(|(id, _)| *id == flight.to) else { continue };
                // Who has fallen silent hears nothing either.
                if weather.silent_after.get(&flight.to).is_none_or(|&most| sent[place] < most) {
                    let heard = parties[place].1.handle(flight.from, &flight.frame);
                    assert!(heard.as_ref().err().is_none_or(harmless), "{heard:?}");
                }
            }
        }
    }
}

/// What a late or repeated frame is answered with.
fn harmless(error: &SecAggError) -> bool {
    matches!(error, SecAggError::Late | SecAggError::Duplicate { .. } | SecAggError::Lattice(HeError::Duplicate { .. }))
}

/// Plays a set-up; server, holders and outputs afterwards.
pub(super) fn play_setup(
    session: &Arc<KeySession>,
    weather: &mut Weather,
) -> (KeyServer, Vec<KeyHolder>, Vec<Option<Output>>) {
    let (mut server, mut holders) = (KeyServer::new(session), key_holders(session));
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    for (j, holder) in (1..).zip(&mut holders) {
        parties.push((PartyId::Holder(j), holder));
    }
    let outputs = play(&mut parties, weather);
    (server, holders, outputs)
}

/// A key and what its holders keep.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) key: Arc<SignedKey>,
    pub(super) holders: Vec<HolderKeys>,
}

pub(super) fn keys(plan: &Plan, epoch: u8) -> Keys {
    let session = key_session(plan, epoch, false);
    let (mut server, mut holders, _) = play_setup(&session, &mut Weather::calm());
    let key = Arc::new(server.take_key().unwrap_or_else(|| panic!("{:?}", server.fault())));
    Keys { key, holders: holders.iter_mut().map(|h| h.take_keys().unwrap()).collect() }
}

/// The keys of [`request`], made once a process: for a semi-honest server, and for an honest roster.
pub(super) fn usual(trust: Trust) -> &'static Keys {
    static KEYS: [OnceLock<Keys>; 2] = [OnceLock::new(), OnceLock::new()];
    KEYS[usize::from(trust == Trust::HonestRoster)].get_or_init(|| keys(&Plan::choose(request(trust, 16)).unwrap(), 1))
}

pub(super) fn round(keys: &Keys, number: u32, attempt: u32, deadlines: bool) -> Arc<RoundSession> {
    let n = keys.key.session().plan().request().clients as usize;
    let deadlines = deadlines.then_some(Deadlines { input: STEP, agree: 2 * STEP, open: 3 * STEP });
    RoundSession::new(Setup {
        id: SessionId { session: [3; 16], round: number, attempt },
        cohort: (0..n).map(net::id).collect(),
        roster: net::roster(n),
        key: Arc::clone(&keys.key),
        deadlines,
    })
    .unwrap()
}

/// Residues of centred values within the bound.
pub(super) fn vectors(session: &RoundSession, seed: u64) -> Vec<Vec<u64>> {
    let (shape, bound) = (session.shape(), session.plan().request().bound);
    let mut r = net::reader(seed);
    let ring = (1u64 << shape.bits) - 1;
    let most = bound.min((1 << (shape.bits - 1)) - 1);
    let value = |r: &mut StreamReader| r.below(bound + most + 1).wrapping_sub(bound) & ring;
    session.cohort().iter().map(|_| (0..shape.len).map(|_| value(&mut r)).collect()).collect()
}

pub(super) fn client(session: &Arc<RoundSession>, i: usize, vector: &[u64]) -> MpheClient {
    let bytes = net::packed(session.shape(), vector);
    MpheClient::packed(session, net::id(i), &net::identity(i), &net::secret(i), backend(), &bytes).unwrap()
}

pub(super) fn holder(session: &Arc<RoundSession>, keys: &HolderKeys, guard: OpeningGuard) -> RoundHolder {
    RoundHolder::new(session, keys, guard, &holder_identity(keys.holder()), backend()).unwrap()
}

/// All machines of a round.
pub(super) struct Round {
    pub(super) session: Arc<RoundSession>,
    pub(super) vectors: Vec<Vec<u64>>,
    pub(super) server: MpheServer,
    pub(super) clients: Vec<MpheClient>,
    pub(super) holders: Vec<RoundHolder>,
}

impl Round {
    pub(super) fn new(keys: &Keys, session: Arc<RoundSession>, seed: u64) -> Self {
        let vectors = vectors(&session, seed);
        Self {
            server: MpheServer::new(&session, backend()),
            clients: vectors.iter().enumerate().map(|(i, v)| client(&session, i, v)).collect(),
            holders: keys.holders.iter().map(|k| holder(&session, k, OpeningGuard::default())).collect(),
            vectors,
            session,
        }
    }

    /// Outputs of the server, then of the clients, then of the holders.
    pub(super) fn play(&mut self, weather: &mut Weather) -> Vec<Option<Output>> {
        let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut self.server)];
        for (i, client) in self.clients.iter_mut().enumerate() {
            parties.push((PartyId::Client(net::id(i)), client));
        }
        for (j, holder) in (1..).zip(&mut self.holders) {
            parties.push((PartyId::Holder(j), holder));
        }
        play(&mut parties, weather)
    }

    /// The frames of the clients, announced; the server has not heard them yet.
    pub(super) fn inputs(&mut self) -> Vec<Vec<u8>> {
        for t in std::iter::from_fn(|| self.server.poll_transmit()) {
            let PartyId::Client(client) = t.to else { panic!("{}", t.to) };
            self.clients[self.session.index(client).unwrap()].handle(PartyId::Server, &t.frame).unwrap();
        }
        self.clients.iter_mut().map(|c| c.poll_transmit().unwrap().frame).collect()
    }

    /// Gives the server all inputs; its requests to the holders.
    pub(super) fn requests(&mut self) -> Vec<Vec<u8>> {
        for (i, frame) in self.inputs().into_iter().enumerate() {
            self.server.handle(PartyId::Client(net::id(i)), &frame).unwrap();
        }
        std::iter::from_fn(|| self.server.poll_transmit()).map(|t| t.frame).collect()
    }

    /// Gives the holders their requests and the server their answers; what it sends them then.
    pub(super) fn openings(&mut self) -> Vec<(PartyId, Vec<u8>)> {
        let requests = self.requests();
        for (j, (holder, frame)) in (1..).zip(self.holders.iter_mut().zip(requests)) {
            holder.handle(PartyId::Server, &frame).unwrap();
            self.server.handle(PartyId::Holder(j), &holder.poll_transmit().unwrap().frame).unwrap();
        }
        std::iter::from_fn(|| self.server.poll_transmit()).map(|t| (t.to, t.frame)).collect()
    }

    /// What `plain` adds up.
    pub(super) fn plain(&self, survivors: &[u64]) -> Output {
        let (id, shape) = (self.session.id(), self.session.shape());
        let mut server = PlainServer::new(id, survivors, shape, 0, None, Arc::new(Scalar)).unwrap();
        for &client in survivors {
            let vector = &self.vectors[self.session.index(client).unwrap()];
            let mut party = PlainClient::new(id, client, shape, vector).unwrap();
            party.handle(PartyId::Server, &server.poll_transmit().unwrap().frame).unwrap();
            server.handle(PartyId::Client(client), &party.poll_transmit().unwrap().frame).unwrap();
        }
        server.poll_output().unwrap()
    }
}
