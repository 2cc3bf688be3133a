//! Registers and groups of sixteen lanes: the small vector traits that every kernel is written over.
//!
//! An instruction set gives its *native registers* ([`NativeF32`], [`NativeU32`]: `avx512`, `avx2`, `neon`,
//! `portable`), nothing more. A [`Group`] of K of them is sixteen lanes wide everywhere, so that a kernel's
//! shuffles and blocks are the same on all of them, and so are its bits.
//!
//! Everything is `#[inline(always)]`: only then is it compiled with the features of the kernel's shim. Closures,
//! `array::map` and `array::from_fn` are not, and registers would then travel through memory: hence the loops.

use half::{bf16, f16};

mod group;
#[cfg(test)]
mod tests;

pub(super) use self::group::Group;

/// The bits of the least normal number of half precision; below it a number is its bits times [`F16_UNIT`].
pub(super) const F16_NORMAL: u32 = 0x400;
/// `2^-24`: the least number of half precision, which `f32` holds as a normal number.
pub(super) const F16_UNIT: f32 = 1.0 / (1 << 24) as f32;
/// The bits of infinity in half precision.
pub(super) const F16_INFINITE: u32 = 0x7c00;
/// What an exponent grows by in `f32`, in its place there: 127 - 15. That of infinity grows by twice as much.
pub(super) const F16_EXPONENT: u32 = 112 << 23;

/// The registers of one instruction set, and the sixteen-lane groups made of them.
pub(super) trait Machine: Copy + 'static {
    /// One native register of floats.
    type NativeF32: NativeF32<Bits = Self::NativeU32>;
    /// One native register of words, with as many lanes.
    type NativeU32: NativeU32;
    /// One native register of doubles.
    type NativeF64: NativeF64;
    /// Sixteen floats.
    type F: Floats<Words = Self::W>;
    /// Sixteen words.
    type W: Words<Floats = Self::F>;
    /// Sixteen-lane groups that the register file holds.
    const GROUPS: usize;
    /// Groups on which float butterflies run without leaving the registers: 4 or 16.
    const RADIX: usize = if Self::GROUPS >= 32 { 16 } else { 4 };
    /// False where a native register is only an array (`portable`): a kernel that lives in many registers at
    /// once does better one lane at a time there.
    const REGISTERS: bool = true;
    /// Number of ones in each half (16 bits) of each word.
    #[inline(always)]
    fn count_halves(x: Self::NativeU32) -> Self::NativeU32 {
        // Pairs, nibbles, bytes, halves.
        let x = x.sub(x.shr(1).and(Self::NativeU32::splat(0x5555_5555)));
        let two = Self::NativeU32::splat(0x3333_3333);
        let x = x.and(two).add(x.shr(2).and(two));
        let x = x.add(x.shr(4)).and(Self::NativeU32::splat(0x0f0f_0f0f));
        x.add(x.shr(8)).and(Self::NativeU32::splat(0x00ff_00ff))
    }
    /// Sums of the parts of W bits of each word, each mod 2^W; W is 8, 16 or 32.
    #[inline(always)]
    fn add_parts<const W: u32>(x: Self::NativeU32, y: Self::NativeU32) -> Self::NativeU32 {
        let top = match W {
            8 => 0x8080_8080,
            16 => 0x8000_8000,
            _ => return x.add(y),
        };
        // The topmost bit of a part is added apart, so that no carry enters the next one.
        let (top, low) = (Self::NativeU32::splat(top), Self::NativeU32::splat(!top));
        x.and(low).add(y.and(low)).xor(x.xor(y).and(top))
    }
}

/// One native register of `f32`.
///
/// # Safety
/// Every method needs the instruction set on the processor; values of the type exist only in kernels that
/// `isa::Dispatch` runs after it has seen the features. Pointers need only the alignment of `f32`.
pub(super) trait NativeF32: Copy {
    /// The register of the same bits.
    type Bits: NativeU32;
    /// Lanes of the register, a divisor of 16.
    const LANES: usize;
    /// Reads `LANES` floats.
    ///
    /// # Safety
    /// `x` is readable for `LANES` floats.
    unsafe fn load(x: *const f32) -> Self;
    /// Reads `LANES` numbers of half precision and widens them, which is exact; a NaN stays one.
    ///
    /// # Safety
    /// `x` is readable for `LANES` of them.
    unsafe fn load_f16(x: *const f16) -> Self;
    /// Reads the upper halves of `LANES` floats, the lower ones being zero.
    ///
    /// # Safety
    /// `x` is readable for `LANES` of them.
    unsafe fn load_bf16(x: *const bf16) -> Self;
    /// Writes `LANES` floats.
    ///
    /// # Safety
    /// `x` is writable for `LANES` floats.
    unsafe fn store(self, x: *mut f32);
    /// The same value in every lane.
    fn splat(x: f32) -> Self;
    /// Lane by lane.
    fn add(self, other: Self) -> Self;
    /// Lane by lane.
    fn sub(self, other: Self) -> Self;
    /// Lane by lane.
    fn mul(self, other: Self) -> Self;
    /// `self * b + c`, rounded once where the instruction set fuses and twice on `portable`: only for
    /// stages that state a bound, or where the product is exact.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The lesser one; which of two zeros, or what a NaN gives, is not said.
    fn min(self, other: Self) -> Self;
    /// The greater one, likewise.
    fn max(self, other: Self) -> Self;
    /// One stage of the Walsh-Hadamard transform inside the register, `H < LANES` a power of two: lane i
    /// becomes `x[i] + x[i + H]` where `i & H == 0` and `x[i - H] - x[i]` elsewhere.
    fn stage<const H: usize>(self) -> Self;
    /// Stage H of what lies at `x`. Where loads can spread lanes by themselves, this spares the shuffle port.
    ///
    /// # Safety
    /// As for [`NativeF32::load`].
    #[inline(always)]
    unsafe fn load_stage<const H: usize>(x: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::load(x) }.stage::<H>()
    }
    /// The negative of lane i where bit i of `bits` is set.
    fn flip(self, bits: u32) -> Self;
    /// The bits.
    fn to_bits(self) -> Self::Bits;
    /// Truncates toward zero to `i32`, saturating; what a NaN gives is not said.
    fn truncate(self) -> Self::Bits;
}

/// One native register of `u32`.
///
/// # Safety
/// As for [`NativeF32`].
pub(super) trait NativeU32: Copy {
    /// The register of floats with as many lanes.
    type Floats;
    /// Lanes of the register, a divisor of 16.
    const LANES: usize;
    /// Reads `LANES` words.
    ///
    /// # Safety
    /// `x` is readable for `LANES` words.
    unsafe fn load(x: *const u32) -> Self;
    /// Reads `LANES` halfwords, zero-extended.
    ///
    /// # Safety
    /// `x` is readable for `LANES` halfwords.
    unsafe fn load_u16(x: *const u16) -> Self;
    /// Writes `LANES` words.
    ///
    /// # Safety
    /// `x` is writable for `LANES` words.
    unsafe fn store(self, x: *mut u32);
    /// The same value in every lane.
    fn splat(x: u32) -> Self;
    /// Lane by lane mod 2^32.
    fn add(self, other: Self) -> Self;
    /// Lane by lane mod 2^32.
    fn sub(self, other: Self) -> Self;
    /// The lesser unsigned one.
    fn min(self, other: Self) -> Self;
    /// The greater unsigned one.
    fn max(self, other: Self) -> Self;
    /// Bit by bit.
    fn and(self, other: Self) -> Self;
    /// Bit by bit.
    fn or(self, other: Self) -> Self;
    /// Bit by bit.
    fn xor(self, other: Self) -> Self;
    /// Shifts left by `n < 32`.
    fn shl(self, n: u32) -> Self;
    /// Shifts right by `n < 32`, zeros in.
    fn shr(self, n: u32) -> Self;
    /// Shifts right by `n < 32`, the sign in.
    fn sar(self, n: u32) -> Self;
    /// Rotates left by `0 < N < 32`.
    fn rotl<const N: i32>(self) -> Self;
    /// The low halves of the products.
    fn mul_lo(self, other: Self) -> Self;
    /// The high halves of the unsigned products.
    #[inline(always)]
    fn mul_hi(self, other: Self) -> Self {
        self.mul_shr::<32>(other)
    }
    /// Reads `count` words and repeats them over the lanes.
    ///
    /// # Safety
    /// `x` is readable for `count` words; `count` is a power of two up to `LANES`.
    unsafe fn repeat(x: *const u32, count: usize) -> Self;
    /// `a0 b0 a1 b1 ...`: the first half, the second half.
    fn interleave(self, other: Self) -> (Self, Self);
    /// `interleave` undone: the lanes at even places of `self` and then of `other`, those at odd places.
    fn separate(self, other: Self) -> (Self, Self);
    /// `a` in the lanes where `self == other`, `b` elsewhere.
    fn where_equal(self, other: Self, a: Self, b: Self) -> Self;
    /// `self + 1` in the lanes where `a < b` as signed words, `self` elsewhere: for numbers below 2^31 the cheaper
    /// comparison.
    fn increment_where_below(self, a: Self, b: Self) -> Self;
    /// Word `index % 16` of the table, without an address that depends on the index.
    fn lookup16(table: &[u32; 16], index: Self) -> Self;
    /// Word `index % 32` of the table, likewise.
    #[inline(always)]
    fn lookup32(table: &[u32; 32], index: Self) -> Self {
        let [low, high] = bytemuck::cast_ref::<_, [[u32; 16]; 2]>(table);
        let bit = index.and(Self::splat(16));
        bit.where_equal(Self::splat(0), Self::lookup16(low, index), Self::lookup16(high, index))
    }
    /// Writes lane l of the sixteen registers, in this order, as 64 little-endian bytes at `64 l`.
    ///
    /// # Safety
    /// `out` is writable for `64 LANES` bytes; no alignment is needed.
    unsafe fn store_transposed(words: [Self; 16], out: *mut u8);
    /// `self + 1` in the lanes where `a < b` (unsigned), `self` elsewhere.
    fn increment_where_less(self, a: Self, b: Self) -> Self;
    /// `f32(i32)`: the words as signed integers, rounded to the nearest float.
    fn to_floats(self) -> Self::Floats;
    /// Magnitudes of signed words; that of `-2^31` is `2^31`.
    fn abs(self) -> Self;
    /// `self` with the sign of the signed words `sign`: the negative of `self` where `sign < 0`.
    fn negate_where_negative(self, sign: Self) -> Self;
    /// The low words of `(self * other) >> S`, `0 < S <= 32`, the product in 64 bits.
    fn mul_shr<const S: u32>(self, other: Self) -> Self;
    /// 64-bit sums, half as many as there are lanes.
    type Sums: Copy;
    /// Sums of nothing.
    fn no_sums() -> Self::Sums;
    /// The signed word nearest to `self` in `[low, high]`.
    fn clamp_signed(self, low: Self, high: Self) -> Self;
    /// `self + 1` in the lanes where `a != b`, `self` elsewhere.
    fn increment_where_unequal(self, a: Self, b: Self) -> Self;
    /// Adds the squares of the signed words to `low` mod 2^64, and to `high` what they hold above bit 31, one by one
    /// or two by two: `total(low) - 2^32 total(high)` is the sum of the rests either way.
    fn add_squares(self, low: &mut Self::Sums, high: &mut Self::Sums);
    /// Adds all products `self * other` to `low` mod 2^64, and their upper halves to `high`.
    fn add_products(self, other: Self, low: &mut Self::Sums, high: &mut Self::Sums);
    /// The sum of the sums mod 2^64.
    fn total(sums: Self::Sums) -> u64;
}

/// One native register of `f64`, for sums that must not depend on the instruction set.
///
/// # Safety
/// As for [`NativeF32`].
pub(super) trait NativeF64: Copy {
    /// Lanes of the register, a divisor of 8.
    const LANES: usize;
    /// Registers of this size that the instruction set has: how large a tile stays inside them.
    const REGISTERS: usize;
    /// Reads `LANES` doubles.
    ///
    /// # Safety
    /// `x` is readable for `LANES` doubles.
    unsafe fn load(x: *const f64) -> Self;
    /// Reads `LANES` floats and widens them, which is exact.
    ///
    /// # Safety
    /// `x` is readable for `LANES` floats.
    unsafe fn widen(x: *const f32) -> Self;
    /// Writes `LANES` doubles.
    ///
    /// # Safety
    /// `x` is writable for `LANES` doubles.
    unsafe fn store(self, x: *mut f64);
    /// Rounds to `LANES` floats and writes them.
    ///
    /// # Safety
    /// `x` is writable for `LANES` floats.
    unsafe fn narrow(self, x: *mut f32);
    /// The same value in every lane.
    fn splat(x: f64) -> Self;
    /// Lane by lane.
    fn add(self, other: Self) -> Self;
    /// Lane by lane.
    fn sub(self, other: Self) -> Self;
    /// Lane by lane.
    fn mul(self, other: Self) -> Self;
    /// Lane by lane.
    fn div(self, other: Self) -> Self;
    /// `self * b + c` where the product is exact, as that of two widened floats is: then fusing changes no
    /// bit, and `portable` may round twice.
    fn mul_add(self, b: Self, c: Self) -> Self;
}

/// Sixteen `f32`.
pub(super) trait Floats: Copy {
    /// Sixteen words.
    type Words: Words<Floats = Self>;
    /// Reads sixteen floats.
    fn load(x: &[f32; 16]) -> Self;
    /// See [`NativeF32::load_f16`].
    fn load_f16(x: &[f16; 16]) -> Self;
    /// See [`NativeF32::load_bf16`].
    fn load_bf16(x: &[bf16; 16]) -> Self;
    /// Writes sixteen floats.
    fn store(self, x: &mut [f32; 16]);
    /// The same value in every lane.
    fn splat(x: f32) -> Self;
    /// Lane by lane.
    fn add(self, other: Self) -> Self;
    /// Lane by lane.
    fn sub(self, other: Self) -> Self;
    /// Lane by lane.
    fn mul(self, other: Self) -> Self;
    /// See [`NativeF32::mul_add`].
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// See [`NativeF32::min`].
    fn min(self, other: Self) -> Self;
    /// See [`NativeF32::max`].
    fn max(self, other: Self) -> Self;
    /// See [`NativeF32::stage`]; H = 1, 2, 4, 8.
    fn stage<const H: usize>(self) -> Self;
    /// `load(x).stage::<H>()`, see [`NativeF32::load_stage`].
    fn load_stage<const H: usize>(x: &[f32; 16]) -> Self;
    /// The negative of lane i where bit i of `bits` is set.
    fn flip(self, bits: u32) -> Self;
    /// The bits.
    fn to_bits(self) -> Self::Words;
    /// Truncates toward zero to `i32`, saturating; what a NaN gives is not said.
    fn truncate(self) -> Self::Words;
}

/// Sixteen `u32`.
pub(super) trait Words: Copy {
    /// Sixteen floats.
    type Floats;
    /// Reads sixteen words.
    fn load(x: &[u32; 16]) -> Self;
    /// Reads sixteen halfwords, zero-extended.
    fn load_u16(x: &[u16; 16]) -> Self;
    /// Writes sixteen words.
    fn store(self, x: &mut [u32; 16]);
    /// The same value in every lane.
    fn splat(x: u32) -> Self;
    /// Lane by lane mod 2^32.
    fn add(self, other: Self) -> Self;
    /// Lane by lane mod 2^32.
    fn sub(self, other: Self) -> Self;
    /// The lesser unsigned one.
    fn min(self, other: Self) -> Self;
    /// The greater unsigned one.
    fn max(self, other: Self) -> Self;
    /// Bit by bit.
    fn and(self, other: Self) -> Self;
    /// Bit by bit.
    fn or(self, other: Self) -> Self;
    /// Bit by bit.
    #[cfg(test)]
    fn xor(self, other: Self) -> Self;
    /// Shifts left by `n < 32`.
    fn shl(self, n: u32) -> Self;
    /// Shifts right by `n < 32`, zeros in.
    fn shr(self, n: u32) -> Self;
    /// Shifts right by `n < 32`, the sign in.
    fn sar(self, n: u32) -> Self;
    /// Rotates left by `0 < N < 32`.
    #[cfg(test)]
    fn rotl<const N: i32>(self) -> Self;
    /// The low halves of the products.
    fn mul_lo(self, other: Self) -> Self;
    /// The high halves of the unsigned products.
    #[inline(always)]
    fn mul_hi(self, other: Self) -> Self {
        self.mul_shr::<32>(other)
    }
    /// `x[i mod C]` in lane i; C is a power of two up to 16.
    fn repeat<const C: usize>(x: &[u32; C]) -> Self;
    /// See [`NativeU32::interleave`].
    fn interleave(self, other: Self) -> (Self, Self);
    /// See [`NativeU32::separate`].
    fn separate(self, other: Self) -> (Self, Self);
    /// See [`NativeU32::increment_where_less`].
    fn increment_where_less(self, a: Self, b: Self) -> Self;
    /// See [`NativeU32::to_floats`].
    fn to_floats(self) -> Self::Floats;
    /// See [`NativeU32::abs`].
    fn abs(self) -> Self;
    /// See [`NativeU32::negate_where_negative`].
    fn negate_where_negative(self, sign: Self) -> Self;
    /// See [`NativeU32::mul_shr`].
    fn mul_shr<const S: u32>(self, other: Self) -> Self;
    /// See [`NativeU32::Sums`].
    type Sums: Copy;
    /// Sums of nothing.
    fn no_sums() -> Self::Sums;
    /// See [`NativeU32::clamp_signed`].
    fn clamp_signed(self, low: Self, high: Self) -> Self;
    /// See [`NativeU32::increment_where_unequal`].
    fn increment_where_unequal(self, a: Self, b: Self) -> Self;
    /// See [`NativeU32::add_squares`].
    fn add_squares(self, low: &mut Self::Sums, high: &mut Self::Sums);
    /// See [`NativeU32::add_products`].
    fn add_products(self, other: Self, low: &mut Self::Sums, high: &mut Self::Sums);
    /// The sum of the sums mod 2^64.
    fn total(sums: Self::Sums) -> u64;
}
