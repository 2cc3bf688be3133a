//! Products in `Z_p[X]/(X^N + 1)`: two transforms, Montgomery products entry by entry, one inverse.

use rayon::prelude::*;

use super::isa::{Dispatch, Kernel};
use super::lanes::{Machine, Words};
use super::ntt::{self, Factor, Limits};
use crate::backend::Aligned;
use crate::math::ntt::{NttTables, RnsBasis};

/// `a <- a b` on every row of N residues; row i is modulo prime `i mod L`, and b has as many rows as a, or L.
pub(super) fn polymul(dispatch: Dispatch, a: &mut [u32], b: &[u32], basis: &RnsBasis) {
    let n = basis.degree();
    if a.len() == n {
        let mut scratch = Aligned::zeroed(n);
        return product(dispatch, a, b, &mut scratch, &basis.limbs()[0]);
    }
    let (limbs, rows) = (basis.limbs(), b.len() / n);
    a.par_chunks_exact_mut(n).enumerate().for_each_init(
        || Aligned::zeroed(n),
        |scratch, (i, a)| {
            let b = &b[i % rows * n..][..n];
            product(dispatch, a, b, scratch, &limbs[i % limbs.len()]);
        },
    );
}

/// Zeros that the compiler keeps, at the speed of a fill.
pub(super) fn wipe(x: &mut [u32]) {
    x.fill(0);
    zeroize::optimization_barrier(x);
}

/// `a <- a b` entry by entry, rows as in [`polymul`].
pub(super) fn pointwise(dispatch: Dispatch, a: &mut [u32], b: &[u32], basis: &RnsBasis) {
    let n = basis.degree();
    let (limbs, rows) = (basis.limbs(), b.len() / n);
    a.par_chunks_exact_mut(n).enumerate().for_each(|(i, a)| {
        dispatch.run(Pointwise { a, b: &b[i % rows * n..][..n], tables: &limbs[i % limbs.len()] });
    });
}

/// What a Montgomery product needs in every lane.
#[derive(Clone, Copy)]
pub(super) struct Montgomery<W> {
    limits: Limits<W>,
    word_inverse: W,
}

impl<W: Words> Montgomery<W> {
    /// Of the prime of `tables`.
    #[inline(always)]
    pub(super) fn new(tables: &NttTables) -> Self {
        Self { limits: Limits::new(tables), word_inverse: W::splat(tables.word_inverse()) }
    }

    /// `a b 2^-32 mod p` in `(0, 2p)` for `a b < 2^32 p`: with `q = a b / p mod 2^32` the low halves of `a b` and
    /// `q p` are the same, and the high halves are below p (Montgomery, Math. Comp. 44, 1985).
    #[inline(always)]
    pub(super) fn mul(self, a: W, b: W) -> W {
        let q = a.mul_lo(b).mul_lo(self.word_inverse);
        a.mul_hi(b).add(self.limits.p).sub(q.mul_hi(self.limits.p))
    }
}

/// One product: three transforms and what is between them.
fn product(dispatch: Dispatch, a: &mut [u32], b: &[u32], scratch: &mut [u32], tables: &NttTables) {
    scratch.copy_from_slice(b);
    ntt::forward(dispatch, scratch, tables);
    ntt::forward(dispatch, a, tables);
    dispatch.run(Lazy { a, b: scratch, tables });
    ntt::inverse(dispatch, a, tables, tables.last_stage_montgomery());
    wipe(scratch);
    ntt::wipe_scratch(dispatch);
}

/// One row, entry by entry, times `2^-32` and below 2p.
struct Lazy<'a> {
    a: &'a mut [u32],
    b: &'a [u32],
    tables: &'a NttTables,
}

impl Kernel for Lazy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let montgomery = Montgomery::<M::W>::new(self.tables);
        let (x, _) = self.a.as_chunks_mut::<16>();
        let (y, _) = self.b.as_chunks::<16>();
        for (x, y) in x.iter_mut().zip(y) {
            montgomery.mul(M::W::load(x), M::W::load(y)).store(x);
        }
    }
}

/// One row, entry by entry.
struct Pointwise<'a> {
    a: &'a mut [u32],
    b: &'a [u32],
    tables: &'a NttTables,
}

impl Kernel for Pointwise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (limits, montgomery) = (Limits::new(self.tables), Montgomery::<M::W>::new(self.tables));
        let modulus = self.tables.modulus();
        // The product carries 2^-32; this factor takes it back.
        let back = Factor::splat(modulus.shoup(modulus.reduce(1 << 32)));
        let (x, _) = self.a.as_chunks_mut::<16>();
        let (y, _) = self.b.as_chunks::<16>();
        for (x, y) in x.iter_mut().zip(y) {
            limits.below(limits.mul(montgomery.mul(M::W::load(x), M::W::load(y)), back)).store(x);
        }
    }
}
