//! Words of b bits side by side: word `j` occupies bits `[b j, b (j + 1))`, least significant first; the unused
//! bits of the last byte are zero.

/// Packs the low `bits` bits of every word.
#[must_use]
pub fn pack(words: &[u32], bits: u32) -> Vec<u8> {
    let mut out = vec![0u8; packed_len(words.len(), bits)];
    for (j, word) in words.iter().enumerate() {
        for i in 0..bits as usize {
            let at = j * bits as usize + i;
            out[at / 8] |= (((word >> i) & 1) as u8) << (at % 8);
        }
    }
    out
}

/// The `len` words that `bytes` holds; `bytes` must be `packed_len(len, bits)` long.
#[must_use]
pub fn unpack(bytes: &[u8], len: usize, bits: u32) -> Vec<u32> {
    let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8)) & 1;
    (0..len).map(|j| (0..bits as usize).map(|i| bit(j * bits as usize + i) << i).sum()).collect()
}

/// Bytes of `len` packed words.
#[must_use]
pub const fn packed_len(len: usize, bits: u32) -> usize {
    (len as u64 * bits as u64).div_ceil(8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_side_by_side_least_significant_bit_first() {
        assert_eq!(pack(&[0b101, 0b110, 0b111], 3), [0b11_110_101, 0b1]);
        assert_eq!(pack(&[0x1234, 0x5678], 16), [0x34, 0x12, 0x78, 0x56]);
        assert_eq!(unpack(&[0b11_110_101, 0b1], 3, 3), [0b101, 0b110, 0b111]);
        assert!(pack(&[], 7).is_empty());
    }
}
