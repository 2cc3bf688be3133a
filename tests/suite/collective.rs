//! Rounds of `mphe` in a run: one key for many of them, made by its machines, refreshed, and never used by another process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use veilsum::config::build::Experiment;
use veilsum::fl::FlError;
use veilsum::fl::coordinator::{Action, Coordinator};
use veilsum::fl::protocol::RoundProtocol;
use veilsum::fl::spend::Spend;
use veilsum::model::Evaluation;
use veilsum::secagg::mphe::RoundSession;
use veilsum::secagg::{PartyId, SecAggError};
use veilsum::sim::loss::DeviceLoss;
use veilsum::sim::mphe::{Holders, make_key};
use veilsum::sim::{self, Ending, Observer, RoundRecord, RunOptions, RunResult, SimError};

use crate::federation::{experiment_of, try_experiment_of};

const SMM: &str = r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client"}"#;
/// A ring in which the sum wraps in nearly every coordinate: what is opened are integers, what is decoded residues.
const WRAPPED: &str =
    r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":4,"noise":"per_client","allow_wrap":true}"#;
const LOSSY: &str =
    r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client","dropout":{"tolerated":0.4}}"#;
const AGGREGATE: &str = r#"{"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18}"#;
const NONE: &str = r#"{"mechanism":"none","clip":1.0}"#;

/// 30 clients, 300 weights.
fn experiment(privacy: &str, secagg: &str, set: &[&str]) -> Experiment {
    let delta: Vec<f32> = (0..300).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
    let weights = if privacy == NONE { "samples" } else { "uniform" };
    let (privacy, secagg) = (format!("privacy={privacy}"), format!("secagg={secagg}"));
    let weights = format!("algorithm.weights={weights}");
    let base = [privacy.as_str(), &secagg, &weights, "partition.clients=30", "cohort=24", "rounds=3"];
    experiment_of(&delta, &[&base[..], set].concat())
}

fn run(experiment: &Experiment) -> Result<RunResult, SimError> {
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    sim::run(experiment, &options, &mut sim::Silent)
}

fn same_model(privacy: &str, sampling: &str, rate: &str) {
    let set = [format!("sampling={sampling}"), format!("dropout_rate={rate}")];
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let plain = run(&experiment(privacy, "plain", &set)).unwrap();
    assert!(rate == "0" || plain.history.iter().any(|r| r.survivors < r.cohort), "somebody vanishes");
    let counts = |run: &RunResult| run.history.iter().map(|r| (r.cohort, r.survivors)).collect::<Vec<_>>();
    for secagg in [
        r#"{"mphe":{}}"#,
        r#"{"mphe":{"trust":"honest-roster","holders":3,"corrupt_holders":0,"needed":2,"refresh":2}}"#,
    ] {
        let hidden = run(&experiment(privacy, secagg, &set)).unwrap();
        assert_eq!(hidden.weights, plain.weights, "{privacy} {sampling} {secagg}");
        assert_eq!(counts(&hidden), counts(&plain));
        assert_eq!(hidden.epsilon, plain.epsilon);
    }
}

#[test]
fn a_collective_key_gives_the_model_of_the_clear() {
    same_model(SMM, "poisson", "0");
    same_model(WRAPPED, "all", "0");
    same_model(AGGREGATE, "poisson", "0.2");
}

#[test]
fn a_collective_key_gives_the_model_of_the_clear_whoever_vanishes() {
    same_model(LOSSY, "poisson", "0.2");
    same_model(LOSSY, "all", "0.2");
}

#[test]
fn a_collective_key_gives_the_weighted_mean_of_the_clear() {
    same_model(NONE, "fixed", "0.2");
}

/// A coordinator and its holders: a process that has not begun yet.
struct Process {
    experiment: Experiment,
    coordinator: Coordinator,
    holders: Holders,
}

impl Process {
    fn new(experiment: &Experiment) -> Self {
        let spend = Spend::new(&experiment.plan, BTreeMap::new()).unwrap();
        let (plan, secret, backend) = (experiment.plan.clone(), experiment.secret.clone(), experiment.backend.clone());
        let coordinator = Coordinator::new(plan, secret, backend, vec![0.0; 300], spend).unwrap();
        Self { experiment: experiment.clone(), coordinator, holders: Holders::default() }
    }

    /// Plays up to the charge of the next round.
    fn round(&mut self) -> Result<Arc<RoundSession>, SimError> {
        let interrupt = AtomicBool::new(false);
        loop {
            match self.coordinator.poll_action()? {
                Some(Action::MakeKey(_)) => {
                    make_key(&self.experiment, &mut self.coordinator, &mut self.holders, &interrupt)?;
                }
                Some(Action::Begin(tasks)) => {
                    let RoundProtocol::Mphe(session) = &tasks[0].protocol else { panic!("{:?}", tasks[0].protocol) };
                    let (coordinator, holders) = (&mut self.coordinator, &mut self.holders);
                    sim::work::play_round(&self.experiment, &tasks, coordinator, holders, &interrupt)?;
                    return Ok(Arc::clone(session));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The rest of it.
    fn finish(&mut self) {
        assert!(matches!(self.coordinator.poll_action().unwrap(), Some(Action::Charge(_))));
        self.coordinator.charged().unwrap();
        loop {
            match self.coordinator.poll_action().unwrap() {
                Some(Action::Evaluate(_)) => {
                    self.coordinator.evaluated(Evaluation { loss: 1.0, accuracy: 0.1, samples: 1 }).unwrap();
                }
                Some(Action::Report(_)) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Who was in no cohort when the key was made, and in none before, takes part under the same key: the session of the round,
/// with the key in it, is all that its machine is made from.
#[test]
fn a_late_client_needs_the_public_key_alone() {
    let set = ["sampling=poisson", "cohort=10"];
    let mut process = Process::new(&experiment(SMM, r#"{"mphe":{"refresh":3}}"#, &[&set[..], &["rounds=4"]].concat()));
    let (mut known, mut keys, mut late) = (BTreeSet::new(), Vec::new(), 0);
    for round in 1..=4u64 {
        let session = process.round().unwrap();
        keys.push((session.key().session().setup().session, session.key().key().digest()));
        let cohort: BTreeSet<u64> = session.cohort().iter().copied().collect();
        late += if round > 1 && round < 4 { cohort.difference(&known).count() } else { 0 };
        known.extend(cohort);
        // One opening a round, of a key that was made once; the fourth round is the first of a fresh one.
        assert_eq!(process.holders.openings(), if round < 4 { round } else { 1 });
        assert_eq!(process.holders.set_ups(), if round < 4 { 1 } else { 2 });
        process.finish();
    }
    assert!(late > 0, "nobody came late");
    assert!(keys[0] == keys[1] && keys[1] == keys[2], "one key for three rounds");
    assert!(keys[2].0 != keys[3].0 && keys[2].1 != keys[3].1, "then another");
}

/// The same run in a second process, from the same secret: the epoch, the key, and with them every byte that is sent differ.
#[test]
fn another_process_shares_no_randomness_of_a_key() {
    let experiment = experiment(SMM, r#"{"mphe":{}}"#, &["sampling=all", "cohort=30"]);
    let (mut first, mut second) = (Process::new(&experiment), Process::new(&experiment));
    let (one, other) = (first.round().unwrap(), second.round().unwrap());
    assert_eq!((one.id(), one.cohort()), (other.id(), other.cohort()));
    assert_ne!(one.key().session().setup().session, other.key().session().setup().session);
    assert_ne!(one.key().session().setup().seed, other.key().session().setup().seed);
    assert_ne!(one.key().key().digest(), other.key().key().digest());
    assert_ne!(one.context(), other.context());
    first.finish();
    second.finish();
    assert_eq!(first.coordinator.weights(), second.coordinator.weights());
}

/// The noise of those who vanished is missing: the holders sign nothing and open nothing, though the key bears two survivors.
#[test]
fn a_sum_with_too_little_noise_is_not_opened_under_a_collective_key() {
    let lossy = ["sampling=all", "cohort=30", "dropout_rate=0.2"];
    let mut process = Process::new(&experiment(SMM, r#"{"mphe":{"corrupt":0}}"#, &lossy));
    let error = process.round().unwrap_err();
    assert!(
        matches!(error, SimError::Fl(FlError::Aborted { threshold: 30, survivors, .. }) if survivors < 30),
        "{error}"
    );
    assert_eq!((process.holders.openings(), process.holders.set_ups()), (0, 1));
}

#[test]
fn keys_are_made_when_asked_for_and_frames_out_of_place_are_refused() {
    let mut process = Process::new(&experiment(SMM, r#"{"mphe":{}}"#, &["sampling=all", "cohort=30"]));
    let coordinator = &mut process.coordinator;
    assert!(matches!(coordinator.begin_key([1; 16], [2; 32]), Err(FlError::OutOfOrder { .. })));
    let Some(Action::MakeKey(wanted)) = coordinator.poll_action().unwrap() else { panic!("a key is wanted") };
    assert_eq!((wanted.round, wanted.attempt, wanted.plan.opening().openings()), (1, 0, 6));
    assert!(coordinator.poll_action().unwrap().is_none(), "the coordinator waits for the epoch");
    assert!(matches!(coordinator.handle(PartyId::Holder(1), &[0; 80]), Err(FlError::OutOfOrder { .. })));
    let id = coordinator.begin_key([1; 16], [2; 32]).unwrap().place().id;
    assert!(matches!(coordinator.begin_key([3; 16], [2; 32]), Err(FlError::OutOfOrder { .. })));
    for (from, frame) in [(PartyId::Client(0), &[0; 80][..]), (PartyId::Holder(1), &[0; 80]), (PartyId::Holder(9), &[])]
    {
        assert!(matches!(coordinator.handle(from, frame), Err(FlError::SecAgg(_))));
    }
    // Nobody answers: no key, and the next one has another epoch.
    let deadline = coordinator.poll_timeout(&id).unwrap();
    let error = coordinator.handle_timeout(&id, deadline).unwrap_err();
    assert!(matches!(&error, FlError::Key(fault) if fault.holders.len() == 5), "{error}");
    let session = process.round().unwrap();
    assert_ne!(session.key().session().setup().session, [1; 16]);
    process.finish();
}

/// Stops after the first round.
struct Stop<'a>(&'a AtomicBool);

impl Observer for Stop<'_> {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, _record: &RoundRecord) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn lost(&mut self, _loss: &DeviceLoss) {}
}

#[test]
fn a_run_under_a_collective_key_goes_on_under_another() {
    let set = ["sampling=poisson", "checkpoint.every=2"];
    let plain = run(&experiment(SMM, "plain", &set)).unwrap();
    let (dir, experiment) = (tempfile::tempdir().unwrap(), experiment(SMM, r#"{"mphe":{}}"#, &set));
    let (folder, interrupt) = (dir.path().join("run"), AtomicBool::new(false));
    for (resume, ending) in [(false, true), (true, false)] {
        interrupt.store(false, Ordering::Relaxed);
        let options = RunOptions { folder: Some(&folder), resume, interrupt: &interrupt };
        let result = if ending {
            sim::run(&experiment, &options, &mut Stop(&interrupt)).unwrap()
        } else {
            sim::run(&experiment, &options, &mut sim::Silent).unwrap()
        };
        assert_eq!((result.ending == Ending::Interrupted, result.rounds), (ending, if ending { 1 } else { 3 }));
        if !ending {
            assert_eq!(result.weights, plain.weights);
            assert_eq!(result.epsilon, plain.epsilon);
        }
    }
}

/// A key set-up that is interrupted ends the run where it was.
#[test]
fn ctrl_c_before_the_key_leaves_nothing_half_done() {
    let experiment = experiment(SMM, r#"{"mphe":{}}"#, &["sampling=all", "cohort=30"]);
    let mut process = Process::new(&experiment);
    assert!(matches!(process.coordinator.poll_action().unwrap(), Some(Action::MakeKey(_))));
    make_key(&experiment, &mut process.coordinator, &mut process.holders, &AtomicBool::new(true)).unwrap();
    assert!(process.coordinator.poll_action().unwrap().is_none());
    assert_eq!(process.holders.openings(), 0);
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(true) };
    let result = sim::run(&experiment, &options, &mut sim::Silent).unwrap();
    assert_eq!((result.ending, result.rounds), (Ending::Interrupted, 0));
}

/// A round that is done again under the key that it was begun under: the same data repeat every byte and are no further
/// opening; other data are another attempt, which the holders refuse, since the sums of both would tell their difference.
#[test]
fn a_round_is_opened_once_whatever_the_attempt() {
    let mut process = Process::new(&experiment(SMM, r#"{"mphe":{"refresh":1}}"#, &["sampling=all", "cohort=30"]));
    let start = process.coordinator.checkpoint();
    let first = process.round().unwrap();
    process.finish();
    let weights = process.coordinator.weights();
    process.coordinator.restore(start.clone()).unwrap();
    let again = process.round().unwrap();
    assert_eq!((again.id(), again.context()), (first.id(), first.context()));
    process.finish();
    assert_eq!(process.coordinator.weights(), weights);
    assert_eq!((process.holders.openings(), process.holders.set_ups()), (1, 1));
    let mut other = start;
    other.weights[7] = 0.5;
    process.coordinator.restore(other).unwrap();
    let error = process.round().unwrap_err();
    assert!(error.to_string().contains("answered"), "{error}");
    assert_eq!((process.holders.openings(), process.holders.set_ups()), (1, 1));
}

/// Shares of one key answer nothing under another.
#[test]
fn holders_of_another_key_are_refused() {
    let experiment = experiment(SMM, r#"{"mphe":{}}"#, &["sampling=all", "cohort=30"]);
    let (mut mine, mut others) = (Process::new(&experiment), Process::new(&experiment));
    let interrupt = AtomicBool::new(false);
    for process in [&mut mine, &mut others] {
        assert!(matches!(process.coordinator.poll_action().unwrap(), Some(Action::MakeKey(_))));
        make_key(&experiment, &mut process.coordinator, &mut process.holders, &interrupt).unwrap();
    }
    mine.holders = others.holders;
    let error = mine.round().unwrap_err();
    assert!(matches!(error, SimError::Fl(FlError::SecAgg(SecAggError::ForeignKey))), "{error}");
}

/// What no ring bears, what protects nobody and what is no number, before anything is done; with what would be right.
#[test]
fn what_cannot_be_served_is_refused_before_the_first_round() {
    // Sums of 37 bits: no room for them beside the flooding of two million openings at this degree.
    let wide = r#"{"mechanism":"smm","clip":1.0,"gamma":1e9,"mu":30,"bits":32,"noise":"per_client","allow_wrap":true}"#;
    for (secagg, privacy, cohort, says) in [
        (r#"{"mphe":{"corrupt":1}}"#, SMM, "24", "secagg.mphe.corrupt is 1, expected in [0, 1)"),
        (r#"{"mphe":{"corrupt":0.1,"trust":"honest-roster"}}"#, SMM, "24", "`oneshot` and `masks` protect from"),
        (r#"{"mphe":{"refresh":0}}"#, SMM, "24", "secagg.mphe.refresh is 0, expected at least 1 round"),
        (r#"{"mphe":{"holders":5,"corrupt_holders":2,"needed":3}}"#, SMM, "24", "4"),
        (r#"{"mphe":{"holders":0}}"#, SMM, "24", "number of holders"),
        (r#"{"mphe":{"degree":2048}}"#, SMM, "24", "no safe set"),
        (r#"{"mphe":{"degree":3000}}"#, SMM, "24", "3000"),
        (r#"{"mphe":{}}"#, SMM, "2", "at least 3 under `secagg.mphe`"),
        (r#"{"mphe":{"degree":4096}}"#, wide, "24", "nearest safe: N = 8192"),
        (r#"{"mphe":{"server":"malicious"}}"#, SMM, "24", "server"),
        (r#"{"mphe":{"trust":"nobody"}}"#, SMM, "24", "nobody"),
    ] {
        let set = [format!("privacy={privacy}"), format!("secagg={secagg}"), format!("cohort={cohort}")];
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let base = ["partition.clients=30", "sampling=poisson", "algorithm.weights=uniform", "rounds=1000000"];
        let error = try_experiment_of(&[0.0; 300], &[&base[..], &set].concat()).err().unwrap();
        assert!(error.to_string().contains(says), "{secagg}: {error}");
    }
}
