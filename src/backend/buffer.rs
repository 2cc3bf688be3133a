//! Memory of a backend. On the host: vectors whose first element lies on a 64-byte boundary, so that no
//! vector load of a kernel crosses a cache line.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};

use super::BackendError;
use super::device::{DeviceBuffer, ElementType};

/// One cache line.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Line([u32; LINE]);

/// Words of a cache line.
const LINE: usize = 16;

/// A growable array of 32-bit elements on a 64-byte boundary; reads and writes as a slice.
#[derive(Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<T>,
}

/// The 32-bit element types of a [`Buffer`].
pub trait Element: Pod {}
impl Element for f32 {}
impl Element for i32 {}
impl Element for u32 {}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, elements: PhantomData }
    }
}

impl<T: Element> Aligned<T> {
    /// `len` zeros.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self { lines: bytemuck::allocation::zeroed_vec(len.div_ceil(LINE)), len, elements: PhantomData }
    }

    /// The same memory read as another element type.
    #[must_use]
    pub fn cast<U: Element>(self) -> Aligned<U> {
        Aligned { lines: self.lines, len: self.len, elements: PhantomData }
    }

    /// Makes the length `len`; what is new is zero, what was there stays.
    pub fn resize(&mut self, len: usize) {
        if self.lines.is_empty() {
            *self = Self::zeroed(len);
        } else if len > self.len {
            let (old, used) = (self.len, self.lines.len() * LINE);
            bytemuck::cast_slice_mut::<_, u32>(&mut self.lines)[old..len.min(used)].fill(0);
            self.lines.resize(len.div_ceil(LINE), Line::zeroed());
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
    /// Elements of one of the three types on a device.
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
            Self::Device(v) => v.element().name(),
        }
    }

    /// Why this is no slice of `expected` on the host.
    fn refused(&self, expected: &'static str) -> BackendError {
        match self {
            Self::Device(v) if v.element().name() == expected => {
                BackendError::WrongPlace { found: "a device".into(), expected: "the host: download it first".into() }
            }
            other => BackendError::WrongType { expected, found: other.dtype() },
        }
    }

    /// The same memory, each element read as a word of its bits.
    #[must_use]
    pub fn into_bits(self) -> Self {
        match self {
            Self::HostF32(v) => Self::HostU32(v.cast()),
            Self::HostI32(v) => Self::HostU32(v.cast()),
            Self::HostU32(v) => Self::HostU32(v),
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

/// `rows` rows of `dim` floats inside a buffer: row `i` starts at `offset + i * stride`.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Where the rows live.
    pub buffer: Buffer,
    /// Element index of the first row.
    pub offset: usize,
    /// Elements between the starts of two rows, `>= dim`.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Coordinates a row.
    pub dim: usize,
}

impl Rows {
    /// Dense rows on the host. Errors if the length is not `rows * dim`.
    pub fn dense(data: Vec<f32>, rows: usize, dim: usize) -> Result<Self, BackendError> {
        let expected = rows * dim;
        if data.len() != expected {
            return Err(BackendError::WrongLength { what: "rows", expected, found: data.len() });
        }
        Ok(Self { buffer: data.into(), offset: 0, stride: dim, rows, dim })
    }

    /// Row `i` on the host.
    pub fn row(&self, i: usize) -> Result<&[f32], BackendError> {
        let start = self.offset + i * self.stride;
        let data = self.buffer.as_f32()?;
        data.get(start..start + self.dim).ok_or(BackendError::WrongLength {
            what: "row",
            expected: start + self.dim,
            found: data.len(),
        })
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
}
