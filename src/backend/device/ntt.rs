//! Plan of the negacyclic transforms and products: tiles that one group holds, and the stages across tiles.

use std::ops::Range;

use super::basis::BasisMemory;
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, Memory, Slice};
use crate::backend::{Backend, BackendError, BackendKind, Buffer, check};
use crate::math::ntt::RnsBasis;
use crate::params::{NttPassParams, ResidueParams};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Coefficients to values.
    Forward,
    /// Values to coefficients.
    Inverse,
}

/// What the factors of a product are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factors {
    /// Coefficients: transformed, multiplied, transformed back.
    Coefficients,
    /// Values of the transform.
    Transformed,
}

/// log2 of the largest tile in WGSL: 16 KiB, what every device of WebGPU has.
const WGSL_TILE: u32 = 12;
/// log2 of the tiles for which there are kernels, 13 and above in CUDA only.
const TILES: Range<u32> = 10..15;
/// Residues that a group of a pass across tiles has.
const OUTER_GROUP: u64 = 2048;
/// Residues of a group of [`CHECK`] and [`MULTIPLY`].
const FLAT_GROUP: u64 = 1024;

/// The data, primes and roots.
const TRANSFORM: &[Access] = &[Access::ReadWrite, Access::Read, Access::Read];

const fn transform(entry: &'static str, threads: u32, shared_words: u32) -> Kernel {
    Kernel { file: "ntt", entry, threads, shared_words, params: size_of::<NttPassParams>(), buffers: TRANSFORM }
}

/// The kernels of tiles, from the smallest one on.
static FORWARD: [Kernel; 5] = [
    transform("ntt_forward_10", 64, 1 << 10),
    transform("ntt_forward_11", 128, 1 << 11),
    transform("ntt_forward_12", 256, 1 << 12),
    transform("ntt_forward_13", 256, 1 << 13),
    transform("ntt_forward_14", 512, 1 << 14),
];
static INVERSE: [Kernel; 5] = [
    transform("ntt_inverse_10", 64, 1 << 10),
    transform("ntt_inverse_11", 128, 1 << 11),
    transform("ntt_inverse_12", 256, 1 << 12),
    transform("ntt_inverse_13", 256, 1 << 13),
    transform("ntt_inverse_14", 512, 1 << 14),
];
/// The stages across tiles.
static OUTER_FORWARD: Kernel = transform("ntt_outer_forward", 256, 0);
static OUTER_INVERSE: Kernel = transform("ntt_outer_inverse", 256, 0);

const fn residues(entry: &'static str, buffers: &'static [Access]) -> Kernel {
    Kernel { file: "residues", entry, threads: 256, shared_words: 0, params: size_of::<ResidueParams>(), buffers }
}

/// Looks for residues that are not reduced: the data, primes, the place.
static CHECK: Kernel = residues("residues_check", &[Access::Read, Access::Read, Access::ReadWrite]);
/// Multiplies entry by entry: both factors, primes.
static MULTIPLY: Kernel = residues("residues_multiply", &[Access::ReadWrite, Access::Read, Access::Read]);

/// A basis, here and on the device.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    pub(super) basis: &'a RnsBasis,
    pub(super) memory: &'a BasisMemory,
}

impl Ring<'_> {
    fn degree_log2(&self) -> u32 {
        self.basis.limbs()[0].degree_log2()
    }

    /// Residues of one polynomial.
    pub(super) fn words(&self) -> u64 {
        (self.basis.degree() * self.basis.limbs().len()) as u64
    }

    fn residues(&self, groups: u64, len: u64, other_len: u64) -> ResidueParams {
        ResidueParams {
            groups: groups as u32,
            len: len as u32,
            other_len: other_len as u32,
            degree_log2: self.degree_log2(),
            limbs: self.basis.limbs().len() as u32,
            _pad: [0; 3],
        }
    }
}

/// `ntt` or `intt`.
pub(super) fn ntt(
    backend: &DeviceBackend,
    x: &mut Buffer,
    basis: &RnsBasis,
    direction: Direction,
) -> Result<(), BackendError> {
    backend.in_place(x, ElementType::U32, |x| {
        check::lattice::polynomials("x", x.len(), basis)?;
        let memory = backend.basis(basis)?;
        let ring = Ring { basis, memory: &memory };
        check_reduced(backend, "x", x, ring)?;
        transform_all(backend, x, ring, direction)
    })
}

/// `polymul` or `pointwise`.
pub(super) fn product(
    backend: &DeviceBackend,
    a: &mut Buffer,
    b: &Buffer,
    basis: &RnsBasis,
    factors: Factors,
) -> Result<(), BackendError> {
    backend.in_place(a, ElementType::U32, |a| {
        let b = backend.placed_as(b, ElementType::U32)?;
        check::lattice::polynomials("a", a.len(), basis)?;
        let memory = backend.basis(basis)?;
        let ring = Ring { basis, memory: &memory };
        check_reduced(backend, "a", a, ring)?;
        check::lattice::factor(a.len(), b.len(), basis)?;
        check_reduced(backend, "b", &b, ring)?;
        if factors == Factors::Transformed {
            return multiply(backend, a, &b, ring);
        }
        // A copy: the caller keeps its b.
        let b = backend.copied(&b)?;
        transform_all(backend, &b, ring, Direction::Forward)?;
        transform_all(backend, a, ring, Direction::Forward)?;
        multiply(backend, a, &b, ring)?;
        transform_all(backend, a, ring, Direction::Inverse)
    })
}

/// Waits for the device, and names the first residue that is not below its prime.
fn check_reduced(
    backend: &DeviceBackend,
    what: &'static str,
    x: &DeviceBuffer,
    ring: Ring<'_>,
) -> Result<(), BackendError> {
    let one = ring.words();
    let mut places = Vec::new();
    for piece in backend.pieces(x.len() as u64 / one, one)? {
        let (start, len) = (piece.start * one, (piece.end - piece.start) * one);
        let place = backend.zeros(1, ElementType::U32)?;
        let groups = len.div_ceil(FLAT_GROUP);
        let slices = [x.part(start, len), ring.memory.primes.all(), place.slice()];
        backend.launch(&CHECK, groups, &ring.residues(groups, len, len), &slices)?;
        places.push((start, place));
    }
    for (start, place) in places {
        match backend.elements::<u32>(&place)?.first() {
            Some(0) | None => {}
            Some(&found) => {
                return Err(check::lattice::not_reduced(what, start as usize + !found as usize, ring.basis));
            }
        }
    }
    Ok(())
}

/// `a <- a b` of transformed polynomials.
fn multiply(backend: &DeviceBackend, a: &DeviceBuffer, b: &DeviceBuffer, ring: Ring<'_>) -> Result<(), BackendError> {
    let one = ring.words();
    for piece in backend.pieces(a.len() as u64 / one, one)? {
        let (start, len) = (piece.start * one, (piece.end - piece.start) * one);
        let other = if b.len() == a.len() { b.part(start, len) } else { b.slice() };
        let groups = len.div_ceil(FLAT_GROUP);
        let slices = [a.part(start, len), other, ring.memory.primes.all()];
        backend.launch(&MULTIPLY, groups, &ring.residues(groups, len, other.words), &slices)?;
    }
    Ok(())
}

/// Enqueues the transform of every polynomial of `x`, whose residues are reduced.
fn transform_all(
    backend: &DeviceBackend,
    x: &DeviceBuffer,
    ring: Ring<'_>,
    direction: Direction,
) -> Result<(), BackendError> {
    let one = ring.words();
    for piece in backend.pieces(x.len() as u64 / one, one)? {
        let x = x.part(piece.start * one, (piece.end - piece.start) * one);
        transform_piece(backend, x, ring, direction)?;
    }
    Ok(())
}

pub(super) fn transform_piece(
    backend: &DeviceBackend,
    x: Slice<'_>,
    ring: Ring<'_>,
    direction: Direction,
) -> Result<(), BackendError> {
    let degree_log2 = ring.degree_log2();
    let local_log2 = largest_tile(backend).min(degree_log2);
    let params = |groups: u64| NttPassParams {
        groups: groups as u32,
        degree_log2,
        limbs: ring.basis.limbs().len() as u32,
        local_log2,
    };
    let run = |kernel: &'static Kernel, groups: u64, roots: &Memory| {
        backend.launch(kernel, groups, &params(groups), &[x, ring.memory.primes.all(), roots.all()])
    };
    let (tile, tiles, outer) = ((local_log2 - TILES.start) as usize, x.words >> local_log2, x.words / OUTER_GROUP);
    let across = degree_log2 > local_log2;
    match direction {
        Direction::Forward => {
            if across {
                run(&OUTER_FORWARD, outer, &ring.memory.forward)?;
            }
            run(&FORWARD[tile], tiles, &ring.memory.forward)
        }
        Direction::Inverse => {
            run(&INVERSE[tile], tiles, &ring.memory.inverse)?;
            if across { run(&OUTER_INVERSE, outer, &ring.memory.inverse) } else { Ok(()) }
        }
    }
}

/// log2 of the largest tile that a group has room for, at least that of WGSL.
fn largest_tile(backend: &DeviceBackend) -> u32 {
    match backend.kind() {
        BackendKind::Cuda => backend.device().limits().group_words.max(1).ilog2().clamp(WGSL_TILE, TILES.end - 1),
        _ => WGSL_TILE,
    }
}
