//! Memory of a backend. On the host: vectors whose first element lies on a 64-byte boundary, so that no
//! vector load of a kernel crosses a cache line.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use super::BackendError;
use super::device::{DeviceBuffer, ElementType};

/// One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([u32; LINE]);

/// Words of a cache line.
const LINE: usize = 16;

/// Elements of a cache line.
const fn per_line<T>() -> usize {
    size_of::<Line>() / size_of::<T>()
}

/// A growable array of elements of 32 or 16 bits on a 64-byte boundary; reads and writes as a slice.
#[derive(Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

/// The element types of a [`Buffer`], of 32 or 16 bits.
pub trait Element: Pod {}
impl Element for f32 {}
impl Element for i32 {}
impl Element for u32 {}
impl Element for f16 {}
impl Element for bf16 {}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, elements: PhantomData }
    }
}

impl<T: Element> Aligned<T> {
    /// `len` zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self { lines: bytemuck::allocation::zeroed_vec(len.div_ceil(per_line::<T>())), len, elements: PhantomData }
    }

    /// The same memory read as another element type: of one of another size, as many as hold all that is here.
    #[must_use]
    pub fn cast<U: Element>(self) -> Aligned<U> {
        let len = (self.len * size_of::<T>()).div_ceil(size_of::<U>());
        Aligned { lines: self.lines, len, elements: PhantomData }
    }

    /// The words that hold the elements. Of an odd number of halves the last word has one more, whatever it is.
    pub(super) fn words(&self) -> &[u32] {
        &bytemuck::cast_slice(&self.lines)[..(self.len * size_of::<T>()).div_ceil(4)]
    }

    /// The same, writable.
    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..(self.len * size_of::<T>()).div_ceil(4)]
    }

    /// Makes the length `len`; what is new is zero, what was there stays.
    pub fn resize(&mut self, len: usize) {
        if self.lines.is_empty() {
            *self = Self::zeroed(len);
        } else if len > self.len {
            let (old, used) = (self.len, self.lines.len() * per_line::<T>());
            bytemuck::cast_slice_mut::<_, T>(&mut self.lines)[old..len.min(used)].fill(T::zeroed());
            self.lines.resize(len.div_ceil(per_line::<T>()), Line::zeroed());
        }
        self.len = len;
    }

    /// Removes all elements and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Appends elements.
    pub fn extend_from_slice(&mut self, more: &[T]) {
        let old = self.len;
        self.resize(old + more.len());
        self[old..].copy_from_slice(more);
    }
}

impl<T: Element> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Element> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T: Element> From<&[T]> for Aligned<T> {
    fn from(x: &[T]) -> Self {
        let mut out = Self::default();
        out.extend_from_slice(x);
        out
    }
}

impl<T: Element> From<Vec<T>> for Aligned<T> {
    fn from(x: Vec<T>) -> Self {
        Self::from(&x[..])
    }
}

impl<T: Element> FromIterator<T> for Aligned<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        Self::from(iter.into_iter().collect::<Vec<T>>())
    }
}

impl<T: Element + PartialEq> PartialEq for Aligned<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Element + fmt::Debug> fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Memory of one backend. Host backends share aligned vectors; two buffers of a device are equal if they are the same
/// memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// 32-bit floats on the host.
    HostF32(Aligned<f32>),
    /// Fixed-point coordinates on the host.
    HostI32(Aligned<i32>),
    /// Residues mod `2^b`, one a word, on the host.
    HostU32(Aligned<u32>),
    /// Floats of half precision (IEEE 754 binary16) on the host: rows for `encode`.
    HostF16(Aligned<f16>),
    /// The upper halves of 32-bit floats on the host: rows for `encode`.
    HostBf16(Aligned<bf16>),
    /// Elements of one of the five types on a device.
    Device(DeviceBuffer),
}

impl Buffer {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::HostF32(v) => v.len(),
            Self::HostI32(v) => v.len(),
            Self::HostU32(v) => v.len(),
            Self::HostF16(v) => v.len(),
            Self::HostBf16(v) => v.len(),
            Self::Device(v) => v.len(),
        }
    }

    /// True without elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the element type, for errors.
    #[must_use]
    pub const fn dtype(&self) -> &'static str {
        match self {
            Self::HostF32(_) => "f32",
            Self::HostI32(_) => "i32",
            Self::HostU32(_) => "u32",
            Self::HostF16(_) => "f16",
            Self::HostBf16(_) => "bf16",
            Self::Device(v) => v.element().name(),
        }
    }

    /// Why this is no slice of `expected` on the host.
    pub(super) fn refused(&self, expected: &'static str) -> BackendError {
        match self {
            Self::Device(v) if v.element().name() == expected => {
                BackendError::WrongPlace { found: "a device".into(), expected: "the host: download it first".into() }
            }
            other => BackendError::WrongType { expected, found: other.dtype() },
        }
    }

    /// The same memory read as words: the bits of an element each, or of two halves.
    #[must_use]
    pub fn into_bits(self) -> Self {
        match self {
            Self::HostF32(v) => Self::HostU32(v.cast()),
            Self::HostI32(v) => Self::HostU32(v.cast()),
            Self::HostU32(v) => Self::HostU32(v),
            Self::HostF16(v) => Self::HostU32(v.cast()),
            Self::HostBf16(v) => Self::HostU32(v.cast()),
            Self::Device(v) => Self::Device(v.cast(ElementType::U32)),
        }
    }

    /// The floats, or an error that names the type found.
    pub fn as_f32(&self) -> Result<&[f32], BackendError> {
        match self {
            Self::HostF32(v) => Ok(v),
            other => Err(other.refused("f32")),
        }
    }

    /// The fixed-point integers, or an error that names the type found.
    pub fn as_i32(&self) -> Result<&[i32], BackendError> {
        match self {
            Self::HostI32(v) => Ok(v),
            other => Err(other.refused("i32")),
        }
    }

    /// The residues, or an error that names the type found.
    pub fn as_u32(&self) -> Result<&[u32], BackendError> {
        match self {
            Self::HostU32(v) => Ok(v),
            other => Err(other.refused("u32")),
        }
    }

    /// The residues themselves; an empty vector stays.
    pub(crate) fn take_u32(&mut self) -> Result<Aligned<u32>, BackendError> {
        match self {
            Self::HostU32(v) => Ok(std::mem::take(v)),
            other => Err(other.refused("u32")),
        }
    }

    /// The floats themselves; an empty vector stays.
    pub(crate) fn take_f32(&mut self) -> Result<Aligned<f32>, BackendError> {
        match self {
            Self::HostF32(v) => Ok(std::mem::take(v)),
            other => Err(other.refused("f32")),
        }
    }

    /// The floats, writable.
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32], BackendError> {
        match self {
            Self::HostF32(v) => Ok(v),
            other => Err(other.refused("f32")),
        }
    }

    /// The residues, writable.
    pub fn as_u32_mut(&mut self) -> Result<&mut [u32], BackendError> {
        match self {
            Self::HostU32(v) => Ok(v),
            other => Err(other.refused("u32")),
        }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(x: Vec<f32>) -> Self {
        Self::HostF32(x.into())
    }
}

impl From<Vec<i32>> for Buffer {
    fn from(x: Vec<i32>) -> Self {
        Self::HostI32(x.into())
    }
}

impl From<Vec<u32>> for Buffer {
    fn from(x: Vec<u32>) -> Self {
        Self::HostU32(x.into())
    }
}

impl From<Vec<f16>> for Buffer {
    fn from(x: Vec<f16>) -> Self {
        Self::HostF16(x.into())
    }
}

impl From<Vec<bf16>> for Buffer {
    fn from(x: Vec<bf16>) -> Self {
        Self::HostBf16(x.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_lies_on_a_cache_line_and_growth_adds_zeros() {
        let mut x: Aligned<u32> = (0..5).collect();
        for round in 0..40 {
            assert_eq!(x.as_ptr() as usize % 64, 0);
            x.extend_from_slice(&[7; 3]);
            assert_eq!(x.len(), 5 + 3 * (round + 1));
        }
        assert_eq!(x[..6], [0, 1, 2, 3, 4, 7]);
        x.resize(2);
        x.resize(200);
        assert_eq!(x[..3], [0, 1, 0]);
        assert!(x[2..].iter().all(|&v| v == 0));
        x.clear();
        assert!(x.is_empty() && Aligned::<f32>::zeroed(0).is_empty());
        assert_eq!(Aligned::from(vec![1.0f32]).cast::<u32>()[..], [0x3f80_0000]);
    }

    #[test]
    fn two_halves_share_a_word() {
        let mut x: Aligned<f16> = vec![f16::ONE, -f16::ONE, f16::from_bits(1)].into();
        assert_eq!((x.as_ptr() as usize % 64, x.words()), (0, &[0xbc00_3c00, 1][..]));
        x.resize(70);
        assert_eq!(x[2..4], [f16::from_bits(1), f16::ZERO]);
        assert!(x[3..].iter().all(|&v| v == f16::ZERO));
        x.clear();
        x.extend_from_slice(&[f16::ONE; 3]);
        x.resize(35);
        assert_eq!(x[..4], [f16::ONE, f16::ONE, f16::ONE, f16::ZERO]);
        assert_eq!(x.cast::<u32>().len(), 18);
        let x = Buffer::from(vec![bf16::ONE; 3]);
        assert_eq!((x.len(), x.dtype()), (3, "bf16"));
        assert_eq!(x.into_bits(), Buffer::from(vec![0x3f80_3f80u32, 0x3f80]));
        assert_eq!(Buffer::from(vec![f16::ONE; 4]).as_f32().unwrap_err().to_string(), "buffer holds f16, expected f32");
    }
}
