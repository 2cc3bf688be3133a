//! The integer row of one sample as a product of integers, its exact norm, and its multiplier.
//!
//! Everything here is a function of the sample's factors and of the job.

use super::factor::{Factor, OneHot, Outer, Size, exponent, power, round_into};
use crate::backend::simd::exact::{Product, add_product};
use crate::model::IntegerClip;

/// Inputs become integers of magnitude at most `2^INPUT_BITS`.
const INPUT_BITS: i32 = 14;
/// Rows have norms of about `2^ROW_BITS` before they are multiplied, so that a multiplier up to a bound of 2^46 has ten bits.
const ROW_BITS: i32 = 35;
/// Partial sums of one sample stay at or below this: two bits below what `f64` holds exactly.
pub(super) const MOST: f64 = (1u64 << 51) as f64;
/// Up to here all integers are in `f64`.
const EXACT: f64 = (1u64 << 53) as f64;

/// The integer factors of one layer.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// A `[T x columns]`.
    pub(super) a: Vec<f64>,
    /// Z `[T x outputs]`; the gradient itself where it is one.
    pub(super) z: Vec<f64>,
    /// Its gradient `A^T Z`, in the order of the weights, where that is cheaper than inner products.
    pub(super) whole: Vec<f64>,
    /// Rows of an embedding that are not zero.
    pub(super) tokens: Vec<u32>,
    /// A bound on the partial sums of its gradient's entries.
    spread: f64,
    /// Inner products `A A^T` and `Z Z^T`.
    gram: [Vec<f64>; 2],
}

/// The integer row of one sample: `multiplier` times the row that its parts give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Outcome {
    /// m: a factor of all parts, an integer at most [`MOST`]; 0 for a row of zeros.
    pub(super) multiplier: f64,
    /// A bound on the partial sums of an entry of m times the row, at most [`MOST`].
    pub(super) spread: f64,
    /// NaN or an infinity, or integers beyond 53 bits.
    pub(super) zeroed: bool,
    /// Whether the bound made it smaller.
    pub(super) clipped: bool,
    /// What the clip multiplied it by.
    pub(super) ratio: f64,
    /// Its norm before the clip, in units of the gradient.
    pub(super) norm: f64,
}

impl Outcome {
    const ZERO: Self = Self { multiplier: 0.0, spread: 0.0, zeroed: false, clipped: false, ratio: 1.0, norm: 0.0 };
    /// As `encode` counts a bad row.
    const BAD: Self = Self { zeroed: true, ratio: 0.0, ..Self::ZERO };
}

/// Fills `parts` with the integer factors of a sample and finds its multiplier.
///
/// The row is `m sum_t A_t (x) Z_t` with `A = round(2^e a)`, `Z = round(2^(E - e) dz)`, e a layer's and E the sample's
/// exponent; its norm is m times the exact integer norm N of the rest, and `m = min(2^(log2 S - E), floor(B / N))`.
pub(super) fn build(factors: &[Factor<'_>], parts: &mut Vec<Part>, job: &IntegerClip) -> Outcome {
    parts.resize_with(factors.len(), Part::default);
    let sizes: Vec<Size> = factors.iter().map(Factor::size).collect();
    let energy: f64 = sizes.iter().map(|size| size.energy).sum();
    if !energy.is_finite() {
        return Outcome::BAD;
    }
    if energy <= 0.0 {
        return Outcome::ZERO;
    }
    // sqrt(energy) < 2^half, which no layer's gradient exceeds.
    let half = (exponent(energy) + 1).div_euclid(2);
    let scale = (ROW_BITS - half).min(job.scale_log2);
    let (mut square, mut spread) = (0u128, 0f64);
    for ((factor, part), size) in factors.iter().zip(parts.iter_mut()).zip(&sizes) {
        let Some(more) = part.fill(factor, size, scale) else { return Outcome::BAD };
        let Some(sum) = square.checked_add(more) else { return Outcome::BAD };
        square = sum;
        spread = spread.max(part.spread);
    }
    if square == 0 {
        return Outcome::ZERO;
    }
    let plain = power((job.scale_log2 - scale).min(MOST_LOG2));
    let bound = u128::from(job.bound);
    // floor(sqrt(floor(B^2 / N^2))): m^2 N^2 <= B^2.
    let most = (bound * bound / square).isqrt().min(1 << MOST_LOG2) as f64;
    let room = if spread > 0.0 { (MOST / spread).floor() } else { 0.0 };
    let multiplier = plain.min(most).min(room);
    Outcome {
        multiplier,
        spread: spread * multiplier,
        zeroed: false,
        clipped: multiplier < plain,
        ratio: multiplier * power(scale - job.scale_log2),
        norm: (square as f64).sqrt() * power(-scale),
    }
}

/// `log2 MOST`.
const MOST_LOG2: i32 = 51;

impl Part {
    /// Rounds a factor and takes the exact squared norm of its gradient; `None` where 53 bits do not do.
    fn fill(&mut self, factor: &Factor<'_>, size: &Size, scale: i32) -> Option<u128> {
        self.whole.clear();
        self.spread = 0.0;
        match factor {
            Factor::Outer(outer) => self.outer(outer, size, scale),
            Factor::OneHot(one) => self.one_hot(one, scale),
            Factor::Dense { values, .. } => {
                round_into(&super::View::rows(values, values.len()), 1, scale, false, &mut self.z);
                self.measured()
            }
        }
    }

    fn outer(&mut self, outer: &Outer<'_>, size: &Size, scale: i32) -> Option<u128> {
        let positions = outer.positions;
        // Without inputs, as without derivatives, there is no gradient.
        if size.peak == 0.0 || positions == 0 {
            self.a.clear();
            self.z.clear();
            return Some(0);
        }
        let own = INPUT_BITS - exponent(size.peak);
        round_into(&outer.a, positions, own, outer.span.bias.is_some(), &mut self.a);
        round_into(&outer.dz, positions, scale - own, false, &mut self.z);
        let (columns, outputs) = (outer.columns(), outer.outputs());
        let (a, z) = (columns_peak(&self.a, columns), columns_peak(&self.z, outputs));
        // Cauchy and Schwarz: no partial sum of an entry of A^T Z is above the norms of a column of each. The factor covers
        // what the root may be too small by.
        self.spread = (a * z).sqrt() * (1.0 + 1e-9);
        // All sums of squares are exact below this, and so are inner products, which are smaller.
        let (inputs, derivatives) = (longest_row(&self.a, columns), total(&self.z));
        if !(a < EXACT && inputs < EXACT && derivatives < EXACT && self.spread <= MOST) {
            return None;
        }
        if positions == 1 {
            return Some(integer(inputs) * integer(derivatives));
        }
        // Products of the whole gradient are counted again in the sum, those of inner products are extra.
        if 6 * columns * outputs < positions * (columns + outputs + 8) {
            self.multiply(outer);
            return self.whole_square();
        }
        Some(self.inner_products(positions, columns, outputs))
    }

    /// `A^T Z` in the order of the weights.
    fn multiply(&mut self, outer: &Outer<'_>) {
        self.whole.resize(outer.place().len(), 0.0);
        add_outer(&mut self.whole, outer, &self.a, &self.z);
    }

    fn whole_square(&mut self) -> Option<u128> {
        self.spread = self.whole.iter().fold(0.0, |peak, v| v.abs().max(peak));
        square_sum(&self.whole)
    }

    /// `sum_(t, u) (A_t . A_u)(Z_t . Z_u)`, which is the squared norm of `A^T Z`.
    fn inner_products(&mut self, positions: usize, columns: usize, outputs: usize) -> u128 {
        let Self { a, z, gram, .. } = self;
        for (gram, (values, columns)) in gram.iter_mut().zip([(a, columns), (z, outputs)]) {
            gram.clear();
            gram.resize(positions * positions, 0.0);
            let job = Product {
                rows: positions,
                columns: positions,
                terms: columns,
                out_steps: (positions, 1),
                left: values,
                left_steps: (columns, 1),
                right: values,
                right_steps: (1, columns),
            };
            add_product(gram, &job);
        }
        let [a, z] = gram;
        let sum: i128 = a.iter().zip(&*z).map(|(&a, &z)| i128::from(a as i64) * i128::from(z as i64)).sum();
        // It is a square.
        sum.max(0) as u128
    }

    /// Adds up the rows of equal tokens: `Z` then has a row for each token that occurs.
    fn one_hot(&mut self, one: &OneHot<'_>, scale: i32) -> Option<u128> {
        let positions = one.tokens.len();
        round_into(&one.dz, positions, scale, false, &mut self.a);
        // A sum of T of them stays exact.
        if peak(&self.a) * positions as f64 > MOST {
            return None;
        }
        let mut order: Vec<usize> = (0..positions).collect();
        order.sort_unstable_by_key(|&t| (one.tokens[t], t));
        self.tokens.clear();
        self.z.clear();
        for t in order {
            let row = &self.a[t * one.outputs..(t + 1) * one.outputs];
            if self.tokens.last() == Some(&one.tokens[t]) {
                let start = self.z.len() - one.outputs;
                self.z[start..].iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
            } else {
                self.tokens.push(one.tokens[t]);
                self.z.extend_from_slice(row);
            }
        }
        self.measured()
    }

    /// Squared norm and largest magnitude of a gradient that lies in `z`.
    fn measured(&mut self) -> Option<u128> {
        self.spread = peak(&self.z);
        if self.spread > MOST { None } else { square_sum(&self.z) }
    }
}

/// Adds `A^T Z` to weight and bias of a layer, which `out` holds.
pub(super) fn add_outer(out: &mut [f64], outer: &Outer<'_>, a: &[f64], z: &[f64]) {
    let (inputs, outputs, columns) = (outer.inputs(), outer.outputs(), outer.columns());
    let (weight, bias) = out.split_at_mut(outer.span.weight.len());
    let job = Product {
        rows: inputs,
        columns: outputs,
        terms: z.len() / outputs.max(1),
        out_steps: outer.steps(),
        left: a,
        left_steps: (1, columns),
        right: z,
        right_steps: (outputs, 1),
    };
    add_product(weight, &job);
    if columns > inputs {
        for (row, z) in a.chunks_exact(columns).zip(z.chunks_exact(outputs)) {
            bias.iter_mut().zip(z).for_each(|(sum, z)| *sum += row[inputs] * z);
        }
    }
}

/// An integer of at most 53 bits that an `f64` holds.
const fn integer(x: f64) -> u128 {
    x as u128
}

fn peak(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |peak, v| v.abs().max(peak))
}

/// The exact sum of squares of integers below 2^53; `None` where 128 bits do not do.
fn square_sum(values: &[f64]) -> Option<u128> {
    // 2^106 each: of 2^20 of them no sum is above 2^127.
    values.chunks(1 << 20).try_fold(0u128, |sum, part| {
        let part: u128 = part.iter().map(|v| integer(v.abs())).map(|v| v * v).sum();
        sum.checked_add(part)
    })
}

/// The sum of all squares. If it is below 2^53 it is exact, since no partial sum was above it.
fn total(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum()
}

/// The largest sum of squares of a row.
fn longest_row(values: &[f64], columns: usize) -> f64 {
    values.chunks_exact(columns.max(1)).map(total).fold(0.0, f64::max)
}

/// The largest sum of squares of a column.
fn columns_peak(values: &[f64], columns: usize) -> f64 {
    if values.len() <= columns {
        let peak = peak(values);
        return peak * peak;
    }
    let mut sums = vec![0.0; columns];
    for row in values.chunks_exact(columns.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v * v);
    }
    sums.into_iter().fold(0.0, f64::max)
}
