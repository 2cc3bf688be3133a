//! Plan of ghost clipping.

use super::rows_check::{Strided, check_finite};
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel};
use crate::backend::{BackendError, Buffer, check};
use crate::params::{GhostParams, GhostPassParams};

/// Positions along one side of a tile of pairs, entries along one side of a tile of the sum.
const PAIRS: u64 = 16;
const ENTRIES: u64 = 64;
/// Positions of a segment: one partial sum of every entry.
const SEGMENT: u64 = 4096;
/// Most words of partial sums, but for one segment.
const PARTIAL_WORDS: u64 = 1 << 26;

const fn kernel(entry: &'static str, shared_words: u32, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "ghost", entry, threads: 256, shared_words, params: size_of::<GhostPassParams>(), buffers }
}

/// Activations, gradients, result.
const NORMS: &[Access] = &[Access::Read, Access::Read, Access::ReadWrite];
static SINGLE: Kernel = kernel("ghost_norms_single", 2 * 256, NORMS);
/// Two panels of sixteen rows of 33 doubles.
static TILES: Kernel = kernel("ghost_norms_pairs", 2 * 2 * 16 * 33, NORMS);
/// Activations, gradients, coefficients, partial sums.
static SUM: Kernel = kernel("ghost_sum", 2 * 16 * 64, &[Access::Read, Access::Read, Access::Read, Access::ReadWrite]);
static ADD: Kernel = kernel("ghost_add", 0, &[Access::ReadWrite, Access::Read]);

/// Activations and output gradients on the device, finite.
struct Layer<'a> {
    backend: &'a DeviceBackend,
    p: &'a GhostParams,
    a: &'a DeviceBuffer,
    g: &'a DeviceBuffer,
}

impl Layer<'_> {
    fn params(&self, groups: u64, tiles: u64, first: u64) -> GhostPassParams {
        GhostPassParams {
            groups: groups as u32,
            samples: self.p.samples,
            positions: self.p.positions,
            inputs: self.p.inputs,
            outputs: self.p.outputs,
            bias: self.p.bias,
            tiles: tiles as u32,
            first: first as u32,
        }
    }

    /// Squared norms: the sum of a sample's tiles in their order.
    fn norms(&self) -> Result<Vec<f64>, BackendError> {
        let side = u64::from(self.p.positions).div_ceil(PAIRS);
        let (kernel, tiles) = if self.p.positions == 1 { (&SINGLE, 1) } else { (&TILES, side * (side + 1) / 2) };
        let groups = u64::from(self.p.samples) * tiles;
        let out = self.backend.zeros(2 * groups as usize, ElementType::U32)?;
        let slices = [self.a.slice(), self.g.slice(), out.slice()];
        self.backend.launch(kernel, groups, &self.params(groups, tiles, 0), &slices)?;
        let sums = self.backend.doubles(&out)?;
        // Rounding may leave a sum of cancelling pairs below zero.
        Ok(sums.chunks_exact(tiles as usize).map(|tiles| tiles.iter().sum::<f64>().max(0.0)).collect())
    }

    fn sum(&self, coefficients: &[f32]) -> Result<Vec<f32>, BackendError> {
        let backend = self.backend;
        let rows = u64::from(self.p.inputs) + u64::from(self.p.bias);
        let entries = rows * u64::from(self.p.outputs);
        let total = backend.zeros(entries as usize, ElementType::F32)?;
        let segments = (u64::from(self.p.samples) * u64::from(self.p.positions)).div_ceil(SEGMENT);
        let wave = (PARTIAL_WORDS / entries).clamp(1, segments.max(1));
        let parts = backend.zeros((entries * wave) as usize, ElementType::F32)?;
        let coefficients = Buffer::from(coefficients.to_vec());
        let c = backend.placed(&coefficients)?;
        let (row_tiles, tiles) = (rows.div_ceil(ENTRIES), u64::from(self.p.outputs).div_ceil(ENTRIES));
        for first in (0..segments).step_by(wave as usize) {
            let count = wave.min(segments - first);
            let groups = count * row_tiles * tiles;
            let slices = [self.a.slice(), self.g.slice(), c.slice(), parts.slice()];
            backend.launch(&SUM, groups, &self.params(groups, tiles, first), &slices)?;
            let groups = entries.div_ceil(256);
            backend.launch(&ADD, groups, &self.params(groups, count, entries), &[total.slice(), parts.slice()])?;
        }
        let sum = backend.elements::<f32>(&total)?.to_vec();
        check::within_f32(&sum)?;
        Ok(sum)
    }
}

/// Runs `verb` on a checked layer; nothing to do without samples.
fn with_layer<T>(
    backend: &DeviceBackend,
    stage: &'static str,
    buffers: [&Buffer; 2],
    p: &GhostParams,
    verb: impl FnOnce(&Layer<'_>) -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    let [a, g] = buffers;
    check::robust::ghost_shape(a.len(), g.len(), p)?;
    let (a, g) = (backend.placed_as(a, ElementType::F32)?, backend.placed_as(g, ElementType::F32)?);
    if p.samples > 0 {
        let whole = |width: u32| Strided {
            rows: p.samples as usize,
            dim: p.positions as usize * width as usize,
            offset: 0,
            stride: p.positions as usize * width as usize,
        };
        let bad = [
            check_finite(backend, stage, &a, &whole(p.inputs))?,
            check_finite(backend, stage, &g, &whole(p.outputs))?
                .map(|(row, coordinate)| (row, coordinate + p.positions as usize * p.inputs as usize)),
        ];
        if let Some((row, coordinate)) = bad.into_iter().flatten().min() {
            return Err(BackendError::NonFinite { row, coordinate });
        }
    }
    verb(&Layer { backend, p, a: &a, g: &g })
}

/// `ghost_norms`.
pub(super) fn norms(
    backend: &DeviceBackend,
    activations: &Buffer,
    gradients: &Buffer,
    p: &GhostParams,
) -> Result<Vec<f64>, BackendError> {
    with_layer(backend, "ghost_norms", [activations, gradients], p, |layer| {
        if p.samples == 0 { Ok(Vec::new()) } else { layer.norms() }
    })
}

/// `ghost_sum`.
pub(super) fn sum(
    backend: &DeviceBackend,
    activations: &Buffer,
    gradients: &Buffer,
    coefficients: &[f32],
    p: &GhostParams,
) -> Result<Vec<f32>, BackendError> {
    with_layer(backend, "ghost_sum", [activations, gradients], p, |layer| {
        check::coefficients(coefficients, p)?;
        if p.samples == 0 {
            return Ok(vec![0.0; (p.inputs as usize + p.bias as usize) * p.outputs as usize]);
        }
        layer.sum(coefficients)
    })
}
