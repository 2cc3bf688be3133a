//! Plan of one-shot encryption: `a s` in the order of the transform, back to coefficients, then errors and message.

use std::borrow::Cow;

use zeroize::Zeroizing;

use super::ntt::{Direction, Ring, transform_piece};
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, Memory};
use crate::backend::{BackendError, Buffer, EncryptJob, check};
use crate::params::EncryptPassParams;

/// Values of a group of [`WIDTH`], residues of a group of [`EXPAND`], coefficients of a group of [`FINISH`].
const WIDTH_GROUP: u64 = 2048;
const EXPAND_GROUP: u64 = 2048;
const FINISH_GROUP: u64 = 4096;

const fn kernel(entry: &'static str, threads: u32, shared_words: u32, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "encrypt", entry, threads, shared_words, params: size_of::<EncryptPassParams>(), buffers }
}

/// All bits of the message: message, result.
static WIDTH: Kernel = kernel("encrypt_width", 256, 0, &[Access::Read, Access::ReadWrite]);
/// `a s`: ciphertext, secret, primes, key of a.
static EXPAND: Kernel =
    kernel("encrypt_expand", 256, 0, &[Access::ReadWrite, Access::Read, Access::Read, Access::Read]);
/// Errors and message: ciphertext, message, primes, units of the slots, key of the errors.
static FINISH: Kernel =
    kernel("encrypt_finish", 128, 2048, &[Access::ReadWrite, Access::Read, Access::Read, Access::Read, Access::Read]);

/// What the launches of one job read.
struct Inputs<'a> {
    ring: Ring<'a>,
    message: &'a DeviceBuffer,
    secret: Memory,
    units: Memory,
    /// The key of a, that of the errors.
    keys: [Memory; 2],
}

/// `c_j = a_j s + e_j + m_j`, on the device.
pub(super) fn run(backend: &DeviceBackend, job: &EncryptJob<'_>) -> Result<Buffer, BackendError> {
    check::lattice::encrypt_parameters(job)?;
    let message = message(backend, job)?;
    check::lattice::encrypt_length(job)?;
    check_width(backend, &message, job.params.width)?;
    let blocks = message.len().div_ceil(job.block());
    let memory = backend.basis(job.basis)?;
    let ring = Ring { basis: job.basis, memory: &memory };
    let c = backend.zeros(blocks * ring.words() as usize, ElementType::U32)?;
    if blocks > 0 {
        let inputs = Inputs {
            ring,
            message: &message,
            secret: secret(backend, job)?,
            units: units(backend, job)?,
            keys: [backend.keys(&[job.expand])?, backend.keys(&[job.error])?],
        };
        // A piece has the residues of its blocks and their part of the message within one slice each.
        let slots = u64::from(job.params.slots) * job.basis.degree() as u64;
        for piece in backend.pieces(blocks as u64, ring.words().max(slots))? {
            encrypt_piece(backend, job, &inputs, &c, piece)?;
        }
    }
    Ok(Buffer::Device(c))
}

fn encrypt_piece(
    backend: &DeviceBackend,
    job: &EncryptJob<'_>,
    inputs: &Inputs<'_>,
    c: &DeviceBuffer,
    blocks: std::ops::Range<u64>,
) -> Result<(), BackendError> {
    let (ring, n) = (inputs.ring, job.basis.degree() as u64);
    let (one, carried) = (ring.words(), job.block() as u64);
    let count = blocks.end - blocks.start;
    let values = (inputs.message.len() as u64).min(blocks.end * carried) - blocks.start * carried;
    let params = |groups: u64, len: u64| EncryptPassParams {
        groups: groups as u32,
        len: len as u32,
        degree_log2: n.ilog2(),
        limbs: job.basis.limbs().len() as u32,
        first: blocks.start as u32,
        slots: job.params.slots,
        eta: job.params.eta,
        values: values as u32,
    };
    let (words, primes) = (c.part(blocks.start * one, count * one), ring.memory.primes.all());
    let groups = words.words.div_ceil(EXPAND_GROUP);
    let slices = [words, inputs.secret.all(), primes, inputs.keys[0].all()];
    backend.launch(&EXPAND, groups, &params(groups, words.words), &slices)?;
    transform_piece(backend, words, ring, Direction::Inverse)?;
    let groups = (count * n).div_ceil(FINISH_GROUP);
    let message = inputs.message.part(blocks.start * carried, values);
    let slices = [words, message, primes, inputs.units.all(), inputs.keys[1].all()];
    backend.launch(&FINISH, groups, &params(groups, count * n), &slices)
}

/// Checks that every value is below `2^width`; of the message only the bits that occur come back.
fn check_width(backend: &DeviceBackend, message: &DeviceBuffer, width: u32) -> Result<(), BackendError> {
    let seen = backend.zeros(1, ElementType::U32)?;
    for piece in backend.pieces(message.len() as u64, 1)? {
        let len = piece.end - piece.start;
        let groups = len.div_ceil(WIDTH_GROUP);
        let params = EncryptPassParams { groups: groups as u32, len: len as u32, ..bytemuck::Zeroable::zeroed() };
        backend.launch(&WIDTH, groups, &params, &[message.part(piece.start, len), seen.slice()])?;
    }
    let bits = if message.is_empty() { 0 } else { backend.elements::<u32>(&seen)?[0] };
    if u64::from(bits) >> width != 0 { Err(BackendError::MessageTooWide { width }) } else { Ok(()) }
}

/// The message on the device; one from the host in memory that is wiped.
fn message<'a>(backend: &DeviceBackend, job: &EncryptJob<'a>) -> Result<Cow<'a, DeviceBuffer>, BackendError> {
    match job.message {
        Buffer::HostU32(values) if !values.is_empty() => {
            let memory = backend.device().alloc(values.len() as u64, true)?;
            backend.device().write(&memory, 0, values)?;
            DeviceBuffer::new(memory, 0, values.len(), ElementType::U32).map(Cow::Owned)
        }
        other => backend.placed_as(other, ElementType::U32),
    }
}

/// The secret as pairs (value, quotient), in memory that is wiped.
fn secret(backend: &DeviceBackend, job: &EncryptJob<'_>) -> Result<Memory, BackendError> {
    let limbs = job.basis.limbs().len();
    // Allocated at once: growing would leave copies behind that nobody wipes.
    let mut pairs = Zeroizing::new(vec![0u32; 2 * limbs * job.basis.degree()]);
    for (l, row) in pairs.chunks_exact_mut(2 * job.basis.degree()).enumerate() {
        let factors = job.secret.values(l).iter().zip(job.secret.quotients(l));
        for (pair, (&value, &quotient)) in row.as_chunks_mut::<2>().0.iter_mut().zip(factors) {
            *pair = [value, quotient];
        }
    }
    let memory = backend.device().alloc(pairs.len() as u64, true)?;
    backend.device().write(&memory, 0, &pairs)?;
    Ok(memory)
}

/// `2^(o + w z) mod p` for every limb and slot, as pairs (value, quotient).
fn units(backend: &DeviceBackend, job: &EncryptJob<'_>) -> Result<Memory, BackendError> {
    let p = job.params;
    let unit = |limb: &crate::math::ntt::NttTables, z: u32| {
        let modulus = limb.modulus();
        let factor = modulus.shoup(modulus.pow(2, u64::from(p.offset) + u64::from(p.width) * u64::from(z)));
        [factor.value, factor.quotient]
    };
    let pairs: Vec<[u32; 2]> =
        job.basis.limbs().iter().flat_map(|limb| (0..p.slots).map(move |z| unit(limb, z))).collect();
    backend.constant(pairs.as_flattened())
}
