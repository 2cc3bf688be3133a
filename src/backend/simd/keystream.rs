//! Keystream bytes at any position, sixteen blocks at a time where the registers hold them.

use super::chacha::{BLOCK_BYTES, BLOCKS, State, linear};
use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, NativeU32};
use crate::math::prg::{STREAM_BYTES, StreamKey};

/// Writes keystream bytes `[position, position + out.len())` of `key` over `out`; the same bytes as
/// [`StreamKey::fill`], on one thread.
///
/// # Panics
/// As [`fill_from`].
pub(super) fn fill(dispatch: Dispatch, key: &StreamKey, position: u64, out: &mut [u8]) {
    fill_from(dispatch, &State::new(key), position, out);
}

/// [`fill`] with the key's state, for who takes many pieces of one keystream: a state is copied from the key and
/// wiped at its end.
///
/// # Panics
/// If `position + out.len()` exceeds [`STREAM_BYTES`]; the checks of `backend::check` exclude it.
pub(super) fn fill_from(dispatch: Dispatch, state: &State, position: u64, out: &mut [u8]) {
    let end = position.checked_add(out.len() as u64);
    assert!(end.is_some_and(|end| end <= STREAM_BYTES), "keystream position {position} + {}", out.len());
    dispatch.run(Fill { state, position, out });
}

struct Fill<'a> {
    state: &'a State,
    position: u64,
    out: &'a mut [u8],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let group = BLOCK_BYTES * M::NativeU32::LANES;
        let lanes = M::NativeU32::LANES as u32;
        let mut block = (self.position / 64) as u32;
        let skip = (self.position % 64) as usize;
        // Up to a block's boundary, unless the whole is shorter; then whole groups; then what is left.
        let head = if skip == 0 { 0 } else { self.out.len().min(group - skip) };
        let (head, rest) = self.out.split_at_mut(head);
        if !head.is_empty() {
            part::<M>(self.state, block, skip, head);
            block = block.wrapping_add(lanes);
        }
        let mut groups = rest.chunks_exact_mut(group);
        for out in &mut groups {
            linear::<M>(self.state, block, out);
            block = block.wrapping_add(lanes);
        }
        let tail = groups.into_remainder();
        if !tail.is_empty() {
            part::<M>(self.state, block, 0, tail);
        }
    }
}

/// Bytes `[skip, skip + out.len())` of the group of blocks from `block` on.
#[inline(always)]
fn part<M: Machine>(state: &State, block: u32, skip: usize, out: &mut [u8]) {
    let mut scratch = Scratch([0; BLOCKS * BLOCK_BYTES]);
    let blocks = &mut scratch.0[..BLOCK_BYTES * M::NativeU32::LANES];
    linear::<M>(state, block, blocks);
    out.copy_from_slice(&blocks[skip..skip + out.len()]);
}

/// Keystream of which a part is not asked for. Wiped on drop.
struct Scratch([u8; BLOCKS * BLOCK_BYTES]);

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.fill(0);
        zeroize::optimization_barrier(&self.0);
    }
}
