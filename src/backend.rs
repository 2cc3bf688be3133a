//! Buffers, `trait Backend`, and `open()`: the only file that knows every backend.
//!
//! A verb is the name of a pipeline stage. Integer stages are bit-equal on every backend; float
//! stages agree to a stated bound with `backend/scalar`, the oracle.

mod buffer;
mod check;
mod error;
mod job;
pub mod scalar;
mod shrink;
pub mod simd;

use std::fmt;
use std::sync::Arc;

pub use self::buffer::{Aligned, Buffer, Rows};
pub use self::error::BackendError;
pub use self::job::{EncodeJob, EncodeReport, NonFinite, RowKeys};
use crate::math::prg::StreamKey;
use crate::params::{ClipParams, DecodeParams, FwhtParams, Ring};
use crate::sample::noise::Noise;

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

    /// Adds noise to every word mod `2^bits`. Coordinate `j` uses the bytes of `key` at `NOISE_STRIDE * j` with
    /// a table, and those that `scalar::binomial` says with a centred binomial. The same bits as `encode`
    /// with that law and key on a zero row.
    ///
    /// Errors: bits out of range, more coordinates than [`Noise::capacity`].
    fn noise(&self, words: &mut Buffer, bits: u32, noise: &Noise, key: &StreamKey) -> Result<(), BackendError>;

    /// Adds each of the rows in `rows` (each as long as `acc`) to `acc` in `ring`.
    ///
    /// Errors: a ring out of range, rows that are no whole number of accumulators.
    fn sum(&self, acc: &mut Buffer, rows: &Buffer, ring: Ring) -> Result<(), BackendError>;

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
