//! The integer half of `encode` on one row: clamp and exact norm in one pass, then shrink, rounding, noise and
//! wrap in another, a chunk at a time. What a coordinate meets does not depend on its value: no branch, no
//! address and no count of steps does.
//!
//! Where the norm is that of the rounded integers there are three passes instead of two: the rounding has one of its own,
//! which measures ([`Round`]), and the last one keeps what it finds. Every row goes through all of them, so that the time
//! does not tell whether a row was above its bound.

use rayon::prelude::*;

use crate::backend::shrink::{SHRINK_BITS, shrink};
use crate::backend::simd::chacha::{State, wipe};
use crate::backend::simd::fwht::memory::fetch;
use crate::backend::simd::isa::{Dispatch, Kernel};
use crate::backend::simd::lanes::{Machine, Words};
use crate::backend::simd::noise::{BLOCK, Draws, Law};
use crate::backend::simd::{FAR, SEGMENT, alone, keystream, pack};
use crate::backend::{EncodeReport, RowKeys, check};
use crate::params::{EncodeParams, ROUNDING_STRIDE, norm_kind, rounding_kind};

/// The exact norm of the coordinates seen so far, and how many of them were clamped.
pub(super) struct Meter<M: Machine> {
    low: <M::W as Words>::Sums,
    high: <M::W as Words>::Sums,
    hits: M::W,
}

/// What a meter has seen: `norm` in the unit of the norm's kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) norm: u128,
    pub(super) hits: u64,
}

impl Seen {
    pub(super) fn merge(self, other: Self) -> Self {
        Self { norm: self.norm + other.norm, hits: self.hits + other.hits }
    }
}

impl<M: Machine> Meter<M> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { low: M::W::no_sums(), high: M::W::no_sums(), hits: M::W::splat(0) }
    }

    /// Clamps sixteen coordinates and adds their squares to the norm.
    #[inline(always)]
    pub(super) fn plain(&mut self, v: M::W, linf: u32) -> M::W {
        let mut clamped = v;
        // From 2^31 on the bound is none.
        if linf <= i32::MAX as u32 {
            clamped = v.clamp_signed(M::W::splat(linf.wrapping_neg()), M::W::splat(linf));
            self.hits = self.hits.increment_where_unequal(clamped, v);
        }
        clamped.add_squares(&mut self.low, &mut self.high);
        clamped
    }

    /// The same for the mixed norm: `f^2 2^F + (2f + 1) r` with `a = f 2^F + r`.
    #[inline(always)]
    fn mixed(&mut self, v: M::W, linf: u32, shift: u32) -> M::W {
        let a = self.clamp(v, linf);
        let f = a.shr(shift);
        let rest = a.and(M::W::splat((1 << shift) - 1));
        f.add_products(a.sub(rest), &mut self.low, &mut self.high);
        f.add(f).add(M::W::splat(1)).add_products(rest, &mut self.low, &mut self.high);
        a.negate_where_negative(v)
    }

    /// The magnitudes, clamped.
    #[inline(always)]
    fn clamp(&mut self, v: M::W, linf: u32) -> M::W {
        let linf = M::W::splat(linf);
        let magnitude = v.abs();
        self.hits = self.hits.increment_where_less(linf, magnitude);
        magnitude.min(linf)
    }

    /// At most 2^31 products were added, so that the sum of their lower halves fits in 64 bits: it is what
    /// the sum mod 2^64 says when the upper halves are taken away.
    #[inline(always)]
    pub(super) fn seen(self) -> Seen {
        let (total, high) = (M::W::total(self.low), M::W::total(self.high));
        let low = total.wrapping_sub(high << 32);
        let mut hits = [0; 16];
        self.hits.store(&mut hits);
        Seen { norm: (u128::from(high) << 32) + u128::from(low), hits: hits.iter().map(|&h| u64::from(h)).sum() }
    }
}

/// The integer half in place on one row of fixed-point coordinates.
pub(super) fn row(
    dispatch: Dispatch,
    row: &mut [u32],
    p: &EncodeParams,
    keys: &RowKeys,
    noise: Option<&Law>,
) -> EncodeReport {
    let seen = bound(dispatch, row, p);
    finish(dispatch, row, seen, p, keys, noise, Sink::InPlace);
    EncodeReport { linf_hits: seen.hits, ..EncodeReport::default() }
}

/// Clamps fixed-point coordinates in place, and measures their norm.
pub(super) fn bound(dispatch: Dispatch, row: &mut [u32], p: &EncodeParams) -> Seen {
    if alone(row.len(), SEGMENT) {
        return dispatch.run(Bound { x: row, p });
    }
    row.par_chunks_mut(SEGMENT).map(|x| dispatch.run(Bound { x, p })).reduce(Seen::default, Seen::merge)
}

/// Where the words go.
pub(super) enum Sink<'a> {
    /// To the place of their coordinates.
    InPlace,
    /// Packed, to these bytes.
    Packed(&'a mut [u8]),
}

/// The passes behind the first: `x` is clamped, `seen` is its norm. The coordinates' places are scratch.
pub(super) fn finish(
    dispatch: Dispatch,
    x: &mut [u32],
    seen: Seen,
    p: &EncodeParams,
    keys: &RowKeys,
    noise: Option<&Law>,
    sink: Sink<'_>,
) {
    let kept = EncodeParams { rounding: rounding_kind::KEEP, ..*p };
    let (seen, p) = match p.norm {
        norm_kind::ROUNDED => (round(dispatch, x, p, keys), &kept),
        _ => (seen, p),
    };
    let num = shrink(seen.norm, p);
    let (far, alone) = (x.len() > FAR, alone(x.len(), SEGMENT));
    let task = |i: usize, x: &mut [u32], packed: Option<&mut [u8]>| {
        dispatch.run(Finish { x, packed, first: i * SEGMENT, num, p, keys, noise, dispatch, far });
    };
    match sink {
        Sink::InPlace if alone => task(0, x, None),
        Sink::InPlace => x.par_chunks_mut(SEGMENT).enumerate().for_each(|(i, x)| task(i, x, None)),
        Sink::Packed(bytes) if alone => task(0, x, Some(bytes)),
        Sink::Packed(bytes) => {
            let bytes = bytes.par_chunks_mut(pack::len(SEGMENT, p.bits));
            x.par_chunks_mut(SEGMENT).zip(bytes).enumerate().for_each(|(i, (x, bytes))| task(i, x, Some(bytes)));
        }
    }
}

/// Rounds clamped coordinates in place, and measures the integers.
fn round(dispatch: Dispatch, x: &mut [u32], p: &EncodeParams, keys: &RowKeys) -> Seen {
    let task = |i: usize, x: &mut [u32]| dispatch.run(Round { x, first: i * SEGMENT, p, keys, dispatch });
    if alone(x.len(), SEGMENT) {
        return task(0, x);
    }
    x.par_chunks_mut(SEGMENT).enumerate().map(|(i, x)| task(i, x)).reduce(Seen::default, Seen::merge)
}

/// Rounding and norm of the coordinates from `first` on.
struct Round<'a> {
    x: &'a mut [u32],
    first: usize,
    p: &'a EncodeParams,
    keys: &'a RowKeys,
    dispatch: Dispatch,
}

impl Kernel for Round<'_> {
    type Output = Seen;

    #[inline(always)]
    fn run<M: Machine>(self) -> Seen {
        let mut meter = Meter::<M>::new();
        let keep = self.p.rounding == rounding_kind::KEEP;
        let shift = if keep { 0 } else { self.p.fraction_bits };
        let fraction = M::W::splat((1 << shift) - 1);
        let rounding = State::new(&self.keys.rounding);
        let mut uniform = [0u16; BLOCK];
        for (k, x) in self.x.chunks_mut(BLOCK).enumerate() {
            if !keep {
                let bytes = bytemuck::cast_slice_mut(&mut uniform[..x.len()]);
                keystream::fill_from(
                    self.dispatch,
                    &rounding,
                    ROUNDING_STRIDE * (self.first + k * BLOCK) as u64,
                    bytes,
                );
            }
            let (groups, rest) = x.as_chunks_mut::<16>();
            let mut last = [0; 16];
            last[..rest.len()].copy_from_slice(rest);
            // What lies behind a short group is zero and stays so: no uniform is below a fraction of zero.
            for (x, uniform) in groups.iter_mut().chain([&mut last]).zip(uniform.as_chunks::<16>().0) {
                let v = M::W::load(x);
                let uniform = M::W::load_u16(uniform).shr(16 - shift);
                let rounded = v.sar(shift).increment_where_less(uniform, v.and(fraction));
                meter.plain(rounded, u32::MAX).store(x);
            }
            rest.copy_from_slice(&last[..rest.len()]);
        }
        wipe(bytemuck::cast_slice_mut(&mut uniform));
        meter.seen()
    }
}

struct Bound<'a> {
    x: &'a mut [u32],
    p: &'a EncodeParams,
}

impl Kernel for Bound<'_> {
    type Output = Seen;

    #[inline(always)]
    fn run<M: Machine>(self) -> Seen {
        let mut meter = Meter::<M>::new();
        let (groups, rest) = self.x.as_chunks_mut::<16>();
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let all = groups.iter_mut().chain([&mut last]);
        if self.p.norm == norm_kind::MIXED {
            for x in all {
                meter.mixed(M::W::load(x), self.p.linf, self.p.fraction_bits).store(x);
            }
        } else {
            for x in all {
                meter.plain(M::W::load(x), self.p.linf).store(x);
            }
        }
        rest.copy_from_slice(&last[..rest.len()]);
        meter.seen()
    }
}

/// Shrink, rounding, noise, wrap of the coordinates from `first` on.
struct Finish<'a> {
    x: &'a mut [u32],
    packed: Option<&'a mut [u8]>,
    first: usize,
    num: u32,
    p: &'a EncodeParams,
    keys: &'a RowKeys,
    noise: Option<&'a Law>,
    dispatch: Dispatch,
    far: bool,
}

/// The constants of a row, in lanes.
#[derive(Clone, Copy)]
struct Steps<M: Machine> {
    /// False where the steps of the shrink may be left out: the norm is L2 and within its bound. That of a row which came
    /// from floats always is, since [`check::CLIP_MARGIN`] is more than the errors of a transform add up to: no time tells
    /// anything of it. The norm of rounded integers may be above its bound now and then: there nothing is left out.
    shrinks: bool,
    /// The shrink: `floor(|v| num / 2^30) = floor(|v| fourfold / 2^32) + (|v| & whole)`, `fourfold = 4 num mod 2^32`, and
    /// `whole` all ones where that lost a bit (`num = 2^30`: nothing shrinks), else zero.
    fourfold: M::W,
    whole: M::W,
    shift: u32,
    fraction: M::W,
    mask: M::W,
    /// The ring leaves no room for what a sum of fixed point and `2^F` may lose above 32 bits: `b + F > 32`.
    wide: bool,
}

impl<M: Machine> Steps<M> {
    #[inline(always)]
    fn new(num: u32, p: &EncodeParams) -> Self {
        let shift = if p.rounding == rounding_kind::KEEP { 0 } else { p.fraction_bits };
        Self {
            shrinks: num < 1 << SHRINK_BITS || p.norm != norm_kind::L2,
            fourfold: M::W::splat(num << 2),
            whole: M::W::splat((num >> SHRINK_BITS).wrapping_neg()),
            shift,
            fraction: M::W::splat((1 << shift) - 1),
            mask: M::W::splat(check::mask(p.bits)),
            wide: p.bits + shift > 32,
        }
    }
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let keep = self.p.rounding == rounding_kind::KEEP;
        let steps = Steps::<M>::new(self.num, self.p);
        let (mut uniform, mut noise) = ([0u16; BLOCK], [0u32; BLOCK]);
        // Where the words of a block wait to be packed.
        let mut words = [0; BLOCK];
        let rounding = State::new(&self.keys.rounding);
        let mut draws = self.noise.map(|law| Draws::new(law, &self.keys.noise));
        let size = pack::len(BLOCK, self.p.bits);
        let mut packed = self.packed.map(|bytes| bytes.chunks_mut(size));
        for (k, x) in self.x.chunks_mut(BLOCK).enumerate() {
            let first = self.first + k * BLOCK;
            if self.far {
                // The next coordinates, while the keystream of these is made.
                for line in 0..BLOCK / 16 {
                    fetch(x.as_ptr().wrapping_add(BLOCK + 16 * line));
                }
            }
            if !keep {
                let bytes = bytemuck::cast_slice_mut(&mut uniform[..x.len()]);
                keystream::fill_from(self.dispatch, &rounding, ROUNDING_STRIDE * first as u64, bytes);
            }
            if let Some(draws) = &mut draws {
                draws.block(self.dispatch, first, &mut noise);
            }
            let bytes = packed.as_mut().and_then(Iterator::next);
            let place = if bytes.is_some() {
                // What lies behind a short block is packed as zeros.
                words[x.len()..].fill(0);
                words[..x.len()].copy_from_slice(x);
                &mut words[..x.len()]
            } else {
                x
            };
            match (steps.shrinks, steps.wide) {
                (false, false) => chunk::<M, false, false>(place, &steps, &uniform, &noise),
                (false, true) => chunk::<M, false, true>(place, &steps, &uniform, &noise),
                (true, false) => chunk::<M, true, false>(place, &steps, &uniform, &noise),
                (true, true) => chunk::<M, true, true>(place, &steps, &uniform, &noise),
            }
            if let Some(bytes) = bytes {
                pack::block::<M>(&words, self.p.bits, bytes);
            }
        }
        wipe(bytemuck::cast_slice_mut(&mut uniform));
        wipe(&mut noise);
    }
}

/// One chunk; its last group may be short.
#[inline(always)]
fn chunk<M: Machine, const SHRINKS: bool, const WIDE: bool>(
    x: &mut [u32],
    steps: &Steps<M>,
    uniform: &[u16; BLOCK],
    noise: &[u32; BLOCK],
) {
    let (groups, rest) = x.as_chunks_mut::<16>();
    let whole = groups.len();
    let (uniform, noise) = (uniform.as_chunks::<16>().0, noise.as_chunks::<16>().0);
    for ((x, uniform), noise) in groups.iter_mut().zip(uniform).zip(noise) {
        step::<M, SHRINKS, WIDE>(x, steps, uniform, noise);
    }
    if !rest.is_empty() {
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        step::<M, SHRINKS, WIDE>(&mut last, steps, &uniform[whole], &noise[whole]);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[inline(always)]
fn step<M: Machine, const SHRINKS: bool, const WIDE: bool>(
    x: &mut [u32; 16],
    steps: &Steps<M>,
    uniform: &[u16; 16],
    noise: &[u32; 16],
) {
    let v = M::W::load(x);
    let value = if SHRINKS {
        let size = v.abs();
        size.mul_hi(steps.fourfold).add(size.and(steps.whole)).negate_where_negative(v)
    } else {
        v
    };
    // Without fraction bits the comparison is 0 < 0: the value is kept as it is.
    let uniform = M::W::load_u16(uniform).shr(16 - steps.shift);
    let rounded = if WIDE {
        value.sar(steps.shift).increment_where_less(uniform, value.and(steps.fraction))
    } else {
        // floor(v / 2^F) + [U < v mod 2^F] = floor((v + 2^F - 1 - U) / 2^F), and the mask drops what is lost on top.
        value.add(steps.fraction.sub(uniform)).shr(steps.shift)
    };
    rounded.add(M::W::load(noise)).and(steps.mask).store(x);
}
