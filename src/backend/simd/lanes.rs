//! Registers and groups of sixteen lanes: the small vector traits that every kernel is written over.
//!
//! An instruction set gives its *native registers* ([`NativeF32`], [`NativeU32`]: `avx512`, `avx2`, `neon`,
//! `portable`), nothing more. A [`Group`] of K of them is sixteen lanes wide everywhere, so that a kernel's
//! shuffles and blocks are the same on all of them, and so are its bits.
//!
//! Everything is `#[inline(always)]`: only then is it compiled with the features of the kernel's shim. Closures,
//! `array::map` and `array::from_fn` are not, and registers would then travel through memory: hence the loops.

/// The registers of one instruction set, and the sixteen-lane groups made of them.
pub(super) trait Machine: Copy + 'static {
    /// Groups on which float butterflies run without leaving the registers: 4 or 16.
    const RADIX: usize;
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
    /// `f32(f64(x) * factor)`, rounded once.
    fn scale_wide(self, factor: f64) -> Self;
    /// The bits.
    fn to_bits(self) -> Self::Bits;
    /// From bits.
    fn from_bits(bits: Self::Bits) -> Self;
    /// Truncates toward zero to `i32`; the values must lie in `[-2^31, 2^31)`.
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
    fn mul_hi(self, other: Self) -> Self;
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
    /// `f32((f64(u) + offset) * factor)`, the sum exact if offset is an integer below 2^52, rounded once
    /// in the product and once to `f32`.
    fn scale_wide(self, offset: f64, factor: f64) -> Self::Floats;
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

/// Sixteen lanes in K native registers, the lanes of register k at `16 k / K`.
#[derive(Clone, Copy)]
pub(super) struct Group<N, const K: usize>(pub(super) [N; K]);

/// Sixteen `f32`.
pub(super) trait Floats: Copy {
    /// Sixteen words.
    type Words: Words<Floats = Self>;
    /// Reads sixteen floats.
    fn load(x: &[f32; 16]) -> Self;
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
    /// `f32(f64(x) * factor)`, rounded once.
    fn scale_wide(self, factor: f64) -> Self;
    /// The bits.
    fn to_bits(self) -> Self::Words;
    /// From bits.
    fn from_bits(bits: Self::Words) -> Self;
    /// Truncates toward zero to `i32`; the values must lie in `[-2^31, 2^31)`.
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
    fn mul_hi(self, other: Self) -> Self;
    /// `x[i mod C]` in lane i; C is a power of two up to 16.
    fn repeat<const C: usize>(x: &[u32; C]) -> Self;
    /// See [`NativeU32::interleave`].
    fn interleave(self, other: Self) -> (Self, Self);
    /// See [`NativeU32::separate`].
    fn separate(self, other: Self) -> (Self, Self);
    /// See [`NativeU32::increment_where_less`].
    fn increment_where_less(self, a: Self, b: Self) -> Self;
    /// See [`NativeU32::scale_wide`].
    fn scale_wide(self, offset: f64, factor: f64) -> Self::Floats;
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
    /// See [`NativeU32::add_products`].
    fn add_products(self, other: Self, low: &mut Self::Sums, high: &mut Self::Sums);
    /// The sum of the sums mod 2^64.
    fn total(sums: Self::Sums) -> u64;
}

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
        // SAFETY: register k reads LANES floats at LANES k, and LANES K = 16.
        let mut out = [unsafe { N::load_stage::<H>(x.as_ptr()) }; K];
        for k in 1..K {
            // SAFETY: as above.
            out[k] = unsafe { N::load_stage::<H>(x.as_ptr().add(k * N::LANES)) };
        }
        Self(out)
    }

    #[inline(always)]
    fn scale_wide(self, factor: f64) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].scale_wide(factor);
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
    fn from_bits(bits: Self::Words) -> Self {
        let mut out = [N::from_bits(bits.0[0]); K];
        for k in 1..K {
            out[k] = N::from_bits(bits.0[k]);
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
    fn mul_hi(self, other: Self) -> Self {
        let mut out = self;
        for k in 0..K {
            out.0[k] = self.0[k].mul_hi(other.0[k]);
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
    fn scale_wide(self, offset: f64, factor: f64) -> Self::Floats {
        let mut out = [self.0[0].scale_wide(offset, factor); K];
        for k in 1..K {
            out[k] = self.0[k].scale_wide(offset, factor);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::isa::{Dispatch, Isa, Kernel};

    const A: [u32; 16] = [0, 1, 2, 3, 7, 1 << 15, 1 << 16, 0xffff, 1 << 31, u32::MAX, 12345, 1 << 30, 77, 9, 5, 4];
    const B: [u32; 16] = [1, 1, 0, u32::MAX, 6, 1 << 16, 1 << 16, 0xfffe, 1 << 31, 1 << 31, 54321, 3, 77, 10, 4, 5];

    /// Every operation on words, in a fixed order.
    struct Integers;

    impl Kernel for Integers {
        type Output = Vec<[u32; 16]>;

        #[inline(always)]
        fn run<M: Machine>(self) -> Self::Output {
            let (a, b) = (M::W::load(&A), M::W::load(&B));
            let halves: [u16; 16] = A.map(|v| v as u16);
            let all = [
                a.add(b),
                a.sub(b),
                a.min(b),
                a.max(b),
                a.and(b),
                a.or(b),
                a.xor(b),
                a.shl(5),
                a.shr(5),
                a.sar(5),
                a.rotl::<7>(),
                a.rotl::<8>(),
                a.rotl::<16>(),
                a.mul_lo(b),
                a.mul_hi(b),
                M::W::repeat(&[A[0], A[1]]),
                M::W::repeat(&[A[0], A[1], A[2], A[3]]),
                M::W::repeat(A.first_chunk::<8>().unwrap()),
                a.interleave(b).0,
                a.interleave(b).1,
                a.separate(b).0,
                a.separate(b).1,
                M::W::splat(3).increment_where_less(a, b),
                M::W::load_u16(&halves),
                M::F::from_bits(a).to_bits(),
                a.scale_wide(-(f64::from(1u32 << 31) - 1.0), 0.3).to_bits(),
                a.abs(),
                a.negate_where_negative(b),
                a.mul_shr::<30>(b),
                a.mul_shr::<32>(b),
            ];
            let (mut low, mut high) = (M::W::no_sums(), M::W::no_sums());
            a.add_products(b, &mut low, &mut high);
            b.add_products(b, &mut low, &mut high);
            let mut out = all.map(|v| stored::<M>(v)).to_vec();
            let mut totals = [0; 16];
            for (i, total) in [M::W::total(low), M::W::total(high)].into_iter().enumerate() {
                totals[2 * i] = total as u32;
                totals[2 * i + 1] = (total >> 32) as u32;
            }
            out.push(totals);
            out
        }
    }

    #[inline(always)]
    fn stored<M: Machine>(v: M::W) -> [u32; 16] {
        let mut out = [0; 16];
        v.store(&mut out);
        out
    }

    fn each(f: impl Fn(u32, u32) -> u32) -> [u32; 16] {
        std::array::from_fn(|i| f(A[i], B[i]))
    }

    #[test]
    fn words_are_the_machine_s_own_arithmetic_on_every_instruction_set() {
        let expected = vec![
            each(u32::wrapping_add),
            each(u32::wrapping_sub),
            each(u32::min),
            each(u32::max),
            each(|a, b| a & b),
            each(|a, b| a | b),
            each(|a, b| a ^ b),
            each(|a, _| a << 5),
            each(|a, _| a >> 5),
            each(|a, _| (a as i32 >> 5) as u32),
            each(|a, _| a.rotate_left(7)),
            each(|a, _| a.rotate_left(8)),
            each(|a, _| a.rotate_left(16)),
            each(u32::wrapping_mul),
            each(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
            std::array::from_fn(|i| A[i % 2]),
            std::array::from_fn(|i| A[i % 4]),
            std::array::from_fn(|i| A[i % 8]),
            std::array::from_fn(|i| if i % 2 == 0 { A[i / 2] } else { B[i / 2] }),
            std::array::from_fn(|i| if i % 2 == 0 { A[8 + i / 2] } else { B[8 + i / 2] }),
            std::array::from_fn(|i| if i < 8 { A[2 * i] } else { B[2 * i - 16] }),
            std::array::from_fn(|i| if i < 8 { A[2 * i + 1] } else { B[2 * i - 15] }),
            each(|a, b| 3 + u32::from(a < b)),
            each(|a, _| a & 0xffff),
            A,
            each(|a, _| (((f64::from(a) - 2_147_483_647.0) * 0.3) as f32).to_bits()),
            each(|a, _| (a as i32).unsigned_abs()),
            each(|a, b| if (b as i32) < 0 { a.wrapping_neg() } else { a }),
            each(|a, b| ((u64::from(a) * u64::from(b)) >> 30) as u32),
            each(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
            {
                let products = A.into_iter().zip(B).flat_map(|(a, b)| [(a, b), (b, b)]);
                let products = products.map(|(a, b)| u64::from(a) * u64::from(b));
                let (low, high) = products.fold((0u64, 0u64), |(l, h), p| (l.wrapping_add(p), h + (p >> 32)));
                let words = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
                std::array::from_fn(|i| words.get(i).copied().unwrap_or(0))
            },
        ];
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            assert_eq!(Dispatch::new(isa).run(Integers), expected, "{isa}");
        }
    }

    const X: [f32; 16] =
        [0.0, -1.0, 2.5, 1e-40, 3e7, -7.75, 0.1, -0.3, 1e9, -2e9, 5.0, 6.0, -7.0, 8.0, 1e-30, 2_147_483_520.0];

    struct Reals;

    impl Kernel for Reals {
        type Output = Vec<[f32; 16]>;

        #[inline(always)]
        fn run<M: Machine>(self) -> Self::Output {
            let (x, y) = (M::F::load(&X), M::F::splat(1.5));
            let truncated = M::F::from_bits(x.truncate());
            let all = [
                x.add(y),
                x.sub(y),
                x.mul(y),
                x.min(y),
                x.max(y),
                x.scale_wide(0.1),
                truncated,
                y.mul_add(y, x.sub(x)),
                x.stage::<1>(),
                x.stage::<2>(),
                x.stage::<4>(),
                x.stage::<8>(),
                M::F::load_stage::<1>(&X),
                M::F::load_stage::<8>(&X),
            ];
            all.map(|v| stored::<M>(v.to_bits()).map(f32::from_bits)).to_vec()
        }
    }

    #[test]
    fn floats_are_the_machine_s_own_arithmetic_on_every_instruction_set() {
        let stage = |h: usize| std::array::from_fn(|i| if i & h == 0 { X[i] + X[i ^ h] } else { X[i ^ h] - X[i] });
        let expected = [
            X.map(|x| x + 1.5),
            X.map(|x| x - 1.5),
            X.map(|x| x * 1.5),
            X.map(|x| x.min(1.5)),
            X.map(|x| x.max(1.5)),
            X.map(|x| (f64::from(x) * 0.1) as f32),
            X.map(|x| f32::from_bits(x as i32 as u32)),
            [2.25; 16],
            stage(1),
            stage(2),
            stage(4),
            stage(8),
            stage(1),
            stage(8),
        ];
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let found = Dispatch::new(isa).run(Reals);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{isa}");
            }
        }
    }
}
