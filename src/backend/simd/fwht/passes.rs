//! The kernels: blocks of fewer than 16 points, leaves of up to 256 points in registers, and passes that
//! combine parts of a block.
//!
//! The stages of a block always run in the order h = 1, 2, 4, 16, 32, 64, 128, 8, 256, 512, ...: stage 8 comes
//! late because the pass at h = 256 reads from memory and can take it there without a shuffle. (In a block of
//! at most 256 points it is the last one.) Which of them share a pass differs between instruction sets and
//! sizes and changes no bit.

use super::super::isa::Kernel;
use super::super::lanes::{Floats, Machine};
use super::hooks::{CHUNK, Load, Store};
use super::memory::fetch;

/// Groups from some place of the transformed slice on.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// Where they lie.
    pub(super) at: *mut [f32; 16],
    /// The index of the first.
    pub(super) first: usize,
}

// SAFETY: a span is an address; the kernels that dereference it say which groups of it are theirs alone.
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// The span `groups` further on.
    #[inline(always)]
    pub(super) fn skip(self, groups: usize) -> Self {
        Self { at: self.at.wrapping_add(groups), first: self.first + groups }
    }

    /// Group `i`.
    ///
    /// # Safety
    /// The group belongs to the running kernel, and no other reference to it is alive.
    #[inline(always)]
    pub(super) unsafe fn group<'a>(self, i: usize) -> &'a mut [f32; 16] {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.at.add(i) }
    }
}

/// [`Machine::RADIX`] of the running instruction set: the groups of a leaf.
pub(super) struct Radix;

impl Kernel for Radix {
    type Output = usize;

    #[inline(always)]
    fn run<M: Machine>(self) -> usize {
        M::RADIX
    }
}

/// The prefetch of what comes next, spread over the passes: memory works while the ports do.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// The next group in x to ask for.
    pub(super) x: *const [f32; 16],
    /// The same in the source, or null.
    pub(super) source: *const u8,
    /// Bytes of a group there.
    pub(super) pitch: usize,
    /// Groups left.
    pub(super) left: usize,
    /// Groups to ask for while sixteen are worked on.
    pub(super) share: usize,
}

impl Ahead {
    /// Asks for nothing.
    pub(super) const NOTHING: Self =
        Self { x: std::ptr::null(), source: std::ptr::null(), pitch: 0, left: 0, share: 0 };

    /// To be called once for every `R` groups worked on.
    #[inline(always)]
    fn step<const R: usize>(&mut self) {
        if self.left > 0 {
            let count = (self.share * R).div_ceil(16).min(self.left);
            self.left -= count;
            for _ in 0..count {
                fetch(self.x);
                self.x = self.x.wrapping_add(1);
            }
            if !self.source.is_null() {
                for _ in 0..count {
                    fetch(self.source);
                    self.source = self.source.wrapping_add(self.pitch);
                }
            }
        }
    }
}

/// Blocks of `2^log2` points, fewer than 16.
pub(super) struct Short<'a, L, S> {
    pub(super) span: Span,
    pub(super) groups: usize,
    pub(super) log2: u32,
    pub(super) ahead: &'a mut Ahead,
    pub(super) load: &'a L,
    pub(super) store: &'a S,
}

impl<L: Load, S: Store> Kernel for Short<'_, L, S> {
    type Output = S::Seen;

    /// The groups of `span` are accessed by nothing else meanwhile: who makes the kernel promises it.
    #[inline(always)]
    fn run<M: Machine>(self) -> S::Seen {
        let (mut loaded, mut seen) = (self.load.start::<M>(), self.store.start::<M>());
        for i in 0..self.groups {
            self.ahead.step::<1>();
            // SAFETY: i < groups, and the promise above.
            let here = unsafe { self.span.group(i) };
            let group = self.span.first + i;
            let mut v = self.load.load::<M>(&mut loaded, self.load.place::<1>(group), 0, here);
            if self.log2 > 0 {
                v = v.stage::<1>();
            }
            if self.log2 > 1 {
                v = v.stage::<2>();
            }
            if self.log2 > 2 {
                v = v.stage::<4>();
            }
            self.store.store(&mut seen, group, v, here);
        }
        self.load.finish::<M>(loaded, self.span.first);
        self.store.finish::<M>(seen)
    }
}

/// `size` groups at a time in registers: stages 1, 2, 4 on the lanes, 16, 32, ... across registers, and 8 at
/// last if that makes a block `whole`.
pub(super) struct Leaves<'a, L, S, const WHOLE: bool> {
    pub(super) span: Span,
    /// A multiple of `size`.
    pub(super) groups: usize,
    /// At most [`Machine::RADIX`]; exactly that if not `whole`.
    pub(super) size: usize,
    pub(super) ahead: &'a mut Ahead,
    pub(super) load: &'a L,
    pub(super) store: &'a S,
}

impl<L: Load, S: Store, const WHOLE: bool> Kernel for Leaves<'_, L, S, WHOLE> {
    type Output = S::Seen;

    /// The groups of `span` are accessed by nothing else meanwhile: who makes the kernel promises it.
    #[inline(always)]
    fn run<M: Machine>(self) -> S::Seen {
        // Comparisons, not a table: a jump through one costs more than a leaf.
        if self.size >= 16 && M::RADIX == 16 {
            self.of::<M, 16>()
        } else if self.size >= 8 && WHOLE && M::RADIX == 16 {
            self.of::<M, 8>()
        } else if self.size >= 4 && (WHOLE || M::RADIX == 4) {
            self.of::<M, 4>()
        } else if self.size >= 2 && WHOLE {
            self.of::<M, 2>()
        } else {
            self.of::<M, 1>()
        }
    }
}

impl<L: Load, S: Store, const WHOLE: bool> Leaves<'_, L, S, WHOLE> {
    #[inline(always)]
    fn of<M: Machine, const R: usize>(self) -> S::Seen {
        let mut seen = self.store.start::<M>();
        for chunk in (0..self.groups).step_by(CHUNK) {
            let mut loaded = self.load.start::<M>();
            for i in 0..(self.groups - chunk).min(CHUNK) / R {
                let span = self.span.skip(chunk + i * R);
                self.ahead.step::<R>();
                let place = self.load.place::<R>(span.first);
                let mut v = [M::F::splat(0.0); R];
                unrolled!(k < R, {
                    // SAFETY: chunk + i R + k < groups, and the promise of `run`.
                    let here = unsafe { span.group(k) };
                    v[k] = self.load.load_stage1::<M>(&mut loaded, place, k, here).stage::<2>().stage::<4>();
                });
                butterflies(&mut v);
                unrolled!(k < R, {
                    let out = if WHOLE { v[k].stage::<8>() } else { v[k] };
                    // SAFETY: as above.
                    self.store.store(&mut seen, span.first + k, out, unsafe { span.group(k) });
                });
            }
            self.load.finish::<M>(loaded, self.span.first + chunk);
        }
        self.store.finish::<M>(seen)
    }
}

/// Where stage 8 goes in a pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage8 {
    /// Nowhere.
    Not,
    /// Before the butterflies: the pass at 16 groups.
    Before,
    /// After them: the last pass of a block of 16 groups or fewer.
    After,
}

/// The stages h, 2h, ... (in groups) on blocks of `radix h` groups; radix 2, 4, 8 or (before, if
/// that is [`Machine::RADIX`]) 16.
pub(super) struct Pass<'a, S> {
    pub(super) span: Span,
    /// A multiple of `radix h`.
    pub(super) groups: usize,
    pub(super) h: usize,
    pub(super) radix: usize,
    pub(super) stage8: Stage8,
    pub(super) ahead: &'a mut Ahead,
    pub(super) store: &'a S,
}

impl<S: Store> Kernel for Pass<'_, S> {
    type Output = S::Seen;

    /// The groups of `span` are accessed by nothing else meanwhile: who makes the kernel promises it.
    #[inline(always)]
    fn run<M: Machine>(self) -> S::Seen {
        const NOT: u8 = Stage8::Not as u8;
        const BEFORE: u8 = Stage8::Before as u8;
        const AFTER: u8 = Stage8::After as u8;
        // Comparisons, not a table, as in the leaves.
        let r = self.radix;
        if self.stage8 == Stage8::Before {
            if r >= 16 && M::RADIX == 16 {
                self.of::<M, 16, BEFORE>()
            } else if r >= 8 && M::RADIX == 16 {
                self.of::<M, 8, BEFORE>()
            } else if r >= 4 {
                self.of::<M, 4, BEFORE>()
            } else {
                self.of::<M, 2, BEFORE>()
            }
        } else if self.stage8 == Stage8::After && M::RADIX == 4 {
            if r >= 4 { self.of::<M, 4, AFTER>() } else { self.of::<M, 2, AFTER>() }
        } else if r >= 8 {
            self.of::<M, 8, NOT>()
        } else if r >= 4 {
            self.of::<M, 4, NOT>()
        } else {
            self.of::<M, 2, NOT>()
        }
    }
}

impl<S: Store> Pass<'_, S> {
    #[inline(always)]
    fn of<M: Machine, const R: usize, const STAGE8: u8>(self) -> S::Seen {
        let mut seen = self.store.start::<M>();
        // A constant where it can be one: sixteen addresses at a stride in a register cost too many of them.
        let h = if STAGE8 == Stage8::Before as u8 { 16 } else { self.h };
        for block in 0..self.groups / (R * h) {
            let span = self.span.skip(block * R * h);
            for i in 0..h {
                self.ahead.step::<R>();
                let mut v = [M::F::splat(0.0); R];
                for k in 0..R {
                    // SAFETY: i + k h < R h, and the promise of `run`.
                    let here = unsafe { span.group(i + k * h) };
                    let before = STAGE8 == Stage8::Before as u8;
                    v[k] = if before { M::F::load_stage::<8>(here) } else { M::F::load(here) };
                }
                butterflies(&mut v);
                unrolled!(k < R, {
                    let out = if STAGE8 == Stage8::After as u8 { v[k].stage::<8>() } else { v[k] };
                    // SAFETY: as above.
                    self.store.store(&mut seen, span.first + i + k * h, out, unsafe { span.group(i + k * h) });
                });
            }
        }
        self.store.finish::<M>(seen)
    }
}

/// `H_R` across registers: the stages 1, 2, 4, ... in this order.
#[inline(always)]
pub(super) fn butterflies<F: Floats, const R: usize>(v: &mut [F; R]) {
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
