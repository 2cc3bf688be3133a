//! One device's context, stream, memory and copies, with the driver's errors in our words.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::foreign::Owner;
use super::pool::Pool;
use super::probe::{CudaInfo, probe};
use super::staging::Staging;
use crate::backend::device::failed;
use crate::backend::{BackendError, BackendKind};

/// The backend's name in errors.
const CUDA: &str = BackendKind::Cuda.name();

/// The driver's name and text of an error.
pub(super) fn reason(error: DriverError) -> String {
    let text = |found: Result<&std::ffi::CStr, DriverError>| found.map(|t| t.to_string_lossy().into_owned()).ok();
    let name = text(error.error_name()).unwrap_or_else(|| format!("error {}", error.0 as u32));
    text(error.error_string()).map_or(name.clone(), |words| format!("{name} ({words})"))
}

/// True for errors after which a context answers nothing else, or its device is no longer there.
fn is_fatal(error: DriverError) -> bool {
    matches!(
        error.0,
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_NO_DEVICE
            | CUresult::CUDA_ERROR_INVALID_DEVICE
            | CUresult::CUDA_ERROR_INVALID_CONTEXT
            | CUresult::CUDA_ERROR_SYSTEM_NOT_READY
            | CUresult::CUDA_ERROR_MPS_CONNECTION_FAILED
            | CUresult::CUDA_ERROR_MPS_RPC_FAILURE
            | CUresult::CUDA_ERROR_MPS_SERVER_NOT_READY
            | CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUresult::CUDA_ERROR_CONTAINED
            | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
            | CUresult::CUDA_ERROR_UNKNOWN
    )
}

/// A device that is in use: its primary context, which other libraries of the process share, and a stream of ours.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) info: CudaInfo,
    // Dropped in this order: a pool needs its context.
    pool: Pool,
    pub(super) stream: Arc<CudaStream>,
    pub(super) context: Arc<CudaContext>,
    /// Set by the first fatal error: a context never recovers from one.
    lost: AtomicBool,
    /// Copies of small and large data alike; allocated at first use.
    pub(super) staging: Mutex<Option<Staging>>,
    /// Bytes that were read back to the host.
    pub(super) bytes_read: AtomicU64,
}

/// Memory of the device, freed in stream order; what is marked secret is overwritten first. That of another owner is given
/// back to it instead.
#[derive(Debug)]
pub(super) struct DeviceMemory {
    pub(super) driver: Arc<Driver>,
    pub(super) pointer: sys::CUdeviceptr,
    pub(super) bytes: usize,
    pub(super) secret: bool,
    /// Who made it, if we did not.
    pub(super) owner: Option<Owner>,
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            return self.driver.give_back(owner);
        }
        // The first error may be an old one, of a handle that was dropped: it is returned once.
        let bound = || self.driver.context.bind_to_thread().is_ok();
        if self.bytes == 0 || !(bound() || bound()) {
            return;
        }
        let stream = self.driver.stream.cu_stream();
        if self.secret {
            // SAFETY: the allocation is ours and still there. An error means that the context is lost, and the memory.
            let _ = unsafe { result::memset_d8_async(self.pointer, 0, self.bytes, stream) };
        }
        // SAFETY: allocated by `Driver::alloc` on this stream, freed once; earlier work on the stream comes before.
        let _ = unsafe { result::free_async(self.pointer, stream) };
    }
}

impl DeviceMemory {
    pub(super) const fn pointer(&self) -> sys::CUdeviceptr {
        self.pointer
    }

    pub(super) const fn words(&self) -> usize {
        self.bytes / 4
    }
}

impl Driver {
    /// Opens a device.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] with the reason: no driver, no such device, too old, no memory pool.
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>, BackendError> {
        let unavailable = |reason: String| BackendError::Unavailable { name: CUDA.to_owned(), reason };
        let found = probe().map_err(unavailable)?;
        let count = found.len();
        let info = found
            .into_iter()
            .nth(ordinal)
            .ok_or_else(|| unavailable(format!("there is no device {ordinal}, the driver lists {count}")))?;
        if let Some(why) = info.refused() {
            return Err(unavailable(why));
        }
        let opened = || -> Result<_, DriverError> {
            let context = CudaContext::new(ordinal)?;
            let stream = context.new_stream()?;
            Ok((Pool::new(ordinal)?, stream, context))
        };
        let (pool, stream, context) = opened().map_err(|e| unavailable(format!("{}: {}", info.name, reason(e))))?;
        Ok(Arc::new(Self {
            info,
            pool,
            stream,
            context,
            lost: AtomicBool::new(false),
            staging: Mutex::new(None),
            bytes_read: AtomicU64::new(0),
        }))
    }

    /// Our error for the driver's.
    pub(super) fn error(&self, error: DriverError) -> BackendError {
        if is_fatal(error) {
            self.lost.store(true, Ordering::Relaxed);
        }
        if self.lost.load(Ordering::Relaxed) {
            BackendError::DeviceLost { backend: CUDA, reason: reason(error) }
        } else {
            failed(BackendKind::Cuda, &self.info.name, reason(error))
        }
    }

    /// Makes the context current on this thread.
    pub(super) fn bind(&self) -> Result<(), BackendError> {
        self.context.bind_to_thread().map_err(|e| self.error(e))
    }

    /// Memory that nobody has written yet; it is rounded up to whole 16-byte vectors.
    pub(super) fn alloc(self: &Arc<Self>, words: u64, secret: bool) -> Result<DeviceMemory, BackendError> {
        self.bind()?;
        let bytes = usize::try_from(words.next_multiple_of(4).saturating_mul(4)).unwrap_or(usize::MAX);
        if bytes == 0 {
            return Ok(DeviceMemory { driver: Arc::clone(self), pointer: 0, bytes: 0, secret, owner: None });
        }
        let pointer = self.pool.alloc(bytes, &self.stream).map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let free = result::mem_get_info().ok().map(|(free, _)| free as u64);
                BackendError::DeviceMemory { backend: CUDA, needed: bytes as u64, free }
            }
            _ => self.error(e),
        })?;
        Ok(DeviceMemory { driver: Arc::clone(self), pointer, bytes, secret, owner: None })
    }

    /// Fills memory with zeros. The context is current.
    pub(super) fn clear(&self, memory: &DeviceMemory) -> Result<(), BackendError> {
        if memory.bytes == 0 {
            return Ok(());
        }
        // SAFETY: as many bytes as were allocated.
        unsafe { result::memset_d8_async(memory.pointer, 0, memory.bytes, self.stream.cu_stream()) }
            .map_err(|e| self.error(e))
    }

    /// Waits for everything on the stream.
    pub(super) fn finish(&self) -> Result<(), BackendError> {
        self.bind()?;
        self.stream.synchronize().map_err(|e| self.error(e))
    }

    /// Gives the driver back what the pool keeps.
    pub(super) fn trim(&self) -> Result<(), BackendError> {
        self.bind()?;
        self.pool.trim(&self.stream).map_err(|e| self.error(e))
    }

    /// Bytes of the device that nobody holds, if the driver says so.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.bind().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free as u64)
    }

    /// Copies within the device.
    pub(super) fn copy(
        &self,
        from: &DeviceMemory,
        from_word: usize,
        to: &DeviceMemory,
        to_word: usize,
        words: usize,
    ) -> Result<(), BackendError> {
        self.bind()?;
        let (source, target) = (from.pointer + 4 * from_word as u64, to.pointer + 4 * to_word as u64);
        // SAFETY: the caller has checked both ranges.
        unsafe { result::memcpy_dtod_async(target, source, 4 * words, self.stream.cu_stream()) }
            .map_err(|e| self.error(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_did_wrong_is_no_loss_of_the_device() {
        use CUresult::{
            CUDA_ERROR_ECC_UNCORRECTABLE, CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_INVALID_HANDLE,
            CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, CUDA_ERROR_LAUNCH_TIMEOUT,
            CUDA_ERROR_NO_DEVICE, CUDA_ERROR_NOT_FOUND, CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_UNKNOWN,
        };
        for lost in [
            CUDA_ERROR_ILLEGAL_ADDRESS,
            CUDA_ERROR_LAUNCH_TIMEOUT,
            CUDA_ERROR_ECC_UNCORRECTABLE,
            CUDA_ERROR_NO_DEVICE,
            CUDA_ERROR_UNKNOWN,
        ] {
            assert!(is_fatal(DriverError(lost)), "{lost:?}");
        }
        for works in [
            CUDA_ERROR_OUT_OF_MEMORY,
            CUDA_ERROR_INVALID_VALUE,
            CUDA_ERROR_INVALID_HANDLE,
            CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            CUDA_ERROR_NOT_FOUND,
        ] {
            assert!(!is_fatal(DriverError(works)), "{works:?}");
        }
    }
}
