//! Which passes a block of up to 2^18 points takes, so that it stays in the caches of one core.

use super::super::isa::Dispatch;
use super::hooks::{CHUNK, InPlace, Load, Store};
use super::passes::{Ahead, Leaves, Pass, Short, Span, Stage8};

/// Groups of the largest block that stays in a first-level cache on its way through all its passes, 16 KiB.
const NEAR: usize = CHUNK;
/// Groups of the part of a long block that is finished before the next one is begun, 128 KiB.
const PART: usize = (1 << 15) / 16;
/// Groups of the largest block that [`Task`] takes, 1 MiB.
pub(super) const TASK: usize = (1 << 18) / 16;

/// Whole blocks, one after another, on one thread.
pub(super) struct Task<'a, L, S> {
    pub(super) dispatch: Dispatch,
    /// Groups of a leaf, `Machine::RADIX` of the instruction set.
    pub(super) leaf: usize,
    /// Whether the data come from beyond the caches.
    pub(super) far: bool,
    pub(super) load: &'a L,
    pub(super) store: &'a S,
}

impl<L: Load, S: Store> Task<'_, L, S> {
    /// Transforms `groups` groups in blocks of `2^block_log2`.
    ///
    /// # Safety
    /// The groups of `span` are accessed by nothing else meanwhile. They are whole blocks (or, of short ones,
    /// whole groups), and a block is at most [`TASK`] groups.
    pub(super) unsafe fn run(&self, span: Span, groups: usize, block_log2: u32) -> S::Seen {
        let Self { dispatch, load, store, .. } = *self;
        if block_log2 < 4 {
            let ahead = &mut self.ahead(span.skip(NEAR), groups, 1);
            return dispatch.run(Short { span, groups, log2: block_log2, ahead, load, store });
        }
        let block = 1usize << (block_log2 - 4);
        if block <= self.leaf {
            let ahead = &mut self.ahead(span.skip(NEAR), groups, block);
            return dispatch.run(Leaves::<L, S, true> { span, groups, size: block, ahead, load, store });
        }
        // What is asked for while a unit runs is the next one.
        let unit = block.max(NEAR);
        let mut seen = S::Seen::default();
        let mut at = 0;
        while at < groups {
            let (here, count) = (span.skip(at), unit.min(groups - at));
            let one = if block <= 2 * PART {
                let ahead = &mut self.ahead(here.skip(unit), unit, block);
                self.near(here, count, block, ahead, store)
            } else {
                for part in (0..block).step_by(PART) {
                    let part = here.skip(part);
                    self.near(part, PART, PART, &mut self.ahead(part.skip(PART), PART, PART), &InPlace);
                }
                let ahead = &mut Ahead { ..Ahead::NOTHING };
                self.pass(here, block, (PART, block / PART), block, ahead, store)
            };
            seen = S::merge(seen, one);
            at += unit;
        }
        seen
    }

    /// The prefetch of `groups` groups at `span` while as many are transformed in blocks of `block` groups.
    fn ahead(&self, span: Span, groups: usize, block: usize) -> Ahead {
        if !self.far {
            return Ahead::NOTHING;
        }
        let (source, pitch) = match self.load.source() {
            Some((x, pitch)) => (x.wrapping_add(span.first * pitch), pitch),
            None => (std::ptr::null(), 0),
        };
        // One pass, two, or three and more share the work.
        let share = match block {
            0..=16 => 16,
            17..=NEAR => 8,
            _ => 4,
        };
        Ahead { x: span.at, source, pitch, left: groups, share }
    }

    /// Blocks of more than a leaf and at most `2 PART` groups: `groups` of them in all.
    fn near<T: Store>(&self, span: Span, groups: usize, block: usize, ahead: &mut Ahead, store: &T) -> T::Seen {
        if block <= 2 * NEAR {
            return self.nearest(span, groups, block, ahead, store);
        }
        // 2^14 = 4 x 2^12, 2^15 = 8 x 2^12, 2^16 = 8 x 2^13: a pass of radix 16 here would read sixteen lines that
        // fall into one set of the first-level cache.
        let part = if block == 2 * PART { 2 * NEAR } else { NEAR };
        for at in (0..block).step_by(part) {
            self.nearest(span.skip(at), part, part, ahead, &InPlace);
        }
        self.pass(span, block, (part, block / part), block, ahead, store)
    }

    /// Blocks of more than a leaf and at most `2 NEAR` groups, which stay in the first-level cache.
    fn nearest<T: Store>(&self, span: Span, groups: usize, block: usize, ahead: &mut Ahead, store: &T) -> T::Seen {
        let (load, leaf) = (self.load, self.leaf);
        let leaves: Leaves<L, InPlace, false> = Leaves { span, groups, size: leaf, ahead, load, store: &InPlace };
        self.dispatch.run(leaves);
        let mut h = leaf;
        loop {
            // No pass reaches across h = 16 groups, where stage 8 belongs; 32 is 8 x 4.
            let left = if h < 16 { block.min(16) / h } else { block / h };
            let radix = if left == 32 { 8 } else { left }.min(leaf);
            if h * radix == block {
                return self.pass(span, groups, (h, radix), block, ahead, store);
            }
            self.pass(span, groups, (h, radix), block, ahead, &InPlace);
            h *= radix;
        }
    }

    /// The pass of `radix` parts of `h` groups, over `groups` groups in blocks of `block`.
    fn pass<T: Store>(
        &self,
        span: Span,
        groups: usize,
        (h, radix): (usize, usize),
        block: usize,
        ahead: &mut Ahead,
        store: &T,
    ) -> T::Seen {
        let stage8 = match h {
            16 => Stage8::Before,
            _ if h * radix == block && block <= 16 => Stage8::After,
            _ => Stage8::Not,
        };
        self.dispatch.run(Pass { span, groups, h, radix, stage8, ahead, store })
    }
}
