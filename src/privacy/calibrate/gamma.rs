//! Scale, noise and ring of a Skellam mixture together: the largest gamma that the ring allows.

use super::wrap::{self, RingUse, check_wrap};
use super::{SkellamKind, Uses, gaussian_multiplier};
use crate::privacy::accountant::Rule;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::mechanism::fixed::padded;

/// What to calibrate gamma and mu for.
#[derive(Clone, Debug, PartialEq)]
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
    /// Rate, stages of rounds, delta, accountants.
    pub uses: Uses,
    /// Epsilon to meet, > 0.
    pub target_epsilon: f64,
    /// Largest predicted share of wrapped coordinates, in (0, 1).
    pub wrap_limit: f64,
    /// Variance of the noise that is released over that which is accounted, >= 1: what else the ring must hold.
    pub inflation: f64,
}

/// Scale and noise that meet a target inside a ring.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// Scale.
    pub gamma: f64,
    /// Noise of the sum, in rounds of factor 1.
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
/// [`super::calibrate_mu_by`].
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
    let multiplier = gaussian_multiplier(&request.uses, request.target_epsilon)?;
    // Renyi divergences are quick, and near: where they have a scale, the search by another rule begins there.
    let near = match request.uses.rule {
        Rule::Rdp => None,
        _ => request.by_divergences().search(multiplier, None).ok(),
    };
    let best = request.search(multiplier, near.map(|tried| tried.gamma))?;
    let ring = request.ring(best.gamma, best.mu_total);
    Ok(Calibration {
        gamma: best.gamma,
        mu_total: best.mu_total,
        epsilon: request.epsilon(best.gamma, best.mu_total)?,
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
    /// The ring in the rounds with the most noise.
    #[must_use]
    pub fn ring(&self, gamma: f64, mu_total: f64) -> RingUse {
        let greatest = self.uses.stages.greatest();
        RingUse::skellam(gamma, self.clip, self.inflation * mu_total * greatest * greatest, self.cohort, self.dim)
    }

    /// Epsilon of the run at this scale and noise.
    ///
    /// # Errors
    /// As [`Uses::epsilon`].
    pub fn epsilon(&self, gamma: f64, mu_total: f64) -> Result<f64, PrivacyError> {
        Ok(self.uses.skellam(self.kind, (gamma, self.clip), Some(padded(self.dim, true) as u64), mu_total)?.epsilon)
    }

    /// The least noise (up to 1e-4 in epsilon) at this scale.
    ///
    /// # Errors
    /// As [`calibrate_gamma`].
    pub fn noise_at(&self, gamma: f64) -> Result<f64, PrivacyError> {
        self.noise(gamma, gaussian_multiplier(&self.uses, self.target_epsilon)?)
    }

    /// The same, found from the multiplier of a Gaussian.
    fn noise(&self, gamma: f64, multiplier: f64) -> Result<f64, PrivacyError> {
        let search = super::mu_search(self.target_epsilon, (gamma, self.clip), multiplier)?;
        search.run(|mu| self.epsilon(gamma, mu))
    }

    fn by_divergences(&self) -> Self {
        Self { uses: Uses { rule: Rule::Rdp, ..self.uses.clone() }, ..self.clone() }
    }

    fn at(&self, gamma: f64, multiplier: f64) -> Result<Tried, PrivacyError> {
        let mu_total = self.noise(gamma, multiplier)?;
        Ok(Tried { gamma, mu_total, sigma: self.ring(gamma, mu_total).sigma() })
    }

    /// The largest gamma whose sigma is the one at which the ring wraps as often as allowed; the secant on
    /// log-log axes, since sigma is close to proportional to gamma. Begins at `near`, if that is given. Scales at which no
    /// noise meets the target (none so wide is certified) are too large as well.
    fn search(&self, multiplier: f64, near: Option<f64>) -> Result<Tried, PrivacyError> {
        let allowed = wrap::allowed_sigma(self.bits, self.wrap_limit);
        let (smallest, largest) = (2f64.powi(-10) / self.clip, 2f64.powi(29) / self.clip);
        let (mut low, mut high): (Option<Tried>, Option<Tried>) = (None, None);
        // As if the noise were Gaussian and rounding at its worst.
        let noise = multiplier * self.uses.stages.greatest();
        let spread = noise * noise + self.ring(1.0 / self.clip, 1.0).signal_rms.powi(2);
        let room = (allowed * allowed - self.cohort / 6.0).max(0.1 * allowed * allowed);
        let mut gamma = near.unwrap_or((room / spread).sqrt() / self.clip).clamp(smallest, largest);
        let mut multiplier = multiplier;
        let mut ceiling = f64::INFINITY;
        for _ in 0..60 {
            let tried = match self.at(gamma, multiplier) {
                Err(PrivacyError::Infeasible { .. }) if gamma > smallest => {
                    ceiling = gamma;
                    gamma = low.map_or(0.5 * gamma, |l: Tried| (l.gamma * gamma).sqrt()).max(smallest);
                    continue;
                }
                tried => tried?,
            };
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
            if let (Some(l), true) = (low, gamma >= ceiling) {
                if ceiling < 1.01 * l.gamma {
                    break;
                }
                gamma = (l.gamma * ceiling).sqrt();
            }
        }
        low.ok_or_else(|| {
            let mu_total = high.map_or(0.0, |h| h.mu_total);
            self.ring(smallest, mu_total).refusal(self.bits, self.wrap_limit)
        })
    }
}
