//! `plain`: vectors are added in the clear. Hides nothing from the server; the oracle of the others,
//! and the right choice where the server is trusted or everything runs in one process.
//!
//! The server announces the round; each client answers with one input frame; the sum is opened when
//! all of the cohort has delivered, or at the deadline with at least `threshold` of it. Memory is
//! O(d): each frame is added on arrival.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::accumulator::{Accumulator, Broken, check_shape};
use super::frame::{self, Header, KIND_ANNOUNCE, KIND_INPUT};
use super::{Output, Party, PartyId, SecAggError, SessionId, Transmit, VectorShape};
use crate::backend::Backend;

/// Where a client stands.
enum ClientRound {
    /// Holds its packed vector until the server announces the round.
    Waiting(Vec<u8>),
    /// Its frame is to be sent.
    Sending(Vec<u8>),
    /// Nothing left to do; `true` once the output was taken.
    Done(bool),
}

/// A client of `plain`.
pub struct PlainClient {
    id: SessionId,
    client: u64,
    shape: VectorShape,
    state: ClientRound,
}

impl PlainClient {
    /// A client with the vector that it wants added; every word must be below `2^bits`.
    ///
    /// # Errors
    /// On another length than the shape's, a width outside 1..=63, or a word that does not fit.
    pub fn new<W: Copy + Into<u64>>(
        id: SessionId,
        client: u64,
        shape: VectorShape,
        words: &[W],
    ) -> Result<Self, SecAggError> {
        check_shape(shape)?;
        if words.len() != shape.len as usize {
            return Err(SecAggError::Shape {
                len: shape.len,
                bits: shape.bits,
                found_len: words.len() as u32,
                found_bits: shape.bits,
            });
        }
        // One pass without an early exit: where a word is too large must not show in the time.
        if words.iter().fold(0u64, |acc, &w| acc | w.into()) >> shape.bits != 0 {
            return Err(SecAggError::OutOfRange {
                name: "word",
                expected: "below 2^bits",
                found: u64::from(shape.bits),
            });
        }
        let mut packed = Vec::with_capacity(shape.packed_len());
        frame::pack(words.iter().map(|&w| w.into()), shape.bits, &mut packed);
        Ok(Self { id, client, shape, state: ClientRound::Waiting(packed) })
    }

    /// A client whose vector is packed already (see [`Backend::pack`]).
    ///
    /// # Errors
    /// On another number of bytes than the shape's, or a width outside 1..=63.
    pub fn packed(id: SessionId, client: u64, shape: VectorShape, packed: &[u8]) -> Result<Self, SecAggError> {
        check_shape(shape)?;
        let expected = shape.packed_len();
        if packed.len() != expected {
            return Err(SecAggError::Truncated { expected, found: packed.len() });
        }
        Ok(Self { id, client, shape, state: ClientRound::Waiting(packed.to_vec()) })
    }
}

impl Party for PlainClient {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if from != PartyId::Server {
            return Err(SecAggError::UnknownSender { from });
        }
        let header = frame::read_header(bytes, KIND_ANNOUNCE, &self.id)?;
        if bytes.len() != frame::HEADER {
            return Err(SecAggError::Truncated { expected: frame::HEADER, found: bytes.len() });
        }
        frame::check_shape(&header, self.shape)?;
        let ClientRound::Waiting(packed) = &mut self.state else { return Err(SecAggError::Late) };
        let packed = std::mem::take(packed);
        let header = Header { kind: KIND_INPUT, id: self.id, client: self.client, shape: self.shape };
        let mut out = frame::write_header(&header, packed.len());
        out.extend_from_slice(&packed);
        self.state = ClientRound::Sending(out);
        Ok(())
    }

    fn handle_timeout(&mut self, _now: u64) {}

    fn poll_timeout(&self) -> Option<u64> {
        None
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let ClientRound::Sending(frame) = &mut self.state else { return None };
        let frame = std::mem::take(frame);
        self.state = ClientRound::Done(false);
        Some(Transmit { to: PartyId::Server, frame })
    }

    fn poll_output(&mut self) -> Option<Output> {
        match &mut self.state {
            ClientRound::Done(taken @ false) => {
                *taken = true;
                Some(Output::Delivered)
            }
            _ => None,
        }
    }
}

enum ServerRound {
    Collecting,
    Opened,
    Taken,
}

/// The server of `plain`.
pub struct PlainServer {
    id: SessionId,
    shape: VectorShape,
    backend: Arc<dyn Backend>,
    waiting: BTreeSet<u64>,
    survivors: BTreeSet<u64>,
    threshold: usize,
    deadline: Option<u64>,
    outbox: VecDeque<Transmit>,
    sum: Accumulator,
    state: ServerRound,
}

impl PlainServer {
    /// A server for one round over `cohort`. At `deadline` (driver's milliseconds; `None` waits for
    /// everybody) it opens the sum if at least `threshold` clients have delivered, else it aborts. An
    /// empty cohort opens a zero sum at once if the threshold is 0.
    ///
    /// # Errors
    /// On a width outside 1..=63 or a threshold above the cohort.
    pub fn new(
        id: SessionId,
        cohort: &[u64],
        shape: VectorShape,
        threshold: usize,
        deadline: Option<u64>,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, SecAggError> {
        check_shape(shape)?;
        let waiting: BTreeSet<u64> = cohort.iter().copied().collect();
        if threshold > waiting.len() {
            return Err(SecAggError::OutOfRange {
                name: "threshold",
                expected: "at most the cohort",
                found: threshold as u64,
            });
        }
        let header = Header { kind: KIND_ANNOUNCE, id, client: 0, shape };
        let outbox = waiting
            .iter()
            .map(|&c| Transmit { to: PartyId::Client(c), frame: frame::write_header(&header, 0) })
            .collect();
        let sum = Accumulator::new(shape, Arc::clone(&backend));
        let state = if waiting.is_empty() { ServerRound::Opened } else { ServerRound::Collecting };
        Ok(Self { id, shape, backend, waiting, survivors: BTreeSet::new(), threshold, deadline, outbox, sum, state })
    }

    /// Adds a row; what is refused is not in the sum.
    fn add(&mut self, body: &[u8]) -> Result<(), SecAggError> {
        // The last row at once: here an error of the backend can be returned, when the sum is taken it cannot.
        self.sum.add(body, self.waiting.len() == 1).map_err(|broken| match broken {
            Broken::Row(e) => e,
            Broken::Sum(e) => {
                self.state = ServerRound::Taken;
                e
            }
        })
    }

    fn open(&mut self) -> Result<Vec<u64>, SecAggError> {
        self.sum.take()?.into_words(&*self.backend)
    }
}

impl Party for PlainServer {
    fn handle(&mut self, from: PartyId, bytes: &[u8]) -> Result<(), SecAggError> {
        if !matches!(self.state, ServerRound::Collecting) {
            return Err(SecAggError::Late);
        }
        let header = frame::read_header(bytes, KIND_INPUT, &self.id)?;
        if from != PartyId::Client(header.client) {
            return Err(SecAggError::UnknownSender { from });
        }
        if self.survivors.contains(&header.client) {
            return Err(SecAggError::Duplicate { client: header.client });
        }
        if !self.waiting.contains(&header.client) {
            return Err(SecAggError::UnknownSender { from });
        }
        let body = frame::payload(bytes, &header, self.shape)?;
        self.add(body)?;
        self.waiting.remove(&header.client);
        self.survivors.insert(header.client);
        if self.waiting.is_empty() {
            self.state = ServerRound::Opened;
        }
        Ok(())
    }

    fn handle_timeout(&mut self, now: u64) {
        if matches!(self.state, ServerRound::Collecting) && self.deadline.is_some_and(|d| now >= d) {
            self.state = ServerRound::Opened;
        }
    }

    fn poll_timeout(&self) -> Option<u64> {
        matches!(self.state, ServerRound::Collecting).then_some(self.deadline).flatten()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop_front()
    }

    fn poll_output(&mut self) -> Option<Output> {
        if !matches!(self.state, ServerRound::Opened) {
            return None;
        }
        self.state = ServerRound::Taken;
        let aborted = Output::Aborted { survivors: self.survivors.len(), threshold: self.threshold };
        if self.survivors.len() < self.threshold {
            return Some(aborted);
        }
        // Rows wait here only after a deadline. Their shapes were checked on arrival: if the backend fails all the
        // same, there is no sum.
        let Ok(words) = self.open() else { return Some(aborted) };
        Some(Output::Sum { words, survivors: self.survivors.iter().copied().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::Scalar;

    const ID: SessionId = SessionId { session: [3; 16], round: 5, attempt: 1 };

    fn server(cohort: &[u64], bits: u32, len: u32, threshold: usize, deadline: Option<u64>) -> PlainServer {
        PlainServer::new(ID, cohort, VectorShape { len, bits }, threshold, deadline, Arc::new(Scalar)).unwrap()
    }

    /// Runs all of `vectors` through their machines; returns the frames that the clients sent.
    fn drive(server: &mut PlainServer, bits: u32, vectors: &[(u64, Vec<u64>)]) -> Vec<(u64, Vec<u8>)> {
        let mut clients: Vec<PlainClient> = vectors
            .iter()
            .map(|(c, v)| PlainClient::new(ID, *c, VectorShape { len: v.len() as u32, bits }, v).unwrap())
            .collect();
        while let Some(t) = server.poll_transmit() {
            for client in &mut clients {
                if t.to == PartyId::Client(client.client) {
                    client.handle(PartyId::Server, &t.frame).unwrap();
                }
            }
        }
        let mut frames = Vec::new();
        for client in &mut clients {
            let t = client.poll_transmit().unwrap();
            assert_eq!(client.poll_output(), Some(Output::Delivered));
            assert_eq!(client.poll_output(), None);
            frames.push((client.client, t.frame));
        }
        frames
    }

    #[test]
    fn sums_wrap_at_every_width() {
        for bits in [2u32, 8, 13, 32, 33, 56] {
            let mask = (1u64 << bits) - 1;
            let vectors: Vec<(u64, Vec<u64>)> = (0..7u64)
                .map(|c| {
                    (
                        c,
                        (0..9u64)
                            .map(|j| c.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(j * j * 77) & mask)
                            .collect(),
                    )
                })
                .collect();
            let mut s = server(&[0, 1, 2, 3, 4, 5, 6], bits, 9, 7, None);
            for (c, f) in drive(&mut s, bits, &vectors) {
                s.handle(PartyId::Client(c), &f).unwrap();
            }
            let expected: Vec<u64> =
                (0..9).map(|j| vectors.iter().fold(0u64, |a, (_, v)| a.wrapping_add(v[j])) & mask).collect();
            assert_eq!(s.poll_output(), Some(Output::Sum { words: expected, survivors: (0..7).collect() }));
            assert_eq!(s.poll_output(), None);
        }
    }

    #[test]
    fn deadline_opens_the_survivors_or_aborts() {
        for (threshold, opens) in [(2, true), (3, false)] {
            let mut s = server(&[1, 2, 3], 8, 2, threshold, Some(1000));
            let frames = drive(&mut s, 8, &[(1, vec![250, 1]), (3, vec![10, 2])]);
            for (c, f) in &frames {
                s.handle(PartyId::Client(*c), f).unwrap();
            }
            assert_eq!(s.poll_timeout(), Some(1000));
            s.handle_timeout(999);
            assert_eq!(s.poll_output(), None);
            s.handle_timeout(1000);
            let expected = if opens {
                Output::Sum { words: vec![4, 3], survivors: vec![1, 3] }
            } else {
                Output::Aborted { survivors: 2, threshold: 3 }
            };
            assert_eq!(s.poll_output(), Some(expected));
            assert_eq!(s.handle(PartyId::Client(1), &frames[0].1), Err(SecAggError::Late));
        }
    }

    #[test]
    fn hostile_frames_change_nothing() {
        let mut s = server(&[1, 2], 12, 3, 2, None);
        let frames = drive(&mut s, 12, &[(1, vec![1, 2, 3]), (2, vec![4, 5, 6])]);
        let good = frames[0].1.clone();
        for cut in 0..good.len() {
            assert!(s.handle(PartyId::Client(1), &good[..cut]).is_err(), "cut at {cut}");
        }
        for at in [0usize, 2, 3, 4, 20, 24, 28, 36, 40] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(s.handle(PartyId::Client(1), &bad).is_err(), "byte {at}");
        }
        let mut padded = good.clone();
        *padded.last_mut().unwrap() |= 0xF0;
        assert_eq!(s.handle(PartyId::Client(1), &padded), Err(SecAggError::Padding));
        assert!(matches!(s.handle(PartyId::Client(2), &good), Err(SecAggError::UnknownSender { .. })));
        s.handle(PartyId::Client(1), &good).unwrap();
        assert_eq!(s.handle(PartyId::Client(1), &good), Err(SecAggError::Duplicate { client: 1 }));
        s.handle(PartyId::Client(2), &frames[1].1).unwrap();
        assert_eq!(s.poll_output(), Some(Output::Sum { words: vec![5, 7, 9], survivors: vec![1, 2] }));
    }

    #[test]
    fn an_empty_cohort_opens_zero() {
        let mut s = server(&[], 8, 4, 0, None);
        assert_eq!(s.poll_output(), Some(Output::Sum { words: vec![0; 4], survivors: vec![] }));
    }

    #[test]
    fn words_that_do_not_fit_are_refused() {
        let shape = VectorShape { len: 2, bits: 8 };
        assert!(PlainClient::new(ID, 1, shape, &[1u32, 256]).is_err());
        assert!(PlainClient::new(ID, 1, shape, &[1u32]).is_err());
        assert!(PlainServer::new(ID, &[1], VectorShape { len: 1, bits: 64 }, 0, None, Arc::new(Scalar)).is_err());
        assert!(PlainServer::new(ID, &[1], shape, 2, None, Arc::new(Scalar)).is_err());
    }
}
