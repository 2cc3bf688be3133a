//! How fast each kernel is, beside what the machine could do at best.
//!
//! A [`stages::Stage`] is a line of data: a name, sizes, what a call costs at least, and how to make it.
//! [`request::plan`] turns the wishes of a user into cases, [`measure::run`] times them in turns,
//! [`limits::measure`] finds bandwidths and port rates on the spot, and [`record::Row`] puts the three
//! together: `fraction_of_limit` is the least time that the measured limits allow over the best time seen.

pub mod compare;
pub mod cost;
pub mod limits;
pub mod machine;
pub mod measure;
pub mod record;
pub mod request;
pub mod secagg;
pub mod show;
pub mod stages;

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use self::limits::Limits;
use self::machine::Machine;
use self::measure::Settings;
use self::record::{FORMAT, Header, Results, Row};
use self::request::{Case, Target};
use crate::backend::simd::isa::Isa;
use crate::backend::{BackendError, BackendKind};
use crate::math::ntt::NttError;
use crate::report::ReportError;
use crate::sample::SampleError;
use crate::secagg::SecAggError;

/// What can go wrong between a request and its table.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No such stage.
    #[error("no stage {name:?}{}; the stages are {known}", nearest.as_ref().map(|n| format!(": did you mean {n:?}?")).unwrap_or_default())]
    UnknownStage {
        /// What was asked for.
        name: String,
        /// The most similar name, if one is similar.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// A size or a number of rows that a stage does not take.
    #[error("{stage} takes {what} {expected}, found {found}")]
    Shape {
        /// The stage.
        stage: &'static str,
        /// Size or rows.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What was asked for.
        found: usize,
    },
    /// A number outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// The option.
        name: &'static str,
        /// What would be right.
        expected: String,
        /// What was asked for.
        found: String,
    },
    /// An instruction set for a backend that knows none.
    #[error("--isa {isa} is for the backend simd, and only {backends} was asked for")]
    NoIsa {
        /// The instruction set.
        isa: String,
        /// The backends of the request.
        backends: String,
    },
    /// A kernel or a backend refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A noise table could not be made.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A basis of transforms could not be made.
    #[error(transparent)]
    Ntt(#[from] NttError),
    /// The threads of the measurement could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
    /// A file that is not a result of this bench.
    #[error("{}:{line}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Two results that cannot be compared.
    #[error("nothing to compare: {} has no row for {wanted}; its rows are {found}", path.display())]
    NothingInCommon {
        /// The earlier result.
        path: PathBuf,
        /// The first cases of the new one.
        wanted: String,
        /// The first rows of the earlier one.
        found: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A protocol refused its parameters or a frame.
    #[error(transparent)]
    SecAgg(#[from] SecAggError),
    /// An aggregation ended without a sum.
    #[error("{case}: no sum was opened")]
    NoSum {
        /// Which one.
        case: String,
    },
    /// An aggregation opened to something else.
    #[error("{case}: the sum is not that of the vectors")]
    WrongSum {
        /// Which one.
        case: String,
    },
}

/// Cases and how to time them.
#[derive(Clone, Copy, Debug)]
pub struct Measurement<'a> {
    /// What to measure.
    pub cases: &'a [Case],
    /// How.
    pub settings: Settings<'a>,
}

/// Longest time that one figure of the limits is measured for, before and again after the cases.
const LIMIT_SECONDS: f64 = 0.02;

impl Measurement<'_> {
    /// Measures limits, cases, and limits again (the better of the two counts: a slow moment of the machine
    /// must not lower the bar). `progress` gets the share done and the name of what runs. After an interrupt
    /// the rows that have times are returned.
    ///
    /// # Errors
    /// [`BenchError::OutOfRange`] for the seconds, and what a kernel refuses.
    pub fn run(&self, mut progress: impl FnMut(f64, &str) + Send) -> Result<Results, BenchError> {
        let Settings { seconds, threads, interrupt } = self.settings;
        if !(1e-4..=3600.0).contains(&seconds) {
            let expected = "0.0001 to 3600".to_owned();
            return Err(BenchError::OutOfRange { name: "--seconds", expected, found: seconds.to_string() });
        }
        let machine = Machine::detect();
        let targets = self.units();
        let each = seconds.min(LIMIT_SECONDS);
        let probed = |progress: &mut dyn FnMut(f64, &str), share| -> Result<Vec<Limits>, BenchError> {
            let pool = measure::pool(threads)?;
            let probe = |target: &&Target| {
                progress(share, &format!("limits of {}", target.unit()));
                Ok(match target.backend.device() {
                    Some(device) => limits::measure_device(device, each)?,
                    None => limits::measure(&machine, target.isa, &pool, each),
                })
            };
            targets.iter().map(probe).collect()
        };
        let mut limits = probed(&mut progress, 0.0)?;
        let timings = measure::run(self.cases, &self.settings, &mut progress)?;
        let interrupted = interrupt.load(Ordering::Relaxed);
        if !interrupted {
            for (first, second) in limits.iter_mut().zip(probed(&mut progress, 1.0)?) {
                first.take_best(&second);
            }
        }
        let mut rows = Vec::new();
        for (case, timing) in self.cases.iter().zip(&timings) {
            let limit = limits.iter().find(|l| l.isa == case.target.unit());
            if let (Some(timing), Some(limit)) = (timing, limit) {
                rows.push(Row::planned(case, threads).measured(&case.cost(), timing, limit, &machine));
            }
        }
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let rows_found = rows.len();
        let header =
            Header { veilsum_bench: FORMAT, version, machine, threads, seconds, interrupted, rows: rows_found, limits };
        Ok(Results { header, rows })
    }

    /// A target of each instruction set, slowest first, then of each GPU backend.
    fn units(&self) -> Vec<&Target> {
        let host = Isa::ALL.map(Isa::name);
        let devices = [BackendKind::Wgpu, BackendKind::Cuda].map(BackendKind::name);
        let named = |unit: &'static str| self.cases.iter().map(|c| &c.target).find(|target| target.unit() == unit);
        host.into_iter().chain(devices).filter_map(named).collect()
    }
}
