//! Wrapping sum of rows, parallel over coordinates.

use rayon::prelude::*;

use super::SEGMENT;
use super::isa::{Dispatch, Kernel};
use super::lanes::Lanes;

/// Adds checked rows to the accumulator mod `mask + 1`.
pub(super) fn sum(dispatch: Dispatch, acc: &mut [u32], rows: &[u32], mask: u32) {
    let dim = acc.len();
    acc.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, acc)| {
        dispatch.run(Sum { acc, rows: &rows[(i * SEGMENT).min(rows.len())..], dim, mask });
    });
}

/// `rows` starts at the first coordinate of `acc`; a row is `dim` long.
struct Sum<'a> {
    acc: &'a mut [u32],
    rows: &'a [u32],
    dim: usize,
    mask: u32,
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        for row in self.rows.chunks(self.dim) {
            // The last chunk is a row cut at the end of the buffer: long enough for these coordinates,
            // or the tail before the first coordinate of `acc` in a row that does not exist.
            if let Some(row) = row.get(..self.acc.len()) {
                for (a, r) in self.acc.iter_mut().zip(row) {
                    *a = a.wrapping_add(*r);
                }
            }
        }
        for a in self.acc {
            *a &= self.mask;
        }
    }
}
