//! Compressed rounds: what reaches the model, under every protocol and mechanism; what clients keep, over crashes; refusals.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, overrides};
use veilsum::fl::checkpoint::Checkpoint;
use veilsum::fl::compress::Residuals;
use veilsum::sim::loss::DeviceLoss;
use veilsum::sim::{self, Observer, RoundRecord, RunOptions, RunResult, Silent};

use crate::federation::experiment_of;

const KEEP: &str = r#"compression={"random-k":{"keep":0.25}}"#;
const KEEP_FEEDBACK: &str = r#"compression={"random-k":{"keep":0.25,"error_feedback":true}}"#;
const SKETCH: &str = r#"compression={"sketch":{"rows":3,"columns":25}}"#;
const SKETCH_FEEDBACK: &str = r#"compression={"sketch":{"rows":3,"columns":25,"error_feedback":true}}"#;
const ALL: [&str; 4] = [KEEP, KEEP_FEEDBACK, SKETCH, SKETCH_FEEDBACK];

const SMM: &str = r#"privacy={"mechanism":"smm","clip":4.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client"}"#;
const QUANTIZED: &str = r#"privacy={"mechanism":"quantized","clip":4.0,"bits":16}"#;
const NONE: &str = r#"privacy={"mechanism":"none","clip":4.0}"#;

fn delta() -> Vec<f32> {
    (0..300).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect()
}

fn run(experiment: &Experiment) -> RunResult {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent).unwrap()
}

fn of(set: &[&str]) -> Experiment {
    experiment_of(&delta(), set)
}

fn length(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

/// How far the weights are from `rounds` times the delta, over its length.
fn off(weights: &[f32], rounds: f64) -> f64 {
    let delta = delta();
    let error = weights.iter().zip(&delta).map(|(&w, &x)| f64::from(w) - rounds * f64::from(x));
    length(error) / length(delta.iter().map(|&x| f64::from(x)))
}

#[test]
fn one_round_moves_what_was_sent_and_many_are_unbiased() {
    let weights = run(&of(&[NONE, KEEP])).weights;
    let sent: Vec<(f32, f32)> = weights.into_iter().zip(delta()).filter(|(w, _)| *w != 0.0).collect();
    // 75 of 300 coordinates, of which 3 are 0 in the delta; times d / k.
    assert!((72..=75).contains(&sent.len()), "{}", sent.len());
    assert!(sent.iter().all(|(w, x)| (w - 4.0 * x).abs() < 1e-6));
    for (compression, omega) in [(KEEP, 4.0f64), (SKETCH, 1.0 + 299.0 / 75.0)] {
        let found = off(&run(&of(&[NONE, compression, "rounds=400"])).weights, 400.0);
        // One draw a round: errors add up in squares.
        let expected = (400.0 * (omega - 1.0)).sqrt();
        assert!(found < 1.3 * expected && found > 0.7 * expected, "{compression}: {found} {expected}");
    }
}

#[test]
fn with_feedback_nothing_is_lost_for_long() {
    for (compression, omega) in [(KEEP_FEEDBACK, 4.0f64), (SKETCH_FEEDBACK, 1.0 + 299.0 / 75.0)] {
        let set = [NONE, compression, "rounds=400", "sampling=all", "partition.clients=3", "cohort=3"];
        let set = [&set[..], &["privacy.clip=1000", "algorithm.weights=uniform"]].concat();
        let found = off(&run(&of(&set)).weights, 400.0);
        // What the clients keep: a sum of a constant delta under (1 - 1/omega), at most about omega times its length, and no more
        // after 400 rounds than after 40.
        assert!(found < 1.5 * omega, "{compression}: {found}");
    }
}

#[test]
fn every_protocol_trains_the_same_model_from_compressed_vectors() {
    for (privacy, sampling, rate) in [(SMM, "all", 0.0), (QUANTIZED, "poisson", 0.2), (NONE, "fixed", 0.2)] {
        for compression in ALL {
            let with = |secagg: &str| {
                let (sampling, rate) = (format!("sampling={sampling}"), format!("dropout_rate={rate}"));
                let weights = if privacy == NONE { "samples" } else { "uniform" };
                let (weights, secagg) = (format!("algorithm.weights={weights}"), format!("secagg={secagg}"));
                let base = ["partition.clients=20", "cohort=16", "rounds=3", privacy, compression];
                run(&of(&[&base[..], &[&sampling, &rate, &weights, &secagg]].concat()))
            };
            let plain = with("plain");
            for secagg in [r#"{"masks":{"dropouts":0.3}}"#, r#"{"oneshot":{}}"#] {
                let hidden = with(secagg);
                assert_eq!(hidden.weights, plain.weights, "{privacy} {compression} {secagg}");
                assert!(hidden.bytes_up.unwrap() > plain.bytes_up.unwrap());
            }
            assert!(rate == 0.0 || plain.history.iter().any(|r| r.survivors < r.cohort), "somebody vanishes");
        }
    }
}

#[test]
fn fewer_bytes_are_sent_and_the_price_in_privacy_is_the_same() {
    for privacy in [SMM, NONE] {
        let base = [privacy, "algorithm.weights=uniform", "sampling=all", "rounds=2"];
        let whole = run(&of(&base));
        for compression in ALL {
            let set = [&base[..], &[compression]].concat();
            let short = run(&of(&set));
            // A frame and 75 of 300 values, of smm padded to 128 of 512.
            let ratio = short.bytes_up.unwrap() / whole.bytes_up.unwrap();
            assert!((0.25..0.32).contains(&ratio), "{privacy} {compression}: {ratio}");
            let epsilons = [&short, &whole].map(|run| run.epsilon.server.epsilon);
            assert!(epsilons[0] <= epsilons[1] && epsilons[0] > 0.9 * epsilons[1] || privacy == NONE, "{epsilons:?}");
        }
    }
}

#[test]
fn few_bits_without_privacy_are_unbiased() {
    let base = [QUANTIZED, "algorithm.weights=uniform", "sampling=all", "rounds=300"];
    for (bits, compression) in [(8, None), (5, None), (8, Some(KEEP))] {
        let bits_set = format!("privacy.bits={bits}");
        let set: Vec<&str> = base.iter().copied().chain([bits_set.as_str()]).chain(compression).collect();
        let experiment = of(&set);
        let result = run(&experiment);
        assert!(result.epsilon.public.epsilon.is_infinite());
        let shape = experiment.plan.shape().unwrap();
        assert_eq!((shape.bits, shape.len), (bits, if compression.is_some() { 128 } else { 512 }));
        let gamma = f64::from(experiment.plan.encode_params().unwrap().gamma);
        // 12 clients' roundings of at most 1/4 in each of 512 (128) coordinates, those of the map beside them.
        let rounding =
            (f64::from(shape.len) * 0.25 / 12.0).sqrt() / gamma / length(delta().iter().map(|&x| f64::from(x)));
        let map = if compression.is_some() { 3.0f64.sqrt() } else { 0.0 };
        let lifted = if compression.is_some() { 2.0 * rounding } else { rounding };
        let expected = (300.0f64).sqrt() * lifted.hypot(map);
        let found = off(&result.weights, 300.0);
        assert!(found < 1.3 * expected, "{bits} {compression:?}: {found} {expected}");
        // Twelve times the same delta, of a third of the clip bound: no wraps.
        assert!(found < 40.0, "{found}");
    }
}

#[test]
fn a_clip_bound_that_adapts_follows_the_compressed_vectors() {
    let privacy =
        r#"privacy={"mechanism":"smm","clip":0.2,"gamma":64,"mu":30,"bits":18,"adaptive_clip":{"learning_rate":1.0}}"#;
    for compression in [KEEP, SKETCH_FEEDBACK] {
        let set = [privacy, compression, "algorithm.weights=uniform", "sampling=all", "rounds=60"];
        let experiment = of(&set);
        assert_eq!(experiment.plan.row_dim(), 76);
        let result = run(&experiment);
        let norm = length(delta().iter().map(|&x| f64::from(x)));
        let last = result.history.last().unwrap().clip.unwrap();
        assert!(last > 0.5 * norm && last < 4.0 * norm, "{compression}: {last} {norm}");
    }
}

/// Stops a run after some round, and keeps a copy of the checkpoint that is there when another is reported.
struct Stop<'a> {
    after: u32,
    interrupt: &'a AtomicBool,
}

impl Observer for Stop<'_> {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, record: &RoundRecord) {
        self.interrupt.store(record.round == self.after, Ordering::Relaxed);
    }
    fn lost(&mut self, _loss: &DeviceLoss) {}
}

fn part(experiment: &Experiment, folder: &Path, resume: bool, after: u32) -> RunResult {
    let interrupt = AtomicBool::new(false);
    let options = RunOptions { folder: Some(folder), resume, interrupt: &interrupt };
    sim::run(experiment, &options, &mut Stop { after, interrupt: &interrupt }).unwrap()
}

fn journal(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_resumed_run_goes_on_with_what_clients_kept_and_other_residuals_are_another_input() {
    let dir = tempfile::tempdir().unwrap();
    let lossy = r#"privacy.dropout={"tolerated":0.5}"#;
    for (name, compression) in [("keep", KEEP_FEEDBACK), ("sketch", SKETCH_FEEDBACK)] {
        let set = [SMM, compression, "algorithm.weights=uniform", "sampling=poisson", "rounds=9", "checkpoint.every=2"];
        let experiment = of(&[&set[..], &[lossy, "dropout_rate=0.1"]].concat());
        let [whole, stopped] = ["whole", "stopped"].map(|part| dir.path().join(format!("{name}-{part}")));
        let expected = part(&experiment, &whole, false, 0).weights;
        part(&experiment, &stopped, false, 5);
        let old = std::fs::read(stopped.join("checkpoint.safetensors")).unwrap();
        assert_eq!(part(&experiment, &stopped, true, 0).weights, expected, "{name}");
        // As after a crash that lost the last checkpoints: the same rounds again, nothing charged twice.
        std::fs::write(stopped.join("checkpoint.safetensors"), &old).unwrap();
        assert_eq!(part(&experiment, &stopped, true, 0).weights, expected, "{name}");
        assert!(journal(&stopped).iter().all(|line| line["attempt"] == 0), "{name}");
        assert_eq!(journal(&stopped).iter().filter(|line| line["kind"] == "charge").count(), 9);
        // The same model, but clients that kept something else: not the input that those keys were used for.
        let mut other = Checkpoint::from_bytes(&old).unwrap();
        assert_eq!(other.round, 5);
        other.residuals = Residuals::default().seal(&experiment.secret, &experiment.plan.session, other.round);
        std::fs::write(stopped.join("checkpoint.safetensors"), other.to_bytes().unwrap()).unwrap();
        assert_ne!(part(&experiment, &stopped, true, 0).weights, expected, "{name}");
        let again: Vec<u64> =
            journal(&stopped).iter().filter(|l| l["attempt"] == 1).map(|l| l["round"].as_u64().unwrap()).collect();
        assert!(again.contains(&6) && again.iter().all(|&round| round > 5), "{again:?}");
        // Without, or of another round: not this run's.
        for residuals in [Vec::new(), Residuals::default().seal(&experiment.secret, &experiment.plan.session, 4)] {
            other.residuals = residuals;
            std::fs::write(stopped.join("checkpoint.safetensors"), other.to_bytes().unwrap()).unwrap();
            let options = RunOptions { folder: Some(&stopped), resume: true, interrupt: &AtomicBool::new(false) };
            let error = sim::run(&experiment, &options, &mut Silent).unwrap_err().to_string();
            assert!(error.contains("residuals"), "{error}");
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    for compression in ALL {
        let experiment = of(&[SMM, compression, "algorithm.weights=uniform", "sampling=all", "rounds=3"]);
        let [one, three] = [1, 3].map(|threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| run(&experiment).weights)
        });
        assert_eq!(one, three);
    }
}

fn refusal(set: &[&str]) -> String {
    let base = r#"{
        "name": "compression", "seed": 3, "data": {"name": "digits"}, "partition": {"scheme": "iid", "clients": 40},
        "model": "digits_mlp", "algorithm": {"name": "fed_avg", "learning_rate": 0.1}, "server": {"optimizer": "sgd", "learning_rate": 1.0},
        "cohort": 40, "sampling": "all", "rounds": 1, "privacy": {"mechanism": "none", "clip": 1.0}
    }"#;
    let mut value = overrides::parse(base, "test").unwrap();
    set.iter().for_each(|item| overrides::set(&mut value, item).unwrap());
    let config: Config = match overrides::typed(&value, "test") {
        Ok(config) => config,
        Err(e) => return e.to_string(),
    };
    build(&config, Path::new("."), Given::default()).map_or_else(|e| e.to_string(), |_| "accepted".to_owned())
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let feedback = r#"compression={"random-k":{"keep":0.1,"error_feedback":true}}"#;
    let matrix = r#"privacy={"mechanism":"matrix","clip":1.0,"noise_multiplier":1.0}"#;
    let narrow = r#"privacy={"mechanism":"quantized","clip":1.0,"bits":8}"#;
    for good in [&[feedback][..], &[feedback, narrow], &[r#"compression={"sketch":{"ratio":0.01}}"#], &[narrow]] {
        assert_eq!(refusal(good), "accepted");
    }
    for (set, says) in [
        (&[r#"compression={"random-k":{"keep":0}}"#][..], "compression.random-k.keep is 0, expected in (0, 1]"),
        (&[r#"compression={"random-k":{"keep":1.01}}"#], "in (0, 1]"),
        (&[r#"compression={"sketch":{"rows":0,"ratio":0.1}}"#], "rows is 0"),
        (&[r#"compression={"sketch":{"columns":0}}"#], "columns is 0"),
        (&[r#"compression={"sketch":{"columns":1000000}}"#], "columns is 1000000"),
        (&[r#"compression={"sketch":{}}"#], "`columns` or `ratio`"),
        (&[r#"compression={"sketch":{"ratio":0.1,"seed":4}}"#], "seed"),
        (&[r#"compression={"top-k":{"keep":0.1}}"#], "top-k"),
        (&[feedback, r#"partition={"scheme":"per-sample"}"#, "cohort=40"], "per-sample"),
        (&[feedback, matrix], "correlated noise"),
        (&[narrow, "algorithm.weights=samples"], "narrow ring"),
        (&[narrow, "privacy.mu=3"], "privacy.mu"),
        (&[narrow, "privacy.bits=1"], "privacy.bits is 1"),
        // Scaled as if nobody agreed: the sum of clients that do would wrap.
        (&[narrow, "privacy.gamma=1000"], "bits would do"),
    ] {
        let found = refusal(set);
        assert!(found.contains(says), "{set:?}: {found}");
    }
}
