//! Noise in constant time, 512 coordinates at a time: tables of 128-bit thresholds, centred binomial.

mod thresholds;

use rayon::prelude::*;

use self::thresholds::{DRAWN, Thresholds};
use super::binomial;
use super::chacha::{BLOCKS, State, Vertical, wipe};
use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;
use crate::math::prg::StreamKey;
use crate::params::NOISE_STRIDE;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;

/// Coordinates of one draw; a draw starts at a multiple of it.
pub(super) const BLOCK: usize = binomial::BLOCK;
/// Blocks that one task of [`add`] draws.
const TASK: usize = 16 * BLOCK;

/// A law in the form that the kernels take.
pub(super) enum Law {
    /// See [`Thresholds`].
    Table(Box<Thresholds>),
    /// Nothing to prepare.
    Binomial(CentredBinomial),
}

impl Law {
    /// Prepares a law.
    pub(super) fn new(noise: &Noise) -> Self {
        match noise {
            Noise::Table(table) => Self::Table(Box::new(Thresholds::new(table))),
            Noise::Binomial(law) => Self::Binomial(*law),
        }
    }
}

/// The noise under one key, block by block. What it keeps between blocks is secret and wiped on drop.
pub(super) struct Draws<'a> {
    law: &'a Law,
    state: State,
    scratch: binomial::Scratch,
}

impl<'a> Draws<'a> {
    /// Nothing is drawn yet.
    pub(super) fn new(law: &'a Law, key: &StreamKey) -> Self {
        Self { law, state: State::new(key), scratch: binomial::Scratch::new() }
    }

    /// Writes the noise of coordinates `[first, first + 512)` mod `2^32`; `first` is a multiple of 512.
    pub(super) fn block(&mut self, dispatch: Dispatch, first: usize, out: &mut [u32; BLOCK]) {
        debug_assert!(first.is_multiple_of(BLOCK));
        match self.law {
            Law::Table(table) => {
                let stream = self.scratch.stream();
                dispatch.run(Search { table, state: &self.state, stream, first, out });
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

struct Search<'a> {
    table: &'a Thresholds,
    state: &'a State,
    stream: &'a mut Vertical,
    first: usize,
    out: &'a mut [u32; BLOCK],
}

impl Kernel for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        // Four coordinates a block of 64 bytes.
        const { assert!(NOISE_STRIDE == 16) };
        let block = (self.first / 4) as u32;
        for (i, out) in self.out.as_chunks_mut::<DRAWN>().0.iter_mut().enumerate() {
            self.stream.fill::<M>(self.state, block.wrapping_add((BLOCKS * i) as u32), 1);
            self.table.draw::<M>(self.stream, out);
        }
    }
}
