//! t-of-K sharing of a polynomial over R_Q: `F(X) = s + r_1 X + ... + r_(t-1) X^(t-1)` with **uniform** r.
//!
//! Share j is F(j), j = 1..=K, for every residue on its own (a prime is far above K). Any t - 1 shares are uniform and
//! independent of s. With ternary coefficients the one share F(3) would show s: a small integer, s its last ternary digit.

use std::fmt;

use zeroize::Zeroizing;

use super::error::HeError;
use super::params::Ring;
use super::poly::{self, SecretPoly};
use crate::math::prg::StreamKey;

/// Most holders.
pub const MAX_HOLDERS: u16 = 256;

/// K holders, t of them open, f of them may be corrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    holders: u16,
    needed: u16,
    corrupt: u16,
}

impl Threshold {
    /// `1 <= K <= 256` and `(K + f)/2 < t <= K`: two sets of t share more than f holders, so that no two openings are
    /// made side by side.
    ///
    /// # Errors
    /// Otherwise, with the least t.
    pub fn new(holders: u16, needed: u16, corrupt: u16) -> Result<Self, HeError> {
        if !(1..=MAX_HOLDERS).contains(&holders) {
            let (found, most) = (u64::from(holders), u64::from(MAX_HOLDERS));
            return Err(HeError::OutOfRange { name: "number of holders", found, least: 1, most });
        }
        let (k, t, f) = (u32::from(holders), u32::from(needed), u32::from(corrupt));
        if 2 * t <= k + f || t > k {
            return Err(HeError::Threshold { needed: t, holders: k, corrupt: f, least: (k + f) / 2 + 1 });
        }
        Ok(Self { holders, needed, corrupt })
    }

    /// K.
    #[must_use]
    pub const fn holders(self) -> u16 {
        self.holders
    }

    /// t.
    #[must_use]
    pub const fn needed(self) -> u16 {
        self.needed
    }

    /// f.
    #[must_use]
    pub const fn corrupt(self) -> u16 {
        self.corrupt
    }

    /// Checks that a holder exists.
    ///
    /// # Errors
    /// [`HeError::UnknownHolder`].
    pub const fn check(self, holder: u16) -> Result<(), HeError> {
        if holder == 0 || holder > self.holders {
            return Err(HeError::UnknownHolder { found: holder, holders: self.holders });
        }
        Ok(())
    }
}

/// F_i(j): what dealer i sends to holder j, under an AEAD. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct ShareDeal {
    pub(super) session: [u8; 16],
    pub(super) dealer: u16,
    pub(super) holder: u16,
    pub(super) poly: SecretPoly,
}

impl fmt::Debug for ShareDeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShareDeal({} to {}, ..)", self.dealer, self.holder)
    }
}

impl ShareDeal {
    /// i.
    #[must_use]
    pub const fn dealer(&self) -> u16 {
        self.dealer
    }

    /// j.
    #[must_use]
    pub const fn holder(&self) -> u16 {
        self.holder
    }

    /// The session of the key.
    #[must_use]
    pub const fn session(&self) -> &[u8; 16] {
        &self.session
    }

    /// F_i(j), transformed.
    #[must_use]
    pub const fn poly(&self) -> &SecretPoly {
        &self.poly
    }
}

/// The K shares of `secret`, in the order of the holders. Residue i of limb l of `r_k` is number `((k-1) L + l) N + i` of
/// [`crate::sample::uniform::residues`] under `coefficients`; one secret a stream.
///
/// # Errors
/// A stream that is too short; an unknown dealer.
pub fn deal(
    ring: &Ring,
    threshold: Threshold,
    (session, dealer): (&[u8; 16], u16),
    secret: &SecretPoly,
    coefficients: &StreamKey,
) -> Result<Vec<ShareDeal>, HeError> {
    threshold.check(dealer)?;
    poly::check(ring, "the secret of a key share", secret.expose(), 1)?;
    let empty = |holder| ShareDeal {
        session: *session,
        dealer,
        holder,
        poly: SecretPoly::trusted(Zeroizing::new(vec![0; ring.len()])),
    };
    let mut deals: Vec<ShareDeal> = (1..=threshold.holders).map(empty).collect();
    // Horner, all holders side by side: every coefficient is drawn once.
    let mut step = |coefficient: &[u32]| {
        for deal in &mut deals {
            let point = vec![u32::from(deal.holder); ring.limbs()];
            let share = deal.poly.residues_mut();
            poly::scale(ring, share, &point);
            poly::add(ring, share, coefficient);
        }
    };
    for k in (0..usize::from(threshold.needed) - 1).rev() {
        step(&poly::uniform(ring, coefficients, k, 1)?);
    }
    step(secret.expose());
    Ok(deals)
}

/// `sigma_j = sum_i F_i(j)`: holder j's share of the sum of all secrets. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct HolderShare {
    pub(super) session: [u8; 16],
    pub(super) holder: u16,
    pub(super) poly: SecretPoly,
}

impl fmt::Debug for HolderShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HolderShare({}, ..)", self.holder)
    }
}

impl HolderShare {
    /// The sum of the deals of all K dealers to one holder.
    ///
    /// Not checked here: that a dealer's shares lie on one polynomial of degree t - 1, and that it shares what its public
    /// contribution is made of. A dealer that lies makes openings come out beyond their slots.
    ///
    /// # Errors
    /// A deal to another holder or of another session, a dealer twice or missing, a deal that is zero.
    pub fn new(
        ring: &Ring,
        threshold: Threshold,
        session: &[u8; 16],
        holder: u16,
        deals: &[ShareDeal],
    ) -> Result<Self, HeError> {
        threshold.check(holder)?;
        let mut there = vec![false; usize::from(threshold.holders)];
        let mut sum = Zeroizing::new(vec![0u32; ring.len()]);
        for deal in deals {
            threshold.check(deal.dealer)?;
            if deal.session != *session {
                return Err(HeError::ForeignSession { what: "a share" });
            }
            if deal.holder != holder {
                return Err(HeError::UnknownHolder { found: deal.holder, holders: threshold.holders });
            }
            if std::mem::replace(&mut there[usize::from(deal.dealer) - 1], true) {
                return Err(HeError::Duplicate { what: "a share", holder: deal.dealer });
            }
            poly::check(ring, "a share", deal.poly.expose(), 1)?;
            poly::refuse_zero(ring, "a share", deal.poly.expose())?;
            poly::add(ring, &mut sum, deal.poly.expose());
        }
        if let Some(missing) = there.iter().position(|&there| !there) {
            return Err(HeError::Missing { what: "the share", holder: missing as u16 + 1 });
        }
        Ok(Self { session: *session, holder, poly: SecretPoly::trusted(sum) })
    }

    /// j.
    #[must_use]
    pub const fn holder(&self) -> u16 {
        self.holder
    }

    /// The session of the key.
    #[must_use]
    pub const fn session(&self) -> &[u8; 16] {
        &self.session
    }

    /// sigma_j, transformed.
    #[must_use]
    pub const fn poly(&self) -> &SecretPoly {
        &self.poly
    }
}

/// `lambda_(j,T) = prod_(i in T, i != j) i / (i - j)` mod every prime, so that `s = sum_(j in T) lambda_(j,T) F(j)`.
/// `set` holds different numbers, all below every prime, and j among them.
#[must_use]
pub fn lagrange(ring: &Ring, set: &[u16], j: u16) -> Vec<u32> {
    let one = |limb: &crate::math::ntt::NttTables| {
        let m = limb.modulus();
        let reduced = |x: u16| m.reduce(u64::from(x));
        let others = || set.iter().copied().filter(|&i| i != j);
        let above = others().fold(1, |product, i| m.mul(product, reduced(i)));
        let below = others().fold(1, |product, i| m.mul(product, m.sub(reduced(i), reduced(j))));
        m.mul(above, m.inverse(below))
    };
    ring.basis().limbs().iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    #[test]
    fn thresholds_leave_no_two_sets_side_by_side() {
        for (k, t, f) in [(1, 1, 0), (3, 2, 0), (3, 3, 1), (4, 3, 1), (16, 16, 15), (16, 12, 7), (256, 129, 0)] {
            Threshold::new(k, t, f).unwrap();
        }
        let least = |k, t, f| match Threshold::new(k, t, f) {
            Err(HeError::Threshold { least, .. }) => least,
            other => panic!("{other:?}"),
        };
        assert_eq!(least(4, 2, 0), 3);
        assert_eq!(least(16, 12, 8), 13);
        assert_eq!(least(3, 2, 1), 3);
        assert_eq!(least(5, 6, 0), 3);
        assert!(matches!(Threshold::new(0, 0, 0), Err(HeError::OutOfRange { .. })));
        assert!(matches!(Threshold::new(257, 200, 0), Err(HeError::OutOfRange { .. })));
    }

    #[test]
    fn any_t_shares_give_the_secret() {
        let ring = Ring::find(1024, 26, 1).unwrap();
        let threshold = Threshold::new(5, 3, 0).unwrap();
        let key = |n: u8| StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
        let secret = SecretPoly::trusted(poly::uniform(&ring, &key(9), 0, 1).unwrap());
        let deals = deal(&ring, threshold, (&[0; 16], 2), &secret, &key(1)).unwrap();
        for set in [[1u16, 2, 3], [1, 4, 5], [2, 3, 5]] {
            let mut sum = vec![0u32; ring.len()];
            for j in set {
                let mut share = deals[usize::from(j) - 1].poly().expose().to_vec();
                poly::scale(&ring, &mut share, &lagrange(&ring, &set, j));
                poly::add(&ring, &mut sum, &share);
            }
            assert_eq!(sum, secret.expose());
        }
        assert!(deal(&ring, threshold, (&[0; 16], 6), &secret, &key(1)).is_err());
        assert_eq!(format!("{:?}", deals[0]), "ShareDeal(2 to 1, ..)");
    }

    #[test]
    fn a_holder_takes_one_share_of_every_dealer() {
        let ring = Ring::find(1024, 26, 1).unwrap();
        let threshold = Threshold::new(3, 2, 0).unwrap();
        let key = |n: u8| StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
        let dealt = |dealer: u16| {
            let secret = SecretPoly::trusted(poly::uniform(&ring, &key(dealer as u8), 0, 1).unwrap());
            deal(&ring, threshold, (&[3; 16], dealer), &secret, &key(100 + dealer as u8)).unwrap()
        };
        let to_two: Vec<ShareDeal> = (1..=3).map(|i| dealt(i)[1].clone()).collect();
        let new = |deals: &[ShareDeal]| HolderShare::new(&ring, threshold, &[3; 16], 2, deals);
        let share = new(&to_two).unwrap();
        assert_eq!((share.holder(), format!("{share:?}")), (2, "HolderShare(2, ..)".into()));
        assert!(matches!(new(&to_two[..2]), Err(HeError::Missing { holder: 3, .. })));
        let twice = [to_two[0].clone(), to_two[0].clone(), to_two[2].clone()];
        assert!(matches!(new(&twice), Err(HeError::Duplicate { holder: 1, .. })));
        let foreign = [to_two[0].clone(), to_two[1].clone(), dealt(3)[2].clone()];
        assert!(matches!(new(&foreign), Err(HeError::UnknownHolder { found: 3, .. })));
        let other = HolderShare::new(&ring, threshold, &[4; 16], 2, &to_two);
        assert!(matches!(other, Err(HeError::ForeignSession { .. })));
        let mut zero = to_two.clone();
        zero[1].poly = SecretPoly::trusted(Zeroizing::new(vec![0; ring.len()]));
        assert!(matches!(new(&zero), Err(HeError::Zero { .. })));
    }
}
