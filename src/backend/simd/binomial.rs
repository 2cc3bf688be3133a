//! Centred binomial by popcount, 512 coordinates at a time.
//!
//! Addresses: the coordinates come in superblocks of 32, and a superblock uses h consecutive ChaCha blocks (cache
//! lines), h = `ceil(2k / 16)`. Halfword i of coordinate `32 s + r` is at byte `64 (h s + i) + 2 r` of the
//! keystream: one line holds one halfword of each of the 32, so that nothing is shuffled. Lane l of the
//! vertical cipher takes the superblock `s + l`; the counts pile up in place, and one transpose at the end
//! puts 16 superblocks in order.

use super::chacha::{BLOCKS, State, Vertical, wipe};
use super::lanes::{Machine, NativeU32, Words};
use crate::sample::binomial::CentredBinomial;

/// Coordinates of a superblock.
const SUPERBLOCK: usize = 32;
/// Coordinates that [`block`] draws.
pub(super) const BLOCK: usize = SUPERBLOCK * BLOCKS;

/// The registers that do not fit, wiped on drop.
pub(super) struct Scratch {
    stream: Vertical,
    counts: Vertical,
    halves: Halves,
}

#[repr(C, align(64))]
struct Halves([u32; BLOCK / 2]);

impl Scratch {
    pub(super) const fn new() -> Self {
        Self { stream: Vertical::new(), counts: Vertical::new(), halves: Halves([0; BLOCK / 2]) }
    }
}

impl Scratch {
    /// Sixteen blocks, for another sampler.
    pub(super) const fn stream(&mut self) -> &mut Vertical {
        &mut self.stream
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        wipe(&mut self.halves.0);
    }
}

/// The draws of coordinates `[first, first + 512)` mod `2^32`; `first` is a multiple of 512.
#[inline(always)]
pub(super) fn block<M: Machine>(
    law: CentredBinomial,
    state: &State,
    first: usize,
    scratch: &mut Scratch,
    out: &mut [u32; BLOCK],
) {
    let (k, lines) = (law.k(), law.halfwords() as u32);
    let line = ((first / SUPERBLOCK) as u32).wrapping_mul(lines);
    // Bits of the last halfword that count: 2k - 16 (h - 1), in both halves of a word.
    let last = (0xffff >> (16 * lines - 2 * k)) * 0x0001_0001;
    for i in 0..lines {
        scratch.stream.fill::<M>(state, line.wrapping_add(i), lines);
        let mask = if i + 1 == lines { last } else { u32::MAX };
        count::<M>(&scratch.stream, mask, i == 0, &mut scratch.counts);
    }
    transpose::<M>(&scratch.counts, &mut scratch.halves);
    let halves: &[u16; BLOCK] = bytemuck::cast_ref(&scratch.halves.0);
    for (out, half) in out.as_chunks_mut::<16>().0.iter_mut().zip(halves.as_chunks::<16>().0) {
        M::W::load_u16(half).sub(M::W::splat(k)).store(out);
    }
}

/// Adds the bits of every masked halfword to the counts, or starts them.
#[inline(always)]
fn count<M: Machine>(stream: &Vertical, mask: u32, start: bool, counts: &mut Vertical) {
    let mask = M::NativeU32::splat(mask);
    for (stream, counts) in stream.0.iter().zip(&mut counts.0) {
        for l in (0..BLOCKS).step_by(M::NativeU32::LANES) {
            // SAFETY: LANES divides 16, so that loads and stores stay within arrays of 16.
            unsafe {
                let ones = M::count_halves(M::NativeU32::load(stream.as_ptr().add(l)).and(mask));
                let at = counts.as_mut_ptr().add(l);
                (if start { ones } else { M::NativeU32::load(at).add(ones) }).store(at);
            }
        }
    }
}

/// Word w of lane l becomes word `16 l + w`: halfword r of superblock l becomes halfword `32 l + r`.
#[inline(always)]
fn transpose<M: Machine>(counts: &Vertical, halves: &mut Halves) {
    counts.transpose::<M>(&mut halves.0);
    // The store is in bytes of little-endian words.
    if cfg!(target_endian = "big") {
        for word in &mut halves.0 {
            *word = u32::from_le(*word).rotate_left(16);
        }
    }
}
