//! Aggregates of ByzFL (`scripts/byzfl_vectors.py`), to 1e-5.

use veilsum::backend::scalar::Scalar;
use veilsum::fl::attack::{AttackConfig, View};
use veilsum::fl::rule::before::bucketing::buckets;

use super::*;

fn recorded() -> Value {
    let file: Value = serde_json::from_str(include_str!("../../vectors/byzfl.json")).unwrap();
    assert_eq!(file["version"], 1);
    file
}

fn floats(row: &Value) -> Vec<f64> {
    row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn narrow(row: &Value) -> Vec<f32> {
    floats(row).into_iter().map(|v| v as f32).collect()
}

/// The cohort that an entry names.
fn cohort_of(file: &Value, entry: &Value) -> Vec<Vec<f32>> {
    let at = entry["rows"].as_u64().unwrap() as usize;
    file["cohorts"][at].as_array().unwrap().iter().map(narrow).collect()
}

#[test]
fn rules_are_those_of_byzfl() {
    let file = recorded();
    let entries = file["rules"].as_array().unwrap();
    assert_eq!(entries.len(), 119);
    for entry in entries {
        let config: AggregationConfig = serde_json::from_value(entry["config"].clone()).unwrap();
        let start = entry.get("start").map(narrow);
        let inputs = Inputs { start: start.as_deref(), ..Inputs::default() };
        let x = cohort_of(&file, entry);
        let found = run(&config.build().unwrap(), &x, &inputs).unwrap();
        assert_close(&found.vector, &floats(&entry["expected"]), 1e-5, &format!("{} of {}", entry["config"], x.len()));
    }
}

#[test]
fn buckets_are_those_of_byzfl() {
    let file = recorded();
    let entries = file["buckets"].as_array().unwrap();
    assert_eq!(entries.len(), 8);
    for entry in entries {
        let x = super::naive::widened(&cohort_of(&file, entry));
        let order: Vec<usize> = floats(&entry["order"]).into_iter().map(|v| v as usize).collect();
        let mixing = buckets(&order, entry["s"].as_u64().unwrap() as usize);
        let expected = entry["expected"].as_array().unwrap();
        assert_eq!(mixing.outputs(), expected.len());
        for (a, expected) in expected.iter().enumerate() {
            let found: Vec<f32> = super::naive::combination(&x, mixing.row(a)).iter().map(|&v| v as f32).collect();
            assert_close(&found, &floats(expected), 1e-6, "bucket");
        }
    }
}

#[test]
fn attacks_are_those_of_byzfl() {
    let file = recorded();
    let entries = file["attacks"].as_array().unwrap();
    assert_eq!(entries.len(), 16);
    for entry in entries {
        let config: AttackConfig = serde_json::from_value(entry["config"].clone()).unwrap();
        let x = cohort_of(&file, entry);
        let honest = rows(&x);
        let view = View { honest: Some(&honest), count: 2, dim: honest.dim, round: 1, ..View::default() };
        let forged = config.build().unwrap().forge(&Scalar, &view, &stream(1)).unwrap();
        assert_eq!(forged.rows, 2);
        for i in 0..2 {
            assert_close(forged.row(i).unwrap(), &floats(&entry["expected"]), 1e-6, &entry["config"].to_string());
        }
    }
}
