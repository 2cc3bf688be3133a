//! Vectors mod `2^b` while they are masked and added: rings of 2 to 32 bits through the verbs of a backend, wherever it
//! runs, the others (1, 33 to 63: weighted sums without privacy) on the host.

use std::sync::Arc;

use zeroize::Zeroize;

use super::{SecAggError, VectorShape, frame};
use crate::backend::{Aligned, Backend, BackendError, BackendKind, Buffer, MaskSign};
use crate::math::prg::StreamKey;
use crate::params::Ring;

/// Checks the ring width of a shape.
pub(super) fn check_shape(shape: VectorShape) -> Result<(), SecAggError> {
    if !(1..=63).contains(&shape.bits) {
        return Err(SecAggError::OutOfRange { name: "bits", expected: "1..=63", found: u64::from(shape.bits) });
    }
    Ok(())
}

/// One vector of a checked shape.
pub(super) enum Words {
    Narrow(Buffer),
    Wide(Vec<u64>),
}

/// True where the backend's verbs take the ring.
fn is_narrow(shape: VectorShape) -> bool {
    (2..=32).contains(&shape.bits)
}

impl Words {
    pub(super) fn zeros(shape: VectorShape) -> Self {
        let len = shape.len as usize;
        if is_narrow(shape) { Self::Narrow(Buffer::HostU32(Aligned::zeroed(len))) } else { Self::Wide(vec![0; len]) }
    }

    /// The words that were packed; `body` has the shape's length and zeros in its unused bits.
    pub(super) fn unpack(body: &[u8], shape: VectorShape, backend: &dyn Backend) -> Result<Self, SecAggError> {
        if is_narrow(shape) {
            return Ok(Self::Narrow(backend.unpack(body, shape.len as usize, shape.bits)?));
        }
        let mut words = vec![0; shape.len as usize];
        frame::unpack(body, shape, |j, v| words[j] = v);
        Ok(Self::Wide(words))
    }

    /// The form that travels.
    pub(super) fn pack(&self, shape: VectorShape, backend: &dyn Backend) -> Result<Vec<u8>, SecAggError> {
        match self {
            Self::Narrow(words) => Ok(backend.pack(words, shape.bits)?),
            Self::Wide(words) => {
                let mut out = Vec::with_capacity(shape.packed_len());
                frame::pack(words.iter().copied(), shape.bits, &mut out);
                Ok(out)
            }
        }
    }

    /// Adds or subtracts the keystream of every key in place: [`Backend::mask_all`]; of a wide ring word j takes the bytes
    /// `[8 j, 8 j + 8)`. After an error some of the masks may be on.
    pub(super) fn mask(
        &mut self,
        shape: VectorShape,
        masks: &[(StreamKey, MaskSign)],
        backend: &dyn Backend,
    ) -> Result<(), SecAggError> {
        match self {
            Self::Narrow(words) => Ok(backend.mask_all(words, Ring::Bits(shape.bits), masks)?),
            Self::Wide(words) => {
                masks.iter().for_each(|(key, sign)| mask_wide(words, shape.bits, key, *sign));
                Ok(())
            }
        }
    }

    /// Moves the words to where the backend computes.
    pub(super) fn upload(&mut self, backend: &dyn Backend) -> Result<(), SecAggError> {
        if let Self::Narrow(words) = self {
            *words = backend.upload(words)?;
        }
        Ok(())
    }

    pub(super) fn into_words(self, backend: &dyn Backend) -> Result<Vec<u64>, SecAggError> {
        match self {
            Self::Narrow(words) => Ok(backend.to_host(words)?.as_u32()?.iter().map(|&w| u64::from(w)).collect()),
            Self::Wide(words) => Ok(words),
        }
    }
}

/// Words of a piece of keystream.
const PIECE: usize = 512;

fn mask_wide(words: &mut [u64], bits: u32, key: &StreamKey, sign: MaskSign) {
    let ring = (1u64 << bits) - 1;
    let mut stream = [0u8; 8 * PIECE];
    for (piece, words) in words.chunks_mut(PIECE).enumerate() {
        let stream = &mut stream[..8 * words.len()];
        key.fill((8 * PIECE * piece) as u64, stream);
        for (word, k) in words.iter_mut().zip(stream.as_chunks::<8>().0) {
            let k = u64::from_le_bytes(*k);
            let k = if sign == MaskSign::Add { k } else { k.wrapping_neg() };
            *word = word.wrapping_add(k) & ring;
        }
    }
    stream.zeroize();
}

/// Rows that wait for one call of the backend's `sum`.
const PENDING: usize = 16;

/// A running sum. Memory: the sum, and at most [`PENDING`] rows where a device adds.
pub(super) struct Accumulator {
    shape: VectorShape,
    backend: Arc<dyn Backend>,
    sum: Words,
    pending: Aligned<u32>,
}

impl Accumulator {
    pub(super) fn new(shape: VectorShape, backend: Arc<dyn Backend>) -> Self {
        Self { shape, backend, sum: Words::zeros(shape), pending: Aligned::default() }
    }

    /// Adds a packed row of the shape; with `flush` the rows that wait too.
    ///
    /// After an error of [`Broken::Sum`] there is no sum any more; after one of [`Broken::Row`] the row is not in it.
    pub(super) fn add(&mut self, body: &[u8], flush: bool) -> Result<(), Broken> {
        let len = self.shape.len as usize;
        if let Words::Wide(sum) = &mut self.sum {
            let ring = (1u64 << self.shape.bits) - 1;
            frame::unpack(body, self.shape, |j, v| sum[j] = sum[j].wrapping_add(v) & ring);
            return Ok(());
        }
        let row = |e: BackendError| Broken::Row(e.into());
        if let (Words::Narrow(sum), BackendKind::Scalar | BackendKind::Simd) = (&mut self.sum, self.backend.kind()) {
            return self.backend.sum_packed(sum, body, self.shape.bits).map_err(row);
        }
        let words =
            self.backend.unpack(body, len, self.shape.bits).and_then(|w| self.backend.to_host(w)).map_err(row)?;
        self.pending.extend_from_slice(words.as_u32().map_err(row)?);
        if flush || self.pending.len() >= PENDING * len { self.flush().map_err(Broken::Sum) } else { Ok(()) }
    }

    /// Adds the waiting rows to the sum; after an error there is no sum any more.
    pub(super) fn flush(&mut self) -> Result<(), SecAggError> {
        let Words::Narrow(sum) = &mut self.sum else { return Ok(()) };
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut rows = Buffer::HostU32(std::mem::take(&mut self.pending));
        let done = self.backend.sum(sum, &rows, Ring::Bits(self.shape.bits));
        self.pending = rows.take_u32()?;
        self.pending.clear();
        Ok(done?)
    }

    /// The sum of all rows; zeros are left.
    pub(super) fn take(&mut self) -> Result<Words, SecAggError> {
        self.flush()?;
        Ok(std::mem::replace(&mut self.sum, Words::zeros(VectorShape { len: 0, ..self.shape })))
    }
}

/// What an error of the backend has left.
pub(super) enum Broken {
    /// The sum without the row.
    Row(SecAggError),
    /// No sum: a device that failed while it was read has left a part of its result.
    Sum(SecAggError),
}
