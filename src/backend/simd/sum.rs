//! Sum of rows in a ring, parallel over coordinates.

use rayon::prelude::*;

use super::SEGMENT;
use super::isa::{Dispatch, Kernel};
use super::lanes::Machine;
use crate::backend::check;
use crate::params::Ring;

/// Adds checked rows to the accumulator in `ring`.
pub(super) fn sum(dispatch: Dispatch, acc: &mut [u32], rows: &[u32], ring: Ring) {
    let dim = acc.len();
    acc.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, acc)| {
        let rows = &rows[(i * SEGMENT).min(rows.len())..];
        match ring {
            Ring::Bits(b) => dispatch.run(Wrapping { acc, rows, dim, mask: check::mask(b) }),
            Ring::Prime(p) => dispatch.run(Modular { acc, rows, dim, p }),
        }
    });
}

/// The part of every row that belongs to `len` coordinates; `rows` starts at the first of them in the first
/// row. The last chunk is a row cut at the end of the buffer: long enough, or the tail before the first
/// coordinate in a row that does not exist.
#[inline(always)]
fn parts(rows: &[u32], dim: usize, len: usize) -> impl Iterator<Item = &[u32]> {
    rows.chunks(dim).filter_map(move |row| row.get(..len))
}

struct Wrapping<'a> {
    acc: &'a mut [u32],
    rows: &'a [u32],
    dim: usize,
    mask: u32,
}

impl Kernel for Wrapping<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for row in parts(self.rows, self.dim, self.acc.len()) {
            for (a, r) in self.acc.iter_mut().zip(row) {
                *a = a.wrapping_add(*r);
            }
        }
        for a in self.acc {
            *a &= self.mask;
        }
    }
}

struct Modular<'a> {
    acc: &'a mut [u32],
    rows: &'a [u32],
    dim: usize,
    p: u32,
}

impl Kernel for Modular<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        for row in parts(self.rows, self.dim, self.acc.len()) {
            for (a, r) in self.acc.iter_mut().zip(row) {
                let sum = *a + *r;
                // Below p the difference wraps to a larger number.
                *a = sum.min(sum.wrapping_sub(self.p));
            }
        }
    }
}
