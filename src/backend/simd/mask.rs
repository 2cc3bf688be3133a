//! Masks from the keystream, parallel over coordinates.

use rayon::prelude::*;

use super::SEGMENT;
use super::chacha::{BLOCK_BYTES, BLOCKS, State, Vertical, linear, store_coordinates, wipe};
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeU32};
use super::residues;
use crate::backend::{BackendError, MaskSign, check};
use crate::math::prg::StreamKey;
use crate::params::{NOISE_STRIDE, Ring};

/// Masks words; ring and length are checked.
///
/// # Errors
/// [`BackendError::NotBelowPrime`] before anything is written.
pub(super) fn mask(
    dispatch: Dispatch,
    words: &mut [u32],
    ring: Ring,
    key: &StreamKey,
    sign: MaskSign,
) -> Result<(), BackendError> {
    residues::check(dispatch, "words", words, ring)?;
    words.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, words)| {
        let state = State::new(key);
        let (state, first, subtract) = (&state, i * SEGMENT, sign == MaskSign::Subtract);
        match ring {
            Ring::Bits(b) => dispatch.run(Wrapping { words, first, state, subtract, mask: check::mask(b) }),
            Ring::Prime(p) => dispatch.run(Modular { words, first, state, subtract, p }),
        }
    });
    Ok(())
}

/// Words of a block.
const BLOCK_WORDS: usize = BLOCK_BYTES / 4;

struct Wrapping<'a> {
    words: &'a mut [u32],
    first: usize,
    state: &'a State,
    subtract: bool,
    mask: u32,
}

impl Kernel for Wrapping<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let group = BLOCK_WORDS * M::NativeU32::LANES;
        let mut stream = [0u32; BLOCK_WORDS * BLOCKS];
        let stream = &mut stream[..group];
        // x - k = x + !k + 1.
        let flip = if self.subtract { u32::MAX } else { 0 };
        let one = flip & 1;
        let mut block = (self.first / BLOCK_WORDS) as u32;
        for words in self.words.chunks_mut(group) {
            linear::<M>(self.state, block, bytemuck::cast_slice_mut(stream));
            block = block.wrapping_add(M::NativeU32::LANES as u32);
            for (word, k) in words.iter_mut().zip(&*stream) {
                *word = word.wrapping_add(u32::from_le(*k) ^ flip).wrapping_add(one) & self.mask;
            }
        }
        wipe(stream);
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
