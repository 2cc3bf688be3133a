//! Opening a sum by t of K holders.
//!
//! ```text
//! h_j = lambda_(j,T) sigma_j c1 + f_j + z_j        sum over T:  s c1 + sum f_j,  since sum z_j = 0
//! c0 + sum h_j = 2^o m + noise,  round, drop o bits
//! ```
//!
//! - The Lagrange factor comes **before** the flooding f_j: a factor behind it would blow the noise up to Q.
//! - `f_j = PRF(holder secret, session, hash(ct), T)`, uniform on `[-B', B']`: an identical request gets the same bytes.
//!   The same f_j under two sets would give `(lambda - lambda') sigma_j c1` exactly; another set is another stream, and
//!   [`OpeningGuard`] refuses it besides, unless the plan has room for it ([`OpeningPlan::with_sets`]), and counts it as
//!   another of the R openings.
//! - `z_j` hides the parts from whoever sees them one by one (the server): `sum_(i > j) G_ij - sum_(i < j) G_ij` over T, with
//!   G_ij uniform in R_Q from a key that only i and j have. **It is needed where t < K**: a corrupt holder outside T knows
//!   a share that is worth an equation more than the parts are masked by, so that integer combinations of the f_j and the
//!   sum's noise nu come out exactly. For K = 4, T = {1, 2, 3} and holder 4 corrupt, `2 h_1 - 6 h_3` and what is known
//!   give `3 nu + 2 f_1 - 6 f_3`, the parity of every coefficient of nu; more holders give larger moduli, and nu is what
//!   the key is hidden by. With the masks only the sum of the honest parts is seen, in which one honest f_j hides nu.
//!   (Threshold Raccoon, EUROCRYPT 2024, masks for the same reason.) With t = K every corrupt holder is in T.
//!
//! **What is proved.** With at least one honest holder in T, s and all errors sampled as they should be, all R openings are
//! within `2^-lambda` of a view made from the sums alone ([`super::noise::Flooding`]).

mod guard;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

pub use self::guard::OpeningGuard;
pub use self::plan::OpeningPlan;
use super::encrypt::Ciphertext;
use super::error::HeError;
use super::params::Ring;
use super::poly;
use super::rns::round_to_values;
use super::shamir::{HolderShare, Threshold, lagrange};
use crate::backend::Backend;
use crate::math::prg::{Cipher, Purpose, Secret, StreamKey};
use crate::sample::uniform::Interval;

/// T: t different holders in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderSet(Vec<u16>);

impl HolderSet {
    /// The set, whatever the order given.
    ///
    /// # Errors
    /// Not t different holders of 1..=K.
    pub fn new(threshold: Threshold, holders: &[u16]) -> Result<Self, HeError> {
        let (expected, found) = (usize::from(threshold.needed()), holders.len());
        if found != expected {
            return Err(HeError::Set { expected, found });
        }
        holders.iter().try_for_each(|&j| threshold.check(j))?;
        let set: BTreeSet<u16> = holders.iter().copied().collect();
        if set.len() != expected {
            return Err(HeError::Set { expected, found: set.len() });
        }
        Ok(Self(set.into_iter().collect()))
    }

    /// The holders.
    #[must_use]
    pub fn holders(&self) -> &[u16] {
        &self.0
    }
}

/// `SHA-256(domain | hash(ct) | T)`.
fn context(domain: &[u8], digest: &[u8; 32], set: &HolderSet) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(domain);
    hash.update(digest);
    set.0.iter().for_each(|j| hash.update(j.to_le_bytes()));
    hash.finalize().into()
}

/// h_j of one opening. Public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialOpening {
    pub(super) holder: u16,
    pub(super) session: [u8; 16],
    /// Hash of the sum.
    pub(super) digest: [u8; 32],
    pub(super) set: HolderSet,
    /// `[blocks x L x N]`, transformed.
    pub(super) poly: Vec<u32>,
}

impl PartialOpening {
    /// j.
    #[must_use]
    pub const fn holder(&self) -> u16 {
        self.holder
    }

    /// T.
    #[must_use]
    pub const fn set(&self) -> &HolderSet {
        &self.set
    }

    /// h_j, transformed, `[blocks x L x N]`.
    #[must_use]
    pub fn poly(&self) -> &[u32] {
        &self.poly
    }
}

/// A key holder that answers openings. Its secrets are zeroized on drop and never printed.
#[derive(Clone)]
pub struct Holder {
    plan: OpeningPlan,
    share: HolderShare,
    secret: Secret,
    pairs: BTreeMap<u16, Secret>,
    guard: OpeningGuard,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Holder({}, {} answered, ..)", self.share.holder(), self.guard.len())
    }
}

impl Holder {
    /// Holder j with its share, its own secret (for f_j), a secret in common with each other holder (for z_j; none are
    /// needed where t = K), and what it has answered before.
    ///
    /// # Errors
    /// A share of another ring, a holder that does not exist, a missing common secret.
    pub fn new(
        plan: OpeningPlan,
        share: HolderShare,
        secret: Secret,
        pairs: BTreeMap<u16, Secret>,
        guard: OpeningGuard,
    ) -> Result<Self, HeError> {
        let holder = share.holder();
        plan.threshold().check(holder)?;
        poly::check(plan.ring(), "a holder's share", share.poly().expose(), 1)?;
        if plan.needs_pairs() {
            let missing = (1..=plan.threshold().holders()).find(|&j| j != holder && !pairs.contains_key(&j));
            if let Some(other) = missing {
                return Err(HeError::PairKeyMissing { holder, other });
            }
        }
        Ok(Self { plan, share, secret, pairs, guard })
    }

    /// What it has answered.
    #[must_use]
    pub const fn guard(&self) -> &OpeningGuard {
        &self.guard
    }

    /// h_j for the sum, which the holder has made itself from signed ciphertexts, and the signed set T.
    ///
    /// [`Self::guard`] must be on record before the answer is sent.
    ///
    /// # Errors
    /// A sum beyond the plan or with a zero half; a set without this holder; a second opening with other data, of the same
    /// sum in another session, or by more sets than planned; more openings than planned. Nothing is given away then.
    pub fn answer(
        &mut self,
        backend: &dyn Backend,
        session: &[u8; 16],
        sum: &Ciphertext,
        set: &HolderSet,
    ) -> Result<PartialOpening, HeError> {
        let holder = self.share.holder();
        self.plan.check(sum)?;
        let set = HolderSet::new(self.plan.threshold(), set.holders())?;
        if !set.holders().contains(&holder) {
            return Err(HeError::NotInSet { holder });
        }
        let digest = sum.digest();
        self.guard.admit(session, &digest, &set, (self.plan.openings(), self.plan.sets()))?;
        let ring = self.plan.ring();
        let mut factor = Zeroizing::new(self.share.poly().expose().to_vec());
        poly::scale(ring, &mut factor, &lagrange(ring, set.holders(), holder));
        let mut part = Zeroizing::new(sum.halves().1.to_vec());
        poly::multiply(ring, &mut part, &factor);
        let bound = context(b"veilsum he flooding v1", &digest, &set);
        let stream = self.secret.derive_bound(session, Purpose::Flooding, &bound, Cipher::ChaCha20);
        let mut flooding = flooding(ring, self.plan.flooding().bound, &stream, sum.blocks())?;
        poly::forward(backend, ring, &mut flooding)?;
        poly::add(ring, &mut part, &flooding);
        self.mask(session, &digest, &set, &mut part)?;
        Ok(PartialOpening { holder, session: *session, digest, set, poly: part.to_vec() })
    }

    /// Adds z_j.
    fn mask(&self, session: &[u8; 16], digest: &[u8; 32], set: &HolderSet, part: &mut [u32]) -> Result<(), HeError> {
        let (ring, holder) = (self.plan.ring(), self.share.holder());
        if !self.plan.needs_pairs() {
            return Ok(());
        }
        let bound = context(b"veilsum he opening mask v1", digest, set);
        for &other in set.holders().iter().filter(|&&other| other != holder) {
            let Some(common) = self.pairs.get(&other) else { return Err(HeError::PairKeyMissing { holder, other }) };
            let stream = common.derive_bound(session, Purpose::OpeningMask, &bound, Cipher::ChaCha20);
            let mask = poly::uniform(ring, &stream, 0, part.len() / ring.len())?;
            if holder < other {
                poly::add(ring, part, &mask);
            } else {
                poly::subtract(ring, part, &mask);
            }
        }
        Ok(())
    }
}

/// Uniform integers of `[-bound, bound]` in RNS, `[blocks x L x N]` coefficients: coefficient i of block b is number
/// `b N + i` of [`Interval::fill`].
fn flooding(ring: &Ring, bound: u128, stream: &StreamKey, blocks: usize) -> Result<Zeroizing<Vec<u32>>, HeError> {
    let n = ring.degree();
    let mut out = Zeroizing::new(vec![0u32; blocks * ring.len()]);
    let interval = Interval::new(bound)?;
    let mut values = vec![0u128; n];
    for (b, out) in out.chunks_exact_mut(ring.len()).enumerate() {
        interval.fill(stream, (b * n) as u64, n, |i, v| values[i] = v)?;
        for (limb, row) in ring.basis().limbs().iter().zip(out.chunks_exact_mut(n)) {
            let m = limb.modulus();
            let word = m.pow(m.reduce(2), 64);
            let reduce = |v: u128| m.add(m.mul(m.reduce((v >> 64) as u64), word), m.reduce(v as u64));
            let shift = reduce(bound);
            row.iter_mut().zip(&values).for_each(|(x, &v)| *x = m.sub(reduce(v), shift));
        }
    }
    values.zeroize();
    Ok(out)
}

/// The sums of the values, `[blocks x k x N]`: of the sum that `parts` open, one of each holder of their set.
///
/// # Errors
/// Parts of other sets, sums or sessions, a holder twice or missing; a result beyond its slots (a wrong part).
pub fn combine(
    backend: &dyn Backend,
    plan: &OpeningPlan,
    session: &[u8; 16],
    sum: &Ciphertext,
    parts: &[PartialOpening],
) -> Result<Vec<u64>, HeError> {
    plan.check(sum)?;
    let (expected, found) = (usize::from(plan.threshold().needed()), parts.len());
    let Some(first) = parts.first() else { return Err(HeError::Set { expected, found }) };
    let set = HolderSet::new(plan.threshold(), first.set.holders())?;
    let digest = sum.digest();
    let mut opened = sum.halves().0.to_vec();
    let mut there = BTreeSet::new();
    for part in parts {
        if part.session != *session || part.digest != digest {
            return Err(HeError::ForeignSession { what: "a part of an opening" });
        }
        if part.set != set {
            return Err(HeError::Set { expected, found: part.set.holders().len() });
        }
        if !set.holders().contains(&part.holder) {
            return Err(HeError::NotInSet { holder: part.holder });
        }
        if !there.insert(part.holder) {
            return Err(HeError::Duplicate { what: "the part", holder: part.holder });
        }
        poly::check(plan.ring(), "a part of an opening", &part.poly, sum.blocks())?;
        poly::refuse_zero(plan.ring(), "a part of an opening", &part.poly)?;
        poly::add(plan.ring(), &mut opened, &part.poly);
    }
    if let Some(&holder) = set.holders().iter().find(|j| !there.contains(j)) {
        return Err(HeError::Missing { what: "the part", holder });
    }
    poly::inverse(backend, plan.ring(), &mut opened)?;
    round_to_values(plan.ring(), plan.layout(), &opened)
}
