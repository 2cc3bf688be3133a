//! Rows of floats inside a buffer: `f32`, or one of the half-precision types, whose values are all values of `f32`.

use std::borrow::Cow;

use half::{bf16, f16};

use super::buffer::Element;
use super::{Backend, BackendError, Buffer};

/// What stages that take rows in any of the types say they expect.
pub(super) const FLOATS: &str = "f32, f16 or bf16";

/// `rows` rows of `dim` floats inside a buffer: row `i` starts at `offset + i * stride`.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Where the rows live: `f32`, for `encode` also `f16` or `bf16`.
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
        Self::side_by_side(data.into(), rows, dim)
    }

    /// Dense rows of any float type, wherever they live: `Rows::side_by_side(vec![f16::ONE; 6].into(), 2, 3)`. Errors if
    /// the length is not `rows * dim`.
    pub fn side_by_side(buffer: Buffer, rows: usize, dim: usize) -> Result<Self, BackendError> {
        let expected = rows.saturating_mul(dim);
        if buffer.len() != expected {
            return Err(BackendError::WrongLength { what: "rows", expected, found: buffer.len() });
        }
        Ok(Self { buffer, offset: 0, stride: dim, rows, dim })
    }

    /// The same rows on the host: these where they lie there, else a copy of what `backend` holds.
    ///
    /// # Errors
    /// Those of [`Backend::to_host`].
    pub fn on_host(&self, backend: &dyn Backend) -> Result<Cow<'_, Self>, BackendError> {
        if !matches!(self.buffer, Buffer::Device(_)) {
            return Ok(Cow::Borrowed(self));
        }
        Ok(Cow::Owned(Self { buffer: backend.to_host(self.buffer.clone())?, ..*self }))
    }

    /// Row `i` of rows of `f32` on the host.
    pub fn row(&self, i: usize) -> Result<&[f32], BackendError> {
        self.part(self.buffer.as_f32()?, i)
    }

    /// Row `i` on the host as `f32`: the row itself, or an exact copy of one of half precision.
    pub fn widened(&self, i: usize) -> Result<Cow<'_, [f32]>, BackendError> {
        fn copy<T: Real>(row: &[T]) -> Cow<'_, [f32]> {
            row.iter().map(|v| v.widen()).collect()
        }
        match &self.buffer {
            Buffer::HostF32(v) => self.part(v, i).map(Cow::Borrowed),
            Buffer::HostF16(v) => self.part(v, i).map(copy),
            Buffer::HostBf16(v) => self.part(v, i).map(copy),
            other => Err(not_floats(other)),
        }
    }

    /// All rows on the host, as they are.
    pub(super) fn slices(&self) -> Result<RowSlices<'_>, BackendError> {
        Ok(match &self.buffer {
            Buffer::HostF32(v) => RowSlices::F32(self.parts(v)?),
            Buffer::HostF16(v) => RowSlices::F16(self.parts(v)?),
            Buffer::HostBf16(v) => RowSlices::Bf16(self.parts(v)?),
            other => return Err(not_floats(other)),
        })
    }

    fn parts<'a, T>(&self, data: &'a [T]) -> Result<Vec<&'a [T]>, BackendError> {
        (0..self.rows).map(|i| self.part(data, i)).collect()
    }

    /// Row `i` of the buffer's elements.
    fn part<'a, T>(&self, data: &'a [T], i: usize) -> Result<&'a [T], BackendError> {
        let start = self.offset + i * self.stride;
        data.get(start..start + self.dim).ok_or(BackendError::WrongLength {
            what: "row",
            expected: start + self.dim,
            found: data.len(),
        })
    }
}

/// Why a buffer holds no rows of floats on the host.
fn not_floats(found: &Buffer) -> BackendError {
    match found {
        Buffer::Device(v) if v.element().is_float() => found.refused(v.element().name()),
        other => other.refused(FLOATS),
    }
}

/// Rows on the host, in the type that they have.
#[derive(Debug)]
pub(super) enum RowSlices<'a> {
    /// 32 bits.
    F32(Vec<&'a [f32]>),
    /// Half precision.
    F16(Vec<&'a [f16]>),
    /// The upper halves of 32 bits.
    Bf16(Vec<&'a [bf16]>),
}

/// An element type of rows. All its values are values of `f32`.
pub(super) trait Real: Element + Send + Sync {
    /// The same value.
    fn widen(self) -> f32;
}

impl Real for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Real for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Real for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_in_every_type() {
        let data = [9.0, 1.0, 2.0, 9.0, 3.0, 4.0];
        let buffers: [Buffer; 3] =
            [data.to_vec().into(), data.map(f16::from_f32).to_vec().into(), data.map(bf16::from_f32).to_vec().into()];
        for buffer in buffers {
            let rows = Rows { buffer, offset: 1, stride: 3, rows: 2, dim: 2 };
            assert_eq!((&*rows.widened(0).unwrap(), &*rows.widened(1).unwrap()), (&[1.0, 2.0][..], &[3.0, 4.0][..]));
            assert!(rows.slices().is_ok());
            let error = rows.widened(2).unwrap_err();
            assert_eq!(error, BackendError::WrongLength { what: "row", expected: 9, found: 6 });
        }
        let error = Rows::side_by_side(vec![1u32; 6].into(), 2, 3).unwrap().slices().unwrap_err();
        assert_eq!(error, BackendError::WrongType { expected: FLOATS, found: "u32" });
        assert!(Rows::side_by_side(vec![f16::ONE; 6].into(), 2, 4).is_err());
    }
}
