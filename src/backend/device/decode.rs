//! Plan of the decoding: residues to floats, the transform, signs and scale, all in the memory of the sum.

use bytemuck::Zeroable;

use super::memory::IN_PLACE;
use super::noise::first;
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, fwht, mask};
use crate::backend::{BackendError, Buffer, check};
use crate::math::prg::StreamKey;
use crate::params::{DecodeParams, FlatPassParams};

static CENTRE: Kernel = kernel("decode_centre", IN_PLACE);
static FINISH: Kernel = kernel("decode_finish", &[Access::ReadWrite, Access::Read]);

const fn kernel(entry: &'static str, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "decode", entry, threads: 256, shared_words: 0, params: size_of::<FlatPassParams>(), buffers }
}

/// Elements of a group.
const CHUNK: u64 = 4096;

/// The decoded sum on the host; the sum stays as it is.
pub(super) fn run(
    backend: &DeviceBackend,
    sum: &Buffer,
    p: &DecodeParams,
    signs: &StreamKey,
) -> Result<Vec<f32>, BackendError> {
    check::decode_shape(sum.len(), p)?;
    let placed = backend.placed_as(sum, ElementType::U32)?;
    // An uploaded copy is ours to overwrite.
    let x = if matches!(sum, Buffer::Device(_)) { backend.copied(&placed)? } else { placed.into_owned() };
    Ok(backend.elements::<f32>(&decoded(backend, x, p, signs)?)?.to_vec())
}

/// The decoded sum in its place: on the device if it lives there and no other buffer shares the memory, else a copy.
pub(super) fn in_place(
    backend: &DeviceBackend,
    sum: &mut Buffer,
    p: &DecodeParams,
    signs: &StreamKey,
) -> Result<(), BackendError> {
    check::decode_shape(sum.len(), p)?;
    if matches!(sum, Buffer::Device(_)) {
        let x = backend.in_place(sum, ElementType::U32, |x| decoded(backend, x.clone(), p, signs))?;
        *sum = Buffer::Device(x);
    } else {
        *sum = run(backend, sum, p, signs)?.into();
    }
    Ok(())
}

/// `dim` floats in the memory of the sum.
fn decoded(
    backend: &DeviceBackend,
    x: DeviceBuffer,
    p: &DecodeParams,
    signs: &StreamKey,
) -> Result<DeviceBuffer, BackendError> {
    transform(backend, &x, p, signs)?;
    DeviceBuffer::new(x.slice().memory.clone(), x.slice().offset, p.dim as usize, ElementType::F32)
}

/// Enqueues `x <- unit s H^T centre(x)`, from words to floats.
fn transform(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    p: &DecodeParams,
    signs: &StreamKey,
) -> Result<(), BackendError> {
    let rotate = p.rotate == 1;
    let centre = FlatPassParams { bits: p.bits, ..FlatPassParams::zeroed() };
    launches(backend, &CENTRE, x, centre, None)?;
    let mut factor = 1.0;
    let mut words = backend.zeros(1, ElementType::U32)?;
    if rotate {
        fwht::transform(backend, x, p.block_log2, 1.0)?;
        factor = 2f64.powf(-0.5 * f64::from(p.block_log2)) as f32;
        words = mask::signs(backend, signs, p.padded.into())?;
    }
    // The factor first: the unit may be denormal, and their product even smaller.
    let finish = FlatPassParams { count: rotate.into(), factor, unit: p.unit, ..FlatPassParams::zeroed() };
    launches(backend, &FINISH, x, finish, Some(&words))
}

/// Enqueues a kernel on all elements.
fn launches(
    backend: &DeviceBackend,
    kernel: &'static Kernel,
    x: &DeviceBuffer,
    p: FlatPassParams,
    signs: Option<&DeviceBuffer>,
) -> Result<(), BackendError> {
    for piece in backend.spans(x.len() as u64, CHUNK)? {
        let len = piece.end - piece.start;
        let groups = len.div_ceil(CHUNK);
        let params = FlatPassParams { groups: groups as u32, len: len as u32, first: first(piece.start)?, ..p };
        let slices: Vec<_> =
            [Some(x.part(piece.start, len)), signs.map(DeviceBuffer::slice)].into_iter().flatten().collect();
        backend.launch(kernel, groups, &params, &slices)?;
    }
    Ok(())
}
