//! The adapter between the memory of Burn on a device of wgpu and [`Buffer`].
//!
//! Burn computes on the very device that runs our kernels ([`WgpuDevice::Existing`], never its own default, which takes a
//! software adapter without a word). Its tensors lie in pools: a tensor is a range of a large buffer, which another tensor
//! takes over as soon as its last handle is dropped. What leaves Burn leaves as memory that our kernels read where it is,
//! or copy. Burn's own way to the host is not taken: [`Wgpu::bytes_read`] counts every byte that is read back, and a read-back
//! ends in an error where the device is lost.
//!
//! Order: both sides submit to one queue. What Burn has recorded is submitted before a tensor is handed out, what we record
//! on it before its handle is dropped.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::wgpu::{CubeTensor, MemoryConfiguration, RuntimeOptions, WgpuDevice, WgpuRuntime, WgpuSetup};
use burn::tensor::backend::Backend as _;
use burn::tensor::{DType, Tensor};
use rayon::ThreadPool;

use crate::backend::device::{Device, DeviceBuffer, ElementType, Memory, Slice};
use crate::backend::wgpu::Wgpu;
use crate::backend::{Backend, BackendError, BackendKind, Buffer, Rows};
use crate::model::ModelError;

/// Burn on wgpu.
pub(super) type BurnWgpu = burn::backend::Wgpu<f32, i32, u32>;

/// Kernels of Burn between two submissions: its own default, which its environment could change.
const TASKS: usize = 32;

/// A device that our kernels and Burn share.
pub(super) struct SharedDevice {
    backend: Arc<dyn Backend>,
    device: WgpuDevice,
    /// Burn keeps pools of memory for every thread that computes: one thread does it all.
    thread: ThreadPool,
}

impl fmt::Debug for SharedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedDevice({})", self.backend.describe())
    }
}

impl SharedDevice {
    /// Burn on the device of `backend`. Errors: a backend that is not wgpu, or a device whose adapter is not known.
    pub(super) fn new(backend: Arc<dyn Backend>) -> Result<Self, ModelError> {
        let device = {
            let wgpu = wgpu(&*backend)?;
            caught(|| registered(wgpu)).unwrap_or_else(|reason| Err(failed("the framework's start", reason)))?
        };
        let thread = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| "veilsum-train".into())
            .build()
            .map_err(|error| failed("a thread to train on", error.to_string()))?;
        Ok(Self { backend, device, thread })
    }

    /// The device's name in Burn.
    pub(super) const fn device(&self) -> &WgpuDevice {
        &self.device
    }

    fn wgpu(&self) -> Result<&Wgpu, BackendError> {
        wgpu(&*self.backend)
    }

    /// Most floats of one tensor.
    pub(super) fn most_floats(&self) -> Result<usize, BackendError> {
        Ok(self.wgpu()?.limits().max_slice_words as usize)
    }

    /// Runs `work` on the one thread that computes with Burn.
    ///
    /// Burn panics where a device refuses something, in the caller (caught here) or in its own worker, which catches that
    /// itself and fails the calls that follow. Errors: those of `work`; for a panic what the device has to say (out of
    /// memory, lost), else the text of the panic. Burn's free memory is given back then: it may be invalid.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, ModelError> + Send) -> Result<T, ModelError> {
        self.thread.install(|| {
            let result = caught(work).unwrap_or_else(|reason| Err(failed("training", reason).into()));
            result.map_err(|error| {
                let cause = self.backend.finish().err();
                // A second panic says no more than the first.
                let _ = catch_unwind(AssertUnwindSafe(|| BurnWgpu::memory_cleanup(&self.device)));
                cause.map_or(error, ModelError::Backend)
            })
        })
    }

    /// A tensor's rows where they are. They stay as they are while the buffer lives.
    ///
    /// Errors: a layout other than rows of adjacent `f32`; what went wrong while they were computed.
    pub(super) fn view(&self, tensor: Tensor<BurnWgpu, 2>) -> Result<Rows, ModelError> {
        let [rows, dim] = tensor.dims();
        let tensor: CubeTensor<WgpuRuntime> = tensor.into_primitive().tensor();
        let strides = tensor.meta.strides();
        let (stride, step) = (strides[0].max(dim), strides[1]);
        let adjacent = (step == 1 || dim <= 1) && (strides[0] >= dim || rows <= 1);
        if !adjacent || tensor.dtype != DType::F32 {
            let reason =
                format!("{rows} x {dim} {:?} with strides {:?}, expected rows of f32", tensor.dtype, &strides[..]);
            return Err(failed("a tensor of the framework", reason).into());
        }
        // Asked for first: what computes the tensor is submitted with it.
        let place = tensor.client.get_resource(tensor.handle.clone());
        let flushed = tensor.client.flush();
        // The device knows the cause of what Burn can only tell the consequences of.
        self.wgpu()?.check()?;
        flushed.map_err(|error| failed("the framework's kernels", error.to_string()))?;
        let place = place.map_err(|error| failed("the framework's memory", error.to_string()))?;
        let (buffer, offset) = (place.resource().buffer.clone(), place.resource().offset);
        let memory = self.wgpu()?.foreign_held(buffer, (tensor, place))?;
        let words = if rows == 0 { 0 } else { (rows - 1) * stride + dim };
        let buffer = DeviceBuffer::new(memory, offset / size_of::<f32>() as u64, words, ElementType::F32)?;
        Ok(Rows { buffer: Buffer::Device(buffer), offset: 0, stride, rows, dim })
    }

    /// A tensor's values on the host, row major. Waits for the device.
    pub(super) fn host(&self, tensor: Tensor<BurnWgpu, 2>) -> Result<Vec<f32>, ModelError> {
        let rows = self.view(tensor)?;
        let values = self.backend.to_host(rows.buffer)?;
        let values = values.as_f32()?;
        Ok((0..rows.rows).flat_map(|i| &values[i * rows.stride..i * rows.stride + rows.dim]).copied().collect())
    }

    /// Memory of ours for `rows` rows of `dim` floats, all zero.
    pub(super) fn collector(&self, rows: usize, dim: usize) -> Result<Collector<'_>, ModelError> {
        let wgpu = self.wgpu()?;
        // Whole vectors of four, as kernels read them.
        let memory = wgpu.alloc((rows as u64 * dim as u64).next_multiple_of(4).max(4), false)?;
        Ok(Collector { shared: self, memory, rows, dim })
    }
}

impl Drop for SharedDevice {
    /// Gives Burn's free memory back: its thread for the device outlives us.
    fn drop(&mut self) {
        let device = &self.device;
        self.thread.install(|| {
            // After a panic the device is gone, and the memory with it.
            let _ = catch_unwind(AssertUnwindSafe(|| BurnWgpu::memory_cleanup(device)));
        });
    }
}

/// Rows that arrive one after another, copied into one memory.
pub(super) struct Collector<'a> {
    shared: &'a SharedDevice,
    memory: Memory,
    rows: usize,
    dim: usize,
}

impl Collector<'_> {
    /// Copies the rows of `tensor` on the device, from row `first` on.
    pub(super) fn put(&self, first: usize, tensor: Tensor<BurnWgpu, 2>) -> Result<(), ModelError> {
        let from = self.shared.view(tensor)?;
        let Buffer::Device(source) = &from.buffer else { return Ok(()) };
        let wgpu = self.shared.wgpu()?;
        let dense = from.stride == from.dim || from.rows <= 1;
        let (pieces, each) = if dense { (1, from.rows) } else { (from.rows, 1) };
        for i in 0..pieces {
            let words = (each * self.dim) as u64;
            let to = Slice { memory: &self.memory, offset: ((first + i) * self.dim) as u64, words };
            if words > 0 {
                wgpu.copy(&source.part((i * from.stride) as u64, words), &to)?;
            }
        }
        // Before the tensor is dropped, and its memory Burn's again.
        Ok(wgpu.submit()?)
    }

    /// The rows.
    pub(super) fn finish(self) -> Result<Rows, ModelError> {
        let Self { memory, rows, dim, .. } = self;
        let buffer = DeviceBuffer::new(memory, 0, rows * dim, ElementType::F32)?;
        Ok(Rows { buffer: Buffer::Device(buffer), offset: 0, stride: dim, rows, dim })
    }
}

/// The device of a wgpu backend.
fn wgpu(backend: &dyn Backend) -> Result<&Wgpu, BackendError> {
    let device: Option<&dyn Any> = backend.device().map(|device| device as &dyn Any);
    device.and_then(<dyn Any>::downcast_ref).ok_or_else(|| BackendError::WrongPlace {
        found: backend.describe(),
        expected: "a device of wgpu to train on".into(),
    })
}

/// The device under the name that Burn has for it; each is told to Burn once, which keeps it to the end of the process.
fn registered(wgpu: &Wgpu) -> Result<WgpuDevice, BackendError> {
    static KNOWN: Mutex<Vec<(u64, WgpuDevice)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, device)) = known.iter().find(|(id, _)| *id == wgpu.id()) {
        return Ok(device.clone());
    }
    let Some((instance, adapter)) = wgpu.origin() else {
        return Err(failed("training on a device", "its adapter is not known: see Wgpu::with_origin".into()));
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

/// The result of `work`, or what it said when it panicked.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_else(|| "a panic without a text".to_owned())
    })
}

fn failed(what: &str, reason: String) -> BackendError {
    BackendError::DeviceFailed { backend: BackendKind::Wgpu.name(), what: what.into(), reason }
}
