//! Every operation on every instruction set of this processor against plain arithmetic.

use half::{bf16, f16};

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
            M::F::load(&X).truncate(),
            a.abs(),
            a.negate_where_negative(b),
            a.mul_shr::<30>(b),
            a.mul_shr::<32>(b),
            a.clamp_signed(M::W::splat(LOW), M::W::splat(HIGH)),
            M::W::splat(3).increment_where_unequal(a, a.min(b)),
        ];
        let (mut low, mut high) = (M::W::no_sums(), M::W::no_sums());
        a.add_products(b, &mut low, &mut high);
        b.add_products(b, &mut low, &mut high);
        let (mut squares, mut above) = (M::W::no_sums(), M::W::no_sums());
        a.add_squares(&mut squares, &mut above);
        b.add_squares(&mut squares, &mut above);
        let mut out = all.map(|v| stored::<M>(v)).to_vec();
        let mut totals = [0; 16];
        for (i, total) in [M::W::total(low), M::W::total(high)].into_iter().enumerate() {
            totals[2 * i] = total as u32;
            totals[2 * i + 1] = (total >> 32) as u32;
        }
        // How much is above bit 31 depends on which squares are added first; the exact sum does not.
        let (squares, above) = (M::W::total(squares), M::W::total(above));
        let exact = (u128::from(above) << 32) + u128::from(squares.wrapping_sub(above << 32));
        for i in 0..4 {
            totals[4 + i] = (exact >> (32 * i)) as u32;
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
        X.map(|x| x as i32 as u32),
        each(|a, _| (a as i32).unsigned_abs()),
        each(|a, b| if (b as i32) < 0 { a.wrapping_neg() } else { a }),
        each(|a, b| ((u64::from(a) * u64::from(b)) >> 30) as u32),
        each(|a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        each(|a, _| (a as i32).clamp(LOW as i32, HIGH as i32) as u32),
        each(|a, b| 3 + u32::from(a != a.min(b))),
        {
            let products = A.into_iter().zip(B).flat_map(|(a, b)| [(a, b), (b, b)]);
            let products = products.map(|(a, b)| u64::from(a) * u64::from(b));
            let (low, high) = products.fold((0u64, 0u64), |(l, h), p| (l.wrapping_add(p), h + (p >> 32)));
            let squares: u128 = A.into_iter().chain(B).map(|a| u128::from((a as i32).unsigned_abs()).pow(2)).sum();
            let words = [u128::from(low) + (u128::from(high) << 64), squares];
            let words = words.map(|sum| [0, 32, 64, 96].map(|shift| (sum >> shift) as u32)).concat();
            std::array::from_fn(|i| words.get(i).copied().unwrap_or(0))
        },
    ];
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        assert_eq!(Dispatch::new(isa).run(Integers), expected, "{isa}");
    }
}

const X: [f32; 16] =
    [0.0, -1.0, 2.5, 1e-40, 3e7, -7.75, 0.1, -0.3, 1e9, -2e9, 5e9, -6e9, -7.0, 8.0, 1e-30, 2_147_483_520.0];

/// Bounds of `clamp_signed`.
const LOW: u32 = -70_000i32 as u32;
const HIGH: u32 = 1_000_000;

struct Reals;

impl Kernel for Reals {
    type Output = Vec<[f32; 16]>;

    #[inline(always)]
    fn run<M: Machine>(self) -> Self::Output {
        let (x, y) = (M::F::load(&X), M::F::splat(1.5));
        let all = [
            x.add(y),
            x.sub(y),
            x.mul(y),
            x.min(y),
            x.max(y),
            y.mul_add(y, x.sub(x)),
            x.stage::<1>(),
            x.stage::<2>(),
            x.stage::<4>(),
            x.stage::<8>(),
            M::F::load_stage::<1>(&X),
            M::F::load_stage::<8>(&X),
            x.flip(0b1010_0000_1111_0001),
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
        [2.25; 16],
        stage(1),
        stage(2),
        stage(4),
        stage(8),
        stage(1),
        stage(8),
        std::array::from_fn(|i| if 0b1010_0000_1111_0001 >> i & 1 == 1 { -X[i] } else { X[i] }),
    ];
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let found = Dispatch::new(isa).run(Reals);
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.map(f32::to_bits), expected.map(f32::to_bits), "{isa}");
        }
    }
}

/// Every number of half precision, by its bits.
struct Halves;

impl Kernel for Halves {
    type Output = [Vec<u32>; 2];

    #[inline(always)]
    fn run<M: Machine>(self) -> Self::Output {
        let mut out = [Vec::new(), Vec::new()];
        for first in (0..=u16::MAX).step_by(16) {
            let bits: [u16; 16] = std::array::from_fn(|i| first + i as u16);
            out[0].extend(stored::<M>(M::F::load_f16(&bits.map(f16::from_bits)).to_bits()));
            out[1].extend(stored::<M>(M::F::load_bf16(&bits.map(bf16::from_bits)).to_bits()));
        }
        out
    }
}

#[test]
fn every_half_is_widened_to_its_own_value_on_every_instruction_set() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let [f16s, bf16s] = Dispatch::new(isa).run(Halves);
        for bits in 0..=u16::MAX {
            let of = |found: &[u32]| f32::from_bits(found[usize::from(bits)]);
            for (found, expected) in
                [(of(&f16s), f16::from_bits(bits).to_f32_const()), (of(&bf16s), bf16::from_bits(bits).to_f32_const())]
            {
                let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(same, "{bits:#x}: {found} {expected} {isa}");
            }
        }
    }
}
