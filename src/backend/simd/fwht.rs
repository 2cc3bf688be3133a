//! Walsh-Hadamard transform of blocks, alone or fused with what a stage does before and after it.
//!
//! Blocks of up to 2^18 points are transformed by one task that keeps to its caches: 256 points in registers,
//! 2^12 in the first level, 2^15 and 2^18 in the second ([`passes`]). A longer block takes two passes over
//! memory: its parts, then all stages above them by columns ([`columns`]). The stages run in one order (see
//! [`passes`]), and every addition is the same one everywhere: instruction set, number of threads and the cut
//! into tasks do not change a bit.
//!
//! [`fused`] takes a prologue and an epilogue ([`hooks`]) that run inside the first and the last pass.

/// `$body` once for every `$k` below the constant `$r`, at most 16, written out: with a hook inside, the compiler leaves
/// such a loop a loop, and then the registers that it indexes travel through memory.
macro_rules! unrolled {
    ($k:ident < $r:ident, $body:block) => {
        unrolled!(@each $k $r $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@each $k:ident $r:ident $body:block $($i:literal)*) => {
        $(if $i < $r {
            let $k: usize = $i;
            $body
        })*
    };
}

mod columns;
pub(super) mod hooks;
pub(super) mod memory;
mod passes;
mod plan;

use rayon::prelude::*;

use self::columns::{Columns, WIDTH, scratch};
use self::hooks::{InPlace, Load, Scaled, Store};
use self::passes::{Radix, Span};
use self::plan::{TASK, Task};
use super::FAR;
use super::isa::Dispatch;

/// Points below which a call stays on its thread: about ten microseconds of work.
const ALONE: usize = 1 << 16;
/// Points of the smallest task.
const LEAST: usize = 1 << 14;
/// Points of the most a column task takes.
const COLUMN_TASK: usize = 1 << 18;

/// Transforms every block of `2^block_log2` of `x` in place and multiplies by `scale` (which is applied to
/// the inputs, so that a sum of large numbers does not overflow).
pub(super) fn blocks(dispatch: Dispatch, x: &mut [f32], block_log2: u32, scale: f32) {
    if scale == 1.0 {
        fused(dispatch, x, block_log2, &InPlace, &InPlace);
    } else {
        fused(dispatch, x, block_log2, &Scaled(scale), &InPlace);
    }
}

/// `store(H load())` on every block of `2^block_log2` (at most 27) of `x`; the length is a multiple of it.
/// With `block_log2 == 0` nothing is transformed: each group is loaded and stored.
///
/// Returns what the stores have seen. Small calls run on the caller's thread, larger ones on rayon's.
pub(super) fn fused<L: Load, S: Store>(
    dispatch: Dispatch,
    x: &mut [f32],
    block_log2: u32,
    load: &L,
    store: &S,
) -> S::Seen {
    // A mask and no division: a call on 256 points takes as long as four of them.
    assert!(x.len() & ((1 << block_log2) - 1) == 0, "{} points in blocks of 2^{block_log2}", x.len());
    let threads = if x.len() < ALONE { 1 } else { rayon::current_num_threads() };
    let far = x.len() > FAR;
    let (groups, rest) = x.as_chunks_mut::<16>();
    let span = Span { at: groups.as_mut_ptr(), first: 0 };
    let task = Task { dispatch, leaf: dispatch.run(Radix), far, load, store };
    let job = Job { task, threads };
    let task = job.task_groups(groups.len());
    let mut seen = if block_log2 < 4 || 1 << (block_log2 - 4) <= task {
        // SAFETY: `groups` is borrowed exclusively; a task takes whole blocks, since both are powers of two.
        unsafe { job.tasks(span, groups.len(), task, block_log2) }
    } else {
        let block = 1 << (block_log2 - 4);
        let mut seen = S::Seen::default();
        for at in (0..groups.len()).step_by(block) {
            // SAFETY: `groups` is borrowed exclusively; these are one block of it.
            seen = S::merge(seen, unsafe { job.long(span.skip(at), block, task) });
        }
        seen
    };
    if !rest.is_empty() {
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let span = Span { at: &raw mut last, first: groups.len() };
        // SAFETY: one group, borrowed exclusively; the blocks are short ones.
        seen = S::merge(seen, unsafe { job.task.run(span, 1, block_log2) });
        rest.copy_from_slice(&last[..rest.len()]);
    }
    seen
}

/// How the tasks of one call run.
struct Job<'a, L, S> {
    task: Task<'a, L, S>,
    threads: usize,
}

impl<L: Load, S: Store> Job<'_, L, S> {
    /// Groups of a task, a power of two: the largest one, or less if there are more threads to feed.
    fn task_groups(&self, groups: usize) -> usize {
        let mut task = TASK;
        while self.threads > 1 && task > LEAST / 16 && groups / task < 2 * self.threads {
            task /= 2;
        }
        task
    }

    /// Whole blocks of at most a task.
    ///
    /// # Safety
    /// The groups of `span` are accessed by nothing else meanwhile; they are whole blocks, as is a task.
    unsafe fn tasks(&self, span: Span, groups: usize, task: usize, block_log2: u32) -> S::Seen {
        if groups <= task {
            // SAFETY: the caller's promise.
            return unsafe { self.task.run(span, groups, block_log2) };
        }
        self.each(groups.div_ceil(task), |i| {
            let at = i * task;
            // SAFETY: the caller's promise; tasks are disjoint.
            unsafe { self.task.run(span.skip(at), task.min(groups - at), block_log2) }
        })
    }

    /// One block longer than a task: its parts, then the columns.
    ///
    /// # Safety
    /// The groups of `span` are accessed by nothing else meanwhile.
    unsafe fn long(&self, span: Span, block: usize, task: usize) -> S::Seen {
        let Task { dispatch, leaf, far, load, store } = self.task;
        let first = Job { task: Task { dispatch, leaf, far, load, store: &InPlace }, threads: self.threads };
        // SAFETY: the caller's promise; each task is one part.
        unsafe { first.tasks(span, block, task, task.trailing_zeros() + 4) };
        let rows = block / task;
        let width = (COLUMN_TASK / 16 / rows).min(task / (2 * self.threads).next_power_of_two()).max(WIDTH);
        self.each(task / width, |i| {
            let mut panel = vec![[0f32; 16]; scratch(rows)];
            // SAFETY: the caller's promise; column tasks are disjoint.
            dispatch.run(unsafe { Columns::new(span.skip(i * width), rows, task, width, &mut panel, store) })
        })
    }

    /// `run(0)`, `run(1)`, ..., on all threads.
    fn each(&self, count: usize, run: impl Fn(usize) -> S::Seen + Sync + Send) -> S::Seen {
        if self.threads == 1 || count <= 1 {
            return (0..count).map(run).fold(S::Seen::default(), S::merge);
        }
        (0..count).into_par_iter().map(run).reduce(S::Seen::default, S::merge)
    }
}
