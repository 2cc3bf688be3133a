//! The server of a round of `mphe`: adds ciphertexts, has the holders sign the sum, and puts their parts together.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::fault::RoundFault;
use super::session::{PHASES, Phase, RoundSession};
use super::statements;
use super::wire::{self, Signature};
use crate::backend::Backend;
use crate::he::{Ciphertext, HeError, HolderSet, PartialOpening, threshold};
use crate::secagg::identity::SIGNATURE_BYTES;
use crate::secagg::traffic::Traffic;
use crate::secagg::wire::bitmap;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit};

/// What a client has sent.
struct Input {
    hash: [u8; 32],
    signature: Signature,
    /// The ciphertext, where the holders add.
    bytes: Option<Vec<u8>>,
}

/// The present set of holders.
struct Opening {
    set: HolderSet,
    parts: Vec<PartialOpening>,
    deadline: Option<u64>,
}

enum State {
    Input,
    Agree,
    Open(Opening),
    Finished(Output),
    Taken,
}

/// The server of `mphe` for one round.
pub struct MpheServer {
    session: Arc<RoundSession>,
    backend: Arc<dyn Backend>,
    inputs: Vec<Option<Input>>,
    sum: Option<Ciphertext>,
    root: [u8; 32],
    /// The holders' signatures of the root, and who was silent when it was its turn.
    agreed: Vec<Option<Signature>>,
    silent: Vec<bool>,
    /// Sets asked so far.
    sets: u64,
    fault: Option<RoundFault>,
    outbox: VecDeque<(Phase, Transmit)>,
    state: State,
    traffic: Traffic<{ PHASES.len() }>,
}

impl fmt::Debug for MpheServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MpheServer({:?}, {} clients)", self.session.id(), self.inputs.len())
    }
}

impl MpheServer {
    /// A server for one round; its announcements wait in [`Party::poll_transmit`].
    #[must_use]
    pub fn new(session: &Arc<RoundSession>, backend: Arc<dyn Backend>) -> Self {
        let holders = usize::from(session.plan().threshold().holders());
        let mut server = Self {
            session: Arc::clone(session),
            backend,
            inputs: session.cohort().iter().map(|_| None).collect(),
            sum: None,
            root: [0; 32],
            agreed: vec![None; holders],
            silent: vec![false; holders],
            sets: 0,
            fault: None,
            outbox: VecDeque::new(),
            state: State::Input,
            traffic: Traffic::default(),
        };
        for &client in session.cohort() {
            let to = PartyId::Client(client);
            let frame = session.place().frame(wire::ANNOUNCE, to, &[session.context()]);
            server.outbox.push_back((Phase::Input, Transmit { to, frame }));
        }
        server
    }

    /// Why there is no sum.
    #[must_use]
    pub const fn fault(&self) -> Option<&RoundFault> {
        self.fault.as_ref()
    }

    /// The phase that is going on; `None` once there is an output.
    #[must_use]
    pub const fn phase(&self) -> Option<Phase> {
        match self.state {
            State::Input => Some(Phase::Input),
            State::Agree => Some(Phase::Agree),
            State::Open(_) => Some(Phase::Open),
            State::Finished(_) | State::Taken => None,
        }
    }

    /// Sets of holders that were asked: releases of this round, at most.
    #[must_use]
    pub const fn sets_asked(&self) -> u64 {
        self.sets
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic<{ PHASES.len() }> {
        &self.traffic
    }

    fn survivors(&self) -> Vec<bool> {
        self.inputs.iter().map(Option::is_some).collect()
    }

    fn delivered(&self) -> usize {
        self.inputs.iter().flatten().count()
    }

    fn abort(&mut self, fault: RoundFault) {
        let (survivors, threshold) = match &fault {
            RoundFault::Clients { found, needed } | RoundFault::Holders { found, needed, .. } => (*found, *needed),
            _ => (self.delivered(), self.session.min_survivors()),
        };
        self.outbox.clear();
        self.fault = Some(fault);
        self.state = State::Finished(Output::Aborted { survivors, threshold });
    }

    fn send(&mut self, phase: Phase, kind: u8, holder: u16, body: &[u8]) {
        let frame = self.session.place().frame(kind, PartyId::Holder(holder), &[body]);
        self.outbox.push_back((phase, Transmit { to: PartyId::Holder(holder), frame }));
    }

    fn take_input(&mut self, index: usize, body: &[u8]) -> Result<(), SecAggError> {
        let (ring, blocks) = (self.session.plan().ring(), self.session.plan().blocks());
        wire::exactly(body, wire::input_len(ring, blocks))?;
        let (bytes, signature) = wire::signed(body)?;
        let hash = statements::hash(bytes);
        let domain = self.session.domain(wire::INPUT, index);
        self.session.roster().verify(&domain, &statements::input(&hash, 1), &signature)?;
        let copied = self.inputs.iter().flatten().any(|other| other.hash == hash);
        if copied {
            return Err(SecAggError::List { list: "ciphertexts", position: index, found: index as u64 });
        }
        let one = Ciphertext::single(ring, blocks, bytes)?;
        match &mut self.sum {
            Some(sum) => sum.add(&one)?,
            None => self.sum = Some(one),
        }
        let bytes = self.session.holders_add().then(|| bytes.to_vec());
        self.inputs[index] = Some(Input { hash, signature, bytes });
        Ok(())
    }

    /// Shows the holders who has signed what.
    fn ask_to_agree(&mut self) {
        let (found, needed) = (self.delivered(), self.session.min_survivors());
        let Some(sum) = self.sum.as_ref().filter(|_| found >= needed) else {
            return self.abort(RoundFault::Clients { found, needed });
        };
        let survivors = self.survivors();
        let hashes: Vec<[u8; 32]> = self.inputs.iter().flatten().map(|i| i.hash).collect();
        self.root = statements::root(self.session.context(), &survivors, &hashes, &sum.digest());
        let mut body = self.session.context().to_vec();
        body.extend(bitmap(&survivors));
        for input in self.inputs.iter().flatten() {
            body.extend(input.hash);
            body.extend(input.signature);
        }
        if self.session.holders_add() {
            self.inputs.iter().flatten().filter_map(|i| i.bytes.as_deref()).for_each(|b| body.extend_from_slice(b));
        } else {
            body.extend(sum.to_bytes());
        }
        self.state = State::Agree;
        for holder in 1..=self.session.plan().threshold().holders() {
            self.send(Phase::Agree, wire::REQUEST, holder, &body);
        }
        self.inputs.iter_mut().flatten().for_each(|i| i.bytes = None);
    }

    fn take_agreement(&mut self, holder: u16, body: &[u8]) -> Result<(), SecAggError> {
        wire::exactly(body, 32 + SIGNATURE_BYTES)?;
        let (root, signature) = wire::signed(body)?;
        self.session.verify_holder(wire::AGREE, holder, root, &signature)?;
        if root != self.root {
            return Err(SecAggError::AnotherSet);
        }
        self.agreed[usize::from(holder) - 1] = Some(signature);
        Ok(())
    }

    /// Holders that have signed and were not silent, ascending.
    fn ready(&self) -> Vec<u16> {
        let ready = |(at, _): &(usize, &Option<Signature>)| !self.silent[*at];
        let signed = self.agreed.iter().enumerate().filter(ready);
        signed.filter(|(_, signature)| signature.is_some()).map(|(at, _)| at as u16 + 1).collect()
    }

    /// Holders that were not heard.
    fn unheard(&self) -> Vec<u16> {
        let unheard = |at: &usize| self.silent[*at] || self.agreed[*at].is_none();
        (0..self.agreed.len()).filter(unheard).map(|at| at as u16 + 1).collect()
    }

    /// Asks the first t holders that are ready, or says that there is no such set.
    fn ask_to_open(&mut self, phase: Phase, now: Option<u64>) {
        let threshold = self.session.plan().threshold();
        let (ready, needed) = (self.ready(), usize::from(threshold.needed()));
        if ready.len() < needed {
            let silent = self.unheard();
            return self.abort(RoundFault::Holders { phase, found: ready.len(), needed, silent });
        }
        if self.sets >= self.session.plan().opening().sets() {
            let silent = (0..self.silent.len()).filter(|&at| self.silent[at]).map(|at| at as u16 + 1).collect();
            return self.abort(RoundFault::Sets { asked: self.sets, silent });
        }
        let Ok(set) = HolderSet::new(threshold, &ready[..needed]) else { return };
        let mut body = Vec::with_capacity(needed * (2 + SIGNATURE_BYTES));
        for &holder in set.holders() {
            body.extend(holder.to_le_bytes());
            body.extend(self.agreed[usize::from(holder) - 1].unwrap_or([0; SIGNATURE_BYTES]));
        }
        for &holder in set.holders() {
            self.send(Phase::Open, wire::OPEN, holder, &body);
        }
        self.sets += 1;
        // The first set until the deadline, a further one as long from when it is asked.
        let deadline = self.session.deadlines().map(|d| match now {
            Some(now) if self.sets > 1 => now.saturating_add(d.open - d.agree),
            _ => d.open,
        });
        self.state = State::Open(Opening { set, parts: Vec::new(), deadline });
    }

    fn take_part(&mut self, holder: u16, body: &[u8]) -> Result<(), SecAggError> {
        let State::Open(opening) = &mut self.state else { return Err(SecAggError::Late) };
        let (bytes, signature) = wire::signed(body)?;
        self.session.verify_holder(wire::PART, holder, &statements::hash(bytes), &signature)?;
        let plan = self.session.plan();
        let part = PartialOpening::from_bytes(plan.ring(), plan.threshold(), bytes)?;
        if part.holder() != holder {
            return Err(SecAggError::UnknownSender { from: PartyId::Holder(part.holder()) });
        }
        // Of a set that was given up.
        if *part.set() != opening.set {
            return Err(SecAggError::Late);
        }
        if opening.parts.iter().any(|p| p.holder() == holder) {
            return Err(SecAggError::Lattice(HeError::Duplicate { what: "the part", holder }));
        }
        if part.poly().len() != plan.blocks() * plan.ring().len() {
            let (expected, found) = (plan.blocks(), part.poly().len() / plan.ring().len());
            return Err(SecAggError::Lattice(HeError::Length { what: "a part (in blocks)", expected, found }));
        }
        opening.parts.push(part);
        if opening.parts.len() == opening.set.holders().len() {
            self.finish();
        }
        Ok(())
    }

    /// The values of the sum mod `2^b`.
    fn finish(&mut self) {
        let (State::Open(opening), Some(sum)) = (std::mem::replace(&mut self.state, State::Taken), self.sum.take())
        else {
            return;
        };
        let session = Arc::clone(&self.session);
        let plan = session.plan();
        let opened = threshold::combine(&*self.backend, plan.opening(), &session.opening(), &sum, &opening.parts);
        let mut words = match opened {
            Ok(words) => words,
            Err(error @ HeError::Backend(_)) => return self.abort(RoundFault::Backend(error)),
            Err(error) => return self.abort(RoundFault::Parts(error)),
        };
        words.truncate(session.shape().len as usize);
        let shift = plan.request().bound.wrapping_mul(self.delivered() as u64);
        let ring = (1u64 << session.shape().bits) - 1;
        words.iter_mut().for_each(|w| *w = w.wrapping_sub(shift) & ring);
        let survivors = self.survivors();
        let survivors = (0..survivors.len()).filter(|&i| survivors[i]).map(|i| session.cohort()[i]).collect();
        self.state = State::Finished(Output::Sum { words, survivors });
    }

    /// A client of the cohort that has not delivered.
    fn client(&self, from: PartyId) -> Result<usize, SecAggError> {
        let unknown = SecAggError::UnknownSender { from };
        let PartyId::Client(client) = from else { return Err(unknown) };
        let index = self.session.index(client).ok_or(unknown)?;
        if self.inputs[index].is_some() { Err(SecAggError::Duplicate { client }) } else { Ok(index) }
    }

    fn holder(&self, from: PartyId) -> Result<u16, SecAggError> {
        let unknown = SecAggError::UnknownSender { from };
        let PartyId::Holder(holder) = from else { return Err(unknown) };
        self.session.plan().threshold().check(holder).map(|()| holder).map_err(|_| unknown)
    }
}

impl Party for MpheServer {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        let Some(phase) = self.phase() else { return Err(SecAggError::Late) };
        let (kind, place) = (wire::kind(bytes)?, self.session.place());
        match (phase, kind) {
            (Phase::Input, wire::INPUT) => {
                let index = self.client(from)?;
                self.take_input(index, place.body(bytes, kind, from)?)?;
                self.traffic.receive(phase as usize, bytes.len());
                if self.delivered() == self.inputs.len() {
                    self.ask_to_agree();
                }
            }
            (Phase::Agree | Phase::Open, wire::AGREE) => {
                let holder = self.holder(from)?;
                let body = place.body(bytes, kind, from)?;
                if self.agreed[usize::from(holder) - 1].is_some() {
                    return Err(SecAggError::Lattice(HeError::Duplicate { what: "the answer", holder }));
                }
                self.take_agreement(holder, body)?;
                self.traffic.receive(Phase::Agree as usize, bytes.len());
                let enough = self.ready().len() == usize::from(self.session.plan().threshold().needed());
                if phase == Phase::Agree && enough {
                    self.ask_to_open(phase, None);
                }
            }
            (Phase::Open, wire::PART) => {
                let holder = self.holder(from)?;
                self.take_part(holder, place.body(bytes, kind, from)?)?;
                self.traffic.receive(phase as usize, bytes.len());
            }
            _ => {
                let expected = [wire::INPUT, wire::AGREE, wire::PART][phase as usize];
                return Err(place.refuse(bytes, kind, Some(expected)));
            }
        }
        Ok(())
    }

    /// Ends every phase whose deadline has come.
    fn handle_timeout(&mut self, now: u64) {
        while self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            match &self.state {
                State::Input => self.ask_to_agree(),
                State::Agree => self.ask_to_open(Phase::Agree, Some(now)),
                State::Open(opening) => {
                    let answered = |holder: &u16| opening.parts.iter().any(|p| p.holder() == *holder);
                    let lost: Vec<u16> = opening.set.holders().iter().copied().filter(|h| !answered(h)).collect();
                    lost.iter().for_each(|&holder| self.silent[usize::from(holder) - 1] = true);
                    self.ask_to_open(Phase::Open, Some(now));
                }
                State::Finished(_) | State::Taken => {}
            }
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        let deadlines = self.session.deadlines()?;
        match &self.state {
            State::Input => Some(deadlines.input),
            State::Agree => Some(deadlines.agree),
            State::Open(opening) => opening.deadline,
            State::Finished(_) | State::Taken => None,
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let (phase, transmit) = self.outbox.pop_front()?;
        self.traffic.send(phase as usize, transmit.frame.len());
        Some(transmit)
    }

    fn poll_output(&mut self) -> Option<Output> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Finished(output) => Some(output),
            other => {
                self.state = other;
                None
            }
        }
    }
}
