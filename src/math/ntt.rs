//! Tables of the negacyclic number-theoretic transform: modulo one prime, and modulo several (RNS).
//!
//! `psi` is a primitive 2N-th root of unity mod p. The transform of a(X) in `Z_p[X]/(X^N + 1)` is
//!
//! ```text
//! A[i] = a(psi^(2 brv(i) + 1)) = sum_j a[j] psi^(j (2 brv(i) + 1)),    i = 0..N,
//! ```
//!
//! with `brv` the reversal of log2 N bits: natural order in, bit-reversed order out, the order that
//! butterflies give without a permutation (Longa and Naehrig, CANS 2016, algorithms 1 and 2). Products
//! are taken entry by entry, whatever the order.

use std::sync::OnceLock;

use thiserror::Error;

use super::modular::{MODULUS_LIMIT, Modulus, Shoup};
use super::primes::is_prime;

/// Smallest log2 N.
pub const MIN_LOG2: u32 = 10;
/// Largest log2 N.
pub const MAX_LOG2: u32 = 15;

/// A ring or a basis that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NttError {
    /// The degree has no tables.
    #[error("ring degree {found} is no power of two from 2^10 to 2^15")]
    Degree {
        /// N.
        found: usize,
    },
    /// Lazy butterflies need four times the modulus in 32 bits.
    #[error("modulus {found} is not below 2^30 = 1073741824; math::primes::ntt_friendly lists usable primes")]
    ModulusTooLarge {
        /// p.
        found: u32,
    },
    /// Not a prime.
    #[error("modulus {found} is not prime; math::primes::ntt_friendly lists usable primes")]
    NotPrime {
        /// p.
        found: u32,
    },
    /// There is no primitive 2N-th root of unity.
    #[error("prime {found} is {remainder} mod {order} = 2N, but must be 1 mod 2N")]
    NotFriendly {
        /// p.
        found: u32,
        /// p mod 2N.
        remainder: u32,
        /// 2N.
        order: u32,
    },
    /// A basis without primes.
    #[error("a basis needs at least one prime")]
    Empty,
    /// The primes of a basis differ.
    #[error("prime {found} is twice in the basis (limbs {first} and {second})")]
    Repeated {
        /// p.
        found: u32,
        /// Where it is first.
        first: usize,
        /// Where it is again.
        second: usize,
    },
}

/// Powers of a root in bit-reversed order, each with its Shoup quotient: entry k is `root^brv(k)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twiddles {
    /// The powers.
    pub values: Vec<u32>,
    /// `floor(power 2^32 / p)`.
    pub quotients: Vec<u32>,
}

impl Twiddles {
    fn new(modulus: Modulus, root: u32, log2: u32) -> Self {
        let n = 1usize << log2;
        let mut twiddles = Self { values: vec![0; n], quotients: vec![0; n] };
        let mut power = 1;
        for k in 0..n {
            let Shoup { value, quotient } = modulus.shoup(power);
            let at = bit_reverse(k, log2);
            (twiddles.values[at], twiddles.quotients[at]) = (value, quotient);
            power = modulus.mul(power, root);
        }
        twiddles
    }

    /// Entry k as one factor.
    #[must_use]
    pub fn get(&self, k: usize) -> Shoup {
        Shoup { value: self.values[k], quotient: self.quotients[k] }
    }
}

/// The factors of the four stages below distance 16 for one group of sixteen points, for lanes of 52 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct WideLeaf {
    /// Distance 8: value, quotient; distance 4: two values, two quotients; zeros.
    pub upper: [u64; 8],
    /// Distance 2: four values, four quotients.
    pub middle: [u64; 8],
    /// Distance 1: values.
    pub values: [u64; 8],
    /// Distance 1: quotients.
    pub quotients: [u64; 8],
}

/// [`Twiddles`] for lanes of 52 bits: every quotient is `floor(value 2^52 / p)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WideTwiddles {
    /// Value and quotient of the entries below N/16: the stages at distance 16 and above.
    pub nodes: Vec<[u64; 2]>,
    /// The stages below, one leaf for each group of sixteen points.
    pub leaves: Vec<WideLeaf>,
}

/// `w` and `floor(w 2^52 / p)`; for public factors.
#[must_use]
pub const fn wide_factor(w: u32, p: u32) -> [u64; 2] {
    let (w, p) = (w as u64, p as u64);
    let (high, rest) = ((w << 34) / p, (w << 34) % p);
    [w, (high << 18) + (rest << 18) / p]
}

impl WideTwiddles {
    fn new(t: &Twiddles, p: u32) -> Self {
        let groups = t.values.len() / 16;
        let at = |k: usize| wide_factor(t.values[k], p);
        let leaf = |g: usize| {
            let mut leaf = WideLeaf { upper: [0; 8], middle: [0; 8], values: [0; 8], quotients: [0; 8] };
            [leaf.upper[0], leaf.upper[1]] = at(groups + g);
            for i in 0..2 {
                [leaf.upper[2 + i], leaf.upper[4 + i]] = at(2 * groups + 2 * g + i);
            }
            for i in 0..4 {
                [leaf.middle[i], leaf.middle[4 + i]] = at(4 * groups + 4 * g + i);
            }
            for i in 0..8 {
                [leaf.values[i], leaf.quotients[i]] = at(8 * groups + 8 * g + i);
            }
            leaf
        };
        Self { nodes: (0..groups).map(at).collect(), leaves: (0..groups).map(leaf).collect() }
    }
}

/// The two factors of the last inverse stage, `f` for the sums and `f psi^(-N/2)` for the differences: the
/// scale 1/N costs no pass of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastStage {
    /// Factor of the sums.
    pub sum: Shoup,
    /// Factor of the differences.
    pub difference: Shoup,
}

/// Everything that a transform of one length modulo one prime needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NttTables {
    modulus: Modulus,
    log2: u32,
    psi: u32,
    forward: Twiddles,
    inverse: Twiddles,
    plain: LastStage,
    montgomery: LastStage,
    word_inverse: u32,
    wide: OnceLock<[WideTwiddles; 2]>,
}

/// `k` with its lowest `bits` bits reversed.
#[must_use]
pub const fn bit_reverse(k: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { k.reverse_bits() >> (usize::BITS - bits) }
}

impl NttTables {
    /// Tables for degree `n` and the prime `p`.
    ///
    /// `psi = g^((p-1)/2N)` for the smallest quadratic non-residue g, so that everybody has the same root.
    ///
    /// # Errors
    /// If `n` is no power of two in `2^10..=2^15`, or `p` is not a prime `1 mod 2n` below 2^30.
    pub fn new(n: usize, p: u32) -> Result<Self, NttError> {
        if !n.is_power_of_two() || !(MIN_LOG2..=MAX_LOG2).contains(&n.ilog2()) {
            return Err(NttError::Degree { found: n });
        }
        if p >= MODULUS_LIMIT {
            return Err(NttError::ModulusTooLarge { found: p });
        }
        let modulus = Modulus::new(p).map_err(|_| NttError::NotPrime { found: p })?;
        if !is_prime(u64::from(p)) {
            return Err(NttError::NotPrime { found: p });
        }
        let (log2, order) = (n.ilog2(), 2 * n as u32);
        if p % order != 1 {
            return Err(NttError::NotFriendly { found: p, remainder: p % order, order });
        }
        let half = u64::from(p - 1) / 2;
        let generator = (2..p).find(|&g| modulus.pow(g, half) == p - 1).unwrap_or(p - 1);
        let psi = modulus.pow(generator, u64::from((p - 1) / order));
        let forward = Twiddles::new(modulus, psi, log2);
        let inverse = Twiddles::new(modulus, modulus.inverse(psi), log2);
        let last = |factor: u32| LastStage {
            sum: modulus.shoup(factor),
            difference: modulus.shoup(modulus.mul(factor, inverse.values[1])),
        };
        let scale = modulus.inverse(n as u32);
        let plain = last(scale);
        let montgomery = last(modulus.mul(scale, modulus.reduce(1 << 32)));
        Ok(Self {
            modulus,
            log2,
            psi,
            plain,
            montgomery,
            word_inverse: word_inverse(p),
            wide: OnceLock::new(),
            forward,
            inverse,
        })
    }

    /// N.
    #[must_use]
    pub const fn degree(&self) -> usize {
        1 << self.log2
    }

    /// log2 N.
    #[must_use]
    pub const fn degree_log2(&self) -> u32 {
        self.log2
    }

    /// The prime, ready for arithmetic.
    #[must_use]
    pub const fn modulus(&self) -> Modulus {
        self.modulus
    }

    /// The primitive 2N-th root of unity.
    #[must_use]
    pub const fn psi(&self) -> u32 {
        self.psi
    }

    /// Powers of psi in bit-reversed order.
    #[must_use]
    pub const fn forward(&self) -> &Twiddles {
        &self.forward
    }

    /// Powers of `psi^-1` in bit-reversed order.
    #[must_use]
    pub const fn inverse(&self) -> &Twiddles {
        &self.inverse
    }

    /// The same powers, and those of `psi^-1`, for lanes of 52 bits; made when first asked for.
    #[must_use]
    pub fn wide(&self) -> &[WideTwiddles; 2] {
        let of = |t: &Twiddles| WideTwiddles::new(t, self.modulus.value());
        self.wide.get_or_init(|| [of(&self.forward), of(&self.inverse)])
    }

    /// Last inverse stage with the scale 1/N.
    #[must_use]
    pub const fn last_stage(&self) -> LastStage {
        self.plain
    }

    /// Last inverse stage with the scale `2^32 / N`: after Montgomery products, which carry `2^-32`.
    #[must_use]
    pub const fn last_stage_montgomery(&self) -> LastStage {
        self.montgomery
    }

    /// `p^-1 mod 2^32`.
    #[must_use]
    pub const fn word_inverse(&self) -> u32 {
        self.word_inverse
    }
}

/// `p^-1 mod 2^32` of an odd p by Newton's iteration: each step doubles the bits that are right.
const fn word_inverse(p: u32) -> u32 {
    let mut x = p;
    let mut step = 0;
    while step < 4 {
        x = x.wrapping_mul(2u32.wrapping_sub(p.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// L different primes and one degree: a residue mod `Q = p_0 ... p_(L-1)` is a column of L limbs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RnsBasis {
    limbs: Vec<NttTables>,
}

impl RnsBasis {
    /// The basis of `primes` at degree `n`.
    ///
    /// # Errors
    /// As [`NttTables::new`]; no primes; a prime that is there twice.
    pub fn new(n: usize, primes: &[u32]) -> Result<Self, NttError> {
        if primes.is_empty() {
            return Err(NttError::Empty);
        }
        for (second, p) in primes.iter().enumerate() {
            if let Some(first) = primes[..second].iter().position(|q| q == p) {
                return Err(NttError::Repeated { found: *p, first, second });
            }
        }
        let limbs = primes.iter().map(|&p| NttTables::new(n, p)).collect::<Result<_, _>>()?;
        Ok(Self { limbs })
    }

    /// Tables, one a prime.
    #[must_use]
    pub fn limbs(&self) -> &[NttTables] {
        &self.limbs
    }

    /// N.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.limbs[0].degree()
    }

    /// The primes.
    pub fn primes(&self) -> impl Iterator<Item = u32> + '_ {
        self.limbs.iter().map(|limb| limb.modulus().value())
    }

    /// A lower bound of log2 Q: its bits less one.
    #[must_use]
    pub fn floor_log2(&self) -> u32 {
        self.primes().fold(num_bigint::BigUint::from(1u32), |q, p| q * p).bits() as u32 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::primes::{NTT_ORDER_LOG2, ntt_friendly};

    #[test]
    fn roots_and_constants() {
        for p in ntt_friendly(NTT_ORDER_LOG2).take(3).chain([40_961, 65_537]) {
            for log2 in MIN_LOG2..=MAX_LOG2 {
                let n = 1usize << log2;
                let Ok(t) = NttTables::new(n, p) else {
                    assert_ne!(p as usize % (2 * n), 1);
                    continue;
                };
                let m = t.modulus();
                assert_eq!(m.pow(t.psi(), n as u64), p - 1, "psi^N = -1");
                assert_eq!(t.word_inverse().wrapping_mul(p), 1);
                for k in [0, 1, 2, 3, n / 2, n - 1] {
                    let power = m.pow(t.psi(), bit_reverse(k, log2) as u64);
                    assert_eq!(t.forward().get(k), m.shoup(power));
                    assert_eq!(m.mul(power, t.inverse().values[k]), 1);
                }
                let [value, quotient] = wide_factor(t.psi(), p);
                assert_eq!(u128::from(quotient), (u128::from(value) << 52) / u128::from(p));
                let leaf = &t.wide()[1].leaves[n / 16 - 1];
                assert_eq!(leaf.values[7], u64::from(t.inverse().values[n - 1]));
                assert_eq!(leaf.upper[3], u64::from(t.inverse().values[n / 4 - 1]));
                assert_eq!(m.mul(t.last_stage().sum.value, n as u32), 1);
                assert_eq!(
                    u64::from(t.last_stage_montgomery().sum.value) * n as u64 % u64::from(p),
                    (1 << 32) % u64::from(p)
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        let p = ntt_friendly(NTT_ORDER_LOG2).next().unwrap();
        for n in [0, 1, 512, 1000, 1 << 16] {
            assert_eq!(NttTables::new(n, p), Err(NttError::Degree { found: n }));
        }
        assert_eq!(NttTables::new(1024, 1 << 30), Err(NttError::ModulusTooLarge { found: 1 << 30 }));
        assert_eq!(NttTables::new(1024, 0), Err(NttError::NotPrime { found: 0 }));
        assert_eq!(NttTables::new(1024, 2049), Err(NttError::NotPrime { found: 2049 }));
        let unfriendly = NttTables::new(32_768, 40_961).unwrap_err();
        assert_eq!(unfriendly, NttError::NotFriendly { found: 40_961, remainder: 40_961, order: 65_536 });
        assert!(unfriendly.to_string().contains("1 mod 2N"), "{unfriendly}");
        assert_eq!(NttTables::new(1024, 2).unwrap_err(), NttError::NotFriendly { found: 2, remainder: 2, order: 2048 });
        assert_eq!(RnsBasis::new(1024, &[]), Err(NttError::Empty));
        assert_eq!(RnsBasis::new(1024, &[p, 40_961, p]), Err(NttError::Repeated { found: p, first: 0, second: 2 }));
    }
}
