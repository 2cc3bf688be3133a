//! Exact discrete Laplace: `P[k] = (e^(1/b) - 1) / (e^(1/b) + 1) e^(-|k| / b)`.
//!
//! Canonne, Kamath, Steinke (2020), Algorithm 2.

use super::{SampleError, bernoulli, fraction};
use crate::math::prg::StreamReader;

/// The law with the rational scale `b = t / s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscreteLaplace {
    t: u64,
    s: u64,
}

impl DiscreteLaplace {
    /// A law with scale `numerator / denominator > 0`.
    ///
    /// # Errors
    /// [`SampleError::ZeroDenominator`], [`SampleError::Negative`]; [`SampleError::OutOfRange`] for zero and
    /// for a numerator above 2^48.
    pub fn new(numerator: i64, denominator: i64) -> Result<Self, SampleError> {
        let (t, s) = fraction("scale", numerator, denominator)?;
        super::within("scale", t as f64, 1.0, (1u64 << 48) as f64)?;
        Ok(Self { t, s })
    }

    /// The law with the integer scale `t`, `1 <= t <= 2^48`.
    pub(super) const fn integer(t: u64) -> Self {
        Self { t, s: 1 }
    }

    /// One draw.
    pub fn draw(&self, reader: &mut StreamReader) -> i64 {
        loop {
            let u = reader.below(self.t);
            if !bernoulli::exp_minus(reader, u, self.t) {
                continue;
            }
            let mut v = 0;
            while bernoulli::exp_minus_one(reader) {
                v += 1;
            }
            let magnitude = ((u + self.t * v) / self.s) as i64;
            let negative = reader.next_u64() & 1 == 1;
            if negative && magnitude == 0 {
                continue;
            }
            return if negative { -magnitude } else { magnitude };
        }
    }
}
