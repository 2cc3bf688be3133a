//! The least noise that meets a target: a bracket, then a secant with halvings, on log-log axes.

use crate::privacy::accountant::rdp::validate;
use crate::privacy::mechanism::PrivacyError;

/// A calibrated epsilon lies in `[target (1 - TOLERANCE), target]`.
pub(super) const TOLERANCE: f64 = 1e-4;
/// Evaluations of epsilon before the bracket's safe end is returned as it is.
const MAX_STEPS: usize = 80;
/// Smallest noise level that a search tries.
const SMALLEST: f64 = 1e-12;

/// The search for the least noise level in `[1e-12, largest]` whose epsilon is at most `target`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Epsilon to meet, > 0.
    pub target: f64,
    /// Where it starts.
    pub guess: f64,
    /// First step of the bracket, a factor > 1 that is squared at each further step.
    pub factor: f64,
    /// Largest noise level.
    pub largest: f64,
    /// Levels that are nearer than this are one: 0 but for parameters that are whole numbers.
    pub grain: f64,
}

impl Search {
    /// The noise found, which was evaluated: its epsilon is at most the target, and above `target (1 - 1e-4)` unless
    /// epsilon jumps there. Epsilon must not grow with the noise.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a target not finite and > 0; [`PrivacyError::Infeasible`], with the epsilon of the
    /// largest noise, if that is above the target; what `epsilon` returns.
    pub fn run(&self, epsilon: impl Fn(f64) -> Result<f64, PrivacyError>) -> Result<f64, PrivacyError> {
        let target = self.target;
        validate::positive("target epsilon", target)?;
        let at = |noise: f64| Ok::<_, PrivacyError>((noise, epsilon(noise)?));
        // Bracket: epsilon(low) > target >= epsilon(high).
        let first = at(self.guess.clamp(SMALLEST, self.largest))?;
        let (mut low, mut high) = (first, first);
        let mut factor = self.factor;
        while high.1 > target {
            if high.0 >= self.largest {
                return Err(PrivacyError::Infeasible {
                    target,
                    reason: "at this delta even the largest noise that is tried costs more".to_owned(),
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
            if high.1 >= target * (1.0 - TOLERANCE) || high.0 - low.0 <= (1e-12 * low.0).max(self.grain) {
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
