//! A kernel that has lost its speed fails here: every stage against the oracle, interleaved, as a ratio.
//!
//! No time is asserted. The margins are generous, the best of several runs counts, and a second process on
//! the machine gets three chances to be done with what it does.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use veilsum::backend::BackendKind;
use veilsum::backend::simd::isa::Isa;
use veilsum::bench::measure::{Settings, run};
use veilsum::bench::request::{Case, Request, plan};
use veilsum::bench::stages::STAGES;

/// On NEON every kernel is at least this many times as fast as the oracle ...
const NEON: f64 = 0.3;
/// ... and so it is on arrays, which are slow in a build that is made for testing; but for these: the oracle of
/// `keystream` is a library with vectors of its own, optimized in every build, and noise is made of it.
const ARRAYS: f64 = 0.3;
const SLOW_ARRAYS: &[(&str, f64)] = &[("keystream", 0.03), ("noise", 0.04), ("encode", 0.06)];
/// On AVX2 and AVX-512: less than half of what the slowest variant reached in a build for testing, where the
/// checks of the compiler cost a kernel more than the oracle. A release reaches several times as much.
const WIDE: &[(&str, f64)] = &[
    ("clip", 1.3),
    ("fwht", 2.5),
    ("encode", 4.0),
    ("keystream", 0.15),
    ("noise", 3.0),
    ("pack", 10.0),
    ("unpack", 8.0),
    ("mask", 3.0),
    ("sum", 3.0),
    ("decode", 2.0),
    ("ntt", 1.2),
    ("intt", 1.6),
    ("polymul", 100.0),
    ("encrypt", 5.0),
    ("gram", 3.0),
    ("median", 5.0),
    ("trimmed-mean", 5.0),
    ("ghost", 6.0),
];
/// Chances to reach them.
const ATTEMPTS: usize = 3;

/// Least ratio of the oracle's time to a kernel's.
fn floor(stage: &str, isa: Isa) -> f64 {
    let of = |table: &[(&str, f64)]| table.iter().find(|(name, _)| *name == stage).map(|(_, least)| *least);
    match isa {
        Isa::Portable => of(SLOW_ARRAYS).unwrap_or(ARRAYS),
        Isa::Neon => NEON.min(of(SLOW_ARRAYS).unwrap_or(NEON)),
        _ => of(WIDE).expect("a floor for every stage: add one to WIDE"),
    }
}

/// What was asked of a kernel, and the best it has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Check {
    floor: f64,
    ratio: f64,
}

/// The best of each check over all attempts.
#[derive(Debug, Default)]
struct Judge(BTreeMap<String, Check>);

impl Judge {
    fn hear(&mut self, name: String, floor: f64, ratio: f64) {
        let check = self.0.entry(name).or_insert(Check { floor, ratio });
        // A ratio that is no number counts as nothing.
        check.ratio = if ratio > check.ratio || check.ratio.is_nan() { ratio } else { check.ratio };
    }

    /// The checks that nothing has met so far.
    fn failures(&self) -> Vec<String> {
        let failed = self.0.iter().filter(|(_, c)| c.ratio.is_nan() || c.ratio < c.floor);
        failed.map(|(name, c)| format!("{name}: {:.2}x of the oracle, expected {:.2}x", c.ratio, c.floor)).collect()
    }
}

/// Each variant of each stage at its smallest usual size, on the oracle and on every instruction set.
fn cases() -> Vec<Case> {
    let both = ["scalar", "simd"].map(str::to_owned).to_vec();
    let of = |stage: &veilsum::bench::stages::Stage| {
        let sizes = vec![stage.sizes.iter().copied().filter(|d| *d >= 1 << 12 || *d == stage.oracle).min()?];
        let names = vec![stage.name.to_owned()];
        let isas = vec!["all".into()];
        plan(&Request { stages: names, backends: both.clone(), isas, sizes, ..Request::default() }).ok()
    };
    STAGES.iter().filter_map(of).flatten().collect()
}

fn attempt(cases: &[Case], judge: &mut Judge) {
    let never = AtomicBool::new(false);
    let settings = Settings { seconds: 0.01, threads: 1, interrupt: &never };
    let timings = run(cases, &settings, |_, _| {}).unwrap();
    let mut oracle = f64::NAN;
    // The oracle comes first among the backends of a shape.
    for (case, timing) in cases.iter().zip(timings) {
        let best = timing.unwrap().best;
        if case.target.backend.kind() == BackendKind::Scalar {
            oracle = best;
        } else {
            let isa = case.target.isa;
            judge.hear(format!("{} {isa}", case.id()), floor(case.stage.name, isa), oracle / best);
        }
    }
}

#[test]
fn no_kernel_has_become_slower_than_it_may() {
    let cases = cases();
    assert!(STAGES.iter().all(|s| cases.iter().any(|c| c.stage.name == s.name)), "a stage without a case");
    let mut judge = Judge::default();
    for _ in 0..ATTEMPTS {
        attempt(&cases, &mut judge);
        if judge.failures().is_empty() {
            return;
        }
    }
    panic!("slower than the margin allows in {ATTEMPTS} attempts:\n{}", judge.failures().join("\n"));
}

#[test]
fn the_judge_can_fail_and_takes_the_best() {
    let mut judge = Judge::default();
    judge.hear("fwht avx2".into(), 3.0, 2.9);
    judge.hear("sum avx2".into(), 0.8, 0.9);
    assert_eq!(judge.failures(), ["fwht avx2: 2.90x of the oracle, expected 3.00x"]);
    judge.hear("fwht avx2".into(), 3.0, 8.0);
    judge.hear("fwht avx2".into(), 3.0, 1.0);
    assert!(judge.failures().is_empty());
    judge.hear("clip avx2".into(), 1.5, f64::NAN);
    assert_eq!(judge.failures().len(), 1);
    judge.hear("clip avx2".into(), 1.5, 2.0);
    assert!(judge.failures().is_empty());
}

#[test]
fn every_stage_has_a_floor() {
    assert_eq!((floor("fwht", Isa::Portable), floor("fwht", Isa::Neon)), (ARRAYS, NEON));
    assert!(STAGES.iter().all(|stage| floor(stage.name, Isa::Avx2) > 0.0));
    assert!(WIDE.iter().all(|(name, _)| STAGES.iter().any(|s| s.name == *name)));
}
