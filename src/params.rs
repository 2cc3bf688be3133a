//! Plain-data parameters that cross from the host to a kernel (and, on a GPU, to a shader).
//!
//! Every struct is `repr(C)`, `Pod`, a multiple of 16 bytes and without padding; a test checks the
//! member offsets, so that a shader or a CUDA header can mirror them.

use bytemuck::{Pod, Zeroable};

/// Stride in bytes of the rounding keystream: coordinate `j` uses bytes `[2j, 2j + 2)`.
pub const ROUNDING_STRIDE: u64 = 2;
/// Stride in bytes of the noise keystream: coordinate `j` uses bytes `[16j, 16j + 16)`.
pub const NOISE_STRIDE: u64 = 16;
/// Most fraction bits that a fixed-point coordinate carries: the rounding keystream gives 16 bits.
pub const MAX_FRACTION_BITS: u32 = 16;
/// `EncodeParams::linf` value that means "no bound on a single coordinate".
pub const NO_LINF: u32 = u32::MAX;

/// The ring that `sum` and `mask` work in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Integers mod `2^b`, b in 2..=32.
    Bits(u32),
    /// Integers mod a prime below `2^31`.
    Prime(u32),
}

impl Ring {
    /// Bytes of keystream behind the mask of one value: mod `2^b` the least of 1, 2 and 4 that hold b bits, mod a prime 16.
    #[must_use]
    pub const fn mask_bytes(self) -> usize {
        match self {
            Self::Bits(..=8) => 1,
            Self::Bits(9..=16) => 2,
            Self::Bits(_) => 4,
            Self::Prime(_) => NOISE_STRIDE as usize,
        }
    }
}

/// How the integer half of `encode` bounds a row; the `norm` member of [`EncodeParams`].
pub mod norm_kind {
    /// `sum x_j^2 <= bound`, in units of `2^(-2F)`.
    pub const L2: u32 = 0;
    /// `sum v(x_j) <= bound` with `v(x) = floor|x|^2 + (2 floor|x| + 1) frac|x|`, in units of `2^(-F)`.
    pub const MIXED: u32 = 1;
    /// `sum r_j^2 <= bound` of the integers `r_j` behind the rounding, before the noise: the row itself is not bounded, a
    /// row whose rounded norm is above the bound is shrunk toward zero (`r_j <- sign(r_j) floor(|r_j| num / 2^30)`). With
    /// `rounding == KEEP` the integers are the fixed point.
    pub const ROUNDED: u32 = 2;
}

/// How the integer half of `encode` drops the fraction; the `rounding` member of [`EncodeParams`].
pub mod rounding_kind {
    /// `floor(x) + [U < frac(x)]`, `U` uniform from the row's rounding keystream.
    pub const STOCHASTIC: u32 = 0;
    /// Keep the fixed-point integer itself (the unit of the sum is then `2^-F / gamma`).
    pub const KEEP: u32 = 1;
}

/// The type of the rows that a launch reads; the `element` member of [`RowsPassParams`].
pub mod element_kind {
    /// 32 bits, one a word.
    pub const F32: u32 = 0;
    /// IEEE 754 binary16, two a word, the first in the lower half.
    pub const F16: u32 = 1;
    /// The upper halves of 32 bits, two a word, likewise.
    pub const BF16: u32 = 2;
}

/// `clip`: `x_i <- x_i * min(1, bound / |x_i|_2)` on each row.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct ClipParams {
    /// Number of rows.
    pub rows: u32,
    /// Coordinates a row.
    pub dim: u32,
    /// Distance in elements between the starts of two rows.
    pub stride: u32,
    /// The L2 bound C, finite and > 0.
    pub bound: f32,
}

/// `encrypt`: `c_j = a_j s + e_j + 2^offset sum_(z < slots) 2^(width z) m_(j,z) mod Q`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EncryptParams {
    /// k: values in one coefficient, at least 1; `offset + width slots <= floor(log2 Q)`.
    pub slots: u32,
    /// w: bits of a slot, 1..=32; values of the message are below `2^w`.
    pub width: u32,
    /// o: bits below the slots, for the sum of the errors; `eta < 2^(o - 1)`.
    pub offset: u32,
    /// k of the centred binomial law of an error coefficient, 1..=4096.
    pub eta: u32,
}

/// `fwht`: in place on each block of `2^block_log2`, natural order, scaled by `scale` at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct FwhtParams {
    /// Total number of elements, a multiple of `2^block_log2`.
    pub len: u32,
    /// log2 of the block, 0..=27.
    pub block_log2: u32,
    /// Factor applied to the outputs; `2^(-block_log2/2)` makes the transform orthonormal.
    pub scale: f32,
    /// Keeps the size a multiple of 16 bytes.
    pub _pad: u32,
}

/// One launch of a kernel of `fwht`: `groups` tiles of `2^t` elements. A tile is `2^(t - columns_log2)` rows, each
/// `2^stride_log2` elements behind the last, of `2^columns_log2` neighbours; one row if both are t.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct FwhtPassParams {
    /// Groups with work.
    pub groups: u32,
    /// Elements; those of a tile from here on count as zeros and are not written.
    pub len: u32,
    /// log2 of the neighbours of a row.
    pub columns_log2: u32,
    /// log2 of the distance of rows.
    pub stride_log2: u32,
    /// Bit i is set if bit i of an element's number in its tile is transformed.
    pub active_bits: u32,
    /// Factor applied to the inputs.
    pub scale: f32,
    /// Keeps the size a multiple of 16 bytes.
    pub _pad: [u32; 2],
}

/// One launch of a kernel of `ntt` or `intt`: a group has a tile of residues, or 2048 in the passes across tiles.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NttPassParams {
    /// Groups with work.
    pub groups: u32,
    /// log2 of N.
    pub degree_log2: u32,
    /// L: row r is modulo prime `r mod L`.
    pub limbs: u32,
    /// log2 of the tile that the passes across tiles leave to the others.
    pub local_log2: u32,
}

/// One launch of a kernel over residues, `[batch x L x N]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ResidueParams {
    /// Groups with work.
    pub groups: u32,
    /// Residues.
    pub len: u32,
    /// Residues of the second factor of a product: `len`, or those of one polynomial.
    pub other_len: u32,
    /// log2 of N.
    pub degree_log2: u32,
    /// L.
    pub limbs: u32,
    /// Keeps the size a multiple of 16 bytes.
    pub _pad: [u32; 3],
}

/// One launch of a kernel of `encrypt`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EncryptPassParams {
    /// Groups with work.
    pub groups: u32,
    /// What the kernel runs over: values of the message, residues, or coefficients.
    pub len: u32,
    /// log2 of N.
    pub degree_log2: u32,
    /// L.
    pub limbs: u32,
    /// Polynomials of the ciphertext before the first of this launch.
    pub first: u32,
    /// k: values in one coefficient.
    pub slots: u32,
    /// k of the law of the errors.
    pub eta: u32,
    /// Values of the message.
    pub values: u32,
}

/// One launch of `median` or `trimmed_mean`: a group has `2^columns_log2` coordinates of `2^rows_log2` rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SelectParams {
    /// Groups with work.
    pub groups: u32,
    /// n.
    pub rows: u32,
    /// Coordinates.
    pub dim: u32,
    /// First element of the first row.
    pub offset: u32,
    /// Distance in elements between the starts of two rows.
    pub stride: u32,
    /// Values that the trimmed mean leaves out on either side.
    pub trim: u32,
    /// log2 of the rows that are sorted, those beyond n above all others.
    pub rows_log2: u32,
    /// log2 of the coordinates of a group.
    pub columns_log2: u32,
}

/// One launch of a kernel of the ghost verbs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct GhostPassParams {
    /// Groups with work.
    pub groups: u32,
    /// Samples of the batch.
    pub samples: u32,
    /// Positions of a sample.
    pub positions: u32,
    /// Width of the activations.
    pub inputs: u32,
    /// Width of the output gradients.
    pub outputs: u32,
    /// 1 if the layer has a bias.
    pub bias: u32,
    /// Tiles of pairs of a sample, tiles of columns, or segments to add.
    pub tiles: u32,
    /// First segment, or entries of the sum.
    pub first: u32,
}

/// One launch of a kernel of `gram`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct GramParams {
    /// Groups with work.
    pub groups: u32,
    /// n.
    pub rows: u32,
    /// Coordinates.
    pub dim: u32,
    /// First element of the first row.
    pub offset: u32,
    /// Distance in elements between the starts of two rows.
    pub stride: u32,
    /// Tiles of pairs a segment; segments to add, or of a row.
    pub tiles: u32,
    /// Pairs of a segment.
    pub pairs: u32,
    /// First segment.
    pub first: u32,
}

/// `encode`: one row of `dim` floats becomes `padded` integers mod `2^bits`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct EncodeParams {
    /// Coordinates of an input row (d).
    pub dim: u32,
    /// Coordinates of an output row: `dim` rounded up to a multiple of `2^block_log2`.
    pub padded: u32,
    /// log2 of the FWHT block; with `rotate == 0` no signs and no transform are applied.
    pub block_log2: u32,
    /// 1 = signs and block FWHT (orthonormal), 0 = neither.
    pub rotate: u32,
    /// Ring width b, 2..=32.
    pub bits: u32,
    /// F: fraction bits of the fixed point, 0..=16.
    pub fraction_bits: u32,
    /// One of [`norm_kind`].
    pub norm: u32,
    /// One of [`rounding_kind`].
    pub rounding: u32,
    /// Largest `|x_j|` in units of `2^-F`, or [`NO_LINF`]; larger coordinates are clamped.
    pub linf: u32,
    /// Scale gamma applied after the rotation, > 0.
    pub gamma: f32,
    /// L2 bound C of the row before scaling, used by the float clip.
    pub clip: f32,
    /// Keeps `norm_bound` on a 16-byte boundary.
    pub _pad: u32,
    /// Bound of the integer norm as little-endian limbs of a `u128` (unit: see [`norm_kind`]).
    pub norm_bound: [u32; 4],
}

impl EncodeParams {
    /// The bound of the integer norm.
    #[must_use]
    pub fn norm_bound(&self) -> u128 {
        self.norm_bound.iter().rev().fold(0, |acc, &limb| (acc << 32) | u128::from(limb))
    }

    /// What `decode` does to a sum of such rows; `unit` is the value of one integer step of the result.
    #[must_use]
    pub const fn decode(&self, unit: f32) -> DecodeParams {
        DecodeParams {
            dim: self.dim,
            padded: self.padded,
            block_log2: self.block_log2,
            rotate: self.rotate,
            bits: self.bits,
            unit,
            _pad: [0; 2],
        }
    }

    /// Splits `bound` into the limbs of `norm_bound`.
    #[must_use]
    pub fn limbs(bound: u128) -> [u32; 4] {
        [bound as u32, (bound >> 32) as u32, (bound >> 64) as u32, (bound >> 96) as u32]
    }
}

/// `decode`: a sum mod `2^bits` becomes `dim` floats, `x = unit * signs * H^T centred(sum)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct DecodeParams {
    /// Coordinates of the result (d).
    pub dim: u32,
    /// Coordinates of the sum.
    pub padded: u32,
    /// log2 of the FWHT block.
    pub block_log2: u32,
    /// 1 = inverse FWHT and signs, 0 = neither.
    pub rotate: u32,
    /// Ring width b, 2..=32; values are centred into `(-2^(b-1), 2^(b-1)]`.
    pub bits: u32,
    /// Value of one integer step after the inverse rotation: `1 / gamma`, over the divisor of the mean.
    pub unit: f32,
    /// Keeps the size a multiple of 16 bytes.
    pub _pad: [u32; 2],
}

/// `ghost_norms` and `ghost_sum`: a linear layer's activations `[samples x positions x inputs]` and output
/// gradients `[samples x positions x outputs]`, dense.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct GhostParams {
    /// Samples of the batch (B).
    pub samples: u32,
    /// Positions of a sample (T): tokens, or places of a convolution; 1 for a plain linear layer.
    pub positions: u32,
    /// Inputs of the layer (p).
    pub inputs: u32,
    /// Outputs of the layer (q).
    pub outputs: u32,
    /// 1 = the layer has a bias, whose gradient is the sum of the output gradients over the positions.
    pub bias: u32,
    /// Keeps the size a multiple of 16 bytes.
    pub _pad: [u32; 3],
}

impl GhostParams {
    /// A layer with a bias.
    #[must_use]
    pub const fn new(samples: u32, positions: u32, inputs: u32, outputs: u32) -> Self {
        Self { samples, positions, inputs, outputs, bias: 1, _pad: [0; 3] }
    }

    /// The same layer without a bias.
    #[must_use]
    pub const fn without_bias(self) -> Self {
        Self { bias: 0, ..self }
    }

    /// True where building each sample's gradient takes fewer products than the T x T matrices of inner
    /// products: `p q < 2 T^2`, the rule of Opacus ("mixed ghost clipping", Bu et al. 2022, section 4).
    #[must_use]
    pub const fn materializes(&self) -> bool {
        let positions = self.positions as u128;
        (self.inputs as u128) * (self.outputs as u128) < 2 * positions * positions
    }
}

/// One launch of a kernel on rows (clip, encode, noise, pack): group g works on chunk `g % chunks` of row `g / chunks`
/// of the launch. Members that a kernel has no use for are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct RowsPassParams {
    /// Groups with work.
    pub groups: u32,
    /// Groups of a row.
    pub chunks: u32,
    /// Number of the launch's first row among the keys and the records of rows.
    pub first_row: u32,
    /// Element of the input slice at which the first row starts.
    pub offset: u32,
    /// Elements between the starts of two input rows.
    pub stride: u32,
    /// Elements of an input row; of a packed row.
    pub dim: u32,
    /// Elements of an output row.
    pub padded: u32,
    /// Number of a row's first coordinate in the keystream.
    pub first: u32,
    /// Ring width b.
    pub bits: u32,
    /// F.
    pub fraction_bits: u32,
    /// One of [`norm_kind`].
    pub norm: u32,
    /// One of [`rounding_kind`].
    pub rounding: u32,
    /// As in [`EncodeParams`].
    pub linf: u32,
    /// Thresholds of a table, or bits of a binomial draw.
    pub count: u32,
    /// 1 = with signs.
    pub rotate: u32,
    /// A factor of every element.
    pub factor: f32,
    /// The L2 bound is `bound_mantissa 2^bound_exponent`, with the highest bit set.
    pub bound_mantissa: u32,
    /// See `bound_mantissa`.
    pub bound_exponent: i32,
    /// One of [`element_kind`]: the type of the input rows.
    pub element: u32,
    /// Keeps `norm_bound` on a 16-byte boundary.
    pub _pad: u32,
    /// As in [`EncodeParams`].
    pub norm_bound: [u32; 4],
}

/// One launch of a kernel on `len` elements side by side (mask, sum, decode). Members that a kernel has no use for are
/// zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct FlatPassParams {
    /// Groups with work.
    pub groups: u32,
    /// Elements.
    pub len: u32,
    /// Number of the first element in a keystream.
    pub first: u32,
    /// Ring width b.
    pub bits: u32,
    /// The prime p.
    pub modulus: u32,
    /// Rows to add; 1 to subtract a mask; 1 = with signs.
    pub count: u32,
    /// A factor of every element.
    pub factor: f32,
    /// Another one, that may be denormal.
    pub unit: f32,
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    /// The layouts that a shader or a CUDA header mirrors.
    #[test]
    fn layouts_are_multiples_of_16_bytes_with_known_offsets() {
        assert_eq!(size_of::<ClipParams>(), 16);
        assert_eq!(size_of::<FwhtParams>(), 16);
        assert_eq!(size_of::<EncodeParams>(), 64);
        assert_eq!(size_of::<DecodeParams>(), 32);
        assert_eq!([offset_of!(ClipParams, rows), offset_of!(ClipParams, dim)], [0, 4]);
        assert_eq!([offset_of!(ClipParams, stride), offset_of!(ClipParams, bound)], [8, 12]);
        assert_eq!([offset_of!(FwhtParams, len), offset_of!(FwhtParams, block_log2)], [0, 4]);
        assert_eq!([offset_of!(FwhtParams, scale), offset_of!(FwhtParams, _pad)], [8, 12]);
        let encode = [
            offset_of!(EncodeParams, dim),
            offset_of!(EncodeParams, padded),
            offset_of!(EncodeParams, block_log2),
            offset_of!(EncodeParams, rotate),
            offset_of!(EncodeParams, bits),
            offset_of!(EncodeParams, fraction_bits),
            offset_of!(EncodeParams, norm),
            offset_of!(EncodeParams, rounding),
            offset_of!(EncodeParams, linf),
            offset_of!(EncodeParams, gamma),
            offset_of!(EncodeParams, clip),
            offset_of!(EncodeParams, _pad),
            offset_of!(EncodeParams, norm_bound),
        ];
        assert_eq!(encode, [0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48]);
        let decode = [
            offset_of!(DecodeParams, dim),
            offset_of!(DecodeParams, padded),
            offset_of!(DecodeParams, block_log2),
            offset_of!(DecodeParams, rotate),
            offset_of!(DecodeParams, bits),
            offset_of!(DecodeParams, unit),
            offset_of!(DecodeParams, _pad),
        ];
        assert_eq!(decode, [0, 4, 8, 12, 16, 20, 24]);
        let encrypt = [
            offset_of!(EncryptParams, slots),
            offset_of!(EncryptParams, width),
            offset_of!(EncryptParams, offset),
            offset_of!(EncryptParams, eta),
        ];
        assert_eq!(encrypt, [0, 4, 8, 12]);
    }

    #[test]
    fn the_layout_of_the_ghost_parameters() {
        assert_eq!(size_of::<GhostParams>(), 32);
        let ghost = [
            offset_of!(GhostParams, samples),
            offset_of!(GhostParams, positions),
            offset_of!(GhostParams, inputs),
            offset_of!(GhostParams, outputs),
            offset_of!(GhostParams, bias),
            offset_of!(GhostParams, _pad),
        ];
        assert_eq!(ghost, [0, 4, 8, 12, 16, 20]);
    }

    #[test]
    fn the_limbs_of_the_norm_bound_go_both_ways() {
        for bound in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677, 1 << 64] {
            let p = EncodeParams { norm_bound: EncodeParams::limbs(bound), ..EncodeParams::zeroed() };
            assert_eq!(p.norm_bound(), bound);
            assert_eq!(u128::from_le_bytes(bytemuck::cast(p.norm_bound)), bound);
        }
    }
}
