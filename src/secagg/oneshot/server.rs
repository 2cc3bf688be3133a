//! The server of `oneshot`: adds ciphertexts, passes sealed shares on, and opens the sum with what the holders answer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::holder::read_values;
use super::opening;
use super::session::{Phase, Session, Traffic};
use super::statements::{self, Statement, Tree, answer_statement, ciphertext_hash};
use super::wire;
use crate::backend::Backend;
use crate::he::oneshot::add;
use crate::secagg::channel::check_public;
use crate::secagg::wire::{Reader, bitmap, kind, signed};
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit, frame};

/// What a holder has answered.
#[derive(Default)]
enum Answer {
    /// Nothing yet.
    #[default]
    None,
    /// It has no shares of some clients yet.
    Lacks(Vec<bool>),
    /// Its sum.
    Sum(Vec<u32>),
}

/// Who may be to blame for a round that failed or was saved: hints for the next attempt, no proofs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Holders whose answers do not fit those of the others, or who say that they lack shares that they were sent.
    pub holders: Vec<u16>,
    /// Clients whose shares a holder says that it lacks: the client has sealed something else, or the holder lies.
    pub clients: Vec<u64>,
}

/// The server of `oneshot` for one aggregation.
pub struct OneshotServer {
    session: Arc<Session>,
    backend: Arc<dyn Backend>,
    /// What the clients of the sum have signed.
    statements: Vec<Option<Statement>>,
    answers: Vec<Answer>,
    /// The sum of the ciphertexts, `[blocks x L x N]`.
    sum: Vec<u32>,
    /// The set that is opened, and what names it.
    survivors: Vec<bool>,
    view: [u8; 32],
    suspects: Suspects,
    /// What holders get of a client's message: sent before anything else, so that a driver that hands over one frame at a
    /// time keeps those of one client.
    relays: VecDeque<Transmit>,
    outbox: VecDeque<(Phase, Transmit)>,
    /// The phase that is going on.
    running: Option<Phase>,
    output: Option<Output>,
    traffic: Traffic,
}

impl fmt::Debug for OneshotServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OneshotServer({:?}, {} members)", self.session.id(), self.statements.len())
    }
}

impl OneshotServer {
    /// A server for one session; its announcements wait in [`Party::poll_transmit`].
    #[must_use]
    pub fn new(session: &Arc<Session>, backend: Arc<dyn Backend>) -> Self {
        let (n, plan) = (session.cohort().len(), session.plan());
        let announce = |&client: &u64| {
            let to = PartyId::Client(client);
            (Phase::Input, Transmit { to, frame: wire::frame(session, wire::ANNOUNCE, to, &[session.context()]) })
        };
        Self {
            backend,
            statements: vec![None; n],
            answers: (0..plan.request().holders).map(|_| Answer::None).collect(),
            sum: vec![0; plan.vector().blocks as usize * plan.vector().ring.len()],
            survivors: vec![false; n],
            view: [0; 32],
            suspects: Suspects::default(),
            relays: VecDeque::new(),
            outbox: session.cohort().iter().map(announce).collect(),
            running: Some(Phase::Input),
            output: None,
            traffic: Traffic::default(),
            session: Arc::clone(session),
        }
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

    /// Bytes that it holds now: the sum, what every client has signed, the holders' answers, and the frames that wait to be
    /// sent. Not in it: the session, which all parties of a process share.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let waiting = self.relays.iter().chain(self.outbox.iter().map(|(_, transmit)| transmit));
        let frames: usize = waiting.map(|transmit| size_of::<Transmit>() + transmit.frame.len()).sum();
        let answers: usize = self
            .answers
            .iter()
            .map(|answer| match answer {
                Answer::None => 0,
                Answer::Lacks(set) => set.len(),
                Answer::Sum(values) => size_of_val(&values[..]),
            })
            .sum();
        size_of_val(&self.sum[..]) + size_of_val(&self.statements[..]) + self.survivors.len() + answers + frames
    }

    /// Who may be to blame; complete once there is an output.
    #[must_use]
    pub const fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    /// Ends the round.
    fn end(&mut self, output: Output) {
        (self.running, self.output) = (None, Some(output));
    }

    fn abort(&mut self, survivors: usize, threshold: usize) {
        self.relays.clear();
        self.outbox.clear();
        self.end(Output::Aborted { survivors, threshold });
    }

    /// Adds a client's ciphertext and passes its shares on.
    fn take_input(&mut self, member: usize, body: &[u8]) -> Result<(), SecAggError> {
        let (session, plan) = (Arc::clone(&self.session), self.session.plan());
        let mut reader = Reader::new(body);
        let (weight, channel) = (u32::from_le_bytes(reader.array()?), reader.array()?);
        let ciphertext = reader.take(wire::ciphertext_bytes(plan))?;
        let sealed = reader.take(usize::from(plan.request().holders) * wire::sealed_bytes(plan))?;
        let signature = reader.array()?;
        reader.end()?;
        let tree = Tree::new(sealed.chunks_exact(wire::sealed_bytes(plan)));
        let statement = Statement { weight, channel, hash: ciphertext_hash(&session, ciphertext), root: tree.root() };
        statement.check(&session, member, &signature)?;
        check_public(&channel)?;
        let residues = self.backend.unpack(ciphertext, self.sum.len(), wire::RESIDUE_BITS)?;
        let residues = self.backend.to_host(residues)?;
        add(&plan.vector().ring, &mut self.sum, residues.as_u32()?, weight)?;
        self.statements[member] = Some(statement);
        for (holder, sealed) in (1..).zip(sealed.chunks_exact(wire::sealed_bytes(plan))) {
            let (to, path) = (PartyId::Holder(holder), tree.path(usize::from(holder)));
            let parts: [&[u8]; 5] =
                [&(member as u32).to_le_bytes(), &statement.bytes(), &signature, path.as_flattened(), sealed];
            self.relays.push_back(Transmit { to, frame: wire::frame(&session, wire::RELAY, to, &parts) });
        }
        Ok(())
    }

    /// Ends the first phase: the holders are asked for the sum of the keys of those who have delivered.
    fn request_opening(&mut self) {
        self.survivors = self.statements.iter().map(Option::is_some).collect();
        let found = self.delivered();
        let enough = self.session.plan().request().min_survivors;
        if found < enough {
            return self.abort(found, enough);
        }
        self.view = statements::view(&self.session, &self.survivors, |i| self.statements[i].as_ref());
        for holder in 1..=self.session.plan().request().holders {
            let to = PartyId::Holder(holder);
            let frame = wire::frame(&self.session, wire::OPEN, to, &[&bitmap(&self.survivors), &self.view]);
            self.outbox.push_back((Phase::Open, Transmit { to, frame }));
        }
        self.running = Some(Phase::Open);
    }

    fn delivered(&self) -> usize {
        self.statements.iter().flatten().count()
    }

    fn take_answer(&mut self, holder: u16, kind: u8, body: &[u8]) -> Result<(), SecAggError> {
        let (said, signature) = signed(body)?;
        let domain = self.session.domain(kind, u64::from(holder));
        let verified = self.session.holder_roster().verify(&domain, &answer_statement(&self.view, said), &signature);
        verified.map_err(|_| SecAggError::HolderSignature { holder })?;
        self.answers[usize::from(holder) - 1] = if kind == wire::ANSWER {
            Answer::Sum(read_values(said, self.session.plan().share_len())?.to_vec())
        } else {
            let mut reader = Reader::new(said);
            Answer::Lacks(reader.set(self.survivors.len())?)
        };
        Ok(())
    }

    /// Opens the sum with what has been answered.
    fn finish(&mut self) {
        self.name_lacking();
        let answers: Vec<(u16, &[u32])> = (1..)
            .zip(&self.answers)
            .filter_map(|(holder, answer)| match answer {
                Answer::Sum(values) => Some((holder, &values[..])),
                _ => None,
            })
            .collect();
        let (found, needed) = (answers.len(), usize::from(self.session.plan().request().needed));
        if found < needed {
            return self.abort(found, needed);
        }
        match opening::open(&self.session, &*self.backend, &self.survivors, &answers, &self.sum) {
            // Wrong answers, which cannot be told from right ones: fewer than t are known to be right.
            Err(_) => self.abort(needed - 1, needed),
            Ok((words, wrong)) => {
                self.suspects.holders.extend(wrong);
                self.suspects.holders.sort_unstable();
                let cohort = self.session.cohort();
                let survivors = (0..cohort.len()).filter(|&i| self.survivors[i]).map(|i| cohort[i]).collect();
                self.end(Output::Sum { words, survivors });
            }
        }
        self.sum = Vec::new();
    }

    /// Clients whose shares somebody lacks, and who says so.
    fn name_lacking(&mut self) {
        let mut lacking = vec![false; self.survivors.len()];
        for (holder, answer) in (1..).zip(&self.answers) {
            if let Answer::Lacks(set) = answer {
                self.suspects.holders.push(holder);
                lacking.iter_mut().zip(set).zip(&self.survivors).for_each(|((l, &s), &in_sum)| *l |= s && in_sum);
            }
        }
        let cohort = self.session.cohort();
        self.suspects.clients = (0..cohort.len()).filter(|&i| lacking[i]).map(|i| cohort[i]).collect();
    }

    /// A frame of a client, in the first phase.
    fn hear_client(&mut self, from: PartyId, client: u64, bytes: &[u8]) -> Result<(), SecAggError> {
        let Some(member) = self.session.index(client) else { return Err(SecAggError::UnknownSender { from }) };
        if self.statements[member].is_some() {
            return Err(SecAggError::Duplicate { client });
        }
        let len = wire::input_bytes(self.session.plan()) - frame::HEADER;
        let session = Arc::clone(&self.session);
        self.take_input(member, wire::body(&session, bytes, wire::INPUT, from, len)?)?;
        self.traffic.receive(Phase::Input as usize, bytes.len());
        if self.delivered() == self.statements.len() {
            self.request_opening();
        }
        Ok(())
    }

    /// A frame of a holder, in the second phase.
    fn hear_holder(&mut self, from: PartyId, holder: u16, bytes: &[u8]) -> Result<(), SecAggError> {
        let kind = kind(bytes)?;
        let place = usize::from(holder).checked_sub(1).and_then(|at| self.answers.get(at));
        match place {
            None => return Err(SecAggError::UnknownSender { from }),
            Some(Answer::None) => {}
            // What it lacked has come.
            Some(Answer::Lacks(_)) if kind == wire::ANSWER => {}
            Some(_) => return Err(SecAggError::HolderAnswered { holder }),
        }
        let (expected, len) = if kind == wire::LACKS {
            (kind, self.survivors.len().div_ceil(8) + 64)
        } else {
            (wire::ANSWER, wire::share_bytes(self.session.plan()) + 64)
        };
        let session = Arc::clone(&self.session);
        self.take_answer(holder, expected, wire::body(&session, bytes, expected, from, len)?)?;
        self.traffic.receive(Phase::Open as usize, bytes.len());
        let sums = self.answers.iter().filter(|answer| matches!(answer, Answer::Sum(_))).count();
        let all = self.answers.iter().all(|answer| !matches!(answer, Answer::None));
        // Shares that are on their way may still make an answer of what is none: wait for them where it matters.
        let waits =
            self.session.deadline(Phase::Open).is_some() && sums < usize::from(self.session.plan().request().needed);
        if all && !waits {
            self.finish();
        }
        Ok(())
    }
}

impl Party for OneshotServer {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        let Some(phase) = self.running else { return Err(SecAggError::Late) };
        match (from, phase) {
            (PartyId::Client(client), Phase::Input) => self.hear_client(from, client, bytes),
            (PartyId::Holder(holder), Phase::Open) => self.hear_holder(from, holder, bytes),
            (PartyId::Client(client), Phase::Open) if self.session.index(client).is_some() => Err(SecAggError::Late),
            (PartyId::Holder(_), Phase::Input) => {
                let found = kind(bytes)?;
                Err(SecAggError::Kind { expected: wire::INPUT, found })
            }
            _ => Err(SecAggError::UnknownSender { from }),
        }
    }

    /// Ends every phase whose deadline has come.
    fn handle_timeout(&mut self, now: u64) {
        while let Some(phase) = self.running {
            if self.session.deadline(phase).is_none_or(|deadline| now < deadline) {
                return;
            }
            match phase {
                Phase::Input => self.request_opening(),
                Phase::Open => self.finish(),
            }
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        self.session.deadline(self.phase()?)
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let relay = self.relays.pop_front().map(|transmit| (Phase::Input, transmit));
        let (phase, transmit) = relay.or_else(|| self.outbox.pop_front())?;
        self.traffic.send(phase as usize, transmit.frame.len());
        Some(transmit)
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.output.take()
    }
}
