//! An attack on the real mechanism: canaries go through encode, sum, noise and decode, and what can be told of them is
//! held against the epsilon that is claimed.
//!
//! A canary is a client with a vector of its own direction (`e_i`, rotated with everything else) and ten times the norm
//! that is allowed: the clip has to bring it back to C. It is in or out (its contribution zeroed, the neighbouring
//! relation zero-out) by a fair coin; all others contribute zero, and all noise shares are there. Over several rounds its
//! sign alternates, `c, -c, c, ...`, which costs the same and shows noise that is used twice. The score is the inner
//! product of the releases with what it would have sent.
//!
//! - One run: many canaries to a release, judged by [`one_run`].
//! - Many runs: one canary to a release, judged by [`many_runs`].
//!
//! The claim is the accountant's for the releases that are played: the server's view, or with a population the public
//! one, in which every client takes part in a round with probability n / N.
//!
//! [`Fault`] plants a known mistake: a self-test of the audit.

mod pipeline;

use std::sync::Arc;

use serde::Serialize;

use super::SimError;
use crate::backend::Backend;
use crate::config::resolve::{Resolved, Setting, resolve};
use crate::config::{ConfigError, PrivacyConfig};
use crate::fl::FlError;
use crate::math::prg::Secret;
use crate::privacy::accountant::pld::gaussian::epsilon_between;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::audit::Observation;
use crate::privacy::audit::many_runs::{self, ManyRuns};
use crate::privacy::audit::one_run::{self, OneRun};
use crate::privacy::calibrate::Schedule;
use crate::privacy::mechanism::{Mechanism, PrivacyError};
use crate::privacy::{SAMPLER_SHARE, View};
use pipeline::Pipeline;

/// A right mechanism is called broken with at most this probability.
pub const VERDICT_ERROR: f64 = 1e-3;
/// Trials of one run that choose the number of guesses: one in so many.
const PILOT: u64 = 4;
/// Least variance of the noise, in steps, whose curve is taken for that of a Gaussian.
const GAUSSIAN_VARIANCE: f64 = 256.0;
/// Most canaries or runs.
const MOST: u64 = 1 << 27;

/// A mistake that is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The noise is left out.
    NoNoise,
    /// Half the noise: half the standard deviation, a quarter of the variance.
    HalfNoise,
    /// Noise that is 10 % too low: 0.9 of the standard deviation, 0.81 of the variance.
    LowNoise,
    /// No bound on a vector is enforced.
    NoClip,
    /// The canaries' clients take part in every round, while Poisson sampling is claimed.
    FixedCohort,
    /// Every second round uses the randomness of the one before.
    ReusedRandomness,
}

impl Fault {
    /// Factor of the noise's variance.
    fn variance(self) -> f64 {
        match self {
            Self::NoNoise => 0.0,
            Self::HalfNoise => 0.25,
            Self::LowNoise => 0.81,
            Self::NoClip | Self::FixedCohort | Self::ReusedRandomness => 1.0,
        }
    }
}

/// How much is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// One run with at least so many canaries.
    Canaries(u64),
    /// So many runs with one canary.
    Runs(u64),
}

/// An audit.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The mechanism and its parameters; `delta` is that of the claim.
    pub privacy: PrivacyConfig,
    /// Coordinates d of a vector.
    pub dim: usize,
    /// Clients n of a round (expected, under sampling).
    pub cohort: u64,
    /// All clients N, of whom a Poisson sample takes part in a round; `None`: the same clients every round.
    pub population: Option<u64>,
    /// Rounds T of one run.
    pub rounds: u32,
    /// How much is played.
    pub size: Size,
    /// Confidence of the bound that is reported, in `[0.75, 1)`; the verdict has its own, [`VERDICT_ERROR`].
    pub confidence: f64,
    /// A planted mistake.
    pub fault: Option<Fault>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Right guesses among many canaries.
    OneRun(OneRun),
    /// False alarms and misses over many runs.
    ManyRuns(ManyRuns),
}

/// A lower bound of epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The bound is wrong with at most 1 minus this.
    pub confidence: f64,
    /// epsilon at the claim's delta is at least this.
    pub epsilon: f64,
    /// True if the bound is that of mu, as an epsilon of a Gaussian's curve.
    pub gaussian: bool,
    /// The counts.
    pub evidence: Evidence,
}

/// What the audit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The mechanism does not have the epsilon that is claimed.
    Violated,
    /// This attack did not refute the claim. No proof of it.
    Consistent,
}

/// Claim, measurement, verdict.
#[derive(Clone, Debug)]
pub struct AuditResult {
    /// What the mechanism resolved to.
    pub privacy: PrivacyConfig,
    /// The mechanism whose claim is tested.
    pub mechanism: Arc<dyn Mechanism>,
    /// The claim.
    pub claimed: EpsilonReport,
    /// Whose view the claim and the attack are of.
    pub view: View,
    /// Canaries of a release.
    pub canaries_per_release: usize,
    /// Canaries played, those of the pilot too.
    pub observations: usize,
    /// The bound at the confidence asked for.
    pub measured: Measured,
    /// The bound at the confidence of the verdict.
    pub strict: Measured,
    /// The verdict.
    pub verdict: Verdict,
}

fn invalid(name: &'static str, expected: impl Into<String>, found: impl ToString) -> SimError {
    ConfigError::Invalid { name, expected: expected.into(), found: found.to_string() }.into()
}

impl AuditConfig {
    fn rate(&self) -> f64 {
        self.population.map_or(1.0, |all| self.cohort as f64 / all as f64)
    }

    fn check(&self) -> Result<(), SimError> {
        let (name, size) = match self.size {
            Size::Canaries(n) => ("canaries", n),
            Size::Runs(n) => ("runs", n),
        };
        for (name, value, most) in [
            (name, size, MOST),
            ("dim", self.dim as u64, 1 << 24),
            ("cohort", self.cohort, MOST),
            ("rounds", u64::from(self.rounds), 1 << 20),
        ] {
            if value == 0 || value > most {
                return Err(invalid(name, format!("in 1..={most}"), value));
            }
        }
        if let Some(all) = self.population.filter(|&all| all < self.cohort) {
            return Err(invalid("population", format!("at least the cohort, {}", self.cohort), all));
        }
        if !(0.75..1.0).contains(&self.confidence) {
            return Err(invalid("confidence", "in [0.75, 1)", self.confidence));
        }
        match self.fault {
            Some(Fault::FixedCohort) if self.rate() >= 1.0 => Err(invalid(
                "population",
                "more than the cohort: fixed-cohort needs a claim of Poisson sampling",
                "absent",
            )),
            Some(Fault::ReusedRandomness) if self.rounds < 2 => {
                Err(invalid("rounds", "at least 2: reused-randomness needs two releases", self.rounds))
            }
            _ => Ok(()),
        }
    }
}

/// Plays the attack; `tick` is told how many of how many trials (runs, or releases full of canaries) are done.
///
/// # Errors
/// A parameter outside its range, a mechanism that offers no privacy, what the kernels refuse.
pub fn run(
    config: &AuditConfig,
    secret: &Secret,
    backend: &Arc<dyn Backend>,
    mut tick: impl FnMut(u64, u64),
) -> Result<AuditResult, SimError> {
    config.check()?;
    let (rate, rounds, delta) = (config.rate(), u64::from(config.rounds), config.privacy.delta);
    let setting = Setting { cohort: config.cohort as f64, rate, rounds, delta, dim: config.dim, participation: None };
    if config.privacy.schedule.is_some() {
        return Err(invalid("privacy.schedule", "absent: an audit plays rounds of one noise", "given"));
    }
    let Resolved { privacy, mechanism, .. } = resolve(&config.privacy, &setting)?;
    let schedule = Schedule { rate, rounds, delta: delta * (1.0 - SAMPLER_SHARE) };
    let claimed = schedule.epsilon(Rule::Best, mechanism.event(config.dim)).map_err(FlError::from)?;
    // Stated at the whole delta: the part that is set aside belongs to the claim.
    let claimed = EpsilonReport { delta, ..claimed };
    let pipeline = Pipeline::new(config, mechanism.as_ref(), backend, secret)?;
    let slots = pipeline.slots() as u64;
    let trials = match config.size {
        Size::Canaries(n) => n.div_ceil(slots),
        Size::Runs(n) => n,
    };
    let mut observations = Vec::with_capacity((trials * slots) as usize);
    let mut done = 0;
    for batch in 0.. {
        if done == trials {
            break;
        }
        let count = pipeline.batch().min(trials - done);
        observations.extend(pipeline.observe(batch, done, count as usize)?);
        done += count;
        tick(done, trials);
    }
    let gaussian = rate >= 1.0 && mechanism.noise().variance() >= GAUSSIAN_VARIANCE;
    let pilot = if trials >= PILOT { (trials / PILOT * slots) as usize } else { 0 };
    let judge = |error: f64| judge(config.size, &observations, pilot, delta, error, gaussian).map_err(FlError::from);
    let (measured, strict) = (judge(1.0 - config.confidence)?, judge(VERDICT_ERROR)?);
    let verdict = if strict.epsilon > claimed.epsilon { Verdict::Violated } else { Verdict::Consistent };
    let view = if rate < 1.0 { View::Public } else { View::Server };
    let (canaries_per_release, observations) = (slots as usize, observations.len());
    Ok(AuditResult { privacy, mechanism, claimed, view, canaries_per_release, observations, measured, strict, verdict })
}

fn judge(
    size: Size,
    observations: &[Observation],
    pilot: usize,
    delta: f64,
    error: f64,
    gaussian: bool,
) -> Result<Measured, PrivacyError> {
    let confidence = 1.0 - error;
    match size {
        Size::Canaries(_) => {
            let found = one_run::audit(observations, pilot, delta, error)?;
            Ok(Measured { confidence, epsilon: found.epsilon, gaussian: false, evidence: Evidence::OneRun(found) })
        }
        Size::Runs(_) => {
            let found = many_runs::audit(observations, delta, error)?;
            let mu = found.mu.value;
            let converted = if gaussian && mu > 0.0 { epsilon_between(mu, delta).0 } else { 0.0 };
            let (epsilon, gaussian) = (found.epsilon.value.max(converted), converted > found.epsilon.value);
            Ok(Measured { confidence, epsilon, gaussian, evidence: Evidence::ManyRuns(found) })
        }
    }
}
