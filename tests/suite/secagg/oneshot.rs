//! `oneshot`: sessions in steps, against `plain`.

mod drops;
mod frames;
mod rogue;
mod rules;

use std::sync::Arc;

use veilsum::backend::scalar::Scalar;
use veilsum::secagg::oneshot::{
    Deadlines, OneshotClient, OneshotHolder, OneshotServer, Plan, Request, Session, Setup, Weighting,
    simulated_channel, simulated_holder,
};
use veilsum::secagg::plain::{PlainClient, PlainServer};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, SessionId, Transmit, VectorShape};

use super::net;

pub(super) const SHAPE: VectorShape = VectorShape { len: 40, bits: 16 };

/// Five holders, one corrupt: four open, three tell nothing.
pub(super) fn plan(n: usize) -> Plan {
    Plan::choose(&Request::new(n, SHAPE, 1 << 15, (5, 4, 1))).unwrap()
}

pub(super) fn session(plan: Plan, round: u32, deadlines: Option<Deadlines>) -> Arc<Session> {
    let n = plan.request().clients;
    let holders = (1..=plan.request().holders).map(|j| simulated_holder(&net::secret(77), j).1).collect();
    Session::new(Setup {
        id: SessionId { session: [3; 16], round, attempt: 1 },
        cohort: (0..n).map(net::id).collect(),
        roster: net::roster(n),
        holders,
        plan,
        deadlines,
    })
    .unwrap()
}

/// Integers of magnitude up to the bound of each client, its ends included.
pub(super) fn integers(plan: &Plan, seed: u64) -> Vec<Vec<i64>> {
    let mut r = net::reader(seed);
    let shape = plan.input_shape();
    (0..plan.request().clients)
        .map(|i| {
            let bound = plan.bound(i);
            // The ring holds `-2^(bits - 1)` and not its negative.
            let most = (bound as i64).min((1i64 << (shape.bits - 1)) - 1);
            (0..shape.len)
                .map(|j| match (j + i as u32) % 7 {
                    0 => -(bound as i64),
                    1 => most,
                    _ => (r.below(2 * bound) as i64 - bound as i64).min(most),
                })
                .collect()
        })
        .collect()
}

pub(super) fn packed(shape: VectorShape, integers: &[i64]) -> Vec<u8> {
    let mask = (1u64 << shape.bits) - 1;
    net::packed(shape, &integers.iter().map(|&z| z as u64 & mask).collect::<Vec<_>>())
}

pub(super) fn client(session: &Arc<Session>, i: usize, integers: &[i64]) -> OneshotClient {
    let bytes = packed(session.input_shape(), integers);
    OneshotClient::packed(session, net::id(i), &net::identity(i), &net::secret(i), net::backend(), &bytes).unwrap()
}

pub(super) fn holder(session: &Arc<Session>, number: u16, answered: Option<[u8; 32]>) -> OneshotHolder {
    let (identity, _) = simulated_holder(&net::secret(77), number);
    OneshotHolder::new(session, number, &identity, &simulated_channel(&net::secret(77), number), answered).unwrap()
}

/// What `plain` adds up for these survivors, each as often as it counts.
pub(super) fn plain(session: &Session, integers: &[Vec<i64>], survivors: &[u64]) -> Output {
    let shape = session.shape();
    let mask = (1u64 << shape.bits) - 1;
    let mut server = PlainServer::new(session.id(), survivors, shape, 0, None, Arc::new(Scalar)).unwrap();
    while let Some(t) = server.poll_transmit() {
        let PartyId::Client(client) = t.to else { panic!("{:?}", t.to) };
        let i = session.index(client).unwrap();
        let weight = i64::from(session.plan().weight(i));
        let words: Vec<u64> = integers[i].iter().map(|&z| (z * weight) as u64 & mask).collect();
        let mut party = PlainClient::new(session.id(), client, shape, &words).unwrap();
        party.handle(PartyId::Server, &t.frame).unwrap();
        server.handle(t.to, &party.poll_transmit().unwrap().frame).unwrap();
    }
    server.poll_output().unwrap()
}

/// A session in steps.
pub(super) struct Stage {
    pub(super) session: Arc<Session>,
    pub(super) integers: Vec<Vec<i64>>,
    pub(super) server: OneshotServer,
    pub(super) clients: Vec<OneshotClient>,
    pub(super) holders: Vec<OneshotHolder>,
}

impl Stage {
    pub(super) fn new(plan: Plan, round: u32) -> Self {
        let session = session(plan, round, Some([1000, 2000]));
        let integers = integers(session.plan(), u64::from(round));
        Self {
            server: OneshotServer::new(&session, net::backend()),
            clients: integers.iter().enumerate().map(|(i, z)| client(&session, i, z)).collect(),
            holders: (1..=session.plan().request().holders).map(|j| holder(&session, j, None)).collect(),
            integers,
            session,
        }
    }

    pub(super) fn requests(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.server.poll_transmit()).collect()
    }

    /// What the clients say, in their order.
    pub(super) fn messages(&mut self) -> Vec<Vec<u8>> {
        for request in self.requests() {
            let PartyId::Client(client) = request.to else { panic!("{}", request.to) };
            let i = self.session.index(client).unwrap();
            self.clients[i].handle(PartyId::Server, &request.frame).unwrap();
        }
        self.clients.iter_mut().map(|c| c.poll_transmit().unwrap().frame).collect()
    }

    /// Hands the messages to the server; what it passes on: the relayed shares and requests, by holder.
    pub(super) fn deliver(&mut self, messages: &[Vec<u8>]) -> Vec<Vec<Vec<u8>>> {
        for (i, message) in messages.iter().enumerate() {
            self.server.handle(PartyId::Client(net::id(i)), message).unwrap();
        }
        self.for_holders()
    }

    pub(super) fn for_holders(&mut self) -> Vec<Vec<Vec<u8>>> {
        let mut out = vec![Vec::new(); self.holders.len()];
        for request in self.requests() {
            let PartyId::Holder(number) = request.to else { panic!("{}", request.to) };
            out[usize::from(number) - 1].push(request.frame);
        }
        out
    }

    /// Gives frames to a holder; its answer.
    pub(super) fn tell(&mut self, at: usize, frames: &[Vec<u8>]) -> Result<Option<Vec<u8>>, SecAggError> {
        frames.iter().try_for_each(|frame| self.holders[at].handle(PartyId::Server, frame))?;
        Ok(self.holders[at].poll_transmit().map(|t| t.frame))
    }

    pub(super) fn answer(&mut self, at: usize, frame: &[u8]) -> Result<(), SecAggError> {
        self.server.handle(PartyId::Holder(at as u16 + 1), frame)
    }

    /// Everything as it should be.
    pub(super) fn finish(&mut self) -> Output {
        let messages = self.messages();
        let frames = self.deliver(&messages);
        for (at, frames) in frames.iter().enumerate() {
            let answer = self.tell(at, frames).unwrap().unwrap();
            self.answer(at, &answer).unwrap();
        }
        self.server.poll_output().unwrap()
    }

    pub(super) fn expected(&self) -> Output {
        plain(&self.session, &self.integers, self.session.cohort())
    }
}

#[test]
fn widths_weights_and_holders_give_the_sum_of_plain() {
    let shape = |bits| VectorShape { len: 37, bits };
    let request = |bits, bound| Request::new(5, shape(bits), bound, (4, 3, 0));
    for (name, asked) in [
        ("bits", Request { shape: shape(1), ..request(1, 1) }),
        ("wider than its ring", request(8, 1000)),
        ("the whole ring", request(8, 128)),
        ("32 bits, slots in halves", request(32, 1 << 31)),
        ("wide", request(40, 1 << 39)),
        ("wider still", request(63, 1 << 40)),
        ("inside", Request { weights: Weighting::Inside(vec![1, 7, 30, 2, 1]), ..request(16, 1 << 12) }),
        ("server", Request { weights: Weighting::Server(vec![1, 2, 3, 1, 3]), ..request(16, 1 << 15) }),
        ("one holder", Request { holders: 1, needed: 1, ..request(16, 100) }),
        ("packed", Request { holders: 9, needed: 8, corrupt_holders: 1, ..request(16, 100) }),
        ("not all", Request { holders: 7, needed: 7, corrupt_holders: 1, packing: Some(1), ..request(16, 100) }),
    ] {
        let plan = Plan::choose(&asked).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut stage = Stage::new(plan, 7);
        assert_eq!(stage.finish(), stage.expected(), "{name}: {}", stage.session.plan());
        assert_eq!(stage.server.suspects(), &Default::default());
        let done = |party: &mut dyn Party| party.poll_output() == Some(Output::Delivered);
        assert!(stage.clients.iter_mut().all(|c| done(c)) && stage.holders.iter_mut().all(|h| done(h)));
    }
}

/// More values than a block holds.
#[test]
fn several_blocks_are_summed() {
    let shape = VectorShape { len: 30_000, bits: 20 };
    let mut stage = Stage::new(Plan::choose(&Request::new(3, shape, 1 << 18, (4, 3, 0))).unwrap(), 2);
    assert!(stage.session.plan().vector().blocks > 1);
    assert_eq!(stage.finish(), stage.expected());
}
