//! One draw of the centred binomial: `popcount(2k bits) - k`.

use crate::math::prg::StreamKey;
use crate::sample::binomial::CentredBinomial;

/// The noise of coordinate `j = 32 s + r`: halfword i of its h is at keystream byte `64 (h s + i) + 2 r`,
/// little-endian; of the last one only the lowest `2k - 16 (h - 1)` bits are counted.
#[must_use]
pub fn draw(law: CentredBinomial, key: &StreamKey, j: usize) -> i64 {
    let (h, s, r) = (law.halfwords() as u64, j as u64 / 32, j as u64 % 32);
    let mut left = 2 * law.k();
    let mut ones = 0;
    for i in 0..h {
        let mut bytes = [0u8; 2];
        key.fill(64 * (h * s + i) + 2 * r, &mut bytes);
        let counted = left.min(16);
        ones += (u32::from(u16::from_le_bytes(bytes)) & ((1 << counted) - 1)).count_ones();
        left -= counted;
    }
    i64::from(ones) - i64::from(law.k())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    /// k = 8: h = 1, so that coordinate j reads the 16 bits at byte 2j of the stream; k = 9 reads two lines.
    #[test]
    fn addresses() {
        let key = StreamKey::from_bytes([5; 32], Cipher::ChaCha20);
        let mut bytes = [0u8; 256];
        key.fill(0, &mut bytes);
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        for j in 0..64 {
            let found = draw(CentredBinomial::new(8).unwrap(), &key, j);
            assert_eq!(found, i64::from(half(2 * j).count_ones()) - 8);
            let (s, r) = (j / 32, j % 32);
            let ones = half(128 * s + 2 * r).count_ones() + (half(128 * s + 64 + 2 * r) & 3).count_ones();
            assert_eq!(draw(CentredBinomial::new(9).unwrap(), &key, j), i64::from(ones) - 9);
        }
    }
}
