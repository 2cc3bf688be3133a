//! From a target epsilon to noise, scale and ring: monotone bisection on the upper bound.

pub mod wrap;

use crate::privacy::DpEvent;
use crate::privacy::accountant::rdp::{RdpAccountant, published, validate};
use crate::privacy::accountant::{Accountant, EpsilonReport};
use crate::privacy::mechanism::PrivacyError;
use wrap::{RingUse, check_wrap};

/// A calibrated epsilon lies in `[target (1 - TOLERANCE), target]`.
const TOLERANCE: f64 = 1e-4;
/// Evaluations of epsilon before the bracket's safe end is returned as it is.
const MAX_STEPS: usize = 80;

/// The two distributed mechanisms whose noise is a Skellam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkellamKind {
    /// Plain L2 clip, numeric supremum.
    Smm,
    /// As published.
    Smm2022,
}

impl SkellamKind {
    /// The event of one release; for `smm-2022` without a coordinate bound (the order is chosen first).
    #[must_use]
    pub fn event(self, mu_total: f64, gamma: f64, clip: f64) -> DpEvent {
        let l2_bound = gamma * clip;
        match self {
            Self::Smm => DpEvent::SkellamMixture { mu: mu_total, l2_bound },
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
    /// As [`RdpAccountant`].
    pub fn epsilon(&self, event: DpEvent) -> Result<EpsilonReport, PrivacyError> {
        let mut accountant = RdpAccountant::new();
        let sampled = DpEvent::PoissonSampled { rate: self.rate, event: Box::new(event) };
        accountant.compose(&sampled, self.rounds)?;
        accountant.epsilon(self.delta)
    }
}

/// The least `mu_total` (up to 1e-4 in epsilon) whose epsilon is at most `target`.
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
    let l2 = gamma * clip;
    calibrate_mu_near(kind, gamma, clip, schedule, target, l2 * l2)
}

/// [`calibrate_mu`] from a first guess.
fn calibrate_mu_near(
    kind: SkellamKind,
    gamma: f64,
    clip: f64,
    schedule: &Schedule,
    target: f64,
    guess: f64,
) -> Result<f64, PrivacyError> {
    validate::positive("gamma", gamma)?;
    validate::positive("clip", clip)?;
    solve(target, guess, 1e30, schedule, |mu| kind.event(mu, gamma, clip))
}

/// The least noise multiplier (up to 1e-4 in epsilon) of a Gaussian whose epsilon is at most `target`.
///
/// # Errors
/// As [`calibrate_mu`].
pub fn calibrate_noise_multiplier(schedule: &Schedule, target: f64) -> Result<f64, PrivacyError> {
    solve(target, 1.0, 1e15, schedule, |noise_multiplier| DpEvent::Gaussian { noise_multiplier })
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

/// The least noise level in `(0, largest]` whose epsilon is at most `target`; epsilon falls with it.
fn solve(
    target: f64,
    guess: f64,
    largest: f64,
    schedule: &Schedule,
    event: impl Fn(f64) -> DpEvent,
) -> Result<f64, PrivacyError> {
    validate::positive("target epsilon", target)?;
    let epsilon = |noise: f64| Ok::<f64, PrivacyError>(schedule.epsilon(event(noise))?.epsilon);
    let guess = guess.clamp(1e-12, largest);
    let first = epsilon(guess)?;
    // Bracket: epsilon(low) > target >= epsilon(high).
    let (mut low, mut high) = ((guess, first), (guess, first));
    let mut factor = 4.0;
    while high.1 > target {
        if high.0 >= largest {
            return Err(PrivacyError::Infeasible {
                target,
                reason: format!("delta {:e} over {} rounds, whatever the noise", schedule.delta, schedule.rounds),
                reachable: high.1,
            });
        }
        low = high;
        let next = (high.0 * factor).min(largest);
        high = (next, epsilon(next)?);
        factor *= factor;
    }
    let mut factor = 4.0;
    while low.1 <= target {
        // Nothing to protect (rate or rounds 0): any noise will do.
        if low.0 <= 1e-12 {
            return Ok(low.0);
        }
        high = low;
        let next = (low.0 / factor).max(1e-12);
        low = (next, epsilon(next)?);
        factor *= factor;
    }
    for step in 0..MAX_STEPS {
        if high.1 >= target * (1.0 - TOLERANCE) || high.0 / low.0 - 1.0 < 1e-12 {
            break;
        }
        let next = between(low, high, target, step);
        let at = (next, epsilon(next)?);
        if at.1 > target {
            low = at;
        } else {
            high = at;
        }
    }
    Ok(high.0)
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

/// The largest gamma (within 0.1 %) whose predicted wrap rate stays at or below the limit, with the noise
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
    validate::delta(request.wrap_limit)?;
    let smallest = 2f64.powi(-10) / request.clip;
    let largest = 2f64.powi(29) / request.clip;
    // mu / (gamma C)^2 changes slowly, so that each calibration starts where the last one ended.
    let mut scaled_mu = 1.0;
    let mut at = |gamma: f64| -> Result<(f64, Calibration), PrivacyError> {
        let c = (gamma * request.clip) * (gamma * request.clip);
        let guess = scaled_mu * c;
        let mu_total =
            calibrate_mu_near(request.kind, gamma, request.clip, &request.schedule, request.target_epsilon, guess)?;
        scaled_mu = mu_total / c;
        let ring = request.ring(gamma, mu_total);
        let calibration = Calibration {
            gamma,
            mu_total,
            epsilon: f64::NAN,
            bits: request.bits,
            predicted_wrap: ring.wrap_rate(request.bits),
        };
        Ok((ring.sigma(), calibration))
    };
    // The sigma at which the ring wraps exactly as often as allowed.
    let allowed = wrap::allowed_sigma(request.bits, request.wrap_limit);
    // Bracket on sigma, then the secant on log-log axes (sigma is close to proportional to gamma).
    let (mut low, mut high): (Option<(f64, f64, Calibration)>, Option<(f64, f64)>) = (None, None);
    let mut gamma = (allowed / 2.0 / request.clip).clamp(smallest, largest);
    for _ in 0..40 {
        let (sigma, calibration) = at(gamma)?;
        if sigma <= allowed {
            low = Some((gamma, sigma, calibration));
            if gamma >= largest || sigma >= allowed * 0.999 {
                break;
            }
        } else {
            high = Some((gamma, sigma));
            if gamma <= smallest {
                let ring = request.ring(gamma, calibration.mu_total);
                return Err(ring.refusal(request.bits, request.wrap_limit));
            }
        }
        gamma = match (low, high) {
            (Some((g0, ..)), Some((g1, _))) if g1 / g0 < 1.001 => break,
            (Some((g0, s0, _)), Some((g1, s1))) => {
                let slope = (g1 / g0).ln() / (s1 / s0).ln();
                let step = ((allowed * 0.9995 / s0).ln() * slope).clamp(0.0, (g1 / g0).ln());
                let width = (g1 / g0).ln();
                g0 * step.clamp(0.02 * width, 0.98 * width).exp()
            }
            _ => (gamma * allowed / sigma * if sigma > allowed { 0.98 } else { 1.02 }).clamp(smallest, largest),
        };
    }
    let Some((_, _, mut calibration)) = low else {
        let (sigma, calibration) = at(smallest)?;
        let ring = request.ring(smallest, calibration.mu_total);
        if sigma > allowed {
            return Err(ring.refusal(request.bits, request.wrap_limit));
        }
        return finish(request, calibration);
    };
    calibration.bits = request.bits;
    finish(request, calibration)
}

/// Fills in epsilon and checks the wrap rate once more.
fn finish(request: &GammaRequest, mut calibration: Calibration) -> Result<Calibration, PrivacyError> {
    let ring = request.ring(calibration.gamma, calibration.mu_total);
    calibration.predicted_wrap = check_wrap(request.bits, &ring, request.wrap_limit)?;
    let event = request.kind.event(calibration.mu_total, calibration.gamma, request.clip);
    calibration.epsilon = request.schedule.epsilon(event)?.epsilon;
    Ok(calibration)
}

impl GammaRequest {
    fn ring(&self, gamma: f64, mu_total: f64) -> RingUse {
        RingUse::skellam(gamma, self.clip, mu_total, self.cohort, self.dim)
    }
}
