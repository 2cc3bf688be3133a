//! Memory that another library of the process made in the same context, and the order between its streams and ours.
//!
//! The library is not asked for its streams: the context is. An event of the context captures all that it has been given, on
//! whatever stream; what it is given after it was told to wait for an event waits, on whatever stream. Nothing waits on the host.

use std::any::Any;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUmemorytype, CUpointer_attribute as Attribute};
use cudarc::driver::{CudaEvent, DriverError};

use super::driver::{DeviceMemory, Driver};
use crate::backend::device::failed;
use crate::backend::{BackendError, BackendKind};

/// What keeps foreign memory as it is; dropping it tells the owner that it may be used again.
pub(super) type Owner = Box<dyn Any + Send + Sync>;

/// A range of device memory as kernels address it: from a boundary of 16 bytes on, the range at word `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Address of the boundary at or before the range.
    pub(super) base: u64,
    /// First word of the range behind the boundary, at most 3.
    pub(super) offset: u64,
    /// Words from the boundary to the end of the range.
    pub(super) words: u64,
}

impl Place {
    /// `bytes` bytes from `pointer` on. Errors: no whole words, or beyond the end of all addresses.
    pub(super) fn new(pointer: u64, bytes: u64) -> Result<Self, String> {
        if !pointer.is_multiple_of(4) || !bytes.is_multiple_of(4) || pointer.checked_add(bytes).is_none() {
            return Err(format!("{bytes} bytes at {pointer:#x}, expected whole words of 4 bytes at a multiple of 4"));
        }
        let base = pointer & !15;
        let offset = (pointer - base) / 4;
        Ok(Self { base, offset, words: offset + bytes / 4 })
    }
}

impl Driver {
    /// Memory that someone else made on this device, behind all that its maker has enqueued. The owner is dropped with it, as
    /// soon as all later work of the owner waits for ours.
    ///
    /// Errors: an address that is no memory of this device, or beyond the end of an allocation.
    pub(super) fn adopt(
        self: &Arc<Self>,
        pointer: u64,
        bytes: u64,
        owner: Owner,
    ) -> Result<(DeviceMemory, u64), BackendError> {
        let refused = |reason: String| failed(BackendKind::Cuda, "memory of another owner", reason);
        let place = Place::new(pointer, bytes).map_err(refused)?;
        self.bind()?;
        if bytes > 0 {
            self.lies_here(pointer, bytes).map_err(|e| self.error(e))?.map_err(refused)?;
        }
        self.wait_for_others().map_err(|e| self.error(e))?;
        let (driver, len) = (Arc::clone(self), 4 * place.words as usize);
        let memory = DeviceMemory { driver, pointer: place.base, bytes: len, secret: false, owner: Some(owner) };
        Ok((memory, place.offset))
    }

    /// Drops the owner of foreign memory, which may use it again at once.
    pub(super) fn give_back(&self, owner: Owner) {
        // The first error may be an old one, of a handle that was dropped: it is returned once.
        let ordered = || self.bind().is_ok() && self.let_others_wait().is_ok();
        if !(ordered() || ordered()) {
            // An error of this means that the context is lost, and the memory.
            let _ = self.finish();
        }
        drop(owner);
    }

    /// Whether a range is memory of this device, and within one allocation where the driver says how far that goes.
    fn lies_here(&self, pointer: u64, bytes: u64) -> Result<Result<(), String>, DriverError> {
        let word = |what| -> Result<u32, DriverError> {
            let mut value = 0u32;
            // SAFETY: these attributes are 32 bits wide, and are only written; any address may be asked for.
            unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), what, pointer) }.result()?;
            Ok(value)
        };
        let long = |what| {
            let mut value = 0u64;
            // SAFETY: these attributes are 64 bits wide, else as above.
            let found = unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), what, pointer) }.result();
            found.ok().map(|()| value)
        };
        if word(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE)? != CUmemorytype::CU_MEMORYTYPE_DEVICE as u32 {
            return Ok(Err(format!("{pointer:#x} is memory of the host")));
        }
        let (found, expected) = (word(Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)?, self.info.ordinal);
        if found as usize != expected {
            return Ok(Err(format!("{pointer:#x} is memory of device {found}, expected device {expected}")));
        }
        let start = long(Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR);
        let size = long(Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE);
        let Some((start, size)) = start.zip(size) else { return Ok(Ok(())) };
        if pointer < start || pointer - start > size || bytes > size - (pointer - start) {
            return Ok(Err(format!(
                "{bytes} bytes at {pointer:#x} exceed an allocation of {size} bytes at {start:#x}"
            )));
        }
        Ok(Ok(()))
    }

    /// What our stream does from now on waits for all that the context was given so far.
    fn wait_for_others(&self) -> Result<(), DriverError> {
        let event = self.order_event()?;
        // SAFETY: context and event are alive, and the event is of this context.
        unsafe { sys::cuCtxRecordEvent(self.context.cu_ctx(), event.cu_event()) }.result()?;
        self.stream.wait(&event)
    }

    /// What the context is given from now on waits for all that is on our stream.
    fn let_others_wait(&self) -> Result<(), DriverError> {
        let event = self.order_event()?;
        event.record(&self.stream)?;
        // SAFETY: context and event are alive.
        unsafe { sys::cuCtxWaitEvent(self.context.cu_ctx(), event.cu_event()) }.result()
    }

    /// An event for one use: the driver keeps what waits for it when it is dropped.
    fn order_event(&self) -> Result<CudaEvent, DriverError> {
        self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING))
    }

    /// Copies `rows` rows of `width` words that lie `from_pitch` words apart to rows that lie `to_pitch` words apart.
    pub(super) fn copy_rows(
        &self,
        from: (u64, u64),
        to: (u64, u64),
        width: u64,
        rows: u64,
    ) -> Result<(), BackendError> {
        self.bind()?;
        let ((source, from_pitch), (target, to_pitch)) = (from, to);
        let bytes = |words: u64| 4 * words as usize;
        let rectangle = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: source,
            srcArray: std::ptr::null_mut(),
            srcPitch: bytes(from_pitch),
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: target,
            dstArray: std::ptr::null_mut(),
            dstPitch: bytes(to_pitch),
            WidthInBytes: bytes(width),
            Height: rows as usize,
        };
        // SAFETY: the caller has checked both ranges; the driver reads the description before it returns.
        unsafe { sys::cuMemcpy2DAsync_v2(&raw const rectangle, self.stream.cu_stream()) }
            .result()
            .map_err(|e| self.error(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_begins_on_a_boundary_of_kernels_or_a_few_words_behind_one() {
        let place = |pointer, bytes| Place::new(pointer, bytes).unwrap();
        assert_eq!(place(0x1000, 64), Place { base: 0x1000, offset: 0, words: 16 });
        assert_eq!(place(0x100c, 64), Place { base: 0x1000, offset: 3, words: 19 });
        assert_eq!(place(0x1010, 0), Place { base: 0x1010, offset: 0, words: 0 });
        assert_eq!(place(u64::MAX - 7, 4), Place { base: u64::MAX - 15, offset: 2, words: 3 });
        for (pointer, bytes) in [(0x1002, 64), (0x1000, 6), (u64::MAX - 7, 16)] {
            let error = Place::new(pointer, bytes).unwrap_err();
            assert!(error.contains(&format!("{bytes} bytes at {pointer:#x}")), "{error}");
        }
    }
}
