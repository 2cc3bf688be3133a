//! Arithmetic mod p on lanes of 52 bits: Shoup's product with a quotient of 52 bits, and the butterflies.

use crate::backend::simd::ifma::Wide;
use crate::math::modular::Shoup;
use crate::math::ntt::{NttTables, wide_factor};

/// Bits of a product's operands.
const BITS: u32 = 52;

/// A factor and its quotient in every lane.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub(super) value: Wide,
    pub(super) quotient: Wide,
}

impl Factor {
    #[inline(always)]
    pub(super) fn splat([value, quotient]: [u64; 2]) -> Self {
        Self { value: Wide::splat(value), quotient: Wide::splat(quotient) }
    }

    #[inline(always)]
    pub(super) fn prepare(w: Shoup, p: u32) -> Self {
        Self::splat(wide_factor(w.value, p))
    }
}

/// The prime, in the forms that the stages use.
#[derive(Clone, Copy)]
pub(super) struct Ring {
    pub(super) p: u64,
    /// `2^52 - p`.
    negated: Wide,
    /// `floor(2^52 / p)`.
    reciprocal: Wide,
    /// p in every word.
    pub(super) words: Wide,
}

impl Ring {
    #[inline(always)]
    pub(super) fn new(tables: &NttTables) -> Self {
        let p = u64::from(tables.modulus().value());
        Self {
            p,
            negated: Wide::splat((1 << BITS) - p),
            reciprocal: Wide::splat((1 << BITS) / p),
            words: Wide::splat(p << 32 | p),
        }
    }

    /// `sum + x w mod p`, the product in `[0, p + 2^-7 p)` for `x < 2^45`, right in the low 52 bits.
    #[inline(always)]
    pub(super) fn mul_add(self, sum: Wide, x: Wide, w: Factor) -> Wide {
        sum.add_low(x, w.value).add_low(x.high(w.quotient), self.negated)
    }

    /// `x mod p` in `[0, 2p)`, right in the low 52 bits.
    #[inline(always)]
    pub(super) fn reduce(self, x: Wide) -> Wide {
        x.add_low(x.high(self.reciprocal), self.negated)
    }

    /// `(x + w y, x - w y)`.
    #[inline(always)]
    pub(super) fn forward(self, x: Wide, y: Wide, w: Factor) -> (Wide, Wide) {
        let sum = self.mul_add(x, y, w);
        (sum, x.add(x).sub(sum))
    }

    /// `(x + y, w (x - y))` for `y <= bound`, a multiple of p.
    #[inline(always)]
    pub(super) fn inverse(self, x: Wide, y: Wide, w: Factor, bound: Wide) -> (Wide, Wide) {
        (x.add(y), self.mul_add(Wide::splat(0), x.add(bound).sub(y), w))
    }

    /// What sums stay below before backward stage `s`: `2^(s + 1) p`.
    #[inline(always)]
    pub(super) fn bound(self, stage: usize) -> Wide {
        Wide::splat(self.p << (stage + 1))
    }
}
