//! A client of `masks`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::keys::{self, ClientKeys};
use super::session::{Phase, Session, Traffic};
use super::statements::{check_inputs, check_quorum, consent_statement, input_statement};
use super::wire::{self, Reader, Signature};
use crate::backend::{Backend, MaskSign};
use crate::math::prg::{Secret, StreamKey};
use crate::math::shamir::{self, SHARE_BYTES, Share};
use crate::secagg::accumulator::Words;
use crate::secagg::channel::Agreement;
use crate::secagg::frame;
use crate::secagg::identity::Identity;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit};

/// A neighbor that has sent its keys.
struct Peer {
    member: usize,
    /// Encrypts shares.
    channel: Agreement,
    /// Makes masks.
    pairwise: Agreement,
}

/// What a neighbor has entrusted to this client; of its own secrets it holds a share of the seed alone.
struct Held {
    member: usize,
    of_key: Option<Share>,
    of_seed: Share,
}

/// What a client knows once the shares have been delivered.
struct Holding {
    sharers: Vec<bool>,
    view: [u8; 32],
    held: Vec<Held>,
}

/// Where a client stands.
enum Step {
    /// Waits for the announcement.
    Waiting,
    /// Has sent its keys.
    Advertised,
    /// Has sent its shares.
    Shared { peers: Vec<Peer>, own: Share },
    /// Knows who has shared; waits for its own vector.
    Ready { holding: Holding, masks: Vec<(StreamKey, MaskSign)> },
    /// Has sent its vector.
    Sent(Holding),
    /// Has signed a set of survivors.
    Agreed { holding: Holding, set: Vec<bool> },
    /// Has opened shares for a set, or has given up.
    Over { set: Vec<bool> },
}

impl Step {
    /// The kind of frame that is waited for.
    const fn expects(&self, consistency: bool) -> Option<u8> {
        match self {
            Self::Waiting => Some(wire::ANNOUNCE),
            Self::Advertised => Some(wire::PEERS),
            Self::Shared { .. } => Some(wire::DELIVERY),
            Self::Sent(_) if consistency => Some(wire::SURVIVORS),
            Self::Sent(_) | Self::Agreed { .. } => Some(wire::OPEN),
            Self::Ready { .. } | Self::Over { .. } => None,
        }
    }
}

/// A client of `masks` with the vector that it wants added.
pub struct MasksClient {
    session: Arc<Session>,
    index: usize,
    identity: Identity,
    backend: Arc<dyn Backend>,
    keys: Option<ClientKeys>,
    vector: Option<Zeroizing<Vec<u8>>>,
    step: Step,
    outbox: VecDeque<(Phase, Vec<u8>)>,
    output: Option<Output>,
    traffic: Traffic,
}

impl fmt::Debug for MasksClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasksClient({}, ..)", self.session.cohort()[self.index])
    }
}

impl MasksClient {
    /// A client without a vector yet: it takes part in the first two phases, and in the third once
    /// [`Self::submit`] was called.
    ///
    /// All it draws comes from `secret`, session, round and attempt: the same arguments give the same bytes. One attempt
    /// takes one vector.
    ///
    /// # Errors
    /// A client that is not in the cohort, or an identity that is not the one in the roster.
    pub fn new(
        session: &Arc<Session>,
        client: u64,
        identity: &Identity,
        secret: &Secret,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, SecAggError> {
        let Some(index) = session.index(client) else {
            return Err(SecAggError::UnknownSender { from: PartyId::Client(client) });
        };
        if session.roster().key(client) != Some(identity.public()) {
            return Err(SecAggError::Identity { client, problem: "has another key in the roster" });
        }
        Ok(Self {
            keys: Some(ClientKeys::new(session, index, secret)),
            session: Arc::clone(session),
            index,
            identity: identity.clone(),
            backend,
            vector: None,
            step: Step::Waiting,
            outbox: VecDeque::new(),
            output: None,
            traffic: Traffic::default(),
        })
    }

    /// [`Self::new`] and [`Self::submit`].
    ///
    /// # Errors
    /// Those of both.
    pub fn packed(
        session: &Arc<Session>,
        client: u64,
        identity: &Identity,
        secret: &Secret,
        backend: Arc<dyn Backend>,
        packed: &[u8],
    ) -> Result<Self, SecAggError> {
        let mut party = Self::new(session, client, identity, secret, backend)?;
        party.submit(packed)?;
        Ok(party)
    }

    /// Gives the vector, packed (see [`Backend::pack`]). It is masked as soon as the shares have come.
    ///
    /// # Errors
    /// Another length than the shape's, a one in an unused bit; a second vector; an error of the backend, after which the
    /// call may be repeated.
    pub fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError> {
        frame::check_packed(packed, self.session.shape())?;
        if self.vector.is_some() || matches!(self.step, Step::Sent(_) | Step::Agreed { .. } | Step::Over { .. }) {
            return Err(SecAggError::Duplicate { client: self.session.cohort()[self.index] });
        }
        if let Step::Ready { holding, masks } = &self.step {
            let frame = self.masked(packed, holding, masks)?;
            self.send_input(frame);
        } else {
            self.vector = Some(Zeroizing::new(packed.to_vec()));
        }
        Ok(())
    }

    /// True if only the vector is missing: [`Self::submit`] sends it on.
    #[must_use]
    pub const fn wants_vector(&self) -> bool {
        matches!(self.step, Step::Ready { .. })
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn sign(&self, kind: u8, body: &[u8]) -> Signature {
        self.identity.sign(&self.session.domain(kind, self.index), body)
    }

    fn push(&mut self, kind: u8, parts: &[&[u8]]) {
        let phase = wire::phase(kind).unwrap_or(Phase::Keys);
        self.outbox.push_back((phase, wire::frame(&self.session, kind, self.index, parts)));
    }

    fn own_keys(&self) -> Result<&ClientKeys, SecAggError> {
        self.keys.as_ref().ok_or(SecAggError::Late)
    }

    fn announced(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let mut reader = Reader::new(body);
        let context: [u8; 32] = reader.array()?;
        reader.end()?;
        if context != *self.session.context() {
            return Err(SecAggError::Context);
        }
        let keys = self.own_keys()?.public(&self.session, self.index).bytes();
        let signature = self.sign(wire::KEYS, &keys);
        self.push(wire::KEYS, &[&keys, &signature]);
        self.step = Step::Advertised;
        Ok(())
    }

    /// Checks the neighbors' keys and answers with shares for each.
    fn peers(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let (session, plan) = (&self.session, self.session.plan());
        let neighbors = session.graph().neighbors(self.index);
        let mut reader = Reader::new(body);
        let mut peers: Vec<Peer> = Vec::new();
        for (position, mut entry) in reader.list(4 + 96 + 64, neighbors.len())?.enumerate() {
            let (member, keys, signature) = (entry.member()?, entry.keys()?, entry.array()?);
            let later = peers.last().is_none_or(|last| last.member < member);
            if !later || neighbors.binary_search(&member).is_err() {
                return Err(SecAggError::List { list: "neighbors", position, found: member as u64 });
            }
            session.roster().verify(&session.domain(wire::KEYS, member), &keys.bytes(), &signature)?;
            let own = self.own_keys()?;
            let (channel, pairwise) = (own.channel.agree(&keys.channel)?, own.pairwise.agree(&keys.pairwise)?);
            peers.push(Peer { member, channel, pairwise });
        }
        reader.end()?;
        let found = neighbors.len() - peers.len();
        if found > plan.missing() {
            return Err(SecAggError::Survivors { what: "the lost neighbors", found, limit: plan.missing() });
        }
        let (body, own) = self.shares(&neighbors, &peers)?;
        let signature = self.sign(wire::SHARES, &body);
        self.push(wire::SHARES, &[&body, &signature]);
        self.step = Step::Shared { peers, own };
        Ok(())
    }

    /// The encrypted shares for each peer, and the own share of the seed.
    fn shares(&self, neighbors: &[usize], peers: &[Peer]) -> Result<(Vec<u8>, Share), SecAggError> {
        // Point of a holder: its place in the cohort and one. This client is the last of its own holders.
        let points: Vec<u64> = neighbors.iter().chain([&self.index]).map(|&j| j as u64 + 1).collect();
        let threshold = self.session.plan().threshold();
        let own = self.own_keys()?;
        let of_key = shamir::split(&own.pairwise.expose(), threshold, &points, &own.coefficients[0])?;
        let mut of_seed = shamir::split(&own.seed, threshold, &points, &own.coefficients[1])?;
        let mut body = wire::count(peers.len()).to_vec();
        for peer in peers {
            let Ok(at) = neighbors.binary_search(&peer.member) else { continue };
            let mut message = Zeroizing::new([0; 2 * SHARE_BYTES]);
            message[..SHARE_BYTES].copy_from_slice(&*of_key[at].to_bytes());
            message[SHARE_BYTES..].copy_from_slice(&*of_seed[at].to_bytes());
            body.extend_from_slice(&(peer.member as u32).to_le_bytes());
            let route = keys::share_route(&self.session, self.index, peer.member);
            body.extend_from_slice(&peer.channel.seal(&route, &*message));
        }
        let last = of_seed.pop().ok_or(SecAggError::Late)?;
        Ok((body, last))
    }

    /// Takes the neighbors' shares, and masks the vector if it is there.
    fn delivered(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let Step::Shared { peers, own } = &self.step else { return Err(SecAggError::Late) };
        let (session, me) = (&self.session, self.index);
        let mut reader = Reader::new(body);
        let sharers = reader.set(session.cohort().len())?;
        session.check_sharers(me, &sharers)?;
        let expected: Vec<usize> = session.graph().neighbors(me).into_iter().filter(|&j| sharers[j]).collect();
        let (mut found, mut held) = (Vec::new(), Vec::new());
        for mut entry in reader.list(4 + wire::SEALED, expected.len())? {
            let member = entry.member()?;
            found.push(member);
            let Ok(at) = peers.binary_search_by_key(&member, |p| p.member) else { continue };
            // A neighbor that sent something else harms itself: this client has no share of it.
            held.extend(open_shares(session, me, &peers[at], entry.take(wire::SEALED)?));
        }
        reader.end()?;
        wire::same_members("shares", &found, &expected)?;
        let view = session.view(&sharers);
        let masks = self.masks(peers, &expected, &view)?;
        let place = held.partition_point(|h: &Held| h.member < me);
        held.insert(place, Held { member: me, of_key: None, of_seed: own.clone() });
        let holding = Holding { sharers, view, held };
        if let Some(vector) = &self.vector {
            let frame = self.masked(vector, &holding, &masks)?;
            self.step = Step::Ready { holding, masks };
            self.send_input(frame);
        } else {
            self.step = Step::Ready { holding, masks };
        }
        Ok(())
    }

    /// The keys of all masks of this client's vector.
    fn masks(
        &self,
        peers: &[Peer],
        neighbors: &[usize],
        view: &[u8; 32],
    ) -> Result<Vec<(StreamKey, MaskSign)>, SecAggError> {
        let own = self.own_keys()?;
        let mut masks = vec![(keys::self_mask(&self.session, self.index, &own.seed, view), MaskSign::Add)];
        for &j in neighbors {
            let Ok(at) = peers.binary_search_by_key(&j, |p| p.member) else {
                return Err(SecAggError::List { list: "sharers", position: j, found: j as u64 });
            };
            let key = keys::pair_mask(&self.session, self.index, j, &peers[at].pairwise, view);
            masks.push((key, keys::pair_sign(self.index, j)));
        }
        Ok(masks)
    }

    /// The frame of the masked vector. The masks go over the words in place.
    fn masked(
        &self,
        packed: &[u8],
        holding: &Holding,
        masks: &[(StreamKey, MaskSign)],
    ) -> Result<Vec<u8>, SecAggError> {
        let (shape, backend) = (self.session.shape(), &*self.backend);
        let mut words = Words::unpack(packed, shape, backend)?;
        words.mask(shape, masks, backend)?;
        let masked = words.pack(shape, backend)?;
        let signature = self.sign(wire::INPUT, &input_statement(&holding.view, &masked));
        Ok(wire::frame(&self.session, wire::INPUT, self.index, &[&masked, &signature]))
    }

    fn send_input(&mut self, frame: Vec<u8>) {
        self.outbox.push_back((Phase::Input, frame));
        self.vector = None;
        // The seed and the private keys have done their work.
        self.keys = None;
        let step = std::mem::replace(&mut self.step, Step::Over { set: Vec::new() });
        self.step = match step {
            Step::Ready { holding, .. } => Step::Sent(holding),
            other => other,
        };
    }

    fn survivors(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let Step::Sent(holding) = &self.step else { return Err(SecAggError::Late) };
        let mut reader = Reader::new(body);
        let set = reader.set(self.session.cohort().len())?;
        reader.end()?;
        self.session.check_survivors(self.index, &holding.sharers, &set)?;
        let signature = self.sign(wire::CONSENT, &consent_statement(&holding.view, &set));
        self.push(wire::CONSENT, &[&signature]);
        if let Step::Sent(holding) = std::mem::replace(&mut self.step, Step::Over { set: Vec::new() }) {
            self.step = Step::Agreed { holding, set };
        }
        Ok(())
    }

    /// Checks that enough have signed the same set, and opens one share of each neighbor.
    fn open(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let mut reader = Reader::new(body);
        let set = reader.set(self.session.cohort().len())?;
        let holding = match &self.step {
            Step::Sent(holding) => {
                self.session.check_survivors(self.index, &holding.sharers, &set)?;
                holding
            }
            Step::Agreed { set: agreed, .. } if *agreed != set => return Err(SecAggError::AnotherSet),
            Step::Agreed { holding, .. } => holding,
            _ => return Err(SecAggError::Late),
        };
        check_quorum(&self.session, &holding.view, &set, &mut reader)?;
        check_inputs(&self.session, self.index, &holding.view, &set, &mut reader)?;
        reader.end()?;
        let body = opened(&holding.held, &set);
        let signature = self.sign(wire::UNMASK, &body);
        self.push(wire::UNMASK, &[&body, &signature]);
        self.step = Step::Over { set };
        self.output = Some(Output::Delivered);
        Ok(())
    }

    /// What a frame is answered with that comes when nothing of its kind is waited for.
    fn refuse(&self, kind: u8, bytes: &[u8]) -> SecAggError {
        let client = self.session.cohort()[self.index];
        if let (Step::Agreed { set, .. } | Step::Over { set }, wire::SURVIVORS | wire::OPEN) = (&self.step, kind) {
            let members = self.session.cohort().len();
            let asked =
                wire::body(&self.session, bytes, kind, self.index).and_then(|body| Reader::new(body).set(members)).ok();
            match asked {
                Some(asked) if asked == *set => return SecAggError::Duplicate { client },
                Some(_) if !set.is_empty() => return SecAggError::AnotherSet,
                _ => {}
            }
        }
        match self.step.expects(self.session.checks_consistency()) {
            Some(expected) if wire::phase(kind).is_none() || kind > expected => {
                SecAggError::Kind { expected, found: kind }
            }
            _ => SecAggError::Late,
        }
    }
}

/// One share of each client in the clear: of the seed of a survivor, of the key of a lost one. Never both: which one
/// depends on the one set that this client opens for.
fn opened(held: &[Held], set: &[bool]) -> Vec<u8> {
    let chosen = |h: &Held| match (set[h.member], &h.of_key) {
        (true, _) => Some((wire::OF_SEED, h.of_seed.to_bytes())),
        (false, of_key) => of_key.as_ref().map(|share| (wire::OF_KEY, share.to_bytes())),
    };
    let list: Vec<_> = held.iter().filter_map(|h| chosen(h).map(|(kind, share)| (h.member, kind, share))).collect();
    let mut body = wire::count(list.len()).to_vec();
    for (member, kind, share) in list {
        body.extend_from_slice(&(member as u32).to_le_bytes());
        body.push(kind);
        body.extend_from_slice(&*share);
    }
    body
}

/// The shares of a neighbor, if they are what they should be.
fn open_shares(session: &Session, me: usize, peer: &Peer, sealed: &[u8]) -> Option<Held> {
    let message = peer.channel.open(&keys::share_route(session, peer.member, me), sealed).ok()?;
    let (of_key, of_seed) = message.split_first_chunk::<SHARE_BYTES>()?;
    Some(Held {
        member: peer.member,
        of_key: Some(Share::from_bytes(of_key).ok()?),
        of_seed: Share::from_bytes(of_seed.first_chunk()?).ok()?,
    })
}

impl Party for MasksClient {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let kind = wire::kind(bytes)?;
        let expects = self.step.expects(self.session.checks_consistency());
        let body = match expects {
            Some(expected) if expected == kind => wire::body(&self.session, bytes, kind, self.index)?,
            // Foreign and broken frames are told apart from late ones.
            _ => {
                frame::read_header(bytes, kind, &self.session.id())?;
                return Err(self.refuse(kind, bytes));
            }
        };
        match kind {
            wire::ANNOUNCE => self.announced(body)?,
            wire::PEERS => self.peers(body)?,
            wire::DELIVERY => self.delivered(body)?,
            wire::SURVIVORS => self.survivors(body)?,
            _ => self.open(body)?,
        }
        self.traffic.receive(wire::phase(kind).unwrap_or(Phase::Keys) as usize, bytes.len());
        Ok(())
    }

    /// After the last deadline the client gives up and wipes what it holds.
    fn handle_timeout(&mut self, now: u64) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.step = Step::Over { set: Vec::new() };
            self.keys = None;
            self.vector = None;
            self.outbox.clear();
            self.output = Some(Output::Aborted { survivors: 0, threshold: self.session.plan().min_survivors() });
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        if matches!(self.step, Step::Over { .. }) { None } else { self.session.deadline(Phase::Unmask) }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let (phase, frame) = self.outbox.pop_front()?;
        self.traffic.send(phase as usize, frame.len());
        Some(Transmit { to: PartyId::Server, frame })
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outbox.is_empty() { self.output.take() } else { None }
    }
}
