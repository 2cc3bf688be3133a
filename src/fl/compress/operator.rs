//! The map S of one attempt of a round, drawn from a public key.

use std::fmt;

use rayon::prelude::*;

use super::{Compression, RandomK, Sketch};
use crate::backend::{Aligned, BackendError, Rows};
use crate::fl::FlError;
use crate::fl::cohort::subset;
use crate::math::prg::StreamKey;

/// Coordinates that a task lifts or draws at a time.
const PART: usize = 1 << 14;

/// S with its scale, `[m x d]`. The same key gives the same map on every machine; what it makes of a row does not depend on the
/// number of threads: sums are in f64, in the order of the coordinates.
#[derive(Clone, PartialEq)]
pub struct Operator {
    dim: usize,
    size: usize,
    scale: f64,
    feedback: bool,
    map: Map,
}

#[derive(Clone, PartialEq)]
enum Map {
    /// The coordinates that are sent, ascending.
    Chosen(Vec<u32>),
    /// Row after row of the sketch, for each coordinate twice its bucket among all m, plus 1 where its sign is negative.
    Cells(Vec<u32>),
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operator({} of {}, scale {})", self.size, self.dim, self.scale)
    }
}

impl Operator {
    /// The map of `compression` for vectors of `dim` coordinates.
    ///
    /// `random-k`: a subset by k draws (Floyd's algorithm; exact, by rejection). `sketch`: word `w` (32 bits, little endian) number
    /// `row * d + coordinate` of the keystream gives the sign `1 - 2 (w mod 2)` and the bucket `floor((w >> 1) columns / 2^31)`. Buckets
    /// are uniform to 2^-31; that S is unbiased rests on the signs alone, which are exact.
    ///
    /// # Errors
    /// Those of [`Compression::validate`].
    pub fn draw(compression: &Compression, dim: usize, key: &StreamKey) -> Result<Self, FlError> {
        compression.validate(dim)?;
        let (size, feedback) = (compression.size(dim), compression.error_feedback());
        let (map, unbiased) = match compression {
            Compression::RandomK(RandomK { .. }) => {
                let chosen = subset(dim as u64, size as u64, &mut key.reader(0));
                (Map::Chosen(chosen.into_iter().map(|i| i as u32).collect()), dim as f64 / size as f64)
            }
            Compression::Sketch(Sketch { rows, .. }) => {
                let rows = *rows as usize;
                (Map::Cells(cells(dim, rows, size / rows, key)), 1.0 / rows as f64)
            }
        };
        let shrunk = if feedback { 1.0 / compression.omega(dim) } else { 1.0 };
        Ok(Self { dim, size, scale: (unbiased * shrunk).sqrt(), feedback, map })
    }

    /// d.
    #[must_use]
    pub const fn dim(&self) -> usize {
        self.dim
    }

    /// m.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Whether it contracts, for clients that keep what is lost; else it is unbiased.
    #[must_use]
    pub const fn feedback(&self) -> bool {
        self.feedback
    }

    /// `S x` for every row, `[n x d]` on the host, one row a task.
    ///
    /// A row with NaN or an infinity anywhere becomes NaN everywhere, also where the coordinate would not have been sent, so that
    /// `encode` zeroes and counts it as without compression.
    ///
    /// # Errors
    /// Rows of another length, or that are not on the host.
    pub fn compress(&self, rows: &Rows) -> Result<Rows, BackendError> {
        if rows.dim != self.dim {
            return Err(BackendError::WrongLength { what: "a row to compress", expected: self.dim, found: rows.dim });
        }
        let mut out = vec![0f32; rows.rows * self.size];
        out.par_chunks_exact_mut(self.size)
            .enumerate()
            .try_for_each(|(i, out)| rows.widened(i).map(|row| self.compress_row(&row, out)))?;
        Rows::dense(out, rows.rows, self.size)
    }

    /// `S x` into `out`, of d and m values.
    pub(super) fn compress_row(&self, x: &[f32], out: &mut [f32]) {
        if x.iter().any(|v| !v.is_finite()) {
            out.fill(f32::NAN);
            return;
        }
        match &self.map {
            Map::Chosen(chosen) => {
                out.iter_mut().zip(chosen).for_each(|(y, &i)| *y = (f64::from(x[i as usize]) * self.scale) as f32);
            }
            Map::Cells(cells) => {
                let mut sums = vec![0f64; self.size];
                for row in cells.chunks_exact(self.dim) {
                    for (&cell, &x) in row.iter().zip(x) {
                        sums[(cell >> 1) as usize] += signed(cell, f64::from(x));
                    }
                }
                out.iter_mut().zip(sums).for_each(|(y, sum)| *y = (sum * self.scale) as f32);
            }
        }
    }

    /// `S^T y`, of m and d values.
    ///
    /// # Errors
    /// A vector of another length.
    pub fn lift(&self, y: &[f32]) -> Result<Aligned<f32>, BackendError> {
        if y.len() != self.size {
            return Err(BackendError::WrongLength { what: "a vector to lift", expected: self.size, found: y.len() });
        }
        let mut out = Aligned::zeroed(self.dim);
        match &self.map {
            Map::Chosen(chosen) => {
                chosen.iter().zip(y).for_each(|(&i, &y)| out[i as usize] = (f64::from(y) * self.scale) as f32);
            }
            Map::Cells(cells) => {
                out.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
                    for (j, x) in out.iter_mut().enumerate() {
                        let at = part * PART + j;
                        let sum: f64 = cells[at..]
                            .iter()
                            .step_by(self.dim)
                            .map(|&cell| signed(cell, f64::from(y[(cell >> 1) as usize])))
                            .sum();
                        *x = (sum * self.scale) as f32;
                    }
                });
            }
        }
        Ok(out)
    }
}

fn signed(cell: u32, x: f64) -> f64 {
    if cell & 1 == 0 { x } else { -x }
}

fn cells(dim: usize, rows: usize, columns: usize, key: &StreamKey) -> Vec<u32> {
    let mut cells = vec![0u32; dim * rows];
    cells.par_chunks_mut(PART).enumerate().for_each(|(part, out)| {
        let first = part * PART;
        let mut bytes = vec![0u8; 4 * out.len()];
        key.fill(4 * first as u64, &mut bytes);
        for (i, (cell, word)) in out.iter_mut().zip(bytes.as_chunks::<4>().0).enumerate() {
            let word = u32::from_le_bytes(*word);
            let bucket = (u64::from(word >> 1) * columns as u64) >> 31;
            let row = (first + i) / dim;
            *cell = ((row * columns) as u32 + bucket as u32) << 1 | (word & 1);
        }
    });
    cells
}

#[cfg(test)]
mod tests;
