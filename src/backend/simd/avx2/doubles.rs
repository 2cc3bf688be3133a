//! Doubles of `avx2`; what is said there of intrinsics holds here.

use std::arch::x86_64::*;

use crate::backend::simd::lanes::NativeF64;

#[derive(Clone, Copy)]
pub(in crate::backend::simd) struct F64x4(__m256d);

impl NativeF64 for F64x4 {
    const LANES: usize = 4;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn load(x: *const f64) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`); the caller's promise.
        Self(unsafe { _mm256_loadu_pd(x) })
    }

    #[inline(always)]
    unsafe fn widen(x: *const f32) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`); the caller's promise.
        Self(unsafe { _mm256_cvtps_pd(_mm_loadu_ps(x)) })
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f64) {
        // SAFETY: AVX2 and FMA are present (see `avx2`); the caller's promise.
        unsafe { _mm256_storeu_pd(x, self.0) };
    }

    #[inline(always)]
    unsafe fn narrow(self, x: *mut f32) {
        // SAFETY: AVX2 and FMA are present (see `avx2`); the caller's promise.
        unsafe { _mm_storeu_ps(x, _mm256_cvtpd_ps(self.0)) };
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`).
        Self(unsafe { _mm256_set1_pd(x) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`).
        Self(unsafe { _mm256_add_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`).
        Self(unsafe { _mm256_sub_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`).
        Self(unsafe { _mm256_mul_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`).
        Self(unsafe { _mm256_div_pd(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // SAFETY: AVX2 and FMA are present (see `avx2`).
        Self(unsafe { _mm256_fmadd_pd(self.0, b.0, c.0) })
    }
}
