//! From a target epsilon to noise, scale and ring: monotone bisection on the upper bound.

pub mod bias;
pub mod gamma;
pub mod search;
pub mod wrap;

use crate::privacy::DpEvent;
use crate::privacy::accountant::meter::{Course, Meter};
use crate::privacy::accountant::rdp::{published, validate};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::mechanism::binomial::MOST_COINS;
use crate::privacy::mechanism::rounded::RoundedScale;
use crate::privacy::stages::Stages;
pub use gamma::{Calibration, GammaRequest, calibrate_gamma};
use search::Search;

/// The distributed mechanisms. Each is searched by `mu_total`, half the variance of the noise of the sum: the Skellam
/// parameter of those whose noise is a Skellam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SkellamKind {
    /// Skellam mixture, plain L2 clip.
    Smm,
    /// Skellam mixture as published.
    Smm2022,
    /// Skellam noise on rounded rows.
    Skellam(Rounding),
    /// Discrete Gaussians of at most so many clients on rounded rows; `sigma_total = sqrt(2 mu_total)`.
    DistributedGaussian(Rounding, u64),
    /// Centred binomial noise on rounded rows; `coins = ceil(4 mu_total)`.
    Binomial(Rounding),
}

/// What the bound behind the rounding depends on, beside gamma and the clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    /// Coordinates of an encoded row, padding included.
    pub padded: u64,
    /// See [`RoundedScale::beta`].
    pub beta: f64,
}

impl Rounding {
    /// The `(L1, L2)` sensitivity at this scale.
    fn bounds(self, gamma: f64, clip: f64) -> (f64, f64) {
        RoundedScale { gamma, clip, bits: 32, beta: self.beta }.bounds(self.padded)
    }
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
            Self::Skellam(rounding) => {
                let (l1_bound, l2_bound) = rounding.bounds(gamma, clip);
                DpEvent::SkellamVector { mu: mu_total, l1_bound, l2_bound }
            }
            Self::DistributedGaussian(rounding, clients) => {
                let (l1_bound, l2_bound) = rounding.bounds(gamma, clip);
                let sigma = ((2.0 * mu_total).sqrt() / (clients as f64).sqrt()).next_down();
                DpEvent::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim: rounding.padded }
            }
            Self::Binomial(rounding) => {
                let (_, l2_bound) = rounding.bounds(gamma, clip);
                DpEvent::BinomialVector { coins: coins_of(mu_total), l2_bound }
            }
        }
    }

    /// How far rounding may move a row of norm `gamma C` out of its ball, as a share of the squared norm: 0 for the mixtures,
    /// which account for the rounding itself.
    #[must_use]
    pub fn inflation(self, gamma: f64, clip: f64) -> f64 {
        self.bound(gamma, clip).map_or(0.0, |(_, l2)| (l2 / (gamma * clip)).powi(2) - 1.0)
    }

    /// beta and the bound behind the rounding, where there is one.
    #[must_use]
    pub fn bound(self, gamma: f64, clip: f64) -> Option<(f64, f64)> {
        match self {
            Self::Smm | Self::Smm2022 => None,
            Self::Skellam(rounding) | Self::DistributedGaussian(rounding, _) | Self::Binomial(rounding) => {
                Some((rounding.beta, rounding.bounds(gamma, clip).1))
            }
        }
    }
}

/// Coins on each side of a centred binomial of variance `2 mu_total` or a little more: at least 1, at most what a mechanism
/// takes.
#[must_use]
pub fn coins_of(mu_total: f64) -> u64 {
    ((4.0 * mu_total).ceil() as u64).clamp(1, MOST_COINS)
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
        self.epsilon_of(self.stages.events(event))
    }

    /// The same of these events, each with its number of releases, instead of those of the stages.
    ///
    /// # Errors
    /// As [`Rule::epsilon`].
    pub fn epsilon_of(&self, stages: Vec<(DpEvent, u64)>) -> Result<EpsilonReport, PrivacyError> {
        let sampled = |event| {
            if self.rate == 1.0 { event } else { DpEvent::PoissonSampled { rate: self.rate, event: Box::new(event) } }
        };
        let stages: Vec<_> = stages.into_iter().map(|(event, rounds)| (sampled(event), rounds)).collect();
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
/// As [`calibrate_mu_by`].
pub fn calibrate_noise(uses: &Uses, target: f64, event: impl Fn(f64) -> DpEvent) -> Result<f64, PrivacyError> {
    let search = Search { target, guess: 1.0, factor: 2.0, largest: 1e12, grain: 0.0 };
    search.run(|noise| Ok(uses.epsilon(|factor| event(noise * factor))?.epsilon))
}

/// The least `mu_total` (up to 1e-4 in epsilon) whose `event` costs at most `target` by `rule`; `scale` is gamma and the
/// clip bound, from which the search knows where to begin. For `smm-2022` no coordinate bound is assumed: take it afterwards
/// from [`l_inf_of`].
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for bad parameters; [`PrivacyError::Infeasible`] if even the noise at the
/// far end (`mu = 1e30`) does not reach the target: delta and the largest order set a floor.
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
/// As [`calibrate_mu_by`].
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
