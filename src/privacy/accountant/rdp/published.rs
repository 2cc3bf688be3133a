//! The accountant of the Skellam mixture mechanism as published (Bao et al. 2022), integer orders 2..=99.
//!
//! ```text
//! tau(a) = (1.2 a + 1) c / (4 mu_tot),
//! valid while |x|_inf < min(2 mu_tot / a, sqrt(4 mu_tot / (10.9 a^2 - 1.8 a - 9.1))).
//! ```
//! Poisson sampling by the binomial sum over `tau(j)`, the remove direction alone: that it covers both
//! directions is the **published claim**, kept here for parity and not proved again. At rate 1 the
//! reference program prints minus infinity; here it is the unsampled cost.

use super::subsample::remove_moment;
use super::{conversion, validate};
use crate::privacy::mechanism::PrivacyError;

/// Orders that the publication uses.
pub const ORDERS: std::ops::RangeInclusive<u32> = 2..=99;

/// Epsilon of the published accountant, with the coordinate bound that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedBound {
    /// Epsilon, natural log.
    pub epsilon: f64,
    /// The order that gave it.
    pub order: u32,
    /// Every coordinate must stay below this bound, in integer units.
    pub l_inf: f64,
}

/// `tau(a)`, unsampled.
#[must_use]
pub fn rdp(mu_total: f64, c: f64, order: u32) -> f64 {
    (1.2 * f64::from(order) + 1.0) * c / (4.0 * mu_total)
}

/// `tau_q(a)` at `rate` in `[0, 1]`.
#[must_use]
pub fn sampled_rdp(mu_total: f64, c: f64, rate: f64, order: u32) -> f64 {
    let moment = |j: u32| f64::from(j - 1) * rdp(mu_total, c, j);
    remove_moment(rate, order, moment) / f64::from(order - 1)
}

/// RDP of Skellam noise `Sk(mu, mu)` on a vector of integers that changes by at most `l1` and `l2`, at integer orders
/// (Agarwal, Kairouz, Liu 2021, Theorem 3.5): `a l2^2/(4 mu) + min(((2a-1) l2^2 + 6 l1)/(16 mu^2), 3 l1/(4 mu))`.
#[must_use]
pub fn skellam_rdp(mu: f64, l1: f64, l2: f64, order: f64) -> f64 {
    let more = ((2.0 * order - 1.0) * l2 * l2 + 6.0 * l1) / (16.0 * mu * mu);
    order * l2 * l2 / (4.0 * mu) + more.min(0.75 * l1 / mu)
}

/// The bound on a coordinate under which `tau(order)` holds; decreasing in the order.
#[must_use]
pub fn linf_bound(mu_total: f64, order: u32) -> f64 {
    let a = f64::from(order);
    (2.0 * mu_total / a).min((4.0 * mu_total / (10.9 * a * a - 1.8 * a - 9.1)).sqrt())
}

/// The least epsilon over the orders whose [`linf_bound`] allows `l_inf` (all of them for `None`).
///
/// `rounds` may be fractional, as in the published experiments (`epochs N / n`). Without any allowed
/// order, epsilon is infinite (with order 2 and its bound).
///
/// # Errors
/// [`PrivacyError::OutOfRange`] for a parameter outside its range.
pub fn published_epsilon(
    mu_total: f64,
    c: f64,
    rate: f64,
    rounds: f64,
    delta: f64,
    l_inf: Option<f64>,
) -> Result<PublishedBound, PrivacyError> {
    validate::positive("mu_total", mu_total)?;
    validate::positive("c", c)?;
    validate::rate(rate)?;
    validate::non_negative("rounds", rounds)?;
    validate::delta(delta)?;
    if let Some(bound) = l_inf {
        validate::positive("l_inf", bound)?;
    }
    let mut best = PublishedBound { epsilon: f64::INFINITY, order: 2, l_inf: linf_bound(mu_total, 2) };
    for order in ORDERS {
        let bound = linf_bound(mu_total, order);
        if l_inf.is_some_and(|b| b > bound) {
            break;
        }
        let cost = if rounds == 0.0 { 0.0 } else { rounds * sampled_rdp(mu_total, c, rate, order) };
        let epsilon = conversion::epsilon_at(cost, f64::from(order), delta);
        if epsilon < best.epsilon {
            best = PublishedBound { epsilon, order, l_inf: bound };
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_examples() {
        let dse = published_epsilon(595.0, 4096.0, 1.0, 1.0, 1e-5, None).unwrap();
        assert!((dse.epsilon / 12.718330135505079 - 1.0).abs() < 1e-12);
        assert!((dse.l_inf / 5.335625504243255 - 1.0).abs() < 1e-12);
        let mnist = published_epsilon(1428.0, 4096.0, 240.0 / 60000.0, 1000.0, 1e-5, None).unwrap();
        assert!((mnist.epsilon / 2.9987982384189564 - 1.0).abs() < 1e-9);
        assert_eq!(mnist.order, 5);
    }

    #[test]
    fn a_loose_coordinate_bound_rules_out_high_orders() {
        let free = published_epsilon(1428.0, 4096.0, 0.004, 1000.0, 1e-5, None).unwrap();
        let tight = published_epsilon(1428.0, 4096.0, 0.004, 1000.0, 1e-5, Some(linf_bound(1428.0, 3))).unwrap();
        assert!(tight.order <= 3 && tight.epsilon > free.epsilon);
        let none = published_epsilon(1428.0, 4096.0, 0.004, 1000.0, 1e-5, Some(1e6)).unwrap();
        assert!(none.epsilon.is_infinite());
    }
}
