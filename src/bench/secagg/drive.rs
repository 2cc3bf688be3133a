//! One aggregation in one process: frames are handed over one at a time, and every call of a machine is timed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::secagg::{Output, Party, PartyId, SecAggError};

/// A party beside the server.
pub(super) trait Member: Party {
    /// True if only its vector is missing.
    fn wants_vector(&self) -> bool {
        false
    }

    /// Takes its vector, packed.
    ///
    /// # Errors
    /// What the protocol refuses.
    fn submit(&mut self, packed: &[u8]) -> Result<(), SecAggError>;
}

/// Parties by their names.
pub(super) type Members = BTreeMap<PartyId, Box<dyn Member>>;

/// What a party has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) time: Duration,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// What everybody has done.
#[derive(Debug, Default)]
pub(super) struct Spent {
    pub(super) members: BTreeMap<PartyId, Work>,
    /// The server's time for each frame with a vector.
    pub(super) adds: Vec<Duration>,
    /// Its time before the first of them, and its time for all other frames behind it.
    pub(super) before: Duration,
    pub(super) opening: Duration,
}

/// How a drive ended.
pub(super) enum End {
    /// The server's output.
    Output(Output),
    /// Ctrl-C.
    Interrupted,
    /// The server waits for nobody and has no output.
    Stuck,
}

/// Hands frames over until the server has an output. Parties that are not among `members` have never been there; the
/// `silent` ones say nothing from the moment on at which vectors are due.
pub(super) fn drive(
    server: &mut dyn Party,
    members: &mut Members,
    silent: &BTreeSet<PartyId>,
    mut vector: impl FnMut(PartyId) -> Vec<u8>,
    interrupt: &AtomicBool,
) -> Result<(End, Spent), SecAggError> {
    let mut spent = Spent::default();
    loop {
        while let Some(request) = server.poll_transmit() {
            if interrupt.load(Ordering::Relaxed) {
                return Ok((End::Interrupted, spent));
            }
            let Some(member) = members.get_mut(&request.to) else { continue };
            if silent.contains(&request.to) && !matches!(request.to, PartyId::Client(_)) {
                continue;
            }
            let work = spent.members.entry(request.to).or_default();
            work.received += request.frame.len() as u64;
            let start = Instant::now();
            member.handle(PartyId::Server, &request.frame)?;
            work.time += start.elapsed();
            let due = member.wants_vector();
            if due {
                if silent.contains(&request.to) {
                    members.remove(&request.to);
                    continue;
                }
                let packed = vector(request.to);
                let start = Instant::now();
                member.submit(&packed)?;
                work.time += start.elapsed();
            }
            loop {
                let start = Instant::now();
                let Some(answer) = member.poll_transmit() else { break };
                work.time += start.elapsed();
                work.sent += answer.frame.len() as u64;
                let start = Instant::now();
                server.handle(request.to, &answer.frame)?;
                let time = start.elapsed();
                match (due, spent.adds.is_empty()) {
                    (true, _) => spent.adds.push(time),
                    (false, true) => spent.before += time,
                    (false, false) => spent.opening += time,
                }
            }
        }
        if let Some(output) = server.poll_output() {
            return Ok((End::Output(output), spent));
        }
        let Some(deadline) = server.poll_timeout() else { return Ok((End::Stuck, spent)) };
        let start = Instant::now();
        server.handle_timeout(deadline);
        *(if spent.adds.is_empty() { &mut spent.before } else { &mut spent.opening }) += start.elapsed();
    }
}
