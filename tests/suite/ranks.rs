//! Ranks that share the clients of a run: the same model for any number of them. Here they are threads of one process;
//! `scripts/mpi-test` does the same with processes of MPI.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use veilsum::config::build::Experiment;
use veilsum::sim::ranks::Ranks;
use veilsum::sim::{self, Ending, Observer, RoundRecord, RunOptions, RunResult, Silent, SimError};

use crate::federation::experiment_of;

/// What the ranks have put down, and how many have come and gone.
#[derive(Default)]
struct Table {
    parts: Vec<Option<Vec<u8>>>,
    left: usize,
    /// A rank has ended with an error.
    dead: bool,
}

/// Where threads meet.
#[derive(Default)]
struct Meeting {
    table: Mutex<Table>,
    changed: Condvar,
}

struct Threads {
    rank: usize,
    size: usize,
    meeting: Arc<Meeting>,
}

impl Threads {
    fn wait<'a>(&'a self, mut table: MutexGuard<'a, Table>, until: impl Fn(&Table) -> bool) -> MutexGuard<'a, Table> {
        while !until(&table) {
            assert!(!table.dead, "another rank has failed");
            table = self.meeting.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        table
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        *bytes = self.gather(bytes).swap_remove(0);
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let table = self.meeting.table.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of the last time have left.
        let mut table = self.wait(table, |table| table.parts[self.rank].is_none());
        table.parts[self.rank] = Some(bytes.to_vec());
        self.meeting.changed.notify_all();
        let mut table = self.wait(table, |table| table.parts.iter().all(Option::is_some));
        let all = table.parts.iter().flatten().cloned().collect();
        table.left += 1;
        if table.left == self.size {
            table.left = 0;
            table.parts.fill(None);
            self.meeting.changed.notify_all();
        } else {
            drop(self.wait(table, |table| table.left == 0 || table.parts[self.rank].is_none()));
        }
        all
    }

    fn add(&self, words: &mut [u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        words.fill(0);
        for part in self.gather(&bytes) {
            for (sum, word) in words.iter_mut().zip(part.as_chunks::<8>().0) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
    }

    fn add_narrow(&self, words: &mut [u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        words.fill(0);
        for part in self.gather(&bytes) {
            for (sum, word) in words.iter_mut().zip(part.as_chunks::<4>().0) {
                *sum = sum.wrapping_add(u32::from_le_bytes(*word));
            }
        }
    }
}

/// Ends the run after a round.
struct StopAfter<'a>(u32, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn started(&mut self, _round: u32, _rounds: u32) {}
    fn round(&mut self, record: &RoundRecord) {
        if record.round == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn lost(&mut self, _loss: &veilsum::sim::loss::DeviceLoss) {}
}

/// The results of all ranks of a run; rank 0 has the folder. A rank that waits for one that has failed has none.
fn ranks(
    experiments: &[Experiment],
    folder: Option<(&Path, bool)>,
    stop: Option<u32>,
) -> Vec<Option<Result<RunResult, SimError>>> {
    let size = experiments.len();
    let meeting = Arc::new(Meeting::default());
    meeting.table.lock().unwrap().parts = vec![None; size];
    std::thread::scope(|scope| {
        let one = |(rank, experiment): (usize, &'_ Experiment)| {
            let ranks = Threads { rank, size, meeting: meeting.clone() };
            let experiment = experiment.clone();
            scope.spawn(move || {
                let interrupt = AtomicBool::new(false);
                let options = RunOptions {
                    folder: folder.map(|(path, _)| path),
                    resume: folder.is_some_and(|(_, resume)| resume),
                    interrupt: &interrupt,
                };
                let result = match stop.filter(|_| rank == 0) {
                    Some(round) => sim::run_shared(&experiment, &ranks, &options, &mut StopAfter(round, &interrupt)),
                    None => sim::run_shared(&experiment, &ranks, &options, &mut Silent),
                };
                if result.is_err() {
                    ranks.meeting.table.lock().unwrap_or_else(PoisonError::into_inner).dead = true;
                    ranks.meeting.changed.notify_all();
                }
                result
            })
        };
        let threads: Vec<_> = experiments.iter().enumerate().map(one).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect()
    })
}

fn whole(results: Vec<Option<Result<RunResult, SimError>>>) -> Vec<RunResult> {
    results.into_iter().map(|result| result.expect("no rank is left alone").unwrap()).collect()
}

/// The lines of the rounds, but for their seconds.
fn lines(run: &RunResult) -> Vec<RoundRecord> {
    run.history.iter().map(|record| RoundRecord { seconds: 0.0, ..record.clone() }).collect()
}

const SMM: &str = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client"}"#;
const LOSSY: &str = r#"privacy={"mechanism":"smm","clip":1.0,"gamma":16,"mu":30,"bits":18,"noise":"per_client","dropout":{"tolerated":0.4}}"#;
const NONE: &str = r#"privacy={"mechanism":"none","clip":1.0}"#;

#[test]
fn any_number_of_ranks_trains_the_same_model() {
    let delta: Vec<f32> = (0..200).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
    let base = ["partition.clients=23", "cohort=17", "rounds=2", "algorithm.weights=uniform"];
    for set in [
        &[SMM, "sampling=poisson"][..],
        &[LOSSY, "sampling=all", "dropout_rate=0.2"],
        // A ring of more than 32 bits, and clients that count differently.
        &[NONE, "sampling=fixed", "algorithm.weights=samples", "dropout_rate=0.2"],
        // Many groups of plain.
        &[NONE, "sampling=fixed", r#"aggregation={"rule":"median"}"#],
        &[SMM, "sampling=all", "group_size=6"],
        &[LOSSY, "sampling=all", "dropout_rate=0.2", r#"secagg={"masks":{"corrupt":0.1,"dropouts":0.35}}"#],
        &[LOSSY, "sampling=all", "dropout_rate=0.2", r#"secagg={"oneshot":{}}"#],
        &[SMM, "sampling=all", r#"secagg={"mphe":{}}"#],
    ] {
        let experiment = experiment_of(&delta, &[&base[..], set].concat());
        let alone = whole(ranks(std::slice::from_ref(&experiment), None, None)).swap_remove(0);
        for size in [2, 3, 5] {
            let runs = whole(ranks(&vec![experiment.clone(); size], None, None));
            for (rank, run) in runs.iter().enumerate() {
                let bits = |run: &RunResult| run.weights.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(run), bits(&alone), "rank {rank} of {size}, {set:?}");
            }
            assert_eq!(lines(&runs[0]), lines(&alone), "{size} ranks, {set:?}");
            assert_eq!(runs[0].bytes_up, alone.bytes_up, "{size} ranks, {set:?}");
            assert_eq!(
                (runs[0].clients.zeroed, runs[0].clients.clipped),
                (alone.clients.zeroed, alone.clients.clipped)
            );
        }
    }
}

#[test]
fn a_shared_run_stops_and_goes_on_with_another_number_of_ranks() {
    let delta: Vec<f32> = (0..64).map(|i| (i as f32 - 30.0) / 400.0).collect();
    let set = ["partition.clients=12", "cohort=9", "rounds=5", "algorithm.weights=uniform", SMM, "sampling=poisson"];
    let experiment = experiment_of(&delta, &set);
    let undisturbed = whole(ranks(std::slice::from_ref(&experiment), None, None)).swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let stopped = whole(ranks(&vec![experiment.clone(); 3], Some((&folder, false)), Some(2)));
    assert!(stopped.iter().all(|run| run.ending == Ending::Interrupted && run.rounds == 2), "all stop with rank 0");
    let again = whole(ranks(&vec![experiment; 2], Some((&folder, true)), None));
    assert_eq!(again[0].weights, undisturbed.weights);
    assert_eq!(lines(&again[0]), lines(&undisturbed));
    assert_eq!(again[0].epsilon, undisturbed.epsilon);
}

#[test]
fn ranks_that_do_not_agree_say_so() {
    let set = ["partition.clients=12", "cohort=9", "rounds=2", "algorithm.weights=uniform", SMM, "sampling=poisson"];
    let one = experiment_of(&[0.25; 40], &set);
    let other = experiment_of(&[0.25; 40], &[&set[..], &["server.learning_rate=0.5"]].concat());
    let mut results = ranks(&[one, other], None, None);
    let problem = results.swap_remove(1).unwrap().unwrap_err().to_string();
    assert!(problem.contains("rank 1 has come to another model than rank 0"), "{problem}");
}

#[test]
fn clients_that_keep_something_are_refused() {
    let set = [
        NONE,
        "partition.clients=6",
        "cohort=6",
        "rounds=1",
        "sampling=all",
        r#"compression={"random-k":{"keep":0.25,"error_feedback":true}}"#,
    ];
    let experiment = experiment_of(&[0.25; 40], &set);
    for result in ranks(&vec![experiment; 2], None, None) {
        let problem = result.expect("all fail alike").unwrap_err().to_string();
        assert!(problem.contains("takes one process"), "{problem}");
    }
}
