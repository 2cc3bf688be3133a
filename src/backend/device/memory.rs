//! Buffers of a device, and the way there and back.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::Pod;
use zeroize::Zeroizing;

use super::{Access, DeviceBackend, Kernel, Launch, Memory, Slice};
use crate::backend::buffer::Element;
use crate::backend::rows::FLOATS;
use crate::backend::{Aligned, Backend, BackendError, Buffer};
use crate::math::prg::{Cipher, StreamKey};

/// The element types of a [`Buffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit floats.
    F32,
    /// Signed integers.
    I32,
    /// Residues.
    U32,
    /// Floats of half precision, two a word, the first in the lower half.
    F16,
    /// The upper halves of 32-bit floats, likewise.
    Bf16,
}

impl ElementType {
    /// The name in errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// True for the types that rows may have.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Elements of a word.
    #[must_use]
    pub const fn per_word(self) -> u64 {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 1,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Words that hold `len` elements.
    #[must_use]
    pub const fn words(self, len: u64) -> u64 {
        len.div_ceil(self.per_word())
    }
}

/// Elements in memory of a device. A clone shares the memory until one of the two is written.
#[derive(Clone, Debug)]
pub struct DeviceBuffer {
    memory: Memory,
    offset: u64,
    len: usize,
    element: ElementType,
}

/// The same elements of the same memory: values are compared on the host.
impl PartialEq for DeviceBuffer {
    fn eq(&self, other: &Self) -> bool {
        let place = |x: &Self| (x.offset, x.len, x.element);
        self.memory.same(&other.memory) && place(self) == place(other)
    }
}

impl DeviceBuffer {
    /// `len` elements of `memory` from word `offset` on. Errors: beyond its end.
    pub fn new(memory: Memory, offset: u64, len: usize, element: ElementType) -> Result<Self, BackendError> {
        let end = offset.saturating_add(element.words(len as u64));
        if end > memory.words() {
            let (expected, found) = (end as usize, memory.words() as usize);
            return Err(BackendError::WrongLength { what: "memory of the device", expected, found });
        }
        Ok(Self { memory, offset, len, element })
    }

    /// Number of elements.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True without elements.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element type.
    #[must_use]
    pub const fn element(&self) -> ElementType {
        self.element
    }

    /// The number of the device.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.memory.device()
    }

    /// All elements, for a launch.
    #[must_use]
    pub fn slice(&self) -> Slice<'_> {
        Slice { memory: &self.memory, offset: self.offset, words: self.element.words(self.len as u64) }
    }

    /// The words of the elements `[start, start + len)`, for a launch (within the limits of the device); `start` is the
    /// first of its word.
    #[must_use]
    pub fn part(&self, start: u64, len: u64) -> Slice<'_> {
        self.slice().part(start / self.element.per_word(), self.element.words(len))
    }

    /// The same words read as another element type: of one of another size, all that they hold.
    #[must_use]
    pub fn cast(self, element: ElementType) -> Self {
        let same = self.element.per_word() == element.per_word();
        let len = if same { self.len } else { (self.slice().words * element.per_word()) as usize };
        Self { element, len, ..self }
    }
}

/// Words that a key takes in the memory of a device: 8 of the key, the number of rounds (8 or 20), 3 zeros.
pub(super) const KEY_WORDS: usize = 12;

impl DeviceBackend {
    /// `len` zeros on the device.
    pub(super) fn zeros(&self, len: usize, element: ElementType) -> Result<DeviceBuffer, BackendError> {
        DeviceBuffer::new(self.device().alloc(room(len, element), false)?, 0, len, element)
    }

    /// `len` elements on the device, of which each is written before it is read.
    pub(super) fn unset(&self, len: usize, element: ElementType) -> Result<DeviceBuffer, BackendError> {
        DeviceBuffer::new(self.device().alloc_unset(room(len, element))?, 0, len, element)
    }

    /// The buffer on this device: itself, or a copy of what is on the host. Errors: a buffer of another device.
    pub(super) fn placed<'a>(&self, x: &'a Buffer) -> Result<Cow<'a, DeviceBuffer>, BackendError> {
        match x {
            Buffer::Device(x) if x.device() != self.device().id() => {
                Err(BackendError::WrongPlace { found: "another device".into(), expected: self.describe() })
            }
            // A kernel's slice begins on a boundary; memory made elsewhere may not.
            Buffer::Device(x) if !x.offset.is_multiple_of(self.device().limits().align_words) => {
                self.copied(x).map(Cow::Owned)
            }
            Buffer::Device(x) => Ok(Cow::Borrowed(x)),
            Buffer::HostF32(v) => self.uploaded(v, ElementType::F32).map(Cow::Owned),
            Buffer::HostI32(v) => self.uploaded(v, ElementType::I32).map(Cow::Owned),
            Buffer::HostU32(v) => self.uploaded(v, ElementType::U32).map(Cow::Owned),
            Buffer::HostF16(v) => self.uploaded(v, ElementType::F16).map(Cow::Owned),
            Buffer::HostBf16(v) => self.uploaded(v, ElementType::Bf16).map(Cow::Owned),
        }
    }

    /// [`Self::placed`] for a stage that takes one element type.
    pub(super) fn placed_as<'a>(
        &self,
        x: &'a Buffer,
        element: ElementType,
    ) -> Result<Cow<'a, DeviceBuffer>, BackendError> {
        expect(x, element)?;
        self.placed(x)
    }

    /// [`Self::placed`] for a stage that takes rows of any of the float types.
    pub(super) fn placed_rows<'a>(&self, x: &'a Buffer) -> Result<Cow<'a, DeviceBuffer>, BackendError> {
        if [ElementType::F32, ElementType::F16, ElementType::Bf16].iter().any(|e| e.name() == x.dtype()) {
            self.placed(x)
        } else {
            Err(BackendError::WrongType { expected: FLOATS, found: x.dtype() })
        }
    }

    fn uploaded<T: Element>(&self, x: &Aligned<T>, element: ElementType) -> Result<DeviceBuffer, BackendError> {
        let buffer = self.zeros(x.len(), element)?;
        if !x.is_empty() {
            self.device().write(&buffer.memory, 0, x.words())?;
        }
        Ok(buffer)
    }

    /// A copy in memory of its own.
    pub(super) fn copied(&self, x: &DeviceBuffer) -> Result<DeviceBuffer, BackendError> {
        let copy = self.zeros(x.len, x.element)?;
        if !x.is_empty() {
            self.device().copy(&x.slice(), &copy.slice())?;
        }
        Ok(copy)
    }

    /// Runs `stage` on `x` in place: on the device if it lives there (on a copy if others share it), else on an
    /// uploaded copy that is read back. After an error a buffer of the host is as it was, unless the device failed while it
    /// was read: a part of the result may be there then.
    pub(super) fn in_place<T>(
        &self,
        x: &mut Buffer,
        element: ElementType,
        stage: impl FnOnce(&DeviceBuffer) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        expect(x, element)?;
        let Buffer::Device(there) = x else {
            let placed = self.placed(x)?.into_owned();
            let result = stage(&placed)?;
            self.read_into(&placed, host_words(x))?;
            return Ok(result);
        };
        let aligned = there.offset.is_multiple_of(self.device().limits().align_words);
        if there.device() == self.device().id() && !(there.memory.writable() && aligned) {
            *there = self.copied(there)?;
        }
        self.placed(x).and_then(|x| stage(&x))
    }

    /// A copy on the host. Waits for the device.
    pub(super) fn read(&self, x: &DeviceBuffer) -> Result<Buffer, BackendError> {
        Ok(match x.element {
            ElementType::F32 => Buffer::HostF32(self.elements(x)?),
            ElementType::I32 => Buffer::HostI32(self.elements(x)?),
            ElementType::U32 => Buffer::HostU32(self.elements(x)?),
            ElementType::F16 => Buffer::HostF16(self.elements(x)?),
            ElementType::Bf16 => Buffer::HostBf16(self.elements(x)?),
        })
    }

    /// The elements of `x`, of the size of `T`, on the host. Waits for the device.
    pub(super) fn elements<T: Element>(&self, x: &DeviceBuffer) -> Result<Aligned<T>, BackendError> {
        let mut out = Aligned::<T>::zeroed(x.len);
        self.read_into(x, out.words_mut())?;
        Ok(out)
    }

    fn read_into(&self, x: &DeviceBuffer, out: &mut [u32]) -> Result<(), BackendError> {
        if out.is_empty() {
            return Ok(());
        }
        self.device().read(&x.memory, x.offset, out)
    }

    /// Keys in memory that is wiped when it is dropped: [`KEY_WORDS`] words each, in order.
    pub(super) fn keys(&self, keys: &[&StreamKey]) -> Result<Memory, BackendError> {
        // Allocated at once: growing would leave copies behind that nobody wipes.
        let mut words = Zeroizing::new(vec![0u32; KEY_WORDS * keys.len().max(1)]);
        for (key, words) in keys.iter().zip(words.chunks_exact_mut(KEY_WORDS)) {
            let mut one = Zeroizing::new([0u32; 8]);
            key.write_words(&mut one);
            words[..8].copy_from_slice(&*one);
            words[8] = match key.cipher() {
                Cipher::ChaCha20 => 20,
                Cipher::ChaCha8 => 8,
            };
        }
        let memory = self.device().alloc(words.len() as u64, true)?;
        self.device().write(&memory, 0, &words)?;
        Ok(memory)
    }

    /// Enqueues `groups` groups of `kernel`; none is no launch.
    pub(super) fn launch(
        &self,
        kernel: &'static Kernel,
        groups: u64,
        params: &impl Pod,
        slices: &[Slice<'_>],
    ) -> Result<(), BackendError> {
        if groups == 0 {
            return Ok(());
        }
        self.device().launch(&Launch { kernel, groups, params: bytemuck::bytes_of(params), slices })
    }

    /// Ranges of `rows` rows of `words` words each, for launches whose slices keep to the limits: they start on
    /// boundaries and are as long as they may be. Errors: a row that is too long, or rows that meet no boundary.
    pub(super) fn pieces(&self, rows: u64, words: u64) -> Result<impl Iterator<Item = Range<u64>>, BackendError> {
        let limits = self.device().limits();
        let fit = limits.max_slice_words / words.max(1);
        // Rows between two boundaries: a power of two, since the alignment is one.
        let step = limits.align_words >> words.trailing_zeros().min(limits.align_words.trailing_zeros());
        let piece = if rows <= fit { rows.max(1) } else { fit - fit % step };
        if piece == 0 {
            let (what, most) = ("a row, or what lies between two boundaries,", limits.max_slice_words);
            return Err(BackendError::TooLong { what, words: words.saturating_mul(step.max(1)), most });
        }
        Ok((0..rows.div_ceil(piece)).map(move |i| i * piece..rows.min((i + 1) * piece)))
    }
}

/// Words of the memory for `len` elements: rounded up, so that a kernel may read and write whole vectors of four.
fn room(len: usize, element: ElementType) -> u64 {
    element.words(len as u64).next_multiple_of(4).max(4)
}

/// Checks the element type.
fn expect(x: &Buffer, element: ElementType) -> Result<(), BackendError> {
    if x.dtype() == element.name() {
        Ok(())
    } else {
        Err(BackendError::WrongType { expected: element.name(), found: x.dtype() })
    }
}

/// The words of a buffer on the host; none of one on a device.
fn host_words(x: &mut Buffer) -> &mut [u32] {
    match x {
        Buffer::HostF32(v) => v.words_mut(),
        Buffer::HostI32(v) => v.words_mut(),
        Buffer::HostU32(v) => v.words_mut(),
        Buffer::HostF16(v) => v.words_mut(),
        Buffer::HostBf16(v) => v.words_mut(),
        Buffer::Device(_) => &mut [],
    }
}

/// A kernel that changes one buffer.
pub(super) const IN_PLACE: &[Access] = &[Access::ReadWrite];
