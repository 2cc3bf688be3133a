//! From a target epsilon to noise, scale and ring: monotone bisection on the upper bound.

pub mod gamma;
pub mod search;
pub mod wrap;

use crate::privacy::DpEvent;
use crate::privacy::accountant::meter::{Course, Meter};
use crate::privacy::accountant::rdp::{published, validate};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::stages::Stages;
pub use gamma::{Calibration, GammaRequest, calibrate_gamma};
use search::Search;

/// The two distributed mechanisms whose noise is a Skellam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkellamKind {
    /// Plain L2 clip.
    Smm,
    /// As published.
    Smm2022,
}

impl SkellamKind {
    /// The event of one release of rows of `dim` coordinates, padding included (`None` leaves Renyi accounting only); for
    /// `smm-2022` without a coordinate bound (the order is chosen first).
    #[must_use]
    pub fn event(self, mu_total: f64, gamma: f64, clip: f64, dim: Option<u64>) -> DpEvent {
        let l2_bound = gamma * clip;
        match self {
            Self::Smm => DpEvent::SkellamMixture { mu: mu_total, l2_bound, dim },
            Self::Smm2022 => DpEvent::SkellamMixture2022 { mu: mu_total, c: l2_bound * l2_bound, l_inf: None },
        }
    }
}

/// How often a mechanism is used, and on what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Poisson sampling rate in `[0, 1]`; 1 = everybody, every round (also: the server's view).
    pub rate: f64,
    /// Number of releases.
    pub rounds: u64,
    /// Delta in (0, 1).
    pub delta: f64,
}

impl Schedule {
    /// Epsilon of `event` under this schedule.
    ///
    /// # Errors
    /// As [`Rule::epsilon`].
    pub fn epsilon(&self, rule: Rule, event: DpEvent) -> Result<EpsilonReport, PrivacyError> {
        let sampled = DpEvent::PoissonSampled { rate: self.rate, event: Box::new(event) };
        rule.epsilon(&sampled, self.rounds, self.delta)
    }
}

/// How a run uses a mechanism: [`Schedule`] with rounds of different noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Uses {
    /// Poisson sampling rate in `[0, 1]`.
    pub rate: f64,
    /// Delta in (0, 1), of which the sampler's share is set aside as in a run ([`crate::privacy::SAMPLER_SHARE`]).
    pub delta: f64,
    /// Rounds and their noise.
    pub stages: Stages,
    /// Which accountants are asked.
    pub rule: Rule,
}

impl Uses {
    /// Epsilon of the run, as the run itself will account it; `event` tells the event of a noise factor.
    ///
    /// # Errors
    /// As [`Rule::epsilon`].
    pub fn epsilon(&self, event: impl Fn(f64) -> DpEvent) -> Result<EpsilonReport, PrivacyError> {
        let sampled = |event| {
            if self.rate == 1.0 { event } else { DpEvent::PoissonSampled { rate: self.rate, event: Box::new(event) } }
        };
        let stages = self.stages.events(|factor| sampled(event(factor)));
        let releases: Vec<u64> = stages.iter().map(|(_, rounds)| *rounds).collect();
        Meter::of(Course { stages, stride: 1, rule: self.rule }, &[])?.exactly(&releases, self.delta)
    }

    /// Epsilon of a Skellam mixture; `mu_total` is that of rounds of factor 1, `scale` gamma and the clip bound.
    ///
    /// # Errors
    /// As [`Uses::epsilon`].
    pub fn skellam(
        &self,
        kind: SkellamKind,
        (gamma, clip): (f64, f64),
        padded: Option<u64>,
        mu_total: f64,
    ) -> Result<EpsilonReport, PrivacyError> {
        self.epsilon(|factor| kind.event(mu_total * factor * factor, gamma, clip, padded))
    }
}

/// The noise multiplier of a Gaussian that meets the target: where searches begin. The rule's own accountants need not
/// know it.
fn gaussian_multiplier(uses: &Uses, target: f64) -> Result<f64, PrivacyError> {
    calibrate_noise(&Uses { rule: Rule::Rdp, ..uses.clone() }, target, discrete_gaussian)
}

/// The least noise multiplier (of rounds of factor 1; up to 1e-4 in epsilon) whose `event` costs at most `target`.
///
/// # Errors
/// As [`calibrate_mu`].
pub fn calibrate_noise(uses: &Uses, target: f64, event: impl Fn(f64) -> DpEvent) -> Result<f64, PrivacyError> {
    let search = Search { target, guess: 1.0, factor: 2.0, largest: 1e12, grain: 0.0 };
    search.run(|noise| Ok(uses.epsilon(|factor| event(noise * factor))?.epsilon))
}

/// The least `mu_total` (up to 1e-4 in epsilon) whose epsilon by Renyi accounting is at most `target`.
///
/// For `smm-2022` no coordinate bound is assumed: take it afterwards from [`l_inf_of`].
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for bad parameters; [`PrivacyError::Infeasible`] if even the noise at the
/// far end (`mu = 1e30`) does not reach the target: delta and the largest order set a floor.
pub fn calibrate_mu(
    kind: SkellamKind,
    gamma: f64,
    clip: f64,
    schedule: &Schedule,
    target: f64,
) -> Result<f64, PrivacyError> {
    calibrate_mu_by(Rule::Rdp, |mu| kind.event(mu, gamma, clip, None), (gamma, clip), schedule, target)
}

/// The least `mu_total` (up to 1e-4 in epsilon) whose `event` costs at most `target` by `rule`; `scale` is gamma and the
/// clip bound, from which the search knows where to begin.
///
/// # Errors
/// As [`calibrate_mu`].
pub fn calibrate_mu_by(
    rule: Rule,
    event: impl Fn(f64) -> DpEvent,
    scale: (f64, f64),
    schedule: &Schedule,
    target: f64,
) -> Result<f64, PrivacyError> {
    let multiplier = calibrate_noise_multiplier(schedule, target, Rule::Rdp, discrete_gaussian)?;
    let search = mu_search(target, scale, multiplier)?;
    search.run(|mu| Ok(schedule.epsilon(rule, event(mu))?.epsilon))
}

/// A search of `mu_total` that starts at the noise of a Gaussian, `2 mu = (multiplier gamma C)^2`: for `smm` and Renyi
/// accounting a percent or less away.
fn mu_search(target: f64, (gamma, clip): (f64, f64), multiplier: f64) -> Result<Search, PrivacyError> {
    validate::positive("gamma", gamma)?;
    validate::positive("clip", clip)?;
    let sigma = multiplier * gamma * clip;
    Ok(Search { target, guess: 0.5 * sigma * sigma, factor: 1.01, largest: 1e30, grain: 0.0 })
}

/// The least noise multiplier (up to 1e-4 in epsilon) whose `event` costs at most `target` by `rule`.
///
/// # Errors
/// As [`calibrate_mu`].
pub fn calibrate_noise_multiplier(
    schedule: &Schedule,
    target: f64,
    rule: Rule,
    event: impl Fn(f64) -> DpEvent,
) -> Result<f64, PrivacyError> {
    let search = Search { target, guess: 1.0, factor: 2.0, largest: 1e15, grain: 0.0 };
    search.run(|noise| Ok(schedule.epsilon(rule, event(noise))?.epsilon))
}

/// A discrete Gaussian, as `central-gaussian` draws it.
#[must_use]
pub fn discrete_gaussian(noise_multiplier: f64) -> DpEvent {
    DpEvent::DiscreteGaussian { noise_multiplier }
}

/// The coordinate bound that belongs to the best order of the published accountant.
///
/// # Errors
/// As [`published::published_epsilon`].
pub fn l_inf_of(mu_total: f64, gamma: f64, clip: f64, schedule: &Schedule) -> Result<f64, PrivacyError> {
    let l2 = gamma * clip;
    let rounds = schedule.rounds as f64;
    Ok(published::published_epsilon(mu_total, l2 * l2, schedule.rate, rounds, schedule.delta, None)?.l_inf)
}
