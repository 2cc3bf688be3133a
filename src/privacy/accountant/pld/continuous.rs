//! Losses of continuous laws other than the Gaussian's, and of sampling a fixed number of contributions.

use super::curve::{LossCurve, Mass};
use super::gaussian::{Direction, Tail};

/// The base loss at which the sampled one, `ln(1 - q + q e^L)`, is `epsilon`; minus infinity below all of them.
///
/// Written so that its error is as if `epsilon` had one of a few units of 1 in the last place.
fn base_loss(epsilon: f64, rate: f64) -> f64 {
    if rate == 1.0 {
        epsilon
    } else if epsilon > 700.0 {
        epsilon - libm::log(rate)
    } else if epsilon >= 0.0 {
        libm::log1p(libm::expm1(epsilon) / rate)
    } else {
        let over = libm::exp(epsilon) - (1.0 - rate);
        if over > 0.0 { libm::log(over / rate) } else { f64::NEG_INFINITY }
    }
}

/// Laplace noise of scale `1/steepness` at 1 and at 0, under Poisson sampling.
///
/// The loss L lies in `[-s, s]`, s the steepness, each end with probability 1/2 on one side; between them
/// `P(L > l) = 1 - e^((l - s)/2)/2` and `Q(L > l) = e^(-(l + s)/2)/2`.
#[derive(Clone, Copy, Debug)]
pub struct SampledLaplace {
    steepness: f64,
    rate: f64,
    direction: Direction,
}

impl SampledLaplace {
    /// `noise_multiplier > 0`, `rate` in (0, 1].
    #[must_use]
    pub fn new(noise_multiplier: f64, rate: f64, direction: Direction) -> Self {
        Self { steepness: 1.0 / noise_multiplier, rate, direction }
    }

    /// Masses of base losses above `loss` (or up to it).
    fn base(&self, loss: f64, upper: bool) -> (f64, f64) {
        let s = self.steepness;
        if loss >= s || loss < -s {
            let all = f64::from((loss < -s) == upper);
            return (all, all);
        }
        let (p, q) = (0.5 * libm::exp(0.5 * (loss - s)), 0.5 * libm::exp(-0.5 * (loss + s)));
        if upper { (1.0 - p, q) } else { (p, 1.0 - q) }
    }

    fn mass(&self, loss: f64, upper: bool) -> Mass {
        let (noised, noise) = self.base(loss, upper);
        let mixture = (1.0 - self.rate) * noise + self.rate * noised;
        let (p, q) = match self.direction {
            Direction::Remove => (mixture, noise),
            Direction::Add => (noise, mixture),
        };
        let error = (8.0 + 2.0 * self.steepness) * f64::EPSILON;
        Mass { p, q, p_error: error * p, q_error: error * q }
    }
}

impl LossCurve for SampledLaplace {
    fn above(&self, epsilon: f64) -> Mass {
        match self.direction {
            Direction::Remove => self.mass(base_loss(epsilon, self.rate), true),
            Direction::Add => self.mass(base_loss(-epsilon, self.rate), false),
        }
    }

    fn below(&self, epsilon: f64) -> Mass {
        match self.direction {
            Direction::Remove => self.mass(base_loss(epsilon, self.rate), false),
            Direction::Add => self.mass(base_loss(-epsilon, self.rate), true),
        }
    }

    fn infinite(&self) -> f64 {
        0.0
    }

    fn loss_error(&self) -> f64 {
        f64::EPSILON * (16.0 + 4.0 * self.steepness)
    }

    fn greatest(&self) -> f64 {
        let s = self.steepness;
        match self.direction {
            Direction::Remove if s > 700.0 => s + libm::log(self.rate),
            Direction::Remove => libm::log1p(self.rate * libm::expm1(s)),
            Direction::Add => -libm::log(1.0 - self.rate + self.rate * libm::exp(-s)),
        }
    }
}

/// `sum_i p_i N(s_i, sigma^2)` and `N(0, sigma^2)`, in either order; all `s_i >= 0`, some above.
///
/// The loss `L(z) = ln sum p_i e^((s_i z - s_i^2/2)/sigma^2)` rises with z and is convex: Newton's method from above
/// finds the z of an epsilon.
#[derive(Clone, Debug)]
pub struct GaussianMixture {
    /// `(s_i / sigma, p_i)`, of those with `p_i > 0`.
    parts: Vec<(f64, f64)>,
    direction: Direction,
}

impl GaussianMixture {
    /// The mixture under Poisson sampling of `rate` in (0, 1]: another mixture.
    #[must_use]
    pub fn new(sigma: f64, parts: &[(f64, f64)], rate: f64, direction: Direction) -> Self {
        let mut here: Vec<(f64, f64)> = parts.iter().map(|&(s, p)| (s / sigma, rate * p)).collect();
        here.push((0.0, 1.0 - rate));
        here.retain(|part| part.1 > 0.0);
        Self { parts: here, direction }
    }

    /// L and its slope at z.
    fn loss(&self, z: f64) -> (f64, f64) {
        let exponent = |&(s, p): &(f64, f64)| libm::log(p) + s * (z - 0.5 * s);
        let top = self.parts.iter().map(exponent).fold(f64::NEG_INFINITY, f64::max);
        let (mut sum, mut slope) = (0.0, 0.0);
        for part in &self.parts {
            let weight = libm::exp(exponent(part) - top);
            sum += weight;
            slope += part.0 * weight;
        }
        (top + libm::log(sum), slope / sum)
    }

    /// Where the loss is `epsilon`; minus infinity below all losses.
    fn threshold(&self, epsilon: f64) -> f64 {
        let idle: f64 = self.parts.iter().filter(|part| part.0 == 0.0).map(|part| part.1).sum();
        if idle > 0.0 && epsilon <= libm::log(idle) {
            return f64::NEG_INFINITY;
        }
        // Each part alone has a loss below L.
        let moving = self.parts.iter().filter(|part| part.0 > 0.0);
        let mut z = moving.map(|&(s, p)| (epsilon - libm::log(p)) / s + 0.5 * s).fold(f64::INFINITY, f64::min);
        for _ in 0..60 {
            let (loss, slope) = self.loss(z);
            let step = (loss - epsilon) / slope;
            if step.is_nan() || step <= 1e-15 * z.abs() {
                break;
            }
            z -= step;
        }
        z
    }

    fn mass(&self, z: f64, upper: bool) -> Mass {
        let sign = if upper { 1.0 } else { -1.0 };
        let tail = |s: f64| Tail::of(sign * (z - s));
        let mixture = self.parts.iter().fold(Tail::default(), |sum, &(s, p)| sum.plus(tail(s).times(p)));
        let noise = tail(0.0);
        let (p, q) = match self.direction {
            Direction::Remove => (mixture, noise),
            Direction::Add => (noise, mixture),
        };
        Mass { p: p.value, q: q.value, p_error: p.error, q_error: q.error }
    }
}

impl LossCurve for GaussianMixture {
    fn above(&self, epsilon: f64) -> Mass {
        match self.direction {
            Direction::Remove => self.mass(self.threshold(epsilon), true),
            Direction::Add => self.mass(self.threshold(-epsilon), false),
        }
    }

    fn below(&self, epsilon: f64) -> Mass {
        match self.direction {
            Direction::Remove => self.mass(self.threshold(epsilon), false),
            Direction::Add => self.mass(self.threshold(-epsilon), true),
        }
    }

    fn infinite(&self) -> f64 {
        0.0
    }

    /// The terms of an exponent cancel: `s z` against `s^2/2`.
    fn loss_error(&self) -> f64 {
        let widest = self.parts.iter().map(|part| part.0).fold(0.0, f64::max);
        1e-14 * (1.0 + widest) * (1.0 + widest)
    }
}

/// A sample of fixed size without replacement, where neighbours replace one contribution: with (P, Q) a symmetric pair
/// that dominates the mechanism under replacement, `(1-q) Q + q P` against Q for losses above 0, Q against `(1-q) Q + q P`
/// below (Balle, Barthe, Gaboardi 2018, Theorem 11; Zhu, Dong, Wang 2022, Theorem 11).
pub struct FixedSize {
    /// The sampled pair in the direction [`Direction::Remove`].
    pub positive: Box<dyn LossCurve>,
    /// In the other one.
    pub negative: Box<dyn LossCurve>,
}

impl FixedSize {
    fn rest(&self, part: Mass) -> Mass {
        let error = 4.0 * f64::EPSILON;
        Mass {
            p: (1.0 - self.infinite() - part.p).max(0.0),
            q: (1.0 - part.q).max(0.0),
            p_error: part.p_error + error,
            q_error: part.q_error + error,
        }
    }
}

impl LossCurve for FixedSize {
    fn above(&self, epsilon: f64) -> Mass {
        if epsilon >= 0.0 { self.positive.above(epsilon) } else { self.rest(self.negative.below(epsilon)) }
    }

    fn below(&self, epsilon: f64) -> Mass {
        if epsilon >= 0.0 { self.rest(self.positive.above(epsilon)) } else { self.negative.below(epsilon) }
    }

    fn infinite(&self) -> f64 {
        self.positive.infinite()
    }

    fn left_out(&self) -> f64 {
        self.positive.left_out().max(self.negative.left_out())
    }

    fn mass_error(&self) -> f64 {
        self.positive.mass_error().max(self.negative.mass_error())
    }

    fn loss_error(&self) -> f64 {
        self.positive.loss_error().max(self.negative.loss_error())
    }

    fn greatest(&self) -> f64 {
        self.positive.greatest().max(0.0)
    }
}
