//! The CUDA backend's kernels without a GPU: a device whose memory is the host's and whose launches go through the
//! emulation, each with another schedule of threads and blocks.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use veilsum::backend::device::{Access, Device, Launch, Limits, Memory, Slice, Storage, grid, next_id};
use veilsum::backend::{Aligned, BackendError, BackendKind};

use super::emulation::{Emulation, Shape};

/// Words before and behind each memory that no kernel may write.
const GUARD: usize = 64;
/// What the guards hold.
const GUARD_WORD: u32 = 0x5eed_c0de;

/// A device that has shared memory as the largest cards do, and small slices, so that tests meet the limits.
#[derive(Debug)]
pub(crate) struct Emulated {
    id: u64,
    limits: Limits,
    launches: AtomicU64,
    /// One operation at a time, which is what makes the memory's interior mutability sound.
    turn: Mutex<()>,
}

/// Memory between two guards. Touched by its device alone, under `Emulated::turn`.
#[derive(Debug)]
struct Cells {
    device: u64,
    words: usize,
    data: UnsafeCell<Aligned<u32>>,
}

// SAFETY: every access to `data` holds `Emulated::turn` of the one device that the memory belongs to.
unsafe impl Sync for Cells {}

impl Storage for Cells {
    fn device(&self) -> u64 {
        self.device
    }

    fn words(&self) -> u64 {
        self.words as u64
    }
}

impl Cells {
    /// The words, guards included.
    ///
    /// # Safety
    /// The caller holds the turn of the device, and no other reference from here is alive.
    #[allow(clippy::mut_from_ref)]
    unsafe fn all(&self) -> &mut [u32] {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.data.get() }
    }
}

impl Emulated {
    pub(crate) fn new() -> Self {
        let limits = Limits {
            group_words: 227 * 256,
            fwht_tiles: &[13, 14, 15],
            max_slice_words: 1 << 21,
            align_words: 4,
            max_memory_words: 1 << 27,
        };
        Self { id: next_id(), limits, launches: AtomicU64::new(0), turn: Mutex::new(()) }
    }

    fn cells<'a>(&self, slice: &Slice<'a>) -> Result<&'a Cells, BackendError> {
        let wrong = || BackendError::WrongPlace { found: "another device".into(), expected: self.describe() };
        let cells: &Cells = slice.memory.storage().ok_or_else(wrong)?;
        if cells.device != self.id {
            return Err(wrong());
        }
        let (expected, found) = ((slice.offset + slice.words) as usize, cells.words);
        if expected > found {
            return Err(BackendError::WrongLength { what: "memory of the device", expected, found });
        }
        Ok(cells)
    }

    fn failed(what: &str, reason: impl Into<String>) -> BackendError {
        BackendError::DeviceFailed { backend: "cuda", what: what.into(), reason: reason.into() }
    }

    /// Runs `act` on the words of a slice.
    fn with<T>(&self, slice: &Slice<'_>, act: impl FnOnce(&mut [u32]) -> T) -> Result<T, BackendError> {
        let cells = self.cells(slice)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let start = GUARD + slice.offset as usize;
        // SAFETY: the turn is ours, and the reference ends with this call.
        Ok(act(&mut unsafe { cells.all() }[start..start + slice.words as usize]))
    }

    /// What no launch may change: the words of the slices that it only reads.
    fn unchanged(&self, launch: &Launch<'_>) -> Result<Vec<Vec<u32>>, BackendError> {
        let read = launch.slices.iter().zip(launch.kernel.buffers).filter(|(_, access)| **access == Access::Read);
        read.map(|(slice, _)| self.with(slice, |words| words.to_vec())).collect()
    }

    fn check_after(&self, launch: &Launch<'_>, before: &[Vec<u32>]) -> Result<(), BackendError> {
        for slice in launch.slices {
            let whole = slice.memory.all();
            let cells = self.cells(&whole)?;
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the turn is ours, and the reference ends with this turn of the loop.
            let all = unsafe { cells.all() };
            let (front, rest) = all.split_at(GUARD);
            if front.iter().chain(&rest[cells.words..]).any(|&word| word != GUARD_WORD) {
                return Err(Self::failed(launch.kernel.entry, "it wrote outside its memory"));
            }
        }
        if self.unchanged(launch)? != before {
            return Err(Self::failed(launch.kernel.entry, "it wrote to a buffer that it should only read"));
        }
        Ok(())
    }

    fn run(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        let mut pointers: Vec<*mut c_void> = Vec::new();
        for slice in launch.slices {
            let cells = self.cells(slice)?;
            if !slice.offset.is_multiple_of(4) {
                return Err(Self::failed(launch.kernel.entry, "a slice does not start at 16 bytes"));
            }
            // SAFETY: only the address is taken; `Aligned` starts on 64 bytes, and so do 64 words of guard.
            let start = unsafe { (*cells.data.get()).as_mut_ptr() };
            pointers.push(start.wrapping_add(GUARD + slice.offset as usize).cast());
        }
        let (x, y) = grid(launch.groups);
        let (threads, shared_bytes) = (launch.kernel.threads, launch.kernel.shared_words * 4);
        let seed = self.launches.fetch_add(1, Ordering::Relaxed);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: each pointer is a slice of its memory, aligned to 16 bytes, and the turn keeps everyone else away.
        unsafe {
            Emulation::kernels().launch(
                launch.kernel.entry,
                Shape { grid: [x, y], threads, shared_bytes },
                launch.params,
                &pointers,
                seed,
            )
        }
        .map_err(|reason| Self::failed(launch.kernel.entry, reason))
    }
}

impl Device for Emulated {
    fn kind(&self) -> BackendKind {
        BackendKind::Cuda
    }

    fn describe(&self) -> String {
        "CUDA kernels, emulated".to_owned()
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, words: u64, _secret: bool) -> Result<Memory, BackendError> {
        if words > self.limits.max_memory_words {
            return Err(BackendError::DeviceMemory {
                backend: "cuda",
                needed: words.saturating_mul(4),
                free: Some(4 * self.limits.max_memory_words),
            });
        }
        let words = words as usize;
        // Vectors may reach over the end of the last one.
        let room = words.next_multiple_of(4);
        let mut data = Aligned::zeroed(room + 2 * GUARD);
        data[..GUARD].fill(GUARD_WORD);
        data[GUARD + room..].fill(GUARD_WORD);
        Ok(Memory::new(Cells { device: self.id, words: room, data: UnsafeCell::new(data) }))
    }

    fn write(&self, memory: &Memory, offset: u64, data: &[u32]) -> Result<(), BackendError> {
        let slice = Slice { memory, offset, words: data.len() as u64 };
        self.with(&slice, |words| words.copy_from_slice(data))
    }

    fn read(&self, memory: &Memory, offset: u64, out: &mut [u32]) -> Result<(), BackendError> {
        let slice = Slice { memory, offset, words: out.len() as u64 };
        self.with(&slice, |words| out.copy_from_slice(words))
    }

    fn copy(&self, from: &Slice<'_>, to: &Slice<'_>) -> Result<(), BackendError> {
        let words = self.with(from, |words| words.to_vec())?;
        self.with(to, |target| target.copy_from_slice(&words))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        if launch.slices.iter().any(|slice| slice.words > self.limits.max_slice_words) {
            return Err(Self::failed(launch.kernel.entry, "a slice is too long"));
        }
        let before = self.unchanged(launch)?;
        self.run(launch)?;
        self.check_after(launch, &before)
    }

    fn submit(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn finish(&self) -> Result<(), BackendError> {
        Ok(())
    }
}
