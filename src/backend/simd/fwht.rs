//! Blocked Walsh-Hadamard transform: 256 points in registers, radix-16 in L1, radix-4 and -8 above.
//!
//! Every variant runs the same butterflies in the order h = 1, 2, 4, ..., so that instruction set, blocking
//! and thread count do not change a bit.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Floats, Machine};

/// log2 of the points that one task transforms alone: 256 KiB, within a core's L2.
const TASK_LOG2: u32 = 16;
/// Groups of 16 floats in the block that stays in L1 (2^12 points, 16 KiB).
const L1_GROUPS: usize = (1 << 12) / 16;
/// Groups of 16 floats that one task takes from each part of a pass over a long block.
const COLUMN_GROUPS: usize = 256;

/// Transforms every block of `2^block_log2` of `x` in place and multiplies by `scale` (which is applied to
/// the inputs, so that a sum of large numbers does not overflow).
pub(super) fn blocks(dispatch: Dispatch, x: &mut [f32], block_log2: u32, scale: f32) {
    if block_log2 > TASK_LOG2 {
        x.chunks_exact_mut(1 << block_log2).for_each(|block| long(dispatch, block, scale));
        return;
    }
    // Whole blocks of one task: as many as fill it.
    x.par_chunks_mut(1 << TASK_LOG2).for_each(|task| dispatch.run(Task { x: task, block: 1 << block_log2, scale }));
}

/// One block longer than a task: tasks first, then passes split by columns.
fn long(dispatch: Dispatch, x: &mut [f32], scale: f32) {
    x.par_chunks_mut(1 << TASK_LOG2).for_each(|task| dispatch.run(Task { x: task, block: 1 << TASK_LOG2, scale }));
    let (groups, _) = x.as_chunks_mut::<16>();
    let mut h = (1 << TASK_LOG2) / 16;
    while h < groups.len() {
        let radix = radix(groups.len() / h);
        groups.chunks_exact_mut(radix * h).for_each(|part| columns(dispatch, part, h, radix));
        h *= radix;
    }
}

/// Radix of the next pass when `left` (a power of two) remains: never 16, since that many streams a power
/// of two apart do not fit in an 8-way cache.
const fn radix(left: usize) -> usize {
    match left {
        2 => 2,
        4 | 16 => 4,
        _ => 8,
    }
}

/// One pass over one group of `radix` parts of `h` groups each, in parallel over columns.
fn columns(dispatch: Dispatch, part: &mut [[f32; 16]], h: usize, radix: usize) {
    let mut tasks: Vec<Vec<&mut [[f32; 16]]>> = (0..h.div_ceil(COLUMN_GROUPS)).map(|_| Vec::new()).collect();
    for lane in part.chunks_exact_mut(h) {
        for (task, columns) in tasks.iter_mut().zip(lane.chunks_mut(COLUMN_GROUPS)) {
            task.push(columns);
        }
    }
    tasks.into_par_iter().for_each(|mut parts| match radix {
        8 => dispatch.run(Columns::<8>(&mut parts)),
        4 => dispatch.run(Columns::<4>(&mut parts)),
        _ => dispatch.run(Columns::<2>(&mut parts)),
    });
}

/// Blocks of at most a task, one after another.
struct Task<'a> {
    x: &'a mut [f32],
    block: usize,
    scale: f32,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        if self.block < 16 {
            short(self.x, self.block, self.scale);
            return;
        }
        let (groups, _) = self.x.as_chunks_mut::<16>();
        for block in groups.chunks_exact_mut(self.block / 16) {
            match block.len() {
                1 => leaf::<M::F, 1>(block, self.scale),
                2 => leaf::<M::F, 2>(block, self.scale),
                4 => leaf::<M::F, 4>(block, self.scale),
                8 => leaf::<M::F, 8>(block, self.scale),
                _ => middle::<M::F>(block, self.scale),
            }
        }
    }
}

/// Blocks of fewer than 16 points.
#[inline(always)]
fn short(x: &mut [f32], block: usize, scale: f32) {
    for v in x.iter_mut() {
        *v *= scale;
    }
    let mut h = 1;
    while h < block {
        for pair in x.chunks_exact_mut(2 * h) {
            let (a, b) = pair.split_at_mut(h);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        h *= 2;
    }
}

/// A block of 2^8..2^16 points: each L1 block to its end, then the passes above.
#[inline(always)]
fn middle<V: Floats>(block: &mut [[f32; 16]], scale: f32) {
    let inner = block.len().min(L1_GROUPS);
    for part in block.chunks_exact_mut(inner) {
        for leaf_block in part.chunks_exact_mut(16) {
            leaf::<V, 16>(leaf_block, scale);
        }
        match inner / 16 {
            2 => pass::<V, 2>(part, 16),
            4 => pass::<V, 4>(part, 16),
            8 => pass::<V, 8>(part, 16),
            16 => pass::<V, 16>(part, 16),
            _ => {}
        }
    }
    let mut h = inner;
    while h < block.len() {
        let radix = radix(block.len() / h);
        match radix {
            8 => pass::<V, 8>(block, h),
            4 => pass::<V, 4>(block, h),
            _ => pass::<V, 2>(block, h),
        }
        h *= radix;
    }
}

/// `R * 16` contiguous points in `R` registers.
#[inline(always)]
fn leaf<V: Floats, const R: usize>(block: &mut [[f32; 16]], scale: f32) {
    let Some(block) = block.first_chunk_mut::<R>() else { return };
    let mut v = [V::load(&block[0]); R];
    for k in 0..R {
        v[k] = V::load(&block[k]).mul(V::splat(scale)).hadamard();
    }
    butterflies(&mut v);
    for (v, out) in v.into_iter().zip(block) {
        v.store(out);
    }
}

/// The log2(R) stages h, 2h, ... on blocks of `R` parts of `h` groups.
#[inline(always)]
fn pass<V: Floats, const R: usize>(x: &mut [[f32; 16]], h: usize) {
    for block in x.chunks_exact_mut(R * h) {
        for i in 0..h {
            let mut v = [V::load(&block[i]); R];
            for (k, v) in v.iter_mut().enumerate() {
                // SAFETY: k < R and i < h, so that k h + i < R h, the length of `block`.
                *v = V::load(unsafe { block.get_unchecked(k * h + i) });
            }
            butterflies(&mut v);
            for (k, v) in v.into_iter().enumerate() {
                // SAFETY: as above.
                v.store(unsafe { block.get_unchecked_mut(k * h + i) });
            }
        }
    }
}

/// `H_R` across registers.
#[inline(always)]
fn butterflies<V: Floats, const R: usize>(v: &mut [V; R]) {
    let mut h = 1;
    while h < R {
        for i in 0..R {
            if i & h == 0 {
                (v[i], v[i + h]) = (v[i].add(v[i + h]), v[i].sub(v[i + h]));
            }
        }
        h *= 2;
    }
}

/// One pass on the columns that one task holds of each of `R` parts.
struct Columns<'a, 'b, const R: usize>(&'a mut [&'b mut [[f32; 16]]]);

impl<const R: usize> Kernel for Columns<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let Some(parts) = self.0.first_chunk_mut::<R>() else { return };
        let columns = parts[0].len();
        for i in 0..columns {
            let mut v = [M::F::load(&parts[0][i]); R];
            for (v, part) in v.iter_mut().zip(parts.iter()) {
                *v = M::F::load(&part[i]);
            }
            butterflies(&mut v);
            for (part, v) in parts.iter_mut().zip(v) {
                v.store(&mut part[i]);
            }
        }
    }
}
