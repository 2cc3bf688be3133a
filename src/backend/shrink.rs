//! The deterministic shrink of the integer half of `encode`: one exact search a row, shared by all backends.

use crate::params::{EncodeParams, norm_kind};

/// log2 of the denominator of the shrink: `x' = sign(x) floor(|x| num / 2^30)`.
pub(crate) const SHRINK_BITS: u32 = 30;

/// True if `a * b <= c * 2^shift`, in 256 bits and without a branch. `b < 2^63`, `0 < shift < 128`.
fn product_at_most(a: u128, b: u64, c: u128, shift: u32) -> bool {
    let low = (a & u128::from(u64::MAX)) * u128::from(b);
    let high = (a >> 64) * u128::from(b) + (low >> 64);
    let left = (high >> 64, (high << 64) | (low & u128::from(u64::MAX)));
    let right = (c >> (128 - shift), c << shift);
    // right - left, limb by limb: no borrow out of the upper limb means left <= right.
    let (_, borrow) = right.1.overflowing_sub(left.1);
    let (upper, first) = right.0.overflowing_sub(left.0);
    let (_, second) = upper.overflowing_sub(u128::from(borrow));
    !(first | second)
}

/// The largest `num` in `[0, 2^30]` with `(num / 2^30)^e norm <= bound`: `e = 2` for the L2 norms; `e = 1`
/// for the mixed one, which is convex with `v(0) = 0`, so that `v(l x) <= l v(x)` for `l` in `[0, 1]`.
///
/// Both norms grow with `|x|`, so rounding `|x| num / 2^30` down keeps the row within the bound. The
/// search takes 31 steps whatever the row holds.
#[must_use]
pub(crate) fn shrink(norm: u128, p: &EncodeParams) -> u32 {
    let bound = p.norm_bound();
    let squared = p.norm != norm_kind::MIXED;
    let mut num = 0u64;
    for bit in (0..=SHRINK_BITS).rev() {
        let candidate = num | (1 << bit);
        let fits = if squared {
            product_at_most(norm, candidate * candidate, bound, 2 * SHRINK_BITS)
        } else {
            product_at_most(norm, candidate, bound, SHRINK_BITS)
        };
        num |= u64::from(fits) << bit;
    }
    // A row within the bound leaves the search with all 31 bits set.
    num.min(1 << SHRINK_BITS) as u32
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn params(norm: u32, bound: u128) -> EncodeParams {
        EncodeParams { norm, norm_bound: EncodeParams::limbs(bound), ..EncodeParams::zeroed() }
    }

    #[test]
    fn the_largest_factor_that_fits() {
        let one = 1u32 << SHRINK_BITS;
        for norm in [norm_kind::L2, norm_kind::MIXED, norm_kind::ROUNDED] {
            for bound in [0, 1, 77, 1 << 40, u128::MAX] {
                assert_eq!(shrink(bound.min(1 << 96), &params(norm, bound)), one);
                assert_eq!(shrink(0, &params(norm, bound)), one);
            }
            assert_eq!(shrink(1, &params(norm, 0)), 0);
            assert_eq!(shrink(1 << 94, &params(norm, 0)), 0);
        }
        assert_eq!(shrink(4 << 60, &params(norm_kind::L2, 1 << 60)), one / 2);
        assert_eq!(shrink(4 << 60, &params(norm_kind::MIXED, 1 << 60)), one / 4);
        // 101 > 100: sqrt(100/101) 2^30 = 1068412960.5..., 100/101 2^30 = 1063110716.9...
        let l2 = shrink(101, &params(norm_kind::L2, 100));
        let exact = |n: u32| u128::from(n).pow(2) * 101 <= 100u128 << 60;
        assert!(exact(l2) && !exact(l2 + 1));
        assert_eq!(shrink(101, &params(norm_kind::MIXED, 100)), 1_063_110_716);
    }

    #[test]
    fn the_wide_comparison_at_its_edges() {
        assert!(product_at_most(1 << 96, (1 << 62) + 1, ((1u128 << 62) + 1) << 36, 60));
        assert!(!product_at_most((1 << 96) + 1, 1 << 62, 1 << 98, 60));
        assert!(product_at_most(u128::MAX, 1 << 60, u128::MAX, 60));
        assert!(!product_at_most(u128::MAX, (1 << 60) + 1, u128::MAX, 60));
        assert!(product_at_most(0, 5, 0, 30) && !product_at_most(1, 1, 0, 30));
    }
}
