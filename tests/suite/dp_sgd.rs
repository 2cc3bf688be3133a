//! DP-SGD on the clients in whole runs, on the embedded digits: its account, beside that of the clients' vectors, its journal.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use veilsum::backend::Backend;
use veilsum::backend::simd::Simd;
use veilsum::data::Batch;
use veilsum::fl::dp_sgd::{ClientRandomness, Clipping, Divisor, DpSgd, DpSgdParams, Machine};
use veilsum::fl::samples::SampleLevel;
use veilsum::math::prg::{Address, Cipher, Secret, StreamKey};
use veilsum::model::{ModelConfig, trainer_for};
use veilsum::privacy::accountant::Rule;

use crate::accounting::golden;
use crate::kernels;

const DIGITS: &[&str] = &[
    "data.name=digits",
    "model=digits_mlp",
    r#"partition={"scheme":"iid","clients":10}"#,
    r#"algorithm={"name":"dp_sgd","steps":4,"sampling_rate":0.25,"batch_size":36,"learning_rate":0.5,"clip":1.0,"target_epsilon":6.0}"#,
    r#"server={"optimizer":"sgd","learning_rate":1.0}"#,
    r#"privacy={"mechanism":"none","clip":10.0}"#,
    "sampling=all",
    "cohort=10",
    "rounds=12",
    "evaluation.every=4",
    "checkpoint.every=3",
    "seed=5",
];

fn veilsum(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilsum"));
    command.args(args).stdin(Stdio::null());
    command
}

fn arguments<'a>(out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "--json", "--out", out.to_str().unwrap()];
    DIGITS.iter().chain(more).for_each(|set| args.extend(["--set", *set]));
    args
}

fn train(out: &Path, more: &[&str]) -> Output {
    veilsum(&arguments(out, more)).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The result of a run that succeeds.
fn result(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The metrics without their time fields.
fn metrics(run: &Path) -> Vec<Value> {
    let mut lines = lines(&run.join("metrics.jsonl"));
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
    lines
}

fn model_bytes(run: &Path) -> Vec<u8> {
    std::fs::read(run.join("model.safetensors")).unwrap()
}

#[test]
fn a_run_learns_within_the_budget_of_a_sample() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let result = result(&train(&run, &[]));
    assert!(result["accuracy"].as_f64().unwrap() > 0.6, "{result}");
    assert!(result["epsilon"].is_null(), "the vectors have no noise: {result}");
    let level = &result["sample_level"];
    let epsilon = level["epsilon"].as_f64().unwrap();
    assert!(epsilon <= 6.0 && epsilon > 5.99, "{level}");
    assert_eq!((&level["delta"], &level["steps"], &level["certified"]), (&1e-5.into(), &48.into(), &true.into()));
    assert!(level["view"].as_str().unwrap().contains("the server") && level["neighboring"].as_str().is_some());
    assert!(level["gradients"]["rows"].as_u64().unwrap() > 10 * 48 * 25);
    // Epsilon grows round by round, each with its delta.
    let told: Vec<f64> = metrics(&run).iter().map(|r| r["sample_epsilon"].as_f64().unwrap()).collect();
    assert!(told.len() == 12 && told.windows(2).all(|w| w[0] < w[1]) && told[11] == epsilon, "{told:?}");
    assert!(metrics(&run).iter().all(|r| r["sample_delta"] == 1e-5 && r["epsilon"].is_null()));
    // What was calibrated is in the config, the account in the journal, all of it on the page.
    let config: Value = serde_json::from_slice(&std::fs::read(run.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["algorithm"]["noise_multiplier"], level["noise_multiplier"]);
    let begun = lines(&run.join("journal.jsonl")).iter().filter(|line| line["kind"] == "begin").count();
    assert_eq!(begun, 12);
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    for text in ["epsilon (of a sample)", "add or remove one sample", "Privacy of a sample spent", "1e-5"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!run.join("ledger.jsonl").exists());
    let seen = lines(&run.join("client_diagnostics.jsonl"));
    assert!(seen.iter().all(|line| line["gradients"]["clipped"].as_f64().unwrap() > 0.0));
}

#[test]
fn two_levels_are_accounted_apart() {
    let dir = tempfile::tempdir().unwrap();
    let client =
        r#"privacy={"mechanism":"smm","clip":1.0,"bits":20,"target_epsilon":20.0,"accountant":"rdp","delta":1e-3}"#;
    let both = result(&train(&dir.path().join("both"), &[client, "rounds=4"]));
    let vectors = result(&train(
        &dir.path().join("vectors"),
        &[client, "rounds=4", r#"algorithm={"name":"fed_avg","learning_rate":0.1}"#],
    ));
    let samples = result(&train(&dir.path().join("samples"), &["privacy.accountant=rdp", "rounds=4"]));
    assert!(both["epsilon"].as_f64().unwrap() > 19.9);
    assert_eq!((&both["epsilon"], &both["delta"]), (&vectors["epsilon"], &1e-3.into()));
    assert!(both["neighboring"].as_str().unwrap().starts_with("zero-out"));
    assert!(vectors["sample_level"].is_null());
    for key in ["epsilon", "delta", "neighboring", "view", "noise_multiplier", "event"] {
        assert_eq!(both["sample_level"][key], samples["sample_level"][key], "{key}");
    }
    let round = &metrics(&dir.path().join("both"))[3];
    assert!(round["epsilon"].as_f64().is_some() && round["sample_epsilon"].as_f64().is_some());
    let ledger = lines(&dir.path().join("both/ledger.jsonl"));
    assert_eq!(ledger.len(), 5, "the ledger has the releases of the vectors");
}

/// Killed and resumed, on one thread or two, behind masks or in the clear: one model.
#[test]
fn the_bits_do_not_depend_on_crashes_threads_or_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let reference = result(&train(&whole, &[]));
    let killed = dir.path().join("killed");
    let mut args = arguments(&killed, &[]);
    for rounds in [2usize, 5] {
        let mut child = veilsum(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        for _ in 0..rounds {
            std::io::BufRead::read_line(&mut reader, &mut String::new()).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        args = vec!["train", "--json", "--resume", killed.to_str().unwrap()];
    }
    let resumed = result(&veilsum(&args).output().unwrap());
    assert_eq!(metrics(&killed), metrics(&whole));
    assert_eq!(model_bytes(&killed), model_bytes(&whole));
    let journal = lines(&killed.join("journal.jsonl"));
    assert_eq!(
        journal.iter().filter(|line| line["kind"] == "begin").count(),
        12,
        "a rerun of the same bits is one attempt"
    );
    assert_eq!(resumed["sample_level"]["steps"], reference["sample_level"]["steps"]);
    assert_eq!(resumed["sample_level"]["epsilon"], reference["sample_level"]["epsilon"]);

    for (name, threads, more) in [("one", "1", &[][..]), ("masked", "2", &[r#"secagg={"masks":{}}"#][..])] {
        let run = dir.path().join(name);
        let output = veilsum(&arguments(&run, more)).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert_eq!(result(&output)["accuracy"], reference["accuracy"], "{name}");
        assert_eq!(model_bytes(&run), model_bytes(&whole), "{name}");
    }
}

/// Attempts that came to nothing count: the clients may have sent their vectors.
#[test]
fn what_began_from_another_input_is_paid_for_and_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let whole = result(&train(&run, &[]));
    let budget = whole["sample_level"]["epsilon"].as_f64().unwrap();
    // As if rounds 10 to 12 had begun from other weights, which were never charged, and no checkpoint were left.
    let mut journal = lines(&run.join("journal.jsonl"));
    journal.retain(|line| line["kind"] == "begin" || line["round"].as_u64().unwrap() < 10);
    for line in journal.iter_mut().filter(|line| line["round"].as_u64().unwrap() >= 10) {
        line["input"] = "00".repeat(32).into();
    }
    let text: String = journal.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(run.join("journal.jsonl"), text).unwrap();
    std::fs::remove_file(run.join("checkpoint.safetensors")).unwrap();
    let resumed = result(&veilsum(&["train", "--json", "--resume", run.to_str().unwrap()]).output().unwrap());
    assert!(resumed["ending"].as_str().unwrap().contains("budget of the samples"), "{resumed}");
    assert_eq!((&resumed["rounds"], &resumed["sample_level"]["steps"]), (&9.into(), &48.into()));
    assert_eq!(resumed["sample_level"]["epsilon"], budget, "not reset, not exceeded");
}

#[test]
fn clients_that_take_turns_lose_less_and_sampled_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let noise = |name: &str, sampling: &str| {
        let result = result(&train(&dir.path().join(name), &[sampling, "cohort=5", "rounds=4"]));
        assert!(result["sample_level"]["epsilon"].as_f64().unwrap() <= 6.0);
        (
            result["sample_level"]["steps"].as_u64().unwrap(),
            result["sample_level"]["noise_multiplier"].as_f64().unwrap(),
        )
    };
    let (turns, poisson, all) =
        (noise("turns", "sampling=round-robin"), noise("poisson", "sampling=poisson"), noise("all", "sampling=all"));
    assert_eq!((turns.0, poisson.0), (8, 16));
    assert_eq!(poisson, all, "the server sees who takes part");
    assert!(turns.1 < all.1, "{turns:?} {all:?}");
}

#[test]
fn configs_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (set, name) in [
        ("algorithm.steps=0", "algorithm.steps"),
        ("algorithm.sampling_rate=0", "algorithm.sampling_rate"),
        ("algorithm.sampling_rate=1.01", "algorithm.sampling_rate"),
        ("algorithm.batch_size=-3", "algorithm.batch_size"),
        ("algorithm.clip=0", "algorithm.clip"),
        ("algorithm.delta=1", "algorithm.delta"),
        ("algorithm.noise_multiplier=-1", "algorithm.noise_multiplier"),
        ("algorithm.target_epsilon=0", "epsilon"),
        ("algorithm.target_epsilon=null", "algorithm.target_epsilon"),
        ("algorithm.weights=samples", "weights"),
        ("privacy.accountant=pld", "pld"),
    ] {
        let output = train(&dir.path().join("refused"), &[set]);
        assert!(!output.status.success() && stderr(&output).contains(name), "{set}: {}", stderr(&output));
        assert!(!dir.path().join("refused").exists(), "{set}");
    }
}

/// Clipped inside the backward pass, in integers: another sum of the same gradients under the same noise, whatever kills it.
#[test]
fn ghost_clipping_costs_the_same_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let conv = r#"model={"layers":{"input":[1,8,8],"layers":[{"conv":{"channels":6,"kernel":3}},"relu",{"max-pool":2},{"linear":10}]}}"#;
    for (name, model) in [("mlp", "model=digits_mlp"), ("conv", conv)] {
        let rows = result(&train(&dir.path().join(format!("{name}-rows")), &[model]));
        let whole = dir.path().join(format!("{name}-whole"));
        let ghost = ["algorithm.clipping=ghost", model];
        let found = result(&train(&whole, &ghost));
        for key in ["epsilon", "delta", "neighboring", "view", "noise_multiplier", "event", "steps"] {
            assert_eq!(found["sample_level"][key], rows["sample_level"][key], "{name} {key}");
        }
        assert_eq!(found["sample_level"]["clipping"], "ghost");
        let accuracy = |result: &Value| result["accuracy"].as_f64().unwrap();
        assert!((accuracy(&found) - accuracy(&rows)).abs() < 0.15, "{name}: {found} {rows}");
        let gradients = |result: &Value, key: &str| result["sample_level"]["gradients"][key].as_f64().unwrap();
        // Mini-batches are bound to the model that a step starts from, and so are others.
        assert!((gradients(&found, "rows") / gradients(&rows, "rows") - 1.0).abs() < 0.05, "{name}");
        assert!((gradients(&found, "norm") / gradients(&rows, "norm") - 1.0).abs() < 0.2, "{name}");

        let killed = dir.path().join(format!("{name}-killed"));
        let args = arguments(&killed, &ghost);
        let mut child = veilsum(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        for _ in 0..5 {
            std::io::BufRead::read_line(&mut reader, &mut String::new()).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let resumed = veilsum(&["train", "--json", "--resume", killed.to_str().unwrap()])
            .env("RAYON_NUM_THREADS", "1")
            .output()
            .unwrap();
        assert_eq!(result(&resumed)["sample_level"]["epsilon"], found["sample_level"]["epsilon"]);
        assert_eq!((metrics(&killed), model_bytes(&killed)), (metrics(&whole), model_bytes(&whole)), "{name}");
    }
    for (set, expected) in [
        (
            r#"model={"layers":{"input":[1,8,8],"layers":["relu",{"dropout":0.5},{"linear":10}]}}"#,
            "does not clip inside",
        ),
        ("algorithm.batch_size=1e7", "integer steps"),
        ("algorithm.clipping=outside", "materialised"),
    ] {
        let output = train(&dir.path().join("refused"), &["algorithm.clipping=ghost", set]);
        let text = stderr(&output);
        assert!(!output.status.success() && text.contains(expected), "{set}: {text}");
        assert!(!dir.path().join("refused").exists(), "{set}");
    }
}

/// Shards of no sample and of many, whose sizes are public: the clients without one send zero.
#[test]
fn shards_of_public_sizes_train_too() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = [
        r#"partition={"scheme":"dirichlet","clients":12,"alpha":0.05,"min_size":0}"#,
        "cohort=12",
        "rounds=3",
        "algorithm.batch_size=null",
    ];
    let result = result(&train(&run, &more));
    assert!(result["sample_level"]["neighboring"].as_str().unwrap().contains("public"), "{result}");
    assert!(result["sample_level"]["batch_size"].is_null());
    assert_eq!(result["zeroed_rows"], 0);
}

/// Rows are encoded and added where the kernels are, and the noise is drawn on the host.
#[test]
fn a_device_computes_the_same_step() {
    let trainer = trainer_for(&ModelConfig::DigitsMlp).unwrap();
    let weights = trainer.init(&StreamKey::from_bytes([1; 32], Cipher::ChaCha20));
    let features = (0..60 * 64).map(|i| ((i * 7919) % 211) as f32 / 105.5 - 1.0).collect();
    let shard = Batch { features, labels: (0..60).map(|i| i % 10).collect(), dim: 64 };
    let local = DpSgd::new(DpSgdParams {
        steps: 1,
        rate: 0.5,
        divisor: Divisor::Shard,
        largest_batch: 30.0,
        learning_rate: 1.0,
        momentum: 0.0,
        clip: 0.5,
        noise_multiplier: 1e-5,
        isolate: false,
        clipping: Clipping::Materialised,
    })
    .unwrap();
    let secret = Secret::from_seed(1);
    let (address, cipher) = (Address::default(), Cipher::ChaCha20);
    let randomness = ClientRandomness { secret: &secret, session: &[1; 16], address, input: &[2; 32], cipher };
    let of = |backend: &dyn Backend| {
        local.delta(Machine { trainer: &*trainer, backend }, &weights, &shard, &randomness).unwrap()
    };
    let (expected, report) = of(&Simd::new());
    let norm = expected.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(norm > 0.01 && report.encoded.clipped > 0, "{norm} {report:?}");
    for device in kernels::devices() {
        let (found, seen) = of(&device);
        assert_eq!((seen.rows, seen.encoded.clipped), (report.rows, report.encoded.clipped), "{}", device.describe());
        // The noise belongs to the integers: where a last bit differs, it is another draw.
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4 * norm), "{}", device.describe());
    }
}

/// Our account of a run of DP-SGD lies on the safe side of the truth and not above the peers' at integer orders.
#[test]
fn golden_rows_of_the_subsampled_gaussian() {
    let Some(golden) = golden("dp.json") else { return };
    let mut seen = 0;
    for row in golden["subsampled_gaussian"].as_array().unwrap() {
        let number = |key: &str| row[key].as_f64();
        let (Some(z), Some(rate), Some(steps)) =
            (number("noise_multiplier"), number("sampling_rate"), row["steps"].as_u64())
        else {
            continue;
        };
        let local = DpSgd::new(DpSgdParams {
            steps: 1,
            rate,
            divisor: Divisor::Public(32.0),
            largest_batch: 32.0,
            learning_rate: 0.1,
            momentum: 0.0,
            clip: 1.0,
            noise_multiplier: z,
            isolate: false,
            clipping: Clipping::Materialised,
        });
        let delta = number("delta").unwrap();
        let level = SampleLevel { local: local.unwrap(), delta, epsilon_budget: None, rule: Rule::Best };
        let found = level.meter(steps).unwrap().exactly(&[steps], delta).unwrap();
        assert_eq!(found.delta, delta);
        if let Some(low) = number("best_lower") {
            assert!(found.epsilon >= low, "{row}: {}", found.epsilon);
        }
        if let Some(peer) = number("rdp_epsilon_integer_orders") {
            assert!(found.epsilon <= peer * (1.0 + 1e-4), "{row}: {}", found.epsilon);
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}
