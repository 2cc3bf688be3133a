//! The same transforms on lanes of 52 bits: ten instructions for sixteen butterflies forward, twelve backward.
//!
//! A 52-bit quotient is nearly exact, so that a product lands in `[0, p + 2^-7 p)`, and 52 bits leave room for sums:
//! forward, values begin at 16 p and move by at most p a stage; backward, sums double at each of at most twelve
//! stages. Nothing is reduced before the last stage, and the bits are those of the other transforms.
//!
//! A part of at most 2^12 points is widened into a scratch of 32 KiB, transformed there and narrowed on its way
//! back; longer transforms first run two or three stages across the parts.

mod ring;

use std::cell::RefCell;

use self::ring::{Factor, Ring};
use super::super::chacha::wipe;
use super::super::ifma::Wide;
use super::super::isa::{Dispatch, IfmaKernel};
use super::Lane;
use crate::math::ntt::{LastStage, NttTables, WideLeaf, WideTwiddles};

/// log2 of the points of the longest part.
const PART_LOG2: u32 = 12;
/// log2 of the points that the last seven stages take at once: eight groups of sixteen.
const BLOCK_LOG2: u32 = 7;
/// Groups of a block.
const BLOCK: usize = 8;

/// Sixteen points, widened: the first eight, the second eight.
type Points = [Wide; 2];
/// Their place in the scratch.
type Cell = [u64; 16];
/// The scratch of a part.
#[repr(C, align(64))]
struct Scratch([Cell; 1 << (PART_LOG2 - 4)]);

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> = RefCell::new(Box::new(Scratch([[0; 16]; 1 << (PART_LOG2 - 4)])));
}

/// The transform in place: any `x` below `4p` in, fully reduced out.
pub(super) fn forward(dispatch: Dispatch, x: &mut [u32], tables: &NttTables) {
    SCRATCH.with_borrow_mut(|scratch| dispatch.run_ifma(Forward { x, tables, scratch: &mut scratch.0 }));
}

/// The inverse in place: `x` below `2p` in, fully reduced out.
pub(super) fn inverse(dispatch: Dispatch, x: &mut [u32], tables: &NttTables, last: LastStage) {
    SCRATCH.with_borrow_mut(|scratch| dispatch.run_ifma(Inverse { x, tables, last, scratch: &mut scratch.0 }));
}

/// Writes zeros over what a transform of `n` points used of this thread's scratch.
pub(super) fn wipe_scratch(n: usize) {
    SCRATCH.with_borrow_mut(|scratch| {
        let used = scratch.0.len().min(n / 16);
        wipe(bytemuck::cast_slice_mut(scratch.0[..used].as_flattened_mut()));
    });
}

#[inline(always)]
fn load(x: &Cell) -> Points {
    let (halves, _) = x.as_chunks::<8>();
    [Wide::load(&halves[0]), Wide::load(&halves[1])]
}

#[inline(always)]
fn store(v: Points, x: &mut Cell) {
    let (halves, _) = x.as_chunks_mut::<8>();
    v[0].store(&mut halves[0]);
    v[1].store(&mut halves[1]);
}

#[inline(always)]
fn widen(x: &Lane) -> Points {
    let (halves, _) = x.as_chunks::<8>();
    [Wide::widen(&halves[0]), Wide::widen(&halves[1])]
}

/// Stages across the parts, in the first pass over a part, and in the second.
const fn plan(log2: u32) -> (u32, u32, u32) {
    match log2 {
        10 => (0, 3, 0),
        11 => (0, 2, 2),
        12 => (0, 2, 3),
        13 => (2, 2, 2),
        14 => (2, 2, 3),
        _ => (3, 2, 3),
    }
}

struct Forward<'a> {
    x: &'a mut [u32],
    tables: &'a NttTables,
    scratch: &'a mut [Cell],
}

impl IfmaKernel for Forward<'_> {
    #[inline(always)]
    fn run(self) {
        let (ring, t) = (Ring::new(self.tables), &self.tables.wide()[0]);
        let (x, _) = self.x.as_chunks_mut::<16>();
        let (outer, first, second) = plan(self.tables.degree_log2());
        match outer {
            0 => {}
            2 => forward_outer::<4>(x, ring, t),
            _ => forward_outer::<8>(x, ring, t),
        }
        let part = x.len() >> outer;
        for (i, x) in x.chunks_exact_mut(part).enumerate() {
            let (node, scratch) = ((1 << outer) + i, &mut self.scratch[..part]);
            match first {
                2 => forward_first::<4>(x, scratch, node, ring, t),
                _ => forward_first::<8>(x, scratch, node, ring, t),
            }
            for (j, scratch) in scratch.chunks_exact_mut(part >> first).enumerate() {
                let node = (node << first) + j;
                match second {
                    0 => {}
                    2 => forward_second::<4>(scratch, node, ring, t),
                    _ => forward_second::<8>(scratch, node, ring, t),
                }
            }
            let node = node << (first + second);
            for (j, (x, scratch)) in x.as_chunks_mut().0.iter_mut().zip(scratch.as_chunks().0).enumerate() {
                forward_block(x, scratch, node + j, ring, t);
            }
        }
    }
}

struct Inverse<'a> {
    x: &'a mut [u32],
    tables: &'a NttTables,
    last: LastStage,
    scratch: &'a mut [Cell],
}

impl IfmaKernel for Inverse<'_> {
    #[inline(always)]
    fn run(self) {
        let (ring, t) = (Ring::new(self.tables), &self.tables.wide()[1]);
        let p = self.tables.modulus().value();
        let last = [Factor::prepare(self.last.sum, p), Factor::prepare(self.last.difference, p)];
        let (x, _) = self.x.as_chunks_mut::<16>();
        let (outer, first, second) = plan(self.tables.degree_log2());
        let part = x.len() >> outer;
        for (i, x) in x.chunks_exact_mut(part).enumerate() {
            let (node, scratch) = ((1 << outer) + i, &mut self.scratch[..part]);
            let leaves = node << (first + second);
            for (j, (x, scratch)) in x.as_chunks().0.iter().zip(scratch.as_chunks_mut().0).enumerate() {
                inverse_block(x, scratch, leaves + j, ring, t);
            }
            for (j, scratch) in scratch.chunks_exact_mut(part >> first).enumerate() {
                let node = (node << first) + j;
                match second {
                    0 => {}
                    2 => inverse_second::<4>(scratch, node, ring, t),
                    _ => inverse_second::<8>(scratch, node, ring, t),
                }
            }
            let stage = (BLOCK_LOG2 + second) as usize;
            match (first, outer) {
                (2, 0) => inverse_first::<4, 2>(x, scratch, node, stage, ring, t, last),
                (2, _) => inverse_first::<4, 1>(x, scratch, node, stage, ring, t, last),
                (_, 0) => inverse_first::<8, 2>(x, scratch, node, stage, ring, t, last),
                _ => inverse_first::<8, 1>(x, scratch, node, stage, ring, t, last),
            }
        }
        match outer {
            0 => {}
            2 => inverse_outer::<4>(x, ring, t, last),
            _ => inverse_outer::<8>(x, ring, t, last),
        }
    }
}

/// The factors of log2 R stages below `node`, as a tree in an array.
#[inline(always)]
fn subtree<const R: usize>(node: usize, t: &WideTwiddles) -> [[u64; 2]; R] {
    let mut factors = [[0; 2]; R];
    let mut s = 1;
    while s < R {
        for i in 0..s {
            factors[s + i] = t.nodes[node * s + i];
        }
        s *= 2;
    }
    factors
}

/// log2 R stages between R times sixteen points.
#[inline(always)]
fn forward_tree<const R: usize>(v: &mut [Points; R], factors: &[[u64; 2]; R], ring: Ring) {
    let mut groups = 1;
    while groups < R {
        let half = R / (2 * groups);
        for i in 0..groups {
            let w = Factor::splat(factors[groups + i]);
            for j in 2 * half * i..2 * half * i + half {
                for k in 0..2 {
                    (v[j][k], v[j + half][k]) = ring.forward(v[j][k], v[j + half][k], w);
                }
            }
        }
        groups *= 2;
    }
}

/// [`forward_tree`] undone down to UNTIL groups, from backward stage `stage` on.
#[inline(always)]
fn inverse_tree<const R: usize, const UNTIL: usize>(
    v: &mut [Points; R],
    factors: &[[u64; 2]; R],
    ring: Ring,
    mut stage: usize,
) {
    let mut groups = R / 2;
    while groups >= UNTIL {
        let (half, bound) = (R / (2 * groups), ring.bound(stage));
        for i in 0..groups {
            let w = Factor::splat(factors[groups + i]);
            for j in 2 * half * i..2 * half * i + half {
                for k in 0..2 {
                    (v[j][k], v[j + half][k]) = ring.inverse(v[j][k], v[j + half][k], w, bound);
                }
            }
        }
        groups /= 2;
        stage += 1;
    }
}

/// Sixteen points from words, at 16 p and above: only where the first stage does not multiply.
#[inline(always)]
fn widen_all<const R: usize>(x: &[Lane], j: usize, distance: usize, ring: Ring) -> [Points; R] {
    let base = Wide::splat(16 * ring.p);
    let mut v = [[base; 2]; R];
    for r in 0..R {
        let points = widen(&x[r * distance + j]);
        for k in 0..2 {
            v[r][k] = if r < R / 2 { points[k].add(base) } else { points[k] };
        }
    }
    v
}

/// The stages across the parts: words in, words below p out.
#[inline(always)]
fn forward_outer<const R: usize>(x: &mut [Lane], ring: Ring, t: &WideTwiddles) {
    let (factors, distance) = (subtree::<R>(1, t), x.len() / R);
    for j in 0..distance {
        let mut v = widen_all::<R>(x, j, distance, ring);
        forward_tree(&mut v, &factors, ring);
        for r in 0..R {
            ring.reduce(v[r][0]).narrow_reduced(ring.reduce(v[r][1]), ring.words, &mut x[r * distance + j]);
        }
    }
}

/// The first stages of a part: words in, scratch out.
#[inline(always)]
fn forward_first<const R: usize>(x: &[Lane], scratch: &mut [Cell], node: usize, ring: Ring, t: &WideTwiddles) {
    let (factors, distance) = (subtree::<R>(node, t), x.len() / R);
    for j in 0..distance {
        let mut v = widen_all::<R>(x, j, distance, ring);
        forward_tree(&mut v, &factors, ring);
        for r in 0..R {
            store(v[r], &mut scratch[r * distance + j]);
        }
    }
}

/// The next stages, in the scratch.
#[inline(always)]
fn forward_second<const R: usize>(scratch: &mut [Cell], node: usize, ring: Ring, t: &WideTwiddles) {
    let (factors, distance) = (subtree::<R>(node, t), scratch.len() / R);
    for j in 0..distance {
        let mut v = [[ring.words; 2]; R];
        for r in 0..R {
            v[r] = load(&scratch[r * distance + j]);
        }
        forward_tree(&mut v, &factors, ring);
        for r in 0..R {
            store(v[r], &mut scratch[r * distance + j]);
        }
    }
}

/// The last seven stages of 128 points: scratch in, words below p out.
#[inline(always)]
fn forward_block(x: &mut [Lane; BLOCK], scratch: &[Cell; BLOCK], node: usize, ring: Ring, t: &WideTwiddles) {
    let factors = subtree::<BLOCK>(node, t);
    let mut v = [[ring.words; 2]; BLOCK];
    for r in 0..BLOCK {
        v[r] = load(&scratch[r]);
    }
    forward_tree(&mut v, &factors, ring);
    let first = node * BLOCK - t.leaves.len();
    let Some(leaves) = t.leaves[first..].first_chunk::<BLOCK>() else { return };
    // The stages at distance 8, 4, 2, 1; see the other transform for the interleaving. Stage by stage over all
    // groups, so that there is always something ready to run. The last stage leaves the points of even place in
    // one register and those of odd place in the other.
    for r in 0..BLOCK {
        v[r] = ring.forward(v[r][0], v[r][1], eighth(&leaves[r])).into();
    }
    for r in 0..BLOCK {
        let (a, b) = v[r][0].interleave(v[r][1]);
        v[r] = ring.forward(a, b, fourth(&leaves[r])).into();
    }
    for r in 0..BLOCK {
        let (a, b) = v[r][0].interleave(v[r][1]);
        v[r] = ring.forward(a, b, second(&leaves[r])).into();
    }
    for r in 0..BLOCK {
        let (a, b) = v[r][0].interleave(v[r][1]);
        v[r] = ring.forward(a, b, neighbor(&leaves[r])).into();
    }
    for r in 0..BLOCK {
        ring.reduce(v[r][0]).join_reduced(ring.reduce(v[r][1]), ring.words, &mut x[r]);
    }
}

/// Factors at distance 8.
#[inline(always)]
fn eighth(leaf: &WideLeaf) -> Factor {
    Factor::splat([leaf.upper[0], leaf.upper[1]])
}

/// Factors at distance 4.
#[inline(always)]
fn fourth(leaf: &WideLeaf) -> Factor {
    let (pairs, _) = leaf.upper.as_chunks::<2>();
    Factor { value: Wide::repeat2(&pairs[1]), quotient: Wide::repeat2(&pairs[2]) }
}

/// Factors at distance 2.
#[inline(always)]
fn second(leaf: &WideLeaf) -> Factor {
    let (halves, _) = leaf.middle.as_chunks::<4>();
    Factor { value: Wide::repeat4(&halves[0]), quotient: Wide::repeat4(&halves[1]) }
}

/// Factors at distance 1.
#[inline(always)]
fn neighbor(leaf: &WideLeaf) -> Factor {
    Factor { value: Wide::load(&leaf.values), quotient: Wide::load(&leaf.quotients) }
}

/// [`forward_block`] undone.
#[inline(always)]
fn inverse_block(x: &[Lane; BLOCK], scratch: &mut [Cell; BLOCK], node: usize, ring: Ring, t: &WideTwiddles) {
    let factors = subtree::<BLOCK>(node, t);
    let first = node * BLOCK - t.leaves.len();
    let Some(leaves) = t.leaves[first..].first_chunk::<BLOCK>() else { return };
    let mut v = [[ring.words; 2]; BLOCK];
    for r in 0..BLOCK {
        let (a, b) = Wide::split(&x[r]);
        v[r] = ring.inverse(a, b, neighbor(&leaves[r]), ring.bound(0)).into();
    }
    for r in 0..BLOCK {
        let (a, b) = v[r][0].separate(v[r][1]);
        v[r] = ring.inverse(a, b, second(&leaves[r]), ring.bound(1)).into();
    }
    for r in 0..BLOCK {
        let (a, b) = v[r][0].separate(v[r][1]);
        v[r] = ring.inverse(a, b, fourth(&leaves[r]), ring.bound(2)).into();
    }
    for r in 0..BLOCK {
        let (a, b) = v[r][0].separate(v[r][1]);
        v[r] = ring.inverse(a, b, eighth(&leaves[r]), ring.bound(3)).into();
    }
    inverse_tree::<BLOCK, 1>(&mut v, &factors, ring, 4);
    for r in 0..BLOCK {
        store(v[r], &mut scratch[r]);
    }
}

/// [`forward_second`] undone.
#[inline(always)]
fn inverse_second<const R: usize>(scratch: &mut [Cell], node: usize, ring: Ring, t: &WideTwiddles) {
    let (factors, distance) = (subtree::<R>(node, t), scratch.len() / R);
    for j in 0..distance {
        let mut v = [[ring.words; 2]; R];
        for r in 0..R {
            v[r] = load(&scratch[r * distance + j]);
        }
        inverse_tree::<R, 1>(&mut v, &factors, ring, BLOCK_LOG2 as usize);
        for r in 0..R {
            store(v[r], &mut scratch[r * distance + j]);
        }
    }
}

/// [`forward_first`] undone: words below p out; with UNTIL = 2 the last stage is the last of all, and scales.
#[inline(always)]
fn inverse_first<const R: usize, const UNTIL: usize>(
    x: &mut [Lane],
    scratch: &[Cell],
    node: usize,
    stage: usize,
    ring: Ring,
    t: &WideTwiddles,
    last: [Factor; 2],
) {
    let (factors, distance) = (subtree::<R>(node, t), x.len() / R);
    for j in 0..distance {
        let mut v = [[ring.words; 2]; R];
        for r in 0..R {
            v[r] = load(&scratch[r * distance + j]);
        }
        inverse_end::<R, UNTIL>(&mut v, &factors, stage, ring, last);
        for r in 0..R {
            v[r][0].narrow_reduced(v[r][1], ring.words, &mut x[r * distance + j]);
        }
    }
}

/// [`forward_outer`] undone, scaled.
#[inline(always)]
fn inverse_outer<const R: usize>(x: &mut [Lane], ring: Ring, t: &WideTwiddles, last: [Factor; 2]) {
    let (factors, distance) = (subtree::<R>(1, t), x.len() / R);
    for j in 0..distance {
        let mut v = [[ring.words; 2]; R];
        for r in 0..R {
            v[r] = widen(&x[r * distance + j]);
        }
        inverse_end::<R, 2>(&mut v, &factors, 0, ring, last);
        for r in 0..R {
            v[r][0].narrow_reduced(v[r][1], ring.words, &mut x[r * distance + j]);
        }
    }
}

/// The stages of a tree whose results are narrowed: below 2p at the end; with UNTIL = 2 the last one scales.
#[inline(always)]
fn inverse_end<const R: usize, const UNTIL: usize>(
    v: &mut [Points; R],
    factors: &[[u64; 2]; R],
    stage: usize,
    ring: Ring,
    last: [Factor; 2],
) {
    inverse_tree::<R, UNTIL>(v, factors, ring, stage);
    let bound = ring.bound(stage + R.ilog2() as usize - 1);
    for r in 0..R / 2 {
        for k in 0..2 {
            let (a, b) = (v[r][k], v[r + R / 2][k]);
            if UNTIL == 2 {
                v[r][k] = ring.mul_add(Wide::splat(0), a.add(b), last[0]);
                v[r + R / 2][k] = ring.mul_add(Wide::splat(0), a.add(bound).sub(b), last[1]);
            } else {
                (v[r][k], v[r + R / 2][k]) = (ring.reduce(a), ring.reduce(b));
            }
        }
    }
}
