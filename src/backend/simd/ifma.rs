//! Eight lanes of 52-bit products: AVX-512 with IFMA.
//!
//! Every intrinsic is sound because the type is used only by kernels that `isa::Dispatch::run_ifma` runs after it
//! has seen the features on the processor; loads and stores are unaligned.

use std::arch::x86_64::*;

/// Eight `u64`, of which products see the low 52 bits.
#[derive(Clone, Copy)]
pub(super) struct Wide(__m512i);

impl Wide {
    /// The same value in every lane.
    #[inline(always)]
    pub(super) fn splat(x: u64) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_set1_epi64(x as i64) })
    }

    /// Eight words, zero-extended.
    #[inline(always)]
    pub(super) fn widen(x: &[u32; 8]) -> Self {
        // SAFETY: AVX-512 F is present (see the module); `x` is readable for 32 bytes.
        Self(unsafe { _mm512_cvtepu32_epi64(_mm256_loadu_si256(x.as_ptr().cast())) })
    }

    /// Reads eight lanes.
    #[inline(always)]
    pub(super) fn load(x: &[u64; 8]) -> Self {
        // SAFETY: AVX-512 F is present (see the module); `x` is readable for 64 bytes.
        Self(unsafe { _mm512_loadu_si512(x.as_ptr().cast()) })
    }

    /// Writes eight lanes.
    #[inline(always)]
    pub(super) fn store(self, x: &mut [u64; 8]) {
        // SAFETY: AVX-512 F is present (see the module); `x` is writable for 64 bytes.
        unsafe { _mm512_storeu_si512(x.as_mut_ptr().cast(), self.0) };
    }

    /// `x0 x1 x0 x1 ...`
    #[inline(always)]
    pub(super) fn repeat2(x: &[u64; 2]) -> Self {
        // SAFETY: AVX-512 F is present (see the module); `x` is readable for 16 bytes.
        Self(unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(x.as_ptr().cast())) })
    }

    /// `x0 x1 x2 x3 x0 x1 x2 x3`
    #[inline(always)]
    pub(super) fn repeat4(x: &[u64; 4]) -> Self {
        // SAFETY: AVX-512 F is present (see the module); `x` is readable for 32 bytes.
        Self(unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(x.as_ptr().cast())) })
    }

    /// Lane by lane mod 2^64.
    #[inline(always)]
    pub(super) fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_add_epi64(self.0, other.0) })
    }

    /// Lane by lane mod 2^64.
    #[inline(always)]
    pub(super) fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_sub_epi64(self.0, other.0) })
    }

    /// `self` plus the low 52 bits of the product of the low 52 bits of a and b.
    #[inline(always)]
    pub(super) fn add_low(self, a: Self, b: Self) -> Self {
        // SAFETY: AVX-512 F and IFMA are present (see the module).
        Self(unsafe { _mm512_madd52lo_epu64(self.0, a.0, b.0) })
    }

    /// Bits 52 to 103 of the product of the low 52 bits.
    #[inline(always)]
    pub(super) fn high(self, other: Self) -> Self {
        // SAFETY: AVX-512 F and IFMA are present (see the module).
        Self(unsafe { _mm512_madd52hi_epu64(_mm512_setzero_si512(), self.0, other.0) })
    }

    /// `a0 b0 a1 b1 ...`: the first eight, the second eight.
    #[inline(always)]
    pub(super) fn interleave(self, other: Self) -> (Self, Self) {
        const LOW: [u64; 8] = [0, 8, 1, 9, 2, 10, 3, 11];
        const HIGH: [u64; 8] = [4, 12, 5, 13, 6, 14, 7, 15];
        self.pick(other, &LOW, &HIGH)
    }

    /// [`Self::interleave`] undone.
    #[inline(always)]
    pub(super) fn separate(self, other: Self) -> (Self, Self) {
        const EVEN: [u64; 8] = [0, 2, 4, 6, 8, 10, 12, 14];
        const ODD: [u64; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
        self.pick(other, &EVEN, &ODD)
    }

    #[inline(always)]
    fn pick(self, other: Self, first: &[u64; 8], second: &[u64; 8]) -> (Self, Self) {
        let (f, s) = (Self::load(first).0, Self::load(second).0);
        // SAFETY: AVX-512 F is present (see the module).
        unsafe {
            (Self(_mm512_permutex2var_epi64(self.0, f, other.0)), Self(_mm512_permutex2var_epi64(self.0, s, other.0)))
        }
    }

    /// The words at even places of sixteen, and those at odd places.
    #[inline(always)]
    pub(super) fn split(x: &[u32; 16]) -> (Self, Self) {
        // SAFETY: AVX-512 F is present (see the module); `x` is readable for 64 bytes.
        unsafe {
            let x = _mm512_loadu_si512(x.as_ptr().cast());
            (Self(_mm512_maskz_mov_epi32(0x5555, x)), Self(_mm512_srli_epi64::<32>(x)))
        }
    }

    /// [`Self::split`] undone: the low words of `self` at even places, those of `odd` at odd places, each less p if
    /// it is at least p; `p` twice in every lane.
    #[inline(always)]
    pub(super) fn join_reduced(self, odd: Self, p: Self, x: &mut [u32; 16]) {
        // SAFETY: AVX-512 F is present (see the module); `x` is writable for 64 bytes.
        unsafe {
            let v = _mm512_mask_shuffle_epi32::<0b10_10_00_00>(self.0, 0xaaaa, odd.0);
            let v = _mm512_min_epu32(v, _mm512_sub_epi32(v, p.0));
            _mm512_storeu_si512(x.as_mut_ptr().cast(), v);
        }
    }

    /// The low words of `self`, then those of `other`, reduced as in [`Self::join_reduced`].
    #[inline(always)]
    pub(super) fn narrow_reduced(self, other: Self, p: Self, x: &mut [u32; 16]) {
        const EVEN: [u32; 16] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
        // SAFETY: AVX-512 F is present (see the module); `x` is writable for 64 bytes, the choice is 64 bytes.
        unsafe {
            let choice = _mm512_loadu_si512(EVEN.as_ptr().cast());
            let v = _mm512_permutex2var_epi32(self.0, choice, other.0);
            let v = _mm512_min_epu32(v, _mm512_sub_epi32(v, p.0));
            _mm512_storeu_si512(x.as_mut_ptr().cast(), v);
        }
    }
}
