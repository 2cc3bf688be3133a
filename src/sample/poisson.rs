//! Exact Poisson with a rational mean.

use super::{SampleError, bernoulli, fraction, within};
use crate::math::prg::StreamReader;

/// Greatest mean: a draw is a sum of so many Poisson(1), which takes seconds there.
pub const MAX_MEAN: f64 = 1e9;

/// Poisson(1) by uniform integers alone: Duchon and Duvignau, "Preserving the number of cycles of length k
/// in a growing uniform permutation" (2016), Algorithm 1. `calls` grows by the number of uniforms used, on
/// average `(e^2 - 1) / 2 = 3.1945`.
pub fn poisson_one(reader: &mut StreamReader, calls: &mut u64) -> u64 {
    // A uniform permutation grows element by element; k counts its fixed points, and the draw ends when
    // the next element would undo an earlier step.
    let (mut n, mut g, mut k) = (1u64, 0u64, 1u64);
    loop {
        *calls += 1;
        let i = reader.below(n + 1) + 1;
        if i == n + 1 {
            k += 1;
        } else if i > g {
            k -= 1;
            g = n + 1;
        } else {
            return k;
        }
        n += 1;
    }
}

/// Poisson(numerator / denominator), exact.
///
/// The integer part of the mean is a sum of Poisson(1); the rest `r / denominator` is a Poisson(1) thinned:
/// Binomial(K, r / denominator).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poisson {
    whole: u64,
    rest: u64,
    denominator: u64,
}

impl Poisson {
    /// A law with a rational mean from 0 to [`MAX_MEAN`]. Time of a draw grows with the mean.
    ///
    /// # Errors
    /// [`SampleError::ZeroDenominator`], [`SampleError::Negative`], [`SampleError::OutOfRange`].
    pub fn new(numerator: i64, denominator: i64) -> Result<Self, SampleError> {
        let (n, d) = fraction("mean", numerator, denominator)?;
        within("mean", (n / d) as f64, 0.0, MAX_MEAN)?;
        Ok(Self { whole: n / d, rest: n % d, denominator: d })
    }

    /// One draw.
    pub fn draw(&self, reader: &mut StreamReader) -> u64 {
        let mut calls = 0;
        let mut total: u64 = (0..self.whole).map(|_| poisson_one(reader, &mut calls)).sum();
        if self.rest > 0 {
            let tries = poisson_one(reader, &mut calls);
            total += (0..tries).filter(|_| bernoulli::fraction(reader, self.rest, self.denominator)).count() as u64;
        }
        total
    }
}
