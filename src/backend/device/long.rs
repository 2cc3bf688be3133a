//! Rows that are too long for one slice of the device: they are taken one by one, and each in columns.

use super::{DeviceBackend, DeviceBuffer, ElementType, Slice, encode};
use crate::backend::{BackendError, Buffer, EncodeJob, EncodeReport, Rows, check};

/// Half of `encode`, or all of it.
type Verb = fn(&DeviceBackend, &Rows, &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError>;

/// A copy of row `row` of `len` elements in memory of its own, which starts on a boundary.
pub(super) fn taken(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    row: u64,
    len: u64,
) -> Result<DeviceBuffer, BackendError> {
    let own = backend.zeros(len as usize, x.element())?;
    backend.device().copy(&x.part(row * len, len), &own.slice())?;
    Ok(own)
}

/// Results of rows, put together.
struct Gathered {
    all: Option<DeviceBuffer>,
    rows: usize,
    report: EncodeReport,
}

impl Gathered {
    const fn new(rows: usize) -> Self {
        Self {
            all: None,
            rows,
            report: EncodeReport { zeroed: 0, clipped: 0, clip_ratio_sum: 0.0, norm_sum: 0.0, linf_hits: 0 },
        }
    }

    fn put(&mut self, backend: &DeviceBackend, row: usize, one: (Buffer, EncodeReport)) -> Result<(), BackendError> {
        let (found, report) = one;
        self.report.merge(&report);
        let found = backend.placed(&found)?;
        let all = match self.all.take() {
            Some(all) => all,
            None => backend.zeros(self.rows * found.len(), found.element())?,
        };
        let len = found.len() as u64;
        backend.device().copy(&found.slice(), &all.part(row as u64 * len, len))?;
        self.all = Some(all);
        Ok(())
    }

    fn whole(self, backend: &DeviceBackend, element: ElementType) -> Result<(Buffer, EncodeReport), BackendError> {
        let all = self.all.map_or_else(|| backend.zeros(0, element), Ok)?;
        Ok((Buffer::Device(all), self.report))
    }
}

/// `verb` of every row alone.
pub(super) fn each_row(
    backend: &DeviceBackend,
    rows: &Rows,
    from: &DeviceBuffer,
    job: &EncodeJob<'_>,
    verb: Verb,
) -> Result<(Buffer, EncodeReport), BackendError> {
    check::rows_shape(rows, job)?;
    let mut gathered = Gathered::new(rows.rows);
    for (i, keys) in job.keys.chunks(1).enumerate() {
        let (buffer, offset) = (Buffer::Device(from.clone()), rows.offset + i * rows.stride);
        let row = Rows { buffer, offset, stride: rows.stride, rows: 1, dim: rows.dim };
        let one = verb(backend, &row, &EncodeJob { keys, ..*job }).map_err(|error| match error {
            BackendError::NonFinite { coordinate, .. } => BackendError::NonFinite { row: i, coordinate },
            other => other,
        })?;
        gathered.put(backend, i, one)?;
    }
    gathered.whole(backend, ElementType::U32)
}

/// The integer half of `encode`, of every row alone.
pub(super) fn each_integer_row(
    backend: &DeviceBackend,
    fixed: &DeviceBuffer,
    job: &EncodeJob<'_>,
) -> Result<(Buffer, EncodeReport), BackendError> {
    let mut gathered = Gathered::new(job.keys.len());
    for (i, keys) in job.keys.chunks(1).enumerate() {
        let row = Buffer::Device(taken(backend, fixed, i as u64, job.params.padded.into())?);
        gathered.put(backend, i, encode::integer(backend, &row, &EncodeJob { keys, ..*job })?)?;
    }
    gathered.whole(backend, ElementType::U32)
}

/// Adds rows to an accumulator that is too long for a slice: `add` gets a number of columns, which are multiples of `unit`
/// apart, and the slices of both.
pub(super) fn sum(
    backend: &DeviceBackend,
    (acc, rows): (&DeviceBuffer, &DeviceBuffer),
    unit: u64,
    add: impl Fn(u64, [Slice<'_>; 2]) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let (len, align) = (acc.len() as u64, backend.device().limits().align_words);
    for row in 0..rows.len() as u64 / len {
        for columns in backend.spans(len, unit)? {
            let (start, width) = (columns.start, columns.end - columns.start);
            let there = rows.part(row * len + start, width);
            let to = acc.part(start, width);
            if there.offset.is_multiple_of(align) {
                add(width, [to, there])?;
            } else {
                // A slice starts on a boundary.
                let own = backend.zeros(width as usize, ElementType::U32)?;
                backend.device().copy(&there, &own.slice())?;
                add(width, [to, own.slice()])?;
            }
        }
    }
    Ok(())
}
