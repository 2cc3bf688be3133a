//! Decode of a sum in the passes of one transform: words are centred and scaled as they are first read, signs are
//! flipped as the result is last written, which goes to its own memory without the padding.

use super::encode::fixed::sign_bytes;
use super::fwht;
use super::fwht::hooks::{Load, Store};
use super::isa::Dispatch;
use super::lanes::{Floats, Machine, Words};
use crate::backend::Aligned;
use crate::math::prg::StreamKey;
use crate::params::DecodeParams;

/// Elements of the working memory that a thread keeps between calls, 4 MiB: sums of a round are decoded one after
/// another, and fresh memory costs more than the transform.
const KEPT: usize = 1 << 20;

/// Decodes a checked sum.
pub(super) fn decode(dispatch: Dispatch, sum: &[u32], p: &DecodeParams, signs: &StreamKey) -> Vec<f32> {
    thread_local! {
        static WORK: std::cell::Cell<Aligned<f32>> = std::cell::Cell::default();
    }
    let rotate = p.rotate == 1;
    let block_log2 = if rotate { p.block_log2 } else { 0 };
    let bytes = if rotate { sign_bytes(dispatch, signs, sum.len()) } else { Vec::new() };
    let dim = p.dim as usize;
    let mut out = Vec::with_capacity(dim);
    let load = Centre::new(sum, p.bits, f64::from(p.unit) * (-0.5 * f64::from(block_log2)).exp2());
    let store = Signs { bytes: &bytes, out: out.as_mut_ptr(), dim };
    let mut work = WORK.take();
    work.resize(sum.len());
    fwht::fused(dispatch, &mut work, block_log2, &load, &store);
    let whole = dim / 16 * 16;
    // SAFETY: every group of the padded sum has been stored, those that end at or before `dim` here.
    unsafe { out.set_len(whole) };
    out.extend_from_slice(&work[whole..dim]);
    if work.len() <= KEPT {
        WORK.set(work);
    }
    out
}

/// `factor * centre(word)`; see `scalar::decode`.
///
/// The negative of a residue, shifted to the top of the word, is a signed number in `[-2^(b-1), 2^(b-1))` times
/// `2^(32-b)`; the factor undoes sign and shift. The conversion, the factor and the product round once each: the
/// relative error is at most `3 * 2^-24`.
struct Centre<'a> {
    sum: &'a [u32],
    /// What is left of it behind the last whole group, then zeros. Prepared, since a call in the loop (of a copy)
    /// would keep its registers in memory.
    last: [u32; 16],
    /// `32 - b`.
    shift: u32,
    /// `-unit 2^(b-32) 2^(-k/2)`.
    factor: f32,
    /// The same in `f64`, where it is too small to be a normal `f32`.
    wide: Option<f64>,
}

impl<'a> Centre<'a> {
    fn new(sum: &'a [u32], bits: u32, factor: f64) -> Self {
        let shift = 32 - bits;
        let wide = -factor / (1u64 << shift) as f64;
        let factor = wide as f32;
        let mut last = [0; 16];
        let rest = sum.as_chunks::<16>().1;
        last[..rest.len()].copy_from_slice(rest);
        Self { sum, last, shift, factor, wide: (!factor.is_normal()).then_some(wide) }
    }
}

impl Load for Centre<'_> {
    #[inline(always)]
    fn load<M: Machine>(&self, group: usize, _: &[f32; 16]) -> M::F {
        let at = 16 * group;
        let words = M::W::load(match self.sum.get(at..at + 16).and_then(|x| x.as_array()) {
            Some(x) => x,
            None => &self.last,
        });
        let centred = M::W::splat(0).sub(words.shl(self.shift));
        match self.wide {
            None => centred.to_floats().mul(M::F::splat(self.factor)),
            // As unsigned numbers with the top bit flipped, the values start at 2^31.
            Some(factor) => centred.xor(M::W::splat(1 << 31)).scale_wide(-2_147_483_648.0, factor),
        }
    }

    fn source(&self) -> Option<*const f32> {
        Some(self.sum.as_ptr().cast())
    }
}

/// Flips the sign of coordinate `j` where bit `j % 8` of byte `j / 8` is set, and writes the whole groups among the
/// first `dim` coordinates to `out`, all else in place.
struct Signs<'a> {
    /// Two bytes a group, or none.
    bytes: &'a [u8],
    out: *mut f32,
    dim: usize,
}

// SAFETY: the pointer is to memory that only the stores write, each group its own part of it, and nothing reads.
unsafe impl Sync for Signs<'_> {}

impl Store for Signs<'_> {
    type Seen = ();
    type Registers<M: Machine> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn store<M: Machine>(&self, (): &mut (), group: usize, v: M::F, here: &mut [f32; 16]) {
        let at = 16 * group;
        let v = match self.bytes.get(2 * group..).and_then(|bytes| bytes.first_chunk()) {
            Some(&bits) => v.flip(u32::from(u16::from_le_bytes(bits))),
            None => v,
        };
        if at + 16 <= self.dim {
            // SAFETY: `out` has room for `dim` floats, and this group's are written by this call alone.
            v.store(unsafe { &mut *self.out.add(at).cast() });
        } else {
            v.store(here);
        }
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): ()) {}

    fn merge((): (), (): ()) {}
}
