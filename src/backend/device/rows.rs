//! Rows in memory of a device: launches that keep to its limits, and the records that kernels leave of a row.

use std::ops::Range;

use super::{DeviceBackend, DeviceBuffer, ElementType, Memory, Slice};
use crate::backend::{BackendError, bf16, f16};
use crate::params::element_kind;

/// Elements of a row that one group of the kernels of `clip` and `encode` takes.
pub(super) const CHUNK: u64 = 4096;
/// Words of a chunk's part of a norm.
const PART_WORDS: u64 = 4;
/// Words of a row's record: `STATE_WORDS` of the kernels.
const STATE_WORDS: usize = 8;
/// Most elements that a launch indexes: their numbers fit 32 bits.
const MOST_ELEMENTS: u64 = 1 << 31;

/// Where rows lie in a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Number of rows.
    pub(super) rows: u64,
    /// Elements a row.
    pub(super) dim: u64,
    /// Elements between the starts of two rows.
    pub(super) stride: u64,
    /// Element at which the first row starts.
    pub(super) offset: u64,
    /// What the elements are.
    pub(super) element: ElementType,
}

impl Layout {
    /// The type in the parameters of a launch.
    pub(super) const fn kind(&self) -> u32 {
        match self.element {
            ElementType::F16 => element_kind::F16,
            ElementType::Bf16 => element_kind::BF16,
            ElementType::F32 | ElementType::I32 | ElementType::U32 => element_kind::F32,
        }
    }
}

/// What one launch takes of rows side by side: whole rows, or columns of the only row, which is too long for a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Which rows.
    pub(super) rows: Range<u64>,
    /// Which of their elements.
    pub(super) columns: Range<u64>,
}

impl Tile {
    /// How many rows.
    pub(super) fn count(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    /// Elements of each.
    pub(super) fn width(&self) -> u64 {
        self.columns.end - self.columns.start
    }

    /// The slice of `x`, whose rows have `len` elements.
    pub(super) fn slice<'a>(&self, x: &'a DeviceBuffer, len: u64) -> Slice<'a> {
        x.part(self.rows.start * len + self.columns.start, self.count() * self.width())
    }
}

/// The parts of norms from that of column `start` of the first row on.
pub(super) fn parts_from(parts: &Memory, start: u64) -> Slice<'_> {
    let skipped = start / CHUNK * PART_WORDS;
    parts.all().part(skipped, parts.words() - skipped)
}

/// The rows of one launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Which rows.
    pub(super) rows: Range<u64>,
    /// Which elements of the longer of an input and an output row: all, but for a row that is too long for a slice.
    pub(super) columns: Range<u64>,
    /// First element of the slice that holds them, on a boundary.
    start: u64,
    /// Elements of that slice.
    len: u64,
    /// Element of the slice at which the first row starts.
    pub(super) offset: u32,
}

impl Batch {
    /// How many rows.
    pub(super) fn len(&self) -> u64 {
        self.rows.end - self.rows.start
    }

    /// Those of the columns that rows of `len` elements have.
    pub(super) fn width(&self, len: u64) -> u64 {
        self.columns.end.min(len) - self.columns.start.min(len)
    }

    /// The slice of `x`.
    pub(super) fn slice<'a>(&self, x: &'a DeviceBuffer) -> Slice<'a> {
        x.part(self.start, self.len)
    }
}

/// What the kernels leave of a row, read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowState {
    words: [u32; STATE_WORDS],
}

impl RowState {
    /// False if the row holds NaN or an infinity.
    pub(super) fn finite(&self) -> bool {
        self.words[3] < f32::INFINITY.to_bits()
    }

    /// The L2 norm: `sqrt(N) 2^(E - 158)`, see `shaders/clip.wgsl`.
    pub(super) fn norm(&self) -> f64 {
        let [low, middle, high, largest, ..] = self.words;
        let n = f64::from(high) * 2f64.powi(64) + f64::from(middle) * 2f64.powi(32) + f64::from(low);
        n.sqrt() * 2f64.powi((largest >> 23).max(1) as i32 - 158)
    }

    /// Coordinates that the integer half has clamped.
    pub(super) fn clamped(&self) -> u64 {
        self.words[7].into()
    }
}

/// Number of chunks of a row.
pub(super) const fn chunks(len: u64) -> u64 {
    len.div_ceil(CHUNK)
}

impl DeviceBackend {
    /// Memory for the parts of the norms of rows; they tell of secret rows.
    pub(super) fn parts(&self, rows: u64, len: u64) -> Result<Memory, BackendError> {
        self.device().alloc((rows * chunks(len) * PART_WORDS).max(PART_WORDS), true)
    }

    /// Memory for the records of rows.
    pub(super) fn states(&self, rows: u64) -> Result<Memory, BackendError> {
        self.device().alloc((rows * STATE_WORDS as u64).max(PART_WORDS), true)
    }

    /// The records on the host. Waits for the device.
    pub(super) fn read_states(&self, states: &Memory, rows: u64) -> Result<Vec<RowState>, BackendError> {
        let mut words = vec![0; rows as usize * STATE_WORDS];
        if !words.is_empty() {
            self.device().read(states, 0, &mut words)?;
        }
        Ok(words.as_chunks().0.iter().map(|&words| RowState { words }).collect())
    }

    /// One row on the host. Waits for the device.
    pub(super) fn read_row(&self, x: &DeviceBuffer, layout: &Layout, row: u64) -> Result<Vec<f32>, BackendError> {
        let first = layout.offset + row * layout.stride;
        let (per, skipped) = (layout.element.per_word(), first % layout.element.per_word());
        let mut words = vec![0; layout.element.words(skipped + layout.dim) as usize];
        self.device().read(x.slice().memory, x.slice().offset + first / per, &mut words)?;
        let halves = || words.iter().flat_map(|&w| [w as u16, (w >> 16) as u16]).skip(skipped as usize);
        let mut row: Vec<f32> = match layout.element {
            ElementType::F16 => halves().map(|h| f16::from_bits(h).to_f32()).collect(),
            ElementType::Bf16 => halves().map(|h| bf16::from_bits(h).to_f32()).collect(),
            ElementType::F32 | ElementType::I32 | ElementType::U32 => bytemuck::cast_vec(words),
        };
        row.truncate(layout.dim as usize);
        Ok(row)
    }

    /// True if rows of the layout, or rows of `out` words, are too long for a slice: they are taken one by one then.
    pub(super) fn too_long(&self, layout: &Layout, out: u64) -> bool {
        let limits = self.device().limits();
        let (per, words) = (layout.element.per_word(), limits.max_slice_words.min(MOST_ELEMENTS));
        let most = (words * per).min(MOST_ELEMENTS).saturating_sub(limits.align_words * per);
        layout.dim > most || out > words
    }

    /// The columns of one row of `len` elements in launches: they start where slices of the row, of its signs and of the
    /// parts of its norm may start. Errors: a device whose bindings hold too little.
    fn columns(&self, len: u64) -> Result<impl Iterator<Item = Range<u64>> + use<>, BackendError> {
        let limits = self.device().limits();
        let unit = CHUNK * (limits.align_words / PART_WORDS).max(1);
        let most = limits.max_slice_words.min(MOST_ELEMENTS).saturating_sub(limits.align_words);
        let piece = most - most % unit;
        if piece == 0 {
            return Err(BackendError::TooLong { what: "the least part of a row", words: unit, most });
        }
        Ok((0..len.div_ceil(piece)).map(move |i| i * piece..len.min((i + 1) * piece)))
    }

    /// Rows of `len` elements side by side in launches whose slices keep to the limits. A row that is too long has to be the
    /// only one.
    pub(super) fn tiles(&self, rows: u64, len: u64) -> Result<Vec<Tile>, BackendError> {
        if rows == 1 && len > self.device().limits().max_slice_words.min(MOST_ELEMENTS) {
            return Ok(self.columns(len)?.map(|columns| Tile { rows: 0..1, columns }).collect());
        }
        Ok(self.pieces(rows, len)?.map(|rows| Tile { rows, columns: 0..len }).collect())
    }

    /// The rows in launches whose slices keep to the limits; rows of `out` words side by side start on boundaries where
    /// a launch starts. A row that is too long has to be the only one.
    pub(super) fn batches(&self, layout: &Layout, out: u64) -> Result<Vec<Batch>, BackendError> {
        let whole = layout.dim.max(out);
        if layout.rows == 1 && self.too_long(layout, out) {
            let align = self.device().limits().align_words * layout.element.per_word();
            return Ok(self.columns(whole)?.map(|columns| layout.part(columns, align)).collect());
        }
        let limits = self.device().limits();
        let (align, words) = (limits.align_words, limits.max_slice_words.min(MOST_ELEMENTS));
        let per = layout.element.per_word();
        let most = (words * per).min(MOST_ELEMENTS).saturating_sub(align * per);
        // Rows between two boundaries of the output.
        let step = align >> out.trailing_zeros().min(align.trailing_zeros());
        let within = if most < layout.dim { 0 } else { (most - layout.dim) / layout.stride.max(1) + 1 };
        let fit = within.min(words / out.max(1));
        let size = if layout.rows <= fit { layout.rows.max(1) } else { fit - fit % step };
        if size == 0 {
            let (what, taken) = ("what lies of rows between two boundaries", whole.saturating_mul(step));
            return Err(BackendError::TooLong { what, words: taken, most: words });
        }
        Ok((0..layout.rows.div_ceil(size))
            .map(|i| layout.batch(i * size..layout.rows.min((i + 1) * size), whole, align * per))
            .collect())
    }

    /// Ranges of `len` elements for launches, each of which starts at a multiple of `unit` elements and on a boundary.
    pub(super) fn spans(&self, len: u64, unit: u64) -> Result<Vec<Range<u64>>, BackendError> {
        let pieces = self.pieces(len.div_ceil(unit), unit)?;
        Ok(pieces.map(|p| p.start * unit..len.min(p.end * unit)).collect())
    }
}

impl Layout {
    /// Row `i` alone.
    pub(super) const fn row(&self, i: u64) -> Self {
        Self { rows: 1, offset: self.offset + i * self.stride, ..*self }
    }

    /// Columns of the only row.
    fn part(&self, columns: Range<u64>, align: u64) -> Batch {
        let dim = columns.end.min(self.dim) - columns.start.min(self.dim);
        if dim == 0 {
            // Nothing is read: any element does.
            return Batch { rows: 0..1, columns, start: 0, len: 1, offset: 0 };
        }
        let part = Self { dim, offset: self.offset + columns.start, ..*self };
        Batch { columns, ..part.batch(0..1, dim, align) }
    }

    /// A slice may start at multiples of `align` elements; rows have `whole` columns.
    fn batch(&self, rows: Range<u64>, whole: u64, align: u64) -> Batch {
        let first = self.offset + rows.start * self.stride;
        let start = first - first % align;
        let len = first - start + (rows.end - rows.start - 1) * self.stride + self.dim;
        Batch { rows, columns: 0..whole, start, len, offset: (first - start) as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_starts_on_a_boundary_and_holds_its_rows() {
        let layout = Layout { rows: 10, dim: 5, stride: 7, offset: 3, element: ElementType::F32 };
        let batch = layout.batch(9..10, 5, 64);
        assert_eq!(batch, Batch { rows: 9..10, columns: 0..5, start: 64, len: 7, offset: 2 });
        let all = layout.batch(0..10, 5, 64);
        assert_eq!((all.start, all.len, all.offset, all.len()), (0, 3 + 9 * 7 + 5, 3, 10));
    }

    #[test]
    fn a_part_of_a_row_has_the_columns_that_the_input_has() {
        let layout = Layout { rows: 1, dim: 100, stride: 100, offset: 3, element: ElementType::F32 };
        let part = layout.part(64..128, 16);
        assert_eq!(part, Batch { rows: 0..1, columns: 64..128, start: 64, len: 39, offset: 3 });
        assert_eq!((part.width(100), part.width(128)), (36, 64));
        assert_eq!(layout.part(128..192, 16), Batch { rows: 0..1, columns: 128..192, start: 0, len: 1, offset: 0 });
    }

    #[test]
    fn a_record_tells_its_norm() {
        // x = 1: m = 2^23 and E = 127, so that N = 2^46 2^16.
        let one = RowState { words: [0, 1 << 30, 0, 1.0f32.to_bits(), 0, 0, 0, 5] };
        assert_eq!((one.norm(), one.finite(), one.clamped()), (1.0, true, 5));
        let denormal = RowState { words: [1 << 16, 0, 0, 1, 0, 0, 0, 0] };
        assert_eq!(denormal.norm(), f64::from(f32::from_bits(1)));
        assert!(!RowState { words: [0, 0, 0, f32::INFINITY.to_bits(), 0, 0, 0, 0] }.finite());
    }
}
