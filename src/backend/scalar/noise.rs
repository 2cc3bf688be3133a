//! One draw: from a table of 128-bit thresholds `|X| = #{k : u >= T_k}`, sign from bit 0; or by popcount.

use super::binomial;
use crate::math::prg::StreamKey;
use crate::params::NOISE_STRIDE;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;

/// The noise of coordinate `j` under `key`.
#[must_use]
pub fn draw(noise: &Noise, key: &StreamKey, j: usize) -> i64 {
    match noise {
        Noise::Table(table) => from_table(table, key, j),
        Noise::Binomial(law) => binomial::draw(*law, key, j),
    }
}

/// The draw from a table: `U` is the 16 bytes at `16 j`, little-endian.
#[must_use]
pub fn from_table(table: &NoiseTable, key: &StreamKey, j: usize) -> i64 {
    let mut bytes = [0u8; 16];
    key.fill(NOISE_STRIDE * j as u64, &mut bytes);
    magnitude_and_sign(table, u128::from_le_bytes(bytes))
}

/// The draw that `u128` uniform bits give.
#[must_use]
pub fn magnitude_and_sign(table: &NoiseTable, uniform: u128) -> i64 {
    let sign = (uniform & 1) as i64;
    let u = uniform >> 1;
    let magnitude: i64 = table.thresholds.iter().map(|&t| i64::from(u >= t)).sum();
    // -m if the sign bit is set, m otherwise, without a branch.
    (magnitude ^ -sign) + sign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_and_the_lowest_bit_is_the_sign() {
        let table = NoiseTable { thresholds: vec![10, 20, 20], variance: 0.0, total_variation: 0.0 };
        for (u, magnitude) in [(0u128, 0i64), (9, 0), (10, 1), (19, 1), (20, 3), (u128::MAX >> 1, 3)] {
            assert_eq!(magnitude_and_sign(&table, u << 1), magnitude);
            assert_eq!(magnitude_and_sign(&table, (u << 1) | 1), -magnitude);
        }
    }
}
