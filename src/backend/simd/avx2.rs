//! AVX2, FMA and F16C: a group is two 256-bit registers.
//!
//! Every intrinsic is sound because these types are used only by kernels that `isa::Dispatch` runs after
//! it has seen the features on the processor; loads and stores are unaligned.

mod doubles;

use std::arch::x86_64::*;

use half::{bf16, f16};

use self::doubles::F64x4;
use super::lanes::{Group, Machine, NativeF32, NativeU32};

/// AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Machine for Avx2 {
    type NativeF32 = F32x8;
    type NativeU32 = U32x8;
    type NativeF64 = F64x4;
    type F = Group<F32x8, 2>;
    type W = Group<U32x8, 2>;
    const GROUPS: usize = 8;

    #[inline(always)]
    fn count_halves(x: U32x8) -> U32x8 {
        // SAFETY: AVX2 is present (see the module).
        unsafe {
            let nibble = _mm256_set1_epi8(15);
            let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
            let low = _mm256_shuffle_epi8(table, _mm256_and_si256(x.0, nibble));
            let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(x.0), nibble));
            // Bytes to halves: the sum of two bytes times one.
            U32x8(_mm256_maddubs_epi16(_mm256_add_epi8(low, high), _mm256_set1_epi8(1)))
        }
    }

    #[inline(always)]
    fn add_parts<const W: u32>(x: U32x8, y: U32x8) -> U32x8 {
        // SAFETY: AVX2 is present (see the module).
        U32x8(unsafe {
            match W {
                8 => _mm256_add_epi8(x.0, y.0),
                16 => _mm256_add_epi16(x.0, y.0),
                _ => _mm256_add_epi32(x.0, y.0),
            }
        })
    }
}

#[derive(Clone, Copy)]
pub(super) struct F32x8(pub(super) __m256);

#[derive(Clone, Copy)]
pub(super) struct U32x8(pub(super) __m256i);

/// `-1` in the lanes `i` with `i & h != 0`, `1` elsewhere.
const fn signs(h: usize) -> [f32; 8] {
    let mut s = [1.0; 8];
    let mut i = 0;
    while i < 8 {
        if i & h != 0 {
            s[i] = -1.0;
        }
        i += 1;
    }
    s
}

impl NativeF32 for F32x8 {
    type Bits = U32x8;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(x: *const f32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        Self(unsafe { _mm256_loadu_ps(x) })
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const f16) -> Self {
        // SAFETY: F16C is present (see the module); the caller's promise.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(x.cast())) })
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const bf16) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        Self(unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f32) {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        unsafe { _mm256_storeu_ps(x, self.0) };
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    /// `swapped + sign * x`; the product with +-1 is exact, so the fused form rounds once, as the addition
    /// does.
    #[inline(always)]
    fn stage<const H: usize>(self) -> Self {
        let x = self.0;
        // SAFETY: AVX2 and FMA are present (see the module); the constant is 32 bytes.
        unsafe {
            let swapped = match H {
                1 => _mm256_permute_ps::<0b10_11_00_01>(x),
                2 => _mm256_permute_ps::<0b01_00_11_10>(x),
                _ => _mm256_permute2f128_ps::<1>(x, x),
            };
            Self(_mm256_fmadd_ps(x, _mm256_loadu_ps((const { &signs(H) }).as_ptr()), swapped))
        }
    }

    #[inline(always)]
    fn flip(self, bits: u32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits as i32), lane), lane);
            Self(_mm256_xor_ps(self.0, _mm256_castsi256_ps(_mm256_slli_epi32::<31>(set))))
        }
    }

    #[inline(always)]
    fn to_bits(self) -> U32x8 {
        // SAFETY: AVX2 and FMA are present (see the module).
        U32x8(unsafe { _mm256_castps_si256(self.0) })
    }

    #[inline(always)]
    fn truncate(self) -> U32x8 {
        // SAFETY: AVX2 and FMA are present (see the module).
        // What is out of range converts to -2^31: right below it; above, all bits flipped are 2^31 - 1.
        U32x8(unsafe {
            let above = _mm256_cmp_ps::<_CMP_GE_OQ>(self.0, _mm256_set1_ps(2_147_483_648.0));
            _mm256_xor_si256(_mm256_cvttps_epi32(self.0), _mm256_castps_si256(above))
        })
    }
}

/// Writes lane l of eight registers, in this order, as 32 bytes at `64 l`.
///
/// # Safety
/// `out` is writable for so many bytes.
#[inline(always)]
unsafe fn store_half(words: [U32x8; 8], out: *mut u8) {
    // SAFETY: AVX2 is present (see the module); the caller's promise.
    unsafe {
        let mut x = [_mm256_setzero_si256(); 8];
        for i in [0, 4] {
            let [w0, w1, w2, w3] = [words[i].0, words[i + 1].0, words[i + 2].0, words[i + 3].0];
            let (a, b) = (_mm256_unpacklo_epi32(w0, w1), _mm256_unpackhi_epi32(w0, w1));
            let (c, d) = (_mm256_unpacklo_epi32(w2, w3), _mm256_unpackhi_epi32(w2, w3));
            (x[i], x[i + 1]) = (_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c));
            (x[i + 2], x[i + 3]) = (_mm256_unpacklo_epi64(b, d), _mm256_unpackhi_epi64(b, d));
        }
        // Now 128-bit lane j of x[4 i + q] is quarter i of block 4 j + q.
        for q in 0..4 {
            let low = _mm256_permute2x128_si256::<0x20>(x[q], x[4 + q]);
            let high = _mm256_permute2x128_si256::<0x31>(x[q], x[4 + q]);
            _mm256_storeu_si256(out.add(64 * q).cast(), low);
            _mm256_storeu_si256(out.add(64 * (4 + q)).cast(), high);
        }
    }
}

impl U32x8 {
    /// The products of the lanes at even places, 64 bits each, and those at odd places.
    #[inline(always)]
    fn products(self, other: Self) -> [__m256i; 2] {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            let even = _mm256_mul_epu32(self.0, other.0);
            [even, _mm256_mul_epu32(_mm256_srli_epi64::<32>(self.0), _mm256_srli_epi64::<32>(other.0))]
        }
    }
}

impl NativeU32 for U32x8 {
    type Floats = F32x8;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(x: *const u32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        Self(unsafe { _mm256_loadu_si256(x.cast()) })
    }

    #[inline(always)]
    unsafe fn load_u16(x: *const u16) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        Self(unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast())) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut u32) {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        unsafe { _mm256_storeu_si256(x.cast(), self.0) };
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_set1_epi32(x as i32) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_min_epu32(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_max_epu32(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_and_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_or_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn shl(self, n: u32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_sllv_epi32(self.0, _mm256_set1_epi32(n as i32)) })
    }

    #[inline(always)]
    fn shr(self, n: u32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_srlv_epi32(self.0, _mm256_set1_epi32(n as i32)) })
    }

    #[inline(always)]
    fn sar(self, n: u32) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_srav_epi32(self.0, _mm256_set1_epi32(n as i32)) })
    }

    #[inline(always)]
    fn rotl<const N: i32>(self) -> Self {
        // Whole bytes move in one shuffle; other rotations are two shifts.
        const BY_16: [i8; 16] = [2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13];
        const BY_8: [i8; 16] = [3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14];
        // SAFETY: AVX2 and FMA are present (see the module); the constants are 16 bytes each.
        unsafe {
            if N != 16 && N != 8 {
                return self.shl(N as u32).or(self.shr(32 - N as u32));
            }
            let order = if N == 16 { &BY_16 } else { &BY_8 };
            let order = _mm256_broadcastsi128_si256(_mm_loadu_si128(order.as_ptr().cast()));
            Self(_mm256_shuffle_epi8(self.0, order))
        }
    }

    #[inline(always)]
    fn mul_lo(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_mullo_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn where_equal(self, other: Self, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 is present (see the module).
        Self(unsafe { _mm256_blendv_epi8(b.0, a.0, _mm256_cmpeq_epi32(self.0, other.0)) })
    }

    #[inline(always)]
    fn increment_where_below(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 is present (see the module). True is -1.
        Self(unsafe { _mm256_sub_epi32(self.0, _mm256_cmpgt_epi32(b.0, a.0)) })
    }

    #[inline(always)]
    fn lookup16(table: &[u32; 16], index: Self) -> Self {
        let (low, high) = (table.as_ptr().cast(), table[8..].as_ptr().cast());
        // SAFETY: AVX2 is present (see the module); both halves of the table are 32 bytes.
        unsafe {
            let low = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(_mm256_loadu_si256(low), index.0));
            let high = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(_mm256_loadu_si256(high), index.0));
            // The blend looks at the top bit alone.
            let bit = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index.0));
            Self(_mm256_castps_si256(_mm256_blendv_ps(low, high, bit)))
        }
    }

    #[inline(always)]
    unsafe fn store_transposed(words: [Self; 16], out: *mut u8) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = words;
        // SAFETY: the caller's promise: two halves of 32 bytes in each of 8 blocks.
        unsafe {
            store_half([a, b, c, d, e, f, g, h], out);
            store_half([i, j, k, l, m, n, o, p], out.add(32));
        }
    }

    #[inline(always)]
    unsafe fn repeat(x: *const u32, count: usize) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module); the caller's promise.
        Self(unsafe {
            match count {
                1 => _mm256_set1_epi32(x.cast::<i32>().read_unaligned()),
                2 => _mm256_set1_epi64x(x.cast::<i64>().read_unaligned()),
                4 => _mm256_broadcastsi128_si256(_mm_loadu_si128(x.cast())),
                _ => _mm256_loadu_si256(x.cast()),
            }
        })
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            let (low, high) = (_mm256_unpacklo_epi32(self.0, other.0), _mm256_unpackhi_epi32(self.0, other.0));
            (Self(_mm256_permute2x128_si256::<0x20>(low, high)), Self(_mm256_permute2x128_si256::<0x31>(low, high)))
        }
    }

    #[inline(always)]
    fn separate(self, other: Self) -> (Self, Self) {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            let (a, b) = (_mm256_castsi256_ps(self.0), _mm256_castsi256_ps(other.0));
            let even = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
            let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));
            (
                Self(_mm256_permute4x64_epi64::<0b11_01_10_00>(even)),
                Self(_mm256_permute4x64_epi64::<0b11_01_10_00>(odd)),
            )
        }
    }

    #[inline(always)]
    fn increment_where_less(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            // Unsigned order by the signed comparison of numbers with a flipped top bit; true is -1.
            let flip = _mm256_set1_epi32(i32::MIN);
            let less = _mm256_cmpgt_epi32(_mm256_xor_si256(b.0, flip), _mm256_xor_si256(a.0, flip));
            Self(_mm256_sub_epi32(self.0, less))
        }
    }

    #[inline(always)]
    fn to_floats(self) -> F32x8 {
        // SAFETY: AVX2 and FMA are present (see the module).
        F32x8(unsafe { _mm256_cvtepi32_ps(self.0) })
    }

    type Sums = __m256i;

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_abs_epi32(self.0) })
    }

    #[inline(always)]
    fn negate_where_negative(self, sign: Self) -> Self {
        let sign = sign.sar(31);
        self.xor(sign).sub(sign)
    }

    #[inline(always)]
    fn mul_shr<const S: u32>(self, other: Self) -> Self {
        let [even, odd] = self.products(other);
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            // The word that is wanted of an odd product, moved to the upper half.
            let odd = _mm256_sll_epi64(odd, _mm_cvtsi32_si128(32 - S as i32));
            let even = _mm256_srl_epi64(even, _mm_cvtsi32_si128(S as i32));
            Self(_mm256_blend_epi32::<0b1010_1010>(even, odd))
        }
    }

    #[inline(always)]
    fn no_sums() -> __m256i {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn clamp_signed(self, low: Self, high: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        Self(unsafe { _mm256_max_epi32(_mm256_min_epi32(self.0, high.0), low.0) })
    }

    #[inline(always)]
    fn increment_where_unequal(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            // True is -1: one more everywhere, one less where equal.
            let equal = _mm256_cmpeq_epi32(a.0, b.0);
            Self(_mm256_add_epi32(_mm256_add_epi32(self.0, _mm256_set1_epi32(1)), equal))
        }
    }

    #[inline(always)]
    fn add_squares(self, low: &mut __m256i, high: &mut __m256i) {
        // SAFETY: AVX2 and FMA are present (see the module).
        unsafe {
            let odd = _mm256_shuffle_epi32::<0b1011_0001>(self.0);
            let pair = _mm256_add_epi64(_mm256_mul_epi32(self.0, self.0), _mm256_mul_epi32(odd, odd));
            *low = _mm256_add_epi64(*low, pair);
            *high = _mm256_add_epi64(*high, _mm256_srli_epi64::<32>(pair));
        }
    }

    #[inline(always)]
    fn add_products(self, other: Self, low: &mut __m256i, high: &mut __m256i) {
        for product in self.products(other) {
            // SAFETY: AVX2 and FMA are present (see the module).
            unsafe {
                *low = _mm256_add_epi64(*low, product);
                *high = _mm256_add_epi64(*high, _mm256_srli_epi64::<32>(product));
            }
        }
    }

    #[inline(always)]
    fn total(sums: __m256i) -> u64 {
        let mut parts = [0u64; 4];
        // SAFETY: AVX2 and FMA are present (see the module); the array is writable for 32 bytes.
        unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast(), sums) };
        parts.into_iter().fold(0, u64::wrapping_add)
    }
}
