//! One-shot encryption, a block at a time in the nearest caches: keystream to a_j in the order of the transform,
//! times s, inverse transform, plus error and message. Blocks run in parallel.

use rayon::prelude::*;

use super::chacha::{State, wipe};
use super::isa::{Dispatch, Kernel};
use super::keystream;
use super::lanes::{Machine, Words};
use super::noise::{self, Draws, Law};
use super::ntt::{self, Factor, Limits};
use crate::backend::{Aligned, EncryptJob, LatticeSecret};
use crate::math::modular::Shoup;
use crate::math::ntt::{NttTables, RnsBasis};
use crate::math::prg::StreamKey;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;

/// Residues that one piece of keystream gives: 4 KiB.
const PIECE: usize = 512;

/// All blocks of a checked job.
pub(super) fn encrypt(dispatch: Dispatch, job: &EncryptJob<'_>, message: &[u32]) -> Aligned<u32> {
    let n = job.basis.degree();
    let mut out = Aligned::zeroed(message.len().div_ceil(job.block()) * job.basis.limbs().len() * n);
    let Ok(law) = CentredBinomial::new(job.params.eta) else { return out };
    let law = Law::new(&Noise::Binomial(law));
    let units = units(job);
    out.par_chunks_exact_mut(job.basis.limbs().len() * n)
        .zip(message.par_chunks(job.block()))
        .enumerate()
        .for_each_init(
            || Work::new(&law, job),
            |work, (j, (out, values))| block(dispatch, job, &units, work, j, values, out),
        );
    out
}

/// `2^(o + w z) mod p`, limb by limb and slot by slot.
fn units(job: &EncryptJob<'_>) -> Vec<Vec<Shoup>> {
    let unit = |tables: &NttTables, z: u32| {
        let (p, params) = (tables.modulus(), job.params);
        p.shoup(p.pow(2, u64::from(params.offset) + u64::from(params.width) * u64::from(z)))
    };
    job.basis.limbs().iter().map(|tables| (0..job.params.slots).map(|z| unit(tables, z)).collect()).collect()
}

/// What a thread keeps between blocks: secret, wiped on drop.
struct Work<'a> {
    draws: Draws<'a>,
    expand: State,
    /// N errors, signed.
    error: Vec<u32>,
    /// A short last block, filled with zeros.
    padded: Vec<u32>,
}

impl<'a> Work<'a> {
    fn new(law: &'a Law, job: &EncryptJob<'_>) -> Self {
        let error = vec![0; job.basis.degree()];
        Self { draws: Draws::new(law, job.error), expand: State::new(job.expand), error, padded: Vec::new() }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        wipe(&mut self.error);
        wipe(&mut self.padded);
    }
}

/// Block j: `values` are those that it carries, `out` is `[L x N]`.
fn block(
    dispatch: Dispatch,
    job: &EncryptJob<'_>,
    units: &[Vec<Shoup>],
    work: &mut Work<'_>,
    j: usize,
    values: &[u32],
    out: &mut [u32],
) {
    let (n, limbs) = (job.basis.degree(), job.basis.limbs());
    for (i, error) in work.error.as_chunks_mut::<{ noise::BLOCK }>().0.iter_mut().enumerate() {
        work.draws.block(dispatch, j * n + i * noise::BLOCK, error);
    }
    let values = if values.len() == job.block() {
        values
    } else {
        work.padded.extend_from_slice(values);
        work.padded.resize(job.block(), 0);
        &work.padded
    };
    for (l, (tables, c)) in limbs.iter().zip(out.chunks_exact_mut(n)).enumerate() {
        masked(dispatch, &work.expand, (j * limbs.len() + l) * n, job.secret, l, tables, c);
        dispatch.run(Add { c, error: &work.error, values, units: &units[l], tables });
    }
    ntt::wipe_scratch(dispatch, n);
}

/// Block j of `sum - a_j S`, with `minus` = `-S`: what [`block`] does, with the sum in the place of error and message.
pub(super) fn open(
    dispatch: Dispatch,
    (basis, expand): (&RnsBasis, &StreamKey),
    minus: &LatticeSecret,
    j: usize,
    sum: &[u32],
    out: &mut [u32],
) {
    let (n, limbs, expand) = (basis.degree(), basis.limbs(), State::new(expand));
    for (l, (tables, c)) in limbs.iter().zip(out.chunks_exact_mut(n)).enumerate() {
        masked(dispatch, &expand, (j * limbs.len() + l) * n, minus, l, tables, c);
        dispatch.run(Plus { c, sum: &sum[l * n..][..n], tables });
    }
    ntt::wipe_scratch(dispatch, n);
}

/// Limb l of `a_j s`, coefficients in `[0, 2p)`; `first` is the number of the first residue of a_j in its stream.
fn masked(
    dispatch: Dispatch,
    expand: &State,
    first: usize,
    secret: &LatticeSecret,
    l: usize,
    tables: &NttTables,
    c: &mut [u32],
) {
    let mut uniform = Piece([0; 2 * PIECE]);
    for (i, c) in c.chunks_exact_mut(PIECE).enumerate() {
        let at = i * PIECE;
        let position = 8 * (first + at) as u64;
        keystream::fill_from(dispatch, expand, position, bytemuck::cast_slice_mut(&mut uniform.0));
        let (s, quotients) = (&secret.values(l)[at..][..PIECE], &secret.quotients(l)[at..][..PIECE]);
        dispatch.run(Expand { uniform: &mut uniform.0, s, quotients, c, tables });
    }
    ntt::inverse(dispatch, c, tables, tables.last_stage());
}

/// Keystream of [`PIECE`] residues: public, so not wiped.
#[repr(C, align(64))]
struct Piece([u32; 2 * PIECE]);

/// `c <- floor(U p / 2^64) s` in `[0, 2p)`.
struct Expand<'a> {
    uniform: &'a mut [u32; 2 * PIECE],
    s: &'a [u32],
    quotients: &'a [u32],
    c: &'a mut [u32],
    tables: &'a NttTables,
}

impl Kernel for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        // No work on a little-endian machine.
        self.uniform.iter_mut().for_each(|word| *word = u32::from_le(*word));
        let limits = Limits::<M::W>::new(self.tables);
        let uniform = self.uniform.as_chunks::<32>().0;
        let (s, quotients) = (self.s.as_chunks::<16>().0, self.quotients.as_chunks::<16>().0);
        let c = self.c.as_chunks_mut::<16>().0;
        for (((c, u), s), q) in c.iter_mut().zip(uniform).zip(s).zip(quotients) {
            let (u, _) = u.as_chunks::<16>();
            let (low, high) = M::W::load(&u[0]).separate(M::W::load(&u[1]));
            // U p / 2^64 = (high p + low p / 2^32) / 2^32: the low half of the sum says whether it carries.
            let part = high.mul_lo(limits.p);
            let sum = part.add(low.mul_hi(limits.p));
            let a = high.mul_hi(limits.p).increment_where_less(sum, part);
            limits.mul(a, Factor::load(s, q)).store(c);
        }
    }
}

/// `c <- c + e + sum_z units_z values_z mod p`, fully reduced.
struct Add<'a> {
    c: &'a mut [u32],
    error: &'a [u32],
    values: &'a [u32],
    units: &'a [Shoup],
    tables: &'a NttTables,
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let limits = Limits::<M::W>::new(self.tables);
        let groups = self.c.len() / 16;
        let values = self.values.as_chunks::<16>().0;
        let error = self.error.as_chunks::<16>().0;
        for (i, (c, e)) in self.c.as_chunks_mut::<16>().0.iter_mut().zip(error).enumerate() {
            // A negative error is a large word, which p brings back above zero; the lesser of both is the residue.
            let e = M::W::load(e);
            let mut sum = M::W::load(c).add(e.min(e.add(limits.p)));
            for (unit, values) in self.units.iter().zip(values[i..].iter().step_by(groups)) {
                sum = limits.below_twice(sum.add(limits.mul(M::W::load(values), Factor::splat(*unit))));
            }
            limits.below(sum).store(c);
        }
    }
}

/// `c <- c + sum mod p`, fully reduced, for c in `[0, 2p)`.
struct Plus<'a> {
    c: &'a mut [u32],
    sum: &'a [u32],
    tables: &'a NttTables,
}

impl Kernel for Plus<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let limits = Limits::<M::W>::new(self.tables);
        for (c, sum) in self.c.as_chunks_mut::<16>().0.iter_mut().zip(self.sum.as_chunks::<16>().0) {
            limits.below(limits.below_twice(M::W::load(c).add(M::W::load(sum)))).store(c);
        }
    }
}
