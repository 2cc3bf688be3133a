//! Deterministic primality, and the primes that negacyclic transforms need.

use super::modular::MODULUS_LIMIT;

/// log2 of what the primes of the lattice schemes are 1 modulo: one set serves every ring degree to 2^15.
pub const NTT_ORDER_LOG2: u32 = 16;

/// `base^exponent mod n`, exact for every `n`.
fn power(base: u64, mut exponent: u64, n: u64) -> u64 {
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let (mut result, mut square) = (1 % n, base % n);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

/// True if `n` is prime; exact for every `u64` (Miller-Rabin with the first twelve primes as bases:
/// Sorenson and Webster, Math. Comp. 86, 2017).
#[must_use]
pub fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    if let Some(&base) = BASES.iter().find(|&&base| n.is_multiple_of(base)) {
        return n == base;
    }
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    BASES.iter().all(|&base| {
        let mut x = power(base, odd, n);
        if x == 1 || x == n - 1 {
            return true;
        }
        for _ in 1..twos {
            x = (u128::from(x) * u128::from(x) % u128::from(n)) as u64;
            if x == n - 1 {
                return true;
            }
        }
        false
    })
}

/// The primes `p = 1 mod 2^order_log2` below 2^30, largest first; none if `order_log2 >= 30`.
///
/// With the default order [`NTT_ORDER_LOG2`] they serve every N up to 2^15.
pub fn ntt_friendly(order_log2: u32) -> impl Iterator<Item = u32> {
    let step = if order_log2 < 30 { 1u32 << order_log2 } else { MODULUS_LIMIT };
    let highest = (MODULUS_LIMIT - 1) / step;
    (1..=highest).rev().map(move |k| k * step + 1).filter(|&p| p < MODULUS_LIMIT && is_prime(u64::from(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_sieve() {
        let mut composite = vec![false; 20_000];
        for i in 2..composite.len() {
            assert_eq!(is_prime(i as u64), !composite[i], "{i}");
            for j in (2 * i..composite.len()).step_by(i) {
                composite[j] = true;
            }
        }
        assert!(!is_prime(0) && !is_prime(1));
    }

    /// Carmichael numbers, strong pseudoprimes to the first bases, and known large primes.
    #[test]
    fn is_not_fooled() {
        for n in [561, 41_041, 2_047, 3_215_031_751, 3_474_749_660_383, 341_550_071_728_321, 3_825_123_056_546_413_051]
        {
            assert!(!is_prime(n), "{n}");
        }
        for n in [(1 << 31) - 1, (1 << 61) - 1, 18_446_744_073_709_551_557, 1_073_479_681] {
            assert!(is_prime(n), "{n}");
        }
    }

    #[test]
    fn the_largest_friendly_primes_come_first() {
        let primes: Vec<u32> = ntt_friendly(NTT_ORDER_LOG2).collect();
        assert!(primes.len() > 100, "{}", primes.len());
        assert!(primes.windows(2).all(|w| w[0] > w[1]));
        assert!(primes.iter().all(|&p| p % (1 << 16) == 1 && p < MODULUS_LIMIT));
        assert_eq!(ntt_friendly(29).collect::<Vec<_>>(), Vec::<u32>::new());
        assert_eq!(ntt_friendly(40).count(), 0);
    }
}
