//! What holds for every cohort: permutations, equal rows, scales, translations, hostile rows, backends.

use proptest::prelude::*;

use super::*;

/// Rules with a guarantee against f hostile vectors of any size, for K >= 4f + 3.
fn robust(f: usize) -> Vec<Value> {
    let mut all = vec![json!("median"), json!({"geometric-median": {}})];
    all.extend(["trimmed-mean", "krum", "multi-krum", "bulyan", "mda", "meamed"].map(|name| json!({name: {"f": f}})));
    all
}

/// The same aggregate of all rows, each changed by `f`.
fn mapped(x: &[Vec<f32>], f: impl Fn(usize, f32) -> f32) -> Vec<Vec<f32>> {
    x.iter().map(|row| row.iter().enumerate().map(|(l, &v)| f(l, v)).collect()).collect()
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| f64::from(v)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_order_of_the_clients_does_not_matter(k in 3usize..16, d in 2usize..40, f in 0usize..3, seed in 0u64..1 << 20) {
        let x = cohort(seed, k, d, f.min(k / 3), 0.5);
        let root = vec![0.5f32; d];
        let inputs = Inputs { root: Some(&root), ..Inputs::default() };
        let mut order: Vec<usize> = (0..k).collect();
        seeded(1, seed).shuffle(&mut order);
        let shuffled: Vec<Vec<f32>> = order.iter().map(|&i| x[i].clone()).collect();
        for rule in rules(k, f) {
            // Two vectors that are each other's nearest have one score where one distance counts: the first is taken. So it
            // is in the last steps of Bulyan.
            let name = rule.to_string();
            if name.contains("bulyan") || (name.contains("krum") && k < f + 4) {
                continue;
            }
            let rule_of = aggregator(rule.clone(), json!([]));
            let (a, b) = (run(&rule_of, &x, &inputs).unwrap(), run(&rule_of, &shuffled, &inputs).unwrap());
            assert_close(&a.vector, &wide(&b.vector), 1e-6, &rule.to_string());
            if let (Some(a), Some(b)) = (a.shares, b.shares) {
                let far = order.iter().zip(&b).map(|(&i, b)| (a[i] - b).abs()).fold(0.0, f64::max);
                prop_assert!(far < 1e-6, "{} {}", rule, far);
            }
        }
    }

    /// Equal rows: that row, bit for bit, whatever stands before; FLTrust gives it the length of its own vector.
    #[test]
    fn equal_rows_give_that_row(k in 3usize..14, d in 1usize..20, f in 0usize..3, seed in 0u64..1 << 20) {
        let row = cohort(seed, 1, d, 0, 0.1).remove(0);
        let x = vec![row.clone(); k];
        let key = stream(2);
        let inputs = Inputs { root: Some(&row), start: Some(&row), permutation: Some(&key), ..Inputs::default() };
        let size = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        for mut rule in rules(k, f) {
            if rule.get("norm-bounded-mean").is_some() {
                rule = json!({"norm-bounded-mean": {"bound": size * 1.01}});
            }
            let found = run(&aggregator(rule.clone(), json!([])), &x, &inputs).unwrap();
            assert_close(&found.vector, &wide(&row), 1e-6, &rule.to_string());
            if 2 * f < k {
                let before = json!([{"arc": {"f": f}}, {"nearest-neighbor-mixing": {"f": f}}]);
                let found = run(&aggregator(rule.clone(), before), &x, &inputs).unwrap();
                assert_close(&found.vector, &wide(&row), 1e-6, &rule.to_string());
            }
        }
        let found = run(&aggregator(json!("median"), json!([{"bucketing": {"s": 2}}])), &x, &inputs).unwrap();
        assert_close(&found.vector, &wide(&row), 1e-6, "bucketing");
    }

    /// Rules without a length in their parameters scale with the vectors; those without an origin move with them. A power of
    /// two and a whole number change no bit of these values.
    #[test]
    fn scales_and_translations(k in 5usize..14, d in 2usize..30, seed in 0u64..1 << 20, power in -20i32..20) {
        let f = 1;
        let coarse = |x: Vec<Vec<f32>>| mapped(&x, |_, v| (v * 1024.0).round() / 1024.0);
        let x = coarse(cohort(seed, k, d, f, 0.5));
        let scale = 2f32.powi(power);
        let (big, moved) = (mapped(&x, |_, v| v * scale), mapped(&x, |l, v| v + 64.0 + l as f32));
        let mut all = vec![json!("mean"), json!("median"), json!({"geometric-median": {}})];
        all.extend(["trimmed-mean", "krum", "multi-krum", "mda", "meamed"].map(|name| json!({name: {"f": f}})));
        if k >= 4 * f + 3 {
            all.push(json!({"bulyan": {"f": f}}));
        }
        for rule in all {
            for before in [json!([]), json!([{"nearest-neighbor-mixing": {"f": f}}])] {
                let rule_of = aggregator(rule.clone(), before);
                let of = |x: &[Vec<f32>]| wide(&run(&rule_of, x, &Inputs::default()).unwrap().vector);
                let a = of(&x);
                let scaled: Vec<f64> = a.iter().map(|v| v * f64::from(scale)).collect();
                let shifted: Vec<f64> = a.iter().enumerate().map(|(l, v)| v + 64.0 + l as f64).collect();
                assert_close(&run(&rule_of, &big, &Inputs::default()).unwrap().vector, &scaled, 1e-5, &rule.to_string());
                assert_close(&run(&rule_of, &moved, &Inputs::default()).unwrap().vector, &shifted, 1e-5, &rule.to_string());
            }
        }
        // ARC follows the lengths; it does not move with the vectors.
        let rule_of = aggregator(json!("mean"), json!([{"arc": {"f": 1}}]));
        let a = run(&rule_of, &x, &Inputs::default()).unwrap().vector;
        let scaled: Vec<f64> = a.iter().map(|&v| f64::from(v * scale)).collect();
        assert_close(&run(&rule_of, &big, &Inputs::default()).unwrap().vector, &scaled, 1e-5, "arc");
    }

    /// f rows of 1e6 move no robust rule out of what honest rows span: every coordinate between honest values for the
    /// coordinate-wise rules and those that select honest rows here; within 2 (K - f) / (K - 2f) times the largest honest
    /// distance for the geometric median.
    #[test]
    fn hostile_rows_stay_without_effect(f in 1usize..4, more in 0usize..6, d in 1usize..20, seed in 0u64..1 << 20) {
        let k = 4 * f + 3 + more;
        let mut x = cohort(seed, k, d, 0, 0.5);
        let mut reader = seeded(3, seed);
        for row in x.iter_mut().skip(k - f) {
            let sign = if reader.below(2) == 0 { 1.0 } else { -1.0 };
            row.iter_mut().for_each(|v| *v = sign * (1e6 + *v));
        }
        let honest = &x[..k - f];
        let far = |v: &[f32], w: &[f32]| {
            v.iter().zip(w).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>().sqrt()
        };
        for before in [json!([]), json!([{"nearest-neighbor-mixing": {"f": f}}])] {
            for rule in robust(f) {
                let found = run(&aggregator(rule.clone(), before.clone()), &x, &Inputs::default()).unwrap().vector;
                if rule.get("geometric-median").is_some() || before != json!([]) {
                    let radius = honest.iter().map(|row| far(row, &honest[0])).fold(0.0, f64::max);
                    let bound = 2.0 * (k - f) as f64 / (k - 2 * f) as f64 * radius;
                    prop_assert!(far(&found, &honest[0]) <= bound + 1e-6, "{} behind {}", rule, before);
                    continue;
                }
                for (l, &v) in found.iter().enumerate() {
                    let values = || honest.iter().map(|row| row[l]);
                    let (low, high) = (values().fold(f32::MAX, f32::min), values().fold(f32::MIN, f32::max));
                    // One rounding of a mean.
                    let slack = 1e-6 * low.abs().max(high.abs());
                    prop_assert!((low - slack..=high + slack).contains(&v), "{} gives {} beyond {}..{}", rule, v, low, high);
                }
            }
        }
        // And the mean is moved: the test can tell.
        let mean = plain(json!("mean"), &x).vector;
        prop_assert!(f % 2 == 0 || mean.iter().all(|v| v.abs() > 1e4));
    }
}

/// The same coefficients, and with them the same bits, wherever the kernels ran; medians and trimmed means have the
/// same bits by themselves.
#[test]
fn backends_agree() {
    let (k, d, f) = (11, 700, 2);
    let x = cohort(77, k, d, f, 0.5);
    let (root, key) = (cohort(78, 1, d, 0, 0.5).remove(0), stream(5));
    let inputs = Inputs { root: Some(&root), start: Some(&root), permutation: Some(&key), ..Inputs::default() };
    let mut backends: Vec<Box<dyn Backend>> = vec![Box::new(veilsum::backend::scalar::Scalar)];
    backends.extend(crate::kernels::devices().into_iter().map(|b| Box::new(b) as Box<dyn Backend>));
    let before = [
        json!([]),
        json!([{"arc": {"f": f}}, {"nearest-neighbor-mixing": {"f": f}}]),
        json!([{"bucketing": {"s": 2}}]),
    ];
    for (at, before) in before.iter().enumerate() {
        // Two of six buckets may be hostile, which not every rule stands.
        let rules = if at == 2 { rules(6, 1) } else { rules(k, f) };
        for rule in rules {
            let rule_of = aggregator(rule.clone(), before.clone());
            let simd = run(&rule_of, &x, &inputs).unwrap();
            for backend in &backends {
                let what = format!("{rule} behind {before} on {}", backend.describe());
                let uploaded = backend.upload(&rows(&x).buffer).unwrap();
                let there = Rows { buffer: uploaded, ..rows(&x) };
                let found = rule_of.aggregate(&**backend, &there, &inputs).unwrap();
                assert_eq!(found.chosen, simd.chosen, "{what}");
                assert_close(&found.vector, &wide(&simd.vector), 1e-6, &what);
                if ["median", "trimmed-mean", "meamed", "krum"].iter().any(|n| rule == *n || rule.get(n).is_some())
                    && at == 0
                {
                    assert_eq!(found.vector, simd.vector, "{what}");
                }
            }
        }
    }
}

/// Threads change no bit of a rule.
#[test]
fn threads_change_no_bit_of_a_rule() {
    let x = cohort(3, 9, 40_000, 1, 0.2);
    let before = json!([{"nearest-neighbor-mixing": {"f": 1}}]);
    for rule in [json!("mean"), json!({"bulyan": {"f": 1}}), json!({"geometric-median": {}}), json!("median")] {
        let rule_of = aggregator(rule.clone(), before.clone());
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&rule_of, &x, &Inputs::default()).unwrap())
        };
        assert_eq!(with(1), with(5), "{rule}");
    }
}
