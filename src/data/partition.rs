//! How a training set is dealt to clients, and what came of it.
//!
//! Every scheme is deterministic in its key and gives each sample to at most one client.

mod report;

pub use report::{ClientReport, PartitionReport, Sizes, Skew};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::PartitionProblem;
use super::{DataError, Dataset};
use crate::math::prg::{StreamKey, StreamReader};

/// Smallest concentration of a Dirichlet deal.
pub const MIN_ALPHA: f64 = 1e-6;
/// Largest concentration of a Dirichlet deal.
pub const MAX_ALPHA: f64 = 1e6;
/// Dirichlet deals tried until every client has `min_size` samples.
const ATTEMPTS: u32 = 100;

/// How to deal the training set.
///
/// ```json
/// {"scheme": "iid", "clients": 100}
/// {"scheme": "per-sample"}
/// {"scheme": "dirichlet", "clients": 20, "alpha": 0.5}
/// {"scheme": "label-shards", "clients": 20, "shards_per_client": 2}
/// {"scheme": "natural"}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "scheme", rename_all = "kebab-case", rename_all_fields = "snake_case", deny_unknown_fields)]
pub enum PartitionConfig {
    /// Shuffled, then cut into `clients` parts whose sizes differ by at most one.
    Iid {
        /// Number of clients, at least 1 and at most the number of samples.
        clients: usize,
    },
    /// Every sample is a client of its own, in the order of the data set.
    PerSample {},
    /// The samples of each class are cut by proportions drawn from Dirichlet(alpha, ..., alpha) over the
    /// clients (Yurochkin et al. 2019, section 4; Li et al. 2022, section IV-A).
    Dirichlet {
        /// Number of clients, at least 1 and at most the number of samples.
        clients: usize,
        /// Concentration, in 1e-6..=1e6: small gives each client few classes, large approaches IID.
        alpha: f64,
        /// Least samples of a client: the deal is drawn anew, up to 100 times, until it holds.
        #[serde(default = "one")]
        min_size: usize,
    },
    /// Sorted by label, cut into `clients * shards_per_client` shards, dealt at random (McMahan et al. 2017,
    /// section 3).
    LabelShards {
        /// Number of clients, at least 1.
        clients: usize,
        /// Shards of each client, at least 1; there are at most as many shards as samples.
        shards_per_client: usize,
    },
    /// One client for each natural id (writer, speaker, hospital), by ascending id.
    Natural {},
}

fn one() -> usize {
    1
}

/// Which samples each client holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Ascending indices into the data set, one list a client; no index occurs twice.
    pub clients: Vec<Vec<usize>>,
}

impl Partition {
    /// Number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// True without clients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

/// Deals the samples of `data` by `config`, with randomness from `key` alone.
///
/// # Errors
/// [`DataError::Partition`] for no clients, more parts than samples, a concentration out of range, a least
/// size that no deal met, or natural ids that nobody knows.
pub fn partition(data: &Dataset, config: &PartitionConfig, key: &StreamKey) -> Result<Partition, DataError> {
    let samples = data.len();
    let mut reader = key.reader(0);
    let dealt = match *config {
        PartitionConfig::Iid { clients } => {
            count("clients", clients, "clients", clients, samples).map(|()| iid(samples, clients, &mut reader))
        }
        PartitionConfig::PerSample {} => Ok((0..samples).map(|i| vec![i]).collect()),
        PartitionConfig::Dirichlet { clients, alpha, min_size } => {
            count("clients", clients, "clients", clients, samples)
                .and_then(|()| dirichlet(data, clients, alpha, min_size, &mut reader))
        }
        PartitionConfig::LabelShards { clients, shards_per_client: each } => {
            count("clients", clients, "shards", clients.saturating_mul(each), samples)
                .and_then(|()| count("shards_per_client", each, "shards", each, samples))
                .map(|()| label_shards(data, clients, each, &mut reader))
        }
        PartitionConfig::Natural {} => natural(data),
    };
    let mut clients = dealt.map_err(|reason| DataError::Partition { samples, reason })?;
    clients.iter_mut().for_each(|indices| indices.sort_unstable());
    Ok(Partition { clients })
}

fn count(
    key: &'static str,
    value: usize,
    what: &'static str,
    parts: usize,
    samples: usize,
) -> Result<(), PartitionProblem> {
    match value {
        0 => Err(PartitionProblem::Zero { key }),
        _ if parts > samples => Err(PartitionProblem::TooMany { what, parts }),
        _ => Ok(()),
    }
}

/// Consecutive runs of `order` whose lengths differ by at most one.
fn even_cuts(order: &[usize], parts: usize) -> impl Iterator<Item = &[usize]> {
    let (len, parts) = (order.len() as u128, parts as u128);
    let at = move |k: u128| (k * len / parts) as usize;
    (0..parts).map(move |k| &order[at(k)..at(k + 1)])
}

fn iid(samples: usize, clients: usize, reader: &mut StreamReader) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..samples).collect();
    reader.shuffle(&mut order);
    even_cuts(&order, clients).map(<[usize]>::to_vec).collect()
}

fn label_shards(data: &Dataset, clients: usize, each: usize, reader: &mut StreamReader) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..data.len()).collect();
    reader.shuffle(&mut order);
    order.sort_by_key(|&i| data.labels[i]);
    let mut shards: Vec<&[usize]> = even_cuts(&order, clients * each).collect();
    reader.shuffle(&mut shards);
    shards.chunks_exact(each).map(<[&[usize]]>::concat).collect()
}

fn natural(data: &Dataset) -> Result<Vec<Vec<usize>>, PartitionProblem> {
    let ids = data.natural_ids.as_ref().ok_or_else(|| PartitionProblem::NoNaturalIds { name: data.name.clone() })?;
    let mut clients: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, &id) in ids.iter().enumerate() {
        clients.entry(id).or_default().push(i);
    }
    Ok(clients.into_values().collect())
}

fn dirichlet(
    data: &Dataset,
    clients: usize,
    alpha: f64,
    min_size: usize,
    reader: &mut StreamReader,
) -> Result<Vec<Vec<usize>>, PartitionProblem> {
    if !(MIN_ALPHA..=MAX_ALPHA).contains(&alpha) {
        return Err(PartitionProblem::Alpha { found: alpha, low: MIN_ALPHA, high: MAX_ALPHA });
    }
    let needed = min_size.saturating_mul(clients);
    if needed > data.len() {
        return Err(PartitionProblem::TooMany { what: "samples (`min_size` times `clients`)", parts: needed });
    }
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, &label) in data.labels.iter().enumerate() {
        classes.entry(label).or_default().push(i);
    }
    let mut best = 0;
    for _ in 0..ATTEMPTS {
        let mut dealt = vec![Vec::new(); clients];
        for class in classes.values_mut() {
            reader.shuffle(class);
            let shares = dirichlet_shares(clients, alpha, reader);
            let (mut start, mut sum) = (0, 0.0);
            for (k, share) in shares.iter().enumerate() {
                sum += share;
                let end = if k + 1 == clients { class.len() } else { (sum * class.len() as f64).round() as usize };
                let end = end.clamp(start, class.len());
                dealt[k].extend_from_slice(&class[start..end]);
                start = end;
            }
        }
        let least = dealt.iter().map(Vec::len).min().unwrap_or(0);
        if least >= min_size {
            return Ok(dealt);
        }
        best = best.max(least);
    }
    Err(PartitionProblem::MinSize { clients, min_size, attempts: ATTEMPTS, best })
}

/// A draw from Dirichlet(alpha, ..., alpha) over `count` outcomes: Gamma draws over their sum, taken in
/// logarithms, because with a small alpha most of the draws underflow.
fn dirichlet_shares(count: usize, alpha: f64, reader: &mut StreamReader) -> Vec<f64> {
    let logs: Vec<f64> = (0..count).map(|_| log_gamma_draw(alpha, reader)).collect();
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|&l| libm::exp(l - top)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// The logarithm of a Gamma(alpha, 1) draw, alpha > 0.
///
/// Marsaglia and Tsang 2000, "A simple method for generating gamma variables", for shape `alpha + 1`:
/// `d = shape - 1/3`, `c = 1/sqrt(9 d)`, `v = (1 + c x)^3`; accept `d v` if
/// `ln u < x^2/2 + d - d v + d ln v`. Then `Gamma(alpha) = Gamma(alpha + 1) u^(1/alpha)` (section 6).
fn log_gamma_draw(alpha: f64, reader: &mut StreamReader) -> f64 {
    let d = alpha + 1.0 - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = reader.next_normal();
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let log_v = 3.0 * libm::log(v);
        // 1 - U is in (0, 1], so that no logarithm is infinite.
        let log_u = libm::log(1.0 - reader.next_f64());
        if log_u < 0.5 * x * x + d - d * libm::exp(log_v) + d * log_v {
            return libm::log(d) + log_v + libm::log(1.0 - reader.next_f64()) / alpha;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    fn reader(byte: u8) -> StreamReader {
        StreamKey::from_bytes([byte; 32], Cipher::ChaCha20).reader(0)
    }

    /// Gamma(alpha, 1) has mean and variance alpha; 20,000 draws give the mean within 5 standard errors.
    #[test]
    fn gamma_draws_have_the_moments_of_gamma() {
        for (byte, alpha) in [(1, 0.3), (2, 1.0), (3, 4.5)] {
            let mut reader = reader(byte);
            let n = 20_000;
            let draws: Vec<f64> = (0..n).map(|_| libm::exp(log_gamma_draw(alpha, &mut reader))).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(n);
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            let error = libm::sqrt(alpha / f64::from(n));
            assert!((mean - alpha).abs() < 5.0 * error, "alpha {alpha}: mean {mean}");
            assert!((variance / alpha - 1.0).abs() < 0.12, "alpha {alpha}: variance {variance}");
        }
    }

    /// Var of one share is (1/K)(1 - 1/K) / (K alpha + 1).
    #[test]
    fn shares_have_the_spread_of_dirichlet() {
        let (count, alpha, n) = (5, 0.5, 4000);
        let mut reader = reader(4);
        let first: Vec<f64> = (0..n).map(|_| dirichlet_shares(count, alpha, &mut reader)[0]).collect();
        let mean = first.iter().sum::<f64>() / f64::from(n);
        let variance = first.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        let expected = 0.2 * 0.8 / (5.0 * alpha + 1.0);
        assert!((mean - 0.2).abs() < 0.02, "mean {mean}");
        assert!((variance / expected - 1.0).abs() < 0.1, "variance {variance}, expected {expected}");
    }

    #[test]
    fn extreme_concentrations_stay_finite() {
        let mut reader = reader(5);
        for alpha in [MIN_ALPHA, 1e-3, MAX_ALPHA] {
            let shares = dirichlet_shares(50, alpha, &mut reader);
            let sum: f64 = shares.iter().sum();
            assert!((sum - 1.0).abs() < 1e-12 && shares.iter().all(|s| s.is_finite()), "alpha {alpha}");
            let top = shares.iter().copied().fold(0.0, f64::max);
            // At 1e-6 one client takes all but surely (the chance of less is below 1e-4); at 1e6 all are even.
            let expected = if alpha == MIN_ALPHA {
                0.999..=1.0
            } else if alpha > 1.0 {
                0.02..=0.021
            } else {
                0.02..=1.0
            };
            assert!(expected.contains(&top), "alpha {alpha}: {top}");
        }
    }
}
