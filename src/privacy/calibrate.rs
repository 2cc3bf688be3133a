//! From a target epsilon to noise, scale and ring: monotone bisection on the upper bound.

pub mod wrap;

use crate::privacy::DpEvent;
use crate::privacy::accountant::rdp::{published, validate};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::mechanism::binomial::MOST_COINS;
use crate::privacy::mechanism::rounded::RoundedScale;
use wrap::{RingUse, check_wrap};

/// A calibrated epsilon lies in `[target (1 - TOLERANCE), target]`.
const TOLERANCE: f64 = 1e-4;
/// Evaluations of epsilon before the bracket's safe end is returned as it is.
const MAX_STEPS: usize = 80;

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

    /// The accountant that a calibration asks: Renyi divergences, but for the binomial, whose are infinite.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Binomial(_) => Rule::Pld,
            _ => Rule::Rdp,
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
    calibrate_mu_by(kind.rule(), |mu| kind.event(mu, gamma, clip, None), (gamma, clip), schedule, target)
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
    search_mu(rule, event, scale, (schedule, target), multiplier)
}

/// [`calibrate_mu_by`] that starts at the noise of a Gaussian, `2 mu = (multiplier gamma C)^2`: for `smm` and Renyi
/// accounting a percent or less away.
fn search_mu(
    rule: Rule,
    event: impl Fn(f64) -> DpEvent,
    (gamma, clip): (f64, f64),
    (schedule, target): (&Schedule, f64),
    multiplier: f64,
) -> Result<f64, PrivacyError> {
    validate::positive("gamma", gamma)?;
    validate::positive("clip", clip)?;
    let sigma = multiplier * gamma * clip;
    let search = Search { target, guess: 0.5 * sigma * sigma, factor: 1.01, largest: 1e30 };
    search.run(schedule, rule, event)
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
    let search = Search { target, guess: 1.0, factor: 2.0, largest: 1e15 };
    search.run(schedule, rule, event)
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

/// Smallest noise level that a search tries.
const SMALLEST: f64 = 1e-12;

/// The search for the least noise level in `[SMALLEST, largest]` whose epsilon is at most `target`.
struct Search {
    target: f64,
    /// Where it starts.
    guess: f64,
    /// First step of the bracket, a factor > 1 that is squared at each further step.
    factor: f64,
    largest: f64,
}

impl Search {
    /// Epsilon of `event(noise)` must not grow with the noise. The noise returned was evaluated: its
    /// epsilon is at most the target.
    fn run(&self, schedule: &Schedule, rule: Rule, event: impl Fn(f64) -> DpEvent) -> Result<f64, PrivacyError> {
        let target = self.target;
        validate::positive("target epsilon", target)?;
        let at = |noise: f64| Ok::<_, PrivacyError>((noise, schedule.epsilon(rule, event(noise))?.epsilon));
        // Bracket: epsilon(low) > target >= epsilon(high).
        let first = at(self.guess.clamp(SMALLEST, self.largest))?;
        let (mut low, mut high) = (first, first);
        let mut factor = self.factor;
        while high.1 > target {
            if high.0 >= self.largest {
                return Err(PrivacyError::Infeasible {
                    target,
                    reason: format!("delta {:e} costs more at every order, whatever the noise", schedule.delta),
                    reachable: high.1,
                });
            }
            low = high;
            high = at((high.0 * factor).min(self.largest))?;
            factor *= factor;
        }
        let mut factor = self.factor;
        while low.1 <= target {
            // Nothing to protect (rate or rounds 0): any noise will do.
            if low.0 <= SMALLEST {
                return Ok(low.0);
            }
            high = low;
            low = at((low.0 / factor).max(SMALLEST))?;
            factor *= factor;
        }
        for step in 0..MAX_STEPS {
            if high.1 >= target * (1.0 - TOLERANCE) || high.0 / low.0 - 1.0 < 1e-12 {
                break;
            }
            let next = at(between(low, high, target, step))?;
            if next.1 > target {
                low = next;
            } else {
                high = next;
            }
        }
        Ok(high.0)
    }
}

/// A point between the ends of a bracket on log-log axes: the secant aimed just below the target, every
/// third step the middle.
fn between(low: (f64, f64), high: (f64, f64), target: f64, step: usize) -> f64 {
    let (x0, x1) = (low.0.ln(), high.0.ln());
    let (y0, y1) = (low.1.ln(), high.1.max(1e-300).ln());
    let middle = 0.5 * (x0 + x1);
    let aim = target.ln() - 0.4 * TOLERANCE;
    let secant = x0 + (x1 - x0) * (y0 - aim) / (y0 - y1);
    let inside = secant.is_finite() && secant > x0 && secant < x1;
    if inside && step % 3 != 2 { secant.exp() } else { middle.exp() }
}

/// What to calibrate gamma and mu for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GammaRequest {
    /// Mechanism.
    pub kind: SkellamKind,
    /// Ring width b, 2..=32.
    pub bits: u32,
    /// Coordinates of a row, before padding.
    pub dim: usize,
    /// Expected clients in a sum, > 0.
    pub cohort: f64,
    /// L2 bound C of a row.
    pub clip: f64,
    /// Rate, rounds, delta.
    pub schedule: Schedule,
    /// Epsilon to meet, > 0.
    pub target_epsilon: f64,
    /// Largest predicted share of wrapped coordinates, in (0, 1).
    pub wrap_limit: f64,
}

/// Scale and noise that meet a target inside a ring.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// Scale.
    pub gamma: f64,
    /// Noise of the sum.
    pub mu_total: f64,
    /// Epsilon it gives, at most the target.
    pub epsilon: f64,
    /// Ring width.
    pub bits: u32,
    /// Predicted share of wrapped coordinates.
    pub predicted_wrap: f64,
}

/// The largest gamma (within 0.5 %) whose predicted wrap rate stays at or below the limit, with the noise
/// that meets the target at that gamma. The rate grows with gamma: noise and signal scale with it.
///
/// # Errors
/// [`PrivacyError::Wraps`] if the ring is too small even for the smallest gamma tried (`2^-10 / C`, where
/// rounding noise rules); [`PrivacyError::Infeasible`] and [`PrivacyError::OutOfRange`] as
/// [`calibrate_mu`].
pub fn calibrate_gamma(request: &GammaRequest) -> Result<Calibration, PrivacyError> {
    validate::bits(request.bits)?;
    validate::positive("clip", request.clip)?;
    validate::positive("cohort", request.cohort)?;
    validate::positive("wrap_limit", request.wrap_limit)?;
    if request.wrap_limit >= 1.0 {
        return Err(PrivacyError::OutOfRange {
            name: "wrap_limit",
            expected: "a number in (0, 1)".to_owned(),
            found: request.wrap_limit.to_string(),
        });
    }
    let multiplier =
        calibrate_noise_multiplier(&request.schedule, request.target_epsilon, Rule::Rdp, discrete_gaussian)?;
    let best = request.search(multiplier)?;
    let ring = request.ring(best.gamma, best.mu_total);
    let event = request.kind.event(best.mu_total, best.gamma, request.clip, None);
    Ok(Calibration {
        gamma: best.gamma,
        mu_total: best.mu_total,
        epsilon: request.schedule.epsilon(request.kind.rule(), event)?.epsilon,
        bits: request.bits,
        predicted_wrap: check_wrap(request.bits, &ring, request.wrap_limit)?,
    })
}

/// A scale that was tried.
#[derive(Clone, Copy)]
struct Tried {
    gamma: f64,
    mu_total: f64,
    /// Standard deviation of a coordinate of the sum.
    sigma: f64,
}

impl GammaRequest {
    fn ring(&self, gamma: f64, mu_total: f64) -> RingUse {
        RingUse::skellam(gamma, self.clip, mu_total, self.cohort, self.dim)
    }

    fn at(&self, gamma: f64, multiplier: f64) -> Result<Tried, PrivacyError> {
        let event = |mu| self.kind.event(mu, gamma, self.clip, None);
        let wanted = (&self.schedule, self.target_epsilon);
        let mu_total = search_mu(self.kind.rule(), event, (gamma, self.clip), wanted, multiplier)?;
        Ok(Tried { gamma, mu_total, sigma: self.ring(gamma, mu_total).sigma() })
    }

    /// The largest gamma whose sigma is the one at which the ring wraps as often as allowed; the secant on
    /// log-log axes, since sigma is close to proportional to gamma.
    fn search(&self, multiplier: f64) -> Result<Tried, PrivacyError> {
        let allowed = wrap::allowed_sigma(self.bits, self.wrap_limit);
        let (smallest, largest) = (2f64.powi(-10) / self.clip, 2f64.powi(29) / self.clip);
        let (mut low, mut high): (Option<Tried>, Option<Tried>) = (None, None);
        // As if the noise were Gaussian and rounding at its worst.
        let spread = multiplier * multiplier + self.ring(1.0 / self.clip, 1.0).signal_rms.powi(2);
        let room = (allowed * allowed - self.cohort / 6.0).max(0.1 * allowed * allowed);
        let mut gamma = ((room / spread).sqrt() / self.clip).clamp(smallest, largest);
        let mut multiplier = multiplier;
        for _ in 0..60 {
            let tried = self.at(gamma, multiplier)?;
            // mu / gamma^2 changes slowly: the next search starts where this one ended.
            multiplier = (2.0 * tried.mu_total).sqrt() / (gamma * self.clip);
            *(if tried.sigma <= allowed { &mut low } else { &mut high }) = Some(tried);
            gamma = match (low, high) {
                (Some(l), _) if l.sigma >= 0.995 * allowed || l.gamma >= largest => break,
                (Some(l), Some(h)) if h.gamma / l.gamma < 1.001 => break,
                (Some(l), Some(h)) => {
                    let width = (h.gamma / l.gamma).ln();
                    let step = (0.998 * allowed / l.sigma).ln() * width / (h.sigma / l.sigma).ln();
                    l.gamma * step.clamp(0.02 * width, 0.98 * width).exp()
                }
                (Some(l), None) => (l.gamma * (0.999 * allowed / l.sigma).max(1.001)).min(largest),
                (None, Some(h)) if h.gamma <= smallest => break,
                // Rounding noise does not shrink with gamma: take real steps.
                (None, Some(h)) => (h.gamma * (0.99 * allowed / h.sigma).min(0.9)).max(smallest),
                (None, None) => break,
            };
        }
        low.ok_or_else(|| {
            let mu_total = high.map_or(0.0, |h| h.mu_total);
            self.ring(smallest, mu_total).refusal(self.bits, self.wrap_limit)
        })
    }
}
