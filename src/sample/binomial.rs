//! Centred binomial: `CB(k) = Binomial(k, 1/2) - Binomial(k, 1/2)`.

use super::{SampleError, within};
use crate::math::prg::StreamReader;

/// Largest k: the count of 2k bits stays within 16 bits, and one key serves almost 2^28 coordinates.
pub const MAX_K: u32 = 4096;

/// `popcount(k bits) - popcount(k bits)`, which has the law of `popcount(2k bits) - k`.
///
/// `P[X = x] = C(2k, k + x) / 4^k` on `-k ..= k`; mean 0, variance `k / 2`; closed under sums:
/// `CB(j) + CB(k) = CB(j + k)`. Uniform bits are all that a draw takes: its total variation is exactly 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CentredBinomial {
    k: u32,
}

impl CentredBinomial {
    /// A law with `1 <= k <= 4096`.
    ///
    /// # Errors
    /// [`SampleError::OutOfRange`].
    pub fn new(k: u32) -> Result<Self, SampleError> {
        within("k", f64::from(k), 1.0, f64::from(MAX_K))?;
        Ok(Self { k })
    }

    /// Coins on each side; also the largest magnitude.
    #[must_use]
    pub const fn k(self) -> u32 {
        self.k
    }

    /// `k / 2`.
    #[must_use]
    pub fn variance(self) -> f64 {
        f64::from(self.k) / 2.0
    }

    /// 16-bit words of keystream that a coordinate takes, `ceil(2k / 16)`; what is left of the last one is
    /// not used.
    #[must_use]
    pub const fn halfwords(self) -> usize {
        self.k.div_ceil(8) as usize
    }

    /// One draw from a reader: the reference. Not addressed; noise comes from a backend.
    pub fn draw(self, reader: &mut StreamReader) -> i64 {
        let mut ones = 0;
        let mut left = 2 * self.k;
        while left > 0 {
            let taken = left.min(64);
            ones += i64::from((reader.next_u64() >> (64 - taken)).count_ones());
            left -= taken;
        }
        ones - i64::from(self.k)
    }
}

/// `coins` in parts that [`CentredBinomial`] takes: the law is closed under sums.
pub fn coin_parts(coins: u64) -> impl Iterator<Item = u32> {
    let most = u64::from(MAX_K);
    let rest = (coins % most) as u32;
    std::iter::repeat_n(MAX_K, (coins / most) as usize).chain((rest > 0).then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_all_coins() {
        for coins in [0u64, 1, 4095, 4096, 4097, 8192, 1_000_003] {
            let parts: Vec<u32> = coin_parts(coins).collect();
            assert_eq!(parts.iter().map(|&k| u64::from(k)).sum::<u64>(), coins);
            assert!(parts.iter().all(|&k| CentredBinomial::new(k).is_ok()));
        }
    }

    #[test]
    fn parameters_are_checked() {
        for k in [0, MAX_K + 1, u32::MAX] {
            assert!(matches!(CentredBinomial::new(k), Err(SampleError::OutOfRange { name: "k", .. })), "{k}");
        }
        for (k, halfwords) in [(1, 1), (8, 1), (9, 2), (21, 3), (24, 3), (MAX_K, 512)] {
            let law = CentredBinomial::new(k).unwrap();
            assert_eq!((law.k(), law.halfwords(), law.variance()), (k, halfwords, f64::from(k) / 2.0));
        }
    }
}
