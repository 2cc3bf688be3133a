//! Processes that share the clients of a simulation.
//!
//! Every rank has the data, the secret and the whole coordinator, which goes through the same states everywhere. A rank plays
//! every n-th client of a round; then
//!
//! ```text
//! plain                   sums of the ranks' clients, added mod 2^b by all ranks together    d words a group
//! masks, oneshot, mphe    the clients' frames go to all ranks                                all frames, in chunks
//! ```
//! so that every rank has the same sum, whatever their number. Rank 0 alone evaluates, keeps the run folder and the ledger, and
//! says whether the run goes on. The ranks are one simulator: nothing is hidden between them, as nothing is inside one process.

#[cfg(feature = "mpi")]
pub mod mpi;

use std::collections::BTreeMap;

use super::SimError;
use crate::backend::EncodeReport;
use crate::fl::FlError;
use crate::fl::coordinator::{Coordinator, RoundTask};
use crate::fl::dp_sgd::GradientReport;
use crate::secagg::plain::PlainServer;
use crate::secagg::{Output, Party, PartyId, SessionId, Transmit, frame};

/// What ranks have to do together: every rank calls the same methods in the same order. An implementation that cannot go on ends
/// all of its processes, as MPI does.
pub trait Ranks {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Replaces `bytes` by those of rank 0.
    fn broadcast(&self, bytes: &mut Vec<u8>);

    /// The bytes of every rank, in their order, at every rank.
    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>>;

    /// Replaces `words` by the sum of those of all ranks mod 2^64, coordinate by coordinate. All have as many.
    fn add(&self, words: &mut [u64]);

    /// The same mod 2^32.
    fn add_narrow(&self, words: &mut [u32]);
}

/// The one process of a run that is not shared.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn broadcast(&self, _bytes: &mut Vec<u8>) {}

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }

    fn add(&self, _words: &mut [u64]) {}

    fn add_narrow(&self, _words: &mut [u32]) {}
}

/// What this rank and the others say to each other in a round.
#[derive(Clone, Copy)]
pub(super) struct Share<'a>(pub(super) &'a dyn Ranks);

impl Share<'_> {
    /// True if there is nobody else.
    pub(super) fn is_alone(self) -> bool {
        self.0.size() == 1
    }

    /// Those of a list that this rank plays.
    pub(super) fn own<T: Copy>(self, all: &[T]) -> Vec<T> {
        all.iter().skip(self.0.rank()).step_by(self.0.size()).copied().collect()
    }

    /// The largest number that a rank has.
    pub(super) fn most(self, number: usize) -> Result<usize, SimError> {
        if self.is_alone() {
            return Ok(number);
        }
        let all = self.0.gather(&(number as u64).to_le_bytes());
        let mut most = 0;
        for bytes in &all {
            most = most.max(Reader(bytes).word()?);
        }
        Ok(most as usize)
    }

    /// What the clients of all ranks send, in the order of the clients.
    pub(super) fn all(self, own: Vec<(u64, Transmit)>) -> Result<Vec<(u64, Transmit)>, SimError> {
        if self.is_alone() {
            return Ok(own);
        }
        let mut bytes = Vec::with_capacity(own.iter().map(|(_, transmit)| 16 + transmit.frame.len()).sum());
        for (client, transmit) in own {
            bytes.extend_from_slice(&client.to_le_bytes());
            bytes.extend_from_slice(&(transmit.frame.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&transmit.frame);
        }
        let mut all = Vec::new();
        for bytes in self.0.gather(&bytes) {
            let mut reader = Reader(&bytes);
            while !reader.0.is_empty() {
                let (client, len) = (reader.word()?, reader.word()?);
                let frame = reader.take(len as usize)?.to_vec();
                all.push((client, Transmit { to: PartyId::Server, frame }));
            }
        }
        all.sort_by_key(|(client, _)| *client);
        Ok(all)
    }

    /// What the clients of all ranks saw. The sums of floats depend on the number of ranks in their last bits.
    pub(super) fn reports(
        self,
        encoded: EncodeReport,
        gradients: GradientReport,
    ) -> Result<(EncodeReport, GradientReport), SimError> {
        if self.is_alone() {
            return Ok((encoded, gradients));
        }
        let mut bytes = Vec::new();
        for report in [&encoded, &gradients.encoded] {
            let floats = [report.clip_ratio_sum.to_bits(), report.norm_sum.to_bits()];
            let counts = [report.zeroed as u64, report.clipped as u64, report.linf_hits];
            bytes.extend(counts.into_iter().chain(floats).flat_map(u64::to_le_bytes));
        }
        bytes.extend_from_slice(&gradients.rows.to_le_bytes());
        let (mut encoded, mut gradients) = (EncodeReport::default(), GradientReport::default());
        for bytes in self.0.gather(&bytes) {
            let mut reader = Reader(&bytes);
            encoded.merge(&reader.report()?);
            let report = reader.report()?;
            gradients.merge(&GradientReport { rows: reader.word()?, encoded: report });
        }
        Ok((encoded, gradients))
    }

    /// Replaces words of a ring of `bits` bits by the sum of those of all ranks.
    fn add(self, words: &mut Vec<u64>, bits: u32) {
        if bits > 32 {
            self.0.add(words);
        } else {
            // Half of the bytes; 2^bits divides 2^32.
            let mut narrow: Vec<u32> = words.iter().map(|&word| word as u32).collect();
            self.0.add_narrow(&mut narrow);
            *words = narrow.into_iter().map(u64::from).collect();
        }
        let ring = (1u64 << bits) - 1;
        words.iter_mut().for_each(|word| *word &= ring);
    }
}

/// Bytes that another rank has sent.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SimError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| SimError::Ranks {
            problem: format!("another rank sent {} bytes where {len} were due", self.0.len()),
        })?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u64, SimError> {
        let mut word = [0; 8];
        word.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(word))
    }

    fn report(&mut self) -> Result<EncodeReport, SimError> {
        let (zeroed, clipped, linf_hits) = (self.word()? as usize, self.word()? as usize, self.word()?);
        let (clip_ratio_sum, norm_sum) = (f64::from_bits(self.word()?), f64::from_bits(self.word()?));
        Ok(EncodeReport { zeroed, clipped, clip_ratio_sum, norm_sum, linf_hits })
    }
}

/// The sums over the clients of this rank, a group of `plain` each: the server's own machine, over a part of its cohort.
pub(super) struct Subtotals<'a> {
    groups: Vec<(&'a RoundTask, PlainServer)>,
}

impl<'a> Subtotals<'a> {
    /// Empty sums over the `clients` of this rank.
    pub(super) fn new(
        clients: &[(u64, &'a RoundTask)],
        tasks: &[&'a RoundTask],
        backend: &std::sync::Arc<dyn crate::backend::Backend>,
    ) -> Result<Self, SimError> {
        let mut groups = Vec::with_capacity(tasks.len());
        for &task in tasks {
            let own = clients.iter().filter(|(_, of)| of.id == task.id).map(|(client, _)| *client);
            let own: Vec<u64> = own.collect();
            let server = PlainServer::new(task.id, &own, task.shape, 0, Some(0), backend.clone());
            groups.push((task, server.map_err(FlError::from)?));
        }
        Ok(Self { groups })
    }

    /// What the clients are asked.
    pub(super) fn requests(&mut self) -> BTreeMap<u64, Vec<u8>> {
        let all = self.groups.iter_mut().flat_map(|(_, server)| std::iter::from_fn(|| server.poll_transmit()));
        all.filter_map(|transmit| match transmit.to {
            PartyId::Client(client) => Some((client, transmit.frame)),
            PartyId::Server | PartyId::Holder(_) => None,
        })
        .collect()
    }

    /// Adds what clients of this rank send.
    pub(super) fn take(&mut self, answers: Vec<(u64, Transmit)>) -> Result<(), SimError> {
        let places: BTreeMap<_, usize> =
            self.groups.iter().enumerate().map(|(at, (task, _))| (place(&task.id), at)).collect();
        for (client, answer) in answers {
            let named = frame::session(&answer.frame).and_then(|id| places.get(&place(&id)));
            if let Some((_, server)) = named.and_then(|&at| self.groups.get_mut(at)) {
                server.handle(PartyId::Client(client), &answer.frame).map_err(FlError::from)?;
            }
        }
        Ok(())
    }

    /// Adds the sums of all ranks and hands them to the server.
    pub(super) fn deliver(self, share: Share<'_>, coordinator: &mut Coordinator) -> Result<(), SimError> {
        for (task, mut server) in self.groups {
            server.handle_timeout(0);
            let Some(Output::Sum { mut words, survivors }) = server.poll_output() else {
                return Err(SimError::Ranks { problem: "the backend has lost a sum".into() });
            };
            share.add(&mut words, task.shape.bits);
            let bytes: Vec<u8> = survivors.into_iter().flat_map(u64::to_le_bytes).collect();
            let mut all = Vec::new();
            for bytes in share.0.gather(&bytes) {
                let mut reader = Reader(&bytes);
                while !reader.0.is_empty() {
                    all.push(reader.word()?);
                }
            }
            all.sort_unstable();
            coordinator.added(&task.id, words, all)?;
        }
        Ok(())
    }
}

/// A session as a key of a map.
fn place(id: &SessionId) -> ([u8; 16], u32, u32) {
    (id.session, id.round, id.attempt)
}
