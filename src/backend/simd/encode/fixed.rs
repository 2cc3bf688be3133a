//! The float half of `encode` on one row, as prologue and epilogue of the transform: signs (and the norm of the floats)
//! when the row is first read; scale, truncation to fixed point, clamp and exact norm when it is last written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::integer::{Meter, Seen};
use super::mixed;
use crate::backend::simd::clip::{self, Squares};
use crate::backend::simd::fwht::hooks::{CHUNK, InPlace, Load, Scaled, Store};
use crate::backend::simd::isa::Dispatch;
use crate::backend::simd::lanes::{Floats, Machine, Words};
use crate::backend::simd::samples::Sample;
use crate::backend::simd::{SEGMENT, alone, fwht, keystream};
use crate::math::prg::StreamKey;

/// The sign bits of `len` coordinates, eight a byte.
pub(in crate::backend::simd) fn sign_bytes(dispatch: Dispatch, key: &StreamKey, len: usize) -> Vec<u8> {
    // Sixteen whole groups of sixteen coordinates, so that their bits are found at once.
    let mut bytes = vec![0u8; len.div_ceil(256) * 32];
    if alone(bytes.len(), SEGMENT) {
        keystream::fill(dispatch, key, 0, &mut bytes);
    } else {
        let parts = bytes.par_chunks_mut(SEGMENT).enumerate();
        parts.for_each(|(i, part)| keystream::fill(dispatch, key, (i * SEGMENT) as u64, part));
    }
    bytes
}

/// The factor that goes with a norm.
type FactorOf<'a> = &'a (dyn Fn(f64) -> f32 + Sync);

/// What a row is multiplied by behind its transform: given, or found in the last pass from what the first one measured.
pub(super) struct Factor<'a> {
    /// The energies of chunks, as the bits of `f64`, and what follows from their norm.
    measured: Option<(Vec<AtomicU64>, FactorOf<'a>)>,
    value: OnceLock<f32>,
}

impl<'a> Factor<'a> {
    /// A given one.
    pub(super) fn known(value: f32) -> Self {
        Self { measured: None, value: value.into() }
    }

    /// `of` the norm of a row of `padded` points.
    pub(super) fn of(of: FactorOf<'a>, padded: usize) -> Self {
        let energies = (0..padded.div_ceil(clip::CHUNK)).map(|_| AtomicU64::new(0)).collect();
        Self { measured: Some((energies, of)), value: OnceLock::new() }
    }

    fn value(&self) -> f32 {
        *self.value.get_or_init(|| self.measured.as_ref().map_or(1.0, |(_, of)| of(self.norm())))
    }

    /// The norm that was measured: the square root of [`clip::energy`], bit for bit.
    pub(super) fn norm(&self) -> f64 {
        let energies = self.measured.iter().flat_map(|(energies, _)| energies);
        energies.map(|energy| f64::from_bits(energy.load(Ordering::Relaxed))).sum::<f64>().sqrt()
    }
}

/// Fixed-point coordinates of a finite row in `out`, as the bits of `i32`, clamped to `linf` if that is given; what the
/// clamp saw. The row is measured on the way if that is what the factor needs: then it is one block of at least
/// [`clip::CHUNK`] points.
pub(super) fn plain<T: Sample>(
    dispatch: Dispatch,
    row: &[T],
    block_log2: u32,
    signs: &[u8],
    factor: &Factor<'_>,
    linf: u32,
    out: &mut [u32],
) -> Seen {
    let x = bytemuck::cast_slice_mut(out);
    let store = Epilogue { linf, factor };
    match &factor.measured {
        None => fwht::fused(dispatch, x, block_log2, &Prologue::<T, false>::new(row, signs, &[]), &store),
        Some((sums, _)) => fwht::fused(dispatch, x, block_log2, &Prologue::<T, true>::new(row, signs, sums), &store),
    }
}

/// The same with the mixed clip at `bound`, without the clamp; its ratio.
pub(super) fn mixed<T: Sample>(
    dispatch: Dispatch,
    row: &[T],
    block_log2: u32,
    signs: &[u8],
    factor: f32,
    (bound, unit): (f64, f32),
    out: &mut [u32],
) -> f64 {
    let x: &mut [f32] = bytemuck::cast_slice_mut(out);
    fwht::fused(dispatch, x, block_log2, &Prologue::<T, false>::new(row, signs, &[]), &Scaled(factor));
    let ratio = mixed::clip(dispatch, x, bound);
    fwht::fused(dispatch, x, 0, &InPlace, &Truncate { unit });
    ratio
}

/// `x_j` with the sign of coordinate j flipped where its bit is set; zeros behind the row.
///
/// No branch and no call stands in the way of the registers: sixteen groups come from the row, from a copy of its end, or
/// from zeros, by address.
struct Prologue<'a, T, const MEASURE: bool> {
    /// As much of the row as is sixteen groups of sixteen.
    row: &'a [[[T; 16]; 16]],
    /// What is left of the row behind them, then zeros.
    last: [[T; 16]; 16],
    zeros: [[T; 16]; 16],
    /// Two bytes a group; none that are missing is set.
    signs: &'a [[[u8; 2]; 16]],
    /// Where the energies of chunks go.
    energies: &'a [AtomicU64],
}

impl<'a, T: Sample, const MEASURE: bool> Prologue<'a, T, MEASURE> {
    fn new(row: &'a [T], signs: &'a [u8], energies: &'a [AtomicU64]) -> Self {
        let zeros = [[T::zeroed(); 16]; 16];
        let mut last = zeros;
        let row = row.as_chunks::<16>();
        let (whole, groups) = row.0.as_chunks::<16>();
        last[..groups.len()].copy_from_slice(groups);
        // At most fifteen groups are whole.
        last[groups.len()][..row.1.len()].copy_from_slice(row.1);
        Self { row: whole, last, zeros, signs: signs.as_chunks().0.as_chunks().0, energies }
    }
}

impl<T: Sample, const MEASURE: bool> Load for Prologue<'_, T, MEASURE> {
    type Registers<M: Machine> = Squares<M>;
    type Place<'a>
        = (&'a [[T; 16]], &'a [[u8; 2]])
    where
        Self: 'a;

    #[inline(always)]
    fn start<M: Machine>(&self) -> Squares<M> {
        Squares::new()
    }

    #[inline(always)]
    fn place<const R: usize>(&self, group: usize) -> Self::Place<'_> {
        let behind = if group / 16 == self.row.len() { &self.last } else { &self.zeros };
        let x = self.row.get(group / 16).unwrap_or(behind);
        let signs = self.signs.get(group / 16).unwrap_or(&[[0; 2]; 16]);
        // R divides 16, and the group.
        let first = group % 16;
        (&x[first..][..R], &signs[first..][..R])
    }

    #[inline(always)]
    fn load<M: Machine>(
        &self,
        squares: &mut Squares<M>,
        (x, signs): (&[[T; 16]], &[[u8; 2]]),
        k: usize,
        _: &[f32; 16],
    ) -> M::F {
        if MEASURE {
            squares.add(&x[k]);
        }
        T::load::<M>(&x[k]).flip(u32::from(u16::from_le_bytes(signs[k])))
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, squares: Squares<M>, group: usize) {
        if MEASURE && let Some(energy) = self.energies.get(group / CHUNK) {
            energy.store(squares.total().to_bits(), Ordering::Relaxed);
        }
    }

    fn source(&self) -> Option<(*const u8, usize)> {
        Some((self.row.as_ptr().cast(), size_of::<[T; 16]>()))
    }
}

/// Scales, truncates toward zero, saturating, clamps, and adds to the plain norm.
///
/// The factor and the product round once each.
struct Epilogue<'a> {
    linf: u32,
    factor: &'a Factor<'a>,
}

impl Store for Epilogue<'_> {
    type Seen = Seen;
    type Registers<M: Machine> = (Meter<M>, M::F);

    #[inline(always)]
    fn start<M: Machine>(&self) -> (Meter<M>, M::F) {
        (Meter::new(), M::F::splat(self.factor.value()))
    }

    #[inline(always)]
    fn store<M: Machine>(&self, seen: &mut (Meter<M>, M::F), _: usize, v: M::F, here: &mut [f32; 16]) {
        let (meter, factor) = seen;
        meter.plain(v.mul(*factor).truncate(), self.linf).store(bytemuck::cast_mut(here));
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (meter, _): (Meter<M>, M::F)) -> Seen {
        meter.seen()
    }

    fn merge(a: Seen, b: Seen) -> Seen {
        a.merge(b)
    }
}

/// Truncates `x unit` toward zero, saturating.
struct Truncate {
    unit: f32,
}

impl Store for Truncate {
    type Seen = ();
    type Registers<M: Machine> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn store<M: Machine>(&self, (): &mut (), _: usize, v: M::F, here: &mut [f32; 16]) {
        v.mul(M::F::splat(self.unit)).truncate().store(bytemuck::cast_mut(here));
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): ()) {}

    fn merge((): (), (): ()) {}
}
