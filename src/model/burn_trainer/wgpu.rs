//! The trainer on the device of a wgpu backend.
//!
//! Burn computes on the very device that runs our kernels ([`WgpuDevice::Existing`], never its own default, which takes a
//! software adapter without a word). Both sides submit to one queue: what Burn has recorded is submitted before a tensor is
//! handed out, what we record on it before its handle is dropped.

use std::sync::{Mutex, PoisonError};

use burn::backend::wgpu::{MemoryConfiguration, RuntimeOptions, WgpuDevice, WgpuSetup};
use burn::tensor::{DType, Tensor};

use super::device::{DeviceTrainer, Platform, Primitive};
use super::memory::failed;
use crate::backend::device::{Device, Memory};
use crate::backend::wgpu::Wgpu;
use crate::backend::{BackendError, BackendKind};

/// Kernels of Burn between two submissions: its own default, which its environment could change.
const TASKS: usize = 32;

/// Burn and the kernels on one device of wgpu.
#[derive(Debug)]
pub struct OnWgpu;

/// The trainer on the device of a wgpu backend; a device whose adapter is not known is refused.
pub type WgpuTrainer = DeviceTrainer<OnWgpu>;

impl Platform for OnWgpu {
    type Framework = burn::backend::Wgpu<f32, i32, u32>;
    type Kernels = Wgpu;
    const KIND: BackendKind = BackendKind::Wgpu;

    /// Each device is told to Burn once, which keeps it to the end of the process.
    fn open(wgpu: &Wgpu) -> Result<WgpuDevice, BackendError> {
        static KNOWN: Mutex<Vec<(u64, WgpuDevice)>> = Mutex::new(Vec::new());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = known.iter().find(|(id, _)| *id == wgpu.id()) {
            return Ok(device.clone());
        }
        let Some((instance, adapter)) = wgpu.origin() else {
            let reason = "its adapter is not known: see Wgpu::with_origin".into();
            return Err(failed(Self::KIND, "training on a device", reason));
        };
        let setup = WgpuSetup {
            instance: instance.clone(),
            adapter: adapter.clone(),
            device: wgpu.device().clone(),
            queue: wgpu.queue().clone(),
            backend: adapter.get_info().backend,
        };
        let options = RuntimeOptions { tasks_max: TASKS, memory_config: MemoryConfiguration::default() };
        let device = burn::backend::wgpu::init_device(setup, options);
        known.push((wgpu.id(), device.clone()));
        Ok(device)
    }

    fn most_floats(wgpu: &Wgpu) -> usize {
        wgpu.limits().max_slice_words as usize
    }

    fn layout(tensor: &Primitive<Self>) -> (DType, Vec<usize>) {
        (tensor.dtype, tensor.meta.strides().to_vec())
    }

    fn hand_out(wgpu: &Wgpu, tensor: Primitive<Self>) -> Result<(Memory, u64), BackendError> {
        // Asked for first: what computes the tensor is submitted with it.
        let place = tensor.client.get_resource(tensor.handle.clone());
        let flushed = tensor.client.flush();
        // The device knows the cause of what Burn can only tell the consequences of.
        wgpu.check()?;
        flushed.map_err(|error| failed(Self::KIND, "the framework's kernels", error.to_string()))?;
        let place = place.map_err(|error| failed(Self::KIND, "the framework's memory", error.to_string()))?;
        let (buffer, offset) = (place.resource().buffer.clone(), place.resource().offset);
        let memory = wgpu.foreign_held(buffer, (tensor, place))?;
        Ok((memory, offset / size_of::<f32>() as u64))
    }

    fn drain(device: &WgpuDevice) {
        let tensor = Tensor::<Self::Framework, 1>::empty([1], device).into_primitive().tensor();
        // What went wrong is known already.
        let _ = tensor.client.flush();
    }

    fn free_bytes(_: &Wgpu) -> Option<u64> {
        None
    }

    /// Memory that nobody holds is wgpu's already.
    fn make_room(_: &Wgpu) -> bool {
        false
    }
}
