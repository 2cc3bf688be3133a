//! Decode of a sum: centre and scale, inverse transform, signs, cut.

use rayon::prelude::*;

use super::SEGMENT;
use super::encode::fixed::sign_bytes;
use super::fwht;
use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;
use crate::math::prg::StreamKey;
use crate::params::DecodeParams;

/// Decodes a checked sum.
pub(super) fn decode(dispatch: Dispatch, sum: &[u32], p: &DecodeParams, signs: &StreamKey) -> Vec<f32> {
    let norm = if p.rotate == 1 { (-0.5 * f64::from(p.block_log2)).exp2() } else { 1.0 };
    let factor = f64::from(p.unit) * norm;
    let mut x = vec![0f32; sum.len()];
    x.par_chunks_mut(SEGMENT)
        .zip(sum.par_chunks(SEGMENT))
        .for_each(|(x, sum)| dispatch.run(Centre { x, sum, bits: p.bits, factor }));
    if p.rotate == 1 {
        fwht::blocks(dispatch, &mut x, p.block_log2, 1.0);
        let bytes = sign_bytes(dispatch, signs, sum.len());
        x.par_chunks_mut(SEGMENT).zip(bytes.par_chunks(SEGMENT / 8)).for_each(|(x, bytes)| {
            dispatch.run(Signs { x, bytes });
        });
    }
    x.truncate(p.dim as usize);
    x
}

/// `x = factor * centre(sum)`, rounded once.
struct Centre<'a> {
    x: &'a mut [f32],
    sum: &'a [u32],
    bits: u32,
    factor: f64,
}

impl Kernel for Centre<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        // The least value is -(2^(b-1) - 1): added to it, residues run from 0 in the order of the values.
        let half = (1u32 << (self.bits - 1)) - 1;
        let mask = u32::MAX >> (32 - self.bits);
        for (x, &word) in self.x.iter_mut().zip(self.sum) {
            let from_least = word.wrapping_add(half) & mask;
            *x = ((f64::from(from_least) - f64::from(half)) * self.factor) as f32;
        }
    }
}

/// Flips the sign of coordinate `j` where bit `j % 8` of byte `j / 8` is set.
struct Signs<'a> {
    x: &'a mut [f32],
    bytes: &'a [u8],
}

impl Kernel for Signs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (groups, rest) = self.x.as_chunks_mut::<32>();
        let (quads, _) = self.bytes.as_chunks::<4>();
        let tail = self.bytes.get(4 * groups.len()..).unwrap_or(&[]);
        for (x, quad) in groups.iter_mut().zip(quads) {
            let bits = u32::from_le_bytes(*quad);
            for (i, v) in x.iter_mut().enumerate() {
                let flip = if bits & (1 << i) == 0 { 0 } else { 1 << 31 };
                *v = f32::from_bits(v.to_bits() ^ flip);
            }
        }
        for (v, bit) in rest.iter_mut().zip((0..8 * tail.len()).map(|j| tail[j / 8] >> (j % 8))) {
            *v = f32::from_bits(v.to_bits() ^ (u32::from(bit) << 31));
        }
    }
}
