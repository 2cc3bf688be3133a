//! The coordinator and the simulation through the library: exact weights, order of events, per-client and
//! aggregate noise, memory of a checkpoint.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use veilsum::backend::{Backend, Rows};
use veilsum::config::build::{Experiment, Given, build};
use veilsum::config::{Config, ConfigError, overrides};
use veilsum::data::Batch;
use veilsum::fl::FlError;
use veilsum::fl::coordinator::{Action, Coordinator};
use veilsum::fl::plan::Plan;
use veilsum::fl::protocol::Directory;
use veilsum::fl::spend::Spend;
use veilsum::math::prg::StreamKey;
use veilsum::model::{LocalConfig, LocalTrainer, ModelError};
use veilsum::secagg::PartyId;
use veilsum::sim::{self, RunOptions, Silent};

use crate::kernels;

/// Ten classes over the digits; every delta is the same, whatever the data are.
struct Constant(Vec<f32>);

const DELTAS: [f32; 4] = [0.25, -1.0 / 3.0, 1e-4, -0.000_123_4];

impl LocalTrainer for Constant {
    fn parameter_count(&self) -> usize {
        self.0.len()
    }
    fn init(&self, _key: &StreamKey) -> Vec<f32> {
        vec![0.0; self.0.len()]
    }
    fn gradient_rows(&self, _weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        Ok(Rows::dense(self.0.repeat(batch.len()), batch.len(), self.0.len())?)
    }
    fn local_delta(
        &self,
        _weights: &[f32],
        _shard: &Batch,
        _config: &LocalConfig,
        _key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        Ok(self.0.clone())
    }
    fn logits(&self, _weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        Ok(vec![0.0; batch.len() * 10])
    }
}

fn experiment(set: &[&str]) -> Experiment {
    experiment_of(&DELTAS, set)
}

pub(crate) fn experiment_of(delta: &[f32], set: &[&str]) -> Experiment {
    try_experiment_of(delta, set).unwrap()
}

/// Why such a run is refused.
pub(crate) fn refusal_of(set: &[&str]) -> String {
    try_experiment_of(&DELTAS, set).err().map_or_else(|| "it is not".into(), |e| e.to_string())
}

pub(crate) fn try_experiment_of(delta: &[f32], set: &[&str]) -> Result<Experiment, ConfigError> {
    try_experiment_with(Arc::new(Constant(delta.to_vec())), set)
}

/// `sum p_i delta / a_i` times `sum p_i a_i`, with the steps that the clients' shards make.
#[test]
fn deltas_of_many_steps_are_normalized() {
    for weights in ["samples", "uniform"] {
        let weights = format!("algorithm.weights={weights}");
        let base = ["algorithm.normalized=true", "algorithm.epochs=2", "sampling=all", "cohort=12", &weights];
        let built = experiment(&base);
        let sizes: Vec<f64> = built.partition.clients.iter().map(|c| c.len() as f64).collect();
        let steps: Vec<f64> = sizes.iter().map(|n| 2.0 * (n / 10.0).ceil()).collect();
        let p = |i: usize| if weights.ends_with("samples") { sizes[i] / sizes.iter().sum::<f64>() } else { 1.0 / 12.0 };
        let mean = |of: &dyn Fn(f64) -> f64| (0..12).map(|i| p(i) * of(steps[i])).sum::<f64>();
        let factor = mean(&|a| if a > 0.0 { 1.0 / a } else { 0.0 }) * mean(&|a| a);
        assert!(factor > 1.1, "the shards differ: {factor}");
        for (weight, delta) in run(&built).weights.iter().zip(DELTAS) {
            let expected = factor * f64::from(delta);
            assert!((f64::from(*weight) - expected).abs() < 2e-6 * (1.0 + expected.abs()), "{weight} {expected}");
        }
        // Where all take as many steps it is the mean itself.
        let alike = run(&experiment(
            &[&base[..], &[r#"partition={"scheme":"iid","clients":12}"#, "algorithm.batch_size=1000"]].concat(),
        ));
        assert!((alike.weights[0] - DELTAS[0]).abs() < 1e-6, "{:?}", alike.weights);
    }
    let private = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":64,"mu":50,"bits":24}"#;
    for (set, says) in [
        (&[private, "sampling=all", "algorithm.weights=uniform"][..], "algorithm.normalized"),
        (&["algorithm.momentum=0.9", "algorithm.proximal=0.1"], "momentum"),
        (&["algorithm.proximal=10"], "algorithm.proximal"),
    ] {
        let error = refusal_of(&[&["algorithm.normalized=true"][..], set].concat());
        assert!(error.contains(says), "{set:?}: {error}");
    }
}

/// A total weight that a sum of 63 bits could not hold is refused, never wrapped.
#[test]
fn weights_that_would_overflow_are_refused() {
    let base = experiment(&["algorithm.weights=samples", "sampling=all", "cohort=12"]);
    for (weight, held) in [(1u64 << 27, true), (1 << 28, false), (u64::MAX, false)] {
        let plan = Plan { weights: Some(Arc::new(vec![weight; 12])), ..base.plan.clone() };
        match plan.validate() {
            Ok(()) => assert!(held, "{weight}"),
            Err(error) => assert!(!held && error.to_string().contains("algorithm.weights"), "{weight}: {error}"),
        }
    }
}

/// Clients diverge whose samples begin with a 0 or a 1.
struct Diverging(Constant);

impl LocalTrainer for Diverging {
    fn parameter_count(&self) -> usize {
        self.0.parameter_count()
    }
    fn init(&self, key: &StreamKey) -> Vec<f32> {
        self.0.init(key)
    }
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        self.0.gradient_rows(weights, batch)
    }
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        let mut delta = self.0.local_delta(weights, shard, config, key)?;
        if shard.labels[0] < 2 {
            delta[1] = f32::NAN;
        }
        Ok(delta)
    }
    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.0.logits(weights, batch)
    }
}

/// Without privacy they are left out, not averaged as zeros; a private sum does not tell who they were.
#[test]
fn clients_that_diverge_are_left_out() {
    let base = ["partition={\"scheme\":\"iid\",\"clients\":30}", "sampling=all", "cohort=30"];
    for (privacy, weights) in [("none", "samples"), ("quantized", "uniform")] {
        let privacy = format!(r#"privacy={{"mechanism":"{privacy}","clip":1.0,"bits":20}}"#);
        let weights = format!("algorithm.weights={weights}");
        for secagg in ["plain", r#"{"masks":{"dropouts":0.45,"corrupt":0}}"#, r#"{"oneshot":{}}"#, r#"{"mphe":{}}"#] {
            let secagg = format!("secagg={secagg}");
            let trainer = Arc::new(Diverging(Constant(DELTAS.to_vec())));
            let set = [&base[..], &[&privacy, &weights, &secagg]].concat();
            let result = run(&try_experiment_with(trainer, &set).unwrap());
            let survivors = result.history[0].survivors;
            assert!((17..30).contains(&survivors) && result.clients.zeroed == 30 - survivors, "{survivors} {secagg}");
            for (weight, delta) in result.weights.iter().zip(DELTAS) {
                assert!((weight - delta).abs() < 1e-4, "{privacy} {secagg}: {weight} {delta}");
            }
        }
    }
    let privacy = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":64,"mu":0.01,"bits":24}"#;
    let trainer = Arc::new(Diverging(Constant(DELTAS.to_vec())));
    let set = [&base[..], &[privacy, "algorithm.weights=uniform"]].concat();
    let result = run(&try_experiment_with(trainer, &set).unwrap());
    let share = 1.0 - result.clients.zeroed as f32 / 30.0;
    assert_eq!(result.history[0].survivors, 30);
    assert!((result.weights[0] - share * DELTAS[0]).abs() < 0.01, "{:?} {share}", result.weights);
}

fn try_experiment_with(trainer: Arc<dyn LocalTrainer>, set: &[&str]) -> Result<Experiment, ConfigError> {
    let base = r#"{
        "name": "federation", "seed": 3,
        "data": {"name": "digits"}, "partition": {"scheme": "dirichlet", "clients": 12, "alpha": 0.5},
        "algorithm": {"name": "fed_avg", "learning_rate": 0.1, "weights": "samples"},
        "server": {"optimizer": "sgd", "learning_rate": 1.0},
        "cohort": 8, "sampling": "fixed", "rounds": 1,
        "privacy": {"mechanism": "none", "clip": 1.0}
    }"#;
    let mut value = overrides::parse(base, "test").unwrap();
    for item in set {
        overrides::set(&mut value, item).unwrap();
    }
    let config: Config = overrides::typed(&value, "test")?;
    let given = Given { trainer: Some(trainer), ..Given::default() };
    build(&config, Path::new("."), given)
}

fn run(experiment: &Experiment) -> sim::RunResult {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut Silent).unwrap()
}

#[test]
fn identical_deltas_give_that_delta_whatever_the_weights_are() {
    let result = run(&experiment(&[]));
    for (weight, delta) in result.weights.iter().zip(DELTAS) {
        // Truncation toward zero at 2^-26.
        assert!((weight - delta).abs() <= 1.6e-8 + 1e-7 * delta.abs(), "{weight} {delta}");
    }
}

#[test]
fn the_noise_has_the_accounted_variance_wherever_it_is_drawn() {
    // A sum's variance of 800 or 1200 steps, as each mechanism counts it.
    let skellam = r#""gamma":64,"mu":50"#;
    for (mechanism, parameters, noise, sampling) in [
        ("smm", skellam, "aggregate", "poisson"),
        ("smm", skellam, "per_client", "poisson"),
        ("skellam", skellam, "aggregate", "poisson"),
        ("skellam", skellam, "per_client", "all"),
        ("distributed-discrete-gaussian", r#""gamma":64,"sigma_total":28.284271247461902"#, "per_client", "poisson"),
        ("distributed-discrete-gaussian", r#""gamma":64,"sigma_total":34.64101615137755"#, "per_client", "all"),
        ("binomial", r#""gamma":64,"coins":2400"#, "per_client", "all"),
        ("binomial", r#""gamma":64,"coins":2400"#, "aggregate", "all"),
        // A quarter of the coins over the square of what they bring: 1 / (4 m gamma^2) = 100 / 64^2.
        ("poisson-binomial", r#""gamma":0.05,"coins":4096"#, "per_client", "all"),
    ] {
        let privacy = format!(r#"privacy={{"mechanism":"{mechanism}","clip":1.0,"bits":24,{parameters}}}"#);
        let (place, drawn) = (format!("privacy.noise={noise}"), format!("sampling={sampling}"));
        let set = [privacy.as_str(), place.as_str(), drawn.as_str(), "algorithm.weights=uniform", "rounds=400"];
        let experiment = experiment(&set);
        let result = run(&experiment);
        // Sum of 400 rounds of independent noise: mean of the row 400 q N delta / n = 400 delta.
        let n = experiment.plan.cohort;
        let variance = 100.0 * n / (64.0f64 * 64.0) / (n * n);
        let rounding = 0.25 / (64.0f64 * 64.0) / n;
        let sizes: f64 = result.history.iter().map(|r| r.cohort as f64).sum::<f64>() / n;
        let mut square = 0.0;
        for (weight, delta) in result.weights.iter().zip(DELTAS) {
            let error = f64::from(*weight) - sizes * f64::from(delta);
            square += error * error / (400.0 * variance);
            assert!(error.abs() < 5.0 * (400.0 * (variance + rounding)).sqrt(), "{privacy}: {weight} {delta}");
        }
        // Chi-square with four degrees of freedom: between its 0.05 % and 99.95 % points.
        assert!((0.06..20.0).contains(&square), "{privacy} {noise}: {square}");
    }
}

#[test]
fn a_run_on_a_device_is_the_run_on_the_cpu() {
    let delta: Vec<f32> = (0..1000).map(|i| ((i * 37 % 101) as f32 - 50.0) / 1000.0).collect();
    for privacy in [
        r#"{"mechanism":"smm","clip":1.0,"gamma":64,"mu":50,"bits":20,"noise":"aggregate"}"#,
        r#"{"mechanism":"smm","clip":1.0,"gamma":64,"mu":50,"bits":20,"noise":"per_client"}"#,
        r#"{"mechanism":"none","clip":1.0}"#,
    ] {
        let set = [&format!("privacy={privacy}"), "sampling=poisson", "algorithm.weights=uniform", "rounds=2"];
        let mut experiment = experiment_of(&delta, &set);
        let expected = run(&experiment);
        for device in kernels::devices() {
            let name = device.describe();
            experiment.backend = Arc::new(device);
            let found = run(&experiment);
            assert_eq!(found.history.len(), expected.history.len(), "{name}");
            // The same cohorts and the same noise. A fixed-point coordinate may differ in its last bit, and 2^-16 of
            // those round to another integer, of 1 / (64 * 8).
            let cohorts = |run: &sim::RunResult| run.history.iter().map(|r| r.cohort).collect::<Vec<_>>();
            assert_eq!(cohorts(&found), cohorts(&expected), "{name}");
            let square: f32 = found.weights.iter().zip(&expected.weights).map(|(a, b)| (a - b).powi(2)).sum();
            let step = 1.0 / (64.0 * 8.0);
            assert!(square.sqrt() <= 2.0 * step, "{name}, {privacy}: {}", square.sqrt());
        }
    }
}

#[test]
fn the_coordinator_refuses_events_out_of_order_and_foreign_frames() {
    let experiment = experiment(&["sampling=all", "cohort=12"]);
    let spend = Spend::new(&experiment.plan, std::collections::BTreeMap::new()).unwrap();
    let mut coordinator = Coordinator::new(
        experiment.plan.clone(),
        experiment.secret.clone(),
        experiment.backend.clone(),
        vec![0.0; DELTAS.len()],
        spend,
    )
    .unwrap();
    assert!(matches!(coordinator.charged(), Err(FlError::OutOfOrder { .. })));
    let evaluation = veilsum::model::Evaluation { loss: 1.0, accuracy: 0.1, samples: 1 };
    assert!(matches!(coordinator.evaluated(evaluation), Err(FlError::OutOfOrder { .. })));
    assert!(matches!(coordinator.handle(PartyId::Client(0), &[0; 80]), Err(FlError::OutOfOrder { .. })));
    let Some(Action::Begin(tasks)) = coordinator.poll_action().unwrap() else { panic!("a round begins") };
    let task = &tasks[0];
    assert_eq!(task.cohort, (0..12).collect::<Vec<u64>>());
    assert!(coordinator.poll_action().unwrap().is_none(), "the coordinator waits for frames");
    for frame in [&[][..], &[0; 10], &[0; 80], &[0xff; 2000]] {
        assert!(matches!(coordinator.handle(PartyId::Client(0), frame), Err(FlError::SecAgg(_))));
    }
    // The refused frames changed nothing: the round still takes all of its clients and ends.
    let interrupt = AtomicBool::new(false);
    let mut holders = sim::mphe::Holders::default();
    sim::work::play_round(&experiment, &tasks, &mut coordinator, &mut holders, &interrupt).unwrap();
    assert!(matches!(coordinator.poll_action().unwrap(), Some(Action::Charge(_))));
    assert_eq!(*coordinator.weights(), vec![0.0; DELTAS.len()], "nothing is revealed before the charge");
    coordinator.charged().unwrap();
    assert!((coordinator.weights()[0] - DELTAS[0]).abs() < 1e-6);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (mine, other) = (experiment(&[]), experiment(&["seed=4"]));
    let new = |e: &Experiment| {
        let spend = Spend::new(&e.plan, std::collections::BTreeMap::new()).unwrap();
        Coordinator::new(e.plan.clone(), e.secret.clone(), e.backend.clone(), vec![0.0; 4], spend).unwrap()
    };
    let checkpoint = new(&other).checkpoint();
    let error = new(&mine).restore(checkpoint).unwrap_err();
    assert!(matches!(error, FlError::Checkpoint { what: "plan", .. }), "{error}");
    assert!(new(&mine).restore(new(&mine).checkpoint()).is_ok());
}

/// Who is too slow gets more time; a new round begins with what the config says.
#[test]
fn attempts_after_one_that_was_given_up_wait_longer() {
    let built = experiment(&["sampling=all", "cohort=12"]);
    let spend = Spend::new(&built.plan, std::collections::BTreeMap::new()).unwrap();
    let mut coordinator =
        Coordinator::new(built.plan.clone(), built.secret.clone(), built.backend.clone(), vec![0.0; 4], spend).unwrap();
    coordinator.pin(Directory::Simulated, 1000);
    let begun = |coordinator: &mut Coordinator| {
        let Some(Action::Begin(tasks)) = coordinator.poll_action().unwrap() else { panic!("an attempt begins") };
        assert_eq!(coordinator.notice(&tasks[0]).patience, tasks[0].patience);
        (tasks[0].id.round, tasks[0].id.attempt, tasks[0].patience)
    };
    for (attempt, patience) in [(0, 1000), (1, 2000), (2, 4000), (3, 4000)] {
        assert_eq!(begun(&mut coordinator), (1, attempt, patience));
        assert_eq!(coordinator.patience(attempt), patience);
        if attempt == 2 {
            // Taken up again after a stop, it is the same attempt.
            assert!(coordinator.rewind());
            assert_eq!(begun(&mut coordinator), (1, attempt, patience));
        }
        let given_up = coordinator.give_up().unwrap();
        assert_eq!((given_up.round, given_up.attempt), (1, attempt));
    }
    assert_eq!(coordinator.patience(u32::MAX), 4000);
}

/// `f_i(w) = h_i / 2 (w - a_i)^2`, whose gradient knows its minimum: h and a come from how many samples a client has.
struct Quadratic;

fn curvature(shard: &Batch) -> (f64, f64) {
    let n = shard.len() as f64;
    (0.2 + n / 200.0, (n / 40.0).sin())
}

impl LocalTrainer for Quadratic {
    fn parameter_count(&self) -> usize {
        1
    }
    fn init(&self, _key: &StreamKey) -> Vec<f32> {
        vec![0.5]
    }
    fn gradient_rows(&self, _weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        Ok(Rows::dense(vec![0.0; batch.len()], batch.len(), 1)?)
    }
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.corrected_delta(weights, shard, config, &[0.0], key)
    }
    fn corrected_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        correction: &[f32],
        _key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        let (h, a) = curvature(shard);
        let mut y = f64::from(weights[0]);
        for _ in 0..config.epochs {
            y -= f64::from(config.learning_rate) * (h * (y - a) + f64::from(correction[0]));
        }
        Ok(vec![(y - f64::from(weights[0])) as f32])
    }
    fn logits(&self, _weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        Ok(vec![0.0; batch.len() * 10])
    }
}

/// Algorithm 1 with option II in double precision, with the cohorts of the run; and where it leads: to the minimum of the sum, which
/// FedAvg misses.
#[test]
fn scaffold_is_its_algorithm_and_finds_what_fedavg_misses() {
    let of = |algorithm: &str, set: &[&str]| {
        let algorithm = format!("algorithm={algorithm}");
        try_experiment_with(Arc::new(Quadratic), &[&[algorithm.as_str(), "rounds=40", "privacy.clip=16"], set].concat())
            .unwrap()
    };
    let scaffold = r#"{"name":"scaffold","learning_rate":0.1,"epochs":8,"batch_size":1000}"#;
    let half = r#"partition={"scheme":"dirichlet","clients":12,"alpha":0.5}"#;
    for (cohort, secagg) in [("cohort=12", "plain"), ("cohort=7", "plain"), ("cohort=7", r#"{"oneshot":{}}"#)] {
        let sampling = if cohort == "cohort=12" { "sampling=all" } else { "sampling=fixed" };
        let built = of(scaffold, &[half, cohort, sampling, &format!("secagg={secagg}")]);
        let train = &built.split.train;
        let losses: Vec<(f64, f64)> =
            built.partition.clients.iter().map(|client| curvature(&train.gather(client))).collect();
        let result = run(&built);
        let (mut x, mut c, mut own) = (0.5f64, 0.0f64, [0.0f64; 12]);
        for record in &result.history {
            let cohort = cohort_of(&built, record.round);
            assert_eq!(cohort.len(), record.survivors);
            let (mut moved, mut changed) = (0.0, 0.0);
            for &i in &cohort {
                let ((h, a), mut y) = (losses[i], x);
                (0..8).for_each(|_| y -= 0.1 * (h * (y - a) + c - own[i]));
                let next = own[i] - c + (x - y) / (8.0 * 0.1);
                moved += y - x;
                changed += next - own[i];
                own[i] = next;
            }
            x += moved / cohort.len() as f64;
            c += changed / 12.0;
        }
        assert!((f64::from(result.weights[0]) - x).abs() < 1e-4, "{cohort} {secagg}: {:?} {x}", result.weights);
        if cohort == "cohort=12" {
            let minimum = losses.iter().map(|(h, a)| h * a).sum::<f64>() / losses.iter().map(|(h, _)| h).sum::<f64>();
            let fedavg = run(&of(
                r#"{"name":"fed_avg","learning_rate":0.1,"epochs":8,"batch_size":1000}"#,
                &[half, cohort, sampling],
            ));
            let (near, far) =
                ((f64::from(result.weights[0]) - minimum).abs(), (f64::from(fedavg.weights[0]) - minimum).abs());
            assert!(near < 1e-3 && far > 10.0 * near, "{near} {far}");
        }
    }
    let base = [&format!("algorithm={scaffold}")[..], "partition={\"scheme\":\"iid\",\"clients\":12}"];
    for (set, says) in [
        (
            &[r#"privacy={"mechanism":"smm","clip":1.0,"gamma":64,"mu":50,"bits":24}"#, "sampling=all"][..],
            "privacy.mechanism",
        ),
        (&[r#"compression={"random-k":{"keep":0.5}}"#], "compression"),
        (&[r#"aggregation={"rule":"median"}"#], "aggregation"),
        (&["asynchrony={}", "sampling=all", "cohort=12"], "asynchrony"),
        (&[r#"adversary={"clients":1,"attack":{"sign-flip":{}}}"#], "adversary"),
        (&["algorithm.learning_rate=0"], "algorithm.learning_rate"),
    ] {
        let error = refusal_of(&[&base[..], set].concat());
        assert!(error.contains(says), "{set:?}: {error}");
    }
}

/// Who takes part in a round of a run without dropouts, as the coordinator says it.
fn cohort_of(experiment: &Experiment, round: u32) -> Vec<usize> {
    use veilsum::fl::SERVER;
    use veilsum::fl::cohort::draw;
    use veilsum::math::prg::{Address, Purpose};
    let plan = &experiment.plan;
    let address = Address { client: SERVER, round, ..Address::default() };
    let key = experiment.secret.derive(&plan.session, address, Purpose::Cohort, plan.cipher);
    draw(plan.sampling, plan.clients, plan.cohort, round, &key).into_iter().map(|client| client as usize).collect()
}
