//! `x = unit * s * H^T centre(sum)`, cut to `dim`; `H` the orthonormal block transform.

use super::{encode, fwht};
use crate::math::prg::StreamKey;
use crate::params::DecodeParams;

/// Centres a residue mod `2^bits` into `(-2^(b-1), 2^(b-1)]`.
#[must_use]
pub fn centre(word: u32, bits: u32) -> i64 {
    let modulus = 1i64 << bits;
    let residue = i64::from(word) & (modulus - 1);
    if residue > modulus / 2 { residue - modulus } else { residue }
}

/// Decodes a checked sum.
#[must_use]
pub fn decode(sum: &[u32], p: &DecodeParams, signs: &StreamKey) -> Vec<f32> {
    let mut x: Vec<f64> = sum.iter().map(|&word| centre(word, p.bits) as f64).collect();
    if p.rotate == 1 {
        for block in x.chunks_exact_mut(1 << p.block_log2) {
            fwht::fwht(block);
        }
        let scale = 2f64.powf(-0.5 * f64::from(p.block_log2));
        for (v, s) in x.iter_mut().zip(encode::signs(signs, sum.len())) {
            *v *= scale * s;
        }
    }
    x.iter().take(p.dim as usize).map(|v| (f64::from(p.unit) * v) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `encode_vectors.modmap` of the golden file.
    #[test]
    fn centred_residues() {
        for (word, value) in [(0, 0), (1, 1), (127, 127), (128, 128), (129, -127), (255, -1)] {
            assert_eq!(centre(word, 8), value);
        }
        assert_eq!(centre(1 << 31, 32), 1 << 31);
        assert_eq!(centre((1 << 31) + 1, 32), -(1 << 31) + 1);
    }
}
