//! The backends on a GPU: one host side for all of them.
//!
//! A stage is a shader `shaders/STAGE.wgsl`, a kernel file `kernels/STAGE.cu` with entries of the same names,
//! parameters and buffer order, and a file here that plans its launches over [`Device`]. What differs between wgpu
//! and CUDA is behind that trait.
//!
//! Verbs take buffers of the host and of this device. Inputs from the host are uploaded; what a verb changes in place
//! stays where it lives; new results are on the device ([`Backend::download`] brings them back).

mod clip;
mod decode;
mod encode;
mod fwht;
mod machine;
mod mask;
mod memory;
mod noise;
mod pack;
mod rows;
mod sum;

use std::sync::Arc;

pub(super) use self::machine::failed;
pub use self::machine::{Access, Device, Kernel, Launch, Limits, Memory, Slice, Storage, grid, next_id};
pub use self::memory::{DeviceBuffer, ElementType};
use super::{
    Backend, BackendError, BackendKind, Buffer, EncodeJob, EncodeReport, EncryptJob, Gram, MaskSign, Packed, Rows,
};
use crate::math::ntt::RnsBasis;
use crate::math::prg::StreamKey;
use crate::params::{ClipParams, DecodeParams, FwhtParams, GhostParams, Ring};
use crate::sample::noise::Noise;

/// A backend on one device.
#[derive(Clone, Debug)]
pub struct DeviceBackend {
    device: Arc<dyn Device>,
}

impl DeviceBackend {
    /// The stages on `device`.
    #[must_use]
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device }
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// What a stage without kernels returns.
    fn unsupported<T>(&self, stage: &'static str) -> Result<T, BackendError> {
        Err(BackendError::Unsupported { stage, backend: self.kind().name() })
    }

    /// Ends a verb: what it has enqueued starts.
    fn submitted<T>(&self, result: Result<T, BackendError>) -> Result<T, BackendError> {
        let result = result?;
        self.device.submit()?;
        Ok(result)
    }
}

impl Backend for DeviceBackend {
    fn kind(&self) -> BackendKind {
        self.device.kind()
    }

    fn describe(&self) -> String {
        self.device.describe()
    }

    fn upload(&self, x: &Buffer) -> Result<Buffer, BackendError> {
        self.placed(x).map(|x| Buffer::Device(x.into_owned()))
    }

    fn download(&self, x: &Buffer) -> Result<Buffer, BackendError> {
        match x {
            Buffer::Device(x) => self.read(x),
            host => Ok(host.clone()),
        }
    }

    fn finish(&self) -> Result<(), BackendError> {
        self.device.finish()
    }

    fn clip(&self, x: &mut Buffer, params: &ClipParams) -> Result<Vec<f32>, BackendError> {
        self.submitted(clip::run(self, x, params))
    }

    fn fwht(&self, x: &mut Buffer, params: &FwhtParams) -> Result<(), BackendError> {
        self.submitted(fwht::run(self, x, params))
    }

    fn encode_fixed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        self.submitted(encode::fixed(self, rows, job))
    }

    fn encode_integer(&self, fixed: &Buffer, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        self.submitted(encode::integer(self, fixed, job))
    }

    fn encode(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        self.submitted(encode::fused(self, rows, job))
    }

    fn encode_packed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Packed, EncodeReport), BackendError> {
        self.submitted(encode::packed(self, rows, job))
    }

    fn noise(&self, words: &mut Buffer, bits: u32, noise: &Noise, key: &StreamKey) -> Result<(), BackendError> {
        self.submitted(noise::run(self, words, bits, noise, key))
    }

    fn sum(&self, acc: &mut Buffer, rows: &Buffer, ring: Ring) -> Result<(), BackendError> {
        self.submitted(sum::run(self, acc, rows, ring))
    }

    fn pack(&self, words: &Buffer, bits: u32) -> Result<Vec<u8>, BackendError> {
        self.submitted(pack::run(self, words, bits))
    }

    fn unpack(&self, bytes: &[u8], len: usize, bits: u32) -> Result<Buffer, BackendError> {
        self.submitted(pack::unpack(self, bytes, len, bits))
    }

    fn mask(&self, words: &mut Buffer, ring: Ring, key: &StreamKey, sign: MaskSign) -> Result<(), BackendError> {
        self.submitted(mask::run(self, words, ring, key, sign))
    }

    fn decode_in_place(&self, sum: &mut Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<(), BackendError> {
        self.submitted(decode::in_place(self, sum, params, signs))
    }

    fn decode(&self, sum: &Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<Vec<f32>, BackendError> {
        self.submitted(decode::run(self, sum, params, signs))
    }

    fn gram(&self, _rows: &Rows) -> Result<Gram, BackendError> {
        self.unsupported("gram")
    }

    fn median(&self, _rows: &Rows) -> Result<Vec<f32>, BackendError> {
        self.unsupported("median")
    }

    fn trimmed_mean(&self, _rows: &Rows, _trim: usize) -> Result<Vec<f32>, BackendError> {
        self.unsupported("trimmed_mean")
    }

    fn ghost_norms(
        &self,
        _activations: &Buffer,
        _gradients: &Buffer,
        _params: &GhostParams,
    ) -> Result<Vec<f64>, BackendError> {
        self.unsupported("ghost_norms")
    }

    fn ghost_sum(
        &self,
        _activations: &Buffer,
        _gradients: &Buffer,
        _coefficients: &[f32],
        _params: &GhostParams,
    ) -> Result<Vec<f32>, BackendError> {
        self.unsupported("ghost_sum")
    }

    fn ntt(&self, _x: &mut Buffer, _basis: &RnsBasis) -> Result<(), BackendError> {
        self.unsupported("ntt")
    }

    fn intt(&self, _x: &mut Buffer, _basis: &RnsBasis) -> Result<(), BackendError> {
        self.unsupported("intt")
    }

    fn polymul(&self, _a: &mut Buffer, _b: &Buffer, _basis: &RnsBasis) -> Result<(), BackendError> {
        self.unsupported("polymul")
    }

    fn pointwise(&self, _a: &mut Buffer, _b: &Buffer, _basis: &RnsBasis) -> Result<(), BackendError> {
        self.unsupported("pointwise")
    }

    fn encrypt(&self, _job: &EncryptJob<'_>) -> Result<Buffer, BackendError> {
        self.unsupported("encrypt")
    }
}
