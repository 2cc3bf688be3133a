//! Buffers, `trait Backend`, and `open()`: the only file that knows every backend.
//!
//! A verb is the name of a pipeline stage. Integer stages are bit-equal on every backend; float
//! stages agree to a stated bound with `backend/scalar`, the oracle.

mod check;
pub mod scalar;
mod shrink;
pub mod simd;

use std::fmt;
use std::sync::Arc;

use crate::math::prg::StreamKey;
use crate::params::{ClipParams, DecodeParams, EncodeParams, FwhtParams};
use crate::sample::table::NoiseTable;

/// The backends that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// The naive oracle, one thread.
    Scalar,
    /// Blocked kernels on all cores of the CPU.
    Simd,
}

impl BackendKind {
    /// The name used in configs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Simd => "simd",
        }
    }
}

/// Memory of one backend. Host backends share plain vectors.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// 32-bit floats on the host.
    HostF32(Vec<f32>),
    /// Fixed-point coordinates on the host.
    HostI32(Vec<i32>),
    /// Residues mod `2^b`, one a word, on the host.
    HostU32(Vec<u32>),
}

impl Buffer {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::HostF32(v) => v.len(),
            Self::HostI32(v) => v.len(),
            Self::HostU32(v) => v.len(),
        }
    }

    /// True without elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the element type, for errors.
    #[must_use]
    pub const fn dtype(&self) -> &'static str {
        match self {
            Self::HostF32(_) => "f32",
            Self::HostI32(_) => "i32",
            Self::HostU32(_) => "u32",
        }
    }

    /// The floats, or an error that names the type found.
    pub fn as_f32(&self) -> Result<&[f32], BackendError> {
        match self {
            Self::HostF32(v) => Ok(v),
            other => Err(BackendError::WrongType { expected: "f32", found: other.dtype() }),
        }
    }

    /// The fixed-point integers, or an error that names the type found.
    pub fn as_i32(&self) -> Result<&[i32], BackendError> {
        match self {
            Self::HostI32(v) => Ok(v),
            other => Err(BackendError::WrongType { expected: "i32", found: other.dtype() }),
        }
    }

    /// The residues, or an error that names the type found.
    pub fn as_u32(&self) -> Result<&[u32], BackendError> {
        match self {
            Self::HostU32(v) => Ok(v),
            other => Err(BackendError::WrongType { expected: "u32", found: other.dtype() }),
        }
    }

    /// The floats, writable.
    pub fn as_f32_mut(&mut self) -> Result<&mut Vec<f32>, BackendError> {
        match self {
            Self::HostF32(v) => Ok(v),
            other => Err(BackendError::WrongType { expected: "f32", found: other.dtype() }),
        }
    }

    /// The residues, writable.
    pub fn as_u32_mut(&mut self) -> Result<&mut Vec<u32>, BackendError> {
        match self {
            Self::HostU32(v) => Ok(v),
            other => Err(BackendError::WrongType { expected: "u32", found: other.dtype() }),
        }
    }
}

/// `rows` rows of `dim` floats inside a buffer: row `i` starts at `offset + i * stride`.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Where the rows live.
    pub buffer: Buffer,
    /// Element index of the first row.
    pub offset: usize,
    /// Elements between the starts of two rows, `>= dim`.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Coordinates a row.
    pub dim: usize,
}

impl Rows {
    /// Dense rows on the host. Errors if the length is not `rows * dim`.
    pub fn dense(data: Vec<f32>, rows: usize, dim: usize) -> Result<Self, BackendError> {
        let expected = rows * dim;
        if data.len() != expected {
            return Err(BackendError::WrongLength { what: "rows", expected, found: data.len() });
        }
        Ok(Self { buffer: Buffer::HostF32(data), offset: 0, stride: dim, rows, dim })
    }

    /// Row `i` on the host.
    pub fn row(&self, i: usize) -> Result<&[f32], BackendError> {
        let start = self.offset + i * self.stride;
        let data = self.buffer.as_f32()?;
        data.get(start..start + self.dim).ok_or(BackendError::WrongLength {
            what: "row",
            expected: start + self.dim,
            found: data.len(),
        })
    }
}

/// The two secret keystreams of one row; which coordinate uses which bytes is fixed in `params`.
#[derive(Clone, Debug)]
pub struct RowKeys {
    /// Randomness of the stochastic rounding.
    pub rounding: StreamKey,
    /// Randomness of the noise.
    pub noise: StreamKey,
}

/// What to do with a row that holds NaN or an infinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonFinite {
    /// Return [`BackendError::NonFinite`] and write nothing.
    Error,
    /// Encode a zero row and count it in [`EncodeReport::zeroed`] (a private round: a visible
    /// failure would depend on the data).
    ZeroRow,
}

/// Everything that `encode` needs beside the rows.
#[derive(Clone, Copy, Debug)]
pub struct EncodeJob<'a> {
    /// Shapes, scale, bounds.
    pub params: EncodeParams,
    /// Public +-1 signs of the rotation, shared by all clients of a round (ignored if `rotate == 0`).
    pub signs: &'a StreamKey,
    /// One pair a row.
    pub keys: &'a [RowKeys],
    /// Noise added to every coordinate of every row; `None` adds none.
    pub noise: Option<&'a NoiseTable>,
    /// What to do with NaN and infinities.
    pub non_finite: NonFinite,
}

/// What `encode` saw; stays at the client, never sent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EncodeReport {
    /// Rows replaced by zero because of NaN or an infinity.
    pub zeroed: usize,
    /// Rows that the clip changed.
    pub clipped: usize,
    /// Sum over rows of `min(1, C / |x|)` (L2) or of the mixed clip's ratio.
    pub clip_ratio_sum: f64,
    /// Sum over rows of the L2 norm before the clip (zeroed rows count 0).
    pub norm_sum: f64,
    /// Coordinates clamped by the bound on a single coordinate.
    pub linf_hits: u64,
}

impl EncodeReport {
    /// Adds another report to this one.
    pub fn merge(&mut self, other: &Self) {
        self.zeroed += other.zeroed;
        self.clipped += other.clipped;
        self.clip_ratio_sum += other.clip_ratio_sum;
        self.norm_sum += other.norm_sum;
        self.linf_hits += other.linf_hits;
    }
}

/// A machine that runs the stages of the pipeline. Object safe; held as `Arc<dyn Backend>`.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Which backend this is.
    fn kind(&self) -> BackendKind;

    /// One line for people: what it runs on (ISA, threads, device name).
    fn describe(&self) -> String;

    /// Clips every row in place to L2 norm `params.bound` and returns the norms before the clip.
    ///
    /// `x_i <- x_i * min(1, C / |x_i|)`. Norms are accumulated so that their relative error is
    /// below 1e-6 up to d = 2^27. Errors: non-finite input (names the row), bound not positive.
    fn clip(&self, x: &mut Buffer, params: &ClipParams) -> Result<Vec<f32>, BackendError>;

    /// Walsh-Hadamard transform in place: `y = scale * H x` on each block, natural (Sylvester) order.
    fn fwht(&self, x: &mut Buffer, params: &FwhtParams) -> Result<(), BackendError>;

    /// The float half of `encode`: clip, pad, signs, block FWHT, scale, truncation toward zero to
    /// fixed point with F fraction bits (saturating). Returns `[rows x padded]` `i32`.
    fn encode_fixed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError>;

    /// The integer half of `encode`: coordinate clamp, exact norm check and shrink, stochastic
    /// rounding, noise, wrap mod `2^b`. Returns `[rows x padded]` `u32`; bit-identical everywhere.
    fn encode_integer(&self, fixed: &Buffer, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError>;

    /// `encode_integer(encode_fixed(rows))`; a backend may fuse the two halves, bits unchanged
    /// given the same fixed-point coordinates.
    fn encode(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let (fixed, mut report) = self.encode_fixed(rows, job)?;
        let (words, second) = self.encode_integer(&fixed, job)?;
        report.merge(&second);
        Ok((words, report))
    }

    /// Adds noise from `table` to every word mod `2^bits`: coordinate `j` uses the bytes of `key`
    /// at `NOISE_STRIDE * j`. The same bits as `encode` with that table and key on a zero row.
    fn noise(&self, words: &mut Buffer, bits: u32, table: &NoiseTable, key: &StreamKey) -> Result<(), BackendError>;

    /// Adds each of the rows in `rows` (each as long as `acc`) to `acc` mod `2^bits`.
    fn sum(&self, acc: &mut Buffer, rows: &Buffer, bits: u32) -> Result<(), BackendError>;

    /// Centres a sum into `(-2^(b-1), 2^(b-1)]`, undoes the rotation and the scale, cuts the padding.
    fn decode(&self, sum: &Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<Vec<f32>, BackendError>;
}

/// Opens a backend; `None` picks the fastest that this machine has.
pub fn open(kind: Option<BackendKind>) -> Result<Arc<dyn Backend>, BackendError> {
    match kind.unwrap_or(BackendKind::Simd) {
        BackendKind::Scalar => Ok(Arc::new(scalar::Scalar)),
        BackendKind::Simd => Ok(Arc::new(simd::Simd::new())),
    }
}

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
    /// A backend name that does not exist or is absent on this machine.
    #[error("backend {name} is not available: {reason}")]
    Unavailable {
        /// Backend asked for.
        name: String,
        /// Why not, and what is available.
        reason: String,
    },
}
