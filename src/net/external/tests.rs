use std::path::Path;

use super::*;

/// A trainer in Python's standard library; `ACT` is what it does with a message.
const PYTHON: &str = r#"
import json, os, signal, struct, sys, time
def read():
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)
    header = json.loads(line)
    return header, sys.stdin.buffer.read(header["bytes"])
def say(kind, body=b"", **keys):
    header = {"veilsum": 1, "kind": kind, **keys, "bytes": len(body)}
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + body)
    sys.stdout.buffer.flush()
def tensors(file):
    size = struct.unpack("<Q", file[:8])[0]
    header = json.loads(file[8:8 + size])
    header.pop("__metadata__", None)
    data = file[8 + size:]
    return {n: (t["shape"], data[slice(*t["data_offsets"])]) for n, t in header.items()}
def write(tensors):
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(d for _, d in tensors.values())
def scaled(tensors, by):
    return {n: (s, b"".join(struct.pack("<f", by * v[0]) for v in struct.iter_unpack("<f", d))) for n, (s, d) in tensors.items()}
hello, _ = read()
ACT
"#;

fn job() -> Job {
    let local =
        LocalConfig { epochs: 1, batch_size: 4, learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0, proximal: 0.0 };
    Job { model: ModelConfig::Mlp(vec![3, 2]), local, seed: 1 << 20 }
}

/// Time enough for a busy machine.
fn patient() -> Limits {
    Limits { start: Duration::from_secs(60), round: Duration::from_secs(60), stop: Duration::from_secs(20) }
}

fn python(act: &str) -> Vec<String> {
    ["python3", "-c", &PYTHON.replace("ACT", act)].map(str::to_owned).to_vec()
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

fn start(command: &[String], limits: Limits) -> Result<ExternalTrainer, ExternalError> {
    ExternalTrainer::start(command, &job(), limits)
}

const WEIGHTS: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

/// What a trainer that is ready says to one round.
fn update(act: &str) -> Result<Vec<f32>, ExternalError> {
    let act = format!("say('ready', samples=5)\nheader, body = read()\nweights = tensors(body)\n{act}");
    start(&python(&act), patient()).unwrap().delta(7, &WEIGHTS)
}

#[test]
fn a_program_of_few_lines_trains_round_after_round() {
    let folder = tempfile::tempdir().unwrap();
    let goodbye = folder.path().join("bye");
    let act = format!(
        r"say('ready', samples=5)
while True:
    header, body = read()
    if header['kind'] == 'bye':
        open({:?}, 'w').close()
        break
    w = tensors(body)
    by = hello['training']['learning_rate'] * header['round']
    say('update', write(scaled(w, by)), round=header['round'], samples=hello['parameters'])",
        goodbye.display().to_string()
    );
    let mut trainer = start(&python(&act), patient()).unwrap();
    assert_eq!((trainer.samples(), trainer.parameter_count()), (5, 8));
    for round in [1, 10] {
        let delta = trainer.delta(round, &WEIGHTS).unwrap();
        let expected = WEIGHTS.map(|w| (0.1 * f64::from(round) * f64::from(w)) as f32);
        assert_eq!(delta, expected);
    }
    assert_eq!(trainer.samples(), 8);
    assert!(matches!(trainer.delta(1, &WEIGHTS[1..]), Err(ExternalError::Model(_))));
    drop(trainer);
    assert!(goodbye.exists());
}

#[test]
fn nan_is_handed_on_as_it_is() {
    let delta = update("say('update', write(scaled(weights, float('nan'))), round=7, samples=1)").unwrap();
    assert!(delta.len() == 8 && delta.iter().all(|v| v.is_nan()));
}

#[test]
fn a_sentence_of_the_program_is_the_error_and_it_can_be_asked_again() {
    let act = r"say('ready', samples=0)
read(); say('error', message='no data\x1b[2J today')
header, body = read(); say('update', body, round=header['round'], samples=1)";
    let mut trainer = start(&python(act), patient()).unwrap();
    let message = trainer.delta(1, &WEIGHTS).unwrap_err().to_string();
    assert!(message.contains("says: no data") && !message.contains('\x1b'), "{message}");
    assert_eq!(trainer.delta(2, &WEIGHTS).unwrap(), WEIGHTS);
    let refused = start(&python("say('error', message='layer gelu is not here')"), patient());
    assert!(refused.unwrap_err().to_string().contains("layer gelu is not here"));
}

#[test]
fn what_breaks_the_protocol_ends_the_program_with_a_reason() {
    let cases = [
        ("say('update', body, round=8, samples=1)", "round 8, expected 7"),
        ("say('update', body, samples=1)", "has no `round`"),
        ("say('update', body, round=7)", "has no `samples`"),
        ("say('ready', samples=1)", "said `ready`, expected `update`"),
        ("say('bananas')", "said `bananas`"),
        ("say('update', body[:-1], round=7, samples=1)", "no whole safetensors file"),
        ("weights.popitem(); say('update', write(weights), round=7, samples=1)", "lacks the tensors"),
        ("weights['x'] = ([1], b'1234'); say('update', write(weights), round=7, samples=1)", "[x] besides"),
        ("say('update', b'0' * (1 << 20), round=7, samples=1)", "1048576 bytes, expected at most"),
        ("print('epoch 1: loss 0.3'); sys.stdout.flush()", "wrote `epoch 1: loss 0.3` to stdout"),
        (r#"print('{"veilsum": 2, "kind": "update"}'); sys.stdout.flush()"#, "version 2"),
        (r#"print('{"veilsum": 1, "kind": "update", "bytes": 9}'); sys.stdout.flush(); os._exit(0)"#, "after 0 bytes"),
        ("sys.stdout.write('x' * 100000); sys.stdout.flush()", "without a line feed"),
    ];
    for (act, expected) in cases {
        let message = update(act).unwrap_err().to_string();
        assert!(message.contains(expected), "{act}: {message}");
    }
}

#[test]
fn a_program_that_breaks_down_is_named_with_its_status_and_last_words() {
    let mut trainer = start(
        &python("say('ready', samples=1); read()\nfor i in range(100): print('line', i, file=sys.stderr)\nsys.exit(3)"),
        patient(),
    )
    .unwrap();
    let error = trainer.delta(1, &WEIGHTS).unwrap_err();
    let ExternalError::Ended { status, stderr, .. } = &error else { panic!("{error}") };
    assert!(status.contains('3'), "{status}");
    assert_eq!((stderr.0.len(), stderr.0[19].as_str()), (20, "line 99"));
    assert!(matches!(trainer.delta(2, &WEIGHTS), Err(ExternalError::Over { .. })));
    let killed = update("os.kill(os.getpid(), signal.SIGKILL)").unwrap_err().to_string();
    assert!(killed.contains("signal: 9"), "{killed}");
}

#[test]
fn a_program_that_is_not_there_or_ends_at_once_is_an_error() {
    assert!(matches!(start(&[], patient()), Err(ExternalError::Command)));
    assert!(matches!(start(&[String::new()], patient()), Err(ExternalError::Command)));
    let absent = Path::new("no-such-folder").join("trainer").display().to_string();
    let message = start(&[absent], patient()).unwrap_err().to_string();
    assert!(message.contains("no-such-folder"), "{message}");
    let message = start(&shell("echo 'cannot import torch' >&2; exit 4"), patient()).unwrap_err().to_string();
    assert!(message.contains("cannot import torch") && message.contains('4'), "{message}");
}

/// As the shell says that it is ready.
const READY: &str = r#"echo '{"veilsum":1,"kind":"ready","samples":1}'"#;

/// Whether a process is there, and no mere name that its parent has not asked for.
fn lives(pid: &Path) -> bool {
    let pid = std::fs::read_to_string(pid).unwrap();
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_program_that_hangs_is_ended_also_if_it_ignores_sigterm_or_reads_nothing() {
    let short = Limits { round: Duration::from_millis(200), stop: Duration::from_millis(200), ..patient() };
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("trap '' TERM; echo $$ > '{}'; {READY}; while :; do sleep 0.05; done", pid.display());
    let mut trainer = start(&shell(&script), short).unwrap();
    assert!(!cfg!(target_os = "linux") || lives(&pid));
    let error = trainer.delta(1, &WEIGHTS).unwrap_err();
    assert!(matches!(error, ExternalError::Late { expected: "update", .. }), "{error}");
    assert!(!lives(&pid));
    // More than a pipe holds, to a program that does not read: the writer must not hold us.
    let big = Job { model: ModelConfig::Mlp(vec![1000, 200]), ..job() };
    let mut trainer = ExternalTrainer::start(&shell(&format!("{READY}; exec sleep 1000")), &big, short).unwrap();
    let error = trainer.delta(1, &vec![0.0; trainer.parameter_count()]).unwrap_err();
    assert!(matches!(error, ExternalError::Late { .. }), "{error}");
    let error = start(&shell("exec sleep 1000"), Limits { start: Duration::from_millis(50), ..short }).unwrap_err();
    assert!(matches!(error, ExternalError::Late { expected: "ready", .. }), "{error}");
}

#[test]
fn what_it_has_started_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > '{}'; {READY}; wait", pid.display());
    let limits = Limits { round: Duration::from_millis(50), ..patient() };
    let mut trainer = start(&shell(&script), limits).unwrap();
    assert!(!cfg!(target_os = "linux") || lives(&pid));
    assert!(matches!(trainer.delta(1, &WEIGHTS), Err(ExternalError::Late { .. })));
    // It is not our child: a signal may take a moment.
    let waited = std::time::Instant::now();
    while lives(&pid) {
        assert!(waited.elapsed() < Duration::from_secs(20), "it lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_flood_on_stdout_or_stderr_fills_no_memory_and_holds_nobody() {
    let flood =
        shell(r#"echo '{"veilsum":1,"kind":"ready","samples":1}'; exec yes '{"veilsum":1,"kind":"update","bytes":0}'"#);
    let mut trainer = start(&flood, patient()).unwrap();
    let message = trainer.delta(1, &WEIGHTS).unwrap_err().to_string();
    assert!(message.contains("has no `round`"), "{message}");
    let long = shell("head -c 300000 /dev/zero | tr '\\0' 'x' >&2; exit 1");
    let ExternalError::Ended { stderr, .. } = start(&long, patient()).unwrap_err() else { panic!("it ended") };
    assert!(stderr.0.len() == 20 && stderr.0.iter().all(|line| line.len() == 200));
}

#[test]
fn one_that_closes_stdout_and_goes_on_is_ended() {
    let short = Limits { stop: Duration::from_millis(200), ..patient() };
    let message = start(&shell("exec >&-; exec sleep 1000"), short).unwrap_err().to_string();
    assert!(message.contains("closed its stdout, went on"), "{message}");
}

/// The reference trainer, with a table; `None` where there is no NumPy.
fn reference(table: &Path) -> Option<Vec<String>> {
    let numpy = std::process::Command::new("python3").args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 has no NumPy, which examples/external_trainer.py needs");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/external_trainer.py");
    let words = ["python3", script.to_str()?, "--data", table.to_str()?, "--label", "-1"];
    Some(words.map(str::to_owned).to_vec())
}

#[test]
fn the_reference_trainer_computes_the_delta_of_our_own() {
    use crate::data::digits;
    use crate::math::prg::{Address, Cipher, Purpose, Secret};
    let train = digits::load().unwrap().train;
    let batch = train.gather(&(0..120).collect::<Vec<_>>());
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("digits.csv");
    let line = |(x, y): (&[f32], &u32)| format!("{},{y}\n", x.iter().map(f32::to_string).collect::<Vec<_>>().join(","));
    let text: String = batch.features.chunks(batch.dim).zip(&batch.labels).map(line).collect();
    std::fs::write(&table, text).unwrap();
    let Some(command) = reference(&table) else { return };
    // One batch of all samples: the order does not matter. The second job has every other number too.
    let one = LocalConfig { epochs: 1, batch_size: 120, learning_rate: 0.5, ..job().local };
    let all = LocalConfig { epochs: 3, momentum: 0.9, weight_decay: 0.01, proximal: 0.1, ..one };
    let model = ModelConfig::DigitsMlp;
    let key = Secret::from_seed(7).derive(&[0; 16], Address::default(), Purpose::Init, Cipher::ChaCha20);
    let weights = model.architecture().unwrap().init(&key);
    for local in [one, all] {
        let job = Job { model: model.clone(), local, seed: 3 };
        let mut external = ExternalTrainer::start(&command, &job, patient()).unwrap();
        let found = external.delta(1, &weights).unwrap();
        assert_eq!(external.samples(), 120);
        let expected = crate::model::trainer_for(&model).unwrap().local_delta(&weights, &batch, &local, &key).unwrap();
        let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let apart: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| a - b).collect();
        assert!(norm(&apart) < 1e-5 * norm(&expected), "{} of {}", norm(&apart), norm(&expected));
    }
    let wrong = Job { model: ModelConfig::Mlp(vec![3, 2]), ..job() };
    let refused = ExternalTrainer::start(&command, &wrong, patient()).unwrap_err().to_string();
    assert!(refused.contains("64 features") && refused.contains("takes 3"), "{refused}");
    let refused = ExternalTrainer::start(&command, &Job { model: ModelConfig::MnistCnn, ..wrong }, patient());
    assert!(refused.unwrap_err().to_string().contains("knows linear layers"));
}
