//! Sum of rows in a ring, parallel over coordinates; every row is read once, the accumulator stays in L1.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, Words};
use super::residues;
use crate::backend::simd::BadRow;
use crate::backend::{BackendError, check};
use crate::math::ntt::RnsBasis;
use crate::params::Ring;

/// Coordinates of an accumulator's part: 8 KiB, so that it stays in L1 while the rows stream by.
const TILE: usize = 2048;
/// Parts that one task takes.
const TASK: usize = 8 * TILE;

/// Residues up to which polynomials are added on the caller's thread: to wake the others takes longer.
const ALONE: usize = 1 << 18;

/// Adds rows to the accumulator in `ring`; the lengths are checked.
///
/// # Errors
/// [`BackendError::NotBelowPrime`] before anything is written.
pub(super) fn sum(dispatch: Dispatch, acc: &mut [u32], rows: &[u32], ring: Ring) -> Result<(), BackendError> {
    residues::check(dispatch, "acc", acc, ring)?;
    residues::check(dispatch, "rows", rows, ring)?;
    let dim = acc.len();
    acc.par_chunks_mut(TASK).enumerate().for_each(|(task, acc)| {
        for (tile, acc) in acc.chunks_mut(TILE).enumerate() {
            let rows = &rows[(task * TASK + tile * TILE).min(rows.len())..];
            match ring {
                Ring::Bits(b) => dispatch.run(Wrapping { acc, rows, dim, mask: check::mask(b) }),
                Ring::Prime(p) => dispatch.run(Modular { acc, rows, dim, p }),
            }
        }
    });
    Ok(())
}

/// Adds polynomials `[batch x L x N]` of residues to as many, which are reduced. Each row is checked as it is added: it has
/// to be below its prime and other than zero.
///
/// # Errors
/// The first row that is not; nothing has changed then.
pub(super) fn polynomials(dispatch: Dispatch, acc: &mut [u32], x: &[u32], basis: &RnsBasis) -> Result<(), BadRow> {
    let (n, limbs) = (basis.degree(), basis.limbs());
    let prime = |row: usize| limbs[row % limbs.len()].modulus();
    let flaw = |row: usize, x: &[u32]| match residues::largest(dispatch, x) {
        0 => Some(BadRow { row, zero: true }),
        most if most >= prime(row).value() => Some(BadRow { row, zero: false }),
        _ => None,
    };
    let rows = || x.par_chunks_exact(n).enumerate();
    let add = |(acc, (row, x)): (&mut [u32], (usize, &[u32]))| {
        let flaw = flaw(row, x);
        if flaw.is_none() {
            dispatch.run(Modular { acc, rows: x, dim: n, p: prime(row).value() });
        }
        flaw
    };
    let bad = if x.len() <= ALONE {
        // All of them, not up to the first: the others come off again below.
        acc.chunks_exact_mut(n).zip(x.chunks_exact(n).enumerate()).filter_map(add).min_by_key(|bad| bad.row)
    } else {
        acc.par_chunks_exact_mut(n).zip(rows()).filter_map(add).min_by_key(|bad| bad.row)
    };
    let Some(first) = bad else { return Ok(()) };
    // Whatever else was added comes off again.
    acc.par_chunks_exact_mut(n).zip(rows()).filter(|(_, (row, x))| flaw(*row, x).is_none()).for_each(
        |(acc, (row, x))| {
            acc.iter_mut().zip(x).for_each(|(a, &x)| *a = prime(row).sub(*a, x));
        },
    );
    Err(first)
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
        let p = M::W::splat(self.p);
        for row in parts(self.rows, self.dim, self.acc.len()) {
            let (acc, acc_rest) = self.acc.as_chunks_mut::<16>();
            let (row, row_rest) = row.as_chunks::<16>();
            for (a, r) in acc.iter_mut().zip(row) {
                M::W::load(a).add(M::W::load(r)).reduce(p).store(a);
            }
            for (a, r) in acc_rest.iter_mut().zip(row_rest) {
                let sum = *a + *r;
                *a = sum.min(sum.wrapping_sub(self.p));
            }
        }
    }
}

/// From `[0, 2p)` to `[0, p)`.
trait Reduce {
    fn reduce(self, p: Self) -> Self;
}

impl<W: Words> Reduce for W {
    /// Below p the difference wraps to a larger number.
    #[inline(always)]
    fn reduce(self, p: Self) -> Self {
        self.min(self.sub(p))
    }
}
