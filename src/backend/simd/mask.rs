//! Masks from the keystream, parallel over coordinates.

use rayon::prelude::*;

use super::SEGMENT;
use super::chacha::{BLOCK_BYTES, BLOCKS, State, Vertical, store_coordinates, wipe};
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeU32};
use super::residues;
use crate::backend::{BackendError, MaskSign, check};
use crate::math::prg::StreamKey;
use crate::params::{NOISE_STRIDE, Ring};

/// Masks words with every key; ring and length are checked.
///
/// # Errors
/// [`BackendError::NotBelowPrime`] before anything is written.
pub(super) fn mask(
    dispatch: Dispatch,
    words: &mut [u32],
    ring: Ring,
    masks: &[(&StreamKey, MaskSign)],
) -> Result<(), BackendError> {
    residues::check(dispatch, "words", words, ring)?;
    let of = |sign| -> Vec<State> { masks.iter().filter(|m| m.1 == sign).map(|m| State::new(m.0)).collect() };
    let (added, subtracted) = (&of(MaskSign::Add)[..], &of(MaskSign::Subtract)[..]);
    words.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, words)| {
        let first = i * SEGMENT;
        match ring {
            Ring::Bits(bits) => dispatch.run(Wrapping { words, first, added, subtracted, bits }),
            Ring::Prime(p) => {
                for (states, subtract) in [(added, false), (subtracted, true)] {
                    for state in states {
                        dispatch.run(Modular { words: &mut *words, first, state, subtract, p });
                    }
                }
            }
        }
    });
    Ok(())
}

struct Wrapping<'a> {
    words: &'a mut [u32],
    first: usize,
    added: &'a [State],
    subtracted: &'a [State],
    bits: u32,
}

impl Kernel for Wrapping<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        match Ring::Bits(self.bits).mask_bytes() {
            1 => self.with::<M, 8>(),
            2 => self.with::<M, 16>(),
            _ => self.with::<M, 32>(),
        }
    }
}

impl Wrapping<'_> {
    /// Keystreams are added up as they leave the rounds, W bits a value, and brought into the order of the values once.
    #[inline(always)]
    fn with<M: Machine, const W: u32>(self) {
        let (per_word, mask) = ((32 / W) as usize, check::mask(self.bits));
        let (mut sums, mut stream) = (Vertical::new(), [0u32; 16 * BLOCKS]);
        let mut block = (self.first / (16 * per_word)) as u32;
        for words in self.words.chunks_mut(16 * BLOCKS * per_word) {
            sums.0 = [[0; BLOCKS]; 16];
            for state in self.subtracted {
                sums.add::<M, W>(state, block);
            }
            // !x = -x - 1 in every part.
            sums.0.as_flattened_mut().iter_mut().for_each(|x| *x = !*x);
            for state in self.added {
                sums.add::<M, W>(state, block);
            }
            sums.transpose::<M>(&mut stream);
            let add = |word: &mut u32, k: u32| *word = word.wrapping_add(k).wrapping_add(1) & mask;
            match W {
                8 => {
                    let parts = bytemuck::cast_slice::<u32, u8>(&stream);
                    words.iter_mut().zip(parts).for_each(|(w, &k)| add(w, k.into()));
                }
                16 => {
                    let parts = bytemuck::cast_slice::<u32, u16>(&stream);
                    words.iter_mut().zip(parts).for_each(|(w, &k)| add(w, u16::from_le(k).into()));
                }
                _ => words.iter_mut().zip(&stream).for_each(|(w, k)| add(w, u32::from_le(*k))),
            }
            block = block.wrapping_add(BLOCKS as u32);
        }
        wipe(&mut stream);
    }
}

/// Coordinates of sixteen blocks.
const DRAWN: usize = BLOCKS * BLOCK_BYTES / NOISE_STRIDE as usize;

struct Modular<'a> {
    words: &'a mut [u32],
    first: usize,
    state: &'a State,
    subtract: bool,
    p: u32,
}

impl Kernel for Modular<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (mut stream, mut values) = (Vertical::new(), [0; DRAWN]);
        let mut block = (self.first * NOISE_STRIDE as usize / BLOCK_BYTES) as u32;
        for words in self.words.chunks_mut(DRAWN) {
            stream.fill::<M>(self.state, block, 1);
            block = block.wrapping_add(BLOCKS as u32);
            scale::<M>(&stream, self.p, &mut values);
            for (word, k) in words.iter_mut().zip(&values) {
                // In [0, 2p); below p the difference wraps to a larger number.
                let sum = *word + if self.subtract { self.p - k } else { *k };
                *word = sum.min(sum.wrapping_sub(self.p));
            }
        }
        wipe(&mut values);
    }
}

/// `floor(U p / 2^128)` of the 64 coordinates of sixteen blocks: U times p limb by limb, upper halves carried on.
#[inline(always)]
fn scale<M: Machine>(stream: &Vertical, p: u32, out: &mut [u32; DRAWN]) {
    let p = M::NativeU32::splat(p);
    for l in (0..BLOCKS).step_by(M::NativeU32::LANES) {
        let mut values = [p; 4];
        for (value, limbs) in values.iter_mut().zip(stream.0.as_chunks::<4>().0) {
            // SAFETY: l + LANES <= 16, here and below.
            *value = unsafe { M::NativeU32::load(limbs[0].as_ptr().add(l)) }.mul_hi(p);
            for limb in &limbs[1..] {
                // SAFETY: as above.
                let limb = unsafe { M::NativeU32::load(limb.as_ptr().add(l)) };
                let low = limb.mul_lo(p).add(*value);
                *value = limb.mul_hi(p).increment_where_less(low, *value);
            }
        }
        store_coordinates(values, l, out);
    }
}
