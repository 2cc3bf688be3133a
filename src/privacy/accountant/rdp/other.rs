//! RDP of mechanisms with a closed form, an explicit law or a published bound, and under sampling from their log-moments
//! `m(a) = (a-1) D_a`.

use rayon::prelude::*;

use super::subsample::{both_moments, chord, remove_moment, without_replacement_moment};
use super::validate;
use super::{orders, published};
use crate::math::double::Double;
use crate::math::special::log_sum_exp;
use crate::privacy::accountant::certificate::steps::skellam_cost;
use crate::privacy::accountant::pld::atoms::Pair;
use crate::privacy::accountant::pmf::{Law, MOST_OUTCOMES, skellam_ratio};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, IntegerNoise};

/// Log-moments of a mechanism, in both directions.
pub(super) struct Moments {
    at: Box<dyn Fn(f64) -> f64 + Send + Sync>,
    /// True if exchanging P and Q is a symmetry of the outcomes: then under Poisson sampling the remove direction is the
    /// larger one (Mironov, Talwar, Zhang 2019, Theorem 5, whose proof asks for no more).
    symmetric: bool,
    /// True if only integer orders are known.
    integers: bool,
}

impl Moments {
    fn symmetric(at: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Self {
        Self { at: Box::new(at), symmetric: true, integers: false }
    }

    /// The moments of an event without sampling and composition; `None` for one that has none here.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a bad parameter.
    pub(super) fn of(event: &DpEvent) -> Result<Option<Self>, PrivacyError> {
        validate::event(event)?;
        Ok(Some(match *event {
            DpEvent::Gaussian { noise_multiplier } | DpEvent::DiscreteGaussian { noise_multiplier } => {
                zero_concentrated(0.5 / (noise_multiplier * noise_multiplier))
            }
            DpEvent::IntegerShift { noise, sensitivity } => integer_shift(noise, sensitivity),
            DpEvent::SkellamVector { mu, l1_bound, l2_bound } => {
                // Theorem A of `certificate::steps` is linear in the order.
                let curvature = skellam_cost(mu, 2) * 0.5 * (1.0 + 1e-14);
                let least = move |a: f64| {
                    let whole = a * curvature * (l2_bound * l2_bound) * (1.0 + 1e-14);
                    (a - 1.0) * whole.min(published::skellam_rdp(mu, l1_bound, l2_bound, a))
                };
                Self { integers: true, ..Self::symmetric(least) }
            }
            // Some outcomes are only possible on one side.
            DpEvent::BinomialVector { .. } => Self::symmetric(|_| f64::INFINITY),
            DpEvent::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim } => {
                zero_concentrated(0.5 * distributed_gaussian(clients, sigma, l1_bound, l2_bound, dim as f64))
            }
            DpEvent::Laplace { noise_multiplier } => Self::symmetric(move |a| laplace(noise_multiplier, a)),
            DpEvent::RandomizedResponse { epsilon, categories } => {
                finite(&Pair::randomized_response(epsilon, categories))
            }
            DpEvent::PureDp { epsilon } => finite(&Pair::randomized_response(epsilon, 2)),
            DpEvent::ZeroConcentrated { rho, xi } => {
                Self { symmetric: false, ..Self::symmetric(move |a| (a - 1.0) * (xi + rho * a)) }
            }
            _ => return Ok(None),
        }))
    }

    /// `(a-1) D_a` at any order above 1.
    pub(super) fn anywhere(&self, order: f64) -> f64 {
        if self.integers { chord(order, |j| (self.at)(f64::from(j))) } else { (self.at)(order) }
    }

    /// Costs at [`orders`] under Poisson sampling of `rate` in `[0, 1]`.
    pub(super) fn poisson(&self, rate: f64) -> Vec<f64> {
        if rate == 0.0 {
            return vec![0.0; orders().len()];
        }
        if rate == 1.0 {
            return orders().par_iter().map(|&a| self.anywhere(a) / (a - 1.0)).collect();
        }
        let table = self.table();
        let moment = |j: u32| table[j as usize];
        let at_integer = |a: u32| {
            if self.symmetric { remove_moment(rate, a, moment) } else { both_moments(rate, a, moment) }
        };
        orders().par_iter().map(|&a| chord(a, at_integer) / (a - 1.0)).collect()
    }

    /// Costs at [`orders`] under sampling of a fixed share `rate`, without replacement.
    pub(super) fn fixed_size(&self, rate: f64) -> Vec<f64> {
        let table = self.table();
        let at_integer = |a: u32| without_replacement_moment(rate, a, |j| table[j as usize]);
        orders().par_iter().map(|&a| chord(a, at_integer) / (a - 1.0)).collect()
    }

    /// The moments at 0, 1, 2, ... the greatest order.
    fn table(&self) -> Vec<f64> {
        let highest = orders().last().map_or(2, |&a| a as u32);
        (0..=highest).into_par_iter().map(|a| if a < 2 { 0.0 } else { (self.at)(f64::from(a)) }).collect()
    }
}

/// `D_a <= rho a`.
fn zero_concentrated(rho: f64) -> Moments {
    Moments::symmetric(move |a| (a - 1.0) * rho * a)
}

/// `ln(a/(2a-1) e^((a-1)/b) + (a-1)/(2a-1) e^(-a/b))` (Mironov 2017, Proposition 6).
fn laplace(scale: f64, order: f64) -> f64 {
    let whole = libm::log(2.0 * order - 1.0);
    let up = libm::log(order) - whole + (order - 1.0) / scale;
    let down = libm::log(order - 1.0) - whole - order / scale;
    log_sum_exp(&[up, down]).max(0.0)
}

/// `ln sum p e^((a-1) L)` over the outcomes, each of an error of `pair.error`; infinite where P has outcomes of its own.
fn finite(pair: &Pair) -> Moments {
    if pair.only_p > 0.0 || pair.left_out > 0.0 {
        return Moments::symmetric(|_| f64::INFINITY);
    }
    let atoms: Vec<(f64, f64)> =
        pair.atoms.iter().filter(|a| a.p > 0.0).map(|a| (libm::log(a.p) + pair.error, a.loss)).collect();
    Moments::symmetric(move |a| {
        let terms: Vec<f64> = atoms.iter().map(|&(ln_p, loss)| ln_p + (a - 1.0) * loss).collect();
        log_sum_exp(&terms).max(0.0)
    })
}

fn integer_shift(noise: IntegerNoise, shift: u64) -> Moments {
    let s = shift as f64;
    match noise {
        // At most the Gaussian's (Canonne, Kamath, Steinke 2020, Theorem 4), with equality at integer orders.
        IntegerNoise::DiscreteGaussian { sigma } => zero_concentrated(0.5 * (s / sigma) * (s / sigma)),
        // Some outcomes are only possible on one side.
        IntegerNoise::CenteredBinomial { .. } => Moments::symmetric(|_| f64::INFINITY),
        IntegerNoise::DiscreteLaplace { scale } => match Pair::shifted(noise, shift) {
            Some(pair) => finite(&pair),
            None => finite(&Pair::randomized_response(s / scale, 2)),
        },
        IntegerNoise::Skellam { mu } => {
            let whole = skellam_cost(mu, 2) * 0.5 * s * s * (1.0 + 1e-13);
            let published = move |a: u32| {
                let a = f64::from(a);
                (a - 1.0) * published::skellam_rdp(mu, s, s, a).min(a * whole)
            };
            match SkellamShift::new(mu, s) {
                Some(exact) => Moments::symmetric(move |a| exact.moment(a).min(chord(a, published))),
                None => Moments { integers: true, ..Moments::symmetric(move |a| published(a as u32)) },
            }
        }
    }
}

/// The `epsilon^2` of which half is the concentration of the sum of n discrete Gaussians on d coordinates (Kairouz, Liu,
/// Steinke 2021, Theorem 1 and its proof, which has the middle one): with
/// `tau = 10 sum over k in 1..n of e^(-2 pi^2 sigma^2 k/(k+1))`, the least of
/// `l2^2/(n sigma^2) + tau d/2`, `l2^2/(n sigma^2) + 2 tau l1/(sqrt n sigma) + tau^2 d`, `(l2/(sqrt n sigma) + tau sqrt d)^2`.
fn distributed_gaussian(clients: u64, sigma: f64, l1: f64, l2: f64, dim: f64) -> f64 {
    let tau = closeness(clients, sigma);
    let spread = (clients as f64).sqrt() * sigma;
    let base = (l2 / spread) * (l2 / spread);
    let last = l2 / spread + tau * dim.sqrt();
    (base + 0.5 * tau * dim).min(base + 2.0 * tau * l1 / spread + tau * tau * dim).min(last * last)
}

/// `tau` of [`distributed_gaussian`]: by so much the logarithm of a probability of the sum of n discrete Gaussians is off that
/// of the discrete Gaussian of parameter `sqrt(n) sigma`, at most (Kairouz, Liu, Steinke 2021, Theorem 5 and its corollary).
fn closeness(clients: u64, sigma: f64) -> f64 {
    // Terms fall to e^(-2 pi^2 sigma^2); from some k on they are counted as that of the last one.
    let term =
        |k: f64| libm::exp(-2.0 * (std::f64::consts::PI * sigma) * (std::f64::consts::PI * sigma) * k / (k + 1.0));
    let counted = (clients - 1).min(100_000);
    10.0 * ((1..=counted).map(|k| term(k as f64)).sum::<f64>() + (clients - 1 - counted) as f64 * term(counted as f64))
}

/// The rounding of `sigma_total / sqrt(m)` in a share, as a relative error of a probability within twelve standard
/// deviations (what lies beyond is below 1e-31).
const SHARE_ROUNDING: f64 = 2e-13;

/// By how much the logarithm of a probability of a sum of up to `clients` discrete Gaussians, with the parameter `sqrt(clients)
/// sigma` together, may differ on one coordinate from that of the discrete Gaussian of that parameter; infinite where that is
/// not proved (shares below 1/2).
pub(crate) fn closeness_of_shares(clients: u64, sigma: f64) -> f64 {
    let proved = clients == 1 || sigma >= 0.5 * (1.0 - 1e-15);
    if proved { closeness(clients, sigma) * (1.0 + 1e-12) + SHARE_ROUNDING } else { f64::INFINITY }
}

/// `D_a` of the distributed discrete Gaussian on a Poisson sample of `rate` below 1.
///
/// How many add noise depends on who takes part, so that the pair is not a mixture with the law itself. But each law of
/// noise, of m shares of `sqrt(n/m) sigma`, m up to n, is within a factor `e^(+-t)` of the discrete Gaussian D of parameter
/// `sqrt(n) sigma`, `t = d (tau + rounding)`, tau for m = n (fewer and larger shares have less). Hence both outputs are within
/// it of those under D, and `D_a(P||Q) <= D_a(P_D||Q_D) + t (2a - 1)/(a - 1)`: D under sampling is known.
pub(super) fn sampled_distributed_gaussian(event: &DpEvent, rate: f64, order: f64) -> Option<f64> {
    let DpEvent::DistributedDiscreteGaussian { clients, sigma, l2_bound, dim, .. } = *event else { return None };
    if rate == 0.0 {
        return Some(0.0);
    }
    let multiplier = ((clients as f64).sqrt() * sigma / l2_bound) * (1.0 - 1e-15);
    let off = dim as f64 * (closeness(clients, sigma) + SHARE_ROUNDING);
    let near = super::gaussian::sampled_discrete_gaussian(multiplier, rate, order);
    Some(near + off * (2.0 * order - 1.0) / (order - 1.0))
}

/// Skellam noise moved by s against itself: `m(a) = ln sum_k q(k-s)^a q(k)^(1-a)` from an explicit law.
struct SkellamShift {
    z: f64,
    shift: f64,
    law: Law,
}

impl SkellamShift {
    /// `None` where sums are long and the published bound is within a factor `1 + 10/mu`, or so, of them.
    fn new(mu: f64, shift: f64) -> Option<Self> {
        if mu > 1e5 {
            return None;
        }
        let highest = orders().last().copied().unwrap_or(2.0);
        let half = Self::reach(2.0 * mu, shift, highest).min(0.5 * MOST_OUTCOMES);
        Some(Self { z: 2.0 * mu, shift, law: Law::new(IntegerNoise::Skellam { mu }, half as usize)? })
    }

    /// Where the sum of an order ends: beyond the middle `a s` of its summands, and where they fall geometrically.
    fn reach(z: f64, shift: f64, order: f64) -> f64 {
        let tilt = order * (shift + 1.0);
        tilt + 20.0 * (z + tilt).sqrt() + 60.0
    }

    /// Bound on the ratio of the summand at k+1 to that at k, for all from `k >= s` on.
    ///
    /// It is `q(k+1)/q(k)` times the a-th power of `(q(k)/q(k+1)) / (q(k-s)/q(k-s+1))`. By Amos 1974, with
    /// `f(y) = ln(y + sqrt(y^2 + z^2))`, the quotient is at most `e^(f(k + 3/2) - f(k - s + 1/2))`, which falls with k.
    fn growth(&self, order: f64, k: f64) -> f64 {
        let f = |y: f64| libm::log(y + y.hypot(self.z));
        let power = order * (f(k + 1.5) - f(k - self.shift + 0.5));
        skellam_ratio(self.z, k) * libm::exp(power * (1.0 + 1e-12) + 1e-12 * order)
    }

    fn moment(&self, order: f64) -> f64 {
        let ln = &self.law.ln_mass;
        let (middle, shift) = (ln.len() / 2, self.shift as usize);
        let last = middle + (Self::reach(self.z, self.shift, order) as usize).min(middle);
        let growth = self.growth(order, (last - middle) as f64);
        if growth > 0.9999 || last < middle + shift {
            return f64::INFINITY;
        }
        // Below `first` a summand is less than q(k-s), and these fall geometrically.
        let first = ln.partition_point(|&l| l < -200.0).clamp(1, middle);
        let before = ln[first] - libm::log(-libm::expm1(ln[first - 1] - ln[first]));
        let summand = |i: usize| {
            let (p, q) = (ln[i - shift], ln[i]);
            order * p + (1.0 - order) * q + 4.0 * f64::EPSILON * (order * (2.0 - p) + order * (2.0 - q))
        };
        let mut terms: Vec<f64> = (first + shift..=last).map(summand).collect();
        let beyond = terms.last().map_or(f64::INFINITY, |l| l + libm::log(growth / (1.0 - growth)));
        terms.extend([beyond, before]);
        // The sum has double words, so that its rounding is that of `exp` and `log`.
        let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = terms.iter().fold(Double::ZERO, |sum, term| sum + Double::new(libm::exp(term - top)));
        (top + libm::log(sum.value())).max(0.0) + 4.0 * f64::EPSILON
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_sums_meet_closed_forms() {
        // Laplace noise of scale 2 at order 3, by hand: ln(3/5 e + 2/5 e^(-3/2)).
        let expected = (0.6 * 1f64.exp() + 0.4 * (-1.5f64).exp()).ln();
        assert!((laplace(2.0, 3.0) - expected).abs() < 1e-15);
        // Randomized response: p = 3/4, order 2: 9/4 * 1/4 ... = p^2/(1-p) + (1-p)^2/p = 7/3.
        let response = finite(&Pair::randomized_response(3f64.ln(), 2));
        assert!(((response.at)(2.0) - (7.0f64 / 3.0).ln()).abs() < 1e-14);
        // No outcome costs more than epsilon.
        assert!((response.at)(1024.0) <= 1023.0 * 3f64.ln() * (1.0 + 1e-12));
    }

    #[test]
    fn the_exact_skellam_is_below_the_published_bound_and_near_the_gaussian() {
        for (mu, s) in [(2.0, 1.0), (50.0, 4.0), (20_000.0, 2.0), (1428.0, 64.0)] {
            let exact = SkellamShift::new(mu, s).unwrap();
            for a in [2.0, 3.0, 16.0, 128.0] {
                let found = exact.moment(a) / (a - 1.0);
                assert!(found <= published::skellam_rdp(mu, s, s, a) && found > 0.0, "{mu} {s} {a}: {found}");
                let gaussian = a * s * s / (4.0 * mu);
                assert!(a * s > mu || (found / gaussian - 1.0).abs() < 0.1, "{mu} {s} {a}: {found} {gaussian}");
            }
        }
        assert!(SkellamShift::new(1e13, 1.0).is_none());
    }
}
