//! Ring, layout, thresholds: computed from what is to be summed and whom nobody trusts.
//!
//! | what must hold | condition |
//! |---|---|
//! | f holders learn nothing of a key, and all others together the sum of one set of keys at most | `t - l + 1 > (2 K + f)/3` |
//! | a sum of keys does not wrap in the field of the shares | `2 eta W < p` |
//! | no sum of values leaves its slot, and errors leave their bits with probability below `2^-40` or never | `k w + o <= floor(log2 Q)`: [`crate::he::chooser`] |
//! | the ring is safe once the sums of keys and errors are public | two honest clients, weights of ciphertexts at most 3: the same |
//!
//! **The first, proved.** A malicious server may name another set to every honest holder, of which there are `h = K - f`,
//! and knows what the f others hold of every client. What it learns of the keys are linear combinations of answers, with a
//! factor `c_j` for that of honest holder j, in which the uniform part of **every** honest client's polynomial cancels. For a
//! client i, let `J_i` be the honest holders with `c_j != 0` whose set has i. That its part cancels says: there is a word of
//! the dual of the Reed-Solomon code of degree `t - 1` at the K points of the holders and the l of the secrets which is
//! `c_j` on `J_i`, 0 at the other honest holders, anything elsewhere. The dual has dimension `K + l - t` and is MDS, and
//! stays so without the `f + l` other places: a word has 0 or at least `d = h - (K + l - t) + 1` places that are not 0, and
//! `3 d > 2 h` is the condition. If two clients had different `J_u`, `J_v`, not empty, then the difference of their words
//! would have at least d places too, so that `3 d <= |J_u| + |J_v| + |J_u - J_v| + |J_v - J_u| = 2 |J_u + J_v| <= 2 h`. So all
//! clients of a combination have the same J: its holders were told sets with the same honest clients C, of which the
//! combination tells functions of the summed key. Of another combination the J meets this one, as `2 d > h`: the same C. QED.
//!
//! `t > (K + f)/2`, by which two sets are not **opened** side by side, is not enough, twice. Between `t - l + 1` and t every
//! answer tells an equation mod p of l small numbers. And sets can be mixed: with K = 3, t = 2, l = 1, holder 1 told the
//! clients U and V, 2 only U, 3 only V, the answers give `6 P_1 - 4 P_2 - 3 P_3 = 2 S_U + 3 S_V`.

use std::fmt;

use crate::he::chooser::{self, Failure, VectorChoice};
use crate::he::noise::Weights;
use crate::he::{ETA, Threshold};
use crate::math::packed::{self, Packing};
use crate::params::EncryptParams;
use crate::secagg::{SecAggError, VectorShape};

/// Largest cohort.
pub const MAX_CLIENTS: usize = 1 << 20;

/// How often a client counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Weighting {
    /// Once.
    #[default]
    Equal,
    /// Its vector has its weight in it: a client of weight w adds values of magnitude `w B` at most. In the order of the
    /// cohort.
    Inside(Vec<u64>),
    /// The server multiplies its ciphertext, and the holders its shares: at most 3, in the order of the cohort.
    Server(Vec<u32>),
}

impl Weighting {
    /// The weights that are in the vectors, and those that ciphertexts are multiplied with.
    fn of(&self, index: usize) -> (u64, u32) {
        match self {
            Self::Equal => (1, 1),
            Self::Inside(weights) => (weights[index], 1),
            Self::Server(weights) => (1, weights[index]),
        }
    }

    fn len(&self) -> Option<usize> {
        match self {
            Self::Equal => None,
            Self::Inside(weights) => Some(weights.len()),
            Self::Server(weights) => Some(weights.len()),
        }
    }
}

/// What a plan is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// n: clients of the cohort.
    pub clients: usize,
    /// Length and ring of the sum.
    pub shape: VectorShape,
    /// B: magnitude that no value of a client exceeds before its weight, **for certain**; not a residue's, the integer's.
    pub bound: u64,
    /// How often clients count.
    pub weights: Weighting,
    /// c: clients that may be in league with the server.
    pub corrupt_clients: usize,
    /// Least number of survivors that are added up, at least `c + 2`: two honest ones.
    pub min_survivors: usize,
    /// K.
    pub holders: u16,
    /// t: answers that open.
    pub needed: u16,
    /// f: holders that may be in league with the server.
    pub corrupt_holders: u16,
    /// l: coefficients of a key that share a polynomial; `None` takes as many as are safe.
    pub packing: Option<u16>,
    /// Whether errors may leave their bits.
    pub failure: Failure,
}

impl Request {
    /// Equal weights, nobody corrupt among the clients, K holders of which f are corrupt, t of them open.
    #[must_use]
    pub const fn new(clients: usize, shape: VectorShape, bound: u64, holders: (u16, u16, u16)) -> Self {
        Self {
            clients,
            shape,
            bound,
            weights: Weighting::Equal,
            corrupt_clients: 0,
            min_survivors: 2,
            holders: holders.0,
            needed: holders.1,
            corrupt_holders: holders.2,
            packing: None,
            failure: Failure::Statistical,
        }
    }
}

/// Numbers of a session that all parties agree on; made by [`Plan::choose`] alone, so that every condition of the table above
/// holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    request: Request,
    vector: VectorChoice,
    packing: Packing,
    /// Kernel slots of a slot: two of half the width where that is above 32 bits.
    parts: u32,
    input_bits: u32,
}

/// The most coefficients of a key on a polynomial: `l <= t - floor((2 K + f)/3)`.
///
/// # Errors
/// None are safe: `3 t <= 2 K + f`, or not `1 <= K <= 256`, `t <= K`.
pub fn most_packed(holders: u16, needed: u16, corrupt: u16) -> Result<u16, SecAggError> {
    let least = least_needed(holders, corrupt);
    if needed < least || needed > holders {
        let expected = "above (2 K + f)/3 and at most K, so that answers for different sets tell nothing together";
        return Err(range("needed holders", expected, u64::from(needed)));
    }
    Threshold::new(holders, needed, corrupt)?;
    Ok(needed - least + 1)
}

/// The least t: `floor((2 K + f)/3) + 1`.
#[must_use]
pub const fn least_needed(holders: u16, corrupt: u16) -> u16 {
    ((2 * holders as u32 + corrupt as u32) / 3 + 1) as u16
}

impl Plan {
    /// The plan of a request.
    ///
    /// # Errors
    /// What a condition of the table excludes: [`SecAggError::OutOfRange`] with the range, [`SecAggError::Lattice`] with the
    /// nearest request that has a safe set.
    pub fn choose(request: &Request) -> Result<Self, SecAggError> {
        check(request)?;
        let most = most_packed(request.holders, request.needed, request.corrupt_holders)?;
        let threshold = Threshold::new(request.holders, request.needed, request.corrupt_holders)?;
        let secrets = request.packing.unwrap_or(most);
        if !(1..=most).contains(&secrets) {
            return Err(range("packing", "1 to t - floor((2 K + f)/3)", u64::from(secrets)));
        }
        let packing = Packing::new(request.holders, request.needed, secrets)?;
        let (weight_sum, ciphertexts, heaviest_inside) = totals(request)?;
        if 2 * u128::from(ETA) * u128::from(ciphertexts.sum()) >= u128::from(packed::P) {
            return Err(range(
                "sum of the weights",
                "below 2^30 / 42, so that a sum of keys does not wrap",
                ciphertexts.sum(),
            ));
        }
        let asked = chooser::Request {
            values: u64::from(request.shape.len),
            bound: request.bound,
            weight_sum,
            ciphertexts,
            threshold,
            openings: 1,
            lambda: 40,
            failure: request.failure,
            degree: None,
        };
        let mut vector = chooser::oneshot_vector(&asked)?;
        if vector.layout.width > 32 && vector.layout.width % 2 == 1 {
            // The kernel's slots have 32 bits at most: a wider one is two of half the width.
            vector = chooser::oneshot_vector(&chooser::Request { bound: request.bound.saturating_mul(2), ..asked })?;
        }
        let magnitude = request.bound.saturating_mul(heaviest_inside);
        Ok(Self {
            parts: 1 + u32::from(vector.layout.width > 32),
            input_bits: request.shape.bits.max(1 + u64::BITS - magnitude.saturating_sub(1).leading_zeros()),
            request: request.clone(),
            vector,
            packing,
        })
    }

    /// What the plan was made from.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Ring, layout, security and failure.
    #[must_use]
    pub const fn vector(&self) -> &VectorChoice {
        &self.vector
    }

    /// How keys are shared.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Shape of what a client hands over: its integers mod `2^bits` of a ring that they do not wrap in, at least the ring of
    /// the sum.
    #[must_use]
    pub const fn input_shape(&self) -> VectorShape {
        VectorShape { len: self.request.shape.len, bits: self.input_bits }
    }

    /// The magnitude that no value of the client exceeds, its weight included.
    #[must_use]
    pub fn bound(&self, index: usize) -> u64 {
        self.request.bound * self.request.weights.of(index).0
    }

    /// How often the client's ciphertext is added.
    #[must_use]
    pub fn weight(&self, index: usize) -> u32 {
        self.request.weights.of(index).1
    }

    /// Kernel slots of a slot.
    pub(super) const fn parts(&self) -> u32 {
        self.parts
    }

    /// The slots as the kernel takes them: one of w bits, or two of `w/2`.
    pub(super) const fn kernel(&self) -> EncryptParams {
        let layout = self.vector.layout;
        EncryptParams {
            slots: layout.slots * self.parts,
            width: layout.width / self.parts,
            offset: layout.offset,
            eta: ETA,
        }
    }

    /// Values of a share of a key.
    #[must_use]
    pub fn share_len(&self) -> usize {
        self.packing.columns(self.vector.ring.degree())
    }

    /// Bytes of a client's message: its ciphertext, its sealed shares, what it signs.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        super::wire::input_bytes(self)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (r, v, l) = (&self.request, &self.vector, &self.vector.layout);
        write!(
            f,
            "oneshot, n = {}, up to {} corrupt, at least {} survivors: {}, w = {}, k = {}, o = {}, {:.0} bits of security, a \
             sum fails below 2^{:.0}; K = {} holders, t = {} open, up to {} corrupt, l = {} coefficients a share; {:.3} bytes a \
             value",
            r.clients,
            r.corrupt_clients,
            r.min_survivors,
            format_args!("{:?}", v.ring),
            l.width,
            l.slots,
            l.offset,
            v.security.bits,
            v.log2_failure,
            r.holders,
            r.needed,
            r.corrupt_holders,
            self.packing.secrets(),
            self.message_bytes() as f64 / f64::from(r.shape.len),
        )
    }
}

const fn range(name: &'static str, expected: &'static str, found: u64) -> SecAggError {
    SecAggError::OutOfRange { name, expected, found }
}

fn check(r: &Request) -> Result<(), SecAggError> {
    let ensure = |ok: bool, name, expected, found: usize| {
        if ok { Ok(()) } else { Err(range(name, expected, found as u64)) }
    };
    crate::secagg::accumulator::check_shape(r.shape)?;
    ensure(r.shape.len > 0, "coordinates", "at least 1", 0)?;
    ensure((2..=MAX_CLIENTS).contains(&r.clients), "clients", "2 to 2^20", r.clients)?;
    let honest = r.clients - 2;
    ensure(
        r.corrupt_clients <= honest,
        "corrupt_clients",
        "at most the clients less two honest ones",
        r.corrupt_clients,
    )?;
    let least = r.corrupt_clients + 2;
    ensure(
        r.min_survivors >= least,
        "min_survivors",
        "at least corrupt_clients + 2: two honest ones",
        r.min_survivors,
    )?;
    ensure(r.min_survivors <= r.clients, "min_survivors", "at most the clients", r.min_survivors)?;
    if let Some(found) = r.weights.len().filter(|&len| len != r.clients) {
        return ensure(false, "weights", "as many as clients", found);
    }
    Ok(())
}

/// W of the values, the weights of the ciphertexts, and the greatest weight inside.
fn totals(r: &Request) -> Result<(u64, Weights, u64), SecAggError> {
    let equal = Weights::equal(r.clients as u64);
    let (inside, heaviest): (u64, u64) = match &r.weights {
        Weighting::Equal => return bounded(r, (r.clients as u64, equal, 1)),
        Weighting::Inside(weights) => {
            positive(weights.iter().copied().min())?;
            (weights.iter().fold(0, |sum, &w| sum.saturating_add(w)), weights.iter().copied().max().unwrap_or(1))
        }
        Weighting::Server(weights) => {
            positive(weights.iter().copied().min().map(u64::from))?;
            let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            let squares = weights.iter().fold(0u64, |sum, &w| sum.saturating_add(u64::from(w) * u64::from(w)));
            let heaviest = weights.iter().copied().max().map_or(1, u64::from);
            return bounded(r, (sum, Weights::new(sum, squares, heaviest)?, 1));
        }
    };
    bounded(r, (inside, equal, heaviest))
}

fn positive(least: Option<u64>) -> Result<(), SecAggError> {
    if least == Some(0) { Err(range("weight", "at least 1", 0)) } else { Ok(()) }
}

/// Magnitudes stay below `2^62`: twice that, and differences, have a sign in 64 bits.
fn bounded(r: &Request, totals: (u64, Weights, u64)) -> Result<(u64, Weights, u64), SecAggError> {
    match r.bound.checked_mul(totals.2) {
        Some(0) => Err(range("bound", "at least 1", 0)),
        Some(most) if most < 1 << 62 => Ok(totals),
        _ => Err(range("bound", "below 2^62, its heaviest weight included", r.bound)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: VectorShape = VectorShape { len: 1_000_000, bits: 16 };

    #[test]
    fn the_figures_of_the_specification() {
        let plan = Plan::choose(&Request::new(1000, SHAPE, 1 << 15, (32, 29, 1))).unwrap();
        let (vector, layout) = (plan.vector(), plan.vector().layout);
        assert_eq!((vector.ring.degree(), vector.ring.limbs()), (4096, 3));
        assert_eq!((layout.width, layout.slots, layout.offset), (26, 3, 11));
        assert!(vector.security.bits >= 150.0 && vector.log2_failure < -56.0);
        assert_eq!((plan.packing().secrets(), plan.share_len(), plan.input_shape()), (8, 512, SHAPE));
        // 61 KB of shares at K = 32.
        assert_eq!(plan.share_len() * 30 / 8 * 32, 61_440);
        assert!((plan.message_bytes() as f64) < 4.0e6, "{plan}");
    }

    #[test]
    fn packing_keeps_sets_apart() {
        for (k, f) in [(1u16, 0u16), (3, 0), (4, 1), (5, 1), (16, 3), (32, 8), (256, 80)] {
            for t in 1..=k {
                match most_packed(k, t, f) {
                    Err(_) => assert!(3 * t <= 2 * k + f),
                    Ok(l) => {
                        assert!(l >= 1 && 3 * (t - l + 1) > 2 * k + f && 3 * (t - l) <= 2 * k + f, "{k} {t} {f}: {l}");
                        // Least distance of the words in the proof.
                        let (h, d) = (k - f, (k - f) + t + 1 - k - l);
                        assert!(3 * d > 2 * h);
                        assert!(f <= t - l, "f holders learn nothing");
                    }
                }
            }
        }
        let asked = Request { packing: Some(9), ..Request::new(1000, SHAPE, 1 << 15, (32, 29, 1)) };
        assert!(matches!(Plan::choose(&asked), Err(SecAggError::OutOfRange { name: "packing", found: 9, .. })));
    }

    #[test]
    fn inputs_get_a_ring_that_holds_them() {
        let bits = |bound: u64, weights: Weighting| {
            let shape = VectorShape { len: 10, bits: 8 };
            let plan = Plan::choose(&Request { weights, ..Request::new(3, shape, bound, (4, 3, 0)) }).unwrap();
            (plan.input_shape().bits, plan.parts(), plan.kernel().width)
        };
        assert_eq!(bits(1, Weighting::Equal), (8, 1, 3));
        assert_eq!(bits(128, Weighting::Equal), (8, 1, 10));
        assert_eq!(bits(129, Weighting::Equal).0, 9);
        assert_eq!(bits(100, Weighting::Inside(vec![1, 2, 9])).0, 11);
        assert_eq!(bits(100, Weighting::Server(vec![1, 2, 3])).0, 8);
        // w = 35, made 36: two halves.
        assert_eq!(bits(1 << 32, Weighting::Equal), (33, 2, 18));
    }

    #[test]
    fn what_cannot_be_summed_is_refused_with_what_would_be() {
        let base = Request::new(10, VectorShape { len: 100, bits: 16 }, 1 << 15, (5, 4, 1));
        let name = |request: Request| match Plan::choose(&request) {
            Err(SecAggError::OutOfRange { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name(Request { clients: 1, ..base.clone() }), "clients");
        assert_eq!(name(Request { corrupt_clients: 9, ..base.clone() }), "corrupt_clients");
        assert_eq!(name(Request { corrupt_clients: 1, ..base.clone() }), "min_survivors");
        assert_eq!(name(Request { min_survivors: 11, ..base.clone() }), "min_survivors");
        assert_eq!(name(Request { weights: Weighting::Inside(vec![1; 9]), ..base.clone() }), "weights");
        assert_eq!(name(Request { weights: Weighting::Server(vec![0; 10]), ..base.clone() }), "weight");
        assert_eq!(name(Request { bound: 0, ..base.clone() }), "bound");
        assert_eq!(name(Request { bound: u64::MAX, ..base.clone() }), "bound");
        assert_eq!(name(Request { shape: VectorShape { len: 0, bits: 16 }, ..base.clone() }), "coordinates");
        let lattice = |request: Request| match Plan::choose(&request) {
            Err(SecAggError::Lattice(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        for needed in [0, 3, 6] {
            assert_eq!(name(Request { needed, ..base.clone() }), "needed holders");
        }
        assert!(lattice(Request { holders: 300, needed: 300, ..base.clone() }).contains("number of holders"));
        let mut heavy = vec![1; 10];
        heavy[3] = 4;
        let refused = lattice(Request { weights: Weighting::Server(heavy), ..base.clone() });
        assert!(refused.contains("equal weights"), "{refused}");
        assert!(Plan::choose(&Request { weights: Weighting::Server(vec![3; 10]), ..base }).is_ok());
    }
}
