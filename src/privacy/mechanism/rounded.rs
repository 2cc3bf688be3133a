//! Rotation, scale and stochastic rounding held under a bound on the *rounded* row: what the mechanisms share whose noise is
//! accounted on integers (Kairouz, Liu, Steinke 2021, section 4.1; Agarwal, Kairouz, Liu 2021, section 4.1).
//!
//! Rounding moves a row out of the ball of radius `R = gamma C`. The papers draw the rounding again until the integers r obey
//! `|r|_2 <= B`; here a row above B is shrunk toward zero, exactly and in every pass, so that neither a retry nor its time
//! tells of the data ([`norm_kind::ROUNDED`]). Either way B is the exact sensitivity, whatever its value: a small B costs
//! bias, a large one noise.
//!
//! **The bound.** With d coordinates, padding included, and `l = sqrt(2 ln(1/beta))`, a row of norm R exceeds
//! ```text
//! B^2 = min( (R + sqrt d)^2,  R^2 + d g(R^2/d) + l (R + sqrt(d)/2) ),   g(u) = sqrt(u) - u up to 1/4, 1/4 beyond
//! ```
//! with probability at most beta. *Proof.* No rounding moves a coordinate by more than 1. With p the fraction of `|x|`,
//! `E r^2 = x^2 + p (1-p)`, and `p (1-p) <= g(x^2)`: it is `|x| - x^2` up to `|x| = 1`, at most 1/4 anywhere. g is concave and
//! does not fall, so that `sum g(x_i^2) <= d g(R^2/d)` (Jensen). `r_i^2` takes two values, `2 f + 1` apart, `f = floor|x|`;
//! Hoeffding's inequality has `sum (2f+1)^2 <= 4 (R + sqrt(d)/2)^2`. [] The papers have 1/4 for g (their equation for
//! Delta_2): the same for `R >= sqrt(d)/2`, much more below.
//!
//! A shrunk row of zeros and ones loses all of them (`floor(1 num / 2^30) = 0`), so that beta should be small; the papers'
//! `e^(-1/2)` is for a retry.

use super::PrivacyError;
use super::fixed::{self, EncodeShape};
use crate::params::{EncodeParams, NO_LINF, norm_kind, rounding_kind};
use crate::privacy::accountant::rdp::validate;

/// Share of rows of full norm that the bound may shrink, where nothing else is said.
pub const DEFAULT_BETA: f64 = 1e-4;

/// Scale, clip, ring and bound of such a mechanism.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundedScale {
    /// Scale gamma. Finite, > 0.
    pub gamma: f64,
    /// L2 bound C of one client's row. Finite, > 0.
    pub clip: f64,
    /// Ring width b, 2..=32.
    pub bits: u32,
    /// Share of rows of full norm that the bound after rounding may shrink, in (0, 1).
    pub beta: f64,
}

/// `g` of the module's proof: the largest mean of `p (1-p)` for a mean square of u.
fn spread(u: f64) -> f64 {
    if u <= 0.25 { u.sqrt() - u } else { 0.25 }
}

/// `B^2` for rows of norm `l2` in integer units and `padded` coordinates, not rounded.
fn bound(l2: f64, padded: f64, beta: f64, variance: f64) -> f64 {
    let (reach, root) = (l2 + padded.sqrt(), padded.sqrt());
    let tail = (-2.0 * libm::log(beta)).sqrt() * (l2 + 0.5 * root);
    (reach * reach).min(l2 * l2 + padded * variance + tail)
}

/// The papers' `Delta_2^2` in integer units (Kairouz, Liu, Steinke 2021, equation 3): [`RoundedScale`] has less.
#[must_use]
pub fn published_bound(l2: f64, padded: f64, beta: f64) -> f64 {
    bound(l2, padded, beta, 0.25)
}

/// The least number whose square is at least the integer `square`.
fn root_above(square: u64) -> f64 {
    let square = square as f64 * (1.0 + f64::EPSILON);
    square.sqrt().next_up()
}

impl RoundedScale {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] as for [`Smm`](super::smm::Smm), and for a beta outside (0, 1).
    pub fn check(&self) -> Result<(), PrivacyError> {
        validate::bits(self.bits)?;
        fixed::check_scale(self.gamma, self.clip)?;
        if self.beta > 0.0 && self.beta < 1.0 {
            return Ok(());
        }
        let expected = "a number in (0, 1)".to_owned();
        Err(PrivacyError::OutOfRange { name: "beta", expected, found: self.beta.to_string() })
    }

    /// Coordinates of an encoded row of `dim` parameters.
    #[must_use]
    pub fn padded(dim: usize) -> u64 {
        fixed::padded(dim, true) as u64
    }

    /// `floor(B^2)` for rows of `padded` coordinates: the squared L2 sensitivity, which `encode` enforces.
    #[must_use]
    pub fn bound_squared(&self, padded: u64) -> u64 {
        let (l2, padded) = (self.gamma * self.clip, padded as f64);
        bound(l2, padded, self.beta, spread(l2 * l2 / padded)) as u64
    }

    /// `(L1, L2)` sensitivity: integers have `|r|_1 <= |r|_2^2`, and vectors `|r|_1 <= sqrt(d) |r|_2`.
    #[must_use]
    pub fn bounds(&self, padded: u64) -> (f64, f64) {
        let square = self.bound_squared(padded);
        let l2 = root_above(square);
        let l1 = (l2 * (padded as f64).sqrt()).next_up().min((square as f64).next_up());
        (l1, l2)
    }

    pub(super) fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        let fraction_bits = fixed::fraction_bits(self.gamma * self.clip);
        fixed::encode_params(EncodeShape {
            dim,
            rotate: true,
            bits: self.bits,
            fraction_bits,
            norm: norm_kind::ROUNDED,
            rounding: rounding_kind::STOCHASTIC,
            linf: NO_LINF,
            gamma: self.gamma,
            clip: self.clip as f32,
            norm_bound: u128::from(self.bound_squared(Self::padded(dim))),
        })
    }

    pub(super) fn rounding_std(&self, dim: usize) -> f64 {
        fixed::rounding_std(self.gamma * self.clip, fixed::padded(dim, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: RoundedScale = RoundedScale { gamma: 64.0, clip: 1.0, bits: 16, beta: 1e-4 };

    #[test]
    fn the_spread_bounds_every_row() {
        // Concave, and above p (1-p) for each x.
        for i in 0..4000 {
            let x = f64::from(i) / 1000.0;
            let p = x.fract();
            assert!(p * (1.0 - p) <= spread(x * x) + 1e-15, "{x}");
            let (u, v) = (x * x, (x + 0.3) * (x + 0.3));
            assert!(0.5 * (spread(u) + spread(v)) <= spread(0.5 * (u + v)) + 1e-15 && spread(u) <= spread(v));
        }
    }

    #[test]
    fn the_bound_is_below_the_published_one_and_never_inside_the_ball() {
        for (gamma, dim) in [(4.0, 65_536), (64.0, 65_536), (1000.0, 65_536), (3.0, 1), (0.5, 10)] {
            for beta in [0.9, (-0.5f64).exp(), 1e-4, 1e-12] {
                let scale = RoundedScale { gamma, beta, ..OK };
                let padded = RoundedScale::padded(dim);
                let found = scale.bound_squared(padded) as f64;
                assert!(found <= published_bound(gamma, padded as f64, beta) && found + 1.0 > gamma * gamma);
                let (l1, l2) = scale.bounds(padded);
                assert!(l2 * l2 >= found && l2 * l2 <= found * (1.0 + 1e-14) + 1e-300 && l1 >= l2 * (1.0 - 1e-15));
            }
        }
        let p = OK.encode_params(63_610).unwrap();
        assert_eq!((p.norm, p.norm_bound()), (norm_kind::ROUNDED, u128::from(OK.bound_squared(65_536))));
    }

    #[test]
    fn bad_parameters_are_refused() {
        for bad in [
            RoundedScale { beta: 0.0, ..OK },
            RoundedScale { beta: 1.0, ..OK },
            RoundedScale { beta: f64::NAN, ..OK },
            RoundedScale { bits: 1, ..OK },
            RoundedScale { gamma: -1.0, ..OK },
            RoundedScale { clip: f64::INFINITY, ..OK },
        ] {
            assert!(matches!(bad.check(), Err(PrivacyError::OutOfRange { .. })), "{bad:?}");
        }
    }
}
