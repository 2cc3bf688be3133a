//! The stages as shaders, over Vulkan, Metal or DX12 by way of wgpu.
//!
//! Launches are recorded one after another and submitted together at the end of a verb. Nothing here panics on what a
//! driver says: every creation is inside error scopes, what goes wrong later is recorded and returned by the next call
//! that waits, and a device that is lost stays lost ([`BackendError::DeviceLost`]).

mod adapter;
mod clock;
mod memory;
mod pipelines;
mod queue;
mod shaders;

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::adapter::probe;
pub use self::memory::WgpuMemory;
use self::pipelines::Pipelines;
use self::queue::Shared;
use super::device::{Device, Launch, Limits, Mark, Memory, Slice, grid, next_id};
use super::{BackendError, BackendKind, OpenOptions};

/// Bytes of a word.
const WORD: u64 = 4;
/// log2 of the tiles of `fwht`: what 16 KiB hold, the group memory that every adapter has.
const FWHT_TILES: &[u32] = &[12];

/// A device of wgpu with its queue, and the pipelines that were needed so far.
#[derive(Debug)]
pub struct Wgpu {
    shared: Arc<Shared>,
    pipelines: Pipelines,
    clock: clock::Clock,
    limits: Limits,
    description: String,
    origin: Option<(wgpu::Instance, wgpu::Adapter)>,
}

impl Wgpu {
    /// Opens the best adapter: a discrete GPU, else an integrated one, else a virtual one.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`], which says what there is and why it is not taken.
    pub fn open(options: &OpenOptions) -> Result<Self, BackendError> {
        let (instance, adapter) = adapter::pick(options)?;
        let (device, queue) = adapter::request(&adapter)?;
        Ok(Self::from_device(device, queue, &adapter.get_info()).with_origin(instance, adapter))
    }

    /// The backend on a device that someone else made, so that its buffers can be read where they are
    /// ([`Self::foreign`]). Work on both sides is ordered by submission: submit before the other side reads.
    ///
    /// Replaces the device's handlers for uncaptured errors and for its loss.
    #[must_use]
    pub fn from_device(device: wgpu::Device, queue: wgpu::Queue, info: &wgpu::AdapterInfo) -> Self {
        let limits = limits_of(&device.limits());
        let description = adapter::describe(info);
        Self {
            shared: Arc::new(Shared::new(next_id(), device, queue)),
            pipelines: Pipelines::default(),
            clock: clock::Clock::default(),
            limits,
            description,
            origin: None,
        }
    }

    /// Says where the device comes from, for others who compute on it too (see [`Self::origin`]).
    #[must_use]
    pub fn with_origin(self, instance: wgpu::Instance, adapter: wgpu::Adapter) -> Self {
        Self { origin: Some((instance, adapter)), ..self }
    }

    /// Instance and adapter of the device; nothing if they were not told.
    #[must_use]
    pub fn origin(&self) -> Option<&(wgpu::Instance, wgpu::Adapter)> {
        self.origin.as_ref()
    }

    /// Words of a buffer that someone else made on this device: they are read and never written.
    ///
    /// Errors: a buffer that cannot be bound as storage.
    pub fn foreign(&self, buffer: wgpu::Buffer) -> Result<Memory, BackendError> {
        self.foreign_held(buffer, ())
    }

    /// As [`Self::foreign`], for a buffer whose owner may use it again as soon as `holder` is dropped: that happens with
    /// the last handle to the memory. Submit what reads it before then.
    pub fn foreign_held(&self, buffer: wgpu::Buffer, holder: impl Any + Send + Sync) -> Result<Memory, BackendError> {
        memory::foreign(&self.shared, buffer, Box::new(holder))
    }

    /// Bytes that were read back to the host since the device was opened.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Ordering::Relaxed)
    }

    /// What went wrong on the device since an error was last returned, as far as it is known: does not wait.
    pub fn check(&self) -> Result<(), BackendError> {
        self.shared.check()
    }

    /// The device of wgpu.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// Its queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// The buffer behind a memory of this device.
    fn buffer<'a>(&self, memory: &'a Memory) -> Result<&'a wgpu::Buffer, BackendError> {
        memory.storage::<WgpuMemory>().map(WgpuMemory::buffer).ok_or_else(|| BackendError::WrongPlace {
            found: "another device".into(),
            expected: self.description.clone(),
        })
    }

    /// Buffer, offset and length in bytes of a slice that lies in memory of this device.
    fn bytes<'a>(&self, slice: &Slice<'a>) -> Result<(&'a wgpu::Buffer, u64, u64), BackendError> {
        slice.check(self)?;
        Ok((self.buffer(slice.memory)?, WORD * slice.offset, WORD * slice.words))
    }
}

/// Limits in words.
fn limits_of(limits: &wgpu::Limits) -> Limits {
    let align_words = u64::from(limits.min_storage_buffer_offset_alignment).max(16) / WORD;
    let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / WORD;
    Limits {
        group_words: limits.max_compute_workgroup_storage_size / WORD as u32,
        fwht_tiles: FWHT_TILES,
        // Kernels count elements in 32 bits.
        max_slice_words: binding.min(1 << 31) / align_words * align_words,
        align_words,
        max_memory_words: limits.max_buffer_size / WORD,
    }
}

impl Device for Wgpu {
    fn kind(&self) -> BackendKind {
        BackendKind::Wgpu
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn id(&self) -> u64 {
        self.shared.id
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn alloc(&self, words: u64, secret: bool) -> Result<Memory, BackendError> {
        memory::alloc(&self.shared, &self.limits, words, secret)
    }

    fn write(&self, memory: &Memory, offset: u64, data: &[u32]) -> Result<(), BackendError> {
        let (buffer, at, _) = self.bytes(&Slice { memory, offset, words: data.len() as u64 })?;
        self.shared.write(buffer, at, bytemuck::cast_slice(data))
    }

    fn read(&self, memory: &Memory, offset: u64, out: &mut [u32]) -> Result<(), BackendError> {
        let (buffer, at, _) = self.bytes(&Slice { memory, offset, words: out.len() as u64 })?;
        self.shared.read(buffer, at, bytemuck::cast_slice_mut(out))
    }

    fn copy(&self, from: &Slice<'_>, to: &Slice<'_>) -> Result<(), BackendError> {
        if from.words != to.words {
            let (expected, found) = (to.words as usize, from.words as usize);
            return Err(BackendError::WrongLength { what: "copied memory", expected, found });
        }
        let (source, source_at, len) = self.bytes(from)?;
        let (target, target_at, _) = self.bytes(to)?;
        self.shared.record("copy", |commands| {
            commands.encoder.copy_buffer_to_buffer(source, source_at, target, target_at, len);
        })
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError> {
        launch.check(self)?;
        let kernel = launch.kernel;
        let pipeline = self.pipelines.get(&self.shared, kernel)?;
        let slices = launch.slices.iter().map(|s| self.bytes(s)).collect::<Result<Vec<_>, _>>()?;
        self.shared.record(kernel.entry, |commands| {
            let group = pipelines::bind(&self.shared.device, &pipeline, commands.params(launch.params), &slices);
            let label = Some(kernel.entry);
            let mut pass =
                commands.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            let (x, y) = grid(launch.groups);
            pass.dispatch_workgroups(x, y, 1);
        })
    }

    fn submit(&self) -> Result<(), BackendError> {
        self.shared.submit()
    }

    fn finish(&self) -> Result<(), BackendError> {
        self.shared.finish()
    }

    fn clock(&self) -> Option<&'static str> {
        clock::exists(&self.shared).then_some("timestamp queries")
    }

    fn mark(&self, mark: Mark) -> Result<(), BackendError> {
        if clock::exists(&self.shared) { self.clock.mark(&self.shared, mark) } else { Ok(()) }
    }

    fn elapsed(&self) -> Result<Option<f64>, BackendError> {
        self.clock.elapsed(&self.shared)
    }
}
