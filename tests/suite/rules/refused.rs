//! What rules refuse, and rows that are no numbers.

use veilsum::backend::Buffer;
use veilsum::backend::scalar::Scalar;
use veilsum::fl::rule::{PreAggregationConfig, RuleConfig};

use super::*;

#[test]
fn breakdown_conditions_are_errors_that_say_what_is_needed() {
    for (rule, f, needed, condition) in [
        ("krum", 2, 7, "K > 2f + 2"),
        ("multi-krum", 2, 7, "K > 2f + 2"),
        ("bulyan", 2, 11, "K >= 4f + 3"),
        ("trimmed-mean", 2, 5, "K > 2f"),
        ("mda", 2, 5, "K > 2f"),
        ("meamed", 2, 5, "K > 2f"),
    ] {
        let rule_of = aggregator(json!({rule: {"f": f}}), json!([]));
        assert!(rule_of.check(needed).is_ok(), "{rule}");
        let error = rule_of.check(needed - 1).unwrap_err();
        let expected = RuleError::TooFew { rule, f, condition, needed, found: needed - 1, dropped: 0 };
        assert_eq!(error, expected);
        assert!(error.to_string().contains(condition), "{error}");
        // The numbers of a hostile config do not wrap.
        assert!(aggregator(json!({rule: {"f": u64::MAX}}), json!([])).check(100).is_err());
    }
    for before in ["nearest-neighbor-mixing", "arc"] {
        assert!(aggregator(json!("mean"), json!([{before: {"f": 2}}])).check(4).is_err());
        assert!(aggregator(json!("mean"), json!([{before: {"f": 2}}])).check(5).is_ok());
    }
    // Krum behind buckets of two sees six of eleven vectors.
    let behind = aggregator(json!({"krum": {"f": 2}}), json!([{"bucketing": {"s": 2}}]));
    assert!(matches!(behind.check(11), Err(RuleError::TooFew { found: 6, needed: 7, .. })));
    assert!(behind.check(13).is_ok());
    for rule in rules(5, 1) {
        assert_eq!(aggregator(rule, json!([])).check(0), Err(RuleError::NoVectors { dropped: 0 }));
    }
}

#[test]
fn an_exact_search_is_refused_before_it_may_take_too_long() {
    let mda = |f: usize| aggregator(json!({"mda": {"f": f}}), json!([]));
    assert!(mda(11).check(25).is_ok() && mda(25).check(100).is_ok());
    let error = mda(400).check(1000).unwrap_err();
    assert!(matches!(error, RuleError::TooMuchWork { f: 400, vectors: 1000, .. }), "{error}");
    assert!(error.to_string().contains("1.4656^f"), "{error}");
    // The worst that is allowed ends: a grid of vectors, in which all distances have ties.
    let x: Vec<Vec<f32>> = (0..60).map(|i| vec![(i % 8) as f32, (i / 8) as f32]).collect();
    assert_eq!(plain(json!({"mda": {"f": 20}}), &x).chosen.unwrap().len(), 40);
}

#[test]
fn parameters_out_of_range_are_errors() {
    for config in [
        json!({"norm-bounded-mean": {"bound": 0.0}}),
        json!({"norm-bounded-mean": {"bound": -1.0}}),
        json!({"multi-krum": {"f": 1, "m": 0}}),
        json!({"geometric-median": {"smoothing": 2.0}}),
        json!({"geometric-median": {"tolerance": 0.0}}),
        json!({"geometric-median": {"iterations": 0}}),
        json!({"centered-clipping": {"tau": 0.0}}),
        json!({"centered-clipping": {"tau": 1.0, "iterations": 0}}),
    ] {
        let rule: RuleConfig = serde_json::from_value(config.clone()).unwrap();
        let error = rule.build().unwrap_err();
        assert!(matches!(error, RuleError::OutOfRange { .. }), "{config}: {error}");
    }
    assert!(RuleConfig::NormBoundedMean { bound: f64::NAN }.build().is_err());
    assert!(PreAggregationConfig::Bucketing { s: 0 }.build().is_err());
    assert!(PreAggregationConfig::Clipping { bound: f64::INFINITY }.build().is_err());
    let most = aggregator(json!({"multi-krum": {"f": 1, "m": 5}}), json!([]));
    assert!(most.check(6).is_ok() && most.check(5).unwrap_err().to_string().contains("K - f = 4"));
    for unknown in [json!({"krum": {"f": 1, "m": 2}}), json!({"krum": {}}), json!("krums"), json!({"median": {"f": 1}})]
    {
        assert!(serde_json::from_value::<RuleConfig>(unknown.clone()).is_err(), "{unknown}");
    }
    let whole = json!({"rule": {"krum": {"f": 1}}, "after": []});
    assert!(serde_json::from_value::<AggregationConfig>(whole).is_err());
}

#[test]
fn configs_survive_a_round_trip() {
    for rule in rules(11, 2) {
        let config: AggregationConfig =
            serde_json::from_value(json!({"rule": rule, "before": [{"bucketing": {"s": 2}}, {"arc": {"f": 1}}]}))
                .unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<AggregationConfig>(&text).unwrap(), config);
        assert_eq!(config.needs_root(), rule == "fltrust");
    }
}

#[test]
fn rows_that_are_no_numbers_are_left_out_and_named() {
    let clean = cohort(8, 11, 300, 0, 0.5);
    let mut x = clean.clone();
    x[2][7] = f32::NAN;
    x[9][299] = f32::NEG_INFINITY;
    let left: Vec<Vec<f32>> = (0..11).filter(|i| ![2, 9].contains(i)).map(|i| clean[i].clone()).collect();
    let (root, key) = (clean[0].clone(), stream(5));
    let inputs = Inputs { root: Some(&root), start: Some(&root), permutation: Some(&key), ..Inputs::default() };
    for before in [
        json!([]),
        json!([{"clipping": {"bound": 3.0}}]),
        json!([{"nearest-neighbor-mixing": {"f": 1}}]),
        json!([{"bucketing": {"s": 2}}]),
        json!([{"arc": {"f": 1}}]),
    ] {
        // Five buckets are left of nine vectors.
        for rule in rules(if before.to_string().contains("bucketing") { 5 } else { 9 }, 1) {
            let rule_of = aggregator(rule.clone(), before.clone());
            let found = run(&rule_of, &x, &inputs).unwrap();
            let without = run(&rule_of, &left, &inputs).unwrap();
            assert_eq!(found.dropped, [2, 9], "{rule} behind {before}");
            assert_eq!(found.vector, without.vector, "{rule} behind {before}");
            let names = |i: usize| (0..11).filter(|i| ![2, 9].contains(i)).nth(i).unwrap();
            assert_eq!(found.chosen, without.chosen.map(|c| c.into_iter().map(names).collect()), "{rule}");
            if let (Some(all), Some(few)) = (found.shares, without.shares) {
                assert_eq!((all.len(), all[2], all[9]), (11, 0.0, 0.0));
                assert!((0..9).all(|i| all[names(i)] == few[i]), "{rule}");
            }
        }
    }
    // Of the nine that are left Bulyan with f = 2 is no longer sure.
    let error = run(&aggregator(json!({"bulyan": {"f": 2}}), json!([])), &x, &Inputs::default()).unwrap_err();
    assert!(matches!(error, RuleError::TooFew { found: 9, needed: 11, dropped: 2, .. }));
    assert!(error.to_string().contains("2 more held a NaN"), "{error}");
    let none = vec![vec![f32::NAN; 3]; 4];
    let error = run(&aggregator(json!("mean"), json!([])), &none, &Inputs::default()).unwrap_err();
    assert_eq!(error, RuleError::NoVectors { dropped: 4 });
    // Weights go with their rows.
    let w: Vec<u64> = (1..12).collect();
    let kept: Vec<u64> = w.iter().copied().filter(|w| ![3, 10].contains(w)).collect();
    let of = |x: &[Vec<f32>], w: &[u64]| {
        run(&aggregator(json!("mean"), json!([])), x, &Inputs { weights: Some(w), ..Inputs::default() }).unwrap().vector
    };
    assert_eq!(of(&x, &w), of(&left, &kept));
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    let x = cohort(8, 7, 4, 0, 0.5);
    let of = |rule: Value, inputs: &Inputs<'_>| run(&aggregator(rule, json!([])), &x, inputs).unwrap_err();
    let (short, bad, long) = ([1.0f32; 3], [1.0, f32::NAN, 0.0, 0.0], [1u64; 8]);
    let error = of(json!("fltrust"), &Inputs::default());
    assert!(matches!(error, RuleError::Missing { rule: "fltrust", .. }));
    let error = of(json!("fltrust"), &Inputs { root: Some(&short), ..Inputs::default() });
    assert!(matches!(error, RuleError::WrongLength { expected: 4, found: 3, .. }));
    let error = of(json!("fltrust"), &Inputs { root: Some(&bad), ..Inputs::default() });
    assert!(matches!(error, RuleError::NonFinite { coordinate: 1, .. }));
    let clip = || json!({"centered-clipping": {"tau": 1.0}});
    assert!(matches!(of(clip(), &Inputs { start: Some(&short), ..Inputs::default() }), RuleError::WrongLength { .. }));
    assert!(matches!(
        of(json!("mean"), &Inputs { weights: Some(&long), ..Inputs::default() }),
        RuleError::WrongLength { .. }
    ));
    let zero = Inputs { weights: Some(&[0; 7]), ..Inputs::default() };
    assert_eq!(of(json!("mean"), &zero), RuleError::NoWeight { vectors: 7 });
    // Weights that differ: only where the formula has some, and nothing mixes the vectors before.
    let weights = Inputs { weights: Some(&[1, 1, 1, 1, 1, 1, 2]), ..Inputs::default() };
    assert_eq!(of(json!({"krum": {"f": 1}}), &weights), RuleError::Weights { rule: "krum" });
    let before = aggregator(json!("mean"), json!([{"clipping": {"bound": 1.0}}]));
    assert_eq!(run(&before, &x, &weights).unwrap_err(), RuleError::Weights { rule: "mean" });
    let equal = Inputs { weights: Some(&[3; 7]), ..Inputs::default() };
    let krum = aggregator(json!({"krum": {"f": 1}}), json!([]));
    assert_eq!(run(&krum, &x, &equal).unwrap(), run(&krum, &x, &Inputs::default()).unwrap());
    let behind = aggregator(json!("mean"), json!([{"bucketing": {"s": 2}}]));
    assert!(matches!(run(&behind, &x, &Inputs::default()).unwrap_err(), RuleError::Missing { rule: "bucketing", .. }));
}

#[test]
fn rows_of_another_shape_are_errors() {
    let mean = aggregator(json!("mean"), json!([]));
    let at = |buffer: Buffer, offset, stride, rows, dim| {
        mean.aggregate(&Scalar, &Rows { buffer, offset, stride, rows, dim }, &Inputs::default())
    };
    assert!(at(vec![1.0f32; 6].into(), 0, 3, 2, 3).is_ok());
    // Rows apart, and in the middle of a buffer.
    let spread: Vec<f32> = vec![f32::NAN, 1.0, 2.0, f32::NAN, 3.0, 4.0];
    assert_eq!(at(spread.clone().into(), 1, 3, 2, 2).unwrap().vector, [2.0, 3.0]);
    assert!(at(spread.clone().into(), 1, 3, 3, 2).is_err());
    assert!(at(spread.clone().into(), usize::MAX, 3, 2, 2).is_err());
    assert!(at(spread.clone().into(), 0, 1, 2, 2).is_err());
    assert!(at(spread.into(), 0, 3, 2, 0).is_err());
    assert!(at(vec![1u32; 6].into(), 0, 3, 2, 3).is_err());
}

/// Nobody points the server's way, or nobody moves: the model stays.
#[test]
fn without_trust_there_is_no_step() {
    let root = [1.0f32, 0.0];
    let inputs = Inputs { root: Some(&root), ..Inputs::default() };
    let fltrust = aggregator(json!("fltrust"), json!([]));
    for x in [vec![vec![-1.0, 5.0], vec![-3.0, 0.0]], vec![vec![0.0, 0.0]; 2]] {
        let found = run(&fltrust, &x, &inputs).unwrap();
        assert_eq!((found.vector, found.shares), (vec![0.0, 0.0], Some(vec![0.0, 0.0])));
    }
    let zero = Inputs { root: Some(&[0.0, 0.0]), ..Inputs::default() };
    assert_eq!(run(&fltrust, &[vec![1.0, 1.0]], &zero).unwrap().vector, [0.0, 0.0]);
}
