//! AVX-512 F, BW, DQ, VL: one 512-bit register is a group.
//!
//! Every intrinsic is sound because these types are used only by kernels that `isa::Dispatch` runs after
//! it has seen the features on the processor; loads and stores are unaligned.

mod doubles;

use std::arch::asm;
use std::arch::x86_64::*;

use half::{bf16, f16};

use self::doubles::F64x8;
use super::lanes::{Group, Machine, NativeF32, NativeU32};

/// AVX-512 F, BW, DQ, VL.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Machine for Avx512 {
    type NativeF32 = F32x16;
    type NativeU32 = U32x16;
    type NativeF64 = F64x8;
    type F = Group<F32x16, 1>;
    type W = Group<U32x16, 1>;
    const GROUPS: usize = 32;

    #[inline(always)]
    fn count_halves(x: U32x16) -> U32x16 {
        // SAFETY: AVX-512 BW is present (see the module).
        unsafe {
            let nibble = _mm512_set1_epi8(15);
            let table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
            let low = _mm512_shuffle_epi8(table, _mm512_and_si512(x.0, nibble));
            let high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16::<4>(x.0), nibble));
            // Bytes to halves: the sum of two bytes times one.
            U32x16(_mm512_maddubs_epi16(_mm512_add_epi8(low, high), _mm512_set1_epi8(1)))
        }
    }

    #[inline(always)]
    fn add_parts<const W: u32>(x: U32x16, y: U32x16) -> U32x16 {
        // SAFETY: AVX-512 BW is present (see the module).
        U32x16(unsafe {
            match W {
                8 => _mm512_add_epi8(x.0, y.0),
                16 => _mm512_add_epi16(x.0, y.0),
                _ => _mm512_add_epi32(x.0, y.0),
            }
        })
    }
}

/// AVX-512 with BITALG: counts bits in one instruction, and differs in nothing else.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bitalg;

impl Machine for Avx512Bitalg {
    type NativeF32 = F32x16;
    type NativeU32 = U32x16;
    type NativeF64 = F64x8;
    type F = Group<F32x16, 1>;
    type W = Group<U32x16, 1>;
    const GROUPS: usize = Avx512::GROUPS;

    #[inline(always)]
    fn count_halves(x: U32x16) -> U32x16 {
        // SAFETY: BITALG is present: `Dispatch::run_counting` has seen it.
        U32x16(unsafe { _mm512_popcnt_epi16(x.0) })
    }
}

#[derive(Clone, Copy)]
pub(super) struct F32x16(pub(super) __m512);

#[derive(Clone, Copy)]
pub(super) struct U32x16(pub(super) __m512i);

/// `-1` in the lanes `i` with `i & h != 0`, `1` elsewhere.
const fn signs(h: usize) -> [f32; 16] {
    let mut s = [1.0; 16];
    let mut i = 0;
    while i < 16 {
        if i & h != 0 {
            s[i] = -1.0;
        }
        i += 1;
    }
    s
}

impl NativeF32 for F32x16 {
    type Bits = U32x16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(x: *const f32) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        Self(unsafe { _mm512_loadu_ps(x) })
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const f16) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.cast())) })
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const bf16) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        Self(unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f32) {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        unsafe { _mm512_storeu_ps(x, self.0) };
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    /// `swapped + sign * x`; the product with +-1 is exact, so the fused form rounds once, as the addition
    /// does.
    #[inline(always)]
    fn stage<const H: usize>(self) -> Self {
        let x = self.0;
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            let swapped = match H {
                1 => _mm512_permute_ps::<0b10_11_00_01>(x),
                2 => _mm512_permute_ps::<0b01_00_11_10>(x),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x),
                _ => _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x),
            };
            Self(_mm512_fmadd_ps(x, minus::<H>(), swapped))
        }
    }

    /// Stages 1 and 8 from memory: the load unit makes both operands, `(x0 x0 x2 x2 ...)` and
    /// `(x1 x1 x3 x3 ...)`, or the low half twice and the high half twice, without the one shuffle port.
    #[inline(always)]
    unsafe fn load_stage<const H: usize>(x: *const f32) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise; both halves lie in the 16 floats.
        unsafe {
            let (first, second) = match H {
                1 => {
                    let again = apart(x);
                    (_mm512_moveldup_ps(_mm512_loadu_ps(x)), _mm512_movehdup_ps(_mm512_loadu_ps(again)))
                }
                8 => {
                    let low = _mm512_broadcast_f64x4(_mm256_loadu_pd(x.cast()));
                    let high = _mm512_broadcast_f64x4(_mm256_loadu_pd(x.add(8).cast()));
                    (_mm512_castpd_ps(low), _mm512_castpd_ps(high))
                }
                _ => return Self::load(x).stage::<H>(),
            };
            Self(_mm512_fmadd_ps(second, minus::<H>(), first))
        }
    }

    #[inline(always)]
    fn flip(self, bits: u32) -> Self {
        // SAFETY: AVX-512 F and DQ are present (see the module).
        Self(unsafe { _mm512_mask_xor_ps(self.0, bits as u16, self.0, _mm512_set1_ps(-0.0)) })
    }

    #[inline(always)]
    fn to_bits(self) -> U32x16 {
        // SAFETY: AVX-512 F is present (see the module).
        U32x16(unsafe { _mm512_castps_si512(self.0) })
    }

    #[inline(always)]
    fn truncate(self) -> U32x16 {
        // SAFETY: AVX-512 F is present (see the module).
        // What is out of range converts to -2^31: right below it, wrong above.
        U32x16(unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(self.0, _mm512_set1_ps(2_147_483_648.0));
            _mm512_mask_mov_epi32(_mm512_cvttps_epi32(self.0), above, _mm512_set1_epi32(i32::MAX))
        })
    }
}

/// `-1` in the lanes `i` with `i & H != 0`, `1` elsewhere.
#[inline(always)]
fn minus<const H: usize>() -> __m512 {
    // SAFETY: AVX-512 F is present (see the module); the constant is 64 bytes.
    unsafe { _mm512_loadu_ps((const { &signs(H) }).as_ptr()) }
}

/// The same address, unknown to the compiler: two loads from it stay two loads, each folded into the
/// instruction that spreads its lanes.
#[inline(always)]
fn apart(mut x: *const f32) -> *const f32 {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inout(reg) x, options(pure, readonly, nostack, preserves_flags)) };
    x
}

impl U32x16 {
    /// Two choices of sixteen from the 32 lanes of `self` and `other`.
    #[inline(always)]
    fn pick(self, other: Self, first: &[u32; 16], second: &[u32; 16]) -> (Self, Self) {
        // SAFETY: AVX-512 F is present (see the module); the choices are 64 bytes each.
        unsafe {
            let (f, s) = (_mm512_loadu_si512(first.as_ptr().cast()), _mm512_loadu_si512(second.as_ptr().cast()));
            (Self(_mm512_permutex2var_epi32(self.0, f, other.0)), Self(_mm512_permutex2var_epi32(self.0, s, other.0)))
        }
    }

    /// The products of the lanes at even places, 64 bits each, and those at odd places.
    #[inline(always)]
    fn products(self, other: Self) -> [__m512i; 2] {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            let even = _mm512_mul_epu32(self.0, other.0);
            [even, _mm512_mul_epu32(_mm512_srli_epi64::<32>(self.0), _mm512_srli_epi64::<32>(other.0))]
        }
    }
}

impl NativeU32 for U32x16 {
    type Floats = F32x16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(x: *const u32) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        Self(unsafe { _mm512_loadu_si512(x.cast()) })
    }

    #[inline(always)]
    unsafe fn load_u16(x: *const u16) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        Self(unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.cast())) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut u32) {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        unsafe { _mm512_storeu_si512(x.cast(), self.0) };
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_set1_epi32(x as i32) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_min_epu32(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_max_epu32(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn shl(self, n: u32) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_sllv_epi32(self.0, _mm512_set1_epi32(n as i32)) })
    }

    #[inline(always)]
    fn shr(self, n: u32) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_srlv_epi32(self.0, _mm512_set1_epi32(n as i32)) })
    }

    #[inline(always)]
    fn sar(self, n: u32) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_srav_epi32(self.0, _mm512_set1_epi32(n as i32)) })
    }

    #[inline(always)]
    fn rotl<const N: i32>(self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_rol_epi32::<N>(self.0) })
    }

    #[inline(always)]
    fn mul_lo(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_mullo_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn where_equal(self, other: Self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_mask_mov_epi32(b.0, _mm512_cmpeq_epi32_mask(self.0, other.0), a.0) })
    }

    #[inline(always)]
    fn increment_where_below(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            let below = _mm512_cmplt_epi32_mask(a.0, b.0);
            Self(_mm512_mask_add_epi32(self.0, below, self.0, _mm512_set1_epi32(1)))
        }
    }

    #[inline(always)]
    fn lookup16(table: &[u32; 16], index: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module); the table is 64 bytes.
        Self(unsafe { _mm512_permutexvar_epi32(index.0, _mm512_loadu_si512(table.as_ptr().cast())) })
    }

    #[inline(always)]
    fn lookup32(table: &[u32; 32], index: Self) -> Self {
        let (low, high) = (table.as_ptr().cast(), table[16..].as_ptr().cast());
        // SAFETY: AVX-512 F is present (see the module); both halves of the table are 64 bytes.
        Self(unsafe { _mm512_permutex2var_epi32(_mm512_loadu_si512(low), index.0, _mm512_loadu_si512(high)) })
    }

    #[inline(always)]
    unsafe fn store_transposed(words: [Self; 16], out: *mut u8) {
        // SAFETY: AVX-512 F is present (see the module); the caller's promise.
        unsafe {
            let mut x = [_mm512_setzero_si512(); 16];
            for i in 0..16 {
                x[i] = words[i].0;
            }
            for i in [0, 4, 8, 12] {
                let (a, b) = (_mm512_unpacklo_epi32(x[i], x[i + 1]), _mm512_unpackhi_epi32(x[i], x[i + 1]));
                let (c, d) = (_mm512_unpacklo_epi32(x[i + 2], x[i + 3]), _mm512_unpackhi_epi32(x[i + 2], x[i + 3]));
                (x[i], x[i + 1]) = (_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c));
                (x[i + 2], x[i + 3]) = (_mm512_unpacklo_epi64(b, d), _mm512_unpackhi_epi64(b, d));
            }
            // Now 128-bit lane j of x[4 i + q] is the quarter i of block 4 j + q: a 4 x 4 transpose of those.
            let out = out.cast::<__m512i>();
            for q in 0..4 {
                let (a, b) =
                    (_mm512_shuffle_i32x4::<0x44>(x[q], x[4 + q]), _mm512_shuffle_i32x4::<0xee>(x[q], x[4 + q]));
                let (c, d) = (
                    _mm512_shuffle_i32x4::<0x44>(x[8 + q], x[12 + q]),
                    _mm512_shuffle_i32x4::<0xee>(x[8 + q], x[12 + q]),
                );
                _mm512_storeu_si512(out.add(q), _mm512_shuffle_i32x4::<0x88>(a, c));
                _mm512_storeu_si512(out.add(4 + q), _mm512_shuffle_i32x4::<0xdd>(a, c));
                _mm512_storeu_si512(out.add(8 + q), _mm512_shuffle_i32x4::<0x88>(b, d));
                _mm512_storeu_si512(out.add(12 + q), _mm512_shuffle_i32x4::<0xdd>(b, d));
            }
        }
    }

    #[inline(always)]
    unsafe fn repeat(x: *const u32, count: usize) -> Self {
        // SAFETY: AVX-512 F and DQ are present (see the module); the caller's promise.
        Self(unsafe {
            match count {
                1 => _mm512_set1_epi32(x.cast::<i32>().read_unaligned()),
                2 => _mm512_set1_epi64(x.cast::<i64>().read_unaligned()),
                4 => _mm512_broadcast_i32x4(_mm_loadu_si128(x.cast())),
                8 => _mm512_broadcast_i32x8(_mm256_loadu_si256(x.cast())),
                _ => _mm512_loadu_si512(x.cast()),
            }
        })
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        const LOW: [u32; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
        const HIGH: [u32; 16] = [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31];
        self.pick(other, &LOW, &HIGH)
    }

    #[inline(always)]
    fn separate(self, other: Self) -> (Self, Self) {
        const EVEN: [u32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
        const ODD: [u32; 16] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
        self.pick(other, &EVEN, &ODD)
    }

    #[inline(always)]
    fn increment_where_less(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            let less = _mm512_cmplt_epu32_mask(a.0, b.0);
            Self(_mm512_mask_add_epi32(self.0, less, self.0, _mm512_set1_epi32(1)))
        }
    }

    #[inline(always)]
    fn to_floats(self) -> F32x16 {
        // SAFETY: AVX-512 F is present (see the module).
        F32x16(unsafe { _mm512_cvtepi32_ps(self.0) })
    }

    type Sums = __m512i;

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_abs_epi32(self.0) })
    }

    #[inline(always)]
    fn negate_where_negative(self, sign: Self) -> Self {
        // SAFETY: AVX-512 F and DQ are present (see the module).
        Self(unsafe { _mm512_mask_sub_epi32(self.0, _mm512_movepi32_mask(sign.0), _mm512_setzero_si512(), self.0) })
    }

    #[inline(always)]
    fn mul_shr<const S: u32>(self, other: Self) -> Self {
        let [even, odd] = self.products(other);
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            if S == 32 {
                // One permute of both, where shifts would crowd the multiplier's port.
                return Self(_mm512_mask_shuffle_epi32::<0b11_11_01_01>(odd, 0x5555, even));
            }
            // The word that is wanted of an odd product, moved to the upper half.
            let odd = _mm512_sll_epi64(odd, _mm_cvtsi32_si128(32 - S as i32));
            let even = _mm512_srl_epi64(even, _mm_cvtsi32_si128(S as i32));
            Self(_mm512_mask_mov_epi32(odd, 0x5555, even))
        }
    }

    #[inline(always)]
    fn no_sums() -> __m512i {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn clamp_signed(self, low: Self, high: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_max_epi32(_mm512_min_epi32(self.0, high.0), low.0) })
    }

    #[inline(always)]
    fn increment_where_unequal(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            let unequal = _mm512_cmpneq_epi32_mask(a.0, b.0);
            Self(_mm512_mask_add_epi32(self.0, unequal, self.0, _mm512_set1_epi32(1)))
        }
    }

    #[inline(always)]
    fn add_squares(self, low: &mut __m512i, high: &mut __m512i) {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            // Swapping the words of a pair leaves the odd ones to the multiplication and the shifter alone.
            let odd = _mm512_shuffle_epi32::<0b1011_0001>(self.0);
            let pair = _mm512_add_epi64(_mm512_mul_epi32(self.0, self.0), _mm512_mul_epi32(odd, odd));
            *low = _mm512_add_epi64(*low, pair);
            *high = _mm512_add_epi64(*high, _mm512_srli_epi64::<32>(pair));
        }
    }

    #[inline(always)]
    fn add_products(self, other: Self, low: &mut __m512i, high: &mut __m512i) {
        for product in self.products(other) {
            // SAFETY: AVX-512 F is present (see the module).
            unsafe {
                *low = _mm512_add_epi64(*low, product);
                *high = _mm512_add_epi64(*high, _mm512_srli_epi64::<32>(product));
            }
        }
    }

    #[inline(always)]
    fn total(sums: __m512i) -> u64 {
        // SAFETY: AVX-512 F is present (see the module).
        unsafe { _mm512_reduce_add_epi64(sums) as u64 }
    }
}
