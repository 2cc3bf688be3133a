//! Plan of the inner products and distances of all pairs.

use super::rows_check::{Strided, check_finite};
use super::select::one_slice;
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel};
use crate::backend::{BackendError, Gram, Rows, check};
use crate::params::GramParams;

/// Columns of a segment.
const SEGMENT: usize = 8192;
/// Rows of a tile of pairs.
const TILE: usize = 16;
/// A distance below this share of `|x|^2 + |y|^2` is summed from the differences: above it, the subtraction
/// leaves all but 16 of the 53 bits.
const CLOSE: f64 = 1.0 / (1u64 << 16) as f64;
/// Most words of partial sums.
const PARTIAL_WORDS: usize = 1 << 26;

const fn kernel(entry: &'static str, shared_words: u32, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "gram", entry, threads: 256, shared_words, params: size_of::<GramParams>(), buffers }
}

/// Two panels of sixteen rows of 33 doubles.
static PRODUCTS: Kernel = kernel("gram_products", 2 * 2 * 16 * 33, &[Access::Read, Access::ReadWrite]);
static DISTANCES: Kernel = kernel("gram_distances", 2 * 256, &[Access::Read, Access::Read, Access::ReadWrite]);
static ADD: Kernel = kernel("gram_add", 0, &[Access::ReadWrite, Access::Read]);

/// The rows on the device.
struct Input<'a> {
    backend: &'a DeviceBackend,
    rows: &'a Rows,
    x: &'a DeviceBuffer,
}

impl Input<'_> {
    fn params(&self, groups: u64, tiles: usize, pairs: usize, first: usize) -> GramParams {
        GramParams {
            groups: groups as u32,
            rows: self.rows.rows as u32,
            dim: self.rows.dim as u32,
            offset: self.rows.offset as u32,
            stride: self.rows.stride as u32,
            tiles: tiles as u32,
            pairs: pairs as u32,
            first: first as u32,
        }
    }

    /// `pairs` sums over all columns, in the order of segments; `partial` enqueues those of segments
    /// `first..first + count`.
    fn summed(
        &self,
        pairs: usize,
        partial: impl Fn(usize, usize, &DeviceBuffer) -> Result<(), BackendError>,
    ) -> Result<Vec<f64>, BackendError> {
        let backend = self.backend;
        let segments = self.rows.dim.div_ceil(SEGMENT);
        let wave = (PARTIAL_WORDS / (2 * pairs)).clamp(1, segments);
        let total = backend.zeros(2 * pairs, ElementType::U32)?;
        let parts = backend.zeros(2 * pairs * wave, ElementType::U32)?;
        for first in (0..segments).step_by(wave) {
            let count = wave.min(segments - first);
            partial(first, count, &parts)?;
            let groups = pairs.div_ceil(256) as u64;
            backend.launch(&ADD, groups, &self.params(groups, count, pairs, first), &[total.slice(), parts.slice()])?;
        }
        backend.doubles(&total)
    }

    /// The lower triangle of inner products.
    fn products(&self) -> Result<Vec<f64>, BackendError> {
        let n = self.rows.rows;
        let (pairs, side) = (n * (n + 1) / 2, n.div_ceil(TILE));
        let tiles = side * (side + 1) / 2;
        self.summed(pairs, |first, count, parts| {
            let groups = (tiles * count) as u64;
            let params = self.params(groups, tiles, pairs, first);
            self.backend.launch(&PRODUCTS, groups, &params, &[self.x.slice(), parts.slice()])
        })
    }

    /// Squared distances of some pairs, from the differences.
    fn distances(&self, pairs: &[[u32; 2]]) -> Result<Vec<f64>, BackendError> {
        let list = self.backend.constant(pairs.as_flattened())?;
        self.summed(pairs.len(), |first, count, parts| {
            let groups = (pairs.len() * count) as u64;
            let params = self.params(groups, 0, pairs.len(), first);
            self.backend.launch(&DISTANCES, groups, &params, &[self.x.slice(), list.all(), parts.slice()])
        })
    }
}

impl DeviceBackend {
    /// The doubles in pairs of words. Waits for the device.
    pub(super) fn doubles(&self, x: &DeviceBuffer) -> Result<Vec<f64>, BackendError> {
        let words = self.elements::<u32>(x)?;
        let double = |&[low, high]: &[u32; 2]| f64::from_bits(u64::from(high) << 32 | u64::from(low));
        Ok(words.as_chunks::<2>().0.iter().map(double).collect())
    }
}

/// Inner products and distances of checked rows.
pub(super) fn run(backend: &DeviceBackend, rows: &Rows) -> Result<Gram, BackendError> {
    check::robust::gram_shape(rows)?;
    let x = backend.placed_as(&rows.buffer, ElementType::F32)?;
    one_slice(backend, x.len(), "gram")?;
    let (input, n) = (Input { backend, rows, x: &x }, rows.rows);
    let products = input.products()?;
    let at = |i: usize, j: usize| products[i * (i + 1) / 2 + j];
    // A row's own product is finite exactly if the row is: squares of f32 cannot overflow f64.
    if (0..n).any(|i| !at(i, i).is_finite()) {
        let at = Strided { rows: n, dim: rows.dim, offset: rows.offset, stride: rows.stride };
        if let Some((row, coordinate)) = check_finite(backend, "gram", &x, &at)? {
            return Err(BackendError::NonFinite { row, coordinate });
        }
    }
    let pairs = || (0..n).flat_map(|i| (0..=i).map(move |j| (i, j)));
    let mut distances: Vec<f64> = pairs().map(|(i, j)| (at(i, i) + at(j, j)) - 2.0 * at(i, j)).collect();
    let near = |&(i, j): &(usize, usize)| i != j && distances[i * (i + 1) / 2 + j] < CLOSE * (at(i, i) + at(j, j));
    let close: Vec<[u32; 2]> = pairs().filter(near).map(|(i, j)| [i as u32, j as u32]).collect();
    if !close.is_empty() {
        for (&[i, j], d) in close.iter().zip(input.distances(&close)?) {
            let (i, j) = (i as usize, j as usize);
            distances[i * (i + 1) / 2 + j] = d;
        }
    }
    Ok(Gram::from_triangles(n, &products, &distances))
}
