//! Copies between host and device through page-locked memory, which alone travels without the processor.

use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use cudarc::driver::{CudaEvent, DriverError, result, sys};

use super::driver::{DeviceMemory, Driver};
use crate::backend::BackendError;

/// Words of each of the two buffers: 4 MiB keep the bus busy.
const STAGING_WORDS: usize = 1 << 20;

/// Page-locked buffers that copies alternate between, each with the event that ends its last use.
#[derive(Debug)]
pub(super) struct Staging {
    halves: [*mut u32; 2],
    used: [CudaEvent; 2],
}

// SAFETY: the pointers are owned here alone, and page-locked memory may be used from any thread.
unsafe impl Send for Staging {}

impl Drop for Staging {
    fn drop(&mut self) {
        for (&half, used) in self.halves.iter().zip(&self.used) {
            // Nothing can be done about an error here; the memory stays allocated then.
            if used.synchronize().is_ok() {
                // SAFETY: allocated by `new_staging`, freed once, and its last use has ended.
                let _ = unsafe { result::free_host(half.cast()) };
            }
        }
    }
}

impl Driver {
    /// Copies words to `memory` from word `offset` on; returns when `data` may be reused. The range is checked by the
    /// caller. What went through the pinned buffers is overwritten there if the memory is secret, also after an error.
    pub(super) fn write(&self, memory: &DeviceMemory, offset: usize, data: &[u32]) -> Result<(), BackendError> {
        let guard = self.staging()?;
        let Some(staging) = guard.as_ref() else { return Ok(()) };
        let sent = data.chunks(STAGING_WORDS).enumerate().try_for_each(|(i, chunk)| {
            let to = memory.pointer() + 4 * (offset + i * STAGING_WORDS) as u64;
            self.send(staging, i % 2, to, chunk)
        });
        self.wiped(staging, memory, data.len(), sent)
    }

    /// Copies words from word `offset` of `memory` on to `out`; waits for all work before.
    pub(super) fn read(&self, memory: &DeviceMemory, offset: usize, out: &mut [u32]) -> Result<(), BackendError> {
        let guard = self.staging()?;
        let Some(staging) = guard.as_ref() else { return Ok(()) };
        let words = out.len();
        let mut chunks: Vec<&mut [u32]> = out.chunks_mut(STAGING_WORDS).collect();
        // Chunk i travels while chunk i - 1 is copied out of its half.
        let received = (0..=chunks.len()).try_for_each(|i| {
            if i < chunks.len() {
                let from = memory.pointer() + 4 * (offset + i * STAGING_WORDS) as u64;
                self.fetch(staging, i % 2, from, chunks[i].len())?;
            }
            if i > 0 {
                staging.used[(i - 1) % 2].synchronize().map_err(|e| self.error(e))?;
                let chunk = &mut chunks[i - 1];
                // SAFETY: the copy into this half has ended, and the next one into it is not begun before the next turn.
                chunk.copy_from_slice(unsafe { std::slice::from_raw_parts(staging.halves[(i - 1) % 2], chunk.len()) });
            }
            Ok(())
        });
        self.bytes_read.fetch_add(4 * words as u64, Ordering::Relaxed);
        self.wiped(staging, memory, words, received)
    }

    /// Enqueues a copy to the device by way of one half of the pinned memory, when its last use has ended.
    fn send(&self, staging: &Staging, half: usize, to: sys::CUdeviceptr, words: &[u32]) -> Result<(), BackendError> {
        staging.used[half].synchronize().map_err(|e| self.error(e))?;
        // SAFETY: the half is STAGING_WORDS long, its last use has ended, the guard of the caller keeps others away; `to`
        // has so many words.
        let copied = unsafe {
            let pinned = std::slice::from_raw_parts_mut(staging.halves[half], words.len());
            pinned.copy_from_slice(words);
            result::memcpy_htod_async(to, pinned, self.stream.cu_stream())
        };
        copied.and_then(|()| staging.used[half].record(&self.stream)).map_err(|e| self.error(e))
    }

    /// Enqueues a copy from the device into one half of the pinned memory.
    fn fetch(&self, staging: &Staging, half: usize, from: sys::CUdeviceptr, words: usize) -> Result<(), BackendError> {
        staging.used[half].synchronize().map_err(|e| self.error(e))?;
        // SAFETY: the half is STAGING_WORDS long and idle, and the guard of the caller keeps others away until the event.
        let pinned = unsafe { std::slice::from_raw_parts_mut(staging.halves[half], words) };
        // SAFETY: `from` has so many words.
        unsafe { result::memcpy_dtoh_async(pinned, from, self.stream.cu_stream()) }
            .and_then(|()| staging.used[half].record(&self.stream))
            .map_err(|e| self.error(e))
    }

    /// `result`, after what is left of `words` words of secret memory in the pinned memory is overwritten.
    fn wiped(
        &self,
        staging: &Staging,
        memory: &DeviceMemory,
        words: usize,
        result: Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        if !memory.secret {
            return result;
        }
        let waited = staging.used.iter().try_for_each(CudaEvent::synchronize).map_err(|e| self.error(e));
        for &half in &staging.halves {
            // SAFETY: at least so long, and idle; or the copy that may still run belongs to a call that returns an error.
            zeroize::Zeroize::zeroize(unsafe { std::slice::from_raw_parts_mut(half, words.min(STAGING_WORDS)) });
        }
        result.and(waited)
    }

    /// The pinned memory, allocated at first use; the context is current afterwards.
    fn staging(&self) -> Result<MutexGuard<'_, Option<Staging>>, BackendError> {
        self.bind()?;
        let mut guard = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(self.new_staging().map_err(|e| self.error(e))?);
        }
        Ok(guard)
    }

    fn new_staging(&self) -> Result<Staging, DriverError> {
        let event = || self.context.new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING));
        let used = [event()?, event()?];
        // SAFETY: the context is current; the memory is written before it is read.
        let pinned = || unsafe { result::malloc_host(4 * STAGING_WORDS, 0) };
        let first: *mut c_void = pinned()?;
        let second = match pinned() {
            Ok(second) => second,
            Err(e) => {
                // SAFETY: just allocated, and not used.
                let _ = unsafe { result::free_host(first) };
                return Err(e);
            }
        };
        Ok(Staging { halves: [first.cast(), second.cast()], used })
    }
}
