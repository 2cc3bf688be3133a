//! Blocks that fit in a second-level cache: leaves, passes, and the order in which they run.
//!
//! The stages of a block always run in the order h = 1, 2, 4, 16, 32, 64, 128, 8, 256, 512, ...: stage 8 comes
//! late because the pass at h = 256 reads from memory and can take it there without a shuffle. (In a block of
//! at most 256 points it is the last one.) Which of them share a pass differs between instruction sets and
//! sizes and changes no bit.

use super::super::isa::Kernel;
use super::super::lanes::{Floats, Machine};
use super::hooks::{InPlace, Load, Store};

/// Groups of the largest block that stays in a first-level cache on its way through all its passes.
const NEAR: usize = (1 << 12) / 16;
/// Groups of the part of a long block that is finished before the next one is begun, 128 KiB.
const PART: usize = (1 << 15) / 16;
/// Groups of the largest block that [`Task`] takes, 1 MiB.
pub(super) const TASK: usize = (1 << 18) / 16;

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
    /// The group belongs to the running task, and no other reference to it is alive.
    #[inline(always)]
    pub(super) unsafe fn group<'a>(self, i: usize) -> &'a mut [f32; 16] {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.at.add(i) }
    }
}

/// Whole blocks, one after another.
pub(super) struct Task<'a, L, S> {
    /// The first of them.
    span: Span,
    /// Groups in all.
    groups: usize,
    /// Points a block: `2^block_log2`, at most 16 [`TASK`].
    block_log2: u32,
    /// Whether the data come from beyond the caches.
    far: bool,
    load: &'a L,
    store: &'a S,
}

impl<'a, L: Load, S: Store> Task<'a, L, S> {
    /// # Safety
    /// Until the kernel has run, the `groups` groups of `span` are accessed by nothing else. They are whole
    /// blocks, and a block is at most [`TASK`] groups.
    pub(super) unsafe fn new(span: Span, groups: usize, block_log2: u32, far: bool, load: &'a L, store: &'a S) -> Self {
        Self { span, groups, block_log2, far, load, store }
    }
}

impl<L: Load, S: Store> Kernel for Task<'_, L, S> {
    type Output = S::Seen;

    #[inline(always)]
    fn run<M: Machine>(self) -> S::Seen {
        let mut seen = self.store.start::<M>();
        // SAFETY: the promise of `new`: the groups are this task's alone, and each call takes blocks of them.
        unsafe {
            match self.block_log2 {
                0 => self.short::<M, 0>(&mut seen),
                1 => self.short::<M, 1>(&mut seen),
                2 => self.short::<M, 2>(&mut seen),
                3 => self.short::<M, 3>(&mut seen),
                _ => self.blocks::<M>(&mut seen),
            }
        }
        self.store.finish::<M>(seen)
    }
}

impl<L: Load, S: Store> Task<'_, L, S> {
    /// Blocks of fewer than 16 points.
    ///
    /// # Safety
    /// As for [`Task::new`].
    #[inline(always)]
    unsafe fn short<M: Machine, const LOG2: u32>(&self, seen: &mut S::Registers<M>) {
        for i in 0..self.groups {
            // SAFETY: i < groups, and the caller's promise.
            let here = unsafe { self.span.group(i) };
            let group = self.span.first + i;
            if self.far {
                self.load.prefetch(group + NEAR, here.as_ptr().wrapping_add(16 * NEAR));
            }
            let mut v =
                if LOG2 == 0 { self.load.load::<M>(group, here) } else { self.load.load_stage1::<M>(group, here) };
            if LOG2 > 1 {
                v = v.stage::<2>();
            }
            if LOG2 > 2 {
                v = v.stage::<4>();
            }
            self.store.store(seen, group, v, here);
        }
    }

    /// Blocks of 16 points and more.
    ///
    /// # Safety
    /// As for [`Task::new`].
    #[inline(always)]
    unsafe fn blocks<M: Machine>(&self, seen: &mut S::Registers<M>) {
        let block = 1usize << (self.block_log2 - 4);
        // What is asked for while a unit runs is the next one.
        let unit = block.clamp(NEAR, 2 * PART);
        let mut ahead = Ahead { load: self.load, span: self.span, next: 0, end: 0, share: share(block) };
        let mut at = 0;
        while at < self.groups {
            if self.far && at % unit == 0 {
                (ahead.next, ahead.end) = (at + unit, at + 2 * unit);
            }
            // SAFETY: the groups at..at + block are a block of this task.
            unsafe {
                if block <= 2 * PART {
                    near::<M, L, S>(self.span.skip(at), block, &mut ahead, self.store, seen);
                } else {
                    let mut part = at;
                    while part < at + block {
                        if self.far {
                            (ahead.next, ahead.end) = (part + PART, part + 2 * PART);
                        }
                        near::<M, L, InPlace>(self.span.skip(part), PART, &mut ahead, &InPlace, &mut ());
                        part += PART;
                    }
                    pass::<M, L, S>(self.span.skip(at), block, PART, &mut ahead, self.store, seen);
                }
            }
            at += block;
        }
    }
}

/// Groups to ask for while sixteen are worked on, so that the passes over a block of `groups` ask for the next.
const fn share(groups: usize) -> usize {
    match groups {
        0..=16 => 16,
        17..=NEAR => 8,
        _ => 6,
    }
}

/// The prefetch of what comes next, spread over the passes: memory works while the ports do.
struct Ahead<'a, L> {
    load: &'a L,
    span: Span,
    next: usize,
    end: usize,
    share: usize,
}

impl<L: Load> Ahead<'_, L> {
    /// To be called once for every `R` groups worked on.
    #[inline(always)]
    fn step<const R: usize>(&mut self) {
        if self.next < self.end {
            for _ in 0..(self.share * R).div_ceil(16) {
                let span = self.span.skip(self.next);
                self.load.prefetch(span.first, span.at.cast());
                self.next += 1;
            }
        }
    }
}

/// A block of at most `2 PART` groups.
///
/// # Safety
/// The groups of `span` are the running task's alone.
#[inline(always)]
unsafe fn near<M: Machine, L: Load, S: Store>(
    span: Span,
    groups: usize,
    ahead: &mut Ahead<'_, L>,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    // SAFETY: the caller's promise; the parts are disjoint.
    unsafe {
        if groups <= 2 * NEAR {
            nearest::<M, L, S>(span, groups, ahead, store, seen);
            return;
        }
        // 2^14 = 4 x 2^12, 2^15 = 8 x 2^12, 2^16 = 8 x 2^13: a pass of radix 16 here would read sixteen lines that
        // fall into one set of the first-level cache.
        let part = if groups == 2 * PART { 2 * NEAR } else { NEAR };
        let mut at = 0;
        while at < groups {
            nearest::<M, L, InPlace>(span.skip(at), part, ahead, &InPlace, &mut ());
            at += part;
        }
        pass::<M, L, S>(span, groups, part, ahead, store, seen);
    }
}

/// A block of at most `2 NEAR` groups: leaves, then passes within the first-level cache.
///
/// # Safety
/// The groups of `span` are the running task's alone.
#[inline(always)]
unsafe fn nearest<M: Machine, L: Load, S: Store>(
    span: Span,
    groups: usize,
    ahead: &mut Ahead<'_, L>,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if groups <= M::RADIX {
            match groups {
                1 => leaf::<M, L, S, 1, true>(span, ahead, store, seen),
                2 => leaf::<M, L, S, 2, true>(span, ahead, store, seen),
                4 => leaf::<M, L, S, 4, true>(span, ahead, store, seen),
                8 => leaf::<M, L, S, 8, true>(span, ahead, store, seen),
                _ => leaf::<M, L, S, 16, true>(span, ahead, store, seen),
            }
            return;
        }
        let mut at = 0;
        while at < groups {
            if M::RADIX == 16 {
                leaf::<M, L, InPlace, 16, false>(span.skip(at), ahead, &InPlace, &mut ());
            } else {
                leaf::<M, L, InPlace, 4, false>(span.skip(at), ahead, &InPlace, &mut ());
            }
            at += M::RADIX;
        }
        let mut h = M::RADIX;
        while h < groups {
            // No pass reaches across h = 16 groups, where stage 8 belongs; 32 is 8 x 4.
            let left = if h < 16 { groups.min(16) / h } else { groups / h };
            let radix = if left == 32 { 8 } else { left }.min(M::RADIX);
            if h * radix == groups {
                pass_of::<M, L, S>(span, groups, h, radix, ahead, store, seen);
            } else {
                pass_of::<M, L, InPlace>(span, groups, h, radix, ahead, &InPlace, &mut ());
            }
            h *= radix;
        }
    }
}

/// `16 R` contiguous points in registers: stages 1, 2, 4 on the lanes, 16, 32, ... across registers, and 8 at
/// last if that makes the block `WHOLE`.
///
/// # Safety
/// The `R` groups of `span` are the running task's alone.
#[inline(always)]
unsafe fn leaf<M: Machine, L: Load, S: Store, const R: usize, const WHOLE: bool>(
    span: Span,
    ahead: &mut Ahead<'_, L>,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    ahead.step::<R>();
    let mut v = [M::F::splat(0.0); R];
    for k in 0..R {
        // SAFETY: k < R and the caller's promise.
        let here = unsafe { span.group(k) };
        v[k] = ahead.load.load_stage1::<M>(span.first + k, here).stage::<2>().stage::<4>();
    }
    butterflies(&mut v);
    for k in 0..R {
        let out = if WHOLE { v[k].stage::<8>() } else { v[k] };
        // SAFETY: as above.
        store.store(seen, span.first + k, out, unsafe { span.group(k) });
    }
}

/// The last pass of a block that is `radix` times `h` groups, radix 4 or 8.
///
/// # Safety
/// The groups of `span` are the running task's alone.
#[inline(always)]
unsafe fn pass<M: Machine, L: Load, S: Store>(
    span: Span,
    groups: usize,
    h: usize,
    ahead: &mut Ahead<'_, L>,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if groups / h == 4 {
            radix::<M, L, S, 4, PLAIN>(span, groups, h, ahead, store, seen);
        } else {
            radix::<M, L, S, 8, PLAIN>(span, groups, h, ahead, store, seen);
        }
    }
}

/// Where stage 8 goes in a pass: nowhere, before the butterflies, after them.
const PLAIN: u8 = 0;
const BEFORE: u8 = 1;
const AFTER: u8 = 2;

/// A pass in the first-level cache, of radix 2, 4, 8 or 16.
///
/// # Safety
/// The groups of `span` are the running task's alone.
#[inline(always)]
unsafe fn pass_of<M: Machine, L: Load, S: Store>(
    span: Span,
    groups: usize,
    h: usize,
    r: usize,
    ahead: &mut Ahead<'_, L>,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    let whole = h * r == groups && groups <= 16;
    // SAFETY: the caller's promise.
    unsafe {
        match (h, r) {
            (16, 2) => radix::<M, L, S, 2, BEFORE>(span, groups, h, ahead, store, seen),
            (16, 4) => radix::<M, L, S, 4, BEFORE>(span, groups, h, ahead, store, seen),
            (16, 8) if M::RADIX == 16 => radix::<M, L, S, 8, BEFORE>(span, groups, h, ahead, store, seen),
            (16, 16) if M::RADIX == 16 => radix::<M, L, S, 16, BEFORE>(span, groups, h, ahead, store, seen),
            (_, 2) if whole => radix::<M, L, S, 2, AFTER>(span, groups, h, ahead, store, seen),
            (_, 4) if whole => radix::<M, L, S, 4, AFTER>(span, groups, h, ahead, store, seen),
            (_, 2) => radix::<M, L, S, 2, PLAIN>(span, groups, h, ahead, store, seen),
            (_, 4) => radix::<M, L, S, 4, PLAIN>(span, groups, h, ahead, store, seen),
            _ => unreachable!("radix {r} at {h} of {groups} groups"),
        }
    }
}

/// The log2(R) stages h, 2h, ... (in groups) on blocks of `R h` groups.
///
/// # Safety
/// The `groups` groups of `span` are the running task's alone, and `R h` divides their number.
#[inline(always)]
unsafe fn radix<M: Machine, L: Load, S: Store, const R: usize, const STAGE8: u8>(
    span: Span,
    groups: usize,
    h: usize,
    ahead: &mut Ahead<'_, L>,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    let mut block = 0;
    while block < groups {
        for i in block..block + h {
            ahead.step::<R>();
            let mut v = [M::F::splat(0.0); R];
            for k in 0..R {
                // SAFETY: i + k h < block + R h <= groups, and the caller's promise.
                let here = unsafe { span.group(i + k * h) };
                v[k] = if STAGE8 == BEFORE { M::F::load_stage::<8>(here) } else { M::F::load(here) };
            }
            butterflies(&mut v);
            for k in 0..R {
                let out = if STAGE8 == AFTER { v[k].stage::<8>() } else { v[k] };
                // SAFETY: as above.
                store.store(seen, span.first + i + k * h, out, unsafe { span.group(i + k * h) });
            }
        }
        block += R * h;
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
