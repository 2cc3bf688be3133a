//! Primes and roots of an RNS basis on the device, uploaded once a basis.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{DeviceBackend, Memory};
use crate::backend::BackendError;
use crate::math::modular::Shoup;
use crate::math::ntt::{NttTables, RnsBasis, Twiddles};

/// Bases that stay on the device; the one that came first goes when another one comes.
const KEPT: usize = 8;

/// What the kernels read of one basis.
#[derive(Debug)]
pub(super) struct BasisMemory {
    degree: usize,
    moduli: Vec<u32>,
    /// Four words a limb: the prime, Barrett's reciprocal, its shift, 0.
    pub(super) primes: Memory,
    /// N pairs (value, quotient) a limb: the powers of psi in bit-reversed order.
    pub(super) forward: Memory,
    /// Those of 1/psi; instead of the first two, which no other stage uses, the factors of the last stage.
    pub(super) inverse: Memory,
}

/// The bases of a backend; clones share them.
#[derive(Clone, Default)]
pub(super) struct Bases(Arc<Mutex<VecDeque<Arc<BasisMemory>>>>);

impl fmt::Debug for Bases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bases(..)")
    }
}

/// Pair of a factor.
fn pair(factor: Shoup) -> [u32; 2] {
    [factor.value, factor.quotient]
}

/// All nodes of one direction.
fn pairs(twiddles: &Twiddles) -> impl Iterator<Item = [u32; 2]> + '_ {
    twiddles.values.iter().zip(&twiddles.quotients).map(|(&value, &quotient)| [value, quotient])
}

/// p, `floor(2^2n / p) 2^(31 - n)` with n the bits of p, `n - 1`, 0.
fn prime_words(p: u32) -> [u32; 4] {
    let bits = u32::BITS - p.leading_zeros();
    let reciprocal = ((1u64 << (2 * bits)) / u64::from(p)) << (31 - bits);
    [p, reciprocal as u32, bits - 1, 0]
}

fn inverse_pairs(tables: &NttTables) -> impl Iterator<Item = [u32; 2]> + '_ {
    let last = tables.last_stage();
    [pair(last.sum), pair(last.difference)].into_iter().chain(pairs(tables.inverse()).skip(2))
}

impl DeviceBackend {
    /// The memory of `basis`. Errors: no room.
    pub(super) fn basis(&self, basis: &RnsBasis) -> Result<Arc<BasisMemory>, BackendError> {
        let mut kept = self.bases.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |m: &&Arc<BasisMemory>| m.degree == basis.degree() && m.moduli.iter().copied().eq(basis.primes());
        if let Some(found) = kept.iter().find(same) {
            return Ok(found.clone());
        }
        let words = |pairs: Vec<[u32; 2]>| self.constant(pairs.as_flattened());
        let memory = Arc::new(BasisMemory {
            degree: basis.degree(),
            moduli: basis.primes().collect(),
            primes: self.constant(basis.primes().map(prime_words).collect::<Vec<_>>().as_flattened())?,
            forward: words(basis.limbs().iter().flat_map(|t| pairs(t.forward())).collect())?,
            inverse: words(basis.limbs().iter().flat_map(inverse_pairs).collect())?,
        });
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(memory.clone());
        Ok(memory)
    }

    /// Public words that no kernel writes; at least one.
    pub(super) fn constant(&self, words: &[u32]) -> Result<Memory, BackendError> {
        let memory = self.device().alloc(words.len() as u64, false)?;
        self.device().write(&memory, 0, words)?;
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quotient of the kernels' product is short by at most 2.
    #[test]
    fn two_subtractions_finish_barretts_product() {
        for p in [12_289, 65_537, (1 << 29) - 3, (1 << 29) + 3, 1_073_479_681, (1 << 30) - 1] {
            let [p, reciprocal, shift, _] = prime_words(p);
            let (wide, mut worst) = (u64::from(p), 0);
            for i in 0..10_000u64 {
                let (a, b) =
                    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % wide, i.wrapping_mul(0xd134_2543_de82_ef95) % wide);
                for x in [a * b, (wide - 1) * (wide - 1) - a, a, a * wide] {
                    let quotient = ((x >> shift) * u64::from(reciprocal)) >> 32;
                    assert!(x >> shift < 1 << 32 && x / wide >= quotient, "{p} {x}");
                    worst = worst.max(x / wide - quotient);
                }
            }
            assert!(worst <= 2, "{p}: {worst}");
        }
    }
}
