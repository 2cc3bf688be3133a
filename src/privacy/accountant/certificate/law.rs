//! The Skellam law `Sk(mu, mu)` = Poisson(mu) - Poisson(mu), enclosed; and the centred binomial.
//!
//! `q(k) = e^(-z) I_|k|(z)`, `z = 2 mu`. Its ratios `rho(k) = q(k-1)/q(k)` obey `rho(k) = 2k/z + 1/rho(k+1)`: downwards
//! an error shrinks by `1/rho^2` at each step. The start is Amos' enclosure (1974, eq. 16): for `k >= 1`
//!
//! ```text
//! k - 1/2 + sqrt((k - 1/2)^2 + z^2)  <=  z rho(k)  <=  k - 1/2 + sqrt((k + 1/2)^2 + z^2).
//! ```
//!
//! `rho` grows with k (q is log-concave), so that what lies beyond the table is at most a geometric series.

use crate::math::interval::Interval;

/// From this z on Amos' enclosure alone gives the curvature to `2 / z` of itself.
const WIDE: f64 = 1e7;

/// Probabilities and tails of a symmetric log-concave law on the integers: `Sk(mu, mu)`, or a centred binomial.
#[derive(Clone, Debug)]
pub struct IntegerLaw {
    /// `q(k)` for `k = 0..`.
    pmf: Vec<Interval>,
    /// `Q(K >= k)` for `k = 0..`.
    tail: Vec<Interval>,
}

/// Amos' enclosure of `rho(k)`, `k >= 1`.
fn amos(z: f64, k: f64) -> Interval {
    let root = |c: f64| (Interval::exact(c).square() + Interval::exact(z).square()).sqrt();
    let half = Interval::exact(k - 0.5);
    let (low, high) = (half + root(k - 0.5), half + root(k + 0.5));
    Interval::new(low.low(), high.high()) / Interval::exact(z)
}

/// `rho(k)` for `k = 1..=reach`, at index `k - 1`.
fn ratios(z: f64, reach: usize) -> Vec<Interval> {
    let start = reach + (2.0 * z.sqrt()) as usize + 30;
    let mut found = vec![Interval::WHOLE; reach];
    let mut rho = amos(z, start as f64);
    for k in (1..start).rev() {
        rho = Interval::exact(2.0 * k as f64) / Interval::exact(z) + Interval::exact(1.0) / rho;
        if k <= reach {
            found[k - 1] = rho;
        }
    }
    found
}

/// `rho(1) - 1`, from Amos' enclosure at `start`: with `e = rho - 1` the recursion reads
/// `e(k) = 2k/z - e(k+1) / (1 + e(k+1))`, whose terms are as small as what comes out.
fn excess(z: f64, start: usize) -> Interval {
    let one = Interval::exact(1.0);
    // x / (1 + x) grows with x: each end by itself keeps the step contracting.
    let part = |x: f64| Interval::exact(x) / (one + Interval::exact(x));
    (1..start).rev().fold(amos(z, start as f64) - one, |e, k| {
        let next = Interval::new(part(e.low()).low(), part(e.high()).high());
        Interval::exact(2.0 * k as f64) / Interval::exact(z) - next
    })
}

/// Upper bound of the largest curvature `max_k ln[q(k)^2 / (q(k-1) q(k+1))] = 2 ln rho(1)` (Lemma 1), close to
/// `1 / (2 mu)`. `mu` finite and > 0.
#[must_use]
pub fn curvature(mu: f64) -> f64 {
    let z = 2.0 * mu;
    let log = if z >= WIDE {
        // z (rho(1) - 1) <= 1/2 + sqrt(9/4 + z^2) - z <= 1/2 + 9 / (8 z), in which nothing cancels.
        let z = Interval::exact(z);
        let above = Interval::exact(0.5) + Interval::exact(1.125) / z;
        (above / z).ln_1p()
    } else {
        excess(z, 1 + (6.0 * z.sqrt()) as usize).ln_1p()
    };
    (Interval::exact(2.0) * log).high()
}

impl IntegerLaw {
    /// `Sk(mu, mu)`, mean `mu > 0` of each Poisson, at `|k| <= reach`.
    #[must_use]
    pub fn skellam(mu: f64, reach: usize) -> Self {
        let z = 2.0 * mu;
        // The sum of q wants a table of its own length.
        let length = reach.max((14.0 * z.sqrt()) as usize + 60);
        let mut rho = ratios(z, length + 1);
        let last = rho.pop();
        Self::of(&rho, last, reach)
    }

    /// Binomial(coins, 1/2) - Binomial(coins, 1/2), at `|k| <= reach`: `rho(k) = (coins + k) / (coins - k + 1)`.
    #[must_use]
    pub fn centered_binomial(coins: u64, reach: usize) -> Self {
        let most = 14.0 * (0.5 * coins as f64).sqrt() + 60.0;
        let length = (reach as u64).max(most as u64).min(coins);
        let ratio = |k: u64| Interval::exact((coins + k) as f64) / Interval::exact((coins - k + 1) as f64);
        let rho: Vec<Interval> = (1..=length).map(ratio).collect();
        // Numbers below 2^53 are exact.
        Self::of(&rho, (length < coins).then(|| ratio(length + 1)), reach)
    }

    /// `P[k] ~ e^(-k^2 / (2 sigma^2))` at `|k| <= reach`, for every sigma > 0 of the interval: `rho(k) = e^((2k - 1) / (2
    /// sigma^2))`.
    #[must_use]
    pub fn discrete_gaussian(sigma: Interval, reach: usize) -> Self {
        let twice = Interval::exact(2.0) * sigma.square();
        let ratio = |k: usize| (Interval::exact((2 * k - 1) as f64) / twice).exp();
        let length = reach.max((14.0 * sigma.high()) as usize + 60);
        let rho: Vec<Interval> = (1..=length).map(ratio).collect();
        Self::of(&rho, Some(ratio(length + 1)), reach)
    }

    /// From `rho(k) = q(k-1)/q(k)` for `k = 1..`, and the next one, `None` where the law ends.
    fn of(rho: &[Interval], next: Option<Interval>, reach: usize) -> Self {
        let length = rho.len();
        let one = Interval::exact(1.0);
        let mut pmf = Vec::with_capacity(length + 1);
        let mut level = one;
        pmf.push(level);
        for &step in rho {
            level = level / step;
            pmf.push(level);
        }
        // Beyond the table each term is at most the one before it over the next ratio.
        let fall = next.map_or(0.0, |rho| (one / rho).high());
        let beyond = if next.is_none() {
            0.0
        } else if fall < 1.0 {
            (Interval::exact(level.high()) * Interval::exact(fall) / (one - Interval::exact(fall))).high()
        } else {
            f64::INFINITY
        };
        let mut sum = Interval::new(0.0, beyond);
        let mut tail = vec![sum; length + 1];
        for k in (0..=length).rev() {
            sum = sum + pmf[k];
            tail[k] = sum;
        }
        // All mass: q(0) once, everything above it twice.
        let total = tail[1] + tail[0];
        for values in [&mut pmf, &mut tail] {
            values.truncate(reach + 1);
            values.iter_mut().for_each(|v| *v = *v / total);
        }
        Self { pmf, tail }
    }

    /// `q(k)` for `k` up to the reach (of a law that ends before, anything from 0 to 1 beyond its end).
    #[must_use]
    pub fn pmf(&self, k: usize) -> Interval {
        self.pmf.get(k).copied().unwrap_or(Interval::new(0.0, 1.0))
    }

    /// `Q(K >= k)` for `k` up to the reach.
    #[must_use]
    pub fn tail(&self, k: usize) -> Interval {
        self.tail.get(k).copied().unwrap_or(Interval::new(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::rdp::skellam::Skellam;
    use super::*;

    #[test]
    fn known_answers_lie_inside() {
        // (mu, k, q(k), Q(K >= k)) from mpmath with 40 digits.
        for (mu, k, q, tail) in KNOWN {
            let law = IntegerLaw::skellam(mu, k + 5);
            let inside = |found: Interval, digits: f64| {
                found.low() < digits.next_up()
                    && found.high() > digits.next_down()
                    && found.high() - found.low() < 1e-11 * digits
            };
            assert!(inside(law.pmf(k), q), "{mu} {k}: {:?} {q}", law.pmf(k));
            assert!(inside(law.tail(k), tail), "{mu} {k}: {:?} {tail}", law.tail(k));
        }
    }

    const KNOWN: [(f64, usize, f64, f64); 7] = [
        (0.05, 0, 0.9071009257823011, 0.9535504628911505),
        (0.05, 3, 1.8862564225473265e-05, 1.9100693925530485e-05),
        (5.95, 0, 0.11692561195139262, 0.5584628059756963),
        (5.95, 12, 0.0003425047810137049, 0.0005519214895908883),
        (1428.0, 1, 0.0074640395218912884, 0.49626732670261325),
        (1428.0, 300, 1.0845612034366426e-09, 1.0593516990825049e-08),
        (1428.0, 700, 6.227171561974939e-40, 2.8746663638890743e-39),
    ];

    #[test]
    fn the_centered_binomial_is_that_of_the_coins() {
        // 2^-4 (1, 4, 6, 4, 1); and C(40, 20 + k) / 2^40, exact in f64.
        let small = IntegerLaw::centered_binomial(2, 2);
        for (k, q, tail) in [(0, 6.0, 11.0), (1, 4.0, 5.0), (2, 1.0, 1.0)] {
            assert!(small.pmf(k).contains(q / 16.0) && small.tail(k).contains(tail / 16.0), "{k}");
        }
        assert!(small.tail(3) == Interval::new(0.0, 1.0));
        let law = IntegerLaw::centered_binomial(20, 20);
        let mut exact = 137_846_528_820.0;
        for k in 0..=20usize {
            let q = exact / 2f64.powi(40);
            assert!(law.pmf(k).contains(q) && law.pmf(k).high() < law.pmf(k).low() * (1.0 + 1e-13), "{k}");
            exact = (exact * (20 - k) as f64 / (21 + k) as f64).round();
        }
    }

    #[test]
    fn the_discrete_gaussian_is_enclosed() {
        // (sigma, k, q(k), Q(K >= k)) from mpmath with 40 digits.
        for (sigma, k, q, tail) in [
            (0.7, 0, 0.5698457311268156, 0.7849228655634077),
            (0.7, 2, 0.009618929924103133, 0.009677500810023039),
            (50.0, 100, 0.001079819330263761, 0.023293640987080592),
            (50.0, 460, 3.331176064759835e-21, 1.96141264059642e-20),
        ] {
            let law = IntegerLaw::discrete_gaussian(Interval::exact(sigma), k + 5);
            let inside = |found: Interval, digits: f64| {
                found.low() < digits.next_up()
                    && found.high() > digits.next_down()
                    && found.high() - found.low() < 1e-11 * digits
            };
            assert!(
                inside(law.pmf(k), q) && inside(law.tail(k), tail),
                "{sigma} {k}: {:?} {:?}",
                law.pmf(k),
                law.tail(k)
            );
        }
    }

    #[test]
    fn the_floating_point_law_lies_near() {
        for mu in [0.05, 1.0, 5.95, 148.75, 1428.0, 3e4] {
            let sigma = (2.0f64 * mu).sqrt();
            let reach = (20.0 * sigma) as usize + 10;
            let (law, near) = (IntegerLaw::skellam(mu, reach), Skellam::new(mu, reach));
            for k in (0..=reach).step_by(1 + reach / 40) {
                let (found, value) = (law.pmf(k), near.ln_pmf(k as i64).exp());
                if value > 1e-280 {
                    assert!((found.low() / value - 1.0).abs() < 1e-9 && (found.high() / value - 1.0).abs() < 1e-9);
                }
            }
            assert!(law.tail(0).contains(0.5 + 0.5 * law.pmf(0).low()) || law.tail(0).low() > 0.5);
        }
    }

    #[test]
    fn the_largest_curvature_is_the_one_at_zero() {
        for mu in [0.01, 1.0, 5.95, 50.0, 1428.0] {
            let (z, found) = (2.0 * mu, curvature(mu));
            let reach = 3 * (2.0 * mu).sqrt() as usize + 20;
            let rho = ratios(z, reach);
            let mut last = f64::INFINITY;
            for pair in rho.windows(2) {
                let bend = (pair[1] / pair[0]).ln();
                assert!(bend.low() <= found && bend.low() <= last, "{mu}: {bend:?} {found}");
                last = bend.high();
            }
            // 1/z + 1/(2 z^2) and more.
            assert!(mu < 5.0 || (found * z - 1.0 - 0.5 / z).abs() < 1.0 / (z * z), "{mu}: {found}");
        }
        for mu in [4e5, 4.9e6, 5.1e6, 1e9, 1e12, 1e30] {
            let scaled = curvature(mu) * 2.0 * mu - 1.0;
            assert!(scaled >= 0.0 && scaled < 1.0 / mu + 2e-8 * (1e7 / mu).min(1.0) + 1e-14, "{mu}: {scaled}");
        }
        assert!(curvature(1e-12).is_finite());
    }
}
