//! Noise in constant time, 512 coordinates at a time: tables of 128-bit thresholds, centred binomial.

use rayon::prelude::*;

use super::binomial;
use super::chacha::{State, wipe};
use super::isa::{Dispatch, Kernel};
use super::keystream;
use super::lanes::Machine;
use crate::math::prg::StreamKey;
use crate::params::NOISE_STRIDE;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;

/// Coordinates of one draw; a draw starts at a multiple of it.
pub(super) const BLOCK: usize = binomial::BLOCK;
/// Blocks that one task of [`add`] draws.
const TASK: usize = 16 * BLOCK;
/// Coordinates compared with one threshold before the next.
const LANES: usize = 32;

/// A law in the form that the kernels take.
pub(super) enum Law {
    /// See [`Thresholds`].
    Table(Thresholds),
    /// Nothing to prepare.
    Binomial(CentredBinomial),
}

impl Law {
    /// Prepares a law.
    pub(super) fn new(noise: &Noise) -> Self {
        match noise {
            Noise::Table(table) => Self::Table(Thresholds::new(table)),
            Noise::Binomial(law) => Self::Binomial(*law),
        }
    }
}

/// A table in the form that the comparison takes: both halves of a threshold as signed integers, the
/// lower one with its top bit flipped, so that signed comparison orders them.
pub(super) struct Thresholds(Vec<[i64; 2]>);

/// Flips the top bit: unsigned order becomes signed order.
const FLIP: u64 = 1 << 63;

impl Thresholds {
    /// Splits a table.
    fn new(table: &NoiseTable) -> Self {
        Self(table.thresholds.iter().map(|&t| [(t >> 64) as i64, (t as u64 ^ FLIP) as i64]).collect())
    }
}

/// The noise under one key, block by block. What it keeps between blocks is secret and wiped on drop.
pub(super) struct Draws<'a> {
    law: &'a Law,
    key: &'a StreamKey,
    state: State,
    scratch: binomial::Scratch,
}

impl<'a> Draws<'a> {
    /// Nothing is drawn yet.
    pub(super) fn new(law: &'a Law, key: &'a StreamKey) -> Self {
        Self { law, key, state: State::new(key), scratch: binomial::Scratch::new() }
    }

    /// Writes the noise of coordinates `[first, first + 512)` mod `2^32`; `first` is a multiple of 512.
    pub(super) fn block(&mut self, dispatch: Dispatch, first: usize, out: &mut [u32; BLOCK]) {
        debug_assert!(first.is_multiple_of(BLOCK));
        match self.law {
            Law::Table(table) => {
                let mut uniform = [[0u64; 2]; BLOCK];
                keystream::fill(
                    dispatch,
                    self.key,
                    NOISE_STRIDE * first as u64,
                    bytemuck::cast_slice_mut(&mut uniform),
                );
                dispatch.run(Draw { uniform: &uniform, table: &table.0, out });
            }
            Law::Binomial(law) => {
                dispatch.run_counting(Count { law: *law, state: &self.state, scratch: &mut self.scratch, first, out })
            }
        }
    }
}

/// Adds noise to words mod `mask + 1`.
pub(super) fn add(dispatch: Dispatch, words: &mut [u32], mask: u32, law: &Law, key: &StreamKey) {
    words.par_chunks_mut(TASK).enumerate().for_each(|(i, words)| {
        let mut draws = Draws::new(law, key);
        let mut noise = [0; BLOCK];
        for (k, words) in words.chunks_mut(BLOCK).enumerate() {
            draws.block(dispatch, i * TASK + k * BLOCK, &mut noise);
            dispatch.run(Add { words, noise: &noise, mask });
        }
        wipe(&mut noise);
    });
}

struct Add<'a> {
    words: &'a mut [u32],
    noise: &'a [u32; BLOCK],
    mask: u32,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for (word, x) in self.words.iter_mut().zip(self.noise) {
            *word = word.wrapping_add(*x) & self.mask;
        }
    }
}

struct Count<'a> {
    law: CentredBinomial,
    state: &'a State,
    scratch: &'a mut binomial::Scratch,
    first: usize,
    out: &'a mut [u32; BLOCK],
}

impl Kernel for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        binomial::block::<M>(self.law, self.state, self.first, self.scratch, self.out);
    }
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
