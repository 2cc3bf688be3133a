//! NEON: a group is four 128-bit registers.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::lanes::{F16_EXPONENT, F16_INFINITE, F16_NORMAL, F16_UNIT, Group, Machine, NativeF32, NativeF64, NativeU32};

/// NEON (Advanced SIMD), part of every aarch64 processor.
#[derive(Clone, Copy)]
pub(super) struct Neon;

impl Machine for Neon {
    type NativeF32 = F32x4;
    type NativeU32 = U32x4;
    type NativeF64 = F64x2;
    type F = Group<F32x4, 4>;
    type W = Group<U32x4, 4>;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn count_halves(x: U32x4) -> U32x4 {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        U32x4(unsafe { vreinterpretq_u32_u16(vpaddlq_u8(vcntq_u8(vreinterpretq_u8_u32(x.0)))) })
    }

    #[inline(always)]
    fn add_parts<const W: u32>(x: U32x4, y: U32x4) -> U32x4 {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        U32x4(unsafe {
            match W {
                8 => vreinterpretq_u32_u8(vaddq_u8(vreinterpretq_u8_u32(x.0), vreinterpretq_u8_u32(y.0))),
                16 => vreinterpretq_u32_u16(vaddq_u16(vreinterpretq_u16_u32(x.0), vreinterpretq_u16_u32(y.0))),
                _ => vaddq_u32(x.0, y.0),
            }
        })
    }
}

#[derive(Clone, Copy)]
pub(super) struct F32x4(pub(super) float32x4_t);

#[derive(Clone, Copy)]
pub(super) struct U32x4(pub(super) uint32x4_t);

impl NativeF32 for F32x4 {
    type Bits = U32x4;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(x: *const f32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe { vld1q_f32(x) })
    }

    /// By integers and one exact product, as `portable` does it: the instruction's type is not stable yet.
    #[inline(always)]
    unsafe fn load_f16(x: *const f16) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe {
            let half = vmovl_u16(vld1_u16(x.cast()));
            let m = vandq_u32(half, vdupq_n_u32(0x7fff));
            let sign = vshlq_n_u32::<16>(vandq_u32(half, vdupq_n_u32(0x8000)));
            let small = vreinterpretq_u32_f32(vmulq_n_f32(vcvtq_f32_u32(m), F16_UNIT));
            let finite = vcltq_u32(m, vdupq_n_u32(F16_INFINITE));
            let more = vbslq_u32(finite, vdupq_n_u32(F16_EXPONENT), vdupq_n_u32(2 * F16_EXPONENT));
            let large = vaddq_u32(vshlq_n_u32::<13>(m), more);
            let wide = vbslq_u32(vcltq_u32(m, vdupq_n_u32(F16_NORMAL)), small, large);
            vreinterpretq_f32_u32(vorrq_u32(wide, sign))
        })
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const bf16) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.cast()))) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f32) {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        unsafe { vst1q_f32(x, self.0) };
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vfmaq_f32(c.0, self.0, b.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vminq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vmaxq_f32(self.0, other.0) })
    }

    #[inline(always)]
    fn stage<const H: usize>(self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe {
            // Both inputs of every butterfly side by side: (a a c c) and (b b d d) of (a b c d) for h = 1,
            // (a b a b) and (c d c d) for h = 2. The second counts 1 or -1 times, which is exact, so that
            // one rounding gives the sums and the differences.
            let x = self.0;
            if H == 1 {
                return Self(vfmaq_f32(vtrn1q_f32(x, x), vtrn2q_f32(x, x), vld1q_f32([1.0, -1.0, 1.0, -1.0].as_ptr())));
            }
            let (low, high) = (vget_low_f32(x), vget_high_f32(x));
            let (low, high) = (vcombine_f32(low, low), vcombine_f32(high, high));
            Self(vfmaq_f32(low, high, vld1q_f32([1.0, 1.0, -1.0, -1.0].as_ptr())))
        }
    }

    #[inline(always)]
    fn flip(self, bits: u32) -> Self {
        const LANE: [u32; 4] = [1, 2, 4, 8];
        // SAFETY: NEON is part of every aarch64 processor that this target names; the constant is 16 bytes.
        unsafe {
            let set = vtstq_u32(vdupq_n_u32(bits), vld1q_u32(LANE.as_ptr()));
            let x = veorq_u32(vreinterpretq_u32_f32(self.0), vshlq_n_u32::<31>(set));
            Self(vreinterpretq_f32_u32(x))
        }
    }

    #[inline(always)]
    fn to_bits(self) -> U32x4 {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        U32x4(unsafe { vreinterpretq_u32_f32(self.0) })
    }

    #[inline(always)]
    fn truncate(self) -> U32x4 {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        U32x4(unsafe { vreinterpretq_u32_s32(vcvtq_s32_f32(self.0)) })
    }
}

impl U32x4 {
    /// The products of the lower lanes, 64 bits each, and those of the upper lanes.
    #[inline(always)]
    fn products(self, other: Self) -> [uint64x2_t; 2] {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe { [vmull_u32(vget_low_u32(self.0), vget_low_u32(other.0)), vmull_high_u32(self.0, other.0)] }
    }
}

impl NativeU32 for U32x4 {
    type Floats = F32x4;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn load(x: *const u32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe { vld1q_u32(x) })
    }

    #[inline(always)]
    unsafe fn load_u16(x: *const u16) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe { vmovl_u16(vld1_u16(x)) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut u32) {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        unsafe { vst1q_u32(x, self.0) };
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vdupq_n_u32(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vaddq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vsubq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vminq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vmaxq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vandq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vorrq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { veorq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn shl(self, n: u32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vshlq_u32(self.0, vdupq_n_s32(n as i32)) })
    }

    #[inline(always)]
    fn shr(self, n: u32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vshlq_u32(self.0, vdupq_n_s32(-(n as i32))) })
    }

    #[inline(always)]
    fn sar(self, n: u32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(self.0), vdupq_n_s32(-(n as i32)))) })
    }

    #[inline(always)]
    fn rotl<const N: i32>(self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe {
            // The rotations of ChaCha in one or two instructions; N is known when this is compiled.
            Self(match N {
                16 => vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(self.0))),
                12 => vsriq_n_u32::<20>(vshlq_n_u32::<12>(self.0), self.0),
                8 => {
                    const LEFT: [u8; 16] = [3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14];
                    vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(self.0), vld1q_u8(LEFT.as_ptr())))
                }
                7 => vsriq_n_u32::<25>(vshlq_n_u32::<7>(self.0), self.0),
                _ => vorrq_u32(self.shl(N as u32).0, self.shr(32 - N as u32).0),
            })
        }
    }

    #[inline(always)]
    fn mul_lo(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vmulq_u32(self.0, other.0) })
    }

    #[inline(always)]
    fn where_equal(self, other: Self, a: Self, b: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vbslq_u32(vceqq_u32(self.0, other.0), a.0, b.0) })
    }

    #[inline(always)]
    fn increment_where_below(self, a: Self, b: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names. True is -1.
        unsafe {
            let below = vcltq_s32(vreinterpretq_s32_u32(a.0), vreinterpretq_s32_u32(b.0));
            Self(vsubq_u32(self.0, below))
        }
    }

    #[inline(always)]
    fn lookup16(table: &[u32; 16], index: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the table is 64 bytes.
        unsafe {
            let bytes = vld1q_u8_x4(table.as_ptr().cast());
            // Bytes 4 i .. 4 i + 4 of a lane's index i.
            let first = vandq_u32(index.0, vdupq_n_u32(15));
            let at = vaddq_u32(vmulq_u32(first, vdupq_n_u32(0x0404_0404)), vdupq_n_u32(0x0302_0100));
            Self(vreinterpretq_u32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(at))))
        }
    }

    #[inline(always)]
    unsafe fn store_transposed(words: [Self; 16], out: *mut u8) {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        unsafe {
            for quarter in 0..4 {
                let i = 4 * quarter;
                let (ab, cd) = (vtrnq_u32(words[i].0, words[i + 1].0), vtrnq_u32(words[i + 2].0, words[i + 3].0));
                let (e, f) = (vreinterpretq_u64_u32(ab.0), vreinterpretq_u64_u32(cd.0));
                let (g, h) = (vreinterpretq_u64_u32(ab.1), vreinterpretq_u64_u32(cd.1));
                let blocks = [vtrn1q_u64(e, f), vtrn1q_u64(g, h), vtrn2q_u64(e, f), vtrn2q_u64(g, h)];
                for (l, block) in blocks.into_iter().enumerate() {
                    vst1q_u8(out.add(64 * l + 16 * quarter), vreinterpretq_u8_u64(block));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn repeat(x: *const u32, count: usize) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe {
            match count {
                1 => vdupq_n_u32(x.read_unaligned()),
                2 => {
                    let pair = vld1_u32(x);
                    vcombine_u32(pair, pair)
                }
                _ => vld1q_u32(x),
            }
        })
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe { (Self(vzip1q_u32(self.0, other.0)), Self(vzip2q_u32(self.0, other.0))) }
    }

    #[inline(always)]
    fn separate(self, other: Self) -> (Self, Self) {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe { (Self(vuzp1q_u32(self.0, other.0)), Self(vuzp2q_u32(self.0, other.0))) }
    }

    #[inline(always)]
    fn increment_where_less(self, a: Self, b: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; true is -1.
        Self(unsafe { vsubq_u32(self.0, vcltq_u32(a.0, b.0)) })
    }

    #[inline(always)]
    fn to_floats(self) -> F32x4 {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        F32x4(unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(self.0)) })
    }

    type Sums = uint64x2_t;

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vreinterpretq_u32_s32(vabsq_s32(vreinterpretq_s32_u32(self.0))) })
    }

    #[inline(always)]
    fn negate_where_negative(self, sign: Self) -> Self {
        let sign = sign.sar(31);
        self.xor(sign).sub(sign)
    }

    #[inline(always)]
    fn mul_shr<const S: u32>(self, other: Self) -> Self {
        let [low, high] = self.products(other);
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe {
            if S == 32 {
                // The upper words are there already.
                return Self(vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)));
            }
            let by = vdupq_n_s64(-i64::from(S));
            let (low, high) = (vshlq_u64(low, by), vshlq_u64(high, by));
            Self(vuzp1q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)))
        }
    }

    #[inline(always)]
    fn no_sums() -> uint64x2_t {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe { vdupq_n_u64(0) }
    }

    #[inline(always)]
    fn clamp_signed(self, low: Self, high: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe {
            let v = vminq_s32(vreinterpretq_s32_u32(self.0), vreinterpretq_s32_u32(high.0));
            Self(vreinterpretq_u32_s32(vmaxq_s32(v, vreinterpretq_s32_u32(low.0))))
        }
    }

    #[inline(always)]
    fn increment_where_unequal(self, a: Self, b: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; true is -1.
        Self(unsafe { vsubq_u32(self.0, vmvnq_u32(vceqq_u32(a.0, b.0))) })
    }

    #[inline(always)]
    fn add_squares(self, low: &mut uint64x2_t, high: &mut uint64x2_t) {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe {
            let v = vreinterpretq_s32_u32(self.0);
            let lower = vmull_s32(vget_low_s32(v), vget_low_s32(v));
            let pair = vreinterpretq_u64_s64(vaddq_s64(lower, vmull_high_s32(v, v)));
            *low = vaddq_u64(*low, pair);
            *high = vaddq_u64(*high, vshrq_n_u64::<32>(pair));
        }
    }

    #[inline(always)]
    fn add_products(self, other: Self, low: &mut uint64x2_t, high: &mut uint64x2_t) {
        for product in self.products(other) {
            // SAFETY: NEON is part of every aarch64 processor that this target names.
            unsafe {
                *low = vaddq_u64(*low, product);
                *high = vaddq_u64(*high, vshrq_n_u64::<32>(product));
            }
        }
    }

    #[inline(always)]
    fn total(sums: uint64x2_t) -> u64 {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        unsafe { vaddvq_u64(sums) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct F64x2(float64x2_t);

impl NativeF64 for F64x2 {
    const LANES: usize = 2;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn load(x: *const f64) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe { vld1q_f64(x) })
    }

    #[inline(always)]
    unsafe fn widen(x: *const f32) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        Self(unsafe { vcvt_f64_f32(vld1_f32(x)) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f64) {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        unsafe { vst1q_f64(x, self.0) };
    }

    #[inline(always)]
    unsafe fn narrow(self, x: *mut f32) {
        // SAFETY: NEON is part of every aarch64 processor that this target names; the caller's promise.
        unsafe { vst1_f32(x, vcvt_f32_f64(self.0)) };
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vdupq_n_f64(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vaddq_f64(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vsubq_f64(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vmulq_f64(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vdivq_f64(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: NEON is part of every aarch64 processor that this target names.
        Self(unsafe { vfmaq_f64(c.0, self.0, b.0) })
    }
}
