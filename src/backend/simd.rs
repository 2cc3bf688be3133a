//! Blocked kernels on all cores of the CPU.
//!
//! Each kernel body is written once and compiled for AVX-512, AVX2, NEON and the compiler's own target; the
//! choice is made once a process from what the processor has, or by `VEILSUM_ISA=portable|neon|avx2|avx512|avx512ifma`.
//! Reductions run over fixed segments and add the parts in order, so that neither the instruction set nor
//! the number of threads changes a bit of any result. Only `ghost_sum` leaves its product to a library.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over registers index several arrays; closures and iterators keep registers in memory"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod binomial;
mod chacha;
mod clip;
mod decode;
mod encode;
mod encrypt;
pub(crate) mod exact;
mod fwht;
mod ghost;
mod gram;
#[cfg(target_arch = "x86_64")]
mod ifma;
pub mod isa;
mod keystream;
mod lanes;
mod mask;
pub(crate) mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod noise;
mod ntt;
mod pack;
mod polymul;
mod portable;
pub mod probe;
mod residues;
mod samples;
mod select;
mod sum;

use std::sync::OnceLock;

use self::encode::Half;
use self::isa::{Dispatch, Isa};
use super::{
    Aligned, Backend, BackendError, BackendKind, Buffer, EncodeJob, EncodeReport, EncryptJob, Gram, LatticeSecret,
    MaskSign, Packed, Rows, check,
};
use crate::math::ntt::RnsBasis;
use crate::math::prg::StreamKey;
use crate::params::{ClipParams, DecodeParams, FwhtParams, GhostParams, Ring};
use crate::sample::noise::Noise;

/// Elements that one task of a long row takes; also the segment of reductions, hence part of the result.
pub(super) const SEGMENT: usize = 1 << 14;
/// Elements above which data are taken to come from beyond the second-level cache: what comes next is asked for.
const FAR: usize = 1 << 18;

/// True if a call on `len` elements stays on its thread: it is no longer than `least`, or there is no other thread, and
/// handing the work to the pool's only one would cost two changes of context.
fn alone(len: usize, least: usize) -> bool {
    len <= least || rayon::current_num_threads() == 1
}

/// Blocked kernels on all cores.
#[derive(Clone, Debug)]
pub struct Simd {
    dispatch: Dispatch,
    note: Option<String>,
}

impl Default for Simd {
    fn default() -> Self {
        Self::new()
    }
}

impl Simd {
    /// The fastest instruction set of this processor, looked up once a process, or the one that the
    /// environment variable `VEILSUM_ISA` names. If that one does not exist or is absent here, the fastest
    /// is taken and [`Backend::describe`] says why.
    #[must_use]
    pub fn new() -> Self {
        static CHOICE: OnceLock<(Isa, Option<String>)> = OnceLock::new();
        let (isa, note) = CHOICE.get_or_init(|| match std::env::var("VEILSUM_ISA") {
            Err(_) => (Isa::best(), None),
            Ok(name) => match Isa::from_name(name.trim()) {
                Ok(isa) => (isa, None),
                Err(error) => (Isa::best(), Some(format!("VEILSUM_ISA ignored: {error}"))),
            },
        });
        Self { dispatch: Dispatch::new(*isa), note: note.clone() }
    }

    /// A backend on a named instruction set, whatever the environment says.
    ///
    /// # Errors
    /// [`BackendError::Unavailable`] if this processor lacks it.
    pub fn with_isa(isa: Isa) -> Result<Self, BackendError> {
        Isa::from_name(isa.name()).map(|isa| Self { dispatch: Dispatch::new(isa), note: None })
    }

    /// The same backend, with a note for [`Backend::describe`].
    #[must_use]
    pub(super) fn with_note(self, note: &str) -> Self {
        let notes: Vec<&str> = self.note.iter().map(String::as_str).chain([note]).collect();
        Self { note: Some(notes.join("; ")), ..self }
    }

    /// The instruction set that its kernels run on.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.dispatch.isa()
    }

    /// Writes keystream bytes `[position, position + out.len())` of `key` over `out`, on one thread: the bytes
    /// of [`StreamKey::fill`], made one ChaCha block a lane.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] if they end beyond [`crate::math::prg::STREAM_BYTES`]; nothing is written.
    pub fn keystream(&self, key: &StreamKey, position: u64, out: &mut [u8]) -> Result<(), BackendError> {
        check::stream(position, out.len() as u64)?;
        keystream::fill(self.dispatch, key, position, out);
        Ok(())
    }

    /// `acc += x` of polynomials `[batch x L x N]`, coefficients or values, on rayon's threads. `acc` has to be reduced;
    /// x is checked on the way.
    ///
    /// # Errors
    /// The first row of x with a residue that is not below its prime, or with nothing but zeros; `acc` is as it was then.
    ///
    /// # Panics
    /// If `x` is not as long as `acc`, or they are no whole polynomials.
    pub fn add_polynomials(&self, acc: &mut [u32], x: &[u32], basis: &RnsBasis) -> Result<(), BadRow> {
        assert!(acc.len() == x.len() && x.len().is_multiple_of(basis.degree() * basis.limbs().len()), "lengths");
        sum::polynomials(self.dispatch, acc, x, basis)
    }

    /// Block j of a sum without the summed secret: `out = sum - a_j S`, `[L x N]` coefficients, with `minus` = `-S` and a_j
    /// as [`Backend::encrypt`] takes it from `expand`. On the caller's thread.
    ///
    /// # Panics
    /// If `sum` or `out` is no polynomial of the basis, `minus` of another basis, or the keystream too short for the block.
    pub fn open_block(
        &self,
        (basis, expand): (&RnsBasis, &StreamKey),
        minus: &LatticeSecret,
        j: usize,
        sum: &[u32],
        out: &mut [u32],
    ) {
        let len = basis.degree() * basis.limbs().len();
        assert!(sum.len() == len && out.len() == len && minus.belongs_to(basis), "lengths");
        encrypt::open(self.dispatch, (basis, expand), minus, j, sum, out);
    }
}

/// A row that [`Simd::add_polynomials`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its number: limb `row % L` of polynomial `row / L`.
    pub row: usize,
    /// Nothing but zeros; else some residue is not below the prime.
    pub zero: bool,
}

impl Backend for Simd {
    fn kind(&self) -> BackendKind {
        BackendKind::Simd
    }

    fn describe(&self) -> String {
        let threads = rayon::current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        let note = self.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
        format!("simd ({}, {threads} thread{plural}{note})", self.dispatch.isa())
    }

    fn clip(&self, x: &mut Buffer, params: &ClipParams) -> Result<Vec<f32>, BackendError> {
        clip::clip(self.dispatch, check::clip(x, params)?, params)
    }

    fn fwht(&self, x: &mut Buffer, params: &FwhtParams) -> Result<(), BackendError> {
        fwht::blocks(self.dispatch, check::fwht(x, params)?, params.block_log2, params.scale);
        Ok(())
    }

    fn encode_fixed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let mut out = Aligned::default();
        let report = encode::encode(self.dispatch, &check::rows(rows, job)?, job, Half::Fixed, &mut out)?;
        Ok((Buffer::HostI32(out.cast()), report))
    }

    fn encode_integer(&self, fixed: &Buffer, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let (words, report) = encode::integer(self.dispatch, check::fixed(fixed, job)?, job);
        Ok((Buffer::HostU32(words), report))
    }

    fn encode(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let mut out = Buffer::HostU32(Aligned::default());
        let report = self.encode_into(rows, job, &mut out)?;
        Ok((out, report))
    }

    fn encode_into(&self, rows: &Rows, job: &EncodeJob<'_>, out: &mut Buffer) -> Result<EncodeReport, BackendError> {
        let Buffer::HostU32(out) = out else {
            return Err(BackendError::WrongType { expected: "u32", found: out.dtype() });
        };
        encode::encode(self.dispatch, &check::rows(rows, job)?, job, Half::Words, out)
    }

    fn encode_packed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Packed, EncodeReport), BackendError> {
        encode::packed(self.dispatch, &check::rows(rows, job)?, job)
    }

    fn noise(&self, words: &mut Buffer, bits: u32, noise: &Noise, key: &StreamKey) -> Result<(), BackendError> {
        let words = check::noise(words, bits, noise)?;
        noise::add(self.dispatch, words, check::mask(bits), &noise::Law::new(noise), key);
        Ok(())
    }

    fn sum(&self, acc: &mut Buffer, rows: &Buffer, ring: Ring) -> Result<(), BackendError> {
        let (acc, rows) = check::sum(acc, rows, ring)?;
        sum::sum(self.dispatch, acc, rows, ring)
    }

    fn sum_packed(&self, acc: &mut Buffer, bytes: &[u8], bits: u32) -> Result<(), BackendError> {
        let acc = acc.as_u32_mut()?;
        check::packed(bytes, acc.len(), bits)?;
        pack::add(self.dispatch, bytes, bits, acc);
        Ok(())
    }

    fn mask(&self, words: &mut Buffer, ring: Ring, key: &StreamKey, sign: MaskSign) -> Result<(), BackendError> {
        mask::mask(self.dispatch, check::mask_words(words, ring)?, ring, &[(key, sign)])
    }

    fn mask_all(&self, words: &mut Buffer, ring: Ring, masks: &[(StreamKey, MaskSign)]) -> Result<(), BackendError> {
        let masks: Vec<_> = masks.iter().map(|(key, sign)| (key, *sign)).collect();
        mask::mask(self.dispatch, check::mask_words(words, ring)?, ring, &masks)
    }

    fn pack(&self, words: &Buffer, bits: u32) -> Result<Vec<u8>, BackendError> {
        check::bits(bits)?;
        Ok(pack::pack(self.dispatch, words.as_u32()?, bits))
    }

    fn unpack(&self, bytes: &[u8], len: usize, bits: u32) -> Result<Buffer, BackendError> {
        check::packed(bytes, len, bits)?;
        Ok(Buffer::HostU32(pack::unpack(self.dispatch, bytes, len, bits)))
    }

    fn decode_in_place(&self, sum: &mut Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<(), BackendError> {
        check::decode(sum, params)?;
        let mut x = sum.take_u32()?.cast();
        decode::decode(self.dispatch, &mut x, params, signs);
        x.resize(params.dim as usize);
        *sum = Buffer::HostF32(x);
        Ok(())
    }

    fn gram(&self, rows: &Rows) -> Result<Gram, BackendError> {
        gram::gram(self.dispatch, &check::gram(rows)?)
    }

    fn median(&self, rows: &Rows) -> Result<Vec<f32>, BackendError> {
        select::select(self.dispatch, &check::median(rows)?, select::Selection::Median)
    }

    fn trimmed_mean(&self, rows: &Rows, trim: usize) -> Result<Vec<f32>, BackendError> {
        select::select(self.dispatch, &check::trimmed(rows, trim)?, select::Selection::TrimmedMean(trim))
    }

    fn ghost_norms(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        params: &GhostParams,
    ) -> Result<Vec<f64>, BackendError> {
        let (a, g) = check::ghost(activations, gradients, params)?;
        ghost::norms(self.dispatch, a, g, params)
    }

    fn ghost_sum(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        coefficients: &[f32],
        params: &GhostParams,
    ) -> Result<Vec<f32>, BackendError> {
        let (a, g) = check::ghost(activations, gradients, params)?;
        check::coefficients(coefficients, params)?;
        ghost::sum(a, g, coefficients, params)
    }

    fn ntt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let x = check::lattice::transform(x, basis, |row| residues::largest(self.dispatch, row))?;
        ntt::rows(self.dispatch, x, basis, ntt::Direction::Forward);
        Ok(())
    }

    fn intt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let x = check::lattice::transform(x, basis, |row| residues::largest(self.dispatch, row))?;
        ntt::rows(self.dispatch, x, basis, ntt::Direction::Inverse);
        Ok(())
    }

    fn polymul(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let (a, b) = check::lattice::product(a, b, basis, |row| residues::largest(self.dispatch, row))?;
        polymul::polymul(self.dispatch, a, b, basis);
        Ok(())
    }

    fn pointwise(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let (a, b) = check::lattice::product(a, b, basis, |row| residues::largest(self.dispatch, row))?;
        polymul::pointwise(self.dispatch, a, b, basis);
        Ok(())
    }

    fn encrypt(&self, job: &EncryptJob<'_>) -> Result<Buffer, BackendError> {
        let message = check::lattice::encrypt(job, |x| residues::largest_of_all(self.dispatch, x))?;
        Ok(Buffer::HostU32(encrypt::encrypt(self.dispatch, job, message)))
    }
}
