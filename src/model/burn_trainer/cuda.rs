//! The trainer on the device of a CUDA backend.
//!
//! Burn and the kernels share the primary context of the device. Burn computes on a stream of its own, which it does not show:
//! the context orders the two sides (see [`Cuda::foreign`]). A tensor is a range of one of Burn's pools, its rows start at
//! multiples of up to 512 bytes.
//!
//! **What it needs.** Burn compiles its kernels when they are first used, with NVRTC and the headers of CUDA; both are tried
//! before anything is handed to it ([`compiler::ready`]), so that a machine without them gets an error that names the
//! packages. Nothing of it is touched unless a trainer on CUDA is made.
//!
//! **What it writes.** Nothing: its settings are set here, so that no file of the working folder and no variable turns on its
//! cache of compiled kernels or its logs. The driver keeps machine code that it made of such kernels where it does so for
//! every program (`~/.nv/ComputeCache`, or `CUDA_CACHE_PATH`; `CUDA_CACHE_DISABLE=1` turns that off): code, no data. A process
//! compiles some thirty small kernels anew, seconds once.
//!
//! **Precision.** On tensor cores Burn rounds the factors of a matrix product to TF32 (11 significant bits) and adds in
//! `f32`: a row differs from that of the processor by some `2^-11` of its norm. Its elementwise kernels use fast division
//! and exponentials. No privacy claim rests on either: what is clipped and noised is the row as it came out.

use std::sync::{Arc, Mutex};

use burn::backend::cuda::CudaDevice;
use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use burn::tensor::{DType, Tensor};

use super::device::{DeviceTrainer, Platform, Primitive};
use super::memory::failed;
use crate::backend::cuda::{Cuda, compiler};
use crate::backend::device::{Device, Memory};
use crate::backend::{BackendError, BackendKind};

/// Burn's pools hold tensors up to this share of the memory.
const LARGEST_SHARE: u64 = 4;
/// A row of a tensor takes up to twice its values, rounded up to the pitch.
const PITCH: u64 = 2;

/// Burn and the kernels on one CUDA device.
#[derive(Debug)]
pub struct OnCuda;

/// The trainer on the device of a CUDA backend; one without NVRTC or headers is refused, with the packages that hold them.
pub type CudaTrainer = DeviceTrainer<OnCuda>;

impl Platform for OnCuda {
    type Framework = burn::backend::Cuda<f32, i32>;
    type Kernels = Cuda;
    const KIND: BackendKind = BackendKind::Cuda;

    fn open(cuda: &Cuda) -> Result<CudaDevice, BackendError> {
        compiler::ready(cuda.info()).map_err(|reason| failed(Self::KIND, "training", reason))?;
        settle();
        Ok(CudaDevice::new(cuda.info().ordinal))
    }

    fn most_floats(cuda: &Cuda) -> usize {
        most_floats(cuda.info().memory, cuda.limits().max_slice_words)
    }

    fn layout(tensor: &Primitive<Self>) -> (DType, Vec<usize>) {
        (tensor.dtype, tensor.meta.strides().to_vec())
    }

    fn hand_out(cuda: &Cuda, tensor: Primitive<Self>) -> Result<(Memory, u64), BackendError> {
        // Each waits until Burn's thread has given the driver all that was recorded before.
        let place = tensor.client.get_resource(tensor.handle.clone());
        let flushed = tensor.client.flush();
        flushed.map_err(|error| failed(Self::KIND, "the framework's kernels", error.to_string()))?;
        let place = place.map_err(|error| failed(Self::KIND, "the framework's memory", error.to_string()))?;
        let (pointer, bytes) = (place.resource().ptr, place.resource().size);
        cuda.foreign(pointer, bytes, (tensor, Mutex::new(place)))
    }

    fn drain(device: &CudaDevice) {
        let tensor = Tensor::<Self::Framework, 1>::empty([1], device).into_primitive().tensor();
        // What went wrong is known already.
        let _ = tensor.client.flush();
    }

    fn free_bytes(cuda: &Cuda) -> Option<u64> {
        cuda.free_bytes()
    }

    fn make_room(cuda: &Cuda) -> bool {
        cuda.trim().is_ok()
    }
}

/// Most floats of a tensor on a device with so many bytes, whose kernels take so many words.
fn most_floats(memory: u64, slice_words: u64) -> usize {
    (memory / LARGEST_SHARE / PITCH / size_of::<f32>() as u64).min(slice_words) as usize
}

/// Gives the framework its default settings, unless this process has given it others: what it would find in files of the
/// working folder or its parents, or in variables, neither changes results nor writes files.
fn settle() {
    let mut settings = CubeClRuntimeConfig::storage().lock();
    if settings.is_none() {
        *settings = Some(Arc::new(CubeClRuntimeConfig::default()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_fits_a_pool_and_a_kernel() {
        assert_eq!(most_floats(8 << 30, 1 << 31), 1 << 28);
        assert_eq!(most_floats(40 << 30, 1 << 31), (40 << 30) / 32);
        assert_eq!(most_floats(141 << 30, 1 << 31), 1 << 31);
        assert_eq!(most_floats(512 << 30, 1 << 31), 1 << 31);
    }

    #[test]
    fn the_framework_keeps_its_default_settings() {
        settle();
        settle();
        let settings = CubeClRuntimeConfig::get();
        assert!(settings.compilation.cache.is_none());
        assert!(settings.compilation.logger.file.is_none() && settings.memory.logger.file.is_none());
    }
}
