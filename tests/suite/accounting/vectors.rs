//! Integer noise on vectors of integers: golden rows, and bounds against divergences by brute force.

use serde_json::Value;
use veilsum::privacy::accountant::certificate::steps::{self, StepNoise, skellam_cost};
use veilsum::privacy::accountant::pld::PldAccountant;
use veilsum::privacy::accountant::rdp::{RdpAccountant, published};
use veilsum::privacy::accountant::{Accountant, Rule};
use veilsum::privacy::mechanism::PrivacyError;
use veilsum::privacy::mechanism::rounded::published_bound;
use veilsum::privacy::{DpEvent, IntegerNoise};

use super::{account, account_json, close, epsilon, f, golden, sampled};

fn best(event: &DpEvent, count: u64, delta: f64) -> f64 {
    Rule::Best.epsilon(event, count, delta).unwrap().epsilon
}

/// The peers' Skellam and discrete Gaussian on rounded rows: their bounds, and epsilons that ours stay below.
#[test]
fn golden_rows_of_the_published_accountants() {
    let Some(smm) = golden("smm.json") else { return };
    let rows = &smm["google_ddp"];
    for row in rows["norms"].as_array().unwrap() {
        let square = published_bound(f(&row["l2"]), f(&row["dim"]), f(&row["beta"]));
        close(square.sqrt(), f(&row["rounded_l2"]), 1e-12);
        close(square.min((square * f(&row["dim"])).sqrt()), f(&row["rounded_l1"]), 1e-12);
    }
    let mut seen = 0;
    for row in rows["skellam_eps"].as_array().unwrap() {
        let scale = f(&row["scale"]);
        let square = published_bound(scale * f(&row["l2"]), f(&row["dim"]), f(&row["beta"]));
        let mu = 0.5 * (scale * f(&row["central_stddev"])).powi(2);
        let l1_bound = square.min((square * f(&row["dim"])).sqrt());
        let vector = DpEvent::SkellamVector { mu, l1_bound, l2_bound: square.sqrt() };
        let event = sampled(f(&row["q"]), vector);
        let (steps, delta, peer) = (row["steps"].as_u64().unwrap(), f(&row["delta"]), f(&row["eps"]));
        let rdp = epsilon(&event, steps, delta);
        // The way from divergences to delta is a better one, most where the best order is low.
        assert!(rdp <= peer * (1.0 + 1e-9) && rdp >= 0.85 * peer, "{row}: {rdp}");
        // Where the noise is wider than what is certified, privacy losses say nothing.
        assert!(best(&event, steps, delta) <= peer * (1.0 + 1e-9), "{row}");
        seen += 1;
    }
    for row in rows["ddg_eps"].as_array().unwrap() {
        let step = f(&row["gamma"]);
        let square = published_bound(f(&row["l2"]) / step, f(&row["dim"]), f(&row["beta"]));
        let event = DpEvent::DistributedDiscreteGaussian {
            clients: row["n"].as_u64().unwrap(),
            sigma: f(&row["local_stddev"]) / step,
            l1_bound: square.min((square * f(&row["dim"])).sqrt()),
            l2_bound: square.sqrt(),
            dim: row["dim"].as_u64().unwrap(),
        };
        let (steps, peer) = (row["steps"].as_u64().unwrap(), f(&row["eps"]));
        let found = epsilon(&sampled(f(&row["q"]), event), steps, f(&row["delta"]));
        // Under sampling ours charges for how far the sum is from one discrete Gaussian, which theirs takes it to be.
        assert!(found <= peer * (1.0 + 1e-4) && found >= 0.85 * peer, "{row}: {found}");
        seen += 1;
    }
    assert_eq!(seen, 10);
}

/// What `scripts/integer_noise.py` found with 40 digits lies below what is certified, and not far below.
#[test]
fn high_precision_numbers_lie_below_the_certified_ones() {
    let vector: Value = serde_json::from_str(include_str!("../../vectors/integer_noise.json")).unwrap();
    for row in vector["renyi"].as_array().unwrap() {
        let (mu, order, shift) = (f(&row["mu"]), row["order"].as_u64().unwrap(), f(&row["shift"]));
        let (truth, found) = (f(&row["divergence"]), skellam_cost(mu, order as u32) * shift * shift);
        assert!(truth <= found, "{row}: {found}");
        // The curvature falls outward, where large orders and shifts look.
        assert!(found <= truth * (1.0 + 0.6 / mu + order as f64 * shift / mu), "{row}: {found}");
    }
    for row in vector["steps"].as_array().unwrap() {
        let size = f(&row["size"]);
        let noise = match row["law"].as_str().unwrap() {
            "skellam" => StepNoise::Skellam { mu: size },
            _ => StepNoise::CenteredBinomial { coins: size as u64 },
        };
        let found = steps::dominate(noise, f(&row["bound"]), f(&row["delta0"])).expect("certified").kappa;
        let truth = f(&row["mean"]);
        assert!(truth <= found * (1.0 + 1e-12), "{row}: {found}");
        // One kappa for all shifts: that of the steepest step, at the end of the binomial.
        let slack = if row["law"] == "skellam" { 0.002 } else { 0.2 };
        assert!(found <= truth * (1.0 + slack), "{row}: {found}");
    }
}

/// Vectors of integers with squared norm at most 25, of many shapes.
const VECTORS: [&[u64]; 6] = [&[5], &[4, 3], &[3, 3, 2, 1, 1, 1], &[2; 6], &[4, 2, 2, 1], &[1; 25]];

fn shifts(noise: IntegerNoise, vector: &[u64]) -> DpEvent {
    DpEvent::Composed(vector.iter().map(|&sensitivity| DpEvent::IntegerShift { noise, sensitivity }).collect())
}

#[test]
fn every_vector_costs_at_most_the_bound() {
    for (noise, event) in [
        (IntegerNoise::Skellam { mu: 60.0 }, DpEvent::SkellamVector { mu: 60.0, l1_bound: 25.0, l2_bound: 5.0 }),
        (IntegerNoise::Skellam { mu: 700.0 }, DpEvent::SkellamVector { mu: 700.0, l1_bound: 25.0, l2_bound: 5.0 }),
        (IntegerNoise::CenteredBinomial { trials: 800 }, DpEvent::BinomialVector { coins: 400, l2_bound: 5.0 }),
    ] {
        for vector in VECTORS {
            for (rate, count) in [(1.0, 1), (1.0, 7), (0.1, 20)] {
                let mut exact = PldAccountant::new();
                // A vector's coordinates are moved together: sampled one by one they would hide more.
                if rate < 1.0 && vector.len() > 1 {
                    continue;
                }
                let truth = if vector.len() == 1 {
                    sampled(rate, DpEvent::IntegerShift { noise, sensitivity: vector[0] })
                } else {
                    shifts(noise, vector)
                };
                exact.compose(&truth, count).unwrap();
                let mut bound = PldAccountant::new();
                bound.compose(&sampled(rate, event.clone()), count).unwrap();
                for delta in [1e-3, 1e-6] {
                    let (low, high) = (exact.interval(delta).unwrap().low, bound.epsilon(delta).unwrap().epsilon);
                    assert!(low <= high, "{noise:?} {vector:?} {rate} {count} {delta}: {low} {high}");
                    // The longest steps nearly meet it.
                    assert!(vector.len() > 1 || low >= 0.93 * high, "{noise:?} {rate} {count} {delta}: {low} {high}");
                }
            }
            let IntegerNoise::Skellam { mu } = noise else { continue };
            let (mut exact, mut bound) = (RdpAccountant::new(), RdpAccountant::new());
            exact.compose(&shifts(noise, vector), 1).unwrap();
            bound.compose(&event, 1).unwrap();
            for ((order, truth), (_, found)) in exact.curve().zip(bound.curve()) {
                assert!(truth <= found * (1.0 + 1e-9), "{mu} {vector:?} {order}: {truth} {found}");
                assert!(found <= published::skellam_rdp(mu, 25.0, 5.0, order.ceil()) * (1.0 + 1e-9));
            }
        }
    }
}

/// The sum of n discrete Gaussians, convolved, against the bound for two vectors; and under sampling with few of them.
#[test]
fn sums_of_discrete_gaussians_cost_at_most_the_bound() {
    let law = |sigma: f64| -> Vec<f64> {
        let weights: Vec<f64> = (-80..=80).map(|k: i32| (-f64::from(k * k) / (2.0 * sigma * sigma)).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    };
    let sum = |n: usize, sigma: f64| {
        let one = law(sigma);
        (1..n).fold(one.clone(), |sum, _| {
            let at = |k: usize| (0..161).filter_map(|i| one.get((k + 80).checked_sub(i)?).map(|p| p * sum[i])).sum();
            (0..161).map(at).collect::<Vec<f64>>()
        })
    };
    let divergence = |q: &[f64], shift: usize, rate: f64, a: f64| {
        let moved = |k: usize| if k >= shift { q[k - shift] } else { 0.0 };
        let mixed = |k: usize| (1.0 - rate) * q[k] + rate * moved(k);
        // Where the tails are numbers.
        let inside = (0..161).filter(|&k| q[k] > 1e-200 && moved(k) > 1e-200);
        // By logarithms: the powers alone leave the range of a number.
        inside.map(|k| (a * mixed(k).ln() + (1.0 - a) * q[k].ln()).exp()).sum::<f64>().ln() / (a - 1.0)
    };
    for (n, sigma) in [(4usize, 0.6), (2, 0.8), (9, 1.2)] {
        let q = sum(n, sigma);
        for (shift, dim) in [(1u64, 1u64), (2, 1), (3, 2)] {
            let clients = n as u64;
            let (l1_bound, l2_bound) = (shift as f64, shift as f64);
            let event = DpEvent::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim };
            for rate in [1.0, 0.2] {
                let mut accountant = RdpAccountant::new();
                accountant.compose(&sampled(rate, event.clone()), 1).unwrap();
                for (order, found) in accountant.curve().filter(|(a, _)| *a <= 6.0) {
                    // A cohort of one adds it all at once.
                    for q in [&q, &law((n as f64).sqrt() * sigma)] {
                        let truth = divergence(q, shift as usize, rate, order);
                        assert!(
                            truth <= found * (1.0 + 1e-9) + 1e-12,
                            "{n} {sigma} {shift} {rate} {order}: {truth} {found}"
                        );
                    }
                }
            }
        }
    }
}

/// At epsilon 3, 1, 5 and 10 no more noise than the published accountants ask for; at epsilon 3 and gamma 64 less than 3/4.
#[test]
fn the_variance_needed_is_below_the_published_one() {
    let variance = |mechanism: &str, gamma: f64, eps: f64| {
        let line = format!(
            "--mechanism {mechanism} --gamma {gamma} --cohort 100 --delta 1e-5 --dim 65536 --target-epsilon {eps}"
        );
        let found = account_json(&line);
        assert!(f(&found["epsilon"]) <= eps && f(&found["epsilon"]) > 0.999 * eps, "{found}");
        f(&found["variance_over_clip"])
    };
    for mechanism in ["skellam", "binomial", "distributed-discrete-gaussian"] {
        let found = variance(mechanism, 64.0, 3.0);
        assert!(found < 9.7 && found > 1.93 * 4.0, "{mechanism}: {found}");
    }
    // The last 2 % are what the ring of 1024 steps leaves.
    assert!(variance("skellam", 1024.0, 3.0) < 2.02);
    let Some(smm) = golden("smm.json") else { return };
    for row in smm["compare_dse"].as_array().unwrap().iter().step_by(3) {
        let (gamma, eps) = (f(&row["gamma"]), f(&row["eps"]));
        let found = variance("skellam", gamma, eps);
        // Wider noise than what is certified is left to Renyi divergences, with a bound that serves without a retry.
        let allowed = if gamma > 1024.0 { 1.002 } else { 1.0 };
        assert!(found < allowed * f(&row["skellam_var"]), "{row}: {found}");
    }
}

#[test]
fn account_refuses_what_rows_do_not_take() {
    for (line, says) in [
        ("--mechanism binomial --coins 100 --cohort 10 --delta 1e-5 --dim 10", "--gamma"),
        ("--mechanism binomial --gamma 4 --coins 100 --cohort 10 --delta 1e-5", "--dim"),
        ("--mechanism binomial --gamma 4 --mu 3 --cohort 10 --delta 1e-5 --dim 10", "--mu"),
        ("--mechanism binomial --gamma 4 --cohort 10 --delta 1e-5 --dim 10", "--coins or --target-epsilon"),
        ("--mechanism skellam --gamma 4 --mu 3 --cohort 10 --delta 1e-5 --dim 10 --beta 1", "beta"),
        ("--mechanism skellam --gamma 4 --mu 3 --cohort 10 --delta 1e-5 --dim 10 --sensitivity 2", "--sensitivity"),
        ("--mechanism distributed-discrete-gaussian --gamma 4 --coins 3 --cohort 10 --delta 1e-5 --dim 10", "--coins"),
        ("--gamma 64 --mu 1 --cohort 10 --delta 1e-5 --beta 0.5", "--beta"),
    ] {
        let (code, out, err) = account(line);
        assert!(code == 2 && err.contains(says) && out.is_empty(), "{line}: {code} {err}");
    }
    // Too few coins tell neighbours apart.
    let v = account_json("--mechanism binomial --gamma 4 --coins 20 --cohort 10 --delta 1e-5 --dim 16");
    assert!(v["epsilon"] == "inf" && v["accountant"].as_str().unwrap().contains("binomial"), "{v}");
}

#[test]
fn vectors_out_of_range_are_refused() {
    for event in [
        DpEvent::BinomialVector { coins: 0, l2_bound: 1.0 },
        DpEvent::BinomialVector { coins: 5, l2_bound: f64::NAN },
        DpEvent::SkellamVector { mu: -1.0, l1_bound: 1.0, l2_bound: 1.0 },
    ] {
        for accountant in [&mut PldAccountant::new() as &mut dyn Accountant, &mut RdpAccountant::new()] {
            let refused = accountant.compose(&event, 1);
            assert!(matches!(refused, Err(PrivacyError::OutOfRange { .. })), "{event:?}");
        }
    }
}
