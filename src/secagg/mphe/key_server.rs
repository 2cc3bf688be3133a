//! The server of a key set-up: relays, checks what is public, and says who is to blame.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::certificate::SignedKey;
use super::checks::{judge_contribution, judge_roll, verified};
use super::fault::{KeyFault, Misdeed};
use super::session::{KEY_PHASES, KeyPhase, KeySession};
use super::statements;
use super::wire::{self, Entry, Reader, Signature};
use crate::he::{CollectiveKey, KeyCeremony};
use crate::secagg::identity::SIGNATURE_BYTES;
use crate::secagg::traffic::Traffic;
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit};

/// What the server has of a holder.
#[derive(Default)]
struct Member {
    entry: Option<(Entry, Signature)>,
    /// The body of its shares, as it came.
    shares: Option<Vec<u8>>,
    signature: Option<Signature>,
}

/// The server of a key set-up. [`Self::take_key`] gives the signed public key.
pub struct KeyServer {
    session: Arc<KeySession>,
    members: Vec<Member>,
    view: [u8; 32],
    ceremony: KeyCeremony,
    key: Option<CollectiveKey>,
    signed: Option<SignedKey>,
    fault: Option<KeyFault>,
    outbox: VecDeque<(KeyPhase, Transmit)>,
    /// The phase that is going on.
    running: Option<KeyPhase>,
    output: Option<Output>,
    traffic: Traffic<{ KEY_PHASES.len() }>,
}

impl fmt::Debug for KeyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyServer({} holders)", self.members.len())
    }
}

impl KeyServer {
    /// A server for one set-up; its announcements wait in [`Party::poll_transmit`].
    #[must_use]
    pub fn new(session: &Arc<KeySession>) -> Self {
        let mut server = Self {
            session: Arc::clone(session),
            members: (0..session.holders()).map(|_| Member::default()).collect(),
            view: [0; 32],
            ceremony: KeyCeremony::new(session.setup().clone()),
            key: None,
            signed: None,
            fault: None,
            outbox: VecDeque::new(),
            running: Some(KeyPhase::Commit),
            output: None,
            traffic: Traffic::default(),
        };
        let context = *session.context();
        server.ask(KeyPhase::Commit, wire::BEGIN, |_, _| vec![context.to_vec()]);
        server
    }

    /// The public key with the signatures of all holders, once.
    #[must_use]
    pub const fn take_key(&mut self) -> Option<SignedKey> {
        self.signed.take()
    }

    /// Why there is no key.
    #[must_use]
    pub const fn fault(&self) -> Option<&KeyFault> {
        self.fault.as_ref()
    }

    /// The phase that is going on; `None` once there is an output.
    #[must_use]
    pub const fn phase(&self) -> Option<KeyPhase> {
        self.running
    }

    /// Bytes of each phase so far, in the order of [`KEY_PHASES`].
    #[must_use]
    pub const fn traffic(&self) -> &Traffic<{ KEY_PHASES.len() }> {
        &self.traffic
    }

    /// Sends a frame to every holder.
    fn ask(&mut self, phase: KeyPhase, kind: u8, body: impl Fn(&Self, u16) -> Vec<Vec<u8>>) {
        for holder in 1..=self.session.holders() {
            let parts = body(self, holder);
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let to = PartyId::Holder(holder);
            let frame = self.session.place().frame(kind, to, &parts);
            self.outbox.push_back((phase, Transmit { to, frame }));
        }
    }

    /// Ends the set-up and tells everybody.
    fn end(&mut self, fault: KeyFault) {
        let heard = self.heard(fault.phase);
        self.outbox.clear();
        let accused = if let [holder] = fault.holders[..] { holder } else { 0 };
        let body = statements::complaint(accused, fault.misdeed as u8).to_vec();
        self.ask(fault.phase, wire::ABORT, |_, _| vec![body.clone()]);
        self.fault = Some(fault);
        let threshold = self.members.len();
        (self.running, self.output) = (None, Some(Output::Aborted { survivors: heard, threshold }));
    }

    fn blame(&mut self, phase: KeyPhase, holder: u16, misdeed: Misdeed, accuser: Option<u16>) {
        let holders = if holder == 0 { Vec::new() } else { vec![holder] };
        self.end(KeyFault { phase, holders, misdeed, accuser });
    }

    fn has_answered(member: &Member, phase: KeyPhase) -> bool {
        match phase {
            KeyPhase::Commit => member.entry.is_some(),
            KeyPhase::Share => member.shares.is_some(),
            KeyPhase::Sign | KeyPhase::Certify => member.signature.is_some(),
        }
    }

    fn heard(&self, phase: KeyPhase) -> usize {
        self.members.iter().filter(|m| Self::has_answered(m, phase)).count()
    }

    fn take_entry(&mut self, holder: u16, body: &[u8]) -> Result<(), SecAggError> {
        wire::exactly(body, 64 + SIGNATURE_BYTES)?;
        let mut reader = Reader::new(body);
        let (entry, signature) = (Entry::read(&mut reader)?, reader.array()?);
        self.session.verify(wire::COMMIT, holder, &entry.bytes(), &signature)?;
        self.members[usize::from(holder) - 1].entry = Some((entry, signature));
        Ok(())
    }

    fn take_shares(&mut self, holder: u16, body: &[u8]) -> Result<(), SecAggError> {
        let ring = &self.session.setup().ring;
        let (open_len, sealed_len) = (wire::contribution_len(ring), wire::sealed_len(ring));
        wire::exactly(body, open_len + (self.members.len() - 1) * sealed_len)?;
        let (opened, sealed) = body.split_at(open_len);
        let contribution = verified(&self.session, &self.view, holder, 0, opened)?;
        let others = (1..=self.session.holders()).filter(|&j| j != holder);
        for (to, piece) in others.zip(sealed.chunks_exact(sealed_len)) {
            verified(&self.session, &self.view, holder, to, piece)?;
        }
        if judge_contribution(&self.session, holder, contribution, &mut self.ceremony).is_none() {
            self.blame(KeyPhase::Share, holder, Misdeed::Contribution, None);
            return Ok(());
        }
        self.members[usize::from(holder) - 1].shares = Some(body.to_vec());
        Ok(())
    }

    fn take_signature(&mut self, holder: u16, body: &[u8]) -> Result<(), SecAggError> {
        wire::exactly(body, SIGNATURE_BYTES)?;
        let Some(key) = &self.key else { return Err(SecAggError::Late) };
        let signature = Reader::new(body).array()?;
        self.session.verify(wire::SIGN, holder, &statements::key(&key.digest()), &signature)?;
        self.members[usize::from(holder) - 1].signature = Some(signature);
        Ok(())
    }

    /// A holder accuses another.
    fn complaint(&mut self, holder: u16, phase: KeyPhase, body: &[u8]) -> Result<(), SecAggError> {
        wire::exactly(body, 3 + SIGNATURE_BYTES)?;
        let (statement, signature) = wire::signed(body)?;
        self.session.verify(wire::COMPLAINT, holder, statement, &signature)?;
        let mut reader = Reader::new(statement);
        let (accused, [misdeed]) = (u16::from_le_bytes(reader.array()?), reader.array()?);
        if accused > self.session.holders() || accused == holder {
            return Err(SecAggError::UnknownSender { from: PartyId::Holder(accused) });
        }
        let misdeed = Misdeed::from_byte(misdeed).unwrap_or(Misdeed::Ended);
        self.blame(phase, accused, misdeed, Some(holder));
        Ok(())
    }

    /// Ends a phase that all have answered.
    fn advance(&mut self, phase: KeyPhase) -> Result<(), SecAggError> {
        match phase {
            KeyPhase::Commit => {
                let entries: Vec<Entry> = self.members.iter().filter_map(|m| m.entry.map(|(e, _)| e)).collect();
                if let Some((holder, misdeed)) = judge_roll(&entries, &mut self.ceremony) {
                    self.blame(phase, holder, misdeed, None);
                    return Ok(());
                }
                self.view = statements::view(self.session.context(), &entries);
                self.ask(KeyPhase::Share, wire::ROLL, |server, _| {
                    let entries = server.members.iter().filter_map(|m| m.entry.as_ref());
                    entries.map(|(entry, signature)| [&entry.bytes()[..], signature].concat()).collect()
                });
                self.running = Some(KeyPhase::Share);
            }
            KeyPhase::Share => {
                let Ok(key) = self.ceremony.clone().finish() else {
                    self.blame(phase, 0, Misdeed::Cancelled, None);
                    return Ok(());
                };
                self.key = Some(key);
                self.ask(KeyPhase::Sign, wire::DELIVERY, Self::delivery);
                self.members.iter_mut().for_each(|m| m.shares = None);
                self.running = Some(KeyPhase::Sign);
            }
            KeyPhase::Sign | KeyPhase::Certify => {
                let signatures: Vec<Signature> = self.members.iter().filter_map(|m| m.signature).collect();
                let Some(key) = self.key.take() else { return Err(SecAggError::Late) };
                let body = signatures.concat();
                self.signed = Some(SignedKey::new(&self.session, key, signatures)?);
                self.ask(KeyPhase::Certify, wire::CERTIFICATE, |_, _| vec![body.clone()]);
                (self.running, self.output) = (None, Some(Output::Delivered));
            }
        }
        Ok(())
    }

    /// All contributions, and the shares for one holder.
    fn delivery(&self, to: u16) -> Vec<Vec<u8>> {
        let ring = &self.session.setup().ring;
        let (open_len, sealed_len) = (wire::contribution_len(ring), wire::sealed_len(ring));
        let bodies = || (1..).zip(self.members.iter().filter_map(|m| m.shares.as_deref()));
        let opened = bodies().map(|(_, body): (u16, &[u8])| body[..open_len].to_vec());
        let sealed = bodies().filter(|(dealer, _)| *dealer != to).map(|(dealer, body)| {
            // The dealer itself has no place in its list.
            let at = usize::from(to) - 1 - usize::from(to > dealer);
            body[open_len + at * sealed_len..][..sealed_len].to_vec()
        });
        opened.chain(sealed).collect()
    }
}

impl Party for KeyServer {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        let Some(phase) = self.running else { return Err(SecAggError::Late) };
        let found = wire::kind(bytes)?;
        let expected = [wire::COMMIT, wire::SHARES, wire::SIGN, wire::SIGN][phase as usize];
        let place = self.session.place();
        let PartyId::Holder(holder) = from else { return Err(SecAggError::UnknownSender { from }) };
        if self.session.setup().threshold.check(holder).is_err() {
            return Err(SecAggError::UnknownSender { from });
        }
        if found == wire::COMPLAINT {
            self.complaint(holder, phase, place.body(bytes, found, from)?)?;
            self.traffic.receive(phase as usize, bytes.len());
            return Ok(());
        }
        if found != expected {
            return Err(place.refuse(bytes, found, Some(expected)));
        }
        let body = place.body(bytes, expected, from)?;
        if Self::has_answered(&self.members[usize::from(holder) - 1], phase) {
            return Err(SecAggError::Lattice(crate::he::HeError::Duplicate { what: "the answer", holder }));
        }
        match phase {
            KeyPhase::Commit => self.take_entry(holder, body)?,
            KeyPhase::Share => self.take_shares(holder, body)?,
            KeyPhase::Sign | KeyPhase::Certify => self.take_signature(holder, body)?,
        }
        self.traffic.receive(phase as usize, bytes.len());
        if self.running.is_some() && self.heard(phase) == self.members.len() { self.advance(phase) } else { Ok(()) }
    }

    /// All holders are needed for a key: a phase that ends without one of them ends the set-up.
    fn handle_timeout(&mut self, now: u64) {
        let Some(phase) = self.running else { return };
        if self.session.deadline(phase).is_some_and(|deadline| now >= deadline) {
            let silent = |(_, m): &(u16, &Member)| !Self::has_answered(m, phase);
            let holders = (1..).zip(&self.members).filter(silent).map(|(holder, _)| holder).collect();
            self.end(KeyFault { phase, holders, misdeed: Misdeed::Silent, accuser: None });
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.session.deadline(self.phase()?)
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let (phase, transmit) = self.outbox.pop_front()?;
        self.traffic.send(phase as usize, transmit.frame.len());
        Some(transmit)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.output.take()
    }
}
