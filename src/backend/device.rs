//! The backends on a GPU: one host side for all of them.
//!
//! A stage is a shader `shaders/STAGE.wgsl`, a kernel file `kernels/STAGE.cu` with entries of the same names,
//! parameters and buffer order, and a file here that plans its launches over [`Device`]. What differs between wgpu
//! and CUDA is behind that trait.
//!
//! Verbs take buffers of the host and of this device. Inputs from the host are uploaded; what a verb changes in place
//! stays where it lives; new results are on the device ([`Backend::download`] brings them back).

mod basis;
mod clip;
mod decode;
mod encode;
mod encrypt;
mod fwht;
mod ghost;
mod gram;
mod long;
mod machine;
mod mask;
mod memory;
mod noise;
mod ntt;
mod pack;
mod rows;
mod rows_check;
mod select;
mod sum;

use std::sync::Arc;

pub(super) use self::machine::failed;
pub use self::machine::{
    Access, Device, Kernel, Launch, Limits, Mark, Memory, RowShape, Slice, Storage, grid, next_id,
};
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
    bases: basis::Bases,
}

impl DeviceBackend {
    /// The stages on `device`.
    #[must_use]
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device, bases: basis::Bases::default() }
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

    fn device(&self) -> Option<&(dyn Device + 'static)> {
        Some(&*self.device)
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
        self.submitted(decode::run(self, sum, params, signs))
    }

    fn gram(&self, rows: &Rows) -> Result<Gram, BackendError> {
        gram::run(self, rows)
    }

    fn median(&self, rows: &Rows) -> Result<Vec<f32>, BackendError> {
        select::run(self, rows, select::Choice::Median)
    }

    fn trimmed_mean(&self, rows: &Rows, trim: usize) -> Result<Vec<f32>, BackendError> {
        select::run(self, rows, select::Choice::Trimmed(trim))
    }

    fn ghost_norms(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        params: &GhostParams,
    ) -> Result<Vec<f64>, BackendError> {
        ghost::norms(self, activations, gradients, params)
    }

    fn ghost_sum(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        coefficients: &[f32],
        params: &GhostParams,
    ) -> Result<Vec<f32>, BackendError> {
        ghost::sum(self, activations, gradients, coefficients, params)
    }

    fn ntt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        self.submitted(ntt::ntt(self, x, basis, ntt::Direction::Forward))
    }

    fn intt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        self.submitted(ntt::ntt(self, x, basis, ntt::Direction::Inverse))
    }

    fn polymul(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        self.submitted(ntt::product(self, a, b, basis, ntt::Factors::Coefficients))
    }

    fn pointwise(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        self.submitted(ntt::product(self, a, b, basis, ntt::Factors::Transformed))
    }

    fn encrypt(&self, job: &EncryptJob<'_>) -> Result<Buffer, BackendError> {
        self.submitted(encrypt::run(self, job))
    }
}
