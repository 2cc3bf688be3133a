//! Timing in turns: every case of a group runs once a lap, so that a slow moment of the machine meets all
//! of them and not the one whose turn it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::BenchError;
use super::request::Case;
use super::stages::Body;
use crate::backend::Backend;
use crate::backend::device::{Device, Mark};

/// A timed run lasts at least this long, so that the clock does not count; short calls are batched.
const LEAST_RUN: f64 = 20e-6;
/// Cases that together touch more than this many bytes are not held in memory at the same time.
const GROUP_BYTES: f64 = (1u64 << 29) as f64;
/// Fewest timed runs of a case, however long one takes.
const LEAST_RUNS: usize = 3;
/// Timed runs whose lengths are kept for the median.
const MOST_RUNS: usize = 1 << 16;
/// A call shorter than this is made once before each timed run: the cases that ran in between have taken
/// its place in the caches.
const LONG_CALL: f64 = 5e-3;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Seconds that each case is timed for.
    pub seconds: f64,
    /// Threads of the pool that the kernels find.
    pub threads: usize,
    /// Set from outside (Ctrl-C): the measurement ends after the present run.
    pub interrupt: &'a AtomicBool,
}

/// What the clock said about one case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Shortest time of a call, in seconds.
    pub best: f64,
    /// Median time of a call, in seconds.
    pub median: f64,
    /// Shortest time of a call as a device counts it, in seconds; nothing on the host and of a device without a clock.
    pub device: Option<f64>,
    /// Timed runs.
    pub runs: usize,
    /// Calls in a timed run.
    pub batch: usize,
}

/// A case in the course of its measurement.
struct Runner {
    body: Body,
    /// A device is waited for at the end of a timed run.
    backend: Arc<dyn Backend>,
    batch: usize,
    /// Seconds a call of each timed run.
    runs: Vec<f64>,
    best: f64,
    device: Option<f64>,
    spent: f64,
}

/// The clocks of one timed run, in seconds.
struct Times {
    wall: f64,
    device: Option<f64>,
}

impl Runner {
    /// Warms the body up and finds how many calls fill [`LEAST_RUN`].
    fn new(mut body: Body, backend: Arc<dyn Backend>) -> Result<Self, BenchError> {
        body()?;
        backend.finish()?;
        let mut batch = 1;
        loop {
            let seconds = time(&mut body, batch, &*backend)?.wall;
            if seconds >= LEAST_RUN || batch >= 1 << 20 {
                let best = seconds / batch as f64;
                return Ok(Self { body, backend, batch, runs: Vec::new(), best, device: None, spent: 0.0 });
            }
            // At least twice as many, at most as many as the present speed asks for.
            let wanted = (LEAST_RUN / seconds.max(1e-9) * 1.2 * batch as f64) as usize;
            batch = wanted.clamp(2 * batch, 64 * batch);
        }
    }

    fn run(&mut self) -> Result<(), BenchError> {
        if self.best < LONG_CALL {
            (self.body)()?;
            self.backend.finish()?;
        }
        let times = time(&mut self.body, self.batch, &*self.backend)?;
        let call = times.wall / self.batch as f64;
        self.spent += times.wall;
        self.best = self.best.min(call);
        self.device =
            times.device.map(|seconds| seconds / self.batch as f64).into_iter().chain(self.device).reduce(f64::min);
        if self.runs.len() < MOST_RUNS {
            self.runs.push(call);
        }
        Ok(())
    }

    fn done(&self, seconds: f64) -> bool {
        self.runs.len() >= LEAST_RUNS && self.spent >= seconds
    }

    fn timing(mut self) -> Option<Timing> {
        self.runs.sort_by(f64::total_cmp);
        let median = *self.runs.get(self.runs.len() / 2)?;
        let (best, device, runs, batch) = (self.best, self.device, self.runs.len(), self.batch);
        Some(Timing { best, median, device, runs, batch })
    }
}

fn time(body: &mut Body, batch: usize, backend: &dyn Backend) -> Result<Times, BenchError> {
    let clock = backend.device().filter(|device| device.clock().is_some());
    let mark = |mark| clock.map_or(Ok(()), |device| device.mark(mark));
    let start = Instant::now();
    mark(Mark::Begin)?;
    for _ in 0..batch {
        body()?;
    }
    mark(Mark::End)?;
    backend.finish()?;
    let wall = start.elapsed().as_secs_f64();
    Ok(Times { wall, device: clock.map(Device::elapsed).transpose()?.flatten() })
}

/// A pool of `threads` threads; the kernels split their work over the pool that they run in.
///
/// # Errors
/// [`BenchError::Threads`] with the system's reason.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, BenchError> {
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.build().map_err(|e| BenchError::Threads { threads, reason: e.to_string() })
}

/// Times every case; `progress` is called after each lap with the share of the work that is done (0..=1)
/// and the name of a case. A case that an interrupt left without a timed run is `None`.
///
/// # Errors
/// What a kernel refuses, and [`BenchError::Threads`].
pub fn run(
    cases: &[Case],
    settings: &Settings<'_>,
    mut progress: impl FnMut(f64, &str) + Send,
) -> Result<Vec<Option<Timing>>, BenchError> {
    let pool = pool(settings.threads)?;
    let mut timings = Vec::with_capacity(cases.len());
    for group in groups(cases) {
        let before = timings.len() as f64 / cases.len() as f64;
        let share = group.len() as f64 / cases.len() as f64;
        let measured = pool.install(|| laps(group, settings, |done, name| progress(before + share * done, name)))?;
        timings.extend(measured);
    }
    Ok(timings)
}

/// Neighbouring cases that may lie in memory together.
fn groups(cases: &[Case]) -> Vec<&[Case]> {
    let mut groups = Vec::new();
    let (mut begin, mut bytes) = (0, 0.0);
    for (index, case) in cases.iter().enumerate() {
        let footprint = case.cost().footprint();
        if index > begin && bytes + footprint > GROUP_BYTES {
            groups.push(&cases[begin..index]);
            (begin, bytes) = (index, 0.0);
        }
        bytes += footprint;
    }
    if begin < cases.len() {
        groups.push(&cases[begin..]);
    }
    groups
}

/// Runs the cases of a group in turns until each has had its time.
fn laps(
    group: &[Case],
    settings: &Settings<'_>,
    mut progress: impl FnMut(f64, &str),
) -> Result<Vec<Option<Timing>>, BenchError> {
    let stopped = || settings.interrupt.load(Ordering::Relaxed);
    let mut runners = Vec::with_capacity(group.len());
    for case in group {
        if stopped() {
            break;
        }
        progress(0.0, &case.id());
        runners.push(Runner::new(case.open()?, case.target.backend.clone())?);
    }
    while !stopped() && runners.iter().any(|r| !r.done(settings.seconds)) {
        let mut shown = 0;
        for (index, runner) in runners.iter_mut().enumerate().filter(|(_, r)| !r.done(settings.seconds)) {
            if stopped() {
                break;
            }
            shown = index;
            runner.run()?;
        }
        let share = |r: &Runner| if r.done(settings.seconds) { 1.0 } else { (r.spent / settings.seconds).min(0.99) };
        progress(runners.iter().map(share).sum::<f64>() / runners.len() as f64, &group[shown].id());
    }
    let mut timings: Vec<_> = runners.into_iter().map(Runner::timing).collect();
    timings.resize(group.len(), None);
    Ok(timings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scalar::Scalar;

    #[test]
    fn short_calls_are_batched_and_errors_come_through() {
        let mut runner = Runner::new(Box::new(|| Ok(())), Arc::new(Scalar)).unwrap();
        assert!(runner.batch > 100, "{}", runner.batch);
        (0..5).for_each(|_| runner.run().unwrap());
        assert!(runner.done(0.0) && !runner.done(1e9));
        let timing = runner.timing().unwrap();
        assert!(timing.runs == 5 && timing.best <= timing.median && timing.best < 1e-5, "{timing:?}");
        assert_eq!(timing.device, None);
        let refuse: Body =
            Box::new(|| Err(BenchError::OutOfRange { name: "x", expected: "1".into(), found: "2".into() }));
        assert!(Runner::new(refuse, Arc::new(Scalar)).is_err());
    }

    #[test]
    fn a_call_that_takes_long_runs_alone() {
        let sleep: Body = Box::new(|| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        });
        let runner = Runner::new(sleep, Arc::new(Scalar)).unwrap();
        assert_eq!(runner.batch, 1);
        assert_eq!(runner.timing(), None);
    }
}
