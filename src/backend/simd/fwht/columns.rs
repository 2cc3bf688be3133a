//! The stages above a task's block, for all of them at once: columns of a matrix whose rows are the
//! transformed parts. One read and one write of memory, whatever the number of stages.
//!
//! Up to sixteen rows are combined in registers. More go through a scratch panel of 512-byte rows in the
//! second-level cache: the first pass reads from memory into it, the last writes back. Passes that touch
//! memory are of radix 8, since rows lie a power of two apart and their lines fall into one set of a cache.

use super::super::isa::Kernel;
use super::super::lanes::{Floats, Machine};
use super::hooks::{InPlace, Store};
use super::memory::{fetch_near, fetch_to_write};
use super::passes::{Span, butterflies};

/// Groups of a row in a panel.
pub(super) const WIDTH: usize = 8;
/// Groups between two rows of a panel in the scratch: one more, so that rows fall into different sets.
const PITCH: usize = WIDTH + 1;
/// The most rows that are combined without a scratch.
const DIRECT: usize = 16;
/// Groups that are asked for ahead where rows are combined without a scratch.
const AHEAD: usize = 4;

/// Groups of scratch that a block of `rows` rows needs.
pub(super) const fn scratch(rows: usize) -> usize {
    if rows <= DIRECT { 0 } else { rows * PITCH }
}

/// Some columns of a block of `rows` rows.
pub(super) struct Columns<'a, S> {
    /// The first of the columns in the first row.
    span: Span,
    /// Rows, a power of two.
    rows: usize,
    /// Groups from one row to the next.
    stride: usize,
    /// Columns, in groups, a multiple of [`WIDTH`].
    width: usize,
    /// At least [`scratch`]`(rows)` groups.
    scratch: &'a mut [[f32; 16]],
    store: &'a S,
}

impl<'a, S: Store> Columns<'a, S> {
    /// # Safety
    /// Until the kernel has run, the groups `i + k stride` of `span`, i below `width` and k below `rows`, are
    /// accessed by nothing else.
    pub(super) unsafe fn new(
        span: Span,
        rows: usize,
        stride: usize,
        width: usize,
        scratch: &'a mut [[f32; 16]],
        store: &'a S,
    ) -> Self {
        assert!(width.is_multiple_of(WIDTH) && scratch.len() >= self::scratch(rows));
        Self { span, rows, stride, width, scratch, store }
    }
}

impl<S: Store> Kernel for Columns<'_, S> {
    type Output = S::Seen;

    #[inline(always)]
    fn run<M: Machine>(self) -> S::Seen {
        let mut seen = self.store.start::<M>();
        if self.rows <= DIRECT {
            let to = Rows { span: self.span, step: self.stride };
            // SAFETY: the promise of `new`: reads and writes are the groups i + k stride.
            unsafe { combine::<M, S, NEXT>(to, to, self.rows, self.width, AHEAD, self.store, &mut seen) };
        } else {
            let mut column = 0;
            while column < self.width {
                // SAFETY: the promise of `new`, for WIDTH of the columns.
                unsafe { self.panel::<M>(column, &mut seen) };
                column += WIDTH;
            }
        }
        self.store.finish::<M>(seen)
    }
}

impl<S: Store> Columns<'_, S> {
    /// `WIDTH` columns through the scratch.
    ///
    /// # Safety
    /// As for [`Columns::new`], and `column + WIDTH <= width`.
    #[inline(always)]
    unsafe fn panel<M: Machine>(&self, column: usize, seen: &mut S::Registers<M>) {
        let (rows, stride) = (self.rows, self.stride);
        let x = self.span.skip(column);
        let panel = Span { at: self.scratch.as_ptr().cast_mut(), first: 0 };
        let mut row = 0;
        while row < rows {
            let from = Rows { span: x.skip(row * stride), step: stride };
            let to = Rows { span: panel.skip(row * PITCH), step: PITCH };
            // The next rows of this panel, or the first ones of the next panel.
            let next = if row + 8 < rows { 8 * stride } else { WIDTH.wrapping_sub(row * stride) };
            // SAFETY: rows row..row + 8 of x and of the scratch, WIDTH groups each.
            unsafe { combine::<M, InPlace, NEXT>(from, to, 8, WIDTH, next, &InPlace, &mut ()) };
            row += 8;
        }
        let mut h = 8;
        while 8 * h < rows {
            let radix = (rows / (8 * h)).min(8);
            let mut row = 0;
            while row < rows {
                for i in row..row + h {
                    let to = Rows { span: panel.skip(i * PITCH), step: h * PITCH };
                    // SAFETY: rows i + k h of the scratch, WIDTH groups each.
                    unsafe { combine::<M, InPlace, NOTHING>(to, to, radix, WIDTH, 0, &InPlace, &mut ()) };
                }
                row += radix * h;
            }
            h *= radix;
        }
        for i in 0..h {
            let from = Rows { span: panel.skip(i * PITCH), step: h * PITCH };
            let to = Rows { span: x.skip(i * stride), step: h * stride };
            // SAFETY: rows i + k h of the scratch and of x, WIDTH groups each.
            unsafe { combine::<M, S, WRITE>(from, to, rows / h, WIDTH, stride, self.store, seen) };
        }
    }
}

/// Rows `step` groups apart.
#[derive(Clone, Copy)]
struct Rows {
    span: Span,
    step: usize,
}

/// What [`combine`] asks for ahead: nothing, what it will read, what it will write.
const NOTHING: u8 = 0;
const NEXT: u8 = 1;
const WRITE: u8 = 2;

/// `H_r` over `r` rows of `from`, each `width` groups, into the rows of `to`; `ahead` groups further on memory
/// is asked for.
///
/// # Safety
/// The groups of both are the running task's alone; they are the same ones or disjoint.
#[inline(always)]
unsafe fn combine<M: Machine, S: Store, const HINT: u8>(
    from: Rows,
    to: Rows,
    r: usize,
    width: usize,
    ahead: usize,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match r {
            2 => combine_of::<M, S, HINT, 2>(from, to, width, ahead, store, seen),
            4 => combine_of::<M, S, HINT, 4>(from, to, width, ahead, store, seen),
            8 => combine_of::<M, S, HINT, 8>(from, to, width, ahead, store, seen),
            _ => combine_of::<M, S, HINT, 16>(from, to, width, ahead, store, seen),
        }
    }
}

/// [`combine`] for one radix.
///
/// # Safety
/// As for [`combine`].
#[inline(always)]
unsafe fn combine_of<M: Machine, S: Store, const HINT: u8, const R: usize>(
    from: Rows,
    to: Rows,
    width: usize,
    ahead: usize,
    store: &S,
    seen: &mut S::Registers<M>,
) {
    for i in 0..width {
        let mut v = [M::F::splat(0.0); R];
        for k in 0..R {
            let at = i + k * from.step;
            if HINT == NEXT {
                fetch_near(from.span.at.wrapping_add(at.wrapping_add(ahead)));
            }
            // SAFETY: the caller's promise.
            v[k] = M::F::load(unsafe { from.span.group(at) });
        }
        butterflies(&mut v);
        unrolled!(k < R, {
            let at = i + k * to.step;
            if HINT == WRITE {
                fetch_to_write(to.span.at.wrapping_add(at + ahead));
            }
            // SAFETY: the caller's promise.
            store.store(seen, to.span.first + at, v[k], unsafe { to.span.group(at) });
        });
    }
}
