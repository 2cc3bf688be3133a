//! Bit packing: sixteen runs of 32 words at a time, one run a lane.
//!
//! 32 words of b bits fill b words exactly, so that in every lane the same shifts are due at the same step: a
//! transpose in, a shift and an OR a word, a transpose out.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, Words};
use crate::backend::Aligned;
pub(super) use crate::backend::packed_len as len;

/// Words that are packed together: 16 lanes of 32.
pub(super) const BLOCK: usize = 512;
/// Words that one task takes.
const TASK: usize = 64 * BLOCK;
/// Words up to which the caller's thread does it alone: to wake the others takes longer.
const ALONE: usize = 8 * TASK;

/// Packs the low `bits` bits of every word.
pub(super) fn pack(dispatch: Dispatch, words: &[u32], bits: u32) -> Vec<u8> {
    let mut out = vec![0; len(words.len(), bits)];
    into(dispatch, words, bits, &mut out);
    out
}

/// Packs into `out`, which is `packed_len` long.
pub(super) fn into(dispatch: Dispatch, words: &[u32], bits: u32, out: &mut [u8]) {
    if words.len() <= ALONE {
        dispatch.run(Pack { words, bits, out });
        return;
    }
    let task = len(TASK, bits);
    out.par_chunks_mut(task)
        .zip(words.par_chunks(TASK))
        .for_each(|(out, words)| dispatch.run(Pack { words, bits, out }));
}

/// The `len` words that checked `bytes` hold.
pub(super) fn unpack(dispatch: Dispatch, bytes: &[u8], len: usize, bits: u32) -> Aligned<u32> {
    let mut out = Aligned::zeroed(len);
    each_task::<false>(dispatch, bytes, bits, &mut out);
    out
}

/// Adds the words that checked `bytes` hold to as many mod 2^bits.
pub(super) fn add(dispatch: Dispatch, bytes: &[u8], bits: u32, acc: &mut [u32]) {
    each_task::<true>(dispatch, bytes, bits, acc);
}

fn each_task<const ADD: bool>(dispatch: Dispatch, bytes: &[u8], bits: u32, out: &mut [u32]) {
    if out.len() <= ALONE {
        dispatch.run(Unpack::<ADD> { bytes, bits, out });
        return;
    }
    out.par_chunks_mut(TASK)
        .zip(bytes.par_chunks(len(TASK, bits)))
        .for_each(|(out, bytes)| dispatch.run(Unpack::<ADD> { bytes, bits, out }));
}

struct Pack<'a> {
    words: &'a [u32],
    bits: u32,
    out: &'a mut [u8],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let size = len(BLOCK, self.bits);
        for (words, out) in self.words.chunks(BLOCK).zip(self.out.chunks_mut(size)) {
            match words.as_array() {
                Some(words) => block::<M>(words, self.bits, out),
                None => {
                    // What is missing counts as zero, and so do the unused bits of the last byte.
                    let mut last = [0; BLOCK];
                    last[..words.len()].copy_from_slice(words);
                    block::<M>(&last, self.bits, out);
                }
            }
        }
    }
}

/// Packs a block; `out` takes as many of its bytes as it has room for.
#[inline(always)]
pub(super) fn block<M: Machine>(words: &[u32; BLOCK], bits: u32, out: &mut [u8]) {
    match bits {
        32 => out.copy_from_slice(&bytemuck::cast_slice(words)[..out.len()]),
        // Whole words fill whole bytes.
        16 => {
            for (out, word) in out.as_chunks_mut::<2>().0.iter_mut().zip(words) {
                *out = (*word as u16).to_le_bytes();
            }
        }
        8 => {
            for (out, word) in out.iter_mut().zip(words) {
                *out = *word as u8;
            }
        }
        _ => shifted::<M>(words, bits, out),
    }
}

/// Rows of sixteen words, the form in which lanes are stored.
type Rows<const R: usize> = [[u32; 16]; R];

#[inline(always)]
fn shifted<M: Machine>(words: &[u32; BLOCK], bits: u32, out: &mut [u8]) {
    let mask = M::W::splat(u32::MAX >> (32 - bits));
    let rows = words.as_chunks::<16>().0;
    // Word k of run g is columns[k][g].
    let mut columns: Rows<32> = [[0; 16]; 32];
    for half in 0..2 {
        let mut tile = [mask; 16];
        for (g, tile) in tile.iter_mut().enumerate() {
            *tile = M::W::load(&rows[2 * g + half]).and(mask);
        }
        store_tile(transpose(tile), &mut columns[16 * half..]);
    }
    // Output word w of run g is packed[w][g].
    let mut packed: Rows<32> = [[0; 16]; 32];
    let (mut held, mut have, mut next) = (M::W::splat(0), 0, 0);
    for column in &columns {
        let word = M::W::load(column);
        held = held.or(word.shl(have));
        have += bits;
        if have >= 32 {
            held.store(&mut packed[next]);
            next += 1;
            have -= 32;
            // The bits of this word that did not fit; with none left the shift would be by 32.
            held = if have == 0 { M::W::splat(0) } else { word.shr(bits - have) };
        }
    }
    // A run is b words long; what a tile writes beyond it, the next run writes over.
    let mut bytes = [0u32; BLOCK + 32];
    let low = transpose(load_tile::<M::W>(&packed[..16]));
    let high = transpose(load_tile::<M::W>(&packed[16..]));
    for g in 0..16 {
        let at = g * bits as usize;
        store_at(low[g], &mut bytes, at);
        if bits > 16 {
            store_at(high[g], &mut bytes, at + 16);
        }
    }
    out.copy_from_slice(&bytemuck::cast_slice(&bytes)[..out.len()]);
}

/// Writes the words over `out`, or adds them to it mod 2^bits.
struct Unpack<'a, const ADD: bool> {
    bytes: &'a [u8],
    bits: u32,
    out: &'a mut [u32],
}

impl<const ADD: bool> Kernel for Unpack<'_, ADD> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (size, mask) = (len(BLOCK, self.bits), u32::MAX >> (32 - self.bits));
        let put = |out: &mut u32, word: u32| *out = if ADD { out.wrapping_add(word) & mask } else { word };
        for (out, bytes) in self.out.chunks_mut(BLOCK).zip(self.bytes.chunks(size)) {
            match (out.as_mut_array(), self.bits) {
                (_, 8) => {
                    for (out, byte) in out.iter_mut().zip(bytes) {
                        put(out, u32::from(*byte));
                    }
                }
                (_, 16) => {
                    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        put(out, u32::from(u16::from_le_bytes(*bytes)));
                    }
                }
                (Some(out), bits) if !ADD => unpack_block::<M>(bytes, bits, out),
                (_, bits) => {
                    let mut words = [0; BLOCK];
                    unpack_block::<M>(bytes, bits, &mut words);
                    out.iter_mut().zip(&words).for_each(|(out, word)| put(out, *word));
                }
            }
        }
    }
}

#[inline(always)]
fn unpack_block<M: Machine>(bytes: &[u8], bits: u32, out: &mut [u32; BLOCK]) {
    // Room for a whole tile behind the last run.
    let mut words = [0u32; BLOCK + 32];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    if bits == 32 {
        out.copy_from_slice(&words[..BLOCK]);
        return;
    }
    let mut packed: Rows<32> = [[0; 16]; 32];
    for half in 0..bits.div_ceil(16) as usize {
        let mut tile = [M::W::splat(0); 16];
        for (g, tile) in tile.iter_mut().enumerate() {
            *tile = load_at(&words, g * bits as usize + 16 * half);
        }
        store_tile(transpose(tile), &mut packed[16 * half..]);
    }
    let mask = M::W::splat(u32::MAX >> (32 - bits));
    let rows = out.as_chunks_mut::<16>().0;
    for half in 0..2 {
        let mut tile = [mask; 16];
        for (k, tile) in tile.iter_mut().enumerate() {
            let at = (16 * half as u32 + k as u32) * bits;
            let (word, shift) = ((at / 32) as usize, at % 32);
            let mut value = M::W::load(&packed[word]).shr(shift);
            if shift + bits > 32 {
                value = value.or(M::W::load(&packed[word + 1]).shl(32 - shift));
            }
            *tile = value.and(mask);
        }
        for (g, tile) in transpose(tile).into_iter().enumerate() {
            tile.store(&mut rows[2 * g + half]);
        }
    }
}

/// The transpose of a 16 x 16 matrix. One round rotates the eight bits of an element's place (row, column)
/// left by one; after four of them row and column have changed places.
#[inline(always)]
fn transpose<W: Words>(mut x: [W; 16]) -> [W; 16] {
    for _ in 0..4 {
        let y = x;
        for i in 0..8 {
            (x[2 * i], x[2 * i + 1]) = y[i].interleave(y[i + 8]);
        }
    }
    x
}

#[inline(always)]
fn load_tile<W: Words>(rows: &[[u32; 16]]) -> [W; 16] {
    let mut tile = [W::splat(0); 16];
    for (tile, row) in tile.iter_mut().zip(rows) {
        *tile = W::load(row);
    }
    tile
}

#[inline(always)]
fn store_tile<W: Words>(tile: [W; 16], rows: &mut [[u32; 16]]) {
    for (tile, row) in tile.into_iter().zip(rows) {
        tile.store(row);
    }
}

#[inline(always)]
fn store_at<W: Words>(v: W, words: &mut [u32], at: usize) {
    if let Some(out) = words[at..].first_chunk_mut() {
        v.store(out);
    }
}

#[inline(always)]
fn load_at<W: Words>(words: &[u32], at: usize) -> W {
    words[at..].first_chunk().map_or(W::splat(0), W::load)
}
