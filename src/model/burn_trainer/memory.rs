//! The adapter between the memory of Burn on a device that it shares with our kernels, and [`Buffer`].
//!
//! Its tensors lie in pools: a tensor is a range of a large buffer, which another tensor takes over as soon as its last handle
//! is dropped. What leaves Burn leaves as memory that our kernels read where it is, or copy. Burn's own way to the host is not
//! taken: a device counts every byte that is read back, and a read-back ends in an error where the device is lost.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::tensor::backend::{Backend as Framework, DeviceOps};
use burn::tensor::{DType, Tensor};
use rayon::ThreadPool;

use super::device::{DeviceName, Platform};
use super::worker::{self, caught};
use crate::backend::device::{Device, DeviceBuffer, ElementType, Memory, RowShape, Slice};
use crate::backend::{Backend, BackendError, BackendKind, Buffer, Rows};
use crate::model::ModelError;

/// A device that our kernels and Burn share.
pub(super) struct SharedDevice<P: Platform> {
    backend: Arc<dyn Backend>,
    device: DeviceName<P>,
    /// Burn keeps pools of memory for every thread that computes: one thread does it all.
    thread: ThreadPool,
    platform: PhantomData<P>,
}

impl<P: Platform> fmt::Debug for SharedDevice<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedDevice({})", self.backend.describe())
    }
}

impl<P: Platform> SharedDevice<P> {
    /// Burn on the device of `backend`. Errors: a backend of another kind, or a device that Burn cannot be told of.
    pub(super) fn new(backend: Arc<dyn Backend>) -> Result<Self, ModelError> {
        worker::listen();
        let device = {
            let kernels = kernels::<P>(&*backend)?;
            caught(|| P::open(kernels))
                .unwrap_or_else(|reason| Err(failed(P::KIND, "the framework's start", reason)))?
        };
        let thread = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .thread_name(|_| "veilsum-train".into())
            .build()
            .map_err(|error| failed(P::KIND, "a thread to train on", error.to_string()))?;
        Ok(Self { backend, device, thread, platform: PhantomData })
    }

    /// The device's name in Burn.
    pub(super) const fn device(&self) -> &DeviceName<P> {
        &self.device
    }

    fn kernels(&self) -> Result<&P::Kernels, BackendError> {
        kernels::<P>(&*self.backend)
    }

    /// Most floats of one tensor.
    pub(super) fn most_floats(&self) -> Result<usize, BackendError> {
        Ok(P::most_floats(self.kernels()?))
    }

    /// Gives back what the kernels keep; false if that makes no room.
    pub(super) fn make_room(&self) -> bool {
        self.kernels().is_ok_and(P::make_room)
    }

    /// Runs `work` on the one thread that computes with Burn.
    ///
    /// Burn panics where a device refuses something, in the caller (caught here) or in its own worker, which catches that
    /// itself and goes on with memory that nobody wrote (heard by [`worker`]). Errors: those of `work`; for a panic what the
    /// device has to say (out of memory, lost), else the text of the panic. Burn's free memory is given back then: it may be
    /// invalid.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T, ModelError> + Send) -> Result<T, ModelError> {
        self.thread.install(|| {
            let _ = self.heard();
            let result = caught(work).unwrap_or_else(|reason| Err(failed(P::KIND, "training", reason).into()));
            // The worker's own words are nearer to the cause.
            let result = self.heard().map_or(result, |error| Err(error.into()));
            result.map_err(|error| {
                // A second panic says no more than the first; what is still on its way is not for the next call.
                let _ = caught(|| P::drain(&self.device));
                let cause = self.backend.finish().err();
                let _ = caught(|| P::Framework::memory_cleanup(&self.device));
                let _ = self.heard();
                cause.map_or(error, ModelError::Backend)
            })
        })
    }

    /// What Burn's worker panicked with since this was last asked.
    fn heard(&self) -> Option<BackendError> {
        let id = self.device.id();
        let text = worker::take(id.type_id, id.index_id)?;
        Some(match worker::refused_bytes(&text) {
            Some(needed) => {
                let free = self.kernels().ok().and_then(P::free_bytes);
                BackendError::DeviceMemory { backend: P::KIND.name(), needed, free }
            }
            None => failed(P::KIND, "the framework", text),
        })
    }

    /// A tensor's rows where they are. They stay as they are while the buffer lives.
    ///
    /// Errors: a layout other than rows of adjacent `f32`; what went wrong while they were computed.
    pub(super) fn view(&self, tensor: Tensor<P::Framework, 2>) -> Result<Rows, ModelError> {
        let [rows, dim] = tensor.dims();
        let tensor = tensor.into_primitive().tensor();
        let (dtype, strides) = P::layout(&tensor);
        let stride = match row_stride(&strides, rows, dim) {
            Some(stride) if dtype == DType::F32 => stride,
            _ => {
                let reason = format!("{rows} x {dim} {dtype:?} with strides {strides:?}, expected rows of f32");
                return Err(failed(P::KIND, "a tensor of the framework", reason).into());
            }
        };
        let (memory, offset) = P::hand_out(self.kernels()?, tensor)?;
        let words = if rows == 0 { 0 } else { (rows - 1) * stride + dim };
        let buffer = DeviceBuffer::new(memory, offset, words, ElementType::F32)?;
        Ok(Rows { buffer: Buffer::Device(buffer), offset: 0, stride, rows, dim })
    }

    /// A tensor's values on the host, row major. Waits for the device.
    pub(super) fn host(&self, tensor: Tensor<P::Framework, 2>) -> Result<Vec<f32>, ModelError> {
        let rows = self.view(tensor)?;
        let values = self.backend.to_host(rows.buffer)?;
        let values = values.as_f32()?;
        Ok((0..rows.rows).flat_map(|i| &values[i * rows.stride..i * rows.stride + rows.dim]).copied().collect())
    }

    /// Memory of ours for `rows` rows of `dim` floats, all zero.
    pub(super) fn collector(&self, rows: usize, dim: usize) -> Result<Collector<'_, P>, ModelError> {
        // Whole vectors of four, as kernels read them.
        let memory = self.kernels()?.alloc((rows as u64 * dim as u64).next_multiple_of(4).max(4), false)?;
        Ok(Collector { shared: self, memory, rows, dim })
    }
}

impl<P: Platform> Drop for SharedDevice<P> {
    /// Gives Burn's free memory back: its thread for the device outlives us.
    fn drop(&mut self) {
        let device = &self.device;
        self.thread.install(|| {
            // After a panic the device is gone, and the memory with it.
            let _ = caught(|| P::Framework::memory_cleanup(device));
        });
    }
}

/// Rows that arrive one after another, copied into one memory.
pub(super) struct Collector<'a, P: Platform> {
    shared: &'a SharedDevice<P>,
    memory: Memory,
    rows: usize,
    dim: usize,
}

impl<P: Platform> Collector<'_, P> {
    /// Copies the rows of `tensor` on the device, from row `first` on.
    pub(super) fn put(&self, first: usize, tensor: Tensor<P::Framework, 2>) -> Result<(), ModelError> {
        let from = self.shared.view(tensor)?;
        let Buffer::Device(source) = &from.buffer else { return Ok(()) };
        if from.rows == 0 || self.dim == 0 {
            return Ok(());
        }
        let width = self.dim as u64;
        let shape = RowShape { rows: from.rows as u64, width, from_stride: from.stride as u64, to_stride: width };
        let to = Slice { memory: &self.memory, offset: first as u64 * width, words: shape.span(width) };
        let kernels = self.shared.kernels()?;
        kernels.copy_rows(&source.slice(), &to, &shape)?;
        // Before the tensor is dropped, and its memory Burn's again.
        Ok(kernels.submit()?)
    }

    /// The rows.
    pub(super) fn finish(self) -> Result<Rows, ModelError> {
        let Self { memory, rows, dim, .. } = self;
        let buffer = DeviceBuffer::new(memory, 0, rows * dim, ElementType::F32)?;
        Ok(Rows { buffer: Buffer::Device(buffer), offset: 0, stride: dim, rows, dim })
    }
}

/// The device of a backend of this kind.
fn kernels<P: Platform>(backend: &dyn Backend) -> Result<&P::Kernels, BackendError> {
    let device: Option<&dyn Any> = backend.device().map(|device| device as &dyn Any);
    device.and_then(<dyn Any>::downcast_ref).ok_or_else(|| BackendError::WrongPlace {
        found: backend.describe(),
        expected: format!("a device of {} to train on", P::KIND.name()),
    })
}

/// From the start of a row to that of the next, in values; nothing unless the values of a row are adjacent and rows do not
/// overlap. The strides of what has one row, or one value in a row, mean nothing.
fn row_stride(strides: &[usize], rows: usize, dim: usize) -> Option<usize> {
    let &[stride, step] = strides else { return None };
    let adjacent = (step == 1 || dim <= 1) && (stride >= dim || rows <= 1);
    adjacent.then_some(stride.max(dim))
}

/// What a device or the framework could not do.
pub(super) fn failed(kind: BackendKind, what: &str, reason: String) -> BackendError {
    BackendError::DeviceFailed { backend: kind.name(), what: what.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_side_by_side_or_pitched_are_taken_and_no_others() {
        assert_eq!(row_stride(&[100, 1], 7, 100), Some(100));
        assert_eq!(row_stride(&[128, 1], 7, 100), Some(128));
        // One row, or one value a row.
        assert_eq!(row_stride(&[1, 1], 1, 100), Some(100));
        assert_eq!(row_stride(&[128, 1], 1, 100), Some(128));
        assert_eq!(row_stride(&[4, 9], 7, 1), Some(4));
        // Columns, rows that overlap, one row repeated, other ranks.
        assert_eq!(row_stride(&[1, 7], 7, 100), None);
        assert_eq!(row_stride(&[64, 1], 7, 100), None);
        assert_eq!(row_stride(&[0, 1], 7, 100), None);
        assert_eq!(row_stride(&[100], 7, 100), None);
        assert_eq!(row_stride(&[700, 100, 1], 7, 100), None);
    }
}
