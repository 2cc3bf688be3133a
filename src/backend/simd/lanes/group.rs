//! Sixteen lanes made of native registers, whatever their width.

use half::{bf16, f16};

use super::{Floats, NativeF32, NativeU32, Words};

/// Sixteen lanes in K native registers, the lanes of register k at `16 k / K`.
#[derive(Clone, Copy)]
pub(in crate::backend::simd) struct Group<N, const K: usize>([N; K]);

impl<N: NativeF32, const K: usize> Floats for Group<N, K>
where
    N::Bits: NativeU32<Floats = N>,
{
    type Words = Group<N::Bits, K>;

    #[inline(always)]
    fn load(x: &[f32; 16]) -> Self {
        const { assert!(N::LANES * K == 16) };
        // SAFETY: register k reads LANES floats at LANES k, and LANES K = 16.
        let mut out = [unsafe { N::load(x.as_ptr()) }; K];
        for k in 1..K {
            // SAFETY: as above.
            out[k] = unsafe { N::load(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn load_f16(x: &[f16; 16]) -> Self {
        const { assert!(N::LANES * K == 16) };
        // SAFETY: register k reads LANES numbers at LANES k, and LANES K = 16.
        let mut out = [unsafe { N::load_f16(x.as_ptr()) }; K];
        for k in 1..K {
            // SAFETY: as above.
            out[k] = unsafe { N::load_f16(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn load_bf16(x: &[bf16; 16]) -> Self {
        const { assert!(N::LANES * K == 16) };
        // SAFETY: register k reads LANES numbers at LANES k, and LANES K = 16.
        let mut out = [unsafe { N::load_bf16(x.as_ptr()) }; K];
        for k in 1..K {
            // SAFETY: as above.
            out[k] = unsafe { N::load_bf16(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn store(self, x: &mut [f32; 16]) {
        const { assert!(N::LANES * K == 16) };
        for k in 0..K {
            // SAFETY: register k writes LANES floats at LANES k, and LANES K = 16.
            unsafe { self.0[k].store(x.as_mut_ptr().add(k * N::LANES)) };
        }
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([N::splat(x); K])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].add(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].sub(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].mul(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn mul_add(mut self, b: Self, c: Self) -> Self {
        for k in 0..K {
            self.0[k] = self.0[k].mul_add(b.0[k], c.0[k]);
        }
        self
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].min(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].max(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn stage<const H: usize>(mut self) -> Self {
        if H < N::LANES {
            for k in 0..K {
                self.0[k] = self.0[k].stage::<H>();
            }
            return self;
        }
        let h = H / N::LANES;
        for k in 0..K {
            if k & h == 0 {
                (self.0[k], self.0[k + h]) = (self.0[k].add(self.0[k + h]), self.0[k].sub(self.0[k + h]));
            }
        }
        self
    }

    #[inline(always)]
    fn load_stage<const H: usize>(x: &[f32; 16]) -> Self {
        if H >= N::LANES {
            return Self::load(x).stage::<H>();
        }
        const { assert!(N::LANES * K == 16) };
        let mut out = [N::splat(0.0); K];
        for k in 0..K {
            // SAFETY: register k reads LANES floats at LANES k, and LANES K = 16.
            out[k] = unsafe { N::load_stage::<H>(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn flip(self, bits: u32) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].flip(bits >> (k * N::LANES));
        }
        out
    }

    #[inline(always)]
    fn to_bits(self) -> Self::Words {
        let mut out = [self.0[0].to_bits(); K];
        for k in 1..K {
            out[k] = self.0[k].to_bits();
        }
        Group(out)
    }

    #[inline(always)]
    fn truncate(self) -> Self::Words {
        let mut out = [self.0[0].truncate(); K];
        for k in 1..K {
            out[k] = self.0[k].truncate();
        }
        Group(out)
    }
}

impl<N: NativeU32, const K: usize> Words for Group<N, K>
where
    N::Floats: Copy,
{
    type Floats = Group<N::Floats, K>;

    #[inline(always)]
    fn load(x: &[u32; 16]) -> Self {
        const { assert!(N::LANES * K == 16) };
        // SAFETY: register k reads LANES words at LANES k, and LANES K = 16.
        let mut out = [unsafe { N::load(x.as_ptr()) }; K];
        for k in 1..K {
            // SAFETY: as above.
            out[k] = unsafe { N::load(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn load_u16(x: &[u16; 16]) -> Self {
        const { assert!(N::LANES * K == 16) };
        // SAFETY: register k reads LANES halfwords at LANES k, and LANES K = 16.
        let mut out = [unsafe { N::load_u16(x.as_ptr()) }; K];
        for k in 1..K {
            // SAFETY: as above.
            out[k] = unsafe { N::load_u16(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn store(self, x: &mut [u32; 16]) {
        const { assert!(N::LANES * K == 16) };
        for k in 0..K {
            // SAFETY: register k writes LANES words at LANES k, and LANES K = 16.
            unsafe { self.0[k].store(x.as_mut_ptr().add(k * N::LANES)) };
        }
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        Self([N::splat(x); K])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].add(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].sub(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].min(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].max(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].and(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].or(other.0[k]);
        }
        out
    }

    #[cfg(test)]
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].xor(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn shl(self, n: u32) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].shl(n);
        }
        out
    }

    #[inline(always)]
    fn shr(self, n: u32) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].shr(n);
        }
        out
    }

    #[inline(always)]
    fn sar(self, n: u32) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].sar(n);
        }
        out
    }

    #[cfg(test)]
    #[inline(always)]
    fn rotl<const R: i32>(self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].rotl::<R>();
        }
        out
    }

    #[inline(always)]
    fn mul_lo(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].mul_lo(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn repeat<const C: usize>(x: &[u32; C]) -> Self {
        const { assert!(C.is_power_of_two() && C <= 16) };
        let count = if C < N::LANES { C } else { N::LANES };
        let mut out = [N::splat(0); K];
        for k in 0..K {
            // SAFETY: both are powers of two, so that count words at a multiple of count mod C lie within C.
            out[k] = unsafe { N::repeat(x.as_ptr().add(k * N::LANES % C), count) };
        }
        Self(out)
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        let (mut first, mut second) = (self, other);
        for k in 0..K {
            let (low, high) = self.0[k].interleave(other.0[k]);
            for (i, half) in [(2 * k, low), (2 * k + 1, high)] {
                if i < K { first.0[i] = half } else { second.0[i - K] = half }
            }
        }
        (first, second)
    }

    #[inline(always)]
    fn separate(self, other: Self) -> (Self, Self) {
        let (mut even, mut odd) = (self, other);
        for k in 0..K {
            // Neighbors in the row of self and then other: both of one of them, or one of each if K = 1.
            let (i, j) = (2 * k, 2 * k + 1);
            let first = if i < K { self.0[i] } else { other.0[i - K] };
            let second = if j < K { self.0[j] } else { other.0[j - K] };
            (even.0[k], odd.0[k]) = first.separate(second);
        }
        (even, odd)
    }

    #[inline(always)]
    fn increment_where_less(mut self, a: Self, b: Self) -> Self {
        for k in 0..K {
            self.0[k] = self.0[k].increment_where_less(a.0[k], b.0[k]);
        }
        self
    }

    #[inline(always)]
    fn to_floats(self) -> Self::Floats {
        let mut out = [self.0[0].to_floats(); K];
        for k in 1..K {
            out[k] = self.0[k].to_floats();
        }
        Group(out)
    }

    type Sums = N::Sums;

    #[inline(always)]
    fn abs(self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].abs();
        }
        out
    }

    #[inline(always)]
    fn negate_where_negative(self, sign: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].negate_where_negative(sign.0[k]);
        }
        out
    }

    #[inline(always)]
    fn mul_shr<const S: u32>(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].mul_shr::<S>(other.0[k]);
        }
        out
    }

    #[inline(always)]
    fn no_sums() -> N::Sums {
        N::no_sums()
    }

    #[inline(always)]
    fn clamp_signed(mut self, low: Self, high: Self) -> Self {
        for k in 0..K {
            self.0[k] = self.0[k].clamp_signed(low.0[k], high.0[k]);
        }
        self
    }

    #[inline(always)]
    fn increment_where_unequal(mut self, a: Self, b: Self) -> Self {
        for k in 0..K {
            self.0[k] = self.0[k].increment_where_unequal(a.0[k], b.0[k]);
        }
        self
    }

    #[inline(always)]
    fn add_squares(self, low: &mut N::Sums, high: &mut N::Sums) {
        for k in 0..K {
            self.0[k].add_squares(low, high);
        }
    }

    #[inline(always)]
    fn add_products(self, other: Self, low: &mut N::Sums, high: &mut N::Sums) {
        for k in 0..K {
            self.0[k].add_products(other.0[k], low, high);
        }
    }

    #[inline(always)]
    fn total(sums: N::Sums) -> u64 {
        N::total(sums)
    }
}
