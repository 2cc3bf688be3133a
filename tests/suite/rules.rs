//! Aggregation rules: the formulas written down naively, vectors of ByzFL, what theorems say, every backend.

mod attacks;
mod naive;
mod oracle;
mod properties;
mod refused;
mod vectors;

use serde_json::{Value, json};
use veilsum::backend::simd::Simd;
use veilsum::backend::{Backend, Rows};
use veilsum::fl::rule::{Aggregate, AggregationConfig, Aggregator, Inputs, RuleError};
use veilsum::math::prg::{Cipher, StreamKey, StreamReader};

/// A rule and what stands before it, from what a user writes.
fn aggregator(rule: Value, before: Value) -> Aggregator {
    let config: AggregationConfig = serde_json::from_value(json!({"rule": rule, "before": before})).unwrap();
    config.build().unwrap()
}

/// A stream per number.
fn stream(n: u8) -> StreamKey {
    StreamKey::from_bytes([n; 32], Cipher::ChaCha8)
}

/// A stream per number and seed.
fn seeded(n: u8, seed: u64) -> StreamReader {
    let mut key = [n; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    StreamKey::from_bytes(key, Cipher::ChaCha8).reader(0)
}

/// Rows as a rule takes them.
fn rows(x: &[Vec<f32>]) -> Rows {
    Rows::dense(x.concat(), x.len(), x[0].len()).unwrap()
}

/// The aggregate on the blocked backend.
fn run(aggregator: &Aggregator, x: &[Vec<f32>], inputs: &Inputs<'_>) -> Result<Aggregate, RuleError> {
    aggregator.aggregate(&Simd::new(), &rows(x), inputs)
}

/// The same with nothing but the rows, by names.
fn plain(rule: Value, x: &[Vec<f32>]) -> Aggregate {
    run(&aggregator(rule, json!([])), x, &Inputs::default()).unwrap()
}

/// `k` rows of `d` normals of one size each, around `center`; the last `f` are moved far away.
fn cohort(seed: u64, k: usize, d: usize, f: usize, center: f64) -> Vec<Vec<f32>> {
    let mut reader = seeded(9, seed);
    (0..k)
        .map(|i| {
            let size = 0.5 + reader.next_f64();
            let far = if i + f >= k { 20.0 } else { 0.0 };
            (0..d).map(|_| (center + far + size * reader.next_normal()) as f32).collect()
        })
        .collect()
}

/// Equal to `share` of the largest number in either.
fn assert_close(found: &[f32], expected: &[f64], share: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
    for (l, (&a, &b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - b).abs() <= share * size, "{what}: coordinate {l} is {a}, expected {b}");
    }
}

/// Rules for K vectors of which f may be anything, with inputs that all of them take.
fn rules(k: usize, f: usize) -> Vec<Value> {
    let mut all = vec![
        json!("mean"),
        json!({"norm-bounded-mean": {"bound": 1.5}}),
        json!("median"),
        json!({"geometric-median": {}}),
        json!({"centered-clipping": {"tau": 1.0, "iterations": 3}}),
        json!("fltrust"),
    ];
    if k > 2 * f {
        all.extend(["trimmed-mean", "mda", "meamed"].map(|name| json!({name: {"f": f}})));
    }
    if k > 2 * f + 2 {
        all.extend([json!({"krum": {"f": f}}), json!({"multi-krum": {"f": f}})]);
        all.push(json!({"multi-krum": {"f": f, "m": k - f}}));
    }
    if k >= 4 * f + 3 {
        all.push(json!({"bulyan": {"f": f}}));
    }
    all
}
