//! Negacyclic transforms on sixteen lanes: Harvey's lazy butterflies, each element loaded few times.
//!
//! Values stay in `[0, 4p)` forward and `[0, 2p)` backward (Harvey, J. Symb. Comput. 60, 2014) and are
//! reduced fully in the last stage, so that every instruction set gives the bits of `scalar::ntt`.
//! The stages at distance 16 and above run between registers, up to four of them on one load (radix 16).
//! The last eight stages take one load of 16 (or 4) registers: the four below distance 16 first
//! interleave pairs of registers, so that they, too, are between registers.

#[cfg(target_arch = "x86_64")]
mod ifma;

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, Words};
use crate::math::modular::Shoup;
use crate::math::ntt::{LastStage, NttTables, RnsBasis, Twiddles};

/// Sixteen residues.
pub(super) type Lane = [u32; 16];

/// `p` and `2p` in every lane.
#[derive(Clone, Copy)]
pub(super) struct Limits<W> {
    /// p.
    pub(super) p: W,
    /// 2p.
    pub(super) twice: W,
}

impl<W: Words> Limits<W> {
    /// Of the prime of `tables`.
    #[inline(always)]
    pub(super) fn new(tables: &NttTables) -> Self {
        let p = tables.modulus().value();
        Self { p: W::splat(p), twice: W::splat(2 * p) }
    }

    /// `[0, 2p)` from `[0, 4p)`.
    #[inline(always)]
    pub(super) fn below_twice(self, x: W) -> W {
        x.min(x.sub(self.twice))
    }

    /// `[0, p)` from `[0, 2p)`.
    #[inline(always)]
    pub(super) fn below(self, x: W) -> W {
        x.min(x.sub(self.p))
    }

    /// `x w mod p` in `[0, 2p)` for any `x`, by Shoup's product.
    #[inline(always)]
    pub(super) fn mul(self, x: W, w: Factor<W>) -> W {
        x.mul_lo(w.value).sub(x.mul_hi(w.quotient).mul_lo(self.p))
    }

    /// `(x + w y, x - w y)`, lazily in `[0, 4p)`.
    #[inline(always)]
    fn forward(self, x: W, y: W, w: Factor<W>) -> (W, W) {
        let (x, y) = (self.below_twice(x), self.mul(y, w));
        (x.add(y), x.add(self.twice).sub(y))
    }

    /// `(x + y, w (x - y))`, lazily in `[0, 2p)`.
    #[inline(always)]
    fn inverse(self, x: W, y: W, w: Factor<W>) -> (W, W) {
        (self.below_twice(x.add(y)), self.mul(x.add(self.twice).sub(y), w))
    }
}

/// A Shoup factor a lane.
#[derive(Clone, Copy)]
pub(super) struct Factor<W> {
    value: W,
    quotient: W,
}

impl<W: Words> Factor<W> {
    /// The same factor in every lane.
    #[inline(always)]
    pub(super) fn splat(w: Shoup) -> Self {
        Self { value: W::splat(w.value), quotient: W::splat(w.quotient) }
    }

    /// One factor a lane.
    #[inline(always)]
    pub(super) fn load(value: &Lane, quotient: &Lane) -> Self {
        Self { value: W::load(value), quotient: W::load(quotient) }
    }

    /// The `C` factors of 32-point block `q` in the stage at distance `16 / C`, repeated over the lanes.
    #[inline(always)]
    fn repeat<const C: usize>(t: &Twiddles, q: usize) -> Self {
        let at = t.values.len() / 32 * C + q * C;
        let (value, quotient) = (t.values[at..].first_chunk::<C>(), t.quotients[at..].first_chunk::<C>());
        // Both exist: the tables have N entries and q < N / 32. The default keeps the kernel free of panics.
        Self { value: W::repeat(value.unwrap_or(&[0; C])), quotient: W::repeat(quotient.unwrap_or(&[0; C])) }
    }
}

/// True where sixteen groups of points, and what butterflies need beside them, fit in the register file.
#[inline(always)]
const fn wide<M: Machine>() -> bool {
    M::GROUPS >= 32
}

/// Most stages that one load serves above the blocks.
#[inline(always)]
const fn most_stages<M: Machine>() -> usize {
    if wide::<M>() { 4 } else { 2 }
}

/// log2 of the points that the last stages take at once.
#[inline(always)]
const fn block_log2<M: Machine>() -> usize {
    if wide::<M>() { 8 } else { 6 }
}

/// How the stages above the blocks are cut: a first pass over all points, then the rest part by part, so that
/// a part stays in the nearest cache.
#[inline(always)]
fn split<M: Machine>(tables: &NttTables) -> (usize, usize) {
    let above = tables.degree_log2() as usize - block_log2::<M>();
    let first = above.div_ceil(2);
    if above <= most_stages::<M>() { (0, above) } else { (first, above - first) }
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// To the transformed domain.
    Forward,
    /// Back.
    Inverse,
}

/// Transforms every row of N residues in place; row i is modulo prime `i mod L`. Rows run in parallel, one row
/// runs on the spot.
pub(super) fn rows(dispatch: Dispatch, x: &mut [u32], basis: &RnsBasis, direction: Direction) {
    let one = |limb: usize, x: &mut [u32]| {
        let tables = &basis.limbs()[limb];
        match direction {
            Direction::Forward => forward(dispatch, x, tables),
            Direction::Inverse => inverse(dispatch, x, tables, tables.last_stage()),
        }
        wipe_scratch(dispatch, x.len());
    };
    let (n, limbs) = (basis.degree(), basis.limbs().len());
    if x.len() == n {
        one(0, x);
    } else {
        x.par_chunks_exact_mut(n).enumerate().for_each(|(i, row)| one(i % limbs, row));
    }
}

/// The transform of N residues in place: any `x` below `4p` in, fully reduced out.
pub(super) fn forward(dispatch: Dispatch, x: &mut [u32], tables: &NttTables) {
    #[cfg(target_arch = "x86_64")]
    if dispatch.has_ifma() {
        return ifma::forward(dispatch, x, tables);
    }
    dispatch.run(Forward { x, tables });
}

/// The inverse in place: `x` below `2p` in, fully reduced out. `last` are the factors of the last stage: with 1/N,
/// and with what the input carries.
pub(super) fn inverse(dispatch: Dispatch, x: &mut [u32], tables: &NttTables, last: LastStage) {
    #[cfg(target_arch = "x86_64")]
    if dispatch.has_ifma() {
        return ifma::inverse(dispatch, x, tables, last);
    }
    dispatch.run(Inverse { x, tables, last });
}

/// Writes zeros over what transforms of `n` points on this thread leave behind.
pub(super) fn wipe_scratch(dispatch: Dispatch, n: usize) {
    #[cfg(target_arch = "x86_64")]
    if dispatch.has_ifma() {
        ifma::wipe_scratch(n);
    }
    let _ = (dispatch, n);
}

struct Forward<'a> {
    x: &'a mut [u32],
    tables: &'a NttTables,
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (limits, t) = (Limits::<M::W>::new(self.tables), self.tables.forward());
        let (groups, _) = self.x.as_chunks_mut::<16>();
        let (outer, inner) = split::<M>(self.tables);
        forward_passes::<M>(groups, 1, outer, limits, t);
        let part = groups.len() >> outer;
        for (i, part) in groups.chunks_exact_mut(part).enumerate() {
            let node = (1 << outer) + i;
            forward_passes::<M>(part, node, inner, limits, t);
            let block = part.len() >> inner;
            for (j, block) in part.chunks_exact_mut(block).enumerate() {
                let node = (node << inner) + j;
                if wide::<M>() {
                    forward_block::<M::W, 16>(block, node, limits, t);
                } else {
                    forward_block::<M::W, 4>(block, node, limits, t);
                }
            }
        }
    }
}

struct Inverse<'a> {
    x: &'a mut [u32],
    tables: &'a NttTables,
    last: LastStage,
}

impl Kernel for Inverse<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (limits, t) = (Limits::<M::W>::new(self.tables), self.tables.inverse());
        let (groups, _) = self.x.as_chunks_mut::<16>();
        let (outer, inner) = split::<M>(self.tables);
        let part = groups.len() >> outer;
        for (i, part) in groups.chunks_exact_mut(part).enumerate() {
            let node = (1 << outer) + i;
            let block = part.len() >> inner;
            for (j, block) in part.chunks_exact_mut(block).enumerate() {
                let node = (node << inner) + j;
                if wide::<M>() {
                    inverse_block::<M::W, 16>(block, node, limits, t);
                } else {
                    inverse_block::<M::W, 4>(block, node, limits, t);
                }
            }
            inverse_passes::<M>(part, node, inner, limits, t, self.last);
        }
        if outer > 0 {
            inverse_passes::<M>(groups, 1, outer, limits, t, self.last);
        }
    }
}

/// `stages` stages on the polynomial at `node` of the tree of moduli (the root is 1, children of k are 2k and
/// 2k + 1; the entry of a node in the tables is the root of unity that splits it).
#[inline(always)]
fn forward_passes<M: Machine>(x: &mut [Lane], node: usize, stages: usize, limits: Limits<M::W>, t: &Twiddles) {
    let mut done = 0;
    while done < stages {
        let step = (stages - done).min(most_stages::<M>());
        let chunk = x.len() >> done;
        for (i, chunk) in x.chunks_exact_mut(chunk).enumerate() {
            let node = (node << done) + i;
            match step {
                1 => forward_pass::<M::W, 2>(chunk, node, limits, t),
                2 => forward_pass::<M::W, 4>(chunk, node, limits, t),
                3 => forward_pass::<M::W, 8>(chunk, node, limits, t),
                _ => forward_pass::<M::W, 16>(chunk, node, limits, t),
            }
        }
        done += step;
    }
}

/// The stages of [`forward_passes`] undone.
#[inline(always)]
fn inverse_passes<M: Machine>(
    x: &mut [Lane],
    node: usize,
    stages: usize,
    limits: Limits<M::W>,
    t: &Twiddles,
    last: LastStage,
) {
    let mut left = stages;
    while left > 0 {
        let step = left.min(most_stages::<M>());
        left -= step;
        let chunk = x.len() >> left;
        for (i, chunk) in x.chunks_exact_mut(chunk).enumerate() {
            let node = (node << left) + i;
            match (step, node) {
                (1, 1) => inverse_pass::<M::W, 2, 2>(chunk, node, limits, t, last),
                (2, 1) => inverse_pass::<M::W, 4, 2>(chunk, node, limits, t, last),
                (3, 1) => inverse_pass::<M::W, 8, 2>(chunk, node, limits, t, last),
                (_, 1) => inverse_pass::<M::W, 16, 2>(chunk, node, limits, t, last),
                (1, _) => inverse_pass::<M::W, 2, 1>(chunk, node, limits, t, last),
                (2, _) => inverse_pass::<M::W, 4, 1>(chunk, node, limits, t, last),
                (3, _) => inverse_pass::<M::W, 8, 1>(chunk, node, limits, t, last),
                _ => inverse_pass::<M::W, 16, 1>(chunk, node, limits, t, last),
            }
        }
    }
}

/// The factors of the log2 R stages below `node`, as a tree in an array: entry `2^s + i` is group i of stage s.
#[inline(always)]
fn subtree<const R: usize>(node: usize, t: &Twiddles) -> [Shoup; R] {
    let mut factors = [Shoup::default(); R];
    let mut s = 1;
    while s < R {
        for i in 0..s {
            factors[s + i] = t.get(node * s + i);
        }
        s *= 2;
    }
    factors
}

/// log2 R stages between R registers.
#[inline(always)]
fn forward_tree<W: Words, const R: usize>(v: &mut [W; R], factors: &[Shoup; R], limits: Limits<W>) {
    let mut groups = 1;
    while groups < R {
        let half = R / (2 * groups);
        for i in 0..groups {
            let w = Factor::splat(factors[groups + i]);
            for j in 2 * half * i..2 * half * i + half {
                (v[j], v[j + half]) = limits.forward(v[j], v[j + half], w);
            }
        }
        groups *= 2;
    }
}

/// [`forward_tree`] undone down to UNTIL groups.
#[inline(always)]
fn inverse_tree<W: Words, const R: usize, const UNTIL: usize>(v: &mut [W; R], factors: &[Shoup; R], limits: Limits<W>) {
    let mut groups = R / 2;
    while groups >= UNTIL {
        let half = R / (2 * groups);
        for i in 0..groups {
            let w = Factor::splat(factors[groups + i]);
            for j in 2 * half * i..2 * half * i + half {
                (v[j], v[j + half]) = limits.inverse(v[j], v[j + half], w);
            }
        }
        groups /= 2;
    }
}

/// log2 R stages of the polynomial at `node`, one column of R registers after another.
#[inline(always)]
fn forward_pass<W: Words, const R: usize>(x: &mut [Lane], node: usize, limits: Limits<W>, t: &Twiddles) {
    let factors = subtree::<R>(node, t);
    let distance = x.len() / R;
    for j in 0..distance {
        let mut v = [limits.p; R];
        for r in 0..R {
            v[r] = W::load(&x[r * distance + j]);
        }
        forward_tree(&mut v, &factors, limits);
        for r in 0..R {
            v[r].store(&mut x[r * distance + j]);
        }
    }
}

/// [`forward_pass`] undone; with UNTIL = 2 (at the root) the last stage scales and reduces.
#[inline(always)]
fn inverse_pass<W: Words, const R: usize, const UNTIL: usize>(
    x: &mut [Lane],
    node: usize,
    limits: Limits<W>,
    t: &Twiddles,
    last: LastStage,
) {
    let factors = subtree::<R>(node, t);
    let distance = x.len() / R;
    for j in 0..distance {
        let mut v = [limits.p; R];
        for r in 0..R {
            v[r] = W::load(&x[r * distance + j]);
        }
        inverse_tree::<W, R, UNTIL>(&mut v, &factors, limits);
        if UNTIL == 2 {
            let (sum, difference) = (Factor::splat(last.sum), Factor::splat(last.difference));
            for r in 0..R / 2 {
                let (a, b) = (v[r], v[r + R / 2]);
                v[r] = limits.below(limits.mul(a.add(b), sum));
                v[r + R / 2] = limits.below(limits.mul(a.add(limits.twice).sub(b), difference));
            }
        }
        for r in 0..R {
            v[r].store(&mut x[r * distance + j]);
        }
    }
}

/// All stages of 16 R points: log2 R between registers, four after interleaving.
#[inline(always)]
fn forward_block<W: Words, const R: usize>(x: &mut [Lane], node: usize, limits: Limits<W>, t: &Twiddles) {
    let Some(x) = x.first_chunk_mut::<R>() else { return };
    let factors = subtree::<R>(node, t);
    let mut v = [limits.p; R];
    for r in 0..R {
        v[r] = W::load(&x[r]);
    }
    forward_tree(&mut v, &factors, limits);
    let first = (node * R - t.values.len() / 16) / 2;
    forward_below::<W, R, 2>(&mut v, first, limits, t);
    forward_below::<W, R, 4>(&mut v, first, limits, t);
    forward_below::<W, R, 8>(&mut v, first, limits, t);
    forward_below::<W, R, 16>(&mut v, first, limits, t);
    for i in 0..R / 2 {
        let (a, b) = v[2 * i].interleave(v[2 * i + 1]);
        limits.below(limits.below_twice(a)).store(&mut x[2 * i]);
        limits.below(limits.below_twice(b)).store(&mut x[2 * i + 1]);
    }
}

/// The stage at distance `16 / C` of pairs of registers, 32 points each, the first being pair `first` of all.
///
/// An interleave turns the bits (register; lane 3, 2, 1, 0) of a point's place by one: the register bit becomes
/// the lowest lane bit and the highest lane bit chooses the register. Five of them are the identity. The stage
/// runs over all pairs, so that there is always something ready to run.
#[inline(always)]
fn forward_below<W: Words, const R: usize, const C: usize>(
    v: &mut [W; R],
    first: usize,
    limits: Limits<W>,
    t: &Twiddles,
) {
    for i in 0..R / 2 {
        let (a, b) = v[2 * i].interleave(v[2 * i + 1]);
        (v[2 * i], v[2 * i + 1]) = limits.forward(a, b, Factor::repeat::<C>(t, first + i));
    }
}

/// [`forward_block`] undone.
#[inline(always)]
fn inverse_block<W: Words, const R: usize>(x: &mut [Lane], node: usize, limits: Limits<W>, t: &Twiddles) {
    let Some(x) = x.first_chunk_mut::<R>() else { return };
    let factors = subtree::<R>(node, t);
    let mut v = [limits.p; R];
    let first = (node * R - t.values.len() / 16) / 2;
    for r in 0..R {
        v[r] = W::load(&x[r]);
    }
    inverse_below::<W, R, 16>(&mut v, first, limits, t);
    inverse_below::<W, R, 8>(&mut v, first, limits, t);
    inverse_below::<W, R, 4>(&mut v, first, limits, t);
    inverse_below::<W, R, 2>(&mut v, first, limits, t);
    for i in 0..R / 2 {
        (v[2 * i], v[2 * i + 1]) = v[2 * i].separate(v[2 * i + 1]);
    }
    inverse_tree::<W, R, 1>(&mut v, &factors, limits);
    for r in 0..R {
        v[r].store(&mut x[r]);
    }
}

/// [`forward_below`] undone.
#[inline(always)]
fn inverse_below<W: Words, const R: usize, const C: usize>(
    v: &mut [W; R],
    first: usize,
    limits: Limits<W>,
    t: &Twiddles,
) {
    for i in 0..R / 2 {
        let (a, b) = v[2 * i].separate(v[2 * i + 1]);
        (v[2 * i], v[2 * i + 1]) = limits.inverse(a, b, Factor::repeat::<C>(t, first + i));
    }
}
