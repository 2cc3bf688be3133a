//! The server of `masks`: relays, adds, and takes off the masks in the end.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::session::{Phase, Session, Traffic, bitmap};
use super::statements::{consent_statement, input_statement_of};
use super::unmask::{self, Opened};
use super::wire::{self, Keys, Reader, Signature};
use crate::backend::Backend;
use crate::math::shamir::Share;
use crate::secagg::accumulator::{Accumulator, Broken};
use crate::secagg::frame::{self, HEADER, Header};
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit};

/// What the server knows of a member.
#[derive(Default)]
pub(super) struct Member {
    /// Its public keys and their signature.
    pub(super) keys: Option<(Keys, Signature)>,
    /// What its neighbors have sent for it, ascending by sender.
    mailbox: Vec<(u32, Vec<u8>)>,
    /// Hash of its vector and its signature.
    input: Option<([u8; 32], Signature)>,
    /// Its signature of the survivors.
    consent: Option<Signature>,
    /// What its neighbors have opened: holder and share.
    pub(super) opened: Vec<(u64, Share)>,
}

/// The server of `masks` for one aggregation.
pub struct MasksServer {
    session: Arc<Session>,
    backend: Arc<dyn Backend>,
    members: Vec<Member>,
    /// Who is asked in the present phase, and who of them has answered.
    asked: Vec<bool>,
    answered: Vec<bool>,
    /// Who has shared keys, and whose vectors are in the sum.
    sharers: Vec<bool>,
    survivors: Vec<bool>,
    view: [u8; 32],
    sum: Accumulator,
    outbox: VecDeque<(Phase, Transmit)>,
    /// The phase that is going on.
    running: Option<Phase>,
    output: Option<Output>,
    traffic: Traffic,
}

impl fmt::Debug for MasksServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasksServer({:?}, {} members)", self.session.id(), self.members.len())
    }
}

fn count(set: &[bool]) -> usize {
    set.iter().filter(|&&s| s).count()
}

impl MasksServer {
    /// A server for one session; its announcements wait in [`Party::poll_transmit`].
    #[must_use]
    pub fn new(session: &Arc<Session>, backend: Arc<dyn Backend>) -> Self {
        let n = session.cohort().len();
        let mut server = Self {
            session: Arc::clone(session),
            sum: Accumulator::new(session.shape(), Arc::clone(&backend)),
            backend,
            members: (0..n).map(|_| Member::default()).collect(),
            asked: vec![true; n],
            answered: vec![false; n],
            sharers: vec![false; n],
            survivors: vec![false; n],
            view: [0; 32],
            outbox: VecDeque::new(),
            running: Some(Phase::Keys),
            output: None,
            traffic: Traffic::default(),
        };
        let context = *session.context();
        server.ask(wire::ANNOUNCE, |_, _| vec![context.to_vec()]);
        server
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The phase that is going on; `None` once there is an output.
    #[must_use]
    pub const fn phase(&self) -> Option<Phase> {
        self.running
    }

    /// Sends a frame of `kind` to everybody who is asked.
    fn ask(&mut self, kind: u8, body: impl Fn(&Self, usize) -> Vec<Vec<u8>>) {
        let phase = wire::phase(kind).unwrap_or(Phase::Keys);
        for i in (0..self.members.len()).filter(|&i| self.asked[i]) {
            let parts = body(self, i);
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let frame = wire::frame(&self.session, kind, i, &parts);
            let to = PartyId::Client(self.session.cohort()[i]);
            self.outbox.push_back((phase, Transmit { to, frame }));
        }
        self.running = Some(phase);
    }

    /// Ends the round.
    fn end(&mut self, output: Output) {
        (self.running, self.output) = (None, Some(output));
    }

    /// The neighbors of `i` in `set`, ascending.
    fn near(&self, i: usize, set: &[bool]) -> Vec<usize> {
        self.session.graph().neighbors(i).into_iter().filter(|&j| set[j]).collect()
    }

    fn abort(&mut self, survivors: usize, threshold: usize) {
        self.outbox.clear();
        self.end(Output::Aborted { survivors, threshold });
    }

    /// Ends the phase: the answers become the next request.
    fn advance(&mut self, phase: Phase) -> Result<(), SecAggError> {
        let n = self.members.len();
        let asked = std::mem::replace(&mut self.asked, vec![false; n]);
        let mut left = std::mem::replace(&mut self.answered, vec![false; n]);
        debug_assert!((0..n).all(|i| asked[i] || !left[i]));
        let session = Arc::clone(&self.session);
        let (graph, plan) = (session.graph(), session.plan());
        if phase < Phase::Input {
            // Whoever has lost too many neighbors would refuse to go on, and take others along.
            graph.prune(&mut left, plan.missing());
        }
        let (enough, missing) = (plan.min_survivors(), graph.most_missing(&left));
        if phase < Phase::Consistency && (count(&left) < enough || missing > plan.missing()) {
            self.abort(count(&left), enough);
            return Ok(());
        }
        match phase {
            Phase::Keys => {
                self.asked.clone_from(&left);
                self.ask(wire::PEERS, |server, i| server.peers(i, &left));
            }
            Phase::Shares => {
                self.asked.clone_from(&left);
                self.view = self.session.view(&left);
                self.sharers.clone_from(&left);
                self.ask(wire::DELIVERY, |server, i| server.delivery(i, &left));
                self.members.iter_mut().for_each(|m| m.mailbox = Vec::new());
            }
            Phase::Input => {
                self.asked.clone_from(&left);
                self.survivors = left;
                if self.session.checks_consistency() {
                    self.ask(wire::SURVIVORS, |server, _| vec![bitmap(&server.survivors)]);
                } else {
                    self.request_opening(&[]);
                }
            }
            Phase::Consistency => {
                let quorum = plan.quorum();
                if count(&left) < quorum {
                    self.abort(count(&left), quorum);
                    return Ok(());
                }
                let signers: Vec<usize> = (0..n).filter(|&i| left[i]).take(quorum).collect();
                self.asked = left;
                self.request_opening(&signers);
            }
            Phase::Unmask => return self.finish(),
        }
        Ok(())
    }

    /// The keys of the neighbors of `i`.
    fn peers(&self, i: usize, set: &[bool]) -> Vec<Vec<u8>> {
        let near = self.near(i, set);
        let mut out = vec![wire::count(near.len()).to_vec()];
        for j in near {
            if let Some((keys, signature)) = &self.members[j].keys {
                out.push([&(j as u32).to_le_bytes()[..], &keys.bytes(), signature].concat());
            }
        }
        out
    }

    /// Who has shared, and the shares for `i`.
    fn delivery(&self, i: usize, set: &[bool]) -> Vec<Vec<u8>> {
        let mail: Vec<&(u32, Vec<u8>)> =
            self.members[i].mailbox.iter().filter(|(from, _)| set[*from as usize]).collect();
        let mut out = vec![bitmap(set), wire::count(mail.len()).to_vec()];
        out.extend(mail.into_iter().map(|(from, sealed)| [&from.to_le_bytes()[..], sealed].concat()));
        out
    }

    fn request_opening(&mut self, signers: &[usize]) {
        let consistency = self.session.checks_consistency();
        let mut front = bitmap(&self.survivors);
        front.extend_from_slice(&wire::count(signers.len()));
        for &i in signers {
            front.extend_from_slice(&(i as u32).to_le_bytes());
            front.extend_from_slice(self.members[i].consent.as_ref().unwrap_or(&[0; 64]));
        }
        self.ask(wire::OPEN, |server, i| {
            let near = if consistency { server.near(i, &server.survivors) } else { Vec::new() };
            let mut out = vec![front.clone(), wire::count(near.len()).to_vec()];
            for j in near {
                if let Some((hash, signature)) = &server.members[j].input {
                    out.push([&(j as u32).to_le_bytes()[..], hash, signature].concat());
                }
            }
            out
        });
    }

    /// Takes the masks off the sum.
    fn finish(&mut self) -> Result<(), SecAggError> {
        self.running = None;
        for member in &mut self.members {
            member.opened.sort_by_key(|(holder, _)| *holder);
        }
        let opened = Opened {
            session: &self.session,
            members: &self.members,
            sharers: &self.sharers,
            survivors: &self.survivors,
            view: &self.view,
        };
        match unmask::masks(&opened) {
            Err(unmask::Short { found, needed }) => self.abort(found, needed),
            Ok(masks) => {
                let mut sum = self.sum.take()?;
                sum.upload(&*self.backend)?;
                sum.mask(self.session.shape(), &masks, &*self.backend)?;
                let words = sum.into_words(&*self.backend)?;
                let cohort = self.session.cohort();
                let survivors = (0..cohort.len()).filter(|&i| self.survivors[i]).map(|i| cohort[i]).collect();
                self.end(Output::Sum { words, survivors });
            }
        }
        Ok(())
    }

    fn take_keys(&mut self, i: usize, body: &[u8]) -> Result<(), SecAggError> {
        let (signed, signature) = wire::signed(body)?;
        let mut reader = Reader::new(signed);
        let keys = reader.keys()?;
        reader.end()?;
        self.session.roster().verify(&self.session.domain(wire::KEYS, i), signed, &signature)?;
        super::keys::check_keys(&keys)?;
        self.members[i].keys = Some((keys, signature));
        Ok(())
    }

    fn take_shares(&mut self, i: usize, body: &[u8]) -> Result<(), SecAggError> {
        let (signed, signature) = wire::signed(body)?;
        let expected = self.near(i, &self.asked);
        let mut reader = Reader::new(signed);
        let (mut found, mut sealed) = (Vec::new(), Vec::new());
        for mut entry in reader.list(4 + wire::SEALED, expected.len())? {
            found.push(entry.member()?);
            sealed.push(entry.take(wire::SEALED)?);
        }
        reader.end()?;
        wire::same_members("shares", &found, &expected)?;
        self.session.roster().verify(&self.session.domain(wire::SHARES, i), signed, &signature)?;
        for (&to, sealed) in found.iter().zip(sealed) {
            let mailbox = &mut self.members[to].mailbox;
            let place = mailbox.partition_point(|(from, _)| (*from as usize) < i);
            mailbox.insert(place, (i as u32, sealed.to_vec()));
        }
        Ok(())
    }

    fn take_input(&mut self, i: usize, bytes: &[u8], body: &[u8]) -> Result<(), SecAggError> {
        let shape = self.session.shape();
        let (masked, signature) = wire::signed(body)?;
        let header = Header { kind: wire::INPUT, id: self.session.id(), client: self.session.cohort()[i], shape };
        let masked = frame::payload(&bytes[..HEADER + masked.len()], &header, shape)?;
        let hash = wire::digest(masked);
        let statement = input_statement_of(&self.view, &hash);
        self.session.roster().verify(&self.session.domain(wire::INPUT, i), &statement, &signature)?;
        let last = count(&self.asked) == count(&self.answered) + 1;
        self.sum.add(masked, last).map_err(|broken| match broken {
            Broken::Row(e) => e,
            Broken::Sum(e) => {
                self.running = None;
                e
            }
        })?;
        self.members[i].input = Some((hash, signature));
        Ok(())
    }

    fn take_consent(&mut self, i: usize, body: &[u8]) -> Result<(), SecAggError> {
        let (rest, signature) = wire::signed(body)?;
        Reader::new(rest).end()?;
        let statement = consent_statement(&self.view, &self.survivors);
        self.session.roster().verify(&self.session.domain(wire::CONSENT, i), &statement, &signature)?;
        self.members[i].consent = Some(signature);
        Ok(())
    }

    fn take_opened(&mut self, i: usize, body: &[u8]) -> Result<(), SecAggError> {
        let (signed, signature) = wire::signed(body)?;
        let shares = unmask::read(&self.session, i, signed, &self.sharers, &self.survivors)?;
        self.session.roster().verify(&self.session.domain(wire::UNMASK, i), signed, &signature)?;
        for (member, share) in shares {
            self.members[member].opened.push((i as u64 + 1, share));
        }
        Ok(())
    }

    /// Where the sender of a frame of the present phase stands in the cohort.
    fn sender(&self, from: PartyId) -> Result<usize, SecAggError> {
        let unknown = Err(SecAggError::UnknownSender { from });
        let PartyId::Client(client) = from else { return unknown };
        let Some(i) = self.session.index(client) else { return unknown };
        if self.answered[i] {
            return Err(SecAggError::Duplicate { client });
        }
        if self.asked[i] { Ok(i) } else { unknown }
    }
}

impl Party for MasksServer {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        let Some(phase) = self.running else { return Err(SecAggError::Late) };
        let found = wire::kind(bytes)?;
        let expected = [wire::KEYS, wire::SHARES, wire::INPUT, wire::CONSENT, wire::UNMASK][phase as usize];
        if found != expected {
            frame::read_header(bytes, found, &self.session.id())?;
            let earlier = wire::phase(found).is_some_and(|p| p < phase);
            return Err(if earlier { SecAggError::Late } else { SecAggError::Kind { expected, found } });
        }
        let i = self.sender(from)?;
        let body = wire::body(&self.session, bytes, expected, i)?;
        match phase {
            Phase::Keys => self.take_keys(i, body)?,
            Phase::Shares => self.take_shares(i, body)?,
            Phase::Input => self.take_input(i, bytes, body)?,
            Phase::Consistency => self.take_consent(i, body)?,
            Phase::Unmask => self.take_opened(i, body)?,
        }
        self.answered[i] = true;
        self.traffic.receive(phase as usize, bytes.len());
        if self.answered == self.asked { self.advance(phase) } else { Ok(()) }
    }

    /// Ends every phase whose deadline has come. An error of the backend ends the round as an abort.
    fn handle_timeout(&mut self, now: u64) {
        while let Some(phase) = self.running {
            if self.session.deadline(phase).is_none_or(|deadline| now < deadline) {
                return;
            }
            let left = count(&self.answered);
            if self.advance(phase).is_err() {
                self.abort(left, self.session.plan().min_survivors());
            }
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
