//! Sums of multiples of rows, in tiles that stay in the registers.

use super::{Combine, LANES};
use crate::backend::simd::isa::Kernel;
use crate::backend::simd::lanes::{Machine, NativeF32, NativeF64};

/// Terms of a sum that are added before the next part of the result: their rows of the right factor stay in the first
/// cache.
const DEPTH: usize = 128;
/// Floats of the right factor that are taken to stay in the first cache beside all else.
const NEAR: usize = 6 << 10;

/// A checked [`Combine`].
pub(super) struct Combination<'a, 'b> {
    pub(super) out: &'a mut [f32],
    pub(super) job: &'a Combine<'b>,
}

impl Kernel for Combination<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        // A tile of R x 3 registers, a row of the right factor and one value of the left one fill the register file.
        if M::NativeF64::REGISTERS == 32 {
            combine::<M::NativeF32, 8>(self.out, self.job);
        } else {
            combine::<M::NativeF32, 4>(self.out, self.job);
        }
    }
}

/// Where rows of so many lanes begin that lie side by side.
const fn steps(lanes: usize) -> [u32; DEPTH] {
    let mut starts = [0; DEPTH];
    let mut k = 0;
    while k < DEPTH {
        starts[k] = (k * lanes) as u32;
        k += 1;
    }
    starts
}

/// Registers that a tile is wide, where there are as many columns left.
const WIDE: usize = 3;

/// Blocks of rows from which on a part of the right factor is brought together first: its rows may lie so that they share a few
/// sets of the first cache, as those of a matrix do whose width is a power of two.
const PACKED: usize = 12;

#[inline(always)]
fn combine<N: NativeF32, const R: usize>(out: &mut [f32], job: &Combine<'_>) {
    let whole = job.columns - job.columns % N::LANES;
    let (wide, rest) = (whole / N::LANES / WIDE, whole / N::LANES % WIDE);
    let strips = wide + usize::from(rest > 0) + usize::from(whole < job.columns);
    let blocks = job.rows.div_ceil(R);
    // Where rows lie that were brought together, by registers.
    let close: [&[u32; DEPTH]; WIDE] =
        [const { &steps(N::LANES) }, const { &steps(2 * N::LANES) }, const { &steps(3 * N::LANES) }];
    let pack = blocks >= PACKED;
    // The last columns of a part of the right factor, and of a tile of the result, with something behind them.
    let mut packed = vec![0f32; if pack { DEPTH * WIDE * N::LANES } else { 0 }];
    let mut edge = vec![0f32; if whole < job.columns { DEPTH * N::LANES } else { 0 }];
    let mut corner = [0f32; 8 * LANES];
    for (part, starts) in job.starts.chunks(DEPTH).enumerate() {
        if whole < job.columns {
            for (row, &start) in edge.chunks_exact_mut(N::LANES).zip(starts) {
                let from = start as usize + whole;
                row[..job.columns - whole].copy_from_slice(&job.right[from..from + job.columns - whole]);
            }
        }
        let left = part * DEPTH * job.left_steps.1;
        let by_rows = !pack && starts.len() * job.columns <= NEAR;
        for turn in 0..strips * blocks {
            let (strip, block) = if by_rows { (turn % strips, turn / strips) } else { (turn / blocks, turn % blocks) };
            let (first, end) = (job.rows * block / blocks, job.rows * (block + 1) / blocks);
            let registers = if strip < wide { WIDE } else { rest };
            // Behind the whole registers come the last columns.
            let partial = strip > wide || registers == 0;
            let column = if partial { whole } else { WIDE * strip * N::LANES };
            if pack && block == 0 && !partial {
                let width = registers * N::LANES;
                for (row, &start) in packed.chunks_exact_mut(width).zip(starts) {
                    let from = start as usize + column;
                    row.copy_from_slice(&job.right[from..from + width]);
                }
            }
            let left = left + first * job.left_steps.0;
            // SAFETY: `MatMul::combine` has checked that rows first..end of the result, terms of the left factor, and
            // `columns` columns of all rows of the right one lie in their slices; the tile reads and writes columns up to
            // `columns` of them, or those of the edge or the packed part, which have DEPTH rows, and R of the result.
            unsafe {
                let (out_at, left) = (out.as_mut_ptr().add(first * job.out_step + column), job.left.as_ptr().add(left));
                let (left, count) = ((left, job.left_steps), end - first);
                if !partial {
                    let (right, starts) = if pack {
                        (packed.as_ptr(), &close[registers - 1][..starts.len()])
                    } else {
                        (job.right.as_ptr().add(column), starts)
                    };
                    let out = (out_at, job.out_step);
                    match registers {
                        1 => rows::<N, 1, R>(count, out, left, right, starts),
                        2 => rows::<N, 2, R>(count, out, left, right, starts),
                        _ => rows::<N, WIDE, R>(count, out, left, right, starts),
                    }
                    continue;
                }
                for r in 0..count {
                    let row = out_at.add(r * job.out_step);
                    corner.as_mut_ptr().add(r * N::LANES).copy_from_nonoverlapping(row, job.columns - whole);
                }
                rows::<N, 1, R>(count, (corner.as_mut_ptr(), N::LANES), left, edge.as_ptr(), &close[0][..starts.len()]);
                for r in 0..count {
                    let row = out_at.add(r * job.out_step);
                    row.copy_from_nonoverlapping(corner.as_ptr().add(r * N::LANES), job.columns - whole);
                }
            }
        }
    }
}

/// [`tile`] of `count <= R <= 8` rows.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn rows<N: NativeF32, const V: usize, const R: usize>(
    count: usize,
    out: (*mut f32, usize),
    left: (*const f32, (usize, usize)),
    right: *const f32,
    starts: &[u32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            1 => tile::<N, 1, V>(out, left, right, starts),
            2 => tile::<N, 2, V>(out, left, right, starts),
            3 => tile::<N, 3, V>(out, left, right, starts),
            5 if R > 4 => tile::<N, 5, V>(out, left, right, starts),
            6 if R > 4 => tile::<N, 6, V>(out, left, right, starts),
            7 if R > 4 => tile::<N, 7, V>(out, left, right, starts),
            8 if R > 4 => tile::<N, 8, V>(out, left, right, starts),
            _ => tile::<N, 4, V>(out, left, right, starts),
        }
    }
}

/// `R` rows and `V` registers of columns of a [`Combine`].
///
/// # Safety
/// Rows of the result at `out.0 + r * out.1` are readable and writable for `V` registers, those of the right factor at
/// `right + starts[k]` readable, and the left factor at `left.0 + r * left.1.0 + k * left.1.1`.
#[inline(always)]
unsafe fn tile<N: NativeF32, const R: usize, const V: usize>(
    (out, out_step): (*mut f32, usize),
    (left, (row_step, term_step)): (*const f32, (usize, usize)),
    right: *const f32,
    starts: &[u32],
) {
    // SAFETY: the caller's promise; the machine was seen (see `isa`).
    unsafe {
        let mut sums = [[N::splat(0.0); V]; R];
        for r in 0..R {
            for v in 0..V {
                sums[r][v] = N::load(out.add(r * out_step + v * N::LANES));
            }
        }
        let mut left = left;
        for &start in starts {
            let row = right.add(start as usize);
            let mut y = [N::splat(0.0); V];
            for v in 0..V {
                y[v] = N::load(row.add(v * N::LANES));
            }
            for r in 0..R {
                let x = N::splat(*left.add(r * row_step));
                for v in 0..V {
                    sums[r][v] = x.mul_add(y[v], sums[r][v]);
                }
            }
            left = left.wrapping_add(term_step);
        }
        for r in 0..R {
            for v in 0..V {
                sums[r][v].store(out.add(r * out_step + v * N::LANES));
            }
        }
    }
}
