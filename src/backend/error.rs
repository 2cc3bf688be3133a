//! What a kernel refuses.

/// What can go wrong in a kernel call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BackendError {
    /// A buffer of another element type.
    #[error("buffer holds {found}, expected {expected}")]
    WrongType {
        /// Type that the stage takes.
        expected: &'static str,
        /// Type of the buffer.
        found: &'static str,
    },
    /// Rows of half precision where a stage changes rows in place.
    #[error(
        "{stage} changes rows in place and takes f32, found {found}: products rounded to {found} could exceed the bound. \
         encode takes such rows as they are and clips them to its own bound"
    )]
    HalfInPlace {
        /// The stage.
        stage: &'static str,
        /// Type of the buffer.
        found: &'static str,
    },
    /// A buffer or slice of another length.
    #[error("{what} has length {found}, expected {expected}")]
    WrongLength {
        /// Which argument.
        what: &'static str,
        /// Length that the parameters ask for.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// NaN or an infinity where the caller asked for an error.
    #[error("row {row} holds a NaN or an infinity at coordinate {coordinate}")]
    NonFinite {
        /// First such row.
        row: usize,
        /// First such coordinate in it.
        coordinate: usize,
    },
    /// A parameter outside its range.
    #[error("{name} is {found}, expected {expected}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// The allowed range, in words.
        expected: &'static str,
        /// Value found.
        found: f64,
    },
    /// More than a launch may bind where it cannot be split.
    #[error(
        "{what} takes {words} words, and one binding of this device holds {most}: download the buffers and use simd"
    )]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Words that it takes.
        words: u64,
        /// Words that would fit.
        most: u64,
    },
    /// A number where a residue of a prime is expected.
    #[error("{what} holds {found} at {index}, expected a residue below the prime {prime}")]
    NotBelowPrime {
        /// Which argument.
        what: &'static str,
        /// First such place.
        index: usize,
        /// Number found.
        found: u32,
        /// The prime.
        prime: u32,
    },
    /// A residue that is not below its prime.
    #[error("polynomial {batch}, limb {limb} of {what} has a residue at {index} that is not below the prime {prime}")]
    NotReduced {
        /// Which argument.
        what: &'static str,
        /// Polynomial of the batch.
        batch: usize,
        /// Limb of the basis.
        limb: usize,
        /// First such place in the row.
        index: usize,
        /// The prime of that limb.
        prime: u32,
    },
    /// A secret of another ring.
    #[error("the secret was made for another degree or other primes than the basis of the job")]
    WrongBasis,
    /// A value that does not fit its slot. Which one, and how large, is not said: messages are secret.
    #[error("a value of the message is not below 2^{width}, the width of a slot")]
    MessageTooWide {
        /// Bits of a slot.
        width: u32,
    },
    /// A backend name that does not exist or is absent on this machine.
    #[error("backend {name} is not available: {reason}")]
    Unavailable {
        /// Backend asked for.
        name: String,
        /// Why not, and what is available.
        reason: String,
    },
    /// A buffer that lives elsewhere.
    #[error("the buffer is on {found}, expected one on {expected}")]
    WrongPlace {
        /// Where it lives.
        found: String,
        /// Where it should.
        expected: String,
    },
    /// A stage that this backend has no kernels for.
    #[error("{backend} does not have the stage {stage}: download the buffers and use simd")]
    Unsupported {
        /// The stage.
        stage: &'static str,
        /// The backend.
        backend: &'static str,
    },
    /// Not enough memory on a device; what it holds is unchanged and the device still works.
    #[error("{backend} has no room for {needed} bytes ({})", free.map_or("free: not reported".into(), |f| format!("free: {f}")))]
    DeviceMemory {
        /// The backend.
        backend: &'static str,
        /// Bytes asked for.
        needed: u64,
        /// Bytes free, or the most that one buffer may have; nothing if the driver does not say.
        free: Option<u64>,
    },
    /// The device is gone for this process: a reset, a crash of its driver, or it was taken away.
    #[error("the device of {backend} was lost: {reason}")]
    DeviceLost {
        /// The backend.
        backend: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// Something that a device or its driver refused.
    #[error("{backend}: {what}: {reason}")]
    DeviceFailed {
        /// The backend.
        backend: &'static str,
        /// What was asked for.
        what: String,
        /// What the driver said.
        reason: String,
    },
}
