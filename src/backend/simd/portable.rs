//! Plain arrays as registers; the compiler picks the instructions that its target guarantees.

use half::{bf16, f16};

use super::lanes::{F16_EXPONENT, F16_INFINITE, F16_NORMAL, F16_UNIT, Group, Machine, NativeF32, NativeF64, NativeU32};

/// Whatever the compiler's target has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Machine for Portable {
    type NativeF32 = F32x16;
    type NativeU32 = U32x16;
    type NativeF64 = F64x2;
    type F = Group<F32x16, 1>;
    type W = Group<U32x16, 1>;
    const GROUPS: usize = 4;
    const REGISTERS: bool = false;
}

#[derive(Clone, Copy)]
pub(super) struct F32x16([f32; 16]);

#[derive(Clone, Copy)]
pub(super) struct U32x16([u32; 16]);

#[inline(always)]
fn zip<T: Copy>(mut a: [T; 16], b: [T; 16], f: impl Fn(T, T) -> T) -> [T; 16] {
    for i in 0..16 {
        a[i] = f(a[i], b[i]);
    }
    a
}

impl NativeF32 for F32x16 {
    type Bits = U32x16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(x: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { x.cast::<[f32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_f16(x: *const f16) -> Self {
        // SAFETY: the caller's promise.
        let halves = unsafe { x.cast::<[u16; 16]>().read_unaligned() };
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = widened(u32::from(halves[i]));
        }
        Self(out)
    }

    #[inline(always)]
    unsafe fn load_bf16(x: *const bf16) -> Self {
        // SAFETY: the caller's promise.
        let halves = unsafe { x.cast::<[u16; 16]>().read_unaligned() };
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = f32::from_bits(u32::from(halves[i]) << 16);
        }
        Self(out)
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { x.cast::<[f32; 16]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([x; 16])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| a + b,
        ))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| a - b,
        ))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| a * b,
        ))
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        self.mul(b).add(c)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| if a < b { a } else { b },
        ))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| if a > b { a } else { b },
        ))
    }

    #[inline(always)]
    fn stage<const H: usize>(mut self) -> Self {
        let x = self.0;
        for i in 0..16 {
            self.0[i] = if i & H == 0 { x[i] + x[i ^ H] } else { x[i ^ H] - x[i] };
        }
        self
    }

    #[inline(always)]
    fn flip(mut self, bits: u32) -> Self {
        for i in 0..16 {
            self.0[i] = f32::from_bits(self.0[i].to_bits() ^ ((bits >> i) << 31));
        }
        self
    }

    #[inline(always)]
    fn to_bits(self) -> U32x16 {
        U32x16(self.0.map(f32::to_bits))
    }

    #[inline(always)]
    fn truncate(self) -> U32x16 {
        U32x16(self.0.map(
            #[inline(always)]
            |x| x as i32 as u32,
        ))
    }
}

/// The value of the bits of a number of half precision, without a branch.
#[inline(always)]
fn widened(half: u32) -> f32 {
    let m = half & 0x7fff;
    let small = (m as f32 * F16_UNIT).to_bits();
    let large = (m << 13) + if m < F16_INFINITE { F16_EXPONENT } else { 2 * F16_EXPONENT };
    let wide = if m < F16_NORMAL { small } else { large };
    f32::from_bits(wide | (half & 0x8000) << 16)
}

/// All ones if `a == b`, else zero, without a branch.
#[inline(always)]
const fn equal(a: u32, b: u32) -> u32 {
    let x = a ^ b;
    ((x | x.wrapping_neg()) >> 31).wrapping_sub(1)
}

impl NativeU32 for U32x16 {
    type Floats = F32x16;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(x: *const u32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { x.cast::<[u32; 16]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_u16(x: *const u16) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { x.cast::<[u16; 16]>().read_unaligned() }.map(u32::from))
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { x.cast::<[u32; 16]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    fn splat(x: u32) -> Self {
        Self([x; 16])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(zip(self.0, other.0, u32::wrapping_add))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(zip(self.0, other.0, u32::wrapping_sub))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(zip(self.0, other.0, u32::min))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(zip(self.0, other.0, u32::max))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| a & b,
        ))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| a | b,
        ))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| a ^ b,
        ))
    }

    #[inline(always)]
    fn shl(self, n: u32) -> Self {
        Self(self.0.map(
            #[inline(always)]
            |x| x << n,
        ))
    }

    #[inline(always)]
    fn shr(self, n: u32) -> Self {
        Self(self.0.map(
            #[inline(always)]
            |x| x >> n,
        ))
    }

    #[inline(always)]
    fn sar(self, n: u32) -> Self {
        Self(self.0.map(
            #[inline(always)]
            |x| (x as i32 >> n) as u32,
        ))
    }

    #[inline(always)]
    fn rotl<const N: i32>(self) -> Self {
        Self(self.0.map(
            #[inline(always)]
            |x| x.rotate_left(N as u32),
        ))
    }

    #[inline(always)]
    fn mul_lo(self, other: Self) -> Self {
        Self(zip(self.0, other.0, u32::wrapping_mul))
    }

    #[inline(always)]
    fn where_equal(self, other: Self, a: Self, mut b: Self) -> Self {
        for i in 0..16 {
            b.0[i] ^= equal(self.0[i], other.0[i]) & (a.0[i] ^ b.0[i]);
        }
        b
    }

    #[inline(always)]
    fn increment_where_below(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self.0[i] = self.0[i].wrapping_add(u32::from((a.0[i] as i32) < b.0[i] as i32));
        }
        self
    }

    #[inline(always)]
    fn lookup16(table: &[u32; 16], index: Self) -> Self {
        let mut found = [0; 16];
        for (k, &word) in table.iter().enumerate() {
            for (found, index) in found.iter_mut().zip(index.0) {
                *found |= equal(index & 15, k as u32) & word;
            }
        }
        Self(found)
    }

    #[inline(always)]
    unsafe fn store_transposed(words: [Self; 16], out: *mut u8) {
        for l in 0..16 {
            let block: [u32; 16] = std::array::from_fn(
                #[inline(always)]
                |w| words[w].0[l].to_le(),
            );
            // SAFETY: the caller's promise.
            unsafe { out.add(64 * l).cast::<[u32; 16]>().write_unaligned(block) };
        }
    }

    #[inline(always)]
    unsafe fn repeat(x: *const u32, count: usize) -> Self {
        let mut out = [0; 16];
        for i in 0..16 {
            // SAFETY: the caller's promise; i mod count is below count.
            out[i] = unsafe { x.add(i % count).read_unaligned() };
        }
        Self(out)
    }

    #[inline(always)]
    fn interleave(self, other: Self) -> (Self, Self) {
        let (mut low, mut high) = (self, other);
        for i in 0..8 {
            (low.0[2 * i], low.0[2 * i + 1]) = (self.0[i], other.0[i]);
            (high.0[2 * i], high.0[2 * i + 1]) = (self.0[8 + i], other.0[8 + i]);
        }
        (low, high)
    }

    #[inline(always)]
    fn separate(self, other: Self) -> (Self, Self) {
        let (mut even, mut odd) = (self, other);
        for i in 0..8 {
            (even.0[i], odd.0[i]) = (self.0[2 * i], self.0[2 * i + 1]);
            (even.0[8 + i], odd.0[8 + i]) = (other.0[2 * i], other.0[2 * i + 1]);
        }
        (even, odd)
    }

    #[inline(always)]
    fn increment_where_less(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self.0[i] = self.0[i].wrapping_add(u32::from(a.0[i] < b.0[i]));
        }
        self
    }

    #[inline(always)]
    fn to_floats(self) -> F32x16 {
        let mut out = [0.0; 16];
        for i in 0..16 {
            out[i] = self.0[i] as i32 as f32;
        }
        F32x16(out)
    }

    type Sums = u64;

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(
            #[inline(always)]
            |x| (x as i32).unsigned_abs(),
        ))
    }

    #[inline(always)]
    fn negate_where_negative(self, sign: Self) -> Self {
        let sign = sign.sar(31);
        self.xor(sign).sub(sign)
    }

    #[inline(always)]
    fn mul_shr<const S: u32>(self, other: Self) -> Self {
        Self(zip(
            self.0,
            other.0,
            #[inline(always)]
            |a, b| ((u64::from(a) * u64::from(b)) >> S) as u32,
        ))
    }

    #[inline(always)]
    fn no_sums() -> u64 {
        0
    }

    #[inline(always)]
    fn clamp_signed(mut self, low: Self, high: Self) -> Self {
        for i in 0..16 {
            self.0[i] = (self.0[i] as i32).min(high.0[i] as i32).max(low.0[i] as i32) as u32;
        }
        self
    }

    #[inline(always)]
    fn increment_where_unequal(mut self, a: Self, b: Self) -> Self {
        for i in 0..16 {
            self.0[i] = self.0[i].wrapping_add(u32::from(a.0[i] != b.0[i]));
        }
        self
    }

    #[inline(always)]
    fn add_squares(self, low: &mut u64, high: &mut u64) {
        for i in 0..16 {
            let v = i64::from(self.0[i] as i32);
            let square = (v * v) as u64;
            *low = low.wrapping_add(square);
            *high = high.wrapping_add(square >> 32);
        }
    }

    #[inline(always)]
    fn add_products(self, other: Self, low: &mut u64, high: &mut u64) {
        for i in 0..16 {
            let product = u64::from(self.0[i]) * u64::from(other.0[i]);
            *low = low.wrapping_add(product);
            *high = high.wrapping_add(product >> 32);
        }
    }

    #[inline(always)]
    fn total(sums: u64) -> u64 {
        sums
    }
}

/// Two lanes, as in a register of SSE2: tiles of them stay in registers.
#[derive(Clone, Copy)]
pub(super) struct F64x2([f64; 2]);

impl NativeF64 for F64x2 {
    const LANES: usize = 2;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn load(x: *const f64) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { x.cast::<[f64; 2]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn widen(x: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { x.cast::<[f32; 2]>().read_unaligned() }.map(f64::from))
    }

    #[inline(always)]
    unsafe fn store(self, x: *mut f64) {
        // SAFETY: the caller's promise.
        unsafe { x.cast::<[f64; 2]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn narrow(self, x: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { x.cast::<[f32; 2]>().write_unaligned([self.0[0] as f32, self.0[1] as f32]) };
    }

    #[inline(always)]
    fn splat(x: f64) -> Self {
        Self([x; 2])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self([self.0[0] + other.0[0], self.0[1] + other.0[1]])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self([self.0[0] - other.0[0], self.0[1] - other.0[1]])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self([self.0[0] * other.0[0], self.0[1] * other.0[1]])
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self([self.0[0] / other.0[0], self.0[1] / other.0[1]])
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        self.mul(b).add(c)
    }
}
