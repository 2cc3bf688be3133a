//! A device that is lost, or full, in the middle of a run: at every kind of step of a round, and what is on record.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use veilsum::backend::device::{Device, DeviceBackend, Launch, Limits, Memory, Slice};
use veilsum::backend::wgpu::Wgpu;
use veilsum::backend::{Backend, BackendError, BackendKind};
use veilsum::config::build::Experiment;
use veilsum::fl::FlError;
use veilsum::secagg::plain::{PlainClient, PlainServer};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, SessionId, VectorShape};
use veilsum::sim::loss::{DeviceLoss, Recovery};
use veilsum::sim::{self, Ending, Observer, RoundRecord, RunOptions, RunResult, SimError};

use crate::federation::experiment_of;
use crate::kernels;

/// What befalls a device.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Accident {
    /// It is lost, for good.
    Lost,
    /// One step finds no memory.
    Full,
}

/// A device with an accident at step number `at` of its life.
#[derive(Debug)]
struct Fragile {
    inner: DeviceBackend,
    accident: Accident,
    at: u64,
    steps: AtomicU64,
    seen: Mutex<Vec<&'static str>>,
}

impl Fragile {
    fn new(inner: &DeviceBackend, accident: Accident, at: u64) -> Arc<Self> {
        Arc::new(Self { inner: inner.clone(), accident, at, steps: AtomicU64::new(0), seen: Mutex::default() })
    }

    fn healthy(inner: &DeviceBackend) -> Arc<Self> {
        Self::new(inner, Accident::Lost, u64::MAX)
    }

    fn seen(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn step(&self, what: &'static str) -> Result<&dyn Device, BackendError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(what);
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        let backend = self.kind().name();
        match self.accident {
            Accident::Lost if step >= self.at => {
                Err(BackendError::DeviceLost { backend, reason: format!("pulled out at {what}") })
            }
            Accident::Full if step == self.at => {
                Err(BackendError::DeviceMemory { backend, needed: 4096, free: Some(512) })
            }
            _ => Ok(self.inner.device()),
        }
    }
}

impl Device for Fragile {
    fn kind(&self) -> BackendKind {
        self.inner.kind()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn id(&self) -> u64 {
        self.inner.device().id()
    }
    fn limits(&self) -> &Limits {
        self.inner.device().limits()
    }
    fn alloc(&self, words: u64, secret: bool) -> Result<Memory, BackendError> {
        self.step("alloc")?.alloc(words, secret)
    }
    fn write(&self, memory: &Memory, offset: u64, data: &[u32]) -> Result<(), BackendError> {
        self.step("write")?.write(memory, offset, data)
    }
    fn read(&self, memory: &Memory, offset: u64, out: &mut [u32]) -> Result<(), BackendError> {
        // A part arrives, and then no more.
        out.iter_mut().step_by(2).for_each(|word| *word = 0x5eed_c0de);
        self.step("read")?.read(memory, offset, out)
    }
    fn copy(&self, from: &Slice<'_>, to: &Slice<'_>) -> Result<(), BackendError> {
        self.step("copy")?.copy(from, to)
    }
    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        self.step(launch.kernel.entry)?.launch(launch)
    }
    fn submit(&self) -> Result<(), BackendError> {
        self.step("submit")?.submit()
    }
    fn finish(&self) -> Result<(), BackendError> {
        self.step("finish")?.finish()
    }
}

/// Notes what a run says, and where the device was at the end of each round.
struct Watch<'a> {
    device: &'a Fragile,
    ends: Vec<usize>,
    losses: Vec<DeviceLoss>,
    /// Set at the loss.
    interrupt: Option<&'a AtomicBool>,
}

impl Observer for Watch<'_> {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, _record: &RoundRecord) {
        self.ends.push(self.device.seen().len());
    }
    fn lost(&mut self, loss: &DeviceLoss) {
        self.losses.push(loss.clone());
        if let Some(flag) = self.interrupt {
            flag.store(true, Ordering::Relaxed);
        }
    }
}

fn on(experiment: &Experiment, device: &Arc<Fragile>) -> Experiment {
    Experiment { backend: Arc::new(DeviceBackend::new(device.clone())), ..experiment.clone() }
}

fn run(experiment: &Experiment, folder: &Path, resume: bool) -> RunResult {
    let options = RunOptions { folder: Some(folder), resume, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut sim::Silent).unwrap()
}

fn watched(experiment: &Experiment, device: &Arc<Fragile>, folder: &Path) -> (RunResult, Vec<usize>, Vec<DeviceLoss>) {
    let mut watch = Watch { device, ends: Vec::new(), losses: Vec::new(), interrupt: None };
    let options = RunOptions { folder: Some(folder), resume: false, interrupt: &AtomicBool::new(false) };
    let result = sim::run(&on(experiment, device), &options, &mut watch).unwrap();
    (result, watch.ends, watch.losses)
}

fn lines(folder: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Round and attempt of every line of the journal of a kind.
fn journal(folder: &Path, kind: &str) -> Vec<(u64, u64)> {
    let of = |line: &Value| (line["round"].as_u64().unwrap(), line["attempt"].as_u64().unwrap());
    lines(folder, "journal.jsonl").iter().filter(|line| line["kind"] == kind).map(of).collect()
}

const ROUNDS: u32 = 3;

fn private(noise: &str) -> Experiment {
    let delta: Vec<f32> = (0..250).map(|i| ((i * 37 % 101) as f32 - 50.0) / 1000.0).collect();
    let privacy = format!(r#"privacy={{"mechanism":"smm","clip":1.0,"gamma":64,"mu":50,"bits":20,"noise":"{noise}"}}"#);
    experiment_of(&delta, &[&privacy, "sampling=poisson", "algorithm.weights=uniform", &format!("rounds={ROUNDS}")])
}

/// The run whose rounds up to `lost - 1` ran on `device`, round `lost` on the CPU as attempt 1, the others there too.
fn expected(experiment: &Experiment, device: &Arc<Fragile>, lost: u32) -> RunResult {
    let folder = tempfile::tempdir().unwrap();
    let resume = lost > 1;
    if resume {
        let mut first = on(experiment, device);
        first.plan.rounds = lost - 1;
        run(&first, folder.path(), false);
    }
    // Another input took attempt 0.
    let mut text = std::fs::read_to_string(folder.path().join("journal.jsonl")).unwrap_or_default();
    text += &format!("{}\n", json!({"kind": "begin", "round": lost, "attempt": 0, "input": "00".repeat(32)}));
    std::fs::write(folder.path().join("journal.jsonl"), text).unwrap();
    run(experiment, folder.path(), true)
}

/// The first step of each name among `trace[range]`.
fn firsts(trace: &[&'static str], range: std::ops::Range<usize>) -> Vec<usize> {
    let mut names = Vec::new();
    range.filter(|&i| !names.contains(&trace[i]) && (names.push(trace[i]), true).1).collect()
}

/// Where round `1 + i` begins to reveal: behind the submission of the last sum, before the noise or the decoding.
fn reveals(trace: &[&'static str], ends: &[usize], i: usize) -> usize {
    let start = if i == 0 { 0 } else { ends[i - 1] };
    let sum = (start..ends[i]).rev().find(|&k| trace[k] == "sum_bits").expect("a round sums");
    sum + 1 + trace[sum..].iter().position(|&step| step == "submit").expect("a verb ends with a submission")
}

#[test]
fn a_round_whose_device_is_lost_is_finished_on_the_cpu() {
    for backend in kernels::devices() {
        for noise in ["aggregate", "per_client"] {
            let experiment = private(noise);
            let healthy = Fragile::healthy(&backend);
            let folder = tempfile::tempdir().unwrap();
            let (whole, ends, losses) = watched(&experiment, &healthy, folder.path());
            assert!(losses.is_empty() && whole.device_lost.is_none());
            let trace = healthy.seen();
            for lost in [1, 2] {
                let i = lost as usize - 1;
                let (start, end) = (if i == 0 { 0 } else { ends[0] }, ends[i]);
                let reveal = reveals(&trace, &ends, i);
                let restarted = expected(&experiment, &Fragile::healthy(&backend), lost);
                let steps = if lost == 1 && noise == "aggregate" {
                    [firsts(&trace, start..reveal), firsts(&trace, reveal..end), vec![reveal - 1, end - 1]].concat()
                } else {
                    // At the first step, at the last sum, and at the end of the decoding.
                    vec![start, reveal - 3, end - 2]
                };
                for at in steps {
                    let context = format!("{}, {noise}, step {at} ({})", backend.describe(), trace[at]);
                    let recovery = if at < reveal { Recovery::Restarted } else { Recovery::Decoded };
                    let device = Fragile::new(&backend, Accident::Lost, at as u64);
                    let folder = tempfile::tempdir().unwrap();
                    let (found, _, losses) = watched(&experiment, &device, folder.path());
                    check(&found, &losses, folder.path(), (lost, recovery), &context);
                    assert_eq!(found.epsilon, whole.epsilon, "{context}");
                    match recovery {
                        Recovery::Restarted => {
                            assert_eq!(found.weights, restarted.weights, "{context}");
                            assert_eq!(found.epsilon, restarted.epsilon, "{context}");
                        }
                        // The sum of the device, decoded elsewhere; the rounds after it were encoded elsewhere.
                        Recovery::Decoded => {
                            let square: f32 =
                                found.weights.iter().zip(&whole.weights).map(|(a, b)| (a - b).powi(2)).sum();
                            assert!(square.sqrt() <= 2.0 / (64.0 * 8.0), "{context}: {}", square.sqrt());
                        }
                        Recovery::Evaluated => unreachable!("the trainer works on the CPU"),
                    }
                }
            }
        }
    }
}

/// What a run that lost its device in round `lost` has on record.
fn check(found: &RunResult, losses: &[DeviceLoss], folder: &Path, (lost, recovery): (u32, Recovery), context: &str) {
    assert!(matches!(found.ending, Ending::Finished(_)), "{context}");
    let [loss] = losses else { panic!("{context}: {losses:?}") };
    assert_eq!((loss.round, loss.attempt, loss.recovery), (lost, 0, recovery), "{context}");
    assert_eq!(found.device_lost.as_ref(), Some(loss), "{context}");
    let attempt = u32::from(recovery == Recovery::Restarted);
    for record in &found.history {
        let here = record.round == lost;
        assert_eq!(record.attempt, if here { attempt } else { 0 }, "{context}, round {}", record.round);
        assert_eq!(record.device_lost.as_ref(), here.then_some(loss), "{context}");
    }
    assert_eq!(found.history.len(), ROUNDS as usize, "{context}");
    // Every release has one charge, of the attempt that was finished.
    let charged: Vec<(u64, u64)> = found.history.iter().map(|r| (r.round.into(), r.attempt.into())).collect();
    assert_eq!(journal(folder, "charge"), charged, "{context}");
    assert_eq!(journal(folder, "lost"), [(lost.into(), 0)], "{context}");
    let begun = journal(folder, "begin").iter().filter(|(round, _)| *round == u64::from(lost)).count();
    assert_eq!(begun, 1 + attempt as usize, "{context}");
    // The loss is on record before the attempt that replaces the lost one.
    let order = lines(folder, "journal.jsonl");
    let at = |kind: &str, attempt: u32| {
        order.iter().position(|l| l["kind"] == kind && l["round"] == lost && l["attempt"] == attempt).unwrap()
    };
    assert!(at("lost", 0) < if attempt == 1 { at("begin", 1) } else { order.len() }, "{context}");
    assert!(attempt == 1 || at("charge", 0) < at("lost", 0), "{context}");
    let result: Value = serde_json::from_slice(&std::fs::read(folder.join("result.json")).unwrap()).unwrap();
    assert_eq!(result["device_lost"], json!(loss), "{context}");
    assert_eq!(lines(folder, "metrics.jsonl")[lost as usize - 1]["device_lost"], json!(loss), "{context}");
    assert!(std::fs::read_to_string(folder.join("report.html")).unwrap().contains("was lost in round"), "{context}");
}

#[test]
fn a_run_that_lost_its_device_is_resumed_on_the_cpu() {
    for backend in kernels::devices() {
        let experiment = private("aggregate");
        let healthy = Fragile::healthy(&backend);
        let folder = tempfile::tempdir().unwrap();
        let (_, ends, _) = watched(&experiment, &healthy, folder.path());
        let reveal = reveals(&healthy.seen(), &ends, 1);
        for at in [ends[0] + 1, reveal, ends[1] - 2] {
            let device = || Fragile::new(&backend, Accident::Lost, at as u64);
            let whole = tempfile::tempdir().unwrap();
            let (undisturbed, ..) = watched(&experiment, &device(), whole.path());
            // Stopped at the loss, and continued where there is a device that works.
            let stopped = tempfile::tempdir().unwrap();
            let interrupt = AtomicBool::new(false);
            let fragile = device();
            let mut watch =
                Watch { device: &fragile, ends: Vec::new(), losses: Vec::new(), interrupt: Some(&interrupt) };
            let options = RunOptions { folder: Some(stopped.path()), resume: false, interrupt: &interrupt };
            let ending = sim::run(&on(&experiment, &fragile), &options, &mut watch).unwrap().ending;
            assert_eq!(ending, Ending::Interrupted);
            let unused = Fragile::healthy(&backend);
            let mut watch = Watch { device: &unused, ends: Vec::new(), losses: Vec::new(), interrupt: None };
            let options = RunOptions { folder: Some(stopped.path()), resume: true, interrupt: &AtomicBool::new(false) };
            let resumed = sim::run(&on(&experiment, &unused), &options, &mut watch).unwrap();
            assert!(unused.seen().is_empty(), "the rest of the run is computed on the CPU: {:?}", unused.seen());
            assert_eq!(watch.losses.len(), 1, "a resumed run says it again");
            assert_eq!(resumed.weights, undisturbed.weights);
            assert_eq!(resumed.epsilon, undisturbed.epsilon);
            let metrics = |folder: &Path| {
                let mut lines = lines(folder, "metrics.jsonl");
                lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("seconds")));
                lines
            };
            assert_eq!(metrics(stopped.path()), metrics(whole.path()));
            assert_eq!(journal(stopped.path(), "charge"), journal(whole.path(), "charge"));
        }
    }
}

/// Destroys a device of wgpu after the first round.
struct Destroy(Option<wgpu::Device>, Vec<DeviceLoss>);

impl Observer for Destroy {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, _record: &RoundRecord) {
        if let Some(device) = self.0.take() {
            device.destroy();
        }
    }
    fn lost(&mut self, loss: &DeviceLoss) {
        self.1.push(loss.clone());
    }
}

/// Runs an experiment whose device is destroyed after the first round: the second begins again without it.
pub(crate) fn run_without(device: wgpu::Device, experiment: &Experiment) -> RunResult {
    let mut observer = Destroy(Some(device), Vec::new());
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    let found = sim::run(experiment, &options, &mut observer).unwrap();
    assert_eq!(found.history.iter().map(|r| r.attempt).collect::<Vec<_>>(), [0, 1, 0]);
    let [loss] = &observer.1[..] else { panic!("{:?}", observer.1) };
    assert_eq!((loss.round, loss.backend.as_str(), loss.recovery), (2, "wgpu", Recovery::Restarted));
    found
}

/// What a real device of wgpu says when it is gone is understood.
#[test]
fn a_device_of_wgpu_that_is_destroyed_ends_no_run() {
    let Some((device, queue, info)) = kernels::raw_device(|_| ()) else { return };
    let wgpu = Wgpu::from_device(device.clone(), queue, &info);
    let backend = Arc::new(DeviceBackend::new(Arc::new(wgpu)));
    let experiment = Experiment { backend, ..private("per_client") };
    run_without(device, &experiment);
}

#[test]
fn a_full_device_ends_the_run_with_both_figures_and_the_run_goes_on_there() {
    for backend in kernels::devices() {
        let experiment = private("per_client");
        let folder = tempfile::tempdir().unwrap();
        let healthy = Fragile::healthy(&backend);
        let (whole, ends, _) = watched(&experiment, &healthy, folder.path());
        let alloc = (ends[0]..).find(|&k| healthy.seen()[k] == "alloc").unwrap();
        let device = Fragile::new(&backend, Accident::Full, alloc as u64);
        let folder = tempfile::tempdir().unwrap();
        let options = RunOptions { folder: Some(folder.path()), resume: false, interrupt: &AtomicBool::new(false) };
        let error = sim::run(&on(&experiment, &device), &options, &mut sim::Silent).unwrap_err();
        assert!(matches!(&error, SimError::Fl(FlError::Backend(BackendError::DeviceMemory { .. }))), "{error}");
        let text = error.to_string();
        assert!(text.contains("4096 bytes") && text.contains("free: 512"), "{text}");
        let resumed = run(&on(&experiment, &device), folder.path(), true);
        assert_eq!(resumed.weights, whole.weights);
        assert!(resumed.history.iter().all(|r| r.attempt == 0) && resumed.device_lost.is_none());
    }
}

/// A server of `plain` whose backend fails says so when a frame arrives: it takes the frame again where nothing was added
/// yet, and never opens a sum that may be damaged.
#[test]
fn a_server_whose_backend_fails_opens_no_wrong_sum() {
    const ID: SessionId = SessionId { session: [7; 16], round: 1, attempt: 0 };
    let shape = VectorShape { len: 40, bits: 13 };
    let cohort: Vec<u64> = (0..18).collect();
    let words = |client: u64| (0..40).map(|j| (client * 517 + j * 29) & 0x1fff).collect::<Vec<u64>>();
    // The errors of a round in which every refused frame is sent once more.
    let deliver = |server: &mut PlainServer| {
        let mut errors = Vec::new();
        while let Some(announcement) = server.poll_transmit() {
            let PartyId::Client(id) = announcement.to else { panic!("{:?}", announcement.to) };
            let mut client = PlainClient::new(ID, id, shape, &words(id)).unwrap();
            client.handle(PartyId::Server, &announcement.frame).unwrap();
            let frame = client.poll_transmit().unwrap().frame;
            let first = server.handle(PartyId::Client(id), &frame);
            if first.is_err() {
                let again = server.handle(PartyId::Client(id), &frame);
                errors.extend([first, again].into_iter().filter_map(Result::err));
            }
        }
        errors
    };
    let sum: Vec<u64> = (0..40).map(|j| cohort.iter().map(|&c| words(c)[j as usize]).sum::<u64>() & 0x1fff).collect();
    for backend in kernels::devices() {
        let full = |at| Fragile::new(&backend, Accident::Full, at);
        let server = |device: &Arc<Fragile>| {
            PlainServer::new(ID, &cohort, shape, 0, None, Arc::new(DeviceBackend::new(device.clone()))).unwrap()
        };
        let healthy = full(u64::MAX);
        assert!(deliver(&mut server(&healthy)).is_empty());
        let trace = healthy.seen();
        for at in [0, 1] {
            let mut server = server(&full(at));
            let errors = deliver(&mut server);
            assert!(matches!(errors[..], [SecAggError::Backend(BackendError::DeviceMemory { .. })]), "{errors:?}");
            let expected = Output::Sum { words: sum.clone(), survivors: cohort.clone() };
            assert_eq!(server.poll_output(), Some(expected), "step {at}, {}", trace[at as usize]);
        }
        let sums: Vec<usize> = (0..trace.len()).filter(|&k| trace[k] == "sum_bits").collect();
        assert_eq!(sums.len(), 2, "sixteen rows, then two");
        for at in sums.into_iter().flat_map(|k| [k, k + 1]) {
            let mut server = server(&full(at as u64));
            let errors = deliver(&mut server);
            assert!(matches!(errors[0], SecAggError::Backend(_)) && errors.len() > 1, "{errors:?}");
            assert!(errors[1..].iter().all(|e| *e == SecAggError::Late), "{errors:?}");
            assert_eq!(server.poll_output(), None, "step {at}, {}", trace[at]);
        }
    }
}
