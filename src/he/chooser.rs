//! Which ring and layout a sum takes: the fewest bytes among the sets that are safe and never overflow.
//!
//! ```text
//! oneshot   C_j = a_j s + e_j + 2^o sum_(z < k) 2^(w z) (m_(j,z) + B)      one polynomial a block, and one key ciphertext
//! mphe      (c0, c1) under the collective key                             two polynomials a block
//! ```
//! with `w = ceil(log2(2 B W + 1))` for the unwrapped sum, `k w + o <= floor(log2 Q)`, o from [`super::noise`] and the bits
//! of security from [`super::security`], which has two opinions and takes the more cautious.

use super::ETA;
use super::error::{HeError, Nearest};
use super::noise::{CiphertextNoise, Flooding, Weights, oneshot_failure, oneshot_offset, oneshot_offset_certain};
use super::params::{Layout, Ring, field_width, find_primes, log2_product};
use super::security::{self, Security, limit};
use super::shamir::Threshold;

/// log2 of the failure that [`Failure::Statistical`] allows over a whole vector.
pub const LOG2_FAILURE: f64 = -40.0;

/// Whether the errors of one-shot encryption may leave their bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// With a stated probability below `2^-40` over the whole vector.
    #[default]
    Statistical,
    /// Never.
    Never,
}

/// What is to be summed, by whom it is opened, and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// d: values of a vector.
    pub values: u64,
    /// B: magnitude that no value exceeds, for certain.
    pub bound: u64,
    /// W: sum of the weights of the values, n without weights.
    pub weight_sum: u64,
    /// How often the ciphertexts themselves are added: [`Weights::equal`] of the clients where weights are inside the
    /// values or absent, W and V where the server multiplies ciphertexts.
    pub ciphertexts: Weights,
    /// K, t, f.
    pub threshold: Threshold,
    /// R: openings under one key.
    pub openings: u64,
    /// lambda: bits of statistical distance of all openings.
    pub lambda: u32,
    /// Whether errors may leave their bits.
    pub failure: Failure,
    /// N, if it is given.
    pub degree: Option<usize>,
}

/// A set for a vector under the collective key.
#[derive(Clone, Debug, PartialEq)]
pub struct MpheChoice {
    /// N and the primes.
    pub ring: Ring,
    /// w, k, o.
    pub layout: Layout,
    /// Flooding of every part of an opening.
    pub flooding: Flooding,
    /// Security of key and ciphertexts.
    pub security: Security,
    /// Blocks of a vector.
    pub blocks: u64,
    /// Bytes of a client's ciphertext without its header.
    pub ciphertext_bytes: u64,
    /// The same by values.
    pub bytes_per_value: f64,
}

/// A set for a vector under one-shot encryption, whatever becomes of its key.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorChoice {
    /// N and the primes.
    pub ring: Ring,
    /// w, k, o.
    pub layout: Layout,
    /// Security once the sums of secrets and errors are known.
    pub security: Security,
    /// log2 of the probability that a value of the vector decodes wrongly.
    pub log2_failure: f64,
    /// Blocks of a vector.
    pub blocks: u64,
    /// Bytes of a client's ciphertext without its header and its key.
    pub ciphertext_bytes: u64,
}

/// A set for a vector under one-shot encryption.
#[derive(Clone, Debug, PartialEq)]
pub struct OneshotChoice {
    /// N and the primes.
    pub ring: Ring,
    /// w, k, o.
    pub layout: Layout,
    /// Security once the sums of secrets and errors are known.
    pub security: Security,
    /// log2 of the probability that a value of the vector decodes wrongly.
    pub log2_failure: f64,
    /// Blocks of a vector.
    pub blocks: u64,
    /// Bytes of a client's ciphertext without its header and its key.
    pub ciphertext_bytes: u64,
    /// How its key of N coefficients travels.
    pub key: MpheChoice,
    /// Bytes of both by values.
    pub bytes_per_value: f64,
}

impl OneshotChoice {
    /// Bits of the vector's ciphertext by values, without the key.
    #[must_use]
    pub fn bits_per_value(&self, values: u64) -> f64 {
        8.0 * self.ciphertext_bytes as f64 / values.max(1) as f64
    }
}

/// Numbers of a candidate before its tables are made.
#[derive(Clone, Debug)]
struct Candidate {
    degree: usize,
    primes: Vec<u32>,
    slots: u32,
    offset: u32,
    bytes: u64,
}

/// Checks what every request must have; w.
fn width(request: &Request) -> Result<u32, HeError> {
    let range = |name, found, least, most| HeError::OutOfRange { name, found, least, most };
    let most = 1 << 36;
    if !(1..=most).contains(&request.values) {
        return Err(range("number of values", request.values, 1, most));
    }
    if !(1..=most).contains(&request.openings) {
        return Err(range("number of openings", request.openings, 1, most));
    }
    if request.weight_sum < request.ciphertexts.sum() {
        let found = request.weight_sum;
        return Err(range("sum of the weights of the values", found, request.ciphertexts.sum(), u64::MAX));
    }
    if let Some(degree) = request.degree.filter(|&n| limit(n).is_none()) {
        return Err(range("ring degree (a power of two)", degree as u64, 1024, 32_768));
    }
    field_width(request.bound, request.weight_sum)
}

/// floor(log2) of a product of primes.
fn room(primes: &[u32]) -> u32 {
    primes.iter().fold(num_bigint::BigUint::from(1u32), |q, p| q * p).bits() as u32 - 1
}

/// Bytes of `polynomials` polynomials.
fn bytes(degree: usize, primes: &[u32], polynomials: u64) -> u64 {
    let bits: u64 = primes.iter().map(|&p| u64::from(super::params::prime_bits(p))).sum();
    (degree as u64 / 8).saturating_mul(bits).saturating_mul(polynomials)
}

/// The set of one-shot encryption with the fewest bytes, its key included, among N of at most 8192 (larger ones only
/// where those hold nothing, or where N is given) and primes of 30 bits.
///
/// # Errors
/// A request out of range; no safe set (with the nearest request that has one).
pub fn oneshot(request: &Request) -> Result<OneshotChoice, HeError> {
    let width = width(request)?;
    let found = oneshot_unaided(request, width);
    found.map_err(|error| explain(error, request, |r| oneshot_unaided(r, field_width(r.bound, r.weight_sum)?)))
}

/// The same for the vector alone: its key travels by other means, and threshold, openings and lambda say nothing.
///
/// # Errors
/// Those of [`oneshot`].
pub fn oneshot_vector(request: &Request) -> Result<VectorChoice, HeError> {
    let width = width(request)?;
    let found = vector_unaided(request, width);
    found.map_err(|error| explain(error, request, |r| vector_unaided(r, field_width(r.bound, r.weight_sum)?)))
}

fn vector_unaided(request: &Request, width: u32) -> Result<VectorChoice, HeError> {
    let given = request.degree;
    let small = [2048, 4096, 8192].into_iter().filter(|&n| given.is_none_or(|g| g == n));
    let large = [16_384, 32_768].into_iter().filter(|&n| given.is_none_or(|g| g == n));
    let best = |degrees: &mut dyn Iterator<Item = usize>| {
        degrees.filter_map(|n| oneshot_at(request, width, n)).min_by_key(|c| (c.bytes, c.degree))
    };
    let Some(best) = best(&mut small.into_iter()).or_else(|| best(&mut large.into_iter())) else {
        return Err(HeError::NoSet { what: "a sum of bits", found: u64::from(width), nearest: Nearest::Nothing });
    };
    let ring = Ring::new(best.degree, &best.primes)?;
    let layout = Layout::new(&ring, width, best.slots, best.offset)?;
    let blocks = request.values.div_ceil(layout.block(&ring) as u64);
    let coefficients = blocks as f64 * best.degree as f64;
    Ok(VectorChoice {
        layout,
        security: security::oneshot(best.degree, ring.log2_modulus(), ETA, request.ciphertexts.heaviest()),
        log2_failure: oneshot_failure(ETA, request.ciphertexts, best.offset, coefficients),
        blocks,
        ciphertext_bytes: bytes(best.degree, &best.primes, blocks),
        ring,
    })
}

fn oneshot_unaided(request: &Request, width: u32) -> Result<OneshotChoice, HeError> {
    let vector = vector_unaided(request, width)?;
    let VectorChoice { ring, layout, security, log2_failure, blocks, ciphertext_bytes } = vector;
    let key =
        mphe_unaided(&key_request(request, ring.degree()), field_width(u64::from(ETA), request.ciphertexts.sum())?)?;
    Ok(OneshotChoice {
        layout,
        security,
        log2_failure,
        blocks,
        ciphertext_bytes,
        bytes_per_value: (ciphertext_bytes + key.ciphertext_bytes) as f64 / request.values as f64,
        key,
        ring,
    })
}

/// The request of the key: N coefficients of CBD(21), with the weights of the ciphertexts.
fn key_request(request: &Request, degree: usize) -> Request {
    Request {
        values: degree as u64,
        bound: u64::from(ETA),
        weight_sum: request.ciphertexts.sum(),
        degree: None,
        ..*request
    }
}

/// The best of one degree: every L that is safe, as many slots as fit.
fn oneshot_at(request: &Request, width: u32, degree: usize) -> Option<Candidate> {
    let weights = request.ciphertexts;
    let certain = oneshot_offset_certain(ETA, weights);
    let all = find_primes(30, 32);
    let mut best: Option<Candidate> = None;
    for count in 1..=all.len() {
        let primes = &all[..count];
        if !security::oneshot(degree, log2_product(primes.iter().copied()), ETA, weights.heaviest()).is_safe() {
            break;
        }
        let room = room(primes);
        for slots in (1..=room / width).rev() {
            let blocks = request.values.div_ceil(u64::from(slots) * degree as u64);
            let coefficients = blocks as f64 * degree as f64;
            let least = match request.failure {
                Failure::Statistical => oneshot_offset(ETA, weights, coefficients, LOG2_FAILURE),
                Failure::Never => certain,
            };
            let left = room - slots * width;
            if least <= left {
                // What is left costs nothing: none fails where all fit.
                let offset = if certain <= left { certain } else { least };
                let bytes = bytes(degree, primes, blocks);
                if best.as_ref().is_none_or(|b| bytes < b.bytes) {
                    best = Some(Candidate { degree, primes: primes.to_vec(), slots, offset, bytes });
                }
                break;
            }
        }
    }
    best
}

/// The set under a collective key with the fewest bytes.
///
/// # Errors
/// A request out of range; no safe set (with the nearest request that has one).
pub fn mphe(request: &Request) -> Result<MpheChoice, HeError> {
    let width = width(request)?;
    let found = mphe_unaided(request, width);
    found.map_err(|error| explain(error, request, |r| mphe_unaided(r, field_width(r.bound, r.weight_sum)?)))
}

/// Flooding of a vector with this many slots, and its blocks.
fn flood(request: &Request, degree: usize, slots: u32) -> Result<(Flooding, u64), HeError> {
    let blocks = request.values.div_ceil(u64::from(slots) * degree as u64);
    let holders = u32::from(request.threshold.holders());
    let noise = CiphertextNoise { degree, holders, eta: ETA, weights: request.ciphertexts };
    let coefficients = degree as f64 * blocks as f64 * request.openings as f64;
    Ok((Flooding::new(&noise, request.lambda, coefficients, u32::from(request.threshold.needed()))?, blocks))
}

fn mphe_unaided(request: &Request, width: u32) -> Result<MpheChoice, HeError> {
    let parts = u32::from(request.threshold.needed());
    let mut best: Option<Candidate> = None;
    let mut refused = HeError::NoSet { what: "a sum of bits", found: u64::from(width), nearest: Nearest::Nothing };
    for degree in [1024, 2048, 4096, 8192, 16_384, 32_768] {
        if request.degree.is_some_and(|given| given != degree) {
            continue;
        }
        let most = limit(degree).unwrap_or(0);
        for slots in 1..=(most / width).max(1) {
            let (flooding, blocks) = match flood(request, degree, slots) {
                Ok(found) => found,
                Err(error) => {
                    refused = error;
                    break;
                }
            };
            let offset = flooding.offset(parts);
            let needed = slots * width + offset;
            let Some(primes) = smallest_modulus(degree, needed) else { break };
            let log2 = log2_product(primes.iter().copied());
            let bytes = bytes(degree, &primes, 2 * blocks);
            let better = best.as_ref().is_none_or(|b| bytes < b.bytes);
            if better && security::public_key(degree, log2, ETA).is_safe() {
                best = Some(Candidate { degree, primes, slots, offset, bytes });
            }
        }
    }
    let best = best.ok_or(refused)?;
    let ring = Ring::new(best.degree, &best.primes)?;
    let layout = Layout::new(&ring, width, best.slots, best.offset)?;
    let (flooding, blocks) = flood(request, best.degree, best.slots)?;
    Ok(MpheChoice {
        layout,
        flooding,
        security: security::public_key(best.degree, ring.log2_modulus(), ETA),
        blocks,
        ciphertext_bytes: best.bytes,
        bytes_per_value: best.bytes as f64 / request.values as f64,
        ring,
    })
}

/// The primes, all of the same size and as few as go, whose product holds `needed` bits with the fewest bits of residues;
/// none above the table's limit.
fn smallest_modulus(degree: usize, needed: u32) -> Option<Vec<u32>> {
    let most = limit(degree)?;
    let sizes = (20..=30u32).rev().map(|bits| (bits, (needed + 1).div_ceil(bits)));
    let mut sizes: Vec<(u32, u32)> = sizes.filter(|(bits, count)| bits * count <= most + count).collect();
    sizes.sort_by_key(|(bits, count)| (bits * count, *count));
    sizes.into_iter().find_map(|(bits, count)| {
        let primes = find_primes(bits, count as usize);
        let fits = primes.len() == count as usize && room(&primes) >= needed;
        (fits && log2_product(primes.iter().copied()) <= f64::from(most)).then_some(primes)
    })
}

/// The error with the nearest request that has a set: another degree, equal weights, a smaller bound, a smaller lambda.
fn explain<T>(error: HeError, request: &Request, attempt: impl Fn(&Request) -> Result<T, HeError>) -> HeError {
    let HeError::NoSet { what, found, nearest } = error else { return error };
    let works = |r: &Request| attempt(r).is_ok();
    let free = Request { degree: None, ..*request };
    let larger = [1024usize, 2048, 4096, 8192, 16_384, 32_768].into_iter();
    let mut degrees = larger.filter(|&n| request.degree.is_some_and(|given| given != n));
    if let Some(degree) = degrees.find(|&n| works(&Request { degree: Some(n), ..*request })) {
        let log2_modulus = f64::from(limit(degree).unwrap_or(0));
        return HeError::NoSet { what, found, nearest: Nearest::Degree { degree, log2_modulus } };
    }
    let equal = Weights::equal(request.ciphertexts.sum());
    if request.ciphertexts.heaviest() > 1 && works(&Request { ciphertexts: equal, ..free }) {
        return HeError::NoSet { what, found, nearest: Nearest::EqualWeights };
    }
    let mut bounds = (0..request.bound.max(1).ilog2()).rev().map(|bits| 1u64 << bits);
    if let Some(bound) = bounds.find(|&bound| works(&Request { bound, ..free })) {
        return HeError::NoSet { what, found, nearest: Nearest::Bound { bound } };
    }
    let mut lambdas = (1..request.lambda).rev();
    if let Some(lambda) = lambdas.find(|&lambda| works(&Request { lambda, ..free })) {
        return HeError::NoSet { what, found, nearest: Nearest::Lambda { lambda } };
    }
    HeError::NoSet { what, found, nearest }
}
