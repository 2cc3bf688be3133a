//! What the stages ask of a device: memory, and launches that run one after another.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{BackendError, BackendKind};

/// A GPU, or what stands in for one. One queue: what is enqueued runs in order.
///
/// Errors of a launch may show at the call, or later at [`Device::read`] or [`Device::finish`]. After an error that
/// is no [`BackendError::DeviceLost`] the device still works.
pub trait Device: Any + Send + Sync + fmt::Debug {
    /// Which backend this is a device of.
    fn kind(&self) -> BackendKind;

    /// One line for people: name, driver, memory.
    fn describe(&self) -> String;

    /// The number that its memory bears, from [`next_id`].
    fn id(&self) -> u64;

    /// What fits.
    fn limits(&self) -> &Limits;

    /// `words` zeros. Memory that holds a `secret` is wiped when the last handle to it is dropped; what a driver
    /// keeps of the copy on its way there is beyond our reach.
    ///
    /// Errors: [`BackendError::DeviceMemory`], after which everything else still works.
    fn alloc(&self, words: u64, secret: bool) -> Result<Memory, BackendError>;

    /// `words` of anything, for what is written before it is read: saves a pass over memory where zeros cost one. Errors:
    /// as of [`Self::alloc`].
    fn alloc_unset(&self, words: u64) -> Result<Memory, BackendError> {
        self.alloc(words, false)
    }

    /// Overwrites words from `offset` on; later launches see them, earlier ones do not. Errors: beyond the end.
    fn write(&self, memory: &Memory, offset: u64, data: &[u32]) -> Result<(), BackendError>;

    /// Waits for everything enqueued, and copies words from `offset` on to `out`. Errors: beyond the end, and those
    /// of earlier launches.
    fn read(&self, memory: &Memory, offset: u64, out: &mut [u32]) -> Result<(), BackendError>;

    /// Enqueues a copy between two memories (not within one). Errors: of different lengths, or beyond an end.
    fn copy(&self, from: &Slice<'_>, to: &Slice<'_>) -> Result<(), BackendError>;

    /// Enqueues a copy of rows between two memories, whose slices reach from the first word of the first row to the last of
    /// the last. Errors: slices of another length, as for [`Self::copy`].
    fn copy_rows(&self, from: &Slice<'_>, to: &Slice<'_>, shape: &RowShape) -> Result<(), BackendError> {
        shape.check(from, to)?;
        if shape.from_stride == shape.width && shape.to_stride == shape.width {
            return self.copy(from, to);
        }
        (0..shape.rows).try_for_each(|i| {
            self.copy(&from.part(i * shape.from_stride, shape.width), &to.part(i * shape.to_stride, shape.width))
        })
    }

    /// Enqueues a launch. Errors: slices that do not match the kernel, longer than `max_slice_words` or not aligned.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), BackendError>;

    /// Starts what is enqueued, without waiting.
    fn submit(&self) -> Result<(), BackendError>;

    /// Waits for everything enqueued, and returns what went wrong.
    fn finish(&self) -> Result<(), BackendError>;

    /// What the device's own time is read from; nothing if it cannot be read.
    fn clock(&self) -> Option<&'static str> {
        None
    }

    /// Notes the device's time behind everything enqueued so far, in place of the last mark of this kind; nothing without
    /// a clock. Errors: as of a launch.
    fn mark(&self, _mark: Mark) -> Result<(), BackendError> {
        Ok(())
    }

    /// Seconds from the mark [`Mark::Begin`] to [`Mark::End`] as the device counts them, among them those in which it
    /// waited for the host; nothing if one was never set. Waits until both are reached. Errors: as of [`Self::finish`].
    fn elapsed(&self) -> Result<Option<f64>, BackendError> {
        Ok(None)
    }
}

/// The two moments of [`Device::mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Before what is timed.
    Begin,
    /// Behind it.
    End,
}

/// What fits on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Words of memory that the threads of one group share.
    pub group_words: u32,
    /// log2 of the tiles for which there is a kernel of `fwht`, ascending.
    pub fwht_tiles: &'static [u32],
    /// Most words of a slice that a launch gets; a multiple of `align_words`.
    pub max_slice_words: u64,
    /// Slices start at multiples of this many words, a power of two.
    pub align_words: u64,
    /// Most words of one memory.
    pub max_memory_words: u64,
}

/// What a kernel does with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads.
    Read,
    /// Reads and writes, or only writes.
    ReadWrite,
}

/// One kernel, the same in WGSL and in CUDA C: binding 0 holds the parameters (uniform; by value in CUDA), bindings
/// 1.. the buffers in order.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// `shaders/FILE.wgsl` and `kernels/FILE.cu`.
    pub file: &'static str,
    /// Name of the function.
    pub entry: &'static str,
    /// Threads of a group.
    pub threads: u32,
    /// Words of group memory that a CUDA launch asks for (dynamic shared memory); WGSL declares its own.
    pub shared_words: u32,
    /// Bytes of the parameters: a multiple of 16, at most 256.
    pub params: usize,
    /// The buffers.
    pub buffers: &'static [Access],
}

/// One launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// What runs.
    pub kernel: &'static Kernel,
    /// Groups of threads, at least 1 and at most 65535^2, laid out by [`grid`].
    pub groups: u64,
    /// The parameters.
    pub params: &'a [u8],
    /// The buffers. No memory is both in a slice that the kernel only reads and in one that it writes.
    pub slices: &'a [Slice<'a>],
}

/// Words `[offset, offset + words)` of a memory.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// Which memory.
    pub memory: &'a Memory,
    /// First word.
    pub offset: u64,
    /// How many.
    pub words: u64,
}

/// What a device keeps of one allocation.
pub trait Storage: Any + Send + Sync + fmt::Debug {
    /// The number of its device.
    fn device(&self) -> u64;

    /// Its length.
    fn words(&self) -> u64;

    /// True for memory that someone else made: it is read and never written.
    fn foreign(&self) -> bool {
        false
    }
}

/// A shared handle to memory of a device; dropping the last one frees it.
#[derive(Clone, Debug)]
pub struct Memory(Arc<dyn Storage>);

impl Memory {
    /// A handle to `storage`.
    #[must_use]
    pub fn new(storage: impl Storage) -> Self {
        Self(Arc::new(storage))
    }

    /// Its length in words.
    #[must_use]
    pub fn words(&self) -> u64 {
        self.0.words()
    }

    /// The number of its device.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.0.device()
    }

    /// The storage as the type that its device made, or nothing if another device made it.
    #[must_use]
    pub fn storage<T: Storage>(&self) -> Option<&T> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref()
    }

    /// True if both are handles to the same memory.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// True for memory that someone else made, such as a framework's tensor: it is read and never written.
    #[must_use]
    pub fn foreign(&self) -> bool {
        self.0.foreign()
    }

    /// True if this is the only handle, and the memory is ours to write.
    pub(super) fn writable(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && !self.0.foreign()
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Slice<'_> {
        Slice { memory: self, offset: 0, words: self.words() }
    }
}

/// Rows within two memories, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape {
    /// How many, at least 1.
    pub rows: u64,
    /// Words of a row, at least 1.
    pub width: u64,
    /// From the start of a row to that of the next where they come from, at least `width`.
    pub from_stride: u64,
    /// The same where they go.
    pub to_stride: u64,
}

impl RowShape {
    /// Words from the first of the first row to the last of the last.
    #[must_use]
    pub const fn span(&self, stride: u64) -> u64 {
        (self.rows.saturating_sub(1)).saturating_mul(stride).saturating_add(self.width)
    }

    /// Checks the two slices of a copy.
    pub(in crate::backend) fn check(&self, from: &Slice<'_>, to: &Slice<'_>) -> Result<(), BackendError> {
        for (slice, stride, what) in
            [(from, self.from_stride, "source of copied rows"), (to, self.to_stride, "target of copied rows")]
        {
            let expected = self.span(stride.max(self.width));
            if stride < self.width || slice.words != expected || self.rows == 0 || self.width == 0 {
                let (expected, found) = (expected as usize, slice.words as usize);
                return Err(BackendError::WrongLength { what, expected, found });
            }
        }
        Ok(())
    }
}

impl<'a> Slice<'a> {
    /// Words `[start, start + words)` of the slice.
    #[must_use]
    pub const fn part(&self, start: u64, words: u64) -> Slice<'a> {
        Slice { memory: self.memory, offset: self.offset + start, words }
    }
}

impl Launch<'_> {
    /// Checks what every device refuses.
    pub(in crate::backend) fn check(&self, device: &dyn Device) -> Result<(), BackendError> {
        let limits = device.limits();
        let refused = |reason: String| Err(failed(device.kind(), self.kernel.entry, reason));
        if self.slices.len() != self.kernel.buffers.len() || self.params.len() != self.kernel.params {
            let (slices, params) = (self.slices.len(), self.params.len());
            return refused(format!("{slices} buffers and {params} bytes of parameters do not match the kernel"));
        }
        if self.groups == 0 || self.groups > MOST_GROUPS {
            return refused(format!("{} groups, expected 1..={MOST_GROUPS}", self.groups));
        }
        for slice in self.slices {
            slice.check(device)?;
            if slice.words > limits.max_slice_words || !slice.offset.is_multiple_of(limits.align_words) {
                let Slice { offset, words, .. } = slice;
                let (most, align) = (limits.max_slice_words, limits.align_words);
                return refused(format!("{words} words at {offset}, expected at most {most} at a multiple of {align}"));
            }
        }
        Ok(())
    }
}

impl Slice<'_> {
    /// Checks that the slice lies in memory of `device`.
    pub(in crate::backend) fn check(&self, device: &dyn Device) -> Result<(), BackendError> {
        if self.memory.device() != device.id() {
            return Err(BackendError::WrongPlace { found: "another device".into(), expected: device.describe() });
        }
        let end = self.offset.saturating_add(self.words);
        if self.words == 0 || end > self.memory.words() {
            let (expected, found) = (end as usize, self.memory.words() as usize);
            return Err(BackendError::WrongLength { what: "memory of the device", expected, found });
        }
        Ok(())
    }
}

/// The error of something that a device refused or could not do.
pub(in crate::backend) fn failed(kind: BackendKind, what: &str, reason: impl Into<String>) -> BackendError {
    BackendError::DeviceFailed { backend: kind.name(), what: what.into(), reason: reason.into() }
}

/// Most groups along one side of a grid: the limit of WebGPU.
const GRID_SIDE: u64 = 65_535;
/// Most groups of a launch; their number fits `u32`.
const MOST_GROUPS: u64 = GRID_SIDE * GRID_SIDE;

/// The grid (x, y) of `groups` groups: group `x + y * width` of it, those beyond the end return at once.
#[must_use]
pub fn grid(groups: u64) -> (u32, u32) {
    let width = groups.min(GRID_SIDE);
    (width as u32, groups.div_ceil(width.max(1)) as u32)
}

/// A number that no other device of this process has.
#[must_use]
pub fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_span_from_the_first_word_to_the_last() {
        let shape = |rows, width, stride| RowShape { rows, width, from_stride: stride, to_stride: width };
        assert_eq!(shape(1, 5, 128).span(128), 5);
        assert_eq!(shape(3, 5, 128).span(128), 261);
        assert_eq!(shape(3, 5, 128).span(5), 15);
        assert_eq!(shape(u64::MAX, 5, u64::MAX).span(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_grid_holds_all_groups_and_less_than_a_row_more() {
        for groups in [1, 2, 65_534, 65_535, 65_536, 131_070, 131_071, 1 << 27, MOST_GROUPS] {
            let (x, y) = grid(groups);
            assert!(u64::from(x) <= GRID_SIDE && u64::from(y) <= GRID_SIDE, "{groups}");
            let held = u64::from(x) * u64::from(y);
            assert!(held >= groups && held - groups < u64::from(x), "{groups}: {x} x {y}");
        }
    }
}
