//! Constant-time noise from tables: every 128-bit threshold is compared with every coordinate's uniform.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;
use crate::math::prg::StreamKey;
use crate::params::NOISE_STRIDE;
use crate::sample::table::NoiseTable;

/// Coordinates whose uniforms are made and compared together: 8 KiB of keystream.
pub(super) const CHUNK: usize = 512;
/// Coordinates compared with one threshold before the next.
const LANES: usize = 32;

/// A table in the form that the comparison takes: both halves of a threshold as signed integers, the
/// lower one with its top bit flipped, so that signed comparison orders them.
pub(super) struct Thresholds(Vec<[i64; 2]>);

/// Flips the top bit: unsigned order becomes signed order.
const FLIP: u64 = 1 << 63;

impl Thresholds {
    /// Splits a table.
    pub(super) fn new(table: &NoiseTable) -> Self {
        Self(table.thresholds.iter().map(|&t| [(t >> 64) as i64, (t as u64 ^ FLIP) as i64]).collect())
    }
}

/// Adds noise to words mod `mask + 1`; word `j` uses keystream bytes `[16 j, 16 j + 16)`.
pub(super) fn add(dispatch: Dispatch, words: &mut [u32], mask: u32, table: &Thresholds, key: &StreamKey) {
    words.par_chunks_mut(CHUNK).enumerate().for_each(|(i, words)| {
        let noise = draw(dispatch, table, key, i * CHUNK, words.len());
        for (word, x) in words.iter_mut().zip(noise) {
            *word = word.wrapping_add(x) & mask;
        }
    });
}

/// The noise of `count <= CHUNK` coordinates from `start` on, as words mod `2^32`.
pub(super) fn draw(
    dispatch: Dispatch,
    table: &Thresholds,
    key: &StreamKey,
    start: usize,
    count: usize,
) -> [u32; CHUNK] {
    let mut uniform = [[0u64; 2]; CHUNK];
    let mut out = [0u32; CHUNK];
    // Whole lanes are drawn; the surplus is not used.
    let whole = count.next_multiple_of(LANES).min(CHUNK);
    key.fill(NOISE_STRIDE * start as u64, bytemuck::cast_slice_mut(&mut uniform[..count.min(CHUNK)]));
    dispatch.run(Draw { uniform: &uniform[..whole], table: &table.0, out: &mut out[..whole] });
    out
}

struct Draw<'a> {
    uniform: &'a [[u64; 2]],
    table: &'a [[i64; 2]],
    out: &'a mut [u32],
}

impl Kernel for Draw<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (uniform, _) = self.uniform.as_chunks::<LANES>();
        let (out, _) = self.out.as_chunks_mut::<LANES>();
        for (uniform, out) in uniform.iter().zip(out) {
            let (mut high, mut low, mut sign) = ([0i64; LANES], [0i64; LANES], [0u32; LANES]);
            for i in 0..LANES {
                let [first, second] = [u64::from_le(uniform[i][0]), u64::from_le(uniform[i][1])];
                sign[i] = (first & 1) as u32;
                low[i] = (((first >> 1) | (second << 63)) ^ FLIP) as i64;
                high[i] = (second >> 1) as i64;
            }
            let mut count = [0i64; LANES];
            for &[t_high, t_low] in self.table {
                for i in 0..LANES {
                    let at_least = (high[i] > t_high) | ((high[i] == t_high) & (low[i] >= t_low));
                    count[i] += i64::from(at_least);
                }
            }
            for i in 0..LANES {
                // -count if the sign bit is set, without a branch.
                out[i] = (count[i] as u32 ^ sign[i].wrapping_neg()).wrapping_add(sign[i]);
            }
        }
    }
}
