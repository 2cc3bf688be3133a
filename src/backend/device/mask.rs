//! Plan of the masks, and keystream words for other stages.

use bytemuck::Zeroable;

use super::noise::first;
use super::{Access, DeviceBackend, DeviceBuffer, ElementType, Kernel, sum};
use crate::backend::{BackendError, Buffer, MaskSign, check};
use crate::math::prg::StreamKey;
use crate::params::{FlatPassParams, Ring};

static WORDS: Kernel = kernel("keystream_words");
static BITS: Kernel = kernel("mask_bits");
static PRIME: Kernel = kernel("mask_prime");

const fn kernel(entry: &'static str) -> Kernel {
    let buffers = &[Access::ReadWrite, Access::Read];
    Kernel { file: "mask", entry, threads: 256, shared_words: 0, params: size_of::<FlatPassParams>(), buffers }
}

/// Elements of a group of [`WORDS`] and [`BITS`], and of [`PRIME`].
const CHUNK: u64 = 4096;
const PRIME_CHUNK: u64 = 1024;

/// The keystream words that hold `len` public signs: sign j is bit `j % 32` of word `j / 32`.
pub(super) fn signs(backend: &DeviceBackend, key: &StreamKey, len: u64) -> Result<DeviceBuffer, BackendError> {
    let words = backend.unset(len.div_ceil(32) as usize, ElementType::U32)?;
    launches(backend, &WORDS, CHUNK, &words, key, FlatPassParams::zeroed())?;
    Ok(words)
}

/// Enqueues a kernel on all words.
fn launches(
    backend: &DeviceBackend,
    kernel: &'static Kernel,
    chunk: u64,
    words: &DeviceBuffer,
    key: &StreamKey,
    p: FlatPassParams,
) -> Result<(), BackendError> {
    let keys = backend.keys(&[key])?;
    for piece in backend.spans(words.len() as u64, CHUNK)? {
        let len = piece.end - piece.start;
        let groups = len.div_ceil(chunk);
        let params = FlatPassParams { groups: groups as u32, len: len as u32, first: first(piece.start)?, ..p };
        backend.launch(kernel, groups, &params, &[words.part(piece.start, len), keys.all()])?;
    }
    Ok(())
}

/// Word j plus or minus the j-th of the keystream, in `ring`.
pub(super) fn run(
    backend: &DeviceBackend,
    words: &mut Buffer,
    ring: Ring,
    key: &StreamKey,
    sign: MaskSign,
) -> Result<(), BackendError> {
    check::mask_shape(words.len(), ring)?;
    let count = u32::from(sign == MaskSign::Subtract);
    backend.in_place(words, ElementType::U32, |words| match ring {
        Ring::Bits(bits) => {
            launches(backend, &BITS, CHUNK, words, key, FlatPassParams { bits, count, ..FlatPassParams::zeroed() })
        }
        Ring::Prime(modulus) => {
            sum::residues(backend, "words", words, modulus)?;
            let params = FlatPassParams { modulus, count, ..FlatPassParams::zeroed() };
            launches(backend, &PRIME, PRIME_CHUNK, words, key, params)
        }
    })
}
