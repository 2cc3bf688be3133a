//! Decode of a sum in the passes of one transform, in the memory of the sum: words are centred and scaled as they are
//! first read, signs are flipped as the result is last written.

use super::clip;
use super::encode::fixed::sign_bytes;
use super::fwht;
use super::fwht::hooks::{Load, Store};
use super::isa::Dispatch;
use super::lanes::{Floats, Machine, Words};
use crate::math::prg::StreamKey;
use crate::params::DecodeParams;

/// What a factor below the normal numbers is multiplied by, and the result divided by: every `unit` of an `f32` is
/// normal then, and no sum overflows.
const LIFT: f32 = (1u128 << 96) as f32;

/// Decodes a checked sum: `x` holds its words and then the floats, the padding among them.
pub(super) fn decode(dispatch: Dispatch, x: &mut [f32], p: &DecodeParams, signs: &StreamKey) {
    let rotate = p.rotate == 1;
    let block_log2 = if rotate { p.block_log2 } else { 0 };
    let signs = if rotate { sign_bytes(dispatch, signs, x.len()) } else { Vec::new() };
    let factor = f64::from(p.unit) * (-0.5 * f64::from(block_log2)).exp2();
    let load = Centre::new(p.bits, factor);
    let store = Signs { groups: signs.as_chunks().0 };
    if load.factor.is_normal() {
        fwht::fused(dispatch, x, block_log2, &load, &store);
    } else {
        fwht::fused(dispatch, x, block_log2, &Centre::new(p.bits, factor * f64::from(LIFT)), &store);
        clip::scale_all(dispatch, x, 1.0 / LIFT);
    }
}

/// `factor * centre(word)`; see `scalar::decode`.
///
/// The negative of a residue, shifted to the top of the word, is a signed number in `[-2^(b-1), 2^(b-1))` times
/// `2^(32-b)`; the factor undoes sign and shift. The conversion, the factor and the product round once each: the
/// relative error is at most `3 * 2^-24`.
struct Centre {
    /// `32 - b`.
    shift: u32,
    /// `-unit 2^(b-32) 2^(-k/2)`.
    factor: f32,
}

impl Centre {
    fn new(bits: u32, factor: f64) -> Self {
        let shift = 32 - bits;
        Self { shift, factor: (-factor / (1u64 << shift) as f64) as f32 }
    }
}

impl Load for Centre {
    type Registers<M: Machine> = ();
    type Place<'a> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn place<const R: usize>(&self, _: usize) {}

    #[inline(always)]
    fn load<M: Machine>(&self, (): &mut (), (): (), _: usize, here: &[f32; 16]) -> M::F {
        let words = M::W::load(bytemuck::cast_ref(here));
        M::W::splat(0).sub(words.shl(self.shift)).to_floats().mul(M::F::splat(self.factor))
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): (), _: usize) {}
}

/// Flips the sign of coordinate `j` where bit `j % 8` of byte `j / 8` is set.
struct Signs<'a> {
    /// Two bytes a group, or none.
    groups: &'a [[u8; 2]],
}

impl Store for Signs<'_> {
    type Seen = ();
    type Registers<M: Machine> = ();

    #[inline(always)]
    fn start<M: Machine>(&self) {}

    #[inline(always)]
    fn store<M: Machine>(&self, (): &mut (), group: usize, v: M::F, here: &mut [f32; 16]) {
        let bits = *self.groups.get(group).unwrap_or(&[0; 2]);
        v.flip(u32::from(u16::from_le_bytes(bits))).store(here);
    }

    #[inline(always)]
    fn finish<M: Machine>(&self, (): ()) {}

    fn merge((): (), (): ()) {}
}
