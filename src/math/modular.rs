//! Exact arithmetic modulo a number below 2^30, without branches on the operands.
//!
//! Residues are `u32` in `[0, p)`. Products go through 64 bits and are reduced by a multiplication with a
//! stored reciprocal (Barrett, CRYPTO '86), so that the time does not depend on a secret operand; exponents
//! and moduli are public.

use thiserror::Error;

/// Moduli are smaller than this: four of them fit in 32 bits, which lazy butterflies rest on.
pub const MODULUS_LIMIT: u32 = 1 << 30;

/// A modulus `2 <= p < 2^30`, prime or not, with its reciprocal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    p: u32,
    /// `floor(2^64 / p)`, less one if p is a power of two.
    reciprocal: u64,
}

/// A number that is no modulus here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ModulusError {
    /// Outside `2..2^30`.
    #[error("modulus {found} is outside 2..2^30")]
    OutOfRange {
        /// The number.
        found: u32,
    },
}

/// A public or secret factor `w` prepared for many products: `quotient = floor(w 2^32 / p)` (Shoup).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shoup {
    /// The factor, in `[0, p)`.
    pub value: u32,
    /// `floor(value 2^32 / p)`.
    pub quotient: u32,
}

impl Modulus {
    /// The modulus `p`.
    ///
    /// # Errors
    /// If `p` is outside `2..2^30`.
    pub const fn new(p: u32) -> Result<Self, ModulusError> {
        if p < 2 || p >= MODULUS_LIMIT {
            return Err(ModulusError::OutOfRange { found: p });
        }
        Ok(Self { p, reciprocal: u64::MAX / p as u64 })
    }

    /// The number itself.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u32 {
        self.p
    }

    /// `x` or `x - p`, whichever is in `[0, p)`, for `x < 2 p`.
    #[inline]
    const fn once(self, x: u32) -> u32 {
        let less = x.wrapping_sub(self.p);
        // All ones where the subtraction wrapped, that is where x < p.
        let wrapped = 0u32.wrapping_sub(less >> 31);
        less.wrapping_add(self.p & wrapped)
    }

    /// `x mod p` for any `x`.
    #[inline]
    #[must_use]
    pub const fn reduce(self, x: u64) -> u32 {
        // The reciprocal is short by less than 1 + 2^-30 units of 2^-64, so the quotient is short by at most 1.
        let quotient = ((x as u128 * self.reciprocal as u128) >> 64) as u64;
        self.once(x.wrapping_sub(quotient.wrapping_mul(self.p as u64)) as u32)
    }

    /// `x mod p` for a signed `x`, in `[0, p)`.
    #[inline]
    #[must_use]
    pub const fn reduce_signed(self, x: i32) -> u32 {
        // 2^32 p is a multiple of p, and larger than any |x|.
        self.reduce(((self.p as u64) << 32).wrapping_add(x as i64 as u64))
    }

    /// `a + b mod p` of residues.
    #[inline]
    #[must_use]
    pub const fn add(self, a: u32, b: u32) -> u32 {
        self.once(a + b)
    }

    /// `a - b mod p` of residues.
    #[inline]
    #[must_use]
    pub const fn sub(self, a: u32, b: u32) -> u32 {
        self.once(a + self.p - b)
    }

    /// `-a mod p` of a residue.
    #[inline]
    #[must_use]
    pub const fn neg(self, a: u32) -> u32 {
        self.sub(0, a)
    }

    /// `a b mod p` of residues.
    #[inline]
    #[must_use]
    pub const fn mul(self, a: u32, b: u32) -> u32 {
        self.reduce(a as u64 * b as u64)
    }

    /// `base^exponent mod p`; the time depends on the exponent (public), not on the base.
    #[must_use]
    pub const fn pow(self, base: u32, exponent: u64) -> u32 {
        let mut result = self.reduce(1);
        let mut square = base;
        let mut rest = exponent;
        while rest > 0 {
            if rest & 1 == 1 {
                result = self.mul(result, square);
            }
            square = self.mul(square, square);
            rest >>= 1;
        }
        result
    }

    /// `a^-1 mod p` for a **prime** p and `a` not 0 (Fermat: `a^(p-2)`); 0 gives 0.
    #[must_use]
    pub const fn inverse(self, a: u32) -> u32 {
        self.pow(a, self.p as u64 - 2)
    }

    /// Prepares the residue `w` for [`Self::mul_shoup`].
    #[inline]
    #[must_use]
    pub const fn shoup(self, w: u32) -> Shoup {
        // floor(w 2^32 / p) from the remainder, so that no division sees w.
        let wide = (w as u64) << 32;
        let rest = self.reduce(wide);
        let exact = wide - rest as u64;
        // exact / p: the estimate is short by at most 1; the remainder of the estimate says whether.
        let estimate = ((exact as u128 * self.reciprocal as u128) >> 64) as u64;
        let left = exact.wrapping_sub(estimate.wrapping_mul(self.p as u64)) as u32;
        let short = (self.p.wrapping_sub(1).wrapping_sub(left)) >> 31;
        Shoup { value: w, quotient: (estimate + short as u64) as u32 }
    }

    /// `x w mod p` for any 32-bit `x` (Shoup's product: two multiplications and no division).
    #[inline]
    #[must_use]
    pub const fn mul_shoup(self, x: u32, w: Shoup) -> u32 {
        let quotient = ((x as u64 * w.quotient as u64) >> 32) as u32;
        // In [0, 2p): quotient is floor(x w / p) or one less.
        self.once(x.wrapping_mul(w.value).wrapping_sub(quotient.wrapping_mul(self.p)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULI: [u32; 8] = [2, 3, 4, 17, 65_537, 1 << 29, 1_073_479_681, MODULUS_LIMIT - 1];

    #[test]
    fn agrees_with_wide_division() {
        for p in MODULI {
            let m = Modulus::new(p).unwrap();
            let wide = u64::from(p);
            let mut operands = vec![0, 1, p / 2, p - 1, p.saturating_sub(2), p / 3];
            operands.extend((1..40u32).map(|i| i.wrapping_mul(0x9e37_79b9) % p));
            for &a in &operands {
                assert_eq!(u64::from(m.neg(a)), (wide - u64::from(a)) % wide);
                let w = m.shoup(a);
                assert_eq!(u64::from(w.quotient), (u64::from(a) << 32) / wide, "shoup {a} mod {p}");
                for &b in &operands {
                    let (x, y) = (u64::from(a), u64::from(b));
                    assert_eq!(u64::from(m.add(a, b)), (x + y) % wide);
                    assert_eq!(u64::from(m.sub(a, b)), (x + wide - y) % wide);
                    assert_eq!(u64::from(m.mul(a, b)), x * y % wide, "{a} {b} mod {p}");
                    assert_eq!(m.mul_shoup(b, w), m.mul(a, b));
                }
                for x in [0, 1, u32::MAX, u32::MAX - 1, 1 << 31, 4 * (p - 1).min(1 << 29)] {
                    assert_eq!(u64::from(m.mul_shoup(x, w)), u64::from(x) * u64::from(a) % wide);
                }
            }
            for x in [0, 1, u64::MAX, u64::MAX - 1, wide * wide - 1, wide * wide, 1 << 63] {
                assert_eq!(u64::from(m.reduce(x)), x % wide, "{x} mod {p}");
            }
            for x in [0, 1, -1, i32::MIN, i32::MAX] {
                assert_eq!(i64::from(m.reduce_signed(x)), i64::from(x).rem_euclid(i64::from(p)), "{x} mod {p}");
            }
        }
    }

    #[test]
    fn powers_and_inverses() {
        let m = Modulus::new(1_073_479_681).unwrap();
        assert_eq!(m.pow(3, 0), 1);
        assert_eq!(m.pow(3, 5), 243);
        assert_eq!(m.inverse(0), 0);
        for a in [1, 2, 3, 1_073_479_680, 123_456_789] {
            assert_eq!(m.mul(a, m.inverse(a)), 1);
        }
    }

    #[test]
    fn other_moduli_are_refused() {
        for p in [0, 1, MODULUS_LIMIT, u32::MAX] {
            assert_eq!(Modulus::new(p), Err(ModulusError::OutOfRange { found: p }));
        }
    }
}
