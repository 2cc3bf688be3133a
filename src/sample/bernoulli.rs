//! Exact coins: `Bernoulli(p)` and `Bernoulli(e^-x)` for rational `p` and `x`.
//!
//! Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential Privacy" (2020), Algorithm 1.

use num_bigint::BigUint;
use num_integer::Integer;
use num_traits::ToPrimitive;

use crate::math::prg::StreamReader;

/// 1 with probability `numerator / denominator` (at most 1; a zero denominator gives false).
pub fn fraction(reader: &mut StreamReader, numerator: u64, denominator: u64) -> bool {
    reader.below(denominator) < numerator && denominator > 0
}

/// 1 with probability `e^-x`, `x` in `[0, 1]` given as a coin that shows 1 with probability `x`.
///
/// `K` counts coins with probabilities `x/1, x/2, ...` up to the first 0; `K` is odd with probability `e^-x`.
fn exp_minus_coin(reader: &mut StreamReader, mut coin: impl FnMut(&mut StreamReader) -> bool) -> bool {
    let mut k = 1u64;
    while coin(reader) && reader.below(k) == 0 {
        k += 1;
    }
    k % 2 == 1
}

/// 1 with probability `e^-1`.
pub fn exp_minus_one(reader: &mut StreamReader) -> bool {
    exp_minus_coin(reader, |_| true)
}

/// 1 with probability `e^-(numerator / denominator)`; a zero denominator gives false.
pub fn exp_minus(reader: &mut StreamReader, numerator: u64, denominator: u64) -> bool {
    if denominator == 0 {
        return false;
    }
    let (whole, rest) = numerator.div_rem(&denominator);
    (0..whole).all(|_| exp_minus_one(reader)) && exp_minus_coin(reader, |r| fraction(r, rest, denominator))
}

/// Fraction bits of an [`Exponent`].
pub const EXPONENT_BITS: u32 = 48;

/// A rational number `x >= 0` between two fixed-point bounds in units of `2^-48`, `low <= x <= high`; its
/// exact value is asked for only when the bounds cannot decide, about once in 2^40 draws.
#[derive(Clone, Copy, Debug)]
pub struct Exponent<F> {
    /// Lower bound.
    pub low: u128,
    /// Upper bound.
    pub high: u128,
    /// The exact numerator and denominator.
    pub exact: F,
}

impl<F: Fn() -> (BigUint, BigUint)> Exponent<F> {
    /// 1 with probability `e^-x`: an exact coin, whatever the width of the bounds.
    pub fn exp_minus(&self, reader: &mut StreamReader) -> bool {
        let whole = self.low >> EXPONENT_BITS;
        if self.high >> EXPONENT_BITS != whole {
            return self.exp_minus_exactly(reader);
        }
        let unit = (1u128 << EXPONENT_BITS) - 1;
        let (low, high) = (self.low & unit, self.high & unit);
        (0..whole).all(|_| exp_minus_one(reader))
            && exp_minus_coin(reader, |r| {
                let u = u128::from(r.next_u64() >> (64 - EXPONENT_BITS));
                // U lies in [u, u + 1) 2^-48.
                if u < low {
                    true
                } else if u > high {
                    false
                } else {
                    let (numerator, denominator) = (self.exact)();
                    below_digits(r, u, numerator.mod_floor(&denominator), &denominator)
                }
            })
    }

    fn exp_minus_exactly(&self, reader: &mut StreamReader) -> bool {
        let (numerator, denominator) = (self.exact)();
        let (whole, rest) = numerator.div_rem(&denominator);
        // A coin that must show 1 more than 2^64 times in a row shows 0 before that.
        let whole = whole.to_u64().unwrap_or(u64::MAX);
        (0..whole).all(|_| exp_minus_one(reader))
            && exp_minus_coin(reader, |r| {
                let u = u128::from(r.next_u64() >> (64 - EXPONENT_BITS));
                below_digits(r, u, rest.clone(), &denominator)
            })
    }
}

/// True if `U < numerator / denominator < 1`, `U` uniform with the first 48 bits `u`; further bits are drawn
/// while they agree with those of the fraction.
fn below_digits(reader: &mut StreamReader, u: u128, numerator: BigUint, denominator: &BigUint) -> bool {
    let (mut digits, mut rest) = (numerator << EXPONENT_BITS).div_rem(denominator);
    let mut drawn = BigUint::from(u);
    while drawn == digits {
        if rest == BigUint::ZERO {
            return false;
        }
        (digits, rest) = (rest << 64u32).div_rem(denominator);
        drawn = BigUint::from(reader.next_u64());
    }
    drawn < digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::{Cipher, StreamKey};

    fn share(mut coin: impl FnMut() -> bool) -> f64 {
        (0..40_000).filter(|_| coin()).count() as f64 / 40_000.0
    }

    /// Five standard deviations of 40,000 coins are at most 0.0125.
    #[test]
    fn coins_have_their_probability() {
        let mut r = StreamKey::from_bytes([1; 32], Cipher::ChaCha8).reader(0);
        for (n, d) in [(0u64, 1u64), (1, 1), (1, 3), (5, 2), (7, 5), (u64::MAX - 1, u64::MAX)] {
            let exact = (-(n as f64) / d as f64).exp();
            assert!((share(|| exp_minus(&mut r, n, d)) - exact).abs() < 0.0125, "{n}/{d}");
            let fixed = (u128::from(n) << EXPONENT_BITS) / u128::from(d);
            for slack in [1, 1 << 46, 1 << 50] {
                let x = Exponent {
                    low: fixed.saturating_sub(slack),
                    high: fixed + slack,
                    exact: || (BigUint::from(n), BigUint::from(d)),
                };
                assert!((share(|| x.exp_minus(&mut r)) - exact).abs() < 0.0125, "{n}/{d} +- {slack}");
            }
        }
        assert!((share(|| fraction(&mut r, 2, 7)) - 2.0 / 7.0).abs() < 0.0125);
        assert!(!fraction(&mut r, 1, 0) && !exp_minus(&mut r, 1, 0));
    }
}
