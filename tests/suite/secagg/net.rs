//! Parties of one session and a network in virtual time that delays, repeats and loses.

use std::collections::BTreeMap;
use std::sync::Arc;

use veilsum::backend::scalar::Scalar;
use veilsum::backend::{self, Backend, BackendKind, packed_len};
use veilsum::math::prg::{Address, Cipher, Purpose, Secret, StreamReader};
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::masks::{Deadlines, MasksClient, MasksServer, Plan, Session, Setup};
use veilsum::secagg::plain::{PlainClient, PlainServer};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, SessionId, VectorShape, frame};

pub(super) fn backend() -> Arc<dyn Backend> {
    backend::open(Some(BackendKind::Simd)).unwrap()
}

pub(super) fn reader(seed: u64) -> StreamReader {
    Secret::from_seed(seed).derive(&[1; 16], Address::default(), Purpose::Draws, Cipher::ChaCha20).reader(0)
}

/// Ids that are neither small nor dense.
pub(super) fn id(i: usize) -> u64 {
    7 + 1000 * i as u64
}

pub(super) fn identity(i: usize) -> Identity {
    Identity::simulated(&Secret::from_seed(99), id(i))
}

pub(super) fn secret(i: usize) -> Secret {
    Secret::from_seed(500 + i as u64)
}

pub(super) fn roster(n: usize) -> Arc<Roster> {
    Arc::new(Roster::new((0..n).map(|i| (id(i), identity(i).public()))).unwrap())
}

pub(super) fn session_of(plan: Plan, shape: VectorShape, round: u32, deadlines: Option<Deadlines>) -> Arc<Session> {
    let n = plan.request().clients;
    Session::new(Setup {
        id: SessionId { session: [3; 16], round, attempt: 1 },
        shape,
        cohort: (0..n).map(id).collect(),
        roster: roster(n),
        plan,
        graph_seed: [round as u8; 32],
        deadlines,
    })
    .unwrap()
}

pub(super) fn vectors(n: usize, shape: VectorShape, seed: u64) -> Vec<Vec<u64>> {
    let mut r = reader(seed);
    let mask = (1u64 << shape.bits) - 1;
    (0..n).map(|_| (0..shape.len).map(|_| r.next_u64() & mask).collect()).collect()
}

pub(super) fn packed(shape: VectorShape, vector: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(packed_len(vector.len(), shape.bits));
    frame::pack(vector.iter().copied(), shape.bits, &mut out);
    out
}

pub(super) fn client(session: &Arc<Session>, i: usize, vector: &[u64]) -> MasksClient {
    let bytes = packed(session.shape(), vector);
    MasksClient::packed(session, id(i), &identity(i), &secret(i), backend(), &bytes).unwrap()
}

pub(super) fn clients(session: &Arc<Session>, vectors: &[Vec<u64>]) -> Vec<MasksClient> {
    vectors.iter().enumerate().map(|(i, v)| client(session, i, v)).collect()
}

/// What `plain` adds up for the survivors of an output.
pub(super) fn plain(session: &Session, vectors: &[Vec<u64>], survivors: &[u64]) -> Output {
    let shape = session.shape();
    let mut server = PlainServer::new(session.id(), survivors, shape, 0, None, Arc::new(Scalar)).unwrap();
    while let Some(t) = server.poll_transmit() {
        let PartyId::Client(client) = t.to else { panic!("{:?}", t.to) };
        let vector = &vectors[session.index(client).unwrap()];
        let mut party = PlainClient::new(session.id(), client, shape, vector).unwrap();
        party.handle(PartyId::Server, &t.frame).unwrap();
        server.handle(t.to, &party.poll_transmit().unwrap().frame).unwrap();
    }
    server.poll_output().unwrap()
}

/// A frame on its way.
pub(super) struct Flight {
    pub(super) from: PartyId,
    pub(super) to: PartyId,
    pub(super) frame: Vec<u8>,
}

/// What the network does.
pub(super) struct Weather {
    pub(super) random: StreamReader,
    /// Frames after which a client falls silent; `None` never does.
    pub(super) silent_after: Vec<Option<usize>>,
    /// Longest delay in milliseconds.
    pub(super) delay: u64,
    /// One in so many frames arrives twice; 0 none.
    pub(super) twice: u64,
}

/// Everything that happens until nothing more does: the server's output, and those of the clients.
pub(super) fn play(
    server: &mut MasksServer,
    clients: &mut [MasksClient],
    weather: &mut Weather,
) -> (Option<Output>, Vec<Option<Output>>) {
    let session_index = |to: PartyId| match to {
        PartyId::Client(client) => (client as usize - 7) / 1000,
        PartyId::Server | PartyId::Holder(_) => unreachable!(),
    };
    let mut air: BTreeMap<(u64, u64), Flight> = BTreeMap::new();
    let mut sent = vec![0usize; clients.len()];
    let (mut now, mut serial) = (0u64, 0u64);
    let mut output = None;
    let mut refusals: Vec<SecAggError> = Vec::new();
    loop {
        let mut new = Vec::new();
        while let Some(t) = server.poll_transmit() {
            new.push(Flight { from: PartyId::Server, to: t.to, frame: t.frame });
        }
        for (i, client) in clients.iter_mut().enumerate() {
            while let Some(t) = client.poll_transmit() {
                sent[i] += 1;
                if weather.silent_after[i].is_none_or(|most| sent[i] <= most) {
                    new.push(Flight { from: PartyId::Client(id(i)), to: t.to, frame: t.frame });
                }
            }
        }
        for flight in new {
            let twice = weather.twice > 0 && weather.random.below(weather.twice) == 0;
            for _ in 0..=usize::from(twice) {
                serial += 1;
                let at = now + weather.random.below(weather.delay + 1);
                let Flight { from, to, frame } = &flight;
                air.insert((at, serial), Flight { from: *from, to: *to, frame: frame.clone() });
            }
        }
        output = output.or_else(|| server.poll_output());
        let next = air.keys().next().map(|(at, _)| *at);
        let timeouts = clients.iter().map(Party::poll_timeout).chain([server.poll_timeout()]);
        let timeout = timeouts.flatten().min();
        match (next, timeout) {
            (None, None) => break,
            (at, Some(timeout)) if at.is_none_or(|at| timeout < at) => {
                now = now.max(timeout);
                server.handle_timeout(now);
                clients.iter_mut().for_each(|c| c.handle_timeout(now));
            }
            _ => {
                let ((at, _), flight) = air.pop_first().unwrap();
                now = at;
                let heard = match flight.to {
                    PartyId::Server => server.handle(flight.from, &flight.frame),
                    to => {
                        let i = session_index(to);
                        // Who has fallen silent hears nothing either.
                        match weather.silent_after[i] {
                            Some(most) if sent[i] >= most => Ok(()),
                            _ => clients[i].handle(flight.from, &flight.frame),
                        }
                    }
                };
                refusals.extend(heard.err());
            }
        }
    }
    let fine = |e: &SecAggError| {
        matches!(e, SecAggError::Late | SecAggError::Duplicate { .. } | SecAggError::UnknownSender { .. })
    };
    assert!(refusals.iter().all(fine), "{refusals:?}");
    (output, clients.iter_mut().map(Party::poll_output).collect())
}
