//! What transformers do value by value and row by row: gelu, softmax, norms. In plain loops over sixteen lanes, which the
//! compiler makes vectors of; no contraction, so that the bits are the same on every instruction set.

use super::correlate::fold;
use super::{LANES, MatMul};
use crate::backend::simd::isa::Kernel;
use crate::backend::simd::lanes::Machine;

impl MatMul {
    /// `z Phi(z)` in place, to 2e-7 |z|; `slope` becomes its derivative `Phi(z) + z phi(z)`.
    pub(crate) fn gelu(self, z: &mut [f32], slope: &mut [f32]) {
        self.0.run(Gelu { z, slope });
    }

    /// `a *= b`, value by value; the shorter one of both ends it.
    pub(crate) fn multiply(self, a: &mut [f32], b: &[f32]) {
        self.0.run(Multiply { a, b });
    }

    /// `softmax(scale * x)` over the first `visible(i)` values of row i, each of `width`; 0 behind them.
    pub(crate) fn softmax(self, rows: &mut [f32], width: usize, visible: Visible, scale: f32) {
        self.0.run(Softmax { rows, width, visible, scale });
    }

    /// `p (g - sum p g) scale` in the place of g, row by row: the derivative by what [`Self::softmax`] read.
    pub(crate) fn softmax_gradient(self, g: &mut [f32], p: &[f32], width: usize, scale: f32) {
        self.0.run(SoftmaxGradient { g, p, width, scale });
    }

    /// See [`Norm`].
    pub(crate) fn norm(self, norm: Norm<'_>) {
        self.0.run(norm);
    }

    /// See [`NormGradient`].
    pub(crate) fn norm_gradient(self, norm: NormGradient<'_>) {
        self.0.run(norm);
    }
}

/// How many values of a row count.
#[derive(Clone, Copy)]
pub(crate) struct Visible {
    /// At most so many.
    pub(crate) length: usize,
    /// Of row i at most i + 1.
    pub(crate) causal: bool,
}

/// `hat = (a - mean) root`, `root = 1 / sqrt(variance + epsilon)`, `out = hat * gain + bias` for rows as long as the gain.
pub(crate) struct Norm<'a> {
    pub(crate) read: &'a [f32],
    pub(crate) out: &'a mut [f32],
    pub(crate) hats: &'a mut [f32],
    pub(crate) roots: &'a mut [f32],
    pub(crate) gain: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) epsilon: f32,
}

/// `into = root (d - mean d - hat mean(d hat))` for `d = given * gain`: the derivative by what [`Norm`] read.
pub(crate) struct NormGradient<'a> {
    pub(crate) given: &'a [f32],
    pub(crate) into: &'a mut [f32],
    pub(crate) hats: &'a [f32],
    pub(crate) roots: &'a [f32],
    pub(crate) gain: &'a [f32],
}

/// `e^x` to 2 units in the last place, x held in [-87, 88]; NaN for NaN (Cephes, `expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Added to a number it leaves its nearest integer in the last bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let power = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23;
    (p * (r * r) + r + 1.0) * f32::from_bits(power)
}

/// Phi and phi of the normal law; Phi to 1e-7 (Abramowitz and Stegun 7.1.26).
#[inline(always)]
fn normal(z: f32) -> (f32, f32) {
    let bell = exp(-0.5 * z * z);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * z.abs());
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_7;
    p = p * t - 0.284_496_74;
    p = p * t + 0.254_829_6;
    // Half of what is missing from 1 beyond |z|.
    let tail = 0.5 * p * t * bell;
    (if z > 0.0 { 1.0 - tail } else { tail }, 0.398_942_3 * bell)
}

#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] += block[i];
        }
    }
    for i in 0..rest.len() {
        lanes[i] += rest[i];
    }
    fold(&lanes)
}

/// `sum (x - shift) (y - shift)`.
#[inline(always)]
fn inner(x: &[f32], y: &[f32], shift: f32) -> f32 {
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..LANES {
            lanes[i] += (x[i] - shift) * (y[i] - shift);
        }
    }
    for (i, (x, y)) in x_rest.iter().zip(y_rest).enumerate() {
        lanes[i] += (x - shift) * (y - shift);
    }
    fold(&lanes)
}

/// The largest value; NaN is passed over.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for block in blocks {
        for i in 0..LANES {
            lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] };
        }
    }
    let mut most = f32::NEG_INFINITY;
    for &v in lanes.iter().chain(rest) {
        most = if v > most { v } else { most };
    }
    most
}

struct Gelu<'a> {
    z: &'a mut [f32],
    slope: &'a mut [f32],
}

impl Kernel for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (z, slope) in self.z.iter_mut().zip(self.slope) {
            let (below, density) = normal(*z);
            *slope = below + *z * density;
            *z *= below;
        }
    }
}

struct Multiply<'a> {
    a: &'a mut [f32],
    b: &'a [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (a, &b) in self.a.iter_mut().zip(self.b) {
            *a *= b;
        }
    }
}

struct Softmax<'a> {
    rows: &'a mut [f32],
    width: usize,
    visible: Visible,
    scale: f32,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (i, row) in self.rows.chunks_exact_mut(self.width).enumerate() {
            let reach = if self.visible.causal { i + 1 } else { self.width };
            let (seen, rest) = row.split_at_mut(reach.min(self.visible.length).min(self.width));
            rest.fill(0.0);
            let most = largest(seen);
            for x in seen.iter_mut() {
                *x = exp((*x - most) * self.scale);
            }
            let share = 1.0 / sum(seen);
            for x in seen.iter_mut() {
                *x *= share;
            }
        }
    }
}

struct SoftmaxGradient<'a> {
    g: &'a mut [f32],
    p: &'a [f32],
    width: usize,
    scale: f32,
}

impl Kernel for SoftmaxGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (g, p) in self.g.chunks_exact_mut(self.width).zip(self.p.chunks_exact(self.width)) {
            let mean = inner(g, p, 0.0);
            for (g, &p) in g.iter_mut().zip(p) {
                *g = p * (*g - mean) * self.scale;
            }
        }
    }
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let width = self.gain.len();
        let each = 1.0 / width as f32;
        let rows = self.read.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        let kept = self.hats.chunks_exact_mut(width).zip(self.roots);
        for ((read, out), (hats, root)) in rows.zip(kept) {
            let mean = sum(read) * each;
            *root = 1.0 / (inner(read, read, mean) * each + self.epsilon).sqrt();
            for (hat, &a) in hats.iter_mut().zip(read) {
                *hat = (a - mean) * *root;
            }
            for (((out, &hat), &gain), &bias) in out.iter_mut().zip(&*hats).zip(self.gain).zip(self.bias) {
                *out = hat * gain + bias;
            }
        }
    }
}

impl Kernel for NormGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let width = self.gain.len();
        let each = 1.0 / width as f32;
        let rows = self.given.chunks_exact(width).zip(self.into.chunks_exact_mut(width));
        for ((given, into), (hats, root)) in rows.zip(self.hats.chunks_exact(width).zip(self.roots)) {
            for ((d, &g), &gain) in into.iter_mut().zip(given).zip(self.gain) {
                *d = g * gain;
            }
            let (mean, along) = (sum(into) * each, inner(into, hats, 0.0) * each);
            for (d, &hat) in into.iter_mut().zip(hats) {
                *d = root * (*d - mean - hat * along);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(from: f64, to: f64, count: usize) -> Vec<f32> {
        (0..count).map(|i| (from + (to - from) * i as f64 / (count - 1).max(1) as f64) as f32).collect()
    }

    #[test]
    fn exponentials_are_near() {
        for x in line(-86.9, 87.9, 100_001) {
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2.5e-7, "{x}: {} {exact}", exp(x));
        }
        assert!(exp(f32::NAN).is_nan() && exp(f32::NEG_INFINITY) < 2e-38 && exp(0.0) == 1.0);
    }

    #[test]
    fn gelu_and_its_slope_are_those_of_the_error_function() {
        let (mut z, mut slope) = (line(-12.0, 12.0, 24_001), vec![0.0; 24_001]);
        let at: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
        MatMul::new().gelu(&mut z, &mut slope);
        for ((x, y), slope) in at.iter().zip(&z).zip(&slope) {
            let below = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
            let density = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
            assert!((f64::from(*y) - x * below).abs() < 2e-7 * (1.0 + x.abs()), "{x}: {y}");
            assert!((f64::from(*slope) - below - x * density).abs() < 1e-6, "{x}: {slope}");
        }
    }

    /// Rows of odd widths, of which a part is seen.
    #[test]
    fn softmax_is_that_of_what_is_seen() {
        for (width, length, causal) in [(1, 1, true), (5, 5, false), (37, 20, true), (40, 33, false)] {
            let given = line(-3.0, 40.0, width * width);
            let mut rows = given.clone();
            MatMul::new().softmax(&mut rows, width, Visible { length, causal }, 0.5);
            for (i, (row, x)) in rows.chunks(width).zip(given.chunks(width)).enumerate() {
                let seen = if causal { length.min(i + 1) } else { length };
                let total: f64 = x[..seen].iter().map(|&x| (0.5 * f64::from(x)).exp()).sum();
                for (j, (&p, &x)) in row.iter().zip(x).enumerate() {
                    let expected = if j < seen { (0.5 * f64::from(x)).exp() / total } else { 0.0 };
                    assert!((f64::from(p) - expected).abs() < 1e-6, "{width} {i} {j}: {p} {expected}");
                }
            }
        }
    }
}
