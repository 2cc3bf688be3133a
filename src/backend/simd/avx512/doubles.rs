//! Doubles of `avx512`; what is said there of intrinsics holds here.

use std::arch::x86_64::*;

use crate::backend::simd::lanes::NativeF64;

#[derive(Clone, Copy)]
pub(in crate::backend::simd) struct F64x8(__m512d);

impl NativeF64 for F64x8 {
    const LANES: usize = 8;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn load(x: *const f64) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`); the caller's promise.
        Self(unsafe { _mm512_loadu_pd(x) })
    }

    #[inline(always)]
    unsafe fn widen(x: *const f32) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`); the caller's promise.
        Self(unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(x)) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f64) {
        // SAFETY: AVX-512 F is present (see `avx512`); the caller's promise.
        unsafe { _mm512_storeu_pd(x, self.0) };
    }

    #[inline(always)]
    unsafe fn narrow(self, x: *mut f32) {
        // SAFETY: AVX-512 F is present (see `avx512`); the caller's promise.
        unsafe { _mm256_storeu_ps(x, _mm512_cvtpd_ps(self.0)) };
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`).
        Self(unsafe { _mm512_set1_pd(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`).
        Self(unsafe { _mm512_add_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`).
        Self(unsafe { _mm512_sub_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`).
        Self(unsafe { _mm512_mul_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`).
        Self(unsafe { _mm512_div_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: AVX-512 F is present (see `avx512`).
        Self(unsafe { _mm512_fmadd_pd(self.0, b.0, c.0) })
    }
}
