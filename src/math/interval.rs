//! Arithmetic on intervals of real numbers, rounded outward: what is computed holds for every number enclosed.
//!
//! An operation on f64 is exact but for one rounding to nearest (IEEE 754), so that the true result lies between the
//! neighbours of the computed one: each end moves by one number. `exp`, `ln`, `exp_m1` and `ln_1p` are those of `libm`,
//! which claims errors below one unit in the last place; the ends move by [`LIBM_ULPS`]. That claim is the only thing
//! here that is taken on trust. What is not defined (a division by an interval around zero, a NaN) encloses everything.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// By how many numbers the result of a `libm` function is widened on each side.
pub const LIBM_ULPS: u32 = 4;

/// The real numbers from `low` to `high`; both ends may be infinite, neither is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    /// All real numbers.
    pub const WHOLE: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

    /// One number.
    #[must_use]
    pub fn exact(x: f64) -> Self {
        Self::new(x, x)
    }

    /// From `low` to `high`; everything if that is no interval.
    #[must_use]
    pub fn new(low: f64, high: f64) -> Self {
        if low <= high { Self { low, high } } else { Self::WHOLE }
    }

    /// The least number.
    #[must_use]
    pub fn low(self) -> f64 {
        self.low
    }

    /// The greatest number.
    #[must_use]
    pub fn high(self) -> f64 {
        self.high
    }

    /// True if `x` lies inside.
    #[must_use]
    pub fn contains(self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// The numbers in both, where both are known to enclose the same one.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        Self::new(self.low.max(other.low), self.high.min(other.high))
    }

    /// `x^2`.
    #[must_use]
    pub fn square(self) -> Self {
        let (a, b) = (self.low.abs(), self.high.abs());
        let least = if self.contains(0.0) { 0.0 } else { a.min(b) };
        Self::new((least * least).next_down().max(0.0), (a.max(b) * a.max(b)).next_up())
    }

    /// Square root of what is not negative.
    #[must_use]
    pub fn sqrt(self) -> Self {
        if self.high < 0.0 {
            return Self::WHOLE;
        }
        Self::new(self.low.max(0.0).sqrt().next_down().max(0.0), self.high.sqrt().next_up())
    }

    /// `e^x`.
    #[must_use]
    pub fn exp(self) -> Self {
        Self::new(lower(libm::exp(self.low)).max(0.0), upper(libm::exp(self.high)))
    }

    /// `e^x - 1`.
    #[must_use]
    pub fn exp_m1(self) -> Self {
        Self::new(lower(libm::expm1(self.low)).max(-1.0), upper(libm::expm1(self.high)))
    }

    /// Natural logarithm of what is positive.
    #[must_use]
    pub fn ln(self) -> Self {
        if self.high <= 0.0 {
            return Self::WHOLE;
        }
        let low = if self.low > 0.0 { lower(libm::log(self.low)) } else { f64::NEG_INFINITY };
        Self::new(low, upper(libm::log(self.high)))
    }

    /// `ln(1 + x)` of what is above -1.
    #[must_use]
    pub fn ln_1p(self) -> Self {
        if self.high <= -1.0 {
            return Self::WHOLE;
        }
        let low = if self.low > -1.0 { lower(libm::log1p(self.low)) } else { f64::NEG_INFINITY };
        Self::new(low, upper(libm::log1p(self.high)))
    }
}

/// A number surely below what `libm` meant.
fn lower(x: f64) -> f64 {
    (0..LIBM_ULPS).fold(x, |x, _| x.next_down())
}

/// A number surely above what `libm` meant.
fn upper(x: f64) -> f64 {
    (0..LIBM_ULPS).fold(x, |x, _| x.next_up())
}

impl From<f64> for Interval {
    fn from(x: f64) -> Self {
        Self::exact(x)
    }
}

impl Neg for Interval {
    type Output = Self;

    fn neg(self) -> Self {
        Self { low: -self.high, high: -self.low }
    }
}

impl Add for Interval {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new((self.low + other.low).next_down(), (self.high + other.high).next_up())
    }
}

impl Sub for Interval {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Interval {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let products = [self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high];
        hull(products)
    }
}

impl Div for Interval {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        if other.contains(0.0) {
            return Self::WHOLE;
        }
        hull([self.low / other.low, self.low / other.high, self.high / other.low, self.high / other.high])
    }
}

/// From the least to the greatest of rounded results.
fn hull(ends: [f64; 4]) -> Interval {
    if ends.iter().any(|x| x.is_nan()) {
        return Interval::WHOLE;
    }
    let least = ends.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ends.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Interval::new(least.next_down(), greatest.next_up())
}

#[cfg(test)]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;

    /// `x 2^SCALE`, exactly, for the magnitudes of these tests.
    const SCALE: i32 = 160;

    fn exact(x: f64) -> BigInt {
        let bits = x.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i32;
        assert!(exponent > 0 || x == 0.0, "subnormal");
        let mantissa = if x == 0.0 { 0 } else { (bits & ((1 << 52) - 1)) | (1 << 52) };
        let shift = exponent - 1075 + SCALE;
        assert!(x == 0.0 || shift >= 0, "too small: {x}");
        let value = BigInt::from(mantissa) << shift.max(0) as usize;
        if x < 0.0 { -value } else { value }
    }

    /// Numbers whose sums, products and quotients the test can hold.
    fn number() -> impl Strategy<Value = f64> {
        (-1.0f64..1.0, -20i32..20).prop_map(|(m, e)| if m.abs() < 1e-6 { 0.0 } else { m * 2f64.powi(e) })
    }

    proptest! {
        #[test]
        fn arithmetic_encloses_the_exact_result(a in number(), b in number(), c in number(), d in number()) {
            let (x, y) = (Interval::new(a.min(b), a.max(b)), Interval::new(c.min(d), c.max(d)));
            for (u, v) in [(a, c), (a, d), (b, c), (b, d)] {
                let (sum, difference, product) = (x + y, x - y, x * y);
                prop_assert!(exact(sum.low()) <= exact(u) + exact(v) && exact(u) + exact(v) <= exact(sum.high()));
                let true_difference = exact(u) - exact(v);
                prop_assert!(exact(difference.low()) <= true_difference && true_difference <= exact(difference.high()));
                let true_product: BigInt = exact(u) * exact(v);
                let scaled = |end: f64| if end.abs() < 1e-300 { BigInt::from(0) } else { exact(end) << SCALE as usize };
                prop_assert!(scaled(product.low()) <= true_product && true_product <= scaled(product.high()));
                let quotient = x / y;
                if v != 0.0 && quotient != Interval::WHOLE {
                    let sign = if v > 0.0 { BigInt::from(1) } else { BigInt::from(-1) };
                    let numerator: BigInt = (exact(u) * &sign) << SCALE as usize;
                    let denominator = exact(v) * &sign;
                    let end = |e: f64| if e.abs() < 1e-300 { BigInt::from(0) } else { exact(e) };
                    prop_assert!(end(quotient.low()) * &denominator <= numerator);
                    prop_assert!(numerator <= end(quotient.high()) * &denominator);
                }
            }
        }

        #[test]
        fn roots_and_squares(a in 0.001f64..1e6) {
            let root = Interval::exact(a).sqrt();
            let whole = exact(a) << SCALE as usize;
            prop_assert!(exact(root.low()).pow(2) <= whole && whole <= exact(root.high()).pow(2));
            prop_assert!(Interval::new(-a, 0.5 * a).square().contains(0.0));
            prop_assert!(root.square().contains(a) && root.square().high() < a * (1.0 + 1e-15));
        }

        #[test]
        fn functions_invert_each_other(x in -600f64..600.0, y in -50f64..50.0) {
            let point = Interval::exact(x);
            prop_assert!(point.exp().ln().contains(x));
            let sum = point + Interval::exact(y);
            let (whole, parts) = (sum.exp(), point.exp() * Interval::exact(y).exp());
            prop_assert!(whole.low() <= parts.high() && parts.low() <= whole.high());
            prop_assert!(Interval::exact(y).exp_m1().ln_1p().contains(y));
            prop_assert!(point.exp().high() <= point.exp().low() * (1.0 + 1e-14));
        }
    }

    #[test]
    fn known_answers_lie_inside() {
        // From mpmath with 60 digits: the neighbours in f64 of e, ln 2, e^-700, ln 10^300, e^1e-9 - 1, ln(1 + 1e-9).
        for (found, digits) in [
            (Interval::exact(1.0).exp(), std::f64::consts::E),
            (Interval::exact(2.0).ln(), std::f64::consts::LN_2),
            (Interval::exact(-700.0).exp(), 9.85967654375977e-305),
            (Interval::exact(1e300).ln(), 690.7755278982137),
            (Interval::exact(1e-9).exp_m1(), 1.0000000005000001e-9),
            (Interval::exact(1e-9).ln_1p(), 9.999999995e-10),
        ] {
            assert!(found.low() < digits.next_up() && found.high() > digits.next_down(), "{found:?} {digits}");
            assert!(found.high() - found.low() <= 3e-15 * digits.abs(), "{found:?}");
        }
    }

    #[test]
    fn what_is_undefined_is_everything() {
        let around = Interval::new(-1.0, 1.0);
        assert_eq!(Interval::exact(1.0) / around, Interval::WHOLE);
        assert_eq!(Interval::exact(f64::NAN), Interval::WHOLE);
        assert_eq!(Interval::new(2.0, 1.0), Interval::WHOLE);
        assert_eq!(Interval::exact(-1.0).ln(), Interval::WHOLE);
        assert_eq!(Interval::exact(-1.0).sqrt(), Interval::WHOLE);
        assert_eq!((Interval::WHOLE * Interval::exact(0.0)), Interval::WHOLE);
        let huge = Interval::exact(1e308) + Interval::exact(1e308);
        assert!(huge.high().is_infinite() && huge.low() == f64::MAX);
        assert_eq!(around.ln().low(), f64::NEG_INFINITY);
        assert_eq!(Interval::exact(800.0).exp().high(), f64::INFINITY);
    }
}
