//! Every rule against its formula.

use proptest::prelude::*;

use super::naive::{self, Besides};
use super::*;

/// Steps that may stand before a rule for K vectors, f of them Byzantine, alone and two together.
fn steps(k: usize, f: usize) -> Vec<Value> {
    if k <= 2 * f {
        return vec![json!([]), json!([{"clipping": {"bound": 2.0}}])];
    }
    let (nnm, arc) = (json!({"nearest-neighbor-mixing": {"f": f}}), json!({"arc": {"f": f}}));
    let clip = json!({"clipping": {"bound": 2.0}});
    vec![json!([]), json!([nnm]), json!([arc]), json!([clip, nnm]), json!([nnm, arc])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_rule_is_its_formula(k in 1usize..14, d in 1usize..24, f in 0usize..4, seed in 0u64..1 << 20) {
        let x = cohort(seed, k, d, f.min(k / 2), 0.7);
        let wide = naive::widened(&x);
        let root = cohort(seed + 7, 1, d, 0, 0.7).remove(0);
        let start = cohort(seed + 8, 1, d, 0, 0.7).remove(0);
        let [wide_root, wide_start] = [&root, &start].map(|v| naive::widened(std::slice::from_ref(v)).remove(0));
        let inputs = Inputs { root: Some(&root), start: Some(&start), ..Inputs::default() };
        let besides = Besides { weights: None, root: Some(&wide_root), start: Some(&wide_start) };
        for before in steps(k, f) {
            let mixed = before.as_array().unwrap().iter().fold(wide.clone(), |x, step| naive::before(step, &x));
            for rule in rules(k, f) {
                // Several mixtures are the same vector: which values a rule selects is decided by rounding.
                let tied = before.to_string().contains("mixing");
                if tied && ["krum", "bulyan", "mda", "meamed"].iter().any(|name| rule.to_string().contains(name)) {
                    continue;
                }
                let what = format!("{rule} behind {before} of {k} x {d}");
                let found = run(&aggregator(rule.clone(), before.clone()), &x, &inputs).unwrap();
                prop_assert!(found.converged || found.iterations == 1000, "{}", what);
                let expected = naive::aggregate(&rule, &mixed, &besides);
                if rule.get("geometric-median").is_some() {
                    // There may be more than one: of vectors on a line, or of such that were mixed to two.
                    let reached = naive::distances(&mixed, &naive::widened(std::slice::from_ref(&found.vector))[0]);
                    let least = naive::distances(&mixed, &expected);
                    let slack = if found.converged { 1e-6 } else { 1e-3 };
                    prop_assert!(reached <= least * (1.0 + slack) + 1e-5, "{}: {} {}", what, reached, least);
                } else {
                    assert_close(&found.vector, &expected, 1e-5, &what);
                }
                // Behind a clip the shares are those of the rows as they came: what is left for the start is not 1 less their sum.
                let clipped = before.to_string().contains("clipping") || before.to_string().contains("arc");
                let with_rest = rule.get("centered-clipping").is_some();
                if let Some(shares) = found.shares.as_ref().filter(|_| !(clipped && with_rest)) {
                    let rest = 1.0 - shares.iter().sum::<f64>();
                    let mut all = naive::combination(&wide, shares);
                    all.iter_mut().zip(&wide_start).for_each(|(v, s)| *v += if with_rest { rest * s } else { 0.0 });
                    assert_close(&found.vector, &all, 1e-5, &format!("shares of {what}"));
                }
            }
        }
    }

    #[test]
    fn weights_are_integers_divided_by_their_sum(w in prop::collection::vec(0u64..1000, 6), seed in 0u64..1000) {
        prop_assume!(w.iter().any(|&w| w > 0));
        let x = cohort(seed, 6, 9, 0, 0.3);
        let besides = Besides { weights: Some(&w), ..Besides::default() };
        let inputs = Inputs { weights: Some(&w), ..Inputs::default() };
        for rule in [json!("mean"), json!({"norm-bounded-mean": {"bound": 1.0}})] {
            let found = run(&aggregator(rule.clone(), json!([])), &x, &inputs).unwrap();
            assert_close(&found.vector, &naive::aggregate(&rule, &naive::widened(&x), &besides), 1e-6, "weighted");
        }
    }
}

/// A hostile vector of any size leaves the digits of the others alone, through every step.
#[test]
fn huge_vectors_take_no_digits() {
    for size in [1e6f32, 1e15, 1e30, f32::MAX] {
        let mut x = cohort(5, 9, 12, 0, 0.4);
        x[8] = (0..12).map(|l| if l % 2 == 0 { size } else { -size }).collect();
        x[3] = vec![-size; 12];
        let wide = naive::widened(&x);
        for before in [json!([]), json!([{"nearest-neighbor-mixing": {"f": 2}}]), json!([{"clipping": {"bound": 2.0}}])]
        {
            let mixed = before.as_array().unwrap().iter().fold(wide.clone(), |x, step| naive::before(step, &x));
            for rule in ["krum", "multi-krum", "mda", "meamed", "trimmed-mean"].map(|name| json!({name: {"f": 2}})) {
                // Behind mixing two of the vectors are hostile mixtures as before; f stays.
                let found = run(&aggregator(rule.clone(), before.clone()), &x, &Inputs::default()).unwrap();
                let expected = naive::aggregate(&rule, &mixed, &Besides::default());
                assert_close(&found.vector, &expected, 1e-5, &format!("{rule} behind {before}, {size:e}"));
            }
        }
        // Those that give hostile vectors a small share: the honest part stays in place.
        let calm: Vec<Vec<f32>> = (0..9).filter(|i| ![3, 8].contains(i)).map(|i| x[i].clone()).collect();
        let honest = naive::mean(&naive::widened(&calm));
        for rule in [json!({"geometric-median": {}}), json!({"centered-clipping": {"tau": 1.0, "iterations": 20}})] {
            let found = plain(rule.clone(), &x);
            let far = found.vector.iter().zip(&honest).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
            assert!(found.converged && far < 2.0, "{rule} {size:e}: {far}");
        }
    }
}

/// MDA's search against all subsets, with ties in every distance.
#[test]
fn mda_is_the_first_of_the_least_subsets() {
    let mut reader = stream(4).reader(0);
    for case in 0..60 {
        let k = 3 + case % 8;
        let f = (k - 1) / 2;
        let x: Vec<Vec<f32>> = (0..k).map(|_| (0..2).map(|_| reader.below(4) as f32).collect()).collect();
        let diameter = |s: &[usize]| {
            let apart = |i: usize, j: usize| (x[i][0] - x[j][0]).powi(2) + (x[i][1] - x[j][1]).powi(2);
            s.iter().flat_map(|&i| s.iter().map(move |&j| (i, j))).map(|(i, j)| apart(i, j)).fold(0.0, f32::max)
        };
        let all = naive::subsets(k, k - f);
        let least = all.iter().map(|s| diameter(s)).fold(f32::INFINITY, f32::min);
        let first = all.into_iter().find(|s| diameter(s) == least);
        assert_eq!(plain(json!({"mda": {"f": f}}), &x).chosen, first, "case {case}: {x:?}");
    }
}

#[test]
fn selections_name_the_rows() {
    let x: Vec<Vec<f32>> = [0.0, 0.1, 50.0, 0.2, 0.15, 0.3, 0.4].iter().map(|&v| vec![v, 1.0]).collect();
    assert_eq!(plain(json!({"krum": {"f": 1}}), &x).chosen, Some(vec![4]));
    assert_eq!(plain(json!({"multi-krum": {"f": 1, "m": 3}}), &x).chosen, Some(vec![1, 3, 4]));
    assert_eq!(plain(json!({"mda": {"f": 1}}), &x).chosen, Some(vec![0, 1, 3, 4, 5, 6]));
    assert_eq!(plain(json!({"bulyan": {"f": 1}}), &x).chosen.map(|c| c.len()), Some(5));
    let shares = plain(json!({"krum": {"f": 1}}), &x).shares.unwrap();
    assert_eq!(shares, [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    // Two vectors with the same score: the first.
    let twins: Vec<Vec<f32>> = [9.0, 1.0, 1.0, 5.0, 1.0, 3.0].iter().map(|&v| vec![v]).collect();
    assert_eq!(plain(json!({"krum": {"f": 1}}), &twins).chosen, Some(vec![1]));
}
