//! What secure aggregation costs its parties: whole aggregations with the machines of [`crate::secagg`], every call timed.
//!
//! A case is played once; what a client costs is measured on every client that delivers, and the best and the median of
//! them are reported. Every sum is compared with the sum of what was put in. The clients of a lattice protocol and of `plain`
//! do not depend on one another: there, a few of the n deliver, and the parameters are those for n.

mod drive;
mod parties;
pub mod show;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Serialize;

use self::drive::{End, Spent, Work, drive};
use self::parties::{Parties, parties};
use super::BenchError;
use crate::backend::Backend;
use crate::math::prg::{Address, Cipher, Purpose, Secret};
use crate::secagg::{Output, PartyId, VectorShape, frame};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Added in the clear.
    Plain,
    /// Masks that cancel in the sum.
    Masks,
    /// Every value under a collective lattice key.
    Mphe,
    /// One lattice ciphertext a client, opened by key holders.
    Oneshot,
}

/// All protocols.
pub const PROTOCOLS: [Protocol; 4] = [Protocol::Plain, Protocol::Masks, Protocol::Mphe, Protocol::Oneshot];

impl Protocol {
    /// Its name in a config.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Masks => "masks",
            Self::Mphe => "mphe",
            Self::Oneshot => "oneshot",
        }
    }
}

/// Key holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Holders {
    /// K.
    pub holders: u16,
    /// t: how many open.
    pub needed: u16,
    /// f: how many may be corrupt.
    pub corrupt: u16,
}

/// One aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Case {
    /// The protocol.
    pub protocol: Protocol,
    /// n: clients of the cohort.
    pub clients: u32,
    /// d: values of a vector.
    pub dim: u32,
    /// b: the sum is one mod `2^b`.
    pub bits: u32,
    /// Share of the clients, and of the key holders that are not needed, that vanish.
    pub dropout: f64,
    /// Clients that deliver.
    pub delivering: u32,
    /// The key holders of lattice protocols.
    pub holders: Holders,
}

/// The best and the median of some times, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Least.
    pub best: f64,
    /// Middle one, the greater of two.
    pub median: f64,
}

impl Times {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = times.collect();
        sorted.sort_unstable();
        let at = |i: usize| sorted.get(i).map_or(0.0, |time| time.as_nanos() as f64);
        Self { best: at(0), median: at(sorted.len() / 2) }
    }
}

/// A case, measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was played.
    #[serde(flatten)]
    pub case: Case,
    /// The backend.
    pub backend: String,
    /// Parameters that the protocol has chosen.
    pub parameters: String,
    /// Time of all holders and the server for the set-up of a key that serves many sums, in ns.
    pub keys_ns: f64,
    /// A client's time from its first frame to its last, in ns.
    pub client_ns: Times,
    /// Bytes that a client sends.
    pub client_sent: u64,
    /// Bytes that a client gets.
    pub client_received: u64,
    /// The server's time to check and add a client's vector, in ns.
    pub add_ns: Times,
    /// The server's time for everything before the first vector, in ns.
    pub setup_ns: f64,
    /// The server's time from the last vector to the sum, in ns: with masks those of the lost clients are taken out.
    pub open_ns: f64,
    /// A key holder's time, in ns, without that of clients who are not played.
    pub holder_ns: f64,
    /// Bytes that a key holder gets from a client and sends for the sum.
    pub holder_received_per_client: f64,
    /// Bytes that a key holder sends.
    pub holder_sent: f64,
}

impl Row {
    /// Of a time or a number of bytes, the part of one value.
    #[must_use]
    pub fn per_value(&self, total: f64) -> f64 {
        total / f64::from(self.case.dim)
    }
}

/// Plays a case; nothing if `interrupt` was set meanwhile. `progress` hears of every client that has delivered.
///
/// # Errors
/// A case outside the ranges of its protocol; a sum that is not that of the vectors.
pub fn measure(
    case: &Case,
    backend: &Arc<dyn Backend>,
    interrupt: &AtomicBool,
    mut progress: impl FnMut(u32),
) -> Result<Option<Row>, BenchError> {
    check(case)?;
    // No key of anybody: what is added is made up.
    let secret = Secret::from_bytes([5; 32]);
    let Parties { mut server, mut members, silent, parameters, keys } = parties(case, backend, &secret)?;
    let shape = VectorShape { len: case.dim, bits: case.bits };
    let mut expected = vec![0u64; case.dim as usize];
    let mut delivered = 0;
    let vector = |party: PartyId| {
        let packed = synthetic(&secret, party, shape);
        frame::unpack(&packed, shape, |j, word| expected[j] = expected[j].wrapping_add(word));
        delivered += 1;
        progress(delivered);
        packed
    };
    let (end, spent) = drive(&mut *server, &mut members, &silent, vector, interrupt)?;
    let words = match end {
        End::Interrupted => return Ok(None),
        End::Output(Output::Sum { words, .. }) => words,
        End::Output(_) | End::Stuck => return Err(BenchError::NoSum { case: show::name(case) }),
    };
    let mask = u64::MAX >> (64 - case.bits);
    if words.iter().zip(&expected).any(|(&word, &sum)| word != sum & mask) {
        return Err(BenchError::WrongSum { case: show::name(case) });
    }
    Ok(Some(row(case, (backend.describe(), parameters), keys, &spent)))
}

/// The values of a client, packed: uniform bits.
fn synthetic(secret: &Secret, party: PartyId, shape: VectorShape) -> Vec<u8> {
    let client = if let PartyId::Client(client) = party { client } else { 0 };
    let address = Address { client, ..Address::default() };
    let mut packed = vec![0; shape.packed_len()];
    secret.derive(&[2; 16], address, Purpose::Synthetic, Cipher::ChaCha20).fill(0, &mut packed);
    let used = (shape.len as usize * shape.bits as usize) % 8;
    if let (1.., Some(last)) = (used, packed.last_mut()) {
        *last &= (1 << used) - 1;
    }
    packed
}

fn check(case: &Case) -> Result<(), BenchError> {
    let range =
        |name, expected: &str, found: String| Err(BenchError::OutOfRange { name, expected: expected.into(), found });
    if !(2..=1 << 20).contains(&case.clients) {
        return range("--clients", "2 to 2^20", case.clients.to_string());
    }
    if !(1..=1 << 27).contains(&case.dim) {
        return range("--size", "1 to 2^27", case.dim.to_string());
    }
    if !(1..=32).contains(&case.bits) {
        return range("--bits", "1 to 32", case.bits.to_string());
    }
    if !(0.0..1.0).contains(&case.dropout) {
        return range("--dropout", "in [0, 1)", case.dropout.to_string());
    }
    if !(2..=case.clients).contains(&case.delivering) {
        return range("--dropout", "so that two clients deliver", case.dropout.to_string());
    }
    Ok(())
}

fn row(case: &Case, (backend, parameters): (String, String), keys: Duration, spent: &Spent) -> Row {
    let of = |wanted: fn(&PartyId) -> bool| -> Vec<Work> {
        spent.members.iter().filter(|(party, _)| wanted(party)).map(|(_, work)| *work).collect()
    };
    let all = of(|party| matches!(party, PartyId::Client(_)));
    // Of those who vanish nothing is told: the ones who deliver come first.
    let clients = &all[..all.len().min(case.delivering as usize)];
    let holders: Vec<Work> = of(|party| matches!(party, PartyId::Holder(_)));
    let mean = |value: fn(&Work) -> f64| match holders.len() {
        0 => 0.0,
        count => holders.iter().map(value).sum::<f64>() / count as f64,
    };
    let median = |value: fn(&Work) -> u64| {
        let mut sorted: Vec<u64> = clients.iter().map(value).collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    Row {
        case: *case,
        backend,
        parameters,
        keys_ns: keys.as_nanos() as f64,
        client_ns: Times::of(clients.iter().map(|work| work.time)),
        client_sent: median(|work| work.sent),
        client_received: median(|work| work.received),
        add_ns: Times::of(spent.adds.iter().copied()),
        setup_ns: spent.before.as_nanos() as f64,
        open_ns: spent.opening.as_nanos() as f64,
        holder_ns: mean(|work| work.time.as_nanos() as f64),
        holder_received_per_client: mean(|work| work.received as f64) / f64::from(case.delivering),
        holder_sent: mean(|work| work.sent as f64),
    }
}

/// What [`cases`] makes cases of.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Protocols.
    pub protocols: Vec<Protocol>,
    /// Sizes of cohorts.
    pub clients: Vec<u32>,
    /// Lengths of vectors.
    pub dims: Vec<u32>,
    /// Shares that vanish.
    pub dropouts: Vec<f64>,
    /// Ring width.
    pub bits: u32,
    /// Key holders.
    pub holders: Holders,
    /// Clients of `plain` and of lattice protocols that are played at most.
    pub sample: u32,
}

/// Every protocol with every size, cohort and dropout.
#[must_use]
pub fn cases(request: &Request) -> Vec<Case> {
    let mut cases = Vec::new();
    for &dim in &request.dims {
        for &clients in &request.clients {
            for &dropout in &request.dropouts {
                let staying = clients - (f64::from(clients) * dropout).floor() as u32;
                cases.extend(request.protocols.iter().map(|&protocol| Case {
                    protocol,
                    clients,
                    dim,
                    bits: request.bits,
                    dropout,
                    delivering: if protocol == Protocol::Masks { staying } else { staying.min(request.sample) },
                    holders: request.holders,
                }));
            }
        }
    }
    cases
}
