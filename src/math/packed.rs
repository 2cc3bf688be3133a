//! Packed Shamir sharing (Franklin, Yung, STOC 1992) of many small integers over the prime field of `p = 2^30 - 35`.
//!
//! l secrets lie on one polynomial of degree `t - 1`: its values at `-1..=-l` are the secrets, those at `1..=t - l` are
//! uniform, and share j is its value at j, for j in `1..=K`. Any t shares give the polynomial, and any `t - l` of them have
//! the same law whatever the secrets are (a polynomial of degree below t is fixed by its values at l + (t - l) points).
//!
//! **Every share above `t - l` tells one linear equation mod p of the l secrets**, and of small secrets an equation of 30
//! bits tells nearly everything. So whoever must learn nothing has `t - l` shares at most; t is what is needed to open, and
//! never the measure of what is safe.
//!
//! **Why this field.** Products of residues have 60 bits, of which fifteen add up in 64; `2^30 = 35 mod p` folds the sum with
//! one small product, so that a compiler makes vectors of it and nothing depends on a secret; sums of up to 25 million
//! secrets of `0..=42` do not wrap; a share is 30 bits, as the residues of a ciphertext are.
//!
//! Vectors are `[rows x columns]`: a vector of l rows of secrets gives K rows of shares, column by column.

mod locate;
#[cfg(test)]
mod secrecy;

use zeroize::{Zeroize, Zeroizing};

use super::modular::Modulus;

/// The prime `2^30 - 35`.
pub const P: u32 = (1 << 30) - 35;
/// Arithmetic mod p.
pub const FIELD: Modulus = match Modulus::new(P) {
    Ok(field) => field,
    Err(_) => unreachable!(),
};
/// Bits of a share.
pub const SHARE_BITS: u32 = 30;

/// What cannot be shared or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackingError {
    /// `1 <= l < t + 1`, `t <= K`, `K >= 1` do not hold.
    #[error(
        "{secrets} secrets on a polynomial that {needed} of {holders} shares open, expected 1 <= secrets <= needed <= holders"
    )]
    Range {
        /// K.
        holders: u16,
        /// t.
        needed: u16,
        /// l.
        secrets: u16,
    },
    /// Rows of another length.
    #[error("{what} of {found} values, expected {expected}")]
    Length {
        /// Which rows.
        what: &'static str,
        /// Values that there should be.
        expected: usize,
        /// Values that there are.
        found: usize,
    },
    /// A value that is not below p.
    #[error("a value of {what} is not below 2^30 - 35")]
    NotReduced {
        /// Which values.
        what: &'static str,
    },
    /// A holder that does not exist, or is there twice.
    #[error("share of holder {found}, expected different ones of 1..={holders}")]
    Holder {
        /// Its number.
        found: u16,
        /// K.
        holders: u16,
    },
    /// Fewer shares than t.
    #[error("{found} shares, at least {needed} are needed")]
    TooFew {
        /// Shares given.
        found: usize,
        /// t.
        needed: usize,
    },
    /// Shares on no polynomial of degree below t, and too few to tell which are wrong.
    #[error(
        "{found} shares of which some are wrong; {needed} right ones open, and every wrong one takes another right one to find"
    )]
    Inconsistent {
        /// Shares given.
        found: usize,
        /// t.
        needed: usize,
    },
}

/// `35 floor(x / 2^30) + x mod 2^30`: the same residue, below `2^39.2`.
const fn fold(x: u64) -> u64 {
    35 * (x >> SHARE_BITS) + (x & ((1 << SHARE_BITS) - 1))
}

/// `x mod p`.
const fn reduce(x: u64) -> u32 {
    let x = fold(fold(x)) as u32;
    // Below 2p; all ones where x < p.
    let less = x.wrapping_sub(P);
    less.wrapping_add(P & 0u32.wrapping_sub(less >> 31))
}

/// The weights `prod_(j != i) (x - b_j) / (b_i - b_j)` of the values at `basis` for the value at x.
fn lagrange(basis: &[u32], x: u32) -> Vec<u32> {
    let weight = |i: usize| {
        let others = basis.iter().enumerate().filter(|(j, _)| *j != i);
        let (top, below) = others.fold((1, 1), |(top, below), (_, &b)| {
            (FIELD.mul(top, FIELD.sub(x, b)), FIELD.mul(below, FIELD.sub(basis[i], b)))
        });
        FIELD.mul(top, FIELD.inverse(below))
    };
    (0..basis.len()).map(weight).collect()
}

/// Columns that are added up at once.
const LANES: usize = 64;
/// Products of residues that fit 64 bits beside what is left of those before: `15 (p - 1)^2 + 2^40 < 2^64`.
const PRODUCTS: usize = 15;

/// `out = sum_i coefficients_i rows_i mod p`, in a time that depends on the lengths alone.
fn combine(out: &mut [u32], coefficients: &[u32], rows: &[&[u32]]) {
    let mut sums = [0u64; LANES];
    for (at, out) in out.chunks_mut(LANES).enumerate() {
        let (start, len) = (at * LANES, out.len());
        sums.fill(0);
        for (coefficients, rows) in coefficients.chunks(PRODUCTS).zip(rows.chunks(PRODUCTS)) {
            for (&c, row) in coefficients.iter().zip(rows) {
                let row = &row[start..start + len];
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += u64::from(c) * u64::from(x));
            }
            sums.iter_mut().for_each(|sum| *sum = fold(*sum));
        }
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = reduce(sum));
    }
    sums.zeroize();
}

/// Checks that all values are below p, without an early exit.
fn check_reduced(what: &'static str, values: &[u32]) -> Result<(), PackingError> {
    let over = values.iter().fold(0, |over, &v| over | (P - 1).wrapping_sub(v) | v);
    if over >> 31 != 0 { Err(PackingError::NotReduced { what }) } else { Ok(()) }
}

/// K holders, t of them open, l secrets a polynomial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    holders: u16,
    needed: u16,
    secrets: u16,
    /// What makes the shares `t - l + 1..=K` of the secrets and the shares before: rows of t.
    matrix: Vec<u32>,
}

/// What shares open to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// `[l x columns]`.
    pub secrets: Vec<u32>,
    /// Holders whose shares do not lie on the polynomials of all the others.
    pub wrong: Vec<u16>,
}

impl Packing {
    /// Sharing of l secrets among K holders, opened by t.
    ///
    /// # Errors
    /// [`PackingError::Range`].
    pub fn new(holders: u16, needed: u16, secrets: u16) -> Result<Self, PackingError> {
        if secrets == 0 || secrets > needed || needed > holders {
            return Err(PackingError::Range { holders, needed, secrets });
        }
        let mut packing = Self { holders, needed, secrets, matrix: Vec::new() };
        let mut basis: Vec<u32> = (1..=secrets).map(Self::secret_point).collect();
        basis.extend((1..=packing.hidden()).map(u32::from));
        packing.matrix = (packing.hidden() + 1..=holders).flat_map(|j| lagrange(&basis, u32::from(j))).collect();
        Ok(packing)
    }

    /// `-z`.
    const fn secret_point(z: u16) -> u32 {
        P - z as u32
    }

    /// K.
    #[must_use]
    pub const fn holders(&self) -> u16 {
        self.holders
    }

    /// t.
    #[must_use]
    pub const fn needed(&self) -> u16 {
        self.needed
    }

    /// l.
    #[must_use]
    pub const fn secrets(&self) -> u16 {
        self.secrets
    }

    /// `t - l`: shares that tell nothing.
    #[must_use]
    pub const fn hidden(&self) -> u16 {
        self.needed - self.secrets
    }

    /// Columns of so many secrets: values of a share.
    #[must_use]
    pub const fn columns(&self, secrets: usize) -> usize {
        secrets.div_ceil(self.secrets as usize)
    }

    /// The shares of `secrets`, `[l x columns]`, as `[K x columns]`. `uniform` is `[(t - l) x columns]` of uniform values,
    /// used for this alone: they are the first `t - l` shares.
    ///
    /// # Errors
    /// Other lengths, values that are not reduced.
    pub fn deal(&self, secrets: &[u32], uniform: &[u32]) -> Result<Zeroizing<Vec<u32>>, PackingError> {
        let l = usize::from(self.secrets);
        let columns = secrets.len() / l;
        let (t, hidden) = (usize::from(self.needed), usize::from(self.hidden()));
        for (what, found, expected) in
            [("rows of secrets", secrets.len(), l * columns), ("uniform rows", uniform.len(), hidden * columns)]
        {
            if found != expected {
                return Err(PackingError::Length { what, expected, found });
            }
        }
        check_reduced("the secrets", secrets)?;
        check_reduced("the uniform rows", uniform)?;
        let mut shares = Zeroizing::new(vec![0; usize::from(self.holders) * columns]);
        let (first, rest) = shares.split_at_mut(hidden * columns);
        first.copy_from_slice(uniform);
        if columns > 0 {
            let rows: Vec<&[u32]> = secrets.chunks_exact(columns).chain(uniform.chunks_exact(columns)).collect();
            for (out, coefficients) in rest.chunks_exact_mut(columns).zip(self.matrix.chunks_exact(t)) {
                combine(out, coefficients, &rows);
            }
        }
        Ok(shares)
    }

    /// Checks the shares of different holders, and that there are enough.
    fn check(&self, shares: &[(u16, &[u32])]) -> Result<usize, PackingError> {
        let (found, needed) = (shares.len(), usize::from(self.needed));
        if found < needed {
            return Err(PackingError::TooFew { found, needed });
        }
        let columns = shares[0].1.len();
        let mut seen = vec![false; usize::from(self.holders) + 1];
        for &(holder, share) in shares {
            if holder == 0 || holder > self.holders || std::mem::replace(&mut seen[usize::from(holder)], true) {
                return Err(PackingError::Holder { found: holder, holders: self.holders });
            }
            if share.len() != columns {
                let found = share.len();
                return Err(PackingError::Length { what: "a share", expected: columns, found });
            }
            check_reduced("a share", share)?;
        }
        Ok(columns)
    }

    /// The secrets of shares, or of sums of shares, and whose shares are wrong. With a shares of which e are wrong, all of
    /// them are found if `2 e <= a - t`, and that something is wrong if `e <= a - t`; t shares alone open to anything.
    ///
    /// The time depends on the shares: what is opened is public.
    ///
    /// # Errors
    /// Fewer than t shares; shares of one holder, of other lengths or not reduced; wrong shares that cannot be told from
    /// right ones.
    pub fn open(&self, shares: &[(u16, &[u32])]) -> Result<Opened, PackingError> {
        let columns = self.check(shares)?;
        let mut good = shares.to_vec();
        let mut wrong = Vec::new();
        if !self.consistent(&good, columns) {
            wrong = locate::wrong(self, shares);
            good.retain(|(holder, _)| !wrong.contains(holder));
            if wrong.is_empty() || good.len() < usize::from(self.needed) || !self.consistent(&good, columns) {
                return Err(PackingError::Inconsistent { found: shares.len(), needed: usize::from(self.needed) });
            }
        }
        let (basis, rows) = self.basis(&good);
        let mut secrets = vec![0; usize::from(self.secrets) * columns];
        for (z, out) in secrets.chunks_exact_mut(columns.max(1)).enumerate() {
            combine(out, &lagrange(&basis, Self::secret_point(z as u16 + 1)), &rows);
        }
        Ok(Opened { secrets, wrong })
    }

    /// Points and values of the first t shares.
    fn basis<'a>(&self, shares: &[(u16, &'a [u32])]) -> (Vec<u32>, Vec<&'a [u32]>) {
        shares.iter().take(usize::from(self.needed)).map(|&(holder, share)| (u32::from(holder), share)).unzip()
    }

    /// True if all shares lie on the polynomials of the first t.
    fn consistent(&self, shares: &[(u16, &[u32])], columns: usize) -> bool {
        let (basis, rows) = self.basis(shares);
        let mut expected = vec![0; columns];
        shares[basis.len()..].iter().all(|&(holder, share)| {
            combine(&mut expected, &lagrange(&basis, u32::from(holder)), &rows);
            expected == share
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::math::prg::{Cipher, StreamKey};
    use crate::math::primes::is_prime;

    fn values(seed: u32, len: usize) -> Vec<u32> {
        let mut bytes = [3; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        let mut r = StreamKey::from_bytes(bytes, Cipher::ChaCha20).reader(0);
        (0..len).map(|_| r.below(u64::from(P)) as u32).collect()
    }

    #[test]
    fn the_field_agrees_with_wide_division() {
        assert!(is_prime(u64::from(P)));
        assert!((P + 1..1 << 30).all(|n| !is_prime(u64::from(n))), "the largest below 2^30");
        let p = u64::from(P);
        for x in
            [0, 1, p - 1, p, p + 1, 2 * p, p * p, u64::MAX, u64::MAX - 1, 1 << 63, 15 * (p - 1) * (p - 1) + (1 << 40)]
        {
            assert_eq!(u64::from(reduce(x)), x % p, "{x}");
            assert!(fold(x) < 1 << 40);
        }
        for a in [1, 2, P - 1, 12_345_678] {
            assert_eq!(FIELD.mul(a, FIELD.inverse(a)), 1);
            assert_eq!(FIELD.add(a, FIELD.sub(0, a)), 0);
        }
        // Coefficients and rows at their largest: no sum leaves its 64 bits.
        let row = vec![P - 1; 70];
        let rows: Vec<&[u32]> = vec![&row; 64];
        let mut out = vec![0; 70];
        combine(&mut out, &vec![P - 1; 64], &rows);
        assert_eq!(out, vec![64; 70]);
    }

    proptest! {
        #[test]
        fn any_needed_shares_open(k in 1u16..40, t in 1u16..40, l in 1u16..40, columns in 0usize..150, first in 0usize..40, seed in any::<u32>()) {
            let (t, l) = (t.min(k), l.min(t.min(k)));
            let packing = Packing::new(k, t, l).unwrap();
            let secrets = values(seed, usize::from(l) * columns);
            let shares = packing.deal(&secrets, &values(!seed, usize::from(t - l) * columns)).unwrap();
            let share = |j: usize| (j as u16 + 1, &shares[j * columns..][..columns]);
            let k = usize::from(k);
            let chosen: Vec<_> = (0..usize::from(t)).map(|i| share((first + i) % k)).collect();
            prop_assert_eq!(packing.open(&chosen).unwrap(), Opened { secrets: secrets.clone(), wrong: vec![] });
            let all: Vec<_> = (0..k).map(share).collect();
            prop_assert_eq!(packing.open(&all).unwrap().secrets, secrets);
        }

        #[test]
        fn wrong_shares_are_named_where_enough_are_right(
            t in 2u16..9, l in 1u16..5, more in 0u16..9, columns in 1usize..40, bad in 0usize..6, seed in any::<u32>(), one in any::<bool>(),
        ) {
            let (k, l) = (t + more, l.min(t));
            let packing = Packing::new(k, t, l).unwrap();
            let secrets = values(seed, usize::from(l) * columns);
            let mut shares = packing.deal(&secrets, &values(!seed, usize::from(t - l) * columns)).unwrap();
            let bad = bad.min(usize::from(k));
            let mut r = StreamKey::from_bytes([seed as u8; 32], Cipher::ChaCha20).reader(0);
            let mut wrong: Vec<u16> = Vec::new();
            while wrong.len() < bad {
                let j = 1 + r.below(u64::from(k)) as u16;
                if !wrong.contains(&j) {
                    wrong.push(j);
                    // All columns, or one of them.
                    let at = r.below(columns as u64) as usize;
                    for c in (0..columns).filter(|&c| !one || c == at) {
                        let x = &mut shares[(usize::from(j) - 1) * columns + c];
                        *x = FIELD.add(*x, 1 + r.below(u64::from(P) - 1) as u32);
                    }
                }
            }
            wrong.sort_unstable();
            let all: Vec<_> = (0..usize::from(k)).map(|j| (j as u16 + 1, &shares[j * columns..][..columns])).collect();
            let found = packing.open(&all);
            if 2 * bad <= usize::from(more) {
                prop_assert_eq!(found.unwrap(), Opened { secrets, wrong });
            } else if bad <= usize::from(more) {
                let refused = matches!(found, Err(PackingError::Inconsistent { .. }));
                // Others may lie on a polynomial by chance where few are right; never silently on the first one.
                prop_assert!(refused || found.as_ref().is_ok_and(|o| !o.wrong.is_empty()), "{found:?}");
            }
        }
    }

    #[test]
    fn sums_of_shares_open_to_sums() {
        let packing = Packing::new(7, 5, 2).unwrap();
        let (a, b) = (values(1, 20), values(2, 20));
        let (x, y) = (packing.deal(&a, &values(3, 30)).unwrap(), packing.deal(&b, &values(4, 30)).unwrap());
        let sum: Vec<u32> = x.iter().zip(&*y).map(|(&x, &y)| FIELD.add(FIELD.mul(3, x), y)).collect();
        let shares: Vec<_> = sum.chunks(10).enumerate().map(|(j, s)| (j as u16 + 1, s)).collect();
        let expected: Vec<u32> = a.iter().zip(&b).map(|(&a, &b)| FIELD.add(FIELD.mul(3, a), b)).collect();
        assert_eq!(packing.open(&shares[1..6]).unwrap().secrets, expected);
    }

    #[test]
    fn what_cannot_be_shared_is_refused() {
        for (k, t, l) in [(0, 0, 0), (3, 2, 0), (3, 2, 3), (3, 4, 1)] {
            assert!(matches!(Packing::new(k, t, l), Err(PackingError::Range { .. })), "{k} {t} {l}");
        }
        let packing = Packing::new(4, 3, 2).unwrap();
        assert!(matches!(packing.deal(&[1; 5], &[1; 2]), Err(PackingError::Length { .. })));
        assert!(matches!(packing.deal(&[1; 4], &[1; 3]), Err(PackingError::Length { .. })));
        assert!(matches!(packing.deal(&[1, 2, P, 3], &[1; 2]), Err(PackingError::NotReduced { .. })));
        assert!(matches!(packing.deal(&[1; 4], &[1, u32::MAX]), Err(PackingError::NotReduced { .. })));
        let s: &[u32] = &[1, 2];
        assert!(matches!(packing.open(&[(1, s), (2, s)]), Err(PackingError::TooFew { found: 2, needed: 3 })));
        for bad in [0, 5, 2] {
            assert!(matches!(packing.open(&[(1, s), (2, s), (bad, s)]), Err(PackingError::Holder { .. })), "{bad}");
        }
        assert!(matches!(packing.open(&[(1, s), (2, s), (3, &[1])]), Err(PackingError::Length { .. })));
        assert!(matches!(packing.open(&[(1, s), (2, s), (3, &[1, P])]), Err(PackingError::NotReduced { .. })));
        assert!(packing.open(&[(1, s), (2, s), (3, s), (4, &[1, 3])]).is_err(), "one wrong of t + 1 is seen");
    }
}
