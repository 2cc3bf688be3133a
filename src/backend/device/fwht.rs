//! Plan of the Walsh-Hadamard transform: tiles that one group holds, then columns across them.

use std::ops::Range;

use super::machine::failed;
use super::memory::IN_PLACE;
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel};
use crate::backend::{Backend, BackendError, Buffer, check};
use crate::params::{FwhtParams, FwhtPassParams};

/// log2 of the least neighbours of a tile of columns: 32 bytes, a sector of memory.
const LEAST_COLUMNS: u32 = 3;
/// The same where there is a choice: 64 bytes.
const GOOD_COLUMNS: u32 = 4;
/// log2 of the largest block that [`SMALL`] takes.
const SMALL_BLOCK: u32 = 1;
/// Elements of a group of [`SMALL`] and of [`PAIR`].
const GROUP: u64 = 512;

/// Blocks of one or two elements, of which there may be any number.
static SMALL: Kernel = kernel("fwht_small", 256, 0, IN_PLACE);
/// The last stage of a block that is too long for one slice: sums and differences of two halves.
static PAIR: Kernel = kernel("fwht_pair", 256, 0, &[Access::ReadWrite, Access::ReadWrite]);
/// The kernels of tiles, by log2 of the tile.
static TILES: [(u32, Kernel); 4] = [
    (12, kernel("fwht_12", 256, 1 << 12, IN_PLACE)),
    (13, kernel("fwht_13", 256, 1 << 13, IN_PLACE)),
    (14, kernel("fwht_14", 256, 1 << 14, IN_PLACE)),
    (15, kernel("fwht_15", 512, 1 << 15, IN_PLACE)),
];

const fn kernel(entry: &'static str, threads: u32, shared_words: u32, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "fwht", entry, threads, shared_words, params: size_of::<FwhtPassParams>(), buffers }
}

/// One pass over memory: bits `bits` of an element's number, in tiles of `2^tile`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pass {
    tile: u32,
    bits: Range<u32>,
}

impl Pass {
    /// log2 of the neighbours of a tile's row: all of the tile in the first pass.
    fn columns_log2(&self) -> u32 {
        if self.bits.start == 0 { self.tile } else { self.tile - (self.bits.end - self.bits.start) }
    }

    /// The transformed bits of an element's number in the tile.
    fn active(&self) -> u32 {
        let bits = (1u32 << (self.bits.end - self.bits.start)) - 1;
        if self.bits.start == 0 { bits } else { bits << self.columns_log2() }
    }

    /// log2 of the distance of rows.
    fn stride_log2(&self) -> u32 {
        if self.bits.start == 0 { self.tile } else { self.bits.start }
    }
}

/// The fewest passes for blocks of `2^block_log2`: one in the smallest tile that holds it, else a tile and then columns,
/// as equal as they can be. Among tiles with as few passes the smallest has most groups at work at once.
fn passes(tiles: &[u32], block_log2: u32) -> Vec<Pass> {
    if let Some(&tile) = tiles.iter().find(|&&t| t >= block_log2) {
        return vec![Pass { tile, bits: 0..block_log2 }];
    }
    let columns = |tile: u32, least: u32| (block_log2 - tile).div_ceil(tile - least);
    let Some(count) = tiles.iter().map(|&tile| columns(tile, LEAST_COLUMNS)).min() else { return Vec::new() };
    let smallest = |least: u32| tiles.iter().copied().find(|&tile| columns(tile, least) == count);
    let Some(tile) = smallest(GOOD_COLUMNS).or_else(|| smallest(LEAST_COLUMNS)) else { return Vec::new() };
    let above = block_log2 - tile;
    let bits = (0..count).map(|i| tile + above * i / count..tile + above * (i + 1) / count);
    std::iter::once(0..tile).chain(bits).map(|bits| Pass { tile, bits }).collect()
}

/// `y = scale H x` in place on every block.
pub(super) fn run(backend: &DeviceBackend, x: &mut Buffer, p: &FwhtParams) -> Result<(), BackendError> {
    check::fwht_shape(x.len(), p)?;
    backend.in_place(x, ElementType::F32, |x| transform(backend, x, p.block_log2, p.scale))
}

/// Enqueues the transform of every block of `2^block_log2` elements of `x`, for stages that have it as a part.
pub(super) fn transform(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    block_log2: u32,
    scale: f32,
) -> Result<(), BackendError> {
    let whole = backend.device().limits().max_slice_words.max(1).ilog2().min(block_log2);
    if block_log2 <= SMALL_BLOCK && whole == block_log2 {
        return small(backend, x, block_log2, scale);
    }
    let blocks = x.len() as u64 >> whole;
    for piece in backend.pieces(blocks, 1 << whole)? {
        let (start, len) = (piece.start << whole, (piece.end - piece.start) << whole);
        for pass in passes(backend.device().limits().fwht_tiles, whole) {
            let scale = if pass.bits.start == 0 { scale } else { 1.0 };
            run_pass(backend, x, start..start + len, &pass, scale)?;
        }
    }
    (whole..block_log2).try_for_each(|bit| pairs(backend, x, whole, bit))
}

fn run_pass(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    at: Range<u64>,
    pass: &Pass,
    scale: f32,
) -> Result<(), BackendError> {
    let Some((_, kernel)) = TILES.iter().find(|(tile, _)| *tile == pass.tile) else {
        return Err(failed(backend.kind(), "fwht", format!("no kernel for tiles of 2^{}", pass.tile)));
    };
    let len = at.end - at.start;
    let groups = len.div_ceil(1 << pass.tile);
    let params = FwhtPassParams {
        groups: groups as u32,
        len: len as u32,
        columns_log2: pass.columns_log2(),
        stride_log2: pass.stride_log2(),
        active_bits: pass.active(),
        scale,
        _pad: [0; 2],
    };
    backend.launch(kernel, groups, &params, &[x.part(at.start, len)])
}

/// Blocks of one or two elements.
fn small(backend: &DeviceBackend, x: &DeviceBuffer, block_log2: u32, scale: f32) -> Result<(), BackendError> {
    for piece in backend.pieces(x.len() as u64 >> block_log2, 1 << block_log2)? {
        let (start, len) = (piece.start << block_log2, (piece.end - piece.start) << block_log2);
        backend.launch(&SMALL, len.div_ceil(GROUP), &flat(len, block_log2, scale), &[x.part(start, len)])?;
    }
    Ok(())
}

/// The stage of bit `bit` of an element's number, in slices of `2^whole` elements.
fn pairs(backend: &DeviceBackend, x: &DeviceBuffer, whole: u32, bit: u32) -> Result<(), BackendError> {
    let len = 1u64 << whole;
    for first in (0..x.len() as u64 >> whole).filter(|i| i >> (bit - whole) & 1 == 0) {
        let halves = [x.part(first << whole, len), x.part((first << whole) + (1 << bit), len)];
        backend.launch(&PAIR, len.div_ceil(GROUP), &flat(len, 1, 1.0), &halves)?;
    }
    Ok(())
}

/// Parameters of the kernels without tiles.
fn flat(len: u64, active_bits: u32, scale: f32) -> FwhtPassParams {
    let groups = len.div_ceil(GROUP) as u32;
    FwhtPassParams { groups, len: len as u32, columns_log2: 0, stride_log2: 0, active_bits, scale, _pad: [0; 2] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_passes_cover_every_bit_once_and_are_as_few_as_the_design_says() {
        for (tiles, most) in [(&[12][..], 3), (&[13, 14, 15], 2)] {
            for block_log2 in 2..=27 {
                let passes = passes(tiles, block_log2);
                assert!(passes.len() <= most);
                assert!(passes.len() == 1 || block_log2 > *tiles.last().unwrap());
                assert!(passes.iter().all(|pass| tiles.contains(&pass.tile)));
                let mut next = 0;
                for pass in &passes {
                    assert_eq!(pass.bits.start, next);
                    next = pass.bits.end;
                    assert!(pass.columns_log2() >= LEAST_COLUMNS && pass.columns_log2() <= pass.stride_log2());
                    assert_eq!(pass.active().count_ones(), pass.bits.end - pass.bits.start);
                    assert!(pass.active() < 1 << pass.tile);
                }
                assert_eq!(next, block_log2);
            }
        }
        assert_eq!(passes(&[12], 21).len(), 2);
        // The smallest tile of two passes with at least 16 columns, at 2^27 with 8.
        let tile = |block_log2| passes(&[13, 14, 15], block_log2)[0].tile;
        assert_eq!([16, 20, 22, 23, 24, 25, 26, 27].map(tile), [13, 13, 13, 14, 14, 15, 15, 15]);
    }
}
