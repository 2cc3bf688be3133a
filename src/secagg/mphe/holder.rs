//! A key holder in a round: it looks at what the clients have signed, signs the sum, and gives its part.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::material::HolderKeys;
use super::session::{PHASES, Phase, RoundSession};
use super::statements;
use super::wire::{self, Reader, Signature};
use crate::backend::Backend;
use crate::he::{Ciphertext, HeError, Holder, HolderSet, OpeningGuard};
use crate::secagg::identity::{Domain, Identity, SIGNATURE_BYTES};
use crate::secagg::traffic::Traffic;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit};

/// A sum that this holder has signed.
struct Agreed {
    root: [u8; 32],
    sum: Ciphertext,
    /// The sets that it has answered for.
    sets: Vec<HolderSet>,
}

/// A key holder in one round.
pub struct RoundHolder {
    session: Arc<RoundSession>,
    number: u16,
    identity: Identity,
    backend: Arc<dyn Backend>,
    holder: Holder,
    agreed: Option<Agreed>,
    over: bool,
    outbox: VecDeque<(Phase, Vec<u8>)>,
    output: Option<Output>,
    traffic: Traffic<{ PHASES.len() }>,
}

impl fmt::Debug for RoundHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoundHolder({}, ..)", self.number)
    }
}

impl RoundHolder {
    /// A holder with its keys and what it has answered under them before.
    ///
    /// # Errors
    /// Keys of another set-up than the round's, an identity that is not the one in the roster.
    pub fn new(
        session: &Arc<RoundSession>,
        keys: &HolderKeys,
        guard: OpeningGuard,
        identity: &Identity,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, SecAggError> {
        let (number, key) = (keys.holder(), session.key());
        if keys.key().key().digest() != key.key().digest() {
            return Err(SecAggError::ForeignKey);
        }
        if key.session().roster().key(u64::from(number)) != Some(identity.public()) {
            return Err(SecAggError::Holder { holder: number, problem: "has another key in the roster" });
        }
        Ok(Self {
            session: Arc::clone(session),
            number,
            identity: identity.clone(),
            backend,
            holder: keys.holder_of(guard)?,
            agreed: None,
            over: false,
            outbox: VecDeque::new(),
            output: None,
            traffic: Traffic::default(),
        })
    }

    /// What it has answered under its key. To be on record before a frame of [`Party::poll_transmit`] is sent.
    #[must_use]
    pub const fn guard(&self) -> &OpeningGuard {
        self.holder.guard()
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic<{ PHASES.len() }> {
        &self.traffic
    }

    fn sign(&self, kind: u8, body: &[u8]) -> Signature {
        let domain = Domain { context: *self.session.context(), kind, client: u64::from(self.number) };
        self.identity.sign(&domain, body)
    }

    fn push(&mut self, phase: Phase, kind: u8, parts: &[&[u8]]) {
        let frame = self.session.place().frame(kind, PartyId::Holder(self.number), parts);
        self.outbox.push_back((phase, frame));
    }

    /// Checks the survivors and their signatures, makes or takes the sum, and signs all of it.
    fn request(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let request = read_request(&self.session, body)?;
        let sum = if self.session.holders_add() {
            add_all(&self.session, &request)?
        } else {
            take_sum(&self.session, &request)?
        };
        let root = statements::root(self.session.context(), &request.survivors, &request.hashes, &sum.digest());
        match &self.agreed {
            Some(agreed) if agreed.root == root => {
                return Err(SecAggError::Lattice(HeError::Duplicate { what: "the answer", holder: self.number }));
            }
            Some(_) => return Err(SecAggError::AnotherSet),
            None => {}
        }
        let signature = self.sign(wire::AGREE, &root);
        self.push(Phase::Agree, wire::AGREE, &[&root, &signature]);
        self.agreed = Some(Agreed { root, sum, sets: Vec::new() });
        Ok(())
    }

    /// Checks that all of T have signed the same sum, and gives the part of it.
    fn open(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let Some(agreed) = &mut self.agreed else { return Err(SecAggError::Late) };
        let threshold = self.session.plan().threshold();
        wire::exactly(body, usize::from(threshold.needed()) * (2 + SIGNATURE_BYTES))?;
        let mut reader = Reader::new(body);
        let mut holders = Vec::new();
        for position in 0..threshold.needed() {
            let (holder, signature) = (u16::from_le_bytes(reader.array()?), reader.array()?);
            if holders.last().is_some_and(|&last| last >= holder) || threshold.check(holder).is_err() {
                let (list, position) = ("holders", usize::from(position));
                return Err(SecAggError::List { list, position, found: u64::from(holder) });
            }
            self.session.verify_holder(wire::AGREE, holder, &agreed.root, &signature)?;
            holders.push(holder);
        }
        let set = HolderSet::new(threshold, &holders)?;
        if agreed.sets.contains(&set) {
            return Err(SecAggError::Lattice(HeError::Duplicate { what: "the part", holder: self.number }));
        }
        let part = self.holder.answer(&*self.backend, &self.session.opening(), &agreed.sum, &set)?;
        agreed.sets.push(set);
        let bytes = part.to_bytes(self.session.plan().ring());
        let signature = self.sign(wire::PART, &statements::hash(&bytes));
        self.push(Phase::Open, wire::PART, &[&bytes, &signature]);
        self.output = Some(Output::Delivered);
        Ok(())
    }
}

/// What a holder is asked about.
struct Request<'a> {
    survivors: Vec<bool>,
    /// Hashes of the survivors' ciphertexts.
    hashes: Vec<[u8; 32]>,
    /// The sum, or every ciphertext.
    ciphertexts: &'a [u8],
}

/// Reads a request: the same context, enough survivors, the signature of each.
fn read_request<'a>(session: &RoundSession, body: &'a [u8]) -> Result<Request<'a>, SecAggError> {
    let mut reader = Reader::new(body);
    let context: [u8; 32] = reader.array()?;
    if context != *session.context() {
        return Err(SecAggError::Context);
    }
    let survivors = reader.set(session.cohort().len())?;
    let (found, limit) = (survivors.iter().filter(|&&s| s).count(), session.min_survivors());
    if found < limit {
        return Err(SecAggError::Survivors { what: "their number", found, limit });
    }
    let ring = session.plan().ring();
    let ciphertexts =
        if session.holders_add() { found } else { 1 } * Ciphertext::encoded_len(ring, session.plan().blocks());
    wire::exactly(body, 32 + survivors.len().div_ceil(8) + found * (32 + SIGNATURE_BYTES) + ciphertexts)?;
    let mut hashes: Vec<[u8; 32]> = Vec::with_capacity(found);
    for index in (0..survivors.len()).filter(|&i| survivors[i]) {
        let (hash, signature): ([u8; 32], Signature) = (reader.array()?, reader.array()?);
        session.roster().verify(&session.domain(wire::INPUT, index), &statements::input(&hash, 1), &signature)?;
        if hashes.contains(&hash) {
            return Err(SecAggError::List { list: "ciphertexts", position: hashes.len(), found: index as u64 });
        }
        hashes.push(hash);
    }
    let ciphertexts = reader.take(ciphertexts)?;
    reader.end()?;
    Ok(Request { survivors, hashes, ciphertexts })
}

/// The sum of the ciphertexts that the clients have signed.
fn add_all(session: &RoundSession, request: &Request<'_>) -> Result<Ciphertext, SecAggError> {
    let (ring, blocks) = (session.plan().ring(), session.plan().blocks());
    let indices = (0..request.survivors.len()).filter(|&i| request.survivors[i]);
    let pieces = request.ciphertexts.chunks_exact(Ciphertext::encoded_len(ring, blocks));
    let mut sum: Option<Ciphertext> = None;
    for (index, (hash, bytes)) in indices.zip(request.hashes.iter().zip(pieces)) {
        if statements::hash(bytes) != *hash {
            return Err(SecAggError::Signature { client: session.cohort()[index] });
        }
        let one = Ciphertext::single(ring, blocks, bytes)?;
        match &mut sum {
            Some(sum) => sum.add(&one)?,
            None => sum = Some(one),
        }
    }
    sum.ok_or(SecAggError::Survivors { what: "their number", found: 0, limit: session.min_survivors() })
}

/// The sum that the server says is that of these clients: as many as have signed, each with weight 1.
fn take_sum(session: &RoundSession, request: &Request<'_>) -> Result<Ciphertext, SecAggError> {
    let sum = Ciphertext::from_bytes(session.plan().ring(), request.ciphertexts)?;
    let planned = request.hashes.len() as u64;
    for (what, found) in [("weight of a sum", sum.weight()), ("squared weights of a sum", sum.squares())] {
        if found != planned {
            return Err(SecAggError::Lattice(HeError::BeyondPlan { what, found, planned }));
        }
    }
    let (expected, found) = (session.plan().blocks(), sum.blocks());
    if found != expected {
        return Err(SecAggError::Lattice(HeError::Length { what: "a sum (in blocks)", expected, found }));
    }
    Ok(sum)
}

impl Party for RoundHolder {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let (kind, place) = (wire::kind(bytes)?, self.session.place());
        if self.over || !matches!(kind, wire::REQUEST | wire::OPEN) || (kind == wire::OPEN && self.agreed.is_none()) {
            let expected = (!self.over).then_some(if self.agreed.is_some() { wire::OPEN } else { wire::REQUEST });
            return Err(place.refuse(bytes, kind, expected));
        }
        let body = place.body(bytes, kind, PartyId::Holder(self.number))?;
        let phase = if kind == wire::REQUEST { Phase::Agree } else { Phase::Open };
        match phase {
            Phase::Open => self.open(body)?,
            _ => self.request(body)?,
        }
        self.traffic.receive(phase as usize, bytes.len());
        Ok(())
    }

    /// After the last deadline the holder answers no more in this round.
    fn handle_timeout(&mut self, now: u64) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.over = true;
            let answered = self.agreed.take().is_some_and(|agreed| !agreed.sets.is_empty());
            if !answered {
                self.output = Some(Output::Aborted { survivors: 0, threshold: self.session.min_survivors() });
            }
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        if self.over { None } else { self.session.last_deadline() }
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
