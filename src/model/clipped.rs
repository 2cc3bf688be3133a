//! What a trainer gives that clips inside: the exact sum of integer rows.

use crate::backend::EncodeReport;

/// How the integer rows of [`LocalTrainer::clipped_sum`](super::LocalTrainer::clipped_sum) are scaled and bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegerClip {
    /// `log2 S`: S integer steps are 1.
    pub scale_log2: i32,
    /// B: no row has an L2 norm above it, exactly. In steps, at most 2^48.
    pub bound: u64,
    /// Every sample in a pass of its own.
    pub isolate: bool,
}

/// The sum of integer rows.
#[derive(Clone, Debug, PartialEq)]
pub struct ClippedSum {
    /// The sum modulo 2^64, one value a parameter.
    pub sum: Vec<i64>,
    /// What the clip did, added up in the order of the samples.
    pub report: EncodeReport,
}
