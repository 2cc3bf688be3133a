//! The vectors of a round as a rule sees them.

use std::cell::OnceCell;

use rayon::prelude::*;

use super::error::RuleError;
use super::mixing::Mixing;
use super::pairs::Pairs;
use crate::backend::{Backend, BackendError, Buffer, Gram, Rows};

/// Columns of a combination that one task adds up: 8 KiB of sums stay in the first cache.
const COLUMNS: usize = 1 << 10;
/// Numbers of a stripe of all rows that is mixed at once: 2 MiB.
const STRIPE: usize = 1 << 19;

/// Vectors of `f32`, wherever they live, behind the linear maps that stand before a rule.
///
/// Nothing is copied and no mixture is made before it is needed: the inner products of mixtures follow from those of
/// the rows, and a rule that ends in a combination of the vectors reads the rows once more for the sum alone.
#[derive(Debug)]
pub struct Vectors<'a> {
    backend: &'a dyn Backend,
    rows: &'a Rows,
    mixing: Option<Mixing>,
    /// The rows on the host and on the device, where they have to be moved.
    host: OnceCell<Rows>,
    placed: OnceCell<Rows>,
    gram: OnceCell<Gram>,
    pairs: OnceCell<Pairs>,
}

/// The value in the cell, made by `make` if there is none.
fn filled<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T, RuleError>) -> Result<&T, RuleError> {
    match cell.get() {
        Some(value) => Ok(value),
        None => {
            let value = make()?;
            Ok(cell.get_or_init(|| value))
        }
    }
}

impl<'a> Vectors<'a> {
    /// Rows of `f32` as they are. Errors: another type, rows beyond the buffer, no row, no coordinate.
    pub fn new(backend: &'a dyn Backend, rows: &'a Rows) -> Result<Self, RuleError> {
        if rows.rows == 0 {
            return Err(RuleError::NoVectors { dropped: 0 });
        }
        let last = (rows.rows - 1).checked_mul(rows.stride).and_then(|n| n.checked_add(rows.offset));
        let end = last.and_then(|n| n.checked_add(rows.dim));
        if rows.dim == 0 || rows.stride < rows.dim || end.is_none_or(|end| end > rows.buffer.len()) {
            let (expected, found) = (end.unwrap_or(usize::MAX), rows.buffer.len());
            return Err(RuleError::WrongLength { what: "the buffer of the vectors", expected, found });
        }
        if rows.buffer.dtype() != "f32" {
            return Err(BackendError::WrongType { expected: "f32", found: rows.buffer.dtype() }.into());
        }
        let (host, placed, gram, pairs) = Default::default();
        Ok(Self { backend, rows, mixing: None, host, placed, gram, pairs })
    }

    /// Number of vectors, K.
    #[must_use]
    pub fn count(&self) -> usize {
        self.mixing.as_ref().map_or(self.rows.rows, Mixing::outputs)
    }

    /// Coordinates of a vector, d.
    #[must_use]
    pub const fn dim(&self) -> usize {
        self.rows.dim
    }

    /// The machine that runs the kernels.
    #[must_use]
    pub const fn backend(&self) -> &'a dyn Backend {
        self.backend
    }

    /// The mixtures of these vectors.
    pub(super) fn mixed(mut self, mixing: Mixing) -> Self {
        self.mixing = Some(match &self.mixing {
            Some(first) => mixing.after(first),
            None => mixing,
        });
        self.pairs = OnceCell::new();
        self
    }

    /// The coefficients over the rows of a combination of the vectors.
    pub(super) fn shares(&self, combination: &[f64]) -> Vec<f64> {
        match &self.mixing {
            Some(mixing) => mixing.pulled_back(combination),
            None => combination.to_vec(),
        }
    }

    /// The rows on the host.
    fn host(&self) -> Result<&Rows, RuleError> {
        if !matches!(self.rows.buffer, Buffer::Device(_)) {
            return Ok(self.rows);
        }
        filled(&self.host, || Ok(Rows { buffer: self.backend.download(&self.rows.buffer)?, ..*self.rows }))
    }

    /// The rows where the verbs run.
    fn placed(&self) -> Result<&Rows, RuleError> {
        if self.backend.device().is_none() || matches!(self.rows.buffer, Buffer::Device(_)) {
            return Ok(self.rows);
        }
        filled(&self.placed, || Ok(Rows { buffer: self.backend.upload(&self.rows.buffer)?, ..*self.rows }))
    }

    /// The rows on the host as slices.
    fn slices(&self) -> Result<Vec<&[f32]>, RuleError> {
        let host = self.host()?;
        (0..host.rows).map(|i| host.row(i).map_err(RuleError::from)).collect()
    }

    /// The rows that hold NaN or an infinity.
    pub(super) fn not_finite(&self) -> Result<Vec<usize>, RuleError> {
        let bad: Vec<bool> = self.slices()?.par_iter().map(|row| !row.iter().all(|v| v.is_finite())).collect();
        Ok((0..bad.len()).filter(|&i| bad[i]).collect())
    }

    /// A copy of the other rows on the host, side by side.
    pub(super) fn without(&self, rows: &[usize]) -> Result<Rows, RuleError> {
        let slices = self.slices()?;
        let mut data = crate::backend::Aligned::<f32>::default();
        let kept = (0..slices.len()).filter(|i| !rows.contains(i));
        kept.for_each(|i| data.extend_from_slice(slices[i]));
        Ok(Rows::side_by_side(Buffer::HostF32(data), self.rows.rows - rows.len(), self.dim())?)
    }

    fn gram(&self) -> Result<&Gram, RuleError> {
        filled(&self.gram, || Ok(self.backend.gram(self.placed()?)?))
    }

    /// Inner products and distances of all pairs, from the kernel `gram`. Errors: NaN or an infinity (names the row), more
    /// rows than the kernel takes.
    pub fn pairs(&self) -> Result<&Pairs, RuleError> {
        filled(&self.pairs, || {
            let rows = Pairs::of(self.gram()?);
            Ok(match &self.mixing {
                Some(mixing) => rows.mixed(mixing),
                None => rows,
            })
        })
    }

    /// The squared norms of the vectors. Errors likewise.
    pub fn norms2(&self) -> Result<Vec<f64>, RuleError> {
        if self.mixing.is_some() || self.gram.get().is_some() {
            let pairs = self.pairs()?;
            return Ok((0..self.count()).map(|i| pairs.product(i, i).max(0.0)).collect());
        }
        let norms: Vec<f64> = self.slices()?.par_iter().map(|row| dot(row, row)).collect();
        finite(&norms)?;
        Ok(norms)
    }

    /// `<v_i, v>` for all i, likewise. Errors: a length that is not d.
    pub fn products_with(&self, v: &[f32]) -> Result<Vec<f64>, RuleError> {
        self.against(v, dot)
    }

    /// `H_ij = <v_i - p, v_j - p>` for all pairs, row by row; p is zero if there is none. Errors: a length that is not d,
    /// and those of [`Self::pairs`].
    pub fn around(&self, p: Option<&[f32]>) -> Result<Vec<f64>, RuleError> {
        let rows = Pairs::of(self.gram()?);
        let n = rows.n();
        let norms: Vec<f64> = (0..n).map(|i| rows.product(i, i)).collect();
        let all = match p {
            None => rows.with_point(&vec![0.0; n], &norms, 0.0),
            Some(p) => {
                let products = self.rows_against(p, dot)?;
                rows.with_point(&products, &self.rows_against(p, distance2)?, dot(p, p))
            }
        };
        let all = self.mixing.as_ref().map(|mixing| all.mixed(&mixing.with_point())).unwrap_or(all);
        let k = self.count();
        let with_point = all.around(k);
        Ok(with_point.chunks_exact(k + 1).take(k).flat_map(|row| &row[..k]).copied().collect())
    }

    /// A bilinear form of every vector and v.
    fn against(&self, v: &[f32], form: fn(&[f32], &[f32]) -> f64) -> Result<Vec<f64>, RuleError> {
        let rows = self.rows_against(v, form)?;
        let Some(mixing) = &self.mixing else { return Ok(rows) };
        let mixed = |a| mixing.row(a).iter().zip(&rows).filter(|(c, _)| **c != 0.0).map(|(c, r)| c * r).sum();
        Ok((0..mixing.outputs()).map(mixed).collect())
    }

    fn rows_against(&self, v: &[f32], form: fn(&[f32], &[f32]) -> f64) -> Result<Vec<f64>, RuleError> {
        if v.len() != self.dim() {
            let (expected, found) = (self.dim(), v.len());
            return Err(RuleError::WrongLength { what: "the server's own vector", expected, found });
        }
        let out: Vec<f64> = self.slices()?.par_iter().map(|row| form(row, v)).collect();
        finite(&out)?;
        Ok(out)
    }

    /// `sum_i c_i v_i + c p`: the products of `f64` and `f32` are added in `f64`, in the order of the rows, and rounded to
    /// `f32` once, so that threads and backends change no bit. Rows whose coefficient is zero are not read.
    ///
    /// Errors: a length that differs, NaN or an infinity in a row that is read.
    pub fn combined(&self, combination: &[f64], and: Option<(f64, &[f32])>) -> Result<Vec<f32>, RuleError> {
        let found = combination.len();
        if found != self.count() {
            return Err(RuleError::WrongLength { what: "a combination", expected: self.count(), found });
        }
        if let Some((_, v)) = and.filter(|(_, v)| v.len() != self.dim()) {
            let (expected, found) = (self.dim(), v.len());
            return Err(RuleError::WrongLength { what: "the server's own vector", expected, found });
        }
        let slices = self.slices()?;
        let shares = self.shares(combination);
        let mut terms: Vec<(f64, &[f32])> = shares.into_iter().zip(slices).filter(|(c, _)| *c != 0.0).collect();
        terms.extend(and);
        let mut out = vec![0f32; self.dim()];
        let fine = out.par_chunks_mut(COLUMNS).enumerate().map(|(i, out)| add_up(&terms, i * COLUMNS, out));
        if !fine.reduce(|| true, |a, b| a && b) {
            // Which row it is, is found where all are looked at.
            return Err(BackendError::NonFinite { row: 0, coordinate: 0 }.into());
        }
        Ok(out)
    }

    /// Calls `f` with the vectors named, on the host. Errors: those of a copy from the device.
    pub fn with_vectors<T>(&self, which: &[usize], f: impl FnOnce(&[&[f32]]) -> T) -> Result<T, RuleError> {
        let slices = self.slices()?;
        let Some(mixing) = &self.mixing else {
            return Ok(f(&which.iter().map(|&i| slices[i]).collect::<Vec<_>>()));
        };
        let mixed = mix(mixing, which, &slices, self.dim());
        Ok(f(&mixed.chunks_exact(self.dim()).collect::<Vec<_>>()))
    }

    /// Calls `f` with all vectors as rows where the verbs run. Errors: those of `f`, and of a copy to the device.
    pub fn with_rows<T>(&self, f: impl FnOnce(&Rows) -> Result<T, BackendError>) -> Result<T, RuleError> {
        let Some(mixing) = &self.mixing else { return Ok(f(self.placed()?)?) };
        let all: Vec<usize> = (0..self.count()).collect();
        let mixed = Buffer::HostF32(mix(mixing, &all, &self.slices()?, self.dim()));
        let buffer = if self.backend.device().is_some() { self.backend.upload(&mixed)? } else { mixed };
        Ok(f(&Rows::side_by_side(buffer, self.count(), self.dim())?)?)
    }
}

/// The error of a row with NaN or an infinity, seen in a number made of it.
fn finite(of_rows: &[f64]) -> Result<(), RuleError> {
    match of_rows.iter().position(|v| !v.is_finite()) {
        Some(row) => Err(BackendError::NonFinite { row, coordinate: 0 }.into()),
        None => Ok(()),
    }
}

/// The combination of the terms at columns `start..`, rounded once; false where it is not finite.
fn add_up(terms: &[(f64, &[f32])], start: usize, out: &mut [f32]) -> bool {
    let mut sums = [0f64; COLUMNS];
    let sums = &mut sums[..out.len()];
    for (c, row) in terms {
        sums.iter_mut().zip(&row[start..]).for_each(|(sum, &v)| *sum += c * f64::from(v));
    }
    out.iter_mut().zip(&*sums).for_each(|(out, &sum)| *out = sum as f32);
    out.iter().all(|v| v.is_finite())
}

/// The mixtures named, side by side.
fn mix(mixing: &Mixing, which: &[usize], slices: &[&[f32]], dim: usize) -> crate::backend::Aligned<f32> {
    let mut all = crate::backend::Aligned::<f32>::zeroed(which.len() * dim);
    let terms: Vec<Vec<(f64, &[f32])>> = which
        .iter()
        .map(|&a| mixing.row(a).iter().copied().zip(slices.iter().copied()).filter(|(c, _)| *c != 0.0).collect())
        .collect();
    // A stripe of all rows stays in the cache while every mixture of it is made.
    let width = (STRIPE / slices.len().max(1)).next_multiple_of(COLUMNS);
    let mut rows: Vec<&mut [f32]> = all.chunks_exact_mut(dim).collect();
    for start in (0..dim).step_by(width) {
        let end = dim.min(start + width);
        rows.par_iter_mut().zip(&terms).for_each(|(row, terms)| {
            for (i, out) in row[start..end].chunks_mut(COLUMNS).enumerate() {
                add_up(terms, start + i * COLUMNS, out);
            }
        });
    }
    drop(rows);
    all
}

/// `<a, b>` in eight sums of `f64`, of exact products.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    eight(a, b, |a, b| a * b)
}

/// `|a - b|^2` likewise, of exact differences that are squared.
pub(crate) fn distance2(a: &[f32], b: &[f32]) -> f64 {
    eight(a, b, |a, b| (a - b) * (a - b))
}

/// The sum of `f` over the coordinates: one order of additions, whatever the machine.
#[inline(always)]
fn eight(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0f64; 8];
    let (whole_a, rest_a) = a.as_chunks::<8>();
    let (whole_b, rest_b) = b.as_chunks::<8>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for l in 0..8 {
            sums[l] += f(f64::from(a[l]), f64::from(b[l]));
        }
    }
    for (l, (&a, &b)) in rest_a.iter().zip(rest_b).enumerate() {
        sums[l] += f(f64::from(a), f64::from(b));
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}
