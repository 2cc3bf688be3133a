//! Loops that do nothing but load one part of the machine: what a kernel can reach at best.
//!
//! The memory probes return bytes moved, the port probes lane operations executed, both as often as asked
//! for. They run on the instruction set that is named, or on `portable` where the processor lacks it.

// An index into several arrays of registers says more than a zip of their iterators.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;

use super::isa::{Dispatch, Isa, Kernel};
use super::lanes::{Floats, Machine, NativeF32, NativeU32, Words};

/// Groups of sixteen that one step of a memory probe takes.
const STEP: usize = 8;
/// Steps of a port probe in one lap.
const UNROLL: usize = 4;

/// Reads `x`, `passes` times. Bytes: 4 an element; elements behind the last multiple of 128 are left out.
pub fn read(isa: Isa, x: &[f32], passes: u64) -> u64 {
    moved(x.len(), 4, passes, || Dispatch::new(isa).run(Read(black_box(x))))
}

/// Writes zeros over `x`, `passes` times. Bytes: 4 an element.
pub fn write(isa: Isa, x: &mut [f32], passes: u64) -> u64 {
    moved(x.len(), 4, passes, || Dispatch::new(isa).run(Write(black_box(&mut *x))))
}

/// Copies the shorter of the two lengths, `passes` times. Bytes: 4 to read and 4 to write an element.
pub fn copy(isa: Isa, from: &[f32], to: &mut [f32], passes: u64) -> u64 {
    let len = from.len().min(to.len());
    moved(len, 8, passes, || Dispatch::new(isa).run(Copy(black_box(from), black_box(&mut *to))))
}

/// Multiplies `x` by one in place, `passes` times. Bytes: 4 to read and 4 to write an element.
pub fn update(isa: Isa, x: &mut [f32], passes: u64) -> u64 {
    moved(x.len(), 8, passes, || Dispatch::new(isa).run(Update(black_box(&mut *x))))
}

/// Additions of `f32` in independent chains.
#[must_use]
pub fn floats(isa: Isa, laps: u64) -> u64 {
    match isa {
        Isa::Portable => Dispatch::new(isa).run(Adds::<3>(laps)),
        _ => Dispatch::new(isa).run(Adds::<12>(laps)),
    }
}

/// Multiply-adds of `f32` in independent chains; one of them is one operation.
#[must_use]
pub fn multiply_adds(isa: Isa, laps: u64) -> u64 {
    match isa {
        Isa::Portable => Dispatch::new(isa).run(MultiplyAdds::<3>(laps)),
        _ => Dispatch::new(isa).run(MultiplyAdds::<12>(laps)),
    }
}

/// Additions and xors of `u32` in equal parts.
#[must_use]
pub fn words(isa: Isa, laps: u64) -> u64 {
    match isa {
        Isa::Portable => Dispatch::new(isa).run(AddsAndXors::<3>(laps)),
        _ => Dispatch::new(isa).run(AddsAndXors::<12>(laps)),
    }
}

/// As many float additions as word operations, side by side.
#[must_use]
pub fn floats_and_words(isa: Isa, laps: u64) -> u64 {
    match isa {
        Isa::Portable => Dispatch::new(isa).run(Both::<2>(laps)),
        Isa::Avx2 => Dispatch::new(isa).run(Both::<6>(laps)),
        _ => Dispatch::new(isa).run(Both::<12>(laps)),
    }
}

/// Products of `u32`, the low halves (either half takes a machine about as long).
#[must_use]
pub fn products(isa: Isa, laps: u64) -> u64 {
    match isa {
        Isa::Portable => Dispatch::new(isa).run(Products::<3>(laps)),
        _ => Dispatch::new(isa).run(Products::<12>(laps)),
    }
}

/// Additions, xors and rotations as in quarter rounds of ChaCha; a rotation is one operation everywhere.
#[must_use]
pub fn chacha(isa: Isa, laps: u64) -> u64 {
    match isa {
        Isa::Portable => Dispatch::new(isa).run(QuarterRounds::<1>(laps)),
        Isa::Avx2 => Dispatch::new(isa).run(QuarterRounds::<3>(laps)),
        _ => Dispatch::new(isa).run(QuarterRounds::<6>(laps)),
    }
}

/// Runs `pass` and counts the bytes of whole steps.
fn moved(len: usize, bytes: usize, passes: u64, mut pass: impl FnMut()) -> u64 {
    (0..passes).for_each(|_| pass());
    (len / (16 * STEP) * 16 * STEP * bytes) as u64 * passes
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        // Two groups in turns: an `or` takes a cycle, and a processor loads twice in one.
        let mut all = [M::W::splat(0); 2];
        let (groups, _) = self.0.as_chunks::<16>();
        for step in groups.as_chunks::<STEP>().0 {
            for k in 0..STEP {
                all[k % 2] = all[k % 2].or(M::F::load(&step[k]).to_bits());
            }
        }
        black_box(&all);
    }
}

struct Write<'a>(&'a mut [f32]);

impl Kernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let zero = M::F::splat(black_box(0.0));
        let (groups, _) = self.0.as_chunks_mut::<16>();
        for step in groups.as_chunks_mut::<STEP>().0 {
            for group in step {
                zero.store(group);
            }
        }
    }
}

struct Copy<'a>(&'a [f32], &'a mut [f32]);

impl Kernel for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let (from, _) = self.0.as_chunks::<16>();
        let (to, _) = self.1.as_chunks_mut::<16>();
        for (from, to) in from.as_chunks::<STEP>().0.iter().zip(to.as_chunks_mut::<STEP>().0) {
            let mut v = [M::F::splat(0.0); STEP];
            for k in 0..STEP {
                v[k] = M::F::load(&from[k]);
            }
            for k in 0..STEP {
                v[k].store(&mut to[k]);
            }
        }
    }
}

struct Update<'a>(&'a mut [f32]);

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<M: Machine>(self) {
        let one = M::F::splat(black_box(1.0));
        let (groups, _) = self.0.as_chunks_mut::<16>();
        for step in groups.as_chunks_mut::<STEP>().0 {
            for group in step {
                M::F::load(group).mul(one).store(group);
            }
        }
    }
}

/// Lane operations of `laps` laps with `chains` chains of `each` operations a step.
fn executed(laps: u64, chains: usize, each: usize, lanes: usize) -> u64 {
    laps * (UNROLL * chains * each * lanes) as u64
}

struct Adds<const C: usize>(u64);

impl<const C: usize> Kernel for Adds<C> {
    type Output = u64;

    #[inline(always)]
    fn run<M: Machine>(self) -> u64 {
        let mut v = [M::NativeF32::splat(black_box(1.0)); C];
        let one = M::NativeF32::splat(black_box(1.0));
        for _ in 0..self.0 {
            for _ in 0..UNROLL {
                for x in &mut v {
                    *x = x.add(one);
                }
            }
        }
        black_box(&v);
        executed(self.0, C, 1, M::NativeF32::LANES)
    }
}

struct MultiplyAdds<const C: usize>(u64);

impl<const C: usize> Kernel for MultiplyAdds<C> {
    type Output = u64;

    #[inline(always)]
    fn run<M: Machine>(self) -> u64 {
        let mut v = [M::NativeF32::splat(black_box(1.0)); C];
        let (half, one) = (M::NativeF32::splat(black_box(0.5)), M::NativeF32::splat(black_box(1.0)));
        for _ in 0..self.0 {
            for _ in 0..UNROLL {
                for x in &mut v {
                    *x = x.mul_add(half, one);
                }
            }
        }
        black_box(&v);
        executed(self.0, C, 1, M::NativeF32::LANES)
    }
}

struct AddsAndXors<const C: usize>(u64);

impl<const C: usize> Kernel for AddsAndXors<C> {
    type Output = u64;

    #[inline(always)]
    fn run<M: Machine>(self) -> u64 {
        let mut v = [M::NativeU32::splat(black_box(1)); C];
        let (a, b) = (M::NativeU32::splat(black_box(3)), M::NativeU32::splat(black_box(0x5555)));
        for _ in 0..self.0 {
            for _ in 0..UNROLL {
                for x in &mut v {
                    *x = x.add(a).xor(b);
                }
            }
        }
        black_box(&v);
        executed(self.0, C, 2, M::NativeU32::LANES)
    }
}

struct Both<const C: usize>(u64);

impl<const C: usize> Kernel for Both<C> {
    type Output = u64;

    #[inline(always)]
    fn run<M: Machine>(self) -> u64 {
        let mut v = [M::NativeF32::splat(black_box(1.0)); C];
        let mut w = [M::NativeU32::splat(black_box(1)); C];
        let one = M::NativeF32::splat(black_box(1.0));
        let (a, b) = (M::NativeU32::splat(black_box(3)), M::NativeU32::splat(black_box(0x5555)));
        for _ in 0..self.0 {
            for step in 0..UNROLL {
                for k in 0..C {
                    v[k] = v[k].add(one);
                    w[k] = if step % 2 == 0 { w[k].add(a) } else { w[k].xor(b) };
                }
            }
        }
        black_box((&v, &w));
        executed(self.0, C, 2, M::NativeU32::LANES)
    }
}

struct Products<const C: usize>(u64);

impl<const C: usize> Kernel for Products<C> {
    type Output = u64;

    #[inline(always)]
    fn run<M: Machine>(self) -> u64 {
        let mut v = [M::NativeU32::splat(black_box(3)); C];
        for _ in 0..self.0 {
            for _ in 0..UNROLL {
                for x in &mut v {
                    // Squares: products by a constant would be folded into one.
                    *x = x.mul_lo(*x);
                }
            }
        }
        black_box(&v);
        executed(self.0, C, 1, M::NativeU32::LANES)
    }
}

struct QuarterRounds<const C: usize>(u64);

impl<const C: usize> Kernel for QuarterRounds<C> {
    type Output = u64;

    #[inline(always)]
    fn run<M: Machine>(self) -> u64 {
        let word = |x: u32| [M::NativeU32::splat(black_box(x)); C];
        let (mut a, mut b, mut c, mut d) = (word(1), word(2), word(3), word(4));
        for _ in 0..self.0 {
            for _ in 0..UNROLL {
                // Step by step over all chains, as the vertical kernel of four columns does.
                half_round::<M::NativeU32, C, 16>(&mut a, &b, &mut d);
                half_round::<M::NativeU32, C, 12>(&mut c, &d, &mut b);
                half_round::<M::NativeU32, C, 8>(&mut a, &b, &mut d);
                half_round::<M::NativeU32, C, 7>(&mut c, &d, &mut b);
            }
        }
        black_box((&a, &b, &c, &d));
        executed(self.0, C, 12, M::NativeU32::LANES)
    }
}

/// `x += y; z = (z ^ x) <<< R` in every chain.
#[inline(always)]
fn half_round<W: NativeU32, const C: usize, const R: i32>(x: &mut [W; C], y: &[W; C], z: &mut [W; C]) {
    for k in 0..C {
        x[k] = x[k].add(y[k]);
        z[k] = z[k].xor(x[k]).rotl::<R>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_count_what_they_do_on_every_instruction_set() {
        for isa in Isa::ALL.into_iter().filter(|i| i.available()) {
            let (mut x, mut y) = (vec![2.0f32; 300], vec![3.0f32; 290]);
            assert_eq!(read(isa, &x, 3), 256 * 4 * 3);
            assert_eq!(update(isa, &mut x, 2), 256 * 8 * 2);
            assert_eq!(copy(isa, &x, &mut y, 1), 256 * 8);
            assert!(x.iter().all(|&v| v == 2.0) && y[..256] == x[..256] && y[256] == 3.0);
            assert_eq!(write(isa, &mut x, 1), 256 * 4);
            assert!(x[..256].iter().all(|&v| v == 0.0) && x[256] == 2.0);
            assert_eq!((read(isa, &x[..100], 5), read(isa, &x, 0)), (0, 0));
            for probe in [floats, multiply_adds, words, floats_and_words, products, chacha] {
                let (one, two) = (probe(isa, 1), probe(isa, 2));
                assert!(one > 0 && two == 2 * one && probe(isa, 0) == 0, "{isa}");
            }
        }
    }
}
