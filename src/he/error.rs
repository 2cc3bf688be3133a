//! What the room refuses.

use std::fmt;

use crate::backend::BackendError;
use crate::math::ntt::NttError;
use crate::sample::SampleError;

/// What would be safe, or would fit, instead of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Nearest {
    /// Another ring degree with this most of log2 Q.
    Degree {
        /// N.
        degree: usize,
        /// Bits.
        log2_modulus: f64,
    },
    /// The same degree with fewer primes.
    FewerPrimes {
        /// N.
        degree: usize,
        /// How many of the primes given, the first ones.
        primes: usize,
    },
    /// The same request with a smaller bound of the values.
    Bound {
        /// B.
        bound: u64,
    },
    /// The same request with a smaller lambda.
    Lambda {
        /// Bits.
        lambda: u32,
    },
    /// The same request with equal weights.
    EqualWeights,
    /// Nothing near.
    Nothing,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Degree { degree, log2_modulus } => {
                write!(f, "nearest safe: N = {degree}, which carries {log2_modulus:.1} bits")
            }
            Self::FewerPrimes { degree, primes } => {
                write!(f, "nearest safe: the first {primes} of these primes at N = {degree}")
            }
            Self::Bound { bound } => write!(f, "nearest safe: values of magnitude {bound} at most"),
            Self::Lambda { lambda } => write!(f, "nearest that fits: lambda = {lambda}"),
            Self::EqualWeights => {
                f.write_str("nearest safe: equal weights of the ciphertexts, the weights inside the values")
            }
            Self::Nothing => f.write_str("no safe set is near"),
        }
    }
}

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HeError {
    /// A ring or a basis that cannot be.
    #[error(transparent)]
    Ntt(#[from] NttError),
    /// A kernel refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A sampler refused.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A modulus above the limit of its degree.
    #[error(
        "log2 Q = {log2_modulus:.1} at N = {degree} exceeds {limit} bits, the limit of HomomorphicEncryption.org for 128 \
         bits of security with ternary secrets; {nearest}"
    )]
    Unsafe {
        /// N.
        degree: usize,
        /// log2 Q.
        log2_modulus: f64,
        /// The most allowed.
        limit: u32,
        /// What would be safe.
        nearest: Nearest,
    },
    /// Fewer bits of security than asked for.
    #[error(
        "N = {degree}, log2 Q = {log2_modulus:.1} has {found:.1} bits of security, {required} are required; {nearest}"
    )]
    Weak {
        /// N.
        degree: usize,
        /// log2 Q.
        log2_modulus: f64,
        /// Bits estimated.
        found: f64,
        /// Bits required.
        required: u32,
        /// What would be safe.
        nearest: Nearest,
    },
    /// A request that no set of parameters serves.
    #[error("no safe set carries {what} {found}: {nearest}")]
    NoSet {
        /// What does not fit.
        what: &'static str,
        /// Its size.
        found: u64,
        /// What would fit.
        nearest: Nearest,
    },
    /// A parameter outside its range.
    #[error("{name} is {found}, expected {least} to {most}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// Value found.
        found: u64,
        /// Least value.
        least: u64,
        /// Greatest value.
        most: u64,
    },
    /// Slots that do not fit the modulus.
    #[error("{slots} slots of {width} bits above {offset} bits of noise take {needed} bits, log2 Q holds {room}")]
    Layout {
        /// k.
        slots: u32,
        /// w.
        width: u32,
        /// o.
        offset: u32,
        /// k w + o.
        needed: u64,
        /// floor(log2 Q).
        room: u32,
    },
    /// A threshold that leaves two sets side by side, or that nobody reaches.
    #[error(
        "threshold {needed} of {holders} holders, {corrupt} of them corrupt: at least {least} are needed (t > (K + f)/2, so \
         that two openings share an honest holder), at most {holders}"
    )]
    Threshold {
        /// t.
        needed: u32,
        /// K.
        holders: u32,
        /// f.
        corrupt: u32,
        /// Least t.
        least: u32,
    },
    /// Another length.
    #[error("{what} has length {found}, expected {expected}")]
    Length {
        /// What.
        what: &'static str,
        /// Expected.
        expected: usize,
        /// Found.
        found: usize,
    },
    /// A polynomial without a coefficient that is not zero: a zero key opens everything.
    #[error("{what} is all zero")]
    Zero {
        /// What.
        what: &'static str,
    },
    /// A residue that is not below its prime.
    #[error("{what} has a residue in limb {limb} that is not below {prime}")]
    NotReduced {
        /// What.
        what: &'static str,
        /// Limb.
        limb: usize,
        /// The prime.
        prime: u32,
    },
    /// Something of another ring.
    #[error("{what} belongs to another ring: another degree or other primes")]
    ForeignRing {
        /// What.
        what: &'static str,
    },
    /// Something of another session.
    #[error("{what} belongs to another session")]
    ForeignSession {
        /// What.
        what: &'static str,
    },
    /// No such holder.
    #[error("holder {found} does not exist: they are 1 to {holders}")]
    UnknownHolder {
        /// Number.
        found: u16,
        /// K.
        holders: u16,
    },
    /// A second one from the same holder, or the same from two holders.
    #[error("{what} of holder {holder} is there already")]
    Duplicate {
        /// What.
        what: &'static str,
        /// Who.
        holder: u16,
    },
    /// A contribution opened before every holder has committed, or without a commitment.
    #[error("holder {missing} has not committed yet: nothing is opened before all have")]
    Uncommitted {
        /// First holder without.
        missing: u16,
    },
    /// A contribution that is not the committed one.
    #[error("the contribution of holder {holder} is not what it committed to")]
    CommitmentMismatch {
        /// Who.
        holder: u16,
    },
    /// Something is missing.
    #[error("{what} of holder {holder} is missing")]
    Missing {
        /// What.
        what: &'static str,
        /// Whose.
        holder: u16,
    },
    /// A set that is no set of t holders.
    #[error("an opening set has {expected} different holders in ascending order, found {found}")]
    Set {
        /// t.
        expected: usize,
        /// Found.
        found: usize,
    },
    /// A holder that is not in the set.
    #[error("holder {holder} is not in the opening set")]
    NotInSet {
        /// Who.
        holder: u16,
    },
    /// A second opening with other data.
    #[error(
        "this session, or this ciphertext, was answered with other data: a holder answers for one ciphertext a session and \
         as many sets of holders as planned, and only repeats that"
    )]
    Answered,
    /// All planned openings are used up.
    #[error("all {planned} openings that the flooding was sized for are used up: make a new key")]
    OpeningsSpent {
        /// R.
        planned: u64,
    },
    /// More was added than was planned for.
    #[error("{what} {found} exceeds the {planned} that the noise was planned for")]
    BeyondPlan {
        /// What.
        what: &'static str,
        /// Found.
        found: u64,
        /// Planned.
        planned: u64,
    },
    /// Parts of an opening would be shown one by one.
    #[error(
        "holder {holder} has no common key with holder {other}: with K > t corrupt holders outside the set could tell the \
         noise from the parts, so that these are masked in pairs"
    )]
    PairKeyMissing {
        /// Who.
        holder: u16,
        /// With whom.
        other: u16,
    },
    /// A sum that is no sum.
    #[error(
        "coefficient {index} of block {block} is beyond the slots: a wrong part, another set, or a sum above the plan"
    )]
    BeyondSlots {
        /// Block.
        block: usize,
        /// Coefficient.
        index: usize,
    },
    /// A value that does not fit its slot. Which one, and how large, is not said: messages are secret.
    #[error("a value of the message is not below 2^{width}, the width of a slot")]
    MessageTooWide {
        /// w.
        width: u32,
    },
    /// Bytes of another format.
    #[error(
        "no {what} of this format: it begins with {magic:02x?}, version {version}, kind {kind}; expected {expected:?}"
    )]
    Format {
        /// What was expected.
        what: &'static str,
        /// The first four bytes.
        magic: [u8; 4],
        /// Version found.
        version: u8,
        /// Kind found.
        kind: u8,
        /// Magic, version and kind expected.
        expected: ([u8; 4], u8, u8),
    },
    /// A scheme that is broken.
    #[error(
        "{name} is not offered: it is broken. With N = p q and Enc(m) = (r L + m)(1 + r' p) mod N, one ciphertext and N give \
         p by reducing a lattice of three dimensions (the ciphertext is small mod p; Howgrave-Graham 2001); use oneshot or \
         mphe, or symmetric for a trusted aggregator"
    )]
    Broken {
        /// Name asked for.
        name: &'static str,
    },
    /// A scheme that does not exist.
    #[error("there is no scheme {found:?}; there are oneshot, mphe and symmetric")]
    UnknownScheme {
        /// Name asked for.
        found: String,
    },
}
