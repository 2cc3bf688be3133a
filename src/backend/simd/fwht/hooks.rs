//! What a transform reads in its first pass and writes in its last: the fused forms are made of these two.
//!
//! A stage that needs a transform with something before or after it (encode: scale, signs, padding before;
//! fixed point, clamp and norm after) implements [`Load`] and [`Store`] on small structs of references and
//! constants and calls [`super::fused`]. Both are compiled into the passes for every instruction set, so
//! each method must be `#[inline(always)]` and be written over `M::F` and `M::W`.
//!
//! A *group* is sixteen coordinates; group g of the transformed slice x is `x[16 g..16 g + 16]`, whatever
//! block, pass, task or thread it falls to. If the length of x is no multiple of 16 (blocks of less than 16
//! points only), the last group is padded by zeros: what is stored there is dropped.

use super::super::lanes::{Floats, Machine};

/// Groups of a chunk, 2^12 points: every first pass takes whole chunks, or all that there is.
pub(in crate::backend::simd) const CHUNK: usize = (1 << 12) / 16;

/// The prologue: what the first pass reads. Every group is loaded exactly once.
pub(in crate::backend::simd) trait Load: Sync {
    /// What the inputs of a chunk ([`CHUNK`] groups from a multiple of it on, or the last ones) add up to.
    type Registers<M: Machine>;

    /// Where the inputs of a few groups lie, looked up once for all of them.
    type Place<'a>: Copy
    where
        Self: 'a;

    /// Empty registers.
    fn start<M: Machine>(&self) -> Self::Registers<M>;

    /// The place of the groups from `group` on, a multiple of R: R of them, at most 16.
    fn place<const R: usize>(&self, group: usize) -> Self::Place<'_>;

    /// The sixteen inputs of group k of a place; `here` is what x holds there (a transform in place reads it, one with
    /// another source does not).
    fn load<M: Machine>(
        &self,
        seen: &mut Self::Registers<M>,
        place: Self::Place<'_>,
        k: usize,
        here: &[f32; 16],
    ) -> M::F;

    /// `load(..).stage::<1>()`, to be overridden where the memory operand can do it.
    #[inline(always)]
    fn load_stage1<M: Machine>(
        &self,
        seen: &mut Self::Registers<M>,
        place: Self::Place<'_>,
        k: usize,
        here: &[f32; 16],
    ) -> M::F {
        self.load::<M>(seen, place, k, here).stage::<1>()
    }

    /// What the inputs of the chunk that `group` belongs to have added up to. In a block of at least a chunk this comes
    /// before any [`Store::start`] of the block; in shorter ones, chunks may be cut.
    fn finish<M: Machine>(&self, seen: Self::Registers<M>, group: usize);

    /// Where the inputs lie if not in x: the address of those of group 0, and the bytes of a group. Only ever used to
    /// ask for memory ahead of time.
    fn source(&self) -> Option<(*const u8, usize)> {
        None
    }
}

/// The epilogue: what the last pass writes. Every group is stored exactly once.
pub(in crate::backend::simd) trait Store: Sync {
    /// What the stores add up to, for instance a norm. Parts are merged in any order, so that it must be
    /// exact (integers, flags) for the result not to depend on the number of threads.
    type Seen: Default + Send;
    /// The same while one task runs, in registers.
    type Registers<M: Machine>;

    /// Empty registers.
    fn start<M: Machine>(&self) -> Self::Registers<M>;

    /// Writes the sixteen outputs `v` of `group`, to `here` (their place in x) or elsewhere.
    fn store<M: Machine>(&self, seen: &mut Self::Registers<M>, group: usize, v: M::F, here: &mut [f32; 16]);

    /// The sum over the lanes of the registers. Between `start` and `finish` at most a task's groups,
    /// 2^16, are stored: sums of 16-bit parts fit a `u32` lane.
    fn finish<M: Machine>(&self, registers: Self::Registers<M>) -> Self::Seen;

    /// Two parts together.
    fn merge(a: Self::Seen, b: Self::Seen) -> Self::Seen;
}

/// The inputs are what x holds.
pub(in crate::backend::simd) struct InPlace;

impl Load for InPlace {
    type Registers<M: Machine> = ();
    type Place<'a> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn place<const R: usize>(&self, _: usize) {}

    #[inline(always)]
    fn load<M: Machine>(&self, (): &mut (), (): (), _: usize, here: &[f32; 16]) -> M::F {
        M::F::load(here)
    }

    #[inline(always)]
    fn load_stage1<M: Machine>(&self, (): &mut (), (): (), _: usize, here: &[f32; 16]) -> M::F {
        M::F::load_stage::<1>(here)
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): (), _: usize) {}
}

/// The inputs are what x holds, or the outputs go to x, times a factor.
pub(in crate::backend::simd) struct Scaled(pub(in crate::backend::simd) f32);

impl Load for Scaled {
    type Registers<M: Machine> = ();
    type Place<'a> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn place<const R: usize>(&self, _: usize) {}

    #[inline(always)]
    fn load<M: Machine>(&self, (): &mut (), (): (), _: usize, here: &[f32; 16]) -> M::F {
        M::F::load(here).mul(M::F::splat(self.0))
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): (), _: usize) {}
}

impl Store for Scaled {
    type Seen = ();
    type Registers<M: Machine> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn store<M: Machine>(&self, (): &mut (), _: usize, v: M::F, here: &mut [f32; 16]) {
        v.mul(M::F::splat(self.0)).store(here);
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): ()) {}

    fn merge((): (), (): ()) {}
}

/// The outputs go to x as they are.
impl Store for InPlace {
    type Seen = ();
    type Registers<M: Machine> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn store<M: Machine>(&self, (): &mut (), _: usize, v: M::F, here: &mut [f32; 16]) {
        v.store(here);
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): ()) {}

    fn merge((): (), (): ()) {}
}
