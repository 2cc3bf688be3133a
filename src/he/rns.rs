//! From columns of residues to integers, and from those to the values of a message.

use rayon::prelude::*;

use super::error::HeError;
use super::params::{Layout, Ring};
use crate::math::modular::{MODULUS_LIMIT, Modulus, Shoup};
use crate::math::ntt::RnsBasis;

/// Words of 64 bits of the largest integer: a table's log2 Q is at most 881.
const WORDS: usize = 14;

/// Most primes whose product fits 128 bits whatever they are.
const SMALL: usize = 4;

/// Garner's algorithm: mixed digits of the primes, then Horner.
#[derive(Clone, Debug)]
pub struct Crt {
    moduli: Vec<Modulus>,
    /// `p_j^-1 mod p_i` for j < i, row by row.
    inverses: Vec<Shoup>,
    /// Of every prime the least multiple from 2^30 on, which is below 2^31: no digit is above it.
    lifts: Vec<u32>,
    words: usize,
}

impl Crt {
    pub(super) fn new(basis: &RnsBasis) -> Self {
        let moduli: Vec<Modulus> = basis.limbs().iter().map(|limb| limb.modulus()).collect();
        let inverse = |i: usize, j: usize| {
            let m: Modulus = moduli[i];
            m.shoup(m.inverse(m.reduce(u64::from(moduli[j].value()))))
        };
        let inverses =
            (0..moduli.len()).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| inverse(i, j)).collect();
        let words = (moduli.len() * 30).div_ceil(64).min(WORDS);
        let lifts = moduli.iter().map(|m| MODULUS_LIMIT.div_ceil(m.value()) * m.value()).collect();
        Self { moduli, inverses, lifts, words }
    }

    /// The mixed digits of the integer in `[0, Q)` with these residues, into memory of L words.
    #[inline(always)]
    fn digits(&self, residue: impl Fn(usize) -> u32, digits: &mut [u32]) {
        let mut row = 0;
        for i in 0..digits.len() {
            let (m, lift) = (self.moduli[i], self.lifts[i]);
            let mut x = residue(i);
            for (j, &digit) in digits[..i].iter().enumerate() {
                // A product takes any word.
                x = m.mul_shoup(x + lift - digit, self.inverses[row + j]);
            }
            digits[i] = x;
            row += i;
        }
    }

    /// The integer in `[0, Q)` with these residues of all primes, at most [`SMALL`].
    #[inline(always)]
    fn lift_small<const L: usize>(&self, residues: [u32; L]) -> u128 {
        let mut digits = [0; L];
        self.digits(|l| residues[l], &mut digits);
        let digits = self.moduli.iter().zip(&digits).rev();
        digits.fold(0, |value, (m, &digit)| value * u128::from(m.value()) + u128::from(digit))
    }

    /// The integer in `[0, Q)` with these residues, little-endian words. `digits` is memory of L words.
    fn lift(&self, residue: impl Fn(usize) -> u32, digits: &mut [u32]) -> [u64; WORDS] {
        self.digits(residue, digits);
        let mut value = [0u64; WORDS];
        for (m, &digit) in self.moduli.iter().zip(&*digits).rev() {
            let mut carry = u64::from(digit);
            for word in &mut value[..self.words] {
                let wide = u128::from(*word) * u128::from(m.value()) + u128::from(carry);
                (*word, carry) = (wide as u64, (wide >> 64) as u64);
            }
        }
        value
    }
}

/// Bits `[from, from + width)` of an integer, `width <= 64`.
fn bits(words: &[u64; WORDS], from: u32, width: u32) -> u64 {
    let word = |at: u32| words.get(at as usize).copied().unwrap_or(0);
    let (at, shift) = (from / 64, from % 64);
    let low = word(at) >> shift;
    let high = if shift == 0 { 0 } else { word(at + 1) << (64 - shift) };
    (low | high) & (u64::MAX >> (64 - width.min(64)))
}

/// True if a bit from `from` on is set.
fn any_from(words: &[u64; WORDS], from: u32) -> bool {
    let at = from as usize / 64;
    words.get(at).is_some_and(|w| w >> (from % 64) != 0) || words.iter().skip(at + 1).any(|&w| w != 0)
}

/// The values of noisy coefficients: `x + 2^(o-1) mod Q` **in RNS, before CRT**, then without the lowest o bits, sliced.
///
/// Half of Delta is added mod Q: noise may be negative, and `2^o m + e` with m = 0 and e < 0 is then just below Q. Adding
/// it to the integer behind the CRT would give `2^w - 1` in the topmost slot where the sum is zero.
///
/// `sums` is `[blocks x L x N]`, coefficients. Value `z N + i` of a block is slot z of coefficient i.
///
/// # Errors
/// Not whole polynomials; a coefficient with a bit above its slots, which no sum within the plan has.
pub fn round_to_values(ring: &Ring, layout: &Layout, sums: &[u32]) -> Result<Vec<u64>, HeError> {
    if !sums.len().is_multiple_of(ring.len()) {
        let expected = sums.len().next_multiple_of(ring.len());
        return Err(HeError::Length { what: "a sum of blocks", expected, found: sums.len() });
    }
    let size = layout.block(ring);
    let mut values = vec![0u64; sums.len() / ring.len() * size];
    let slices = Slices::new(ring, layout);
    let blocks = values.par_chunks_mut(size).zip(sums.par_chunks(ring.len())).enumerate();
    blocks.try_for_each(|(block, (out, x))| slices.block(block, x, out))?;
    Ok(values)
}

/// What [`round_to_values`] does with one block.
pub(super) struct Slices<'a> {
    ring: &'a Ring,
    layout: &'a Layout,
    /// `2^(o-1)` mod every prime.
    halves: Vec<u32>,
}

impl<'a> Slices<'a> {
    pub(super) fn new(ring: &'a Ring, layout: &'a Layout) -> Self {
        let half = |m: &Modulus| m.pow(m.reduce(2), u64::from(layout.offset) - 1);
        Self { ring, layout, halves: ring.crt().moduli.iter().map(half).collect() }
    }

    /// The values of block `block`, which is `x`, `[L x N]` coefficients.
    ///
    /// # Errors
    /// A coefficient with a bit above its slots.
    pub(super) fn block(&self, block: usize, x: &[u32], out: &mut [u64]) -> Result<(), HeError> {
        // The number of primes is known to the compiler where a column fits 128 bits.
        match self.ring.limbs() {
            1 => self.small::<1>(block, x, out),
            2 => self.small::<2>(block, x, out),
            3 => self.small::<3>(block, x, out),
            SMALL => self.small::<SMALL>(block, x, out),
            _ => self.large(block, x, out),
        }
    }

    fn small<const L: usize>(&self, block: usize, x: &[u32], out: &mut [u64]) -> Result<(), HeError> {
        let (n, layout) = (self.ring.degree(), self.layout);
        let mask = u64::MAX >> (64 - layout.width.min(64));
        let moduli: [Modulus; L] = std::array::from_fn(|l| self.ring.crt().moduli[l]);
        let halves: [u32; L] = std::array::from_fn(|l| self.halves[l]);
        // Shifts by more than there are bits give zero, as for a layout of a larger ring.
        let shift = |value: u128, by: u32| value.checked_shr(by).unwrap_or(0);
        let mut beyond = None;
        for i in 0..n {
            let value =
                self.ring.crt().lift_small::<L>(std::array::from_fn(|l| moduli[l].add(x[l * n + i], halves[l])));
            let value = shift(value, layout.offset);
            if shift(value, layout.slots * layout.width) != 0 {
                beyond = beyond.or(Some(i));
            }
            for (z, out) in out.chunks_exact_mut(n).enumerate() {
                out[i] = shift(value, layout.width * z as u32) as u64 & mask;
            }
        }
        beyond.map_or(Ok(()), |index| Err(HeError::BeyondSlots { block, index }))
    }

    fn large(&self, block: usize, x: &[u32], out: &mut [u64]) -> Result<(), HeError> {
        let (n, layout, crt) = (self.ring.degree(), self.layout, self.ring.crt());
        let mut digits = vec![0u32; self.ring.limbs()];
        for i in 0..n {
            let value = crt.lift(|l| crt.moduli[l].add(x[l * n + i], self.halves[l]), &mut digits);
            if any_from(&value, layout.slots * layout.width + layout.offset) {
                return Err(HeError::BeyondSlots { block, index: i });
            }
            for (z, out) in out.chunks_exact_mut(n).enumerate() {
                out[i] = bits(&value, layout.offset + layout.width * z as u32, layout.width);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;

    use super::*;

    fn residues(ring: &Ring, x: &BigUint) -> Vec<u32> {
        ring.basis().primes().map(|p| u32::try_from(x % p).unwrap()).collect()
    }

    #[test]
    fn columns_come_back_as_integers() {
        for (degree, limbs) in [(4096, 1), (4096, 2), (4096, 3), (8192, 7), (32_768, 29)] {
            let ring = Ring::find(degree, 30, limbs).unwrap();
            let q = ring.basis().primes().fold(BigUint::from(1u32), |q, p| q * p);
            let third = &q / 3u32;
            for x in [BigUint::from(0u32), BigUint::from(1u32), &q - 1u32, &q / 2u32, third] {
                let column = residues(&ring, &x);
                let words = ring.crt().lift(|l| column[l], &mut vec![0; limbs]);
                match column[..] {
                    [a] => assert_eq!(BigUint::from(ring.crt().lift_small([a])), x),
                    [a, b] => assert_eq!(BigUint::from(ring.crt().lift_small([a, b])), x),
                    [a, b, c] => assert_eq!(BigUint::from(ring.crt().lift_small([a, b, c])), x),
                    _ => {}
                }
                let found = words.iter().rev().fold(BigUint::from(0u32), |v, &w| (v << 64) + w);
                assert_eq!(found, x);
                for (from, width) in [(0u32, 64u32), (1, 64), (63, 2), (64, 7), (100, 33)] {
                    let exact = (&x >> from) % (BigUint::from(1u32) << width);
                    assert_eq!(BigUint::from(bits(&words, from, width)), exact);
                    assert_eq!(any_from(&words, from), x >= BigUint::from(1u32) << from);
                }
            }
        }
    }

    /// The trap: a zero message with negative noise. Half is added mod Q, in RNS, before the CRT.
    #[test]
    fn zero_with_negative_noise_is_zero() {
        let ring = Ring::find(4096, 30, 3).unwrap();
        let layout = Layout::new(&ring, 26, 3, 11).unwrap();
        let n = ring.degree();
        let mut sums = vec![0u32; ring.len()];
        for i in 0..n {
            let noise = (i as i32 % 2048) - 1024;
            for (l, limb) in ring.basis().limbs().iter().enumerate() {
                sums[l * n + i] = limb.modulus().reduce_signed(noise);
            }
        }
        assert!(round_to_values(&ring, &layout, &sums).unwrap().iter().all(|&v| v == 0));
        // What the trap gives: the integer just below Q, shifted.
        let column: Vec<u32> = (0..3).map(|l| sums[l * n]).collect();
        let integer = ring.crt().lift(|l| column[l], &mut [0; 3]);
        assert!(any_from(&integer, 88), "without the half, -1024 is a huge sum");
    }

    #[test]
    fn sums_beyond_the_slots_are_refused() {
        let ring = Ring::find(4096, 30, 3).unwrap();
        let layout = Layout::new(&ring, 20, 2, 10).unwrap();
        let n = ring.degree();
        let mut sums = vec![0u32; 2 * ring.len()];
        let top = BigUint::from(1u32) << 50;
        for (l, r) in residues(&ring, &top).into_iter().enumerate() {
            sums[ring.len() + l * n + 7] = r;
        }
        assert_eq!(round_to_values(&ring, &layout, &sums), Err(HeError::BeyondSlots { block: 1, index: 7 }));
        assert!(matches!(round_to_values(&ring, &layout, &sums[1..]), Err(HeError::Length { .. })));
    }
}
