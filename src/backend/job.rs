//! What `encode` takes beside the rows, and what it reports.

use crate::math::prg::StreamKey;
use crate::params::EncodeParams;
use crate::sample::noise::Noise;

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
    /// Return [`super::BackendError::NonFinite`] and write nothing.
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
    pub noise: Option<&'a Noise>,
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

/// Encoded rows as they travel: `bits` a value, each row from a whole byte on (see [`super::Backend::pack`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The rows, one after another.
    pub bytes: Vec<u8>,
    /// Bytes of a row.
    pub row_bytes: usize,
}

impl Packed {
    /// The rows.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.row_bytes.max(1))
    }
}
