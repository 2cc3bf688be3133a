//! Blocked kernels on all cores of the CPU.

use super::*;

/// Blocked kernels on all cores.
#[derive(Debug, Default)]
pub struct Simd;

impl Simd {
    /// Looks at the CPU once.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

fn absent<T>() -> Result<T, BackendError> {
    Err(BackendError::Unavailable { name: "simd".into(), reason: "under construction".into() })
}

impl Backend for Simd {
    fn kind(&self) -> BackendKind {
        BackendKind::Simd
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn clip(&self, _: &mut Buffer, _: &ClipParams) -> Result<Vec<f32>, BackendError> {
        absent()
    }
    fn fwht(&self, _: &mut Buffer, _: &FwhtParams) -> Result<(), BackendError> {
        absent()
    }
    fn encode_fixed(&self, _: &Rows, _: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        absent()
    }
    fn encode_integer(&self, _: &Buffer, _: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        absent()
    }
    fn noise(&self, _: &mut Buffer, _: u32, _: &NoiseTable, _: &StreamKey) -> Result<(), BackendError> {
        absent()
    }
    fn sum(&self, _: &mut Buffer, _: &Buffer, _: u32) -> Result<(), BackendError> {
        absent()
    }
    fn decode(&self, _: &Buffer, _: &DecodeParams, _: &StreamKey) -> Result<Vec<f32>, BackendError> {
        absent()
    }
}
