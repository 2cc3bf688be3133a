//! The queue: commands recorded and not yet submitted, and what went wrong.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use wgpu::{ErrorFilter, PollType};

use crate::backend::device::failed as device_failed;
use crate::backend::{BackendError, BackendKind};

/// Bytes between the parameters of two launches: the largest alignment that an adapter may ask for.
const PARAMS: u64 = 256;
/// Launches after which what is recorded is submitted, so that the device does not wait for a long verb.
const LAUNCHES: u64 = 64;
/// Bytes that go to the device or come from it at a time: what is staged takes as much memory again.
const PART: usize = 64 << 20;
/// The longest time between the end of a read-back and its result, which any thread may hand over.
const HAND_OVER: Duration = Duration::from_secs(10);

/// A device and its queue, as the backend and its memory hold them.
pub(super) struct Shared {
    /// The number of the device.
    pub(super) id: u64,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Bytes read back so far.
    pub(super) bytes_read: AtomicU64,
    failure: Arc<Failure>,
    recorded: Mutex<Option<Commands>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({}, {:?})", self.id, self.device)
    }
}

/// Commands recorded since the last submission.
pub(super) struct Commands {
    pub(super) encoder: wgpu::CommandEncoder,
    queue: wgpu::Queue,
    ring: wgpu::Buffer,
    launches: u64,
}

impl Commands {
    /// Parameters of the next launch: at most [`PARAMS`] bytes, seen by it alone.
    pub(super) fn params(&mut self, bytes: &[u8]) -> wgpu::BufferBinding<'_> {
        let offset = PARAMS * self.launches;
        self.launches += 1;
        self.queue.write_buffer(&self.ring, offset, bytes);
        wgpu::BufferBinding { buffer: &self.ring, offset, size: wgpu::BufferSize::new(bytes.len() as u64) }
    }
}

/// What went wrong and was not returned yet.
#[derive(Debug, Default)]
struct Failure {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<BackendError>>,
}

impl Failure {
    /// The loss of the device, again and again; another error once.
    fn check(&self) -> Result<(), BackendError> {
        if let Some(reason) = &*lock(&self.lost) {
            return Err(BackendError::DeviceLost { backend: BackendKind::Wgpu.name(), reason: reason.clone() });
        }
        lock(&self.uncaptured).take().map_or(Ok(()), Err)
    }
}

/// The lock, also after a panic of another thread that held it: what it guards is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(id: u64, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let failure = Arc::new(Failure::default());
        let seen = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&seen.uncaptured).get_or_insert_with(|| translate("a command", 0, &error));
        }));
        let seen = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            *lock(&seen.lost) = Some(format!("{reason:?} {message}").trim_end().to_owned());
        });
        Self { id, device, queue, bytes_read: AtomicU64::new(0), failure, recorded: Mutex::new(None) }
    }

    /// Errors that were recorded.
    pub(super) fn check(&self) -> Result<(), BackendError> {
        self.failure.check()
    }

    /// Runs `create` inside error scopes of all kinds; `needed` is what an error of memory says was asked for.
    pub(super) fn guarded<T>(&self, what: &str, needed: u64, create: impl FnOnce() -> T) -> Result<T, BackendError> {
        self.check()?;
        let scopes = [ErrorFilter::Internal, ErrorFilter::OutOfMemory, ErrorFilter::Validation]
            .map(|filter| self.device.push_error_scope(filter));
        let made = create();
        // Scopes are popped in the reverse order.
        let errors = scopes.map(Some).into_iter().rev().flatten().map(|scope| pollster::block_on(scope.pop()));
        let first = errors.fold(None, |first, error| first.or(error));
        if first.is_some() {
            // What a lost device makes is invalid without an error; its loss is reported when all work has ended.
            self.poll(PollType::wait_indefinitely())?;
        }
        self.check()?;
        first.map_or(Ok(made), |error| Err(translate(what, needed, &error)))
    }

    /// Records commands.
    pub(super) fn record(&self, what: &str, add: impl FnOnce(&mut Commands)) -> Result<(), BackendError> {
        let mut recorded = lock(&self.recorded);
        if recorded.as_ref().is_some_and(|c| c.launches >= LAUNCHES) {
            self.submit_locked(&mut recorded)?;
        }
        if recorded.is_none() {
            *recorded = Some(self.guarded("commands", PARAMS * LAUNCHES, || self.commands())?);
        }
        match recorded.as_mut() {
            Some(commands) => self.guarded(what, 0, || add(commands)),
            None => Ok(()),
        }
    }

    fn commands(&self) -> Commands {
        let label = Some("veilsum parameters");
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let size = PARAMS * LAUNCHES;
        Commands {
            encoder: self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("veilsum") }),
            queue: self.queue.clone(),
            ring: self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false }),
            launches: 0,
        }
    }

    /// Submits what is recorded.
    pub(super) fn submit(&self) -> Result<(), BackendError> {
        self.submit_locked(&mut lock(&self.recorded))
    }

    fn submit_locked(&self, recorded: &mut Option<Commands>) -> Result<(), BackendError> {
        let Some(commands) = recorded.take() else { return self.check() };
        self.guarded("submission", 0, || {
            self.queue.submit([commands.encoder.finish()]);
        })
    }

    /// Submits, and waits for all of it.
    pub(super) fn finish(&self) -> Result<(), BackendError> {
        self.submit()?;
        self.wait()
    }

    fn wait(&self) -> Result<(), BackendError> {
        self.check()?;
        self.poll(PollType::wait_indefinitely())?;
        self.check()
    }

    fn poll(&self, how: PollType) -> Result<(), BackendError> {
        // wgpu panics here if the driver reports the loss of the device at its fence.
        match catch_unwind(AssertUnwindSafe(|| self.device.poll(how))) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failed("waiting for the device", error.to_string())),
            Err(_) => {
                lock(&self.failure.lost).get_or_insert_with(|| "waiting for it failed".to_owned());
                self.check()
            }
        }
    }

    /// Overwrites bytes of a buffer, after what is recorded.
    pub(super) fn write(&self, buffer: &wgpu::Buffer, at: u64, bytes: &[u8]) -> Result<(), BackendError> {
        // A write takes effect before the commands of the next submission.
        self.submit()?;
        for (part, i) in bytes.chunks(PART).zip(0u64..) {
            self.guarded("upload", part.len() as u64, || {
                self.queue.write_buffer(buffer, at + i * PART as u64, part);
                // Starts the copy, after which its staging memory is free again.
                self.queue.submit([]);
            })?;
        }
        Ok(())
    }

    /// Waits, and copies bytes of a buffer.
    pub(super) fn read(&self, buffer: &wgpu::Buffer, at: u64, out: &mut [u8]) -> Result<(), BackendError> {
        self.bytes_read.fetch_add(out.len() as u64, Ordering::Relaxed);
        let size = PART.min(out.len()) as u64;
        let staging = self.guarded("read-back", size, || {
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let label = Some("veilsum read-back");
            self.device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
        })?;
        let mut at = at;
        for part in out.chunks_mut(size.max(1) as usize) {
            let len = part.len() as u64;
            self.record("read-back", |c| c.encoder.copy_buffer_to_buffer(buffer, at, &staging, 0, len))?;
            self.submit()?;
            self.mapped(&staging, part)?;
            at += len;
        }
        Ok(())
    }

    /// Maps the front of a staging buffer and copies it.
    fn mapped(&self, staging: &wgpu::Buffer, out: &mut [u8]) -> Result<(), BackendError> {
        let (send, receive) = mpsc::channel();
        let slice = staging.slice(..out.len() as u64);
        self.guarded("read-back", 0, || {
            slice.map_async(wgpu::MapMode::Read, move |result| {
                // The receiver is gone only after an error that is returned already.
                let _ = send.send(result);
            });
        })?;
        self.wait()?;
        // Another thread's wait may have taken this result to hand over, and be about to.
        match receive.recv_timeout(HAND_OVER) {
            Ok(Ok(())) => {
                out.copy_from_slice(&slice.get_mapped_range());
                staging.unmap();
                Ok(())
            }
            // Also what a lost device answers.
            Ok(Err(error)) => self.check().and(Err(failed("read-back", error.to_string()))),
            Err(error) => Err(failed("read-back", error.to_string())),
        }
    }

    /// Records zeros over a buffer that is about to be dropped, behind all that reads it.
    pub(super) fn wipe(&self, buffer: &wgpu::Buffer) {
        // An error means that the device is gone, and its memory with it.
        let _ = self.record("wipe", |c| c.encoder.clear_buffer(buffer, 0, None));
    }
}

impl Drop for Shared {
    /// What is recorded may wipe secrets.
    fn drop(&mut self) {
        let _ = self.submit();
    }
}

fn failed(what: &str, reason: String) -> BackendError {
    device_failed(BackendKind::Wgpu, what, reason)
}

fn translate(what: &str, needed: u64, error: &wgpu::Error) -> BackendError {
    match error {
        wgpu::Error::OutOfMemory { .. } => {
            BackendError::DeviceMemory { backend: BackendKind::Wgpu.name(), needed, free: None }
        }
        other => failed(what, other.to_string()),
    }
}
