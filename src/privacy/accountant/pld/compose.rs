//! Sums of independent losses on a grid, by the Fourier transform of exponentially tilted masses.
//!
//! `delta(epsilon) = sum_s p(s) (1 - e^(epsilon - s))_+` over the law p of the sum of all losses. The masses that matter
//! lie near epsilon, where p is small; so each factor is tilted, `w(s) = p(s) e^(lambda s - K(lambda))` with
//! `K = ln E e^(lambda s)` and lambda such that the sum's tilted mean is near epsilon. Errors of the transform and of a
//! window of finite length are then relative to delta itself. What falls outside the window is bounded by Chernoff's
//! inequality and charged.

use std::sync::Arc;

use realfft::num_complex::Complex64;
use realfft::{RealFftPlanner, RealToComplex};

use super::dots::Dots;
use crate::math::search::bisect;
use crate::math::special::log_sum_exp;

/// `-ln` of the tilted mass that may lie outside the window on each side.
const OUTSIDE: f64 = 32.0;
/// `ln` of what a bound on delta may lose for a smaller tilt.
const SLACK: f64 = 6.0;
/// Error of one transform relative to the norm of what is transformed, in units of `2^-52 log2 N`: Higham 2002,
/// Theorem 24.2 has about 3 for radix 2.
const FFT_ERROR: f64 = 8.0;

/// Losses composed: each of the laws `count` times.
#[derive(Clone, Debug)]
pub struct Sum {
    parts: Vec<(Dots, u64)>,
}

/// Where the law of a sum is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// The tilt.
    pub lambda: f64,
    /// Least and greatest loss.
    pub range: (f64, f64),
    /// The exponents of Chernoff's bound on what lies below and above.
    theta: (f64, f64),
}

/// The law of a sum near one epsilon, ready to be asked for deltas.
#[derive(Clone, Debug)]
pub struct Law {
    first: i64,
    step: f64,
    tilted: Vec<f64>,
    lambda: f64,
    /// `K(lambda)`.
    cumulant: f64,
    /// Bound on the error of an entry of `tilted`.
    entry_error: f64,
    /// Bounds on the tilted mass below and above the window.
    outside: (f64, f64),
    /// Bound on the untilted mass above the window, and the mass of infinite loss.
    above: f64,
    infinite: f64,
}

impl Sum {
    /// The sum of these; all have one step.
    pub fn new(parts: Vec<(Dots, u64)>) -> Self {
        Self { parts }
    }

    /// `ln E[e^(lambda S); S finite]`.
    pub fn cumulant(&self, lambda: f64) -> f64 {
        self.parts.iter().map(|(dots, count)| *count as f64 * cumulant(dots, lambda)).sum()
    }

    /// `1 - prod (1 - infinite)^count`.
    fn infinite(&self) -> f64 {
        let ln = self.parts.iter().map(|(dots, count)| *count as f64 * libm::log1p(-dots.infinite)).sum::<f64>();
        -libm::expm1(ln)
    }

    /// The tilt that makes Chernoff's bound on epsilon at `delta` least, `argmin (K(lambda) - ln delta) / lambda`, or one
    /// a little below.
    pub fn tilt_for_delta(&self, delta: f64) -> f64 {
        let bound = |lambda: f64| (self.cumulant(lambda) - libm::log(delta)) / lambda;
        let best = self.best_tilt(bound);
        self.relaxed(best, bound(best))
    }

    /// The tilt that makes Chernoff's bound on delta at `epsilon` least, `argmin K(lambda) - lambda epsilon`, or one a
    /// little below.
    pub fn tilt_for_epsilon(&self, epsilon: f64) -> f64 {
        let best = self.best_tilt(|lambda| self.cumulant(lambda) - lambda * epsilon);
        self.relaxed(best, epsilon)
    }

    /// A bounded loss would be tilted without end, all onto its greatest value: not so far that the points next to it,
    /// over which the grid spreads that value, would be lost.
    fn best_tilt(&self, bound: impl Fn(f64) -> f64) -> f64 {
        let best = least(|ln_lambda| bound(libm::exp(ln_lambda)), libm::log(1e-4), libm::log(1e12));
        libm::exp(best).min(0.25 / self.step())
    }

    /// The least tilt whose bound on delta at `epsilon` is [`SLACK`] of that of `best`: where losses are far apart a
    /// greater one hides all but the greatest.
    fn relaxed(&self, best: f64, epsilon: f64) -> f64 {
        let bound = |lambda: f64| self.cumulant(lambda) - lambda * epsilon;
        let most = bound(best) + SLACK;
        let loose = |ln_lambda: f64| bound(libm::exp(ln_lambda)) > most;
        libm::exp(bisect((libm::log(best) - 40.0, libm::log(best)), 40, loose).1)
    }

    fn step(&self) -> f64 {
        self.parts.first().map_or(1.0, |(dots, _)| dots.step)
    }

    /// The window that the tilted sum leaves with probability `e^-OUTSIDE` at most, on each side.
    pub fn window(&self, lambda: f64) -> Window {
        let here = self.cumulant(lambda);
        // Chernoff's bound on the quantile, at the best of some exponents.
        let reach = |sign: f64| {
            let bound = |ln_theta: f64| {
                let theta = libm::exp(ln_theta);
                (self.cumulant(lambda + sign * theta) - here + OUTSIDE) / theta
            };
            let ln_theta = least(bound, libm::log(1e-3), libm::log(1e13));
            (bound(ln_theta), libm::exp(ln_theta))
        };
        let (below, above) = (reach(-1.0), reach(1.0));
        Window { lambda, range: (-below.0, above.0), theta: (below.1, above.1) }
    }

    /// The law in a window of `size` grid points (a power of two).
    pub fn law(&self, window: &Window, size: usize, fft: &mut RealFftPlanner<f64>) -> Law {
        let step = self.step();
        let middle = 0.5 * (window.range.0 + window.range.1);
        let first = (middle / step).round() as i64 - (size / 2) as i64;
        let (tilted, entry_error) = self.convolve(window.lambda, first, size, fft);
        let cumulant = self.cumulant(window.lambda);
        let ends = (first as f64 * step, (first + size as i64 - 1) as f64 * step);
        // Chernoff's bound on the tilted mass beyond an end, whatever theta.
        let beyond =
            |theta: f64, end: f64| libm::exp((self.cumulant(window.lambda + theta) - cumulant - theta * end).min(0.0));
        let (below, over) = (beyond(-window.theta.0, ends.0), beyond(window.theta.1, ends.1));
        // P[S > end] <= e^(K(lambda + theta) - (lambda + theta) end), of which `over` is the tilted part.
        let above = over * libm::exp((cumulant - window.lambda * ends.1).min(700.0));
        Law {
            first,
            step,
            tilted,
            lambda: window.lambda,
            cumulant,
            entry_error,
            outside: (below, over),
            above: above.min(1.0),
            infinite: self.infinite(),
        }
    }

    /// Tilted masses at `first..first + size`, all others wrapped into them, and a bound on the error of each.
    fn convolve(&self, lambda: f64, first: i64, size: usize, fft: &mut RealFftPlanner<f64>) -> (Vec<f64>, f64) {
        let (forward, inverse) = (fft.plan_fft_forward(size), fft.plan_fft_inverse(size));
        let mut product = vec![Complex64::new(1.0, 0.0); size / 2 + 1];
        let unit = FFT_ERROR * f64::EPSILON * f64::from(size.ilog2());
        // Sum over the frequencies of the error of the product.
        let mut spread = vec![0.0; size / 2 + 1];
        let mut offset = 0i128;
        for (dots, count) in &self.parts {
            let spectrum = transform(dots, lambda, size, &forward);
            offset += i128::from(*count) * i128::from(dots.first);
            for ((whole, error), part) in product.iter_mut().zip(&mut spread).zip(&spectrum) {
                let (length, angle) = (part.norm(), part.arg());
                let count = *count as f64;
                let power = libm::exp(count * libm::log(length));
                *error += count * unit / length.max(unit);
                *whole *= Complex64::from_polar(power, libm::fmod(count * angle, 2.0 * std::f64::consts::PI));
            }
        }
        let last = product.len() - 1;
        let sum =
            |f: &dyn Fn(usize) -> f64| (0..=last).map(|k| f(k) * if k == 0 || k == last { 1.0 } else { 2.0 }).sum();
        let error: f64 = sum(&|k| product[k].norm() * (spread[k] + unit));
        let mut out = inverse.make_output_vec();
        // The first and last frequency of a real signal are real.
        product[0].im = 0.0;
        product[last].im = 0.0;
        if inverse.process(&mut product, &mut out).is_err() {
            // Only a wrong length could: then nothing is known.
            return (vec![0.0; size], 1.0);
        }
        let scale = 1.0 / size as f64;
        out.iter_mut().for_each(|w| *w *= scale);
        // out[k] is the mass at offset + k, modulo the size.
        let shift = (i128::from(first) - offset).rem_euclid(size as i128) as usize;
        out.rotate_left(shift);
        (out, error * scale)
    }
}

impl Law {
    /// The least epsilon >= 0 whose `upper` (or `lower`) bound on delta is at most `delta`.
    pub fn epsilon(&self, delta: f64, side: Side) -> f64 {
        let reference = self.reference();
        let factor = libm::exp(self.cumulant - self.lambda * reference);
        let fixed = self.fixed(side);
        if fixed >= delta && side == Side::Upper {
            return f64::INFINITY;
        }
        let mut sums = Sums::default();
        let mut above = f64::INFINITY;
        for (i, &w) in self.tilted.iter().enumerate().rev() {
            let s = self.at(i);
            let here = |epsilon: f64| factor * self.charged(&sums, epsilon - reference, side) + fixed;
            if here(s.max(0.0)) > delta {
                // Between this point and the one above it (A, B) are constant: A - e^epsilon B = delta.
                let excess = sums.a + self.errors(&sums, s - reference, side) - (delta - fixed) / factor;
                let epsilon = reference + libm::log(excess / sums.b);
                let (least, greatest) = (s.max(0.0), above);
                return if epsilon.is_nan() {
                    if side == Side::Upper { greatest } else { least }
                } else {
                    epsilon.max(least).min(greatest)
                };
            }
            if s <= 0.0 {
                return 0.0;
            }
            sums.add(w, self.lambda, s - reference);
            above = s;
        }
        match side {
            Side::Upper => above,
            Side::Lower => 0.0,
        }
    }

    /// The `upper` (or `lower`) bound on delta at `epsilon`.
    pub fn delta(&self, epsilon: f64, side: Side) -> f64 {
        let reference = self.reference();
        let mut sums = Sums::default();
        let inside = self.tilted.iter().enumerate().rev().take_while(|&(i, _)| self.at(i) > epsilon);
        inside.for_each(|(i, &w)| sums.add(w, self.lambda, self.at(i) - reference));
        let factor = libm::exp(self.cumulant - self.lambda * reference);
        (factor * self.charged(&sums, epsilon - reference, side) + self.fixed(side)).clamp(0.0, 1.0)
    }

    /// The middle of the window, from which exponents count.
    fn reference(&self) -> f64 {
        self.at(self.tilted.len() / 2)
    }

    fn at(&self, i: usize) -> f64 {
        (self.first + i as i64) as f64 * self.step
    }

    /// What lies outside all of this.
    fn fixed(&self, side: Side) -> f64 {
        self.infinite + if side == Side::Upper { self.above } else { 0.0 }
    }

    /// What errors of the entries come to above `epsilon`, in the direction of the bound; for the lower one also the tilted
    /// mass that may have been wrapped into the window, at the greatest weight.
    fn errors(&self, sums: &Sums, epsilon: f64, side: Side) -> f64 {
        let entries = self.entry_error * sums.weight;
        match side {
            Side::Upper => entries,
            Side::Lower => -entries - (self.outside.0 + self.outside.1) * libm::exp(-self.lambda * epsilon),
        }
    }

    /// The bound above `epsilon`; where weights overflow, nothing is known.
    fn charged(&self, sums: &Sums, epsilon: f64, side: Side) -> f64 {
        let height = sums.a - libm::exp(epsilon) * sums.b + self.errors(sums, epsilon, side);
        match side {
            Side::Upper if height.is_nan() => f64::INFINITY,
            // A number that is none becomes zero here.
            _ => height.max(0.0),
        }
    }
}

/// Which bound is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Never below the truth.
    Upper,
    /// Never above it.
    Lower,
}

/// Sums over the losses above a point: masses, masses times `e^-s`, and the weights that undo the tilt.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    a: f64,
    b: f64,
    weight: f64,
}

impl Sums {
    fn add(&mut self, w: f64, lambda: f64, s: f64) {
        let weight = libm::exp(-lambda * s);
        if w > 0.0 {
            self.a += w * weight;
            self.b += w * weight * libm::exp(-s);
        }
        self.weight += weight;
    }
}

/// The spectrum of the tilted law of one loss, its first grid point at 0.
fn transform(dots: &Dots, lambda: f64, size: usize, forward: &Arc<dyn RealToComplex<f64>>) -> Vec<Complex64> {
    let mut signal = vec![0.0; size];
    let here = cumulant(dots, lambda);
    for (j, &p) in dots.p.iter().enumerate() {
        if p > 0.0 {
            signal[j % size] += p * libm::exp(lambda * dots.at(j) - here);
        }
    }
    let mut spectrum = forward.make_output_vec();
    // Fails on a wrong length only.
    let _ = forward.process(&mut signal, &mut spectrum);
    spectrum
}

/// `ln sum p_j e^(lambda epsilon_j)`: by Horner's rule in blocks, whose greatest exponents are then put together.
fn cumulant(dots: &Dots, lambda: f64) -> f64 {
    const BLOCK: usize = 256;
    let ratio = libm::exp(-lambda * dots.step);
    let terms = dots.p.chunks(BLOCK).enumerate().filter_map(|(i, block)| {
        // Falling tilts count from the last point of a block, rising ones from the first.
        let (sum, j) = if lambda >= 0.0 {
            (block.iter().fold(0.0, |sum, &p| sum * ratio + p), i * BLOCK + block.len() - 1)
        } else {
            (block.iter().rev().fold(0.0, |sum, &p| sum / ratio + p), i * BLOCK)
        };
        (sum > 0.0).then(|| lambda * dots.at(j) + libm::log(sum))
    });
    let terms: Vec<f64> = terms.collect();
    log_sum_exp(&terms)
}

/// Where a function with one valley is least, by golden section.
fn least(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    const RATIO: f64 = 0.618_033_988_749_894_9;
    let (mut a, mut b) = (high - RATIO * (high - low), low + RATIO * (high - low));
    let (mut fa, mut fb) = (f(a), f(b));
    for _ in 0..32 {
        if fa <= fb {
            (high, b, fb) = (b, a, fa);
            a = high - RATIO * (high - low);
            fa = f(a);
        } else {
            (low, a, fa) = (a, b, fb);
            b = low + RATIO * (high - low);
            fb = f(b);
        }
    }
    0.5 * (low + high)
}
