//! NVIDIA GPUs by the CUDA driver: `kernels/*.cu`, compiled beforehand and embedded, on the primary context.
//!
//! The driver's library is loaded at run time; without one [`Cuda::open`] says so. Drivers from 580 on (CUDA 13.0).
//!
//! No CUDA graphs, by count (`tests/suite/kernels/driver.rs` keeps it): a chunk of a round (240 rows of 65,536, encoded with
//! noise and packed) is 11 launches, 13 fills, 6 copies, 10 allocations and as many frees. At some 2 us a launch or fill,
//! 4 us a copy and 1 us the rest, the host enqueues them in about 90 us, ahead of the device, which has 16 M elements to
//! move some 50 bytes each and two keystreams to make: 0.4 ms without noise, 2 ms with Skellam noise. A graph would save the
//! gaps between kernels, 1 us each: 24 us, 1 to 6 percent. It would ask for fixed addresses, so that rows, records and keys
//! of every shape stay allocated (and keys unwiped) between rounds, and new parameters at every launch (first row, keys,
//! bounds). What is short enough to wait for the host, below some 2 M elements, gains more from more rows a chunk. The fill
//! of rows that a launch overwrites cost more than all gaps, 4 of 54 bytes an element: [`Device::alloc_unset`] saves it.

mod clock;
pub mod compiler;
mod driver;
mod foreign;
mod modules;
mod pool;
mod probe;
mod staging;
pub mod toolkit;

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cudarc::driver::result;

use self::clock::Clock;
use self::driver::{DeviceMemory, Driver};
use self::modules::Modules;
pub use self::probe::{CudaInfo, DRIVER_CUDA, DRIVER_RELEASE, OLDEST, driver_cuda, probe};
use super::device::{Device, Launch, Limits, Mark, Memory, RowShape, Slice, Storage, failed, grid, next_id};
use super::probe::Found;
use super::{BackendError, BackendKind};

/// Most words of a slice: kernels count elements in 32 bits.
const MAX_SLICE_WORDS: u64 = 1 << 31;
/// Kernels read vectors of 16 bytes.
const ALIGN_WORDS: u64 = 4;

/// One NVIDIA GPU with one stream.
#[derive(Debug)]
pub struct Cuda {
    driver: Arc<Driver>,
    modules: Modules,
    clock: Clock,
    limits: Limits,
    id: u64,
}

/// Memory of one allocation, with the device that it belongs to.
#[derive(Debug)]
struct Allocation {
    memory: DeviceMemory,
    device: u64,
}

impl Storage for Allocation {
    fn device(&self) -> u64 {
        self.device
    }

    fn words(&self) -> u64 {
        self.memory.words() as u64
    }

    fn foreign(&self) -> bool {
        self.memory.owner.is_some()
    }
}

impl Cuda {
    /// The device with this number, in the driver's order.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`]: no driver, one that is too old, no such device, or one that is too old.
    pub fn open(ordinal: usize) -> Result<Self, BackendError> {
        let driver = Driver::open(ordinal)?;
        let limits = limits_of(&driver.info);
        Ok(Self { driver, modules: Modules::default(), clock: Clock::default(), limits, id: next_id() })
    }

    /// The device with this number among those that the kernels run on; beyond the last it begins again.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_any(number: usize) -> Result<Self, BackendError> {
        let usable: Vec<usize> = match probe::probe() {
            Ok(found) => found.into_iter().filter(|info| info.refused().is_none()).map(|info| info.ordinal).collect(),
            // `open` says why.
            Err(_) => Vec::new(),
        };
        Self::open(usable.get(number % usable.len().max(1)).copied().unwrap_or(0))
    }

    /// What the driver says about it.
    #[must_use]
    pub fn info(&self) -> &CudaInfo {
        &self.driver.info
    }

    /// `bytes` bytes from `pointer` on that another library of this process made on the primary context: they are read where
    /// they are, behind all that the context has been given so far, and never written. `holder` is dropped with the last
    /// handle to the memory; what the context is given after that waits for what reads it. Returns the memory and the word
    /// of it at which the range begins.
    ///
    /// That the range stays allocated until the holder is dropped is the caller's promise. Where it is broken kernels read
    /// something else, or the device is lost: memory of the host is out of their reach, since the driver is asked.
    ///
    /// # Errors
    /// An address that is no memory of this device, more bytes than its allocation has, no whole words.
    pub fn foreign(
        &self,
        pointer: u64,
        bytes: u64,
        holder: impl Any + Send + Sync,
    ) -> Result<(Memory, u64), BackendError> {
        let (memory, offset) = self.driver.adopt(pointer, bytes, Box::new(holder))?;
        Ok((Memory::new(Allocation { memory, device: self.id }), offset))
    }

    /// Bytes that were read back to the host since the device was opened.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.driver.bytes_read.load(Ordering::Relaxed)
    }

    /// Bytes of the device that nobody holds, if the driver says so.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        self.driver.free_bytes()
    }

    /// Gives the driver back what was freed and is kept for later allocations, so that other libraries find it. Waits for
    /// the device.
    ///
    /// # Errors
    /// What the driver refuses.
    pub fn trim(&self) -> Result<(), BackendError> {
        self.driver.trim()
    }

    /// Refuses what no card of this size could hold.
    fn fits(&self, words: u64) -> Result<(), BackendError> {
        let (backend, most) = (BackendKind::Cuda.name(), self.limits.max_memory_words);
        if words <= most {
            return Ok(());
        }
        Err(BackendError::DeviceMemory { backend, needed: words.saturating_mul(4), free: Some(4 * most) })
    }

    /// The allocation behind a slice, which lies within it. Errors: memory of another device.
    fn allocation<'a>(&self, slice: &Slice<'a>) -> Result<&'a DeviceMemory, BackendError> {
        slice.check(self)?;
        let found: Option<&Allocation> = slice.memory.storage();
        found.map(|a| &a.memory).ok_or_else(|| failed(BackendKind::Cuda, "memory", "it was not made by this device"))
    }
}

/// The devices of the driver, or why there are none; [`super::open_with`] takes the first.
pub(in crate::backend) fn found() -> Vec<Found> {
    match probe() {
        Ok(devices) => devices.iter().map(found_one).collect(),
        Err(why) => vec![Found::nothing(BackendKind::Cuda, why)],
    }
}

fn found_one(info: &CudaInfo) -> Found {
    let (major, minor) = info.capability;
    let second = (info.ordinal > 0).then(|| "the first device is used".to_owned());
    Found {
        backend: BackendKind::Cuda,
        name: Some(info.name.clone()),
        class: "discrete GPU",
        driver: format!("CUDA {}.{}", info.driver.0, info.driver.1),
        limits: vec![
            ("compute capability", (10 * major + minor) as u64),
            ("memory", info.memory),
            ("shared memory of a block", u64::from(info.shared_bytes)),
        ],
        refused: info.refused().or(second),
    }
}

/// What fits on a device like this.
fn limits_of(info: &CudaInfo) -> Limits {
    // A tile of 2^k elements takes 2^(k + 2) bytes of shared memory.
    let fwht_tiles: &[u32] = match info.shared_bytes {
        0x2_0000.. => &[13, 14, 15],
        0x1_0000.. => &[13, 14],
        _ => &[13],
    };
    Limits {
        group_words: info.shared_bytes / 4,
        fwht_tiles,
        max_slice_words: MAX_SLICE_WORDS,
        align_words: ALIGN_WORDS,
        max_memory_words: info.memory / 4,
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.driver.finish().is_ok() {
            self.modules.unload();
        }
    }
}

impl Device for Cuda {
    fn kind(&self) -> BackendKind {
        BackendKind::Cuda
    }

    fn describe(&self) -> String {
        let info = &self.driver.info;
        let gib = info.memory as f64 / f64::from(1 << 30);
        let (major, minor) = info.capability;
        format!(
            "CUDA on {}, {gib:.0} GiB, sm_{major}{minor}, driver for CUDA {}.{}",
            info.name, info.driver.0, info.driver.1
        )
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, words: u64, secret: bool) -> Result<Memory, BackendError> {
        self.fits(words)?;
        let memory = self.driver.alloc(words, secret)?;
        self.driver.clear(&memory)?;
        Ok(Memory::new(Allocation { memory, device: self.id }))
    }

    fn alloc_unset(&self, words: u64) -> Result<Memory, BackendError> {
        self.fits(words)?;
        Ok(Memory::new(Allocation { memory: self.driver.alloc(words, false)?, device: self.id }))
    }

    fn write(&self, memory: &Memory, offset: u64, data: &[u32]) -> Result<(), BackendError> {
        if data.is_empty() {
            return Ok(());
        }
        let to = self.allocation(&Slice { memory, offset, words: data.len() as u64 })?;
        self.driver.write(to, offset as usize, data)
    }

    fn read(&self, memory: &Memory, offset: u64, out: &mut [u32]) -> Result<(), BackendError> {
        if out.is_empty() {
            return self.finish();
        }
        let from = self.allocation(&Slice { memory, offset, words: out.len() as u64 })?;
        self.driver.read(from, offset as usize, out)
    }

    fn copy(&self, from: &Slice<'_>, to: &Slice<'_>) -> Result<(), BackendError> {
        if from.words != to.words {
            let (expected, found) = (from.words as usize, to.words as usize);
            return Err(BackendError::WrongLength { what: "target of a copy", expected, found });
        }
        let (source, target) = (self.allocation(from)?, self.allocation(to)?);
        self.driver.copy(source, from.offset as usize, target, to.offset as usize, from.words as usize)
    }

    fn copy_rows(&self, from: &Slice<'_>, to: &Slice<'_>, shape: &RowShape) -> Result<(), BackendError> {
        shape.check(from, to)?;
        let (source, target) = (self.allocation(from)?, self.allocation(to)?);
        let at = |memory: &DeviceMemory, slice: &Slice<'_>| memory.pointer() + 4 * slice.offset;
        let (from, to) = ((at(source, from), shape.from_stride), (at(target, to), shape.to_stride));
        self.driver.copy_rows(from, to, shape.width, shape.rows)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        launch.check(self)?;
        let kernel = launch.kernel;
        self.driver.bind()?;
        let function = self.modules.function(&self.driver, kernel)?;
        let mut pointers = Vec::with_capacity(launch.slices.len());
        for slice in launch.slices {
            pointers.push(self.allocation(slice)?.pointer() + 4 * slice.offset);
        }
        // What the driver reads is a list of addresses of arguments; it copies them before it returns.
        let mut arguments: Vec<*mut c_void> = vec![launch.params.as_ptr().cast_mut().cast()];
        arguments.extend(pointers.iter_mut().map(|p| (&raw mut *p).cast::<c_void>()));
        let (x, y) = grid(launch.groups);
        let (threads, shared, stream) = (kernel.threads, kernel.shared_words * 4, self.driver.stream.cu_stream());
        // SAFETY: the kernel takes the parameters (of the checked size) by value and then as many pointers as slices;
        // each slice lies in an allocation of this device, which is freed in stream order, after this launch.
        unsafe { result::launch_kernel(function.0, (x, y, 1), (threads, 1, 1), shared, stream, &mut arguments) }
            .map_err(|e| self.driver.error(e))
    }

    fn submit(&self) -> Result<(), BackendError> {
        Ok(())
    }

    fn finish(&self) -> Result<(), BackendError> {
        self.driver.finish()
    }

    fn clock(&self) -> Option<&'static str> {
        Some("CUDA events")
    }

    fn mark(&self, mark: Mark) -> Result<(), BackendError> {
        self.clock.mark(&self.driver, mark)
    }

    fn elapsed(&self) -> Result<Option<f64>, BackendError> {
        self.clock.elapsed(&self.driver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_says_so() {
        match (probe(), Cuda::open(1 << 20)) {
            (Err(why), Err(BackendError::Unavailable { name, reason })) => {
                assert_eq!((name.as_str(), reason), ("cuda", why.clone()));
                assert!(why.contains("NVIDIA driver"), "{why}");
            }
            (Ok(found), Err(BackendError::Unavailable { reason, .. })) => {
                assert!(!found.is_empty());
                assert!(reason.contains("there is no device 1048576"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tiles_follow_the_shared_memory() {
        let info = |shared_bytes| CudaInfo {
            ordinal: 0,
            name: "card".to_owned(),
            capability: (8, 6),
            memory: 8 << 30,
            shared_bytes,
            driver: (13, 0),
        };
        assert_eq!(limits_of(&info(99 << 10)).fwht_tiles, [13, 14]);
        assert_eq!(limits_of(&info(163 << 10)).fwht_tiles, [13, 14, 15]);
        assert_eq!(limits_of(&info(48 << 10)).fwht_tiles, [13]);
    }
}
