//! Numbers of about 106 bits: a sum of two f64, the second at most half a unit in the last place of the first.
//!
//! Each operation has a relative error of at most `2^-98` where nothing over- or underflows (Joldes, Muller, Popescu
//! 2017, "Tight and rigorous error bounds for basic building blocks of double-word arithmetic": Algorithm 6 for sums of
//! equal sign, 12 for products, a Newton step as in 18 for quotients; the bounds there are below `16 u^2`).

use std::ops::{Add, Div, Mul};

/// `hi + lo`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Double {
    hi: f64,
    lo: f64,
}

impl Double {
    /// Zero.
    pub const ZERO: Self = Self { hi: 0.0, lo: 0.0 };
    /// One.
    pub const ONE: Self = Self { hi: 1.0, lo: 0.0 };

    /// This number, exactly.
    #[must_use]
    pub const fn new(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }

    /// The nearest f64, to within a unit in its last place.
    #[must_use]
    pub fn value(self) -> f64 {
        self.hi + self.lo
    }

    /// `2^exponent` times this, exactly but for underflow; `exponent` in `-1000..=1000`.
    #[must_use]
    pub fn scaled(self, exponent: i32) -> Self {
        let factor = libm::ldexp(1.0, exponent);
        Self { hi: self.hi * factor, lo: self.lo * factor }
    }

    /// `hi + lo` of any two numbers, exactly.
    fn sum(a: f64, b: f64) -> Self {
        let hi = a + b;
        let back = hi - a;
        Self { hi, lo: (a - (hi - back)) + (b - back) }
    }

    /// `hi + lo` of two numbers of which the first is the larger one, exactly.
    fn quick_sum(a: f64, b: f64) -> Self {
        let hi = a + b;
        Self { hi, lo: b - (hi - a) }
    }
}

impl Add for Double {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let high = Self::sum(self.hi, other.hi);
        let low = Self::sum(self.lo, other.lo);
        let first = Self::quick_sum(high.hi, high.lo + low.hi);
        Self::quick_sum(first.hi, first.lo + low.lo)
    }
}

impl Mul for Double {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let hi = self.hi * other.hi;
        let error = self.hi.mul_add(other.hi, -hi);
        let cross = self.lo.mul_add(other.hi, self.hi.mul_add(other.lo, self.lo * other.lo));
        Self::quick_sum(hi, error + cross)
    }
}

impl Div for Double {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        // One step of Newton's method for the reciprocal.
        let first = 1.0 / other.hi;
        let rest = (-other.lo).mul_add(first, (-other.hi).mul_add(first, 1.0));
        let reciprocal = Self::quick_sum(first, first * rest);
        self * reciprocal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_come_back() {
        for a in 1..40u32 {
            for b in 1..40u32 {
                let (x, y) = (Double::new(f64::from(a)), Double::new(f64::from(b)));
                let back = (x / y) * y;
                assert!((back.hi - f64::from(a)).abs() + back.lo.abs() < 1e-29 * f64::from(a), "{a}/{b}: {back:?}");
                assert_eq!((x + y).value(), f64::from(a + b));
                assert_eq!((x * y).value(), f64::from(a * b));
            }
        }
    }

    #[test]
    fn small_parts_are_kept() {
        let tiny = Double::new(1e-25);
        let mut sum = Double::ONE;
        (0..1000).for_each(|_| sum = sum + tiny);
        let rest = sum + Double::new(-1.0);
        assert!((rest.value() / 1e-22 - 1.0).abs() < 1e-8, "{rest:?}");
        // sum 1/k! = e, whose second part is 1.4456468917292502e-16.
        let (mut e, mut term) = (Double::ONE, Double::ONE);
        for k in 1..=30 {
            term = term / Double::new(f64::from(k));
            e = e + term;
        }
        assert_eq!(e.hi, std::f64::consts::E);
        assert!((e.lo / 1.4456468917292502e-16 - 1.0).abs() < 1e-13, "{e:?}");
        assert_eq!(e.scaled(-3).value() * 8.0, e.value());
    }
}
