//! A Gaussian that dominates one coordinate of the Skellam mixture, up to a small delta.
//!
//! Wanted is a kappa such that for every x in `(0, R]` and every `epsilon` (Theorem 3 of `docs/smm-accounting.md`)
//! ```text
//! H_eps(P_x || Q), H_eps(Q || P_x)  <=  H_eps(N(kappa x, 1) || N(0, 1)) + delta0.
//! ```
//! `kappa = (1 + eta) / sqrt(2 mu)`. The likelihood ratio of the pair grows with k, so that its trade-off curve is the
//! polygon through `(Q(K >= k), P_x(K >= k))`, and the Gaussian's, `F_m(alpha) = Phi(Phi^-1(alpha) + m)`, is concave:
//! only the vertices count. Write `alpha_k = Q(K >= k) = Phi(-t_k)`. With `F_m F_n = F_(m+n)` everything follows from
//! finitely many inequalities that do not mention x:
//!
//! 1. unit steps: `t_k - t_(k-1) <= kappa`, up to where all beyond is below delta0;
//! 2. near zero: `q(0) <= kappa phi(t_1)`;
//! 3. fractions of a step, `2 <= k <= K0`: `max over p of p q(k-1) - [Phi(kappa p - t_k) - Phi(-t_k)] <= delta0`. With
//!    `b = t_k - kappa/2 > 0` the bracket is at least `phi(t_k) (e^(b kappa p) - 1) / b`, so that the maximum is at most
//!    `(phi/b) (r ln r - r + 1) <= (phi/b) (r-1)^2 / 2`, `r = q(k-1) / (kappa phi)`, and 0 for `r <= 1`;
//! 4. the other direction, `k >= 2`: `alpha_k + delta0 <= Phi(-kappa min(k-1, R) / 2)`.
//!
//! All of them are checked in intervals. Fractions of a step bind, at the far end of the range: eta is about
//! `t / (2 sqrt(2 mu))` where `Phi(-t)` is near delta0. For a whole step it would be `1 / (12 mu)`.

use super::law::IntegerLaw;
use super::normal::{density, quantile};
use crate::math::interval::Interval;

/// Largest mu that is tabled: a table has ten to forty standard deviations.
pub const LARGEST_MU: f64 = 16_777_216.0;
/// Largest `R / sqrt(2 mu)`: beyond it the far tails leave the range of numbers (and epsilon is some hundreds).
pub const WIDEST: f64 = 25.0;
/// Values of delta0 that are tried, the largest that is small enough.
const LADDER: [f64; 9] = [1e-14, 1e-16, 1e-18, 1e-20, 1e-22, 1e-24, 1e-26, 1e-28, 1e-30];
/// Share of delta that all the delta0 may take.
const SHARE: f64 = 0.01;

/// What dominates one coordinate: `N(kappa x, 1)` against `N(0, 1)`, up to delta0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Domination {
    /// Mean per unit of x.
    pub kappa: f64,
    /// `kappa sqrt(2 mu) - 1`, rounded: for reports.
    pub eta: f64,
    /// What is charged to delta for each coordinate.
    pub delta0: f64,
}

/// The largest delta0 of the ladder of which `count` are at most a hundredth of `delta`.
#[must_use]
pub fn delta0_for(count: f64, delta: f64) -> Option<f64> {
    LADDER.into_iter().find(|&d| (count * d).next_up() <= SHARE * delta)
}

/// The dominating Gaussian of a coordinate with noise `Sk(mu, mu)` and `|x| <= l2_bound`; `None` where none is certified:
/// mu above [`LARGEST_MU`], `l2_bound` above [`WIDEST`] standard deviations, or so little noise that eta would be 1.
#[must_use]
pub fn dominate(mu: f64, l2_bound: f64, delta0: f64) -> Option<Domination> {
    let sigma = (2.0 * mu).sqrt();
    if !(mu > 0.0 && mu <= LARGEST_MU && l2_bound <= WIDEST * sigma && delta0 >= 1e-30) {
        return None;
    }
    let extra = l2_bound.ceil() as usize + 1;
    let reach = (16.0 * sigma) as usize + 60 + extra;
    let law = IntegerLaw::skellam(mu, reach);
    // K0: from here on all that is left is below delta0.
    let small = (1..reach).find(|&k| law.tail(k).high() <= delta0)?;
    let last = small + extra;
    if last >= reach {
        return None;
    }
    let quantiles: Vec<Interval> = (1..=last).map(|k| quantile(law.tail(k))).collect::<Option<_>>()?;
    let most = (Interval::exact(2.0) / Interval::exact(sigma)).low();
    let kappa = unit_steps(&quantiles).max(fractions(&law, &quantiles[..small], delta0, most)?);
    (kappa < most && other_direction(&law, last, l2_bound, delta0, kappa)).then_some(Domination {
        kappa,
        eta: kappa * sigma - 1.0,
        delta0,
    })
}

/// Condition 1; `quantiles` begins at `t_1`, and `t_0 = -t_1`.
pub(super) fn unit_steps(quantiles: &[Interval]) -> f64 {
    let first = quantiles.first().map_or(f64::INFINITY, |t| (*t + *t).high());
    quantiles.windows(2).map(|pair| (pair[1] - pair[0]).high()).fold(first, f64::max)
}

/// The least kappa that conditions 2 and 3 allow, where it is below `most`.
fn fractions(law: &IntegerLaw, quantiles: &[Interval], delta0: f64, most: f64) -> Option<f64> {
    let half = Interval::exact(0.5) * Interval::exact(most);
    let mut kappa = 0.0f64;
    for (i, &t) in quantiles.iter().enumerate() {
        let phi = density(Interval::exact(t.high()));
        let mut room = Interval::exact(1.0);
        if i > 0 {
            // b for every kappa up to `most`: a smaller b makes the maximum larger.
            let b = Interval::exact(t.low()) - half;
            if b.low() <= 0.0 {
                return None;
            }
            let excess = Interval::exact(2.0) * Interval::exact(delta0) * Interval::exact(b.low()) / phi;
            room = room + excess.sqrt();
        }
        let needed = Interval::exact(law.pmf(i).high()) / (Interval::exact(phi.low()) * Interval::exact(room.low()));
        kappa = kappa.max(needed.high());
    }
    Some(kappa)
}

/// Condition 4.
fn other_direction(law: &IntegerLaw, last: usize, l2_bound: f64, delta0: f64, kappa: f64) -> bool {
    (2..=last).all(|k| {
        let shift = ((k - 1) as f64).min(l2_bound);
        let half = Interval::exact(kappa) * Interval::exact(shift) * Interval::exact(0.5);
        let least = quantile(law.tail(k) + Interval::exact(delta0));
        least.is_some_and(|t| t.low() >= half.high())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eta_is_what_other_arithmetic_finds() {
        // (mu, delta0, eta) from mpmath with 40 digits: the same conditions.
        for (mu, delta0, eta) in [
            (1428.0, 1e-14, 0.052176663),
            (1428.0, 1e-20, 0.070932382),
            (1428.0, 1e-24, 0.081285525),
            (50.0, 1e-20, 0.38422877),
        ] {
            let found = dominate(mu, 16.0, delta0).expect("certified");
            // `most` instead of kappa in b costs a little.
            assert!(found.eta >= eta * 0.99 && found.eta <= eta * 1.01, "{mu} {delta0}: {found:?}");
        }
    }

    #[test]
    fn a_coordinate_is_dominated_at_every_vertex() {
        use crate::math::special::normal_tail;
        for (mu, delta0) in [(1428.0, 1e-14), (50.0, 1e-14), (20.0, 1e-16)] {
            let found = dominate(mu, 8.0, delta0).expect("certified");
            let law = IntegerLaw::skellam(mu, 900);
            for x in [1e-6, 1e-3, 0.02, 0.1, 0.45, 0.9, 1.0, 1.5, 3.3, 8.0f64] {
                let (j, p) = (x.floor() as usize, x.fract());
                for k in (j + 2)..(j + 200) {
                    let power = (1.0 - p) * law.tail(k - j).low() + p * law.tail(k - j - 1).low();
                    let t = quantile(law.tail(k)).expect("in range");
                    let allowed = normal_tail(t.low() - found.kappa * x) + delta0;
                    assert!(power <= allowed * (1.0 + 1e-10), "{mu} {x} {k}: {power} {allowed}");
                    if law.tail(k).low() < 1e-40 {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn less_slack_or_less_noise_costs_more() {
        let mut last = 0.0;
        for delta0 in LADDER {
            let found = dominate(1428.0, 64.0, delta0).expect("certified");
            assert!(found.eta > last && found.delta0 == delta0);
            last = found.eta;
        }
        let etas: Vec<f64> =
            [30.0, 100.0, 1e3, 1e5].iter().map(|&mu| dominate(mu, 10.0, 1e-20).expect("certified").eta).collect();
        assert!(etas.windows(2).all(|w| w[1] < w[0]), "{etas:?}");
    }

    #[test]
    fn what_is_out_of_reach_is_none() {
        for (mu, l2_bound, delta0) in
            [(1e9, 1.0, 1e-20), (10.0, 1e9, 1e-20), (1e-3, 1e-3, 1e-20), (0.5, 1.0, 1e-20), (1428.0, 64.0, 1e-40)]
        {
            assert!(dominate(mu, l2_bound, delta0).is_none(), "{mu} {l2_bound} {delta0}");
        }
        assert_eq!(delta0_for(1000.0 * 65536.0, 1e-5), Some(1e-16));
        assert_eq!(delta0_for(1e12, 1e-20), None);
    }
}
