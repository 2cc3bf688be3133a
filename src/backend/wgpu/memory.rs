//! Memory: a buffer of wgpu each.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::WORD;
use super::queue::Shared;
use crate::backend::device::failed as device_failed;
use crate::backend::device::{Limits, Memory, Storage};
use crate::backend::{BackendError, BackendKind};

/// A buffer and its device. Wiped on drop if it is marked secret.
pub struct WgpuMemory {
    shared: Arc<Shared>,
    buffer: wgpu::Buffer,
    secret: bool,
    /// Of memory that someone else made: what keeps its owner from using it again.
    holder: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for WgpuMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WgpuMemory({} words)", self.buffer.size() / WORD)
    }
}

impl WgpuMemory {
    /// The buffer.
    #[must_use]
    pub const fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}

impl Storage for WgpuMemory {
    fn device(&self) -> u64 {
        self.shared.id
    }

    fn words(&self) -> u64 {
        self.buffer.size() / WORD
    }

    fn foreign(&self) -> bool {
        self.holder.is_some()
    }
}

impl Drop for WgpuMemory {
    fn drop(&mut self) {
        if self.secret {
            self.shared.wipe(&self.buffer);
        }
    }
}

/// `words` zeros: wgpu fills new memory with them before its first use.
pub(super) fn alloc(shared: &Arc<Shared>, limits: &Limits, words: u64, secret: bool) -> Result<Memory, BackendError> {
    let needed = words.saturating_mul(WORD);
    if words > limits.max_memory_words {
        let free = Some(limits.max_memory_words * WORD);
        return Err(BackendError::DeviceMemory { backend: BackendKind::Wgpu.name(), needed, free });
    }
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: Some("veilsum"), size: needed, usage, mapped_at_creation: false };
    let buffer = shared.guarded("memory", needed, || shared.device.create_buffer(&descriptor))?;
    Ok(Memory::new(WgpuMemory { shared: shared.clone(), buffer, secret, holder: None }))
}

/// A handle to a buffer that someone else made, and to what keeps it as it is.
pub(super) fn foreign(
    shared: &Arc<Shared>,
    buffer: wgpu::Buffer,
    holder: Box<dyn Any + Send + Sync>,
) -> Result<Memory, BackendError> {
    let needed = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    if !buffer.usage().contains(needed) {
        let reason = format!("its usages are {:?}, expected {needed:?}", buffer.usage());
        return Err(device_failed(BackendKind::Wgpu, "buffer of another owner", reason));
    }
    Ok(Memory::new(WgpuMemory { shared: shared.clone(), buffer, secret: false, holder: Some(holder) }))
}
