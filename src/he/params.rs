//! Rings and plaintext layouts that are safe, or an error that names one.

use std::fmt;
use std::sync::Arc;

use super::error::{HeError, Nearest};
use super::rns::Crt;
use super::security::limit;
use crate::math::ntt::RnsBasis;
use crate::math::primes::{NTT_ORDER_LOG2, is_prime};
use crate::params::EncryptParams;

/// Widest slot.
pub const MAX_WIDTH: u32 = 64;

/// `Z_Q[X]/(X^N + 1)` with N and Q within the limits of HomomorphicEncryption.org. A clone shares the tables.
#[derive(Clone)]
pub struct Ring {
    inner: Arc<Inner>,
}

struct Inner {
    basis: RnsBasis,
    crt: Crt,
    log2_modulus: f64,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring(N = {}, log2 Q = {:.1}, L = {})", self.degree(), self.log2_modulus(), self.limbs())
    }
}

impl PartialEq for Ring {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
            || (self.degree() == other.degree() && self.basis().primes().eq(other.basis().primes()))
    }
}

/// log2 of a product of primes, rounded up by less than `2^-40`.
#[must_use]
pub fn log2_product(primes: impl IntoIterator<Item = u32>) -> f64 {
    primes.into_iter().map(|p| libm::log2(f64::from(p))).sum::<f64>() + 1e-13
}

/// The `count` largest primes below `2^bits` that are 1 mod `2^16`, which serves every degree to `2^15`; fewer where
/// there are not so many. `bits` 18 to 30.
#[must_use]
pub fn find_primes(bits: u32, count: usize) -> Vec<u32> {
    let highest = ((1u32 << bits.clamp(1, 30)) - 1) >> NTT_ORDER_LOG2;
    let candidates = (1..=highest).rev().map(|k| (k << NTT_ORDER_LOG2) + 1);
    candidates.filter(|&p| is_prime(u64::from(p))).take(count).collect()
}

impl Ring {
    /// The ring of degree `degree` and the product of `primes`.
    ///
    /// # Errors
    /// No such basis (see [`RnsBasis::new`]); log2 Q above the table's limit for the degree (with the nearest safe set).
    pub fn new(degree: usize, primes: &[u32]) -> Result<Self, HeError> {
        let log2_modulus = log2_product(primes.iter().copied());
        // Before the tables, which a long list of primes would make large.
        if let Some(limit) = limit(degree).filter(|&limit| log2_modulus > f64::from(limit)) {
            return Err(HeError::Unsafe { degree, log2_modulus, limit, nearest: nearest(degree, primes) });
        }
        let basis = RnsBasis::new(degree, primes)?;
        let crt = Crt::new(&basis);
        Ok(Self { inner: Arc::new(Inner { basis, crt, log2_modulus }) })
    }

    /// The ring of the `limbs` largest primes below `2^bits` that are 1 mod `2^16`.
    ///
    /// # Errors
    /// As [`Self::new`]; not so many primes.
    pub fn find(degree: usize, bits: u32, limbs: usize) -> Result<Self, HeError> {
        if !(18..=30).contains(&bits) {
            return Err(HeError::OutOfRange { name: "bits of a prime", found: u64::from(bits), least: 18, most: 30 });
        }
        let primes = find_primes(bits, limbs.min(64));
        if primes.len() < limbs {
            let (found, most) = (limbs as u64, primes.len() as u64);
            return Err(HeError::OutOfRange { name: "number of primes", found, least: 1, most });
        }
        Self::new(degree, &primes)
    }

    /// Tables and primes.
    #[must_use]
    pub fn basis(&self) -> &RnsBasis {
        &self.inner.basis
    }

    /// What takes columns of residues to integers.
    #[must_use]
    pub fn crt(&self) -> &Crt {
        &self.inner.crt
    }

    /// N.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.inner.basis.degree()
    }

    /// L.
    #[must_use]
    pub fn limbs(&self) -> usize {
        self.inner.basis.limbs().len()
    }

    /// Residues of a polynomial, `L N`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.degree() * self.limbs()
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// log2 Q.
    #[must_use]
    pub fn log2_modulus(&self) -> f64 {
        self.inner.log2_modulus
    }

    /// Bytes of a polynomial as it travels: every residue in the bits of its prime.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.basis().primes().map(|p| self.degree() * prime_bits(p) as usize / 8).sum()
    }
}

/// Bits of a residue below p.
#[must_use]
pub const fn prime_bits(p: u32) -> u32 {
    u32::BITS - (p - 1).leading_zeros()
}

/// What to take in place of a modulus that is too large: the next degree that carries it, else fewer primes.
fn nearest(degree: usize, primes: &[u32]) -> Nearest {
    let needed = log2_product(primes.iter().copied());
    let mut larger = degree.saturating_mul(2);
    while let Some(limit) = limit(larger) {
        if needed <= f64::from(limit) {
            return Nearest::Degree { degree: larger, log2_modulus: f64::from(limit) };
        }
        larger *= 2;
    }
    let most = limit(degree).map_or(0.0, f64::from);
    let fits = |count: &usize| log2_product(primes[..*count].iter().copied()) <= most;
    match (1..primes.len()).rev().find(fits) {
        Some(primes) => Nearest::FewerPrimes { degree, primes },
        None => Nearest::Nothing,
    }
}

/// Where the values of a message lie in a coefficient: `2^o sum_(z < k) 2^(w z) m_z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// w: bits of a slot; the sum of a slot over all clients stays below `2^w`.
    pub width: u32,
    /// k: values in a coefficient.
    pub slots: u32,
    /// o: bits below the slots, for the noise.
    pub offset: u32,
}

impl Layout {
    /// A layout that a ring holds: `1 <= w <= 64`, `k >= 1`, `o >= 1`, `k w + o <= floor(log2 Q)`.
    ///
    /// # Errors
    /// Otherwise, with the number that is wrong.
    pub fn new(ring: &Ring, width: u32, slots: u32, offset: u32) -> Result<Self, HeError> {
        let most = u64::from(MAX_WIDTH);
        let range = |name, found: u32, most| HeError::OutOfRange { name, found: u64::from(found), least: 1, most };
        if !(1..=MAX_WIDTH).contains(&width) {
            return Err(range("width", width, most));
        }
        let room = ring.basis().floor_log2();
        for (name, found) in [("slots", slots), ("offset", offset)] {
            if found == 0 {
                return Err(range(name, found, u64::from(room)));
            }
        }
        let needed = u64::from(slots) * u64::from(width) + u64::from(offset);
        if needed > u64::from(room) {
            return Err(HeError::Layout { slots, width, offset, needed, room });
        }
        Ok(Self { width, slots, offset })
    }

    /// Values of a block, k N.
    #[must_use]
    pub fn block(&self, ring: &Ring) -> usize {
        self.slots as usize * ring.degree()
    }

    /// Blocks that `values` values take.
    #[must_use]
    pub fn blocks(&self, ring: &Ring, values: usize) -> usize {
        values.div_ceil(self.block(ring))
    }

    /// The same for the fused kernel of one-shot encryption.
    ///
    /// # Errors
    /// A width above 32 bits, the most that the kernel takes.
    pub fn encrypt_params(&self, eta: u32) -> Result<EncryptParams, HeError> {
        if self.width > 32 {
            let found = u64::from(self.width);
            return Err(HeError::OutOfRange { name: "width of a slot for the kernel", found, least: 1, most: 32 });
        }
        Ok(EncryptParams { slots: self.slots, width: self.width, offset: self.offset, eta })
    }
}

/// Bits of the unwrapped sum of values `z + B`, `|z| <= B`, with weights that sum to W: `ceil(log2(2 B W + 1))`.
///
/// # Errors
/// Zero B or W, or more than [`MAX_WIDTH`] bits (with the largest bound that fits).
pub fn field_width(bound: u64, weight_sum: u64) -> Result<u32, HeError> {
    for (name, found) in [("bound of a value", bound), ("sum of the weights", weight_sum)] {
        if found == 0 {
            return Err(HeError::OutOfRange { name, found, least: 1, most: u64::MAX });
        }
    }
    let greatest = (u128::from(bound) * u128::from(weight_sum)).checked_mul(2);
    let bits = greatest.map_or(129, |g| u128::BITS - g.leading_zeros());
    if bits > MAX_WIDTH {
        let fits = u64::MAX / 2 / weight_sum;
        let nearest = if fits == 0 { Nearest::Nothing } else { Nearest::Bound { bound: fits } };
        return Err(HeError::NoSet { what: "a sum of bits", found: u64::from(bits), nearest });
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_sets_are_taken_and_others_named() {
        let p1 = Ring::find(4096, 30, 3).unwrap();
        assert_eq!((p1.limbs(), p1.basis().floor_log2(), p1.bytes()), (3, 89, 3 * 4096 * 30 / 8));
        let key = Ring::find(4096, 27, 4).unwrap();
        assert!((107.8..=108.0).contains(&key.log2_modulus()), "{key:?}");
        assert_eq!(key.bytes(), 4 * 4096 * 27 / 8);
        let unsafe_set = Ring::find(4096, 30, 4).unwrap_err();
        assert!(
            matches!(unsafe_set, HeError::Unsafe { limit: 109, nearest: Nearest::Degree { degree: 8192, .. }, .. }),
            "{unsafe_set}"
        );
        assert!(unsafe_set.to_string().contains("nearest safe: N = 8192"), "{unsafe_set}");
        let hopeless = Ring::find(32_768, 30, 30).unwrap_err();
        assert!(
            matches!(hopeless, HeError::Unsafe { nearest: Nearest::FewerPrimes { degree: 32_768, primes: 29 }, .. }),
            "{hopeless}"
        );
        assert!(matches!(Ring::find(1024, 30, 1), Err(HeError::Unsafe { limit: 27, .. })));
        assert!(matches!(Ring::new(4000, &[65_537]), Err(HeError::Ntt(_))));
        assert!(matches!(Ring::find(4096, 31, 1), Err(HeError::OutOfRange { .. })));
        assert!(matches!(Ring::find(4096, 18, 60), Err(HeError::OutOfRange { .. })));
    }

    #[test]
    fn the_largest_primes_are_those_that_stand() {
        use crate::math::primes::ntt_friendly;
        assert_eq!(find_primes(30, 32), ntt_friendly(NTT_ORDER_LOG2).take(32).collect::<Vec<_>>());
        let below: Vec<u32> = ntt_friendly(NTT_ORDER_LOG2).filter(|&p| p < 1 << 24).collect();
        assert_eq!(find_primes(24, 1000), below);
        assert_eq!(find_primes(10, 3), Vec::<u32>::new());
    }

    #[test]
    fn layouts_fit_or_say_by_how_much_not() {
        let ring = Ring::find(4096, 30, 3).unwrap();
        let layout = Layout::new(&ring, 26, 3, 11).unwrap();
        assert_eq!((layout.block(&ring), layout.blocks(&ring, 1_000_000)), (12_288, 82));
        assert_eq!(Layout::new(&ring, 26, 3, 12).unwrap_err().to_string().matches("90 bits").count(), 1);
        for (width, slots, offset) in [(0, 1, 1), (65, 1, 1), (1, 0, 1), (1, 1, 0), (64, u32::MAX, u32::MAX)] {
            assert!(Layout::new(&ring, width, slots, offset).is_err());
        }
        assert!(Layout::new(&ring, 40, 1, 20).unwrap().encrypt_params(21).is_err());
    }

    #[test]
    fn widths_of_the_specification() {
        for (bound, width) in [(1u64 << 15, 26), (1 << 7, 18), (1 << 23, 34), (1 << 31, 42)] {
            assert_eq!(field_width(bound, 1000).unwrap(), width);
        }
        assert_eq!(field_width(1, 1).unwrap(), 2);
        let wide = field_width(1 << 60, 1 << 20).unwrap_err();
        assert!(matches!(wide, HeError::NoSet { nearest: Nearest::Bound { .. }, .. }), "{wide}");
        assert!(field_width(u64::MAX, u64::MAX).is_err() && field_width(0, 1).is_err());
    }
}
