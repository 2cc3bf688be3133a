//! A key holder of `oneshot`: keeps one share of every client's key, and adds up those of one set of clients, once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::keys;
use super::session::{Phase, Session, Traffic};
use super::statements::{self, Statement, answer_statement};
use super::wire;
use crate::math::packed::{P, SHARE_BITS};
use crate::secagg::channel::PrivateKey;
use crate::secagg::identity::Identity;
use crate::secagg::wire::{Reader, bitmap, kind};
use crate::secagg::{Output, Party, PartyId, SecAggError, Transmit, VectorShape, frame};

/// What a client has entrusted to this holder.
struct Held {
    statement: Statement,
    share: Zeroizing<Vec<u32>>,
}

/// A key holder of one aggregation.
///
/// **One session, one answer.** What it has answered has to be on record before the answer is sent ([`Self::record`]), and
/// whoever begins again in the same session hands the record to [`Self::new`].
pub struct OneshotHolder {
    session: Arc<Session>,
    number: u16,
    identity: Identity,
    channel: PrivateKey,
    held: Vec<Option<Held>>,
    /// A request that waits for shares that are not here yet.
    pending: Option<(Vec<bool>, [u8; 32])>,
    /// The view that it has answered for: nothing else is opened in this session.
    answered: Option<[u8; 32]>,
    over: bool,
    outbox: VecDeque<Vec<u8>>,
    output: Option<Output>,
    traffic: Traffic,
}

impl fmt::Debug for OneshotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OneshotHolder({}, ..)", self.number)
    }
}

impl OneshotHolder {
    /// Holder `number`, from 1. `answered` is what it has on record for this session: `None` if it has said nothing.
    ///
    /// # Errors
    /// A number that the session has no holder for; an identity or a channel key that is not the pinned one.
    pub fn new(
        session: &Arc<Session>,
        number: u16,
        identity: &Identity,
        channel: &PrivateKey,
        answered: Option<[u8; 32]>,
    ) -> Result<Self, SecAggError> {
        let from = PartyId::Holder(number);
        let pinned = usize::from(number).checked_sub(1).and_then(|at| session.holders().get(at));
        let Some(pinned) = pinned else { return Err(SecAggError::UnknownSender { from }) };
        if pinned.identity != identity.public() || pinned.channel != channel.public() {
            return Err(SecAggError::HolderKey { holder: number });
        }
        Ok(Self {
            session: Arc::clone(session),
            number,
            identity: identity.clone(),
            channel: channel.clone(),
            held: (0..session.cohort().len()).map(|_| None).collect(),
            pending: None,
            over: answered.is_some(),
            answered,
            outbox: VecDeque::new(),
            output: None,
            traffic: Traffic::default(),
        })
    }

    /// What has to be on record before the next frame is sent: the one set that this holder answers for.
    #[must_use]
    pub const fn record(&self) -> Option<[u8; 32]> {
        self.answered
    }

    /// Bytes of each phase so far.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Takes a client's share, if it is that of the message that the client has signed.
    fn relayed(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let (session, plan) = (&*self.session, self.session.plan());
        let mut reader = Reader::new(body);
        let member = reader.member()?;
        let Some(place) = self.held.get(member) else {
            return Err(SecAggError::List { list: "clients", position: 0, found: member as u64 });
        };
        if place.is_some() {
            return Err(SecAggError::Duplicate { client: session.cohort()[member] });
        }
        let statement = Statement::read(&mut reader)?;
        let signature = reader.array()?;
        let path = (0..wire::path_len(plan)).map(|_| reader.array()).collect::<Result<Vec<[u8; 32]>, _>>()?;
        let sealed = reader.take(wire::sealed_bytes(plan))?;
        reader.end()?;
        if statements::root_of(usize::from(self.number), sealed, &path) != statement.root {
            return Err(SecAggError::Ciphertext);
        }
        statement.check(session, member, &signature)?;
        let share = self.unseal(member, &statement, sealed)?;
        self.held[member] = Some(Held { statement, share });
        match self.pending.take() {
            Some((set, asked)) if self.lacks(&set).contains(&true) => self.pending = Some((set, asked)),
            // It came before this share. A request for another set than it seemed is dropped.
            Some((set, asked)) => drop(self.answer(&set, &asked)),
            None => {}
        }
        Ok(())
    }

    /// Those of a set whose shares are not here.
    fn lacks(&self, set: &[bool]) -> Vec<bool> {
        set.iter().zip(&self.held).map(|(&s, held)| s && held.is_none()).collect()
    }

    fn unseal(&self, member: usize, statement: &Statement, sealed: &[u8]) -> Result<Zeroizing<Vec<u32>>, SecAggError> {
        let route = keys::share_route(&self.session, member, self.number);
        let packed = self.channel.agree(&statement.channel)?.open(&route, sealed)?;
        read_values(&packed, self.session.plan().share_len())
    }

    /// Takes a request to open: answers it, or says which shares it lacks and waits for them.
    fn open(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        let mut reader = Reader::new(body);
        let set = reader.set(self.session.cohort().len())?;
        let asked: [u8; 32] = reader.array()?;
        reader.end()?;
        let (found, limit) = (set.iter().filter(|&&s| s).count(), self.session.plan().request().min_survivors);
        if found < limit {
            return Err(SecAggError::Survivors { what: "their number", found, limit });
        }
        let lacks = self.lacks(&set);
        if !lacks.contains(&true) {
            return self.answer(&set, &asked);
        }
        self.say(wire::LACKS, &asked, &bitmap(&lacks));
        self.pending = Some((set, asked));
        Ok(())
    }

    /// Adds the shares of a set of clients, once in a session.
    fn answer(&mut self, set: &[bool], asked: &[u8; 32]) -> Result<(), SecAggError> {
        let view = statements::view(&self.session, set, |i| self.held[i].as_ref().map(|held| &held.statement));
        if view != *asked {
            return Err(SecAggError::Context);
        }
        let mut packed = Vec::with_capacity(wire::share_bytes(self.session.plan()));
        frame::pack(self.sum(set).iter().map(|&x| u64::from(x)), SHARE_BITS, &mut packed);
        self.answered = Some(view);
        self.say(wire::ANSWER, &view, &packed);
        self.finish(Output::Delivered);
        Ok(())
    }

    /// `sum w share mod p` of the clients of the set. It is public: t such sums open the sum of the keys.
    fn sum(&self, set: &[bool]) -> Vec<u32> {
        // Shares are below 2^30 and weights at most 3: 2^32 of them fit.
        let mut sums = vec![0u64; self.session.plan().share_len()];
        for held in self.held.iter().zip(set).filter(|(_, s)| **s).filter_map(|(held, _)| held.as_ref()) {
            let weight = u64::from(held.statement.weight);
            sums.iter_mut().zip(&*held.share).for_each(|(sum, &x)| *sum += weight * u64::from(x));
        }
        sums.iter().map(|&sum| (sum % u64::from(P)) as u32).collect()
    }

    fn say(&mut self, kind: u8, view: &[u8; 32], body: &[u8]) {
        let domain = self.session.domain(kind, u64::from(self.number));
        let signature = self.identity.sign(&domain, &answer_statement(view, body));
        let party = PartyId::Holder(self.number);
        self.outbox.push_back(wire::frame(&self.session, kind, party, &[body, &signature]));
    }

    /// Nothing more is said: all shares are wiped.
    fn finish(&mut self, output: Output) {
        self.over = true;
        self.pending = None;
        self.held.iter_mut().for_each(|held| *held = None);
        self.output = Some(output);
    }

    /// What a request to open is answered with after the one answer.
    fn refuse(&self, body: &[u8]) -> SecAggError {
        match (self.answered, body.last_chunk::<32>()) {
            (Some(answered), Some(asked)) if answered == *asked => SecAggError::HolderAnswered { holder: self.number },
            (Some(_), _) => SecAggError::AnotherSet,
            (None, _) => SecAggError::Late,
        }
    }
}

/// The values of a share of `len`.
///
/// # Errors
/// Another number of bytes, a one in an unused bit, a value that is not below p.
pub(super) fn read_values(packed: &[u8], len: usize) -> Result<Zeroizing<Vec<u32>>, SecAggError> {
    let shape = VectorShape { len: len as u32, bits: SHARE_BITS };
    frame::check_packed(packed, shape)?;
    let mut values = Zeroizing::new(vec![0u32; len]);
    let mut over = 0u32;
    frame::unpack(packed, shape, |j, value| {
        values[j] = value as u32;
        over |= (P - 1).wrapping_sub(value as u32);
    });
    if over >> 31 != 0 {
        return Err(crate::math::packed::PackingError::NotReduced { what: "a share" }.into());
    }
    Ok(values)
}

impl Party for OneshotHolder {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let plan = self.session.plan();
        let kind = kind(bytes)?;
        let (expected, len) = if kind == wire::OPEN {
            (wire::OPEN, self.session.cohort().len().div_ceil(8) + 32)
        } else {
            (wire::RELAY, 4 + wire::STATEMENT + 64 + 32 * wire::path_len(plan) + wire::sealed_bytes(plan))
        };
        let body = wire::body(&self.session, bytes, expected, PartyId::Holder(self.number), len)?;
        match (self.over, kind) {
            (false, wire::OPEN) => self.open(body)?,
            (false, _) => self.relayed(body)?,
            (true, wire::OPEN) => return Err(self.refuse(body)),
            (true, _) => return Err(SecAggError::Late),
        }
        self.traffic.receive(wire::phase(kind).unwrap_or(Phase::Input) as usize, bytes.len());
        Ok(())
    }

    /// At the end of the second phase the holder gives up and wipes what it holds.
    fn handle_timeout(&mut self, now: u64) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            let threshold = self.session.plan().request().min_survivors;
            self.finish(Output::Aborted { survivors: 0, threshold });
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        if self.over { None } else { self.session.deadline(Phase::Open) }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let frame = self.outbox.pop_front()?;
        self.traffic.send(Phase::Open as usize, frame.len());
        Some(Transmit { to: PartyId::Server, frame })
    }

    fn poll_output(&mut self) -> Option<Output> {
        if self.outbox.is_empty() { self.output.take() } else { None }
    }
}
