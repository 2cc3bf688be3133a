//! Exact Skellam: the difference of two independent Poisson draws of the same rational mean.

use super::SampleError;
use super::poisson::Poisson;
use crate::math::prg::StreamReader;

/// Poisson(mu) - Poisson(mu), variance `2 mu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skellam(Poisson);

impl Skellam {
    /// A law with `mu = numerator / denominator >= 0`.
    ///
    /// # Errors
    /// [`SampleError::ZeroDenominator`], [`SampleError::Negative`], [`SampleError::OutOfRange`].
    pub fn new(numerator: i64, denominator: i64) -> Result<Self, SampleError> {
        Poisson::new(numerator, denominator).map(Self)
    }

    /// One draw.
    pub fn draw(&self, reader: &mut StreamReader) -> i64 {
        let up = self.0.draw(reader) as i64;
        up - self.0.draw(reader) as i64
    }
}
