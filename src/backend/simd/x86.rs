//! The lanes on AVX2 and AVX-512.
//!
//! Every intrinsic is sound because these types are used only by kernels that `isa::Dispatch` runs after
//! it has seen the features on the processor; loads and stores are unaligned and of array references.

use std::arch::x86_64::*;

use super::lanes::Lanes;

/// One 512-bit register.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// Two 256-bit registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2([__m256; 2]);

/// `-1` in the lanes `i` with `i & h != 0`, `1` elsewhere.
const fn signs<const N: usize>(h: usize) -> [f32; N] {
    let mut s = [1.0; N];
    let mut i = 0;
    while i < N {
        if i & h != 0 {
            s[i] = -1.0;
        }
        i += 1;
    }
    s
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        // SAFETY: AVX-512 F is present (see the module); `x` is readable for 64 bytes.
        Self(unsafe { _mm512_loadu_ps(x.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, x: &mut [f32; 16]) {
        // SAFETY: AVX-512 F is present (see the module); `x` is writable for 64 bytes.
        unsafe { _mm512_storeu_ps(x.as_mut_ptr(), self.0) };
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
    fn scale(self, factor: f32) -> Self {
        // SAFETY: AVX-512 F is present (see the module).
        Self(unsafe { _mm512_mul_ps(self.0, _mm512_set1_ps(factor)) })
    }

    /// A stage is `swapped + sign * x`; the product with +-1 is exact, so the fused form rounds once, as
    /// the addition does.
    #[inline(always)]
    fn hadamard(self) -> Self {
        const S: [[f32; 16]; 4] = [signs(1), signs(2), signs(4), signs(8)];
        // SAFETY: AVX-512 F is present (see the module); the constants are 64 bytes each.
        unsafe {
            let x = self.0;
            let x = _mm512_fmadd_ps(x, _mm512_loadu_ps(S[0].as_ptr()), _mm512_permute_ps::<0b10_11_00_01>(x));
            let x = _mm512_fmadd_ps(x, _mm512_loadu_ps(S[1].as_ptr()), _mm512_permute_ps::<0b01_00_11_10>(x));
            let x = _mm512_fmadd_ps(x, _mm512_loadu_ps(S[2].as_ptr()), _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x));
            Self(_mm512_fmadd_ps(x, _mm512_loadu_ps(S[3].as_ptr()), _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x)))
        }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        // SAFETY: AVX is present (see the module); `x` is readable for 64 bytes.
        Self(unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] })
    }

    #[inline(always)]
    fn store(self, x: &mut [f32; 16]) {
        // SAFETY: AVX is present (see the module); `x` is writable for 64 bytes.
        unsafe {
            _mm256_storeu_ps(x.as_mut_ptr(), self.0[0]);
            _mm256_storeu_ps(x.as_mut_ptr().add(8), self.0[1]);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX is present (see the module).
        Self(unsafe { [_mm256_add_ps(self.0[0], other.0[0]), _mm256_add_ps(self.0[1], other.0[1])] })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX is present (see the module).
        Self(unsafe { [_mm256_sub_ps(self.0[0], other.0[0]), _mm256_sub_ps(self.0[1], other.0[1])] })
    }

    #[inline(always)]
    fn scale(self, factor: f32) -> Self {
        // SAFETY: AVX is present (see the module).
        unsafe {
            let f = _mm256_set1_ps(factor);
            Self([_mm256_mul_ps(self.0[0], f), _mm256_mul_ps(self.0[1], f)])
        }
    }

    #[inline(always)]
    fn hadamard(self) -> Self {
        const S: [[f32; 8]; 3] = [signs(1), signs(2), signs(4)];
        // SAFETY: AVX and FMA are present (see the module); the constants are 32 bytes each.
        unsafe {
            let mut halves = self.0;
            for x in &mut halves {
                *x = _mm256_fmadd_ps(*x, _mm256_loadu_ps(S[0].as_ptr()), _mm256_permute_ps::<0b10_11_00_01>(*x));
                *x = _mm256_fmadd_ps(*x, _mm256_loadu_ps(S[1].as_ptr()), _mm256_permute_ps::<0b01_00_11_10>(*x));
                *x = _mm256_fmadd_ps(*x, _mm256_loadu_ps(S[2].as_ptr()), _mm256_permute2f128_ps::<1>(*x, *x));
            }
            Self([_mm256_add_ps(halves[0], halves[1]), _mm256_sub_ps(halves[0], halves[1])])
        }
    }
}
