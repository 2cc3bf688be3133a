//! Buffers, `trait Backend`, and `open()`: the only file that knows every backend.
//!
//! A verb is the name of a pipeline stage. Integer stages are bit-equal on every backend; float
//! stages agree to a stated bound with `backend/scalar`, the oracle.

mod buffer;
mod check;
pub mod cuda;
pub mod device;
mod error;
mod gram;
mod job;
mod lattice;
pub mod probe;
mod rows;
pub mod scalar;
mod shrink;
pub mod simd;
pub mod wgpu;

use std::fmt;
use std::sync::{Arc, OnceLock};

pub use half::{bf16, f16};

pub use self::buffer::{Aligned, Buffer};
pub use self::error::BackendError;
pub use self::gram::Gram;
pub use self::job::{EncodeJob, EncodeReport, NonFinite, Packed, RowKeys};
pub use self::lattice::{EncryptJob, LatticeSecret, SECRET_ETA};
pub use self::rows::Rows;
pub use self::scalar::pack::packed_len;
use crate::math::ntt::RnsBasis;
use crate::math::prg::StreamKey;
use crate::params::{ClipParams, DecodeParams, FwhtParams, GhostParams, Ring};
use crate::sample::noise::Noise;

/// The backends that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// The naive oracle, one thread.
    Scalar,
    /// Blocked kernels on all cores of the CPU.
    Simd,
    /// Shaders on a GPU: Vulkan, Metal or DX12.
    Wgpu,
    /// CUDA kernels on a GPU.
    Cuda,
}

impl BackendKind {
    /// The name used in configs and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Simd => "simd",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        }
    }
}

/// What [`Backend::mask`] does with the keystream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskSign {
    /// Hides.
    Add,
    /// Undoes, or hides from the other side of a pair.
    Subtract,
}

/// A machine that runs the stages of the pipeline. Object safe; held as `Arc<dyn Backend>`.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Which backend this is.
    fn kind(&self) -> BackendKind;

    /// One line for people: what it runs on (ISA, threads, device name).
    fn describe(&self) -> String;

    /// A copy of a host buffer where the verbs run: on the device of a GPU backend, else the same. A buffer that is
    /// there already is shared. Errors: no room, a buffer of another device.
    fn upload(&self, x: &Buffer) -> Result<Buffer, BackendError> {
        on_host(x)
    }

    /// A copy on the host. Waits for what is still being computed. Errors: those of an earlier launch, a buffer of
    /// another device.
    fn download(&self, x: &Buffer) -> Result<Buffer, BackendError> {
        on_host(x)
    }

    /// The buffer on the host: itself if it is there, else [`Self::download`].
    fn to_host(&self, x: Buffer) -> Result<Buffer, BackendError> {
        if matches!(x, Buffer::Device(_)) { self.download(&x) } else { Ok(x) }
    }

    /// The device of a GPU backend; the host has none.
    fn device(&self) -> Option<&(dyn device::Device + 'static)> {
        None
    }

    /// Waits until all verbs called so far have run. Errors: what went wrong since an error was last returned.
    fn finish(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Clips every row in place to L2 norm `params.bound` and returns the norms before the clip.
    ///
    /// `x_i <- x_i * min(1, C / |x_i|)`. Norms are accumulated so that their relative error is
    /// below 1e-6 up to d = 2^28. Errors: non-finite input (names the row), bound not positive, rows of half precision: a
    /// product rounded back to 11 or 8 bits may exceed the bound, so that these are clipped inside `encode`.
    fn clip(&self, x: &mut Buffer, params: &ClipParams) -> Result<Vec<f32>, BackendError>;

    /// Walsh-Hadamard transform in place: `y = scale * H x` on each block, natural (Sylvester) order.
    fn fwht(&self, x: &mut Buffer, params: &FwhtParams) -> Result<(), BackendError>;

    /// The float half of `encode`: clip, pad, signs, block FWHT, scale, truncation toward zero to
    /// fixed point with F fraction bits (saturating). Returns `[rows x padded]` `i32`.
    ///
    /// Rows are `f32`, `f16` or `bf16`. Half precision is widened where a coordinate is read, which is exact: the result
    /// has the bits of the same rows in `f32`, and no copy of them is made.
    fn encode_fixed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError>;

    /// The integer half of `encode`: coordinate clamp, exact norm check and shrink, stochastic
    /// rounding, noise, wrap mod `2^b`. Returns `[rows x padded]` `u32`; bit-identical everywhere.
    fn encode_integer(&self, fixed: &Buffer, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError>;

    /// `encode_integer(encode_fixed(rows))`; a backend may fuse the two halves, bits unchanged
    /// given the same fixed-point coordinates.
    fn encode(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let (fixed, mut report) = self.encode_fixed(rows, job)?;
        let (words, second) = self.encode_integer(&fixed, job)?;
        report.merge(&second);
        Ok((words, report))
    }

    /// `encode` into memory that an earlier call has filled: a round needs no new pages. `out` holds words; what
    /// was in it is lost, unless an error is returned.
    fn encode_into(&self, rows: &Rows, job: &EncodeJob<'_>, out: &mut Buffer) -> Result<EncodeReport, BackendError> {
        if out.dtype() != "u32" {
            return Err(BackendError::WrongType { expected: "u32", found: out.dtype() });
        }
        let (words, report) = self.encode(rows, job)?;
        *out = words;
        Ok(report)
    }

    /// `encode`, then `pack` of every row; a backend may fuse the two.
    fn encode_packed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Packed, EncodeReport), BackendError> {
        let (words, report) = self.encode(rows, job)?;
        let padded = job.params.padded as usize;
        let mut packed = Packed { bytes: Vec::new(), row_bytes: packed_len(padded, job.params.bits) };
        for row in words.as_u32()?.chunks_exact(padded) {
            packed.bytes.extend(self.pack(&Buffer::HostU32(row.into()), job.params.bits)?);
        }
        Ok((packed, report))
    }

    /// Adds noise to every word mod `2^bits`. Coordinate `j` uses the bytes of `key` at `NOISE_STRIDE * j` with
    /// a table, and those that `scalar::binomial` says with a centred binomial. The same bits as `encode`
    /// with that law and key on a zero row.
    ///
    /// Errors: bits out of range, more coordinates than [`Noise::capacity`].
    fn noise(&self, words: &mut Buffer, bits: u32, noise: &Noise, key: &StreamKey) -> Result<(), BackendError>;

    /// Adds each of the rows in `rows` (each as long as `acc`) to `acc` in `ring`.
    ///
    /// Errors: a ring out of range, rows that are no whole number of accumulators.
    fn sum(&self, acc: &mut Buffer, rows: &Buffer, ring: Ring) -> Result<(), BackendError>;

    /// Adds the row that [`Backend::pack`] has packed to `acc` mod `2^bits`, without its words in memory where the backend
    /// can.
    ///
    /// Errors: those of `unpack` for as many words as `acc` has.
    fn sum_packed(&self, acc: &mut Buffer, bytes: &[u8], bits: u32) -> Result<(), BackendError> {
        let row = self.unpack(bytes, acc.len(), bits)?;
        self.sum(acc, &row, Ring::Bits(bits))
    }

    /// The low `bits` bits of every word side by side: word `j` in bits `[b j, b (j + 1))`, least significant
    /// first, the unused bits of the last byte zero; `ceil(b len / 8)` bytes, the form that travels.
    fn pack(&self, words: &Buffer, bits: u32) -> Result<Vec<u8>, BackendError>;

    /// The `len` words that [`Backend::pack`] wrote. Errors: another number of bytes, a one in an unused bit.
    fn unpack(&self, bytes: &[u8], len: usize, bits: u32) -> Result<Buffer, BackendError>;

    /// Adds or subtracts a keystream in `ring`: word `j` plus or minus `k_j`. Subtracting undoes adding.
    ///
    /// `k_j` comes from the bytes `[s j, s (j + 1))` of the keystream, s = [`Ring::mask_bytes`]: mod `2^b` it is their
    /// little-endian number (s is 1, 2 or 4, as b needs); mod p it is `floor(U p / 2^128)` with U the 16 bytes, within
    /// `p 2^-128 < 2^-97` of uniform (total variation).
    ///
    /// Errors: a ring out of range, a residue that is not below p (names the first), more words than one key
    /// serves.
    fn mask(&self, words: &mut Buffer, ring: Ring, key: &StreamKey, sign: MaskSign) -> Result<(), BackendError>;

    /// [`Backend::mask`] with one key after another: the masks of a vector that has many, in one pass over it where the
    /// backend can.
    ///
    /// Errors: those of `mask`; a device that fails meanwhile leaves the words with some of the masks.
    fn mask_all(&self, words: &mut Buffer, ring: Ring, masks: &[(StreamKey, MaskSign)]) -> Result<(), BackendError> {
        masks.iter().try_for_each(|(key, sign)| self.mask(words, ring, key, *sign))
    }

    /// Centres a sum into `(-2^(b-1), 2^(b-1)]`, undoes the rotation and the scale, cuts the padding:
    /// `x = unit * signs * H^T centre(sum)`. The buffer of words becomes one of `dim` floats, in the same memory where
    /// the backend can.
    ///
    /// With k the block's log2, a coordinate is off by at most `(k + 4) 2^-24 |x|_2` (x with its padding), and by `2^-149`
    /// where it is denormal. Errors: bits out of range, a sum that is not `padded` words, a unit that is not finite; the
    /// sum is left as it was then.
    fn decode_in_place(&self, sum: &mut Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<(), BackendError>;

    /// `decode_in_place` on a copy.
    fn decode(&self, sum: &Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<Vec<f32>, BackendError> {
        let mut x = sum.clone();
        self.decode_in_place(&mut x, params, signs)?;
        Ok(self.download(&x)?.as_f32()?.to_vec())
    }

    /// Inner products and squared distances of all pairs of n rows.
    ///
    /// Products of two `f32` are exact in `f64` and are added there, so nothing over- or underflows, and with
    /// E = (1031 + d / 2^13) 2^-53 a product is off by at most `E sum_l |x_il x_jl|`. A distance is
    /// `G_ii + G_jj - 2 G_ij` where that exceeds `2^-16 (G_ii + G_jj)`, and is summed from the differences of the
    /// rows elsewhere: its relative error is below `2^18 E` (7e-8 at d = 10^7) whatever the rows have in common
    /// and whatever the other rows hold, and equal rows are at distance exactly 0. Rows are not centered first: one
    /// hostile row would move the mean and take the digits of all others ([`Gram::centered`] centers afterwards).
    /// The result depends neither on the instruction set nor on the number of threads.
    ///
    /// Errors: NaN or an infinity (names the row), no row or more than 2^11, rows without coordinates.
    fn gram(&self, rows: &Rows) -> Result<Gram, BackendError>;

    /// Median of every coordinate over n rows; for even n half the sum of the two middle values, rounded once.
    ///
    /// -0 counts as 0: a result is -0 only where half a negative denormal rounds to it. The same bits on every
    /// backend.
    ///
    /// Errors: NaN or an infinity (names the row), no row or more than 2^15, rows without coordinates.
    fn median(&self, rows: &Rows) -> Result<Vec<f32>, BackendError>;

    /// Mean of every coordinate over n rows without its `trim` least and `trim` greatest values: the kept values
    /// are added in ascending order in `f64`, the sum divided there and rounded to `f32`.
    ///
    /// -0 counts as 0. The same bits on every backend. Errors: as `median`, and unless `2 trim < n`.
    fn trimmed_mean(&self, rows: &Rows, trim: usize) -> Result<Vec<f32>, BackendError>;

    /// Squared L2 norm of every sample's gradient of a linear layer, `sum_t a_t g_t^T`, without storing the
    /// gradients of all samples (ghost clipping: Li et al. 2022, section 4; Bu et al. 2022).
    ///
    /// T = 1: `|a|^2 |g|^2`. T > 1: `sum_tt' <a_t, a_t'> <g_t, g_t'>`, or from the one sample's gradient where
    /// that takes fewer products ([`GhostParams::materializes`]). A bias adds 1 to `<a_t, a_t'>`. The caller adds
    /// the squared norms of a model's layers; they are `f64`, never negative, and off by at most
    /// `2^-40 (sum_t |a_t| |g_t|)^2`. Errors: shapes, NaN or an infinity (the row is the sample).
    fn ghost_norms(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        params: &GhostParams,
    ) -> Result<Vec<f64>, BackendError>;

    /// `A^T diag(c) G` over all positions, c the coefficient of the position's sample: the clipped sum of ghost
    /// clipping with book-keeping (Bu et al. 2023). Returns `[(inputs + bias) x outputs]` row by row, the bias last.
    ///
    /// With K = samples * positions an entry is off by at most `(260 + K / 256) 2^-24 sum |c a g|`, plus
    /// `2^-149 sum (1 + |a|)` where products are denormal. Errors: shapes, a coefficient that is not finite, NaN or
    /// an infinity (the row is the sample), a product `c g` or a partial sum beyond the largest `f32`.
    fn ghost_sum(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        coefficients: &[f32],
        params: &GhostParams,
    ) -> Result<Vec<f32>, BackendError>;

    /// Negacyclic transform in place of every polynomial of `x`, laid out `[batch x L x N]` (limb l of a
    /// polynomial is a row of N residues below prime l of the basis).
    ///
    /// `A[i] = sum_j a[j] psi^(j (2 brv(i) + 1)) mod p`: natural order in, bit-reversed order out, fully reduced,
    /// the same bits everywhere (see [`crate::math::ntt`]). Errors: not u32, not whole polynomials, a residue that
    /// is not reduced (names the place); nothing is written then.
    fn ntt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError>;

    /// The inverse of [`Self::ntt`]: bit-reversed order in, coefficients out. Errors likewise.
    fn intt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError>;

    /// `a <- a b mod (X^N + 1, Q)`, coefficients in and out, layout as for [`Self::ntt`]. `b` has as many
    /// polynomials as `a`, or one that multiplies all of them. Errors likewise.
    fn polymul(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError>;

    /// `a <- a b` entry by entry: the product of transformed polynomials. Shapes and errors as for
    /// [`Self::polymul`].
    fn pointwise(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError>;

    /// One-shot encryption: `c_j = a_j s + e_j + 2^o sum_(z < k) 2^(w z) m_(j,z) mod Q`, returned as coefficients,
    /// `[blocks x L x N]`, blocks = ceil(len / (k N)), fully reduced, the same bits everywhere.
    ///
    /// - Coefficient i of `m_(j,z)` is value `j N k + z N + i` of the message; a short last block is filled with
    ///   zeros.
    /// - a_j is public and made in the transformed domain: residue i of limb l is `floor(U p / 2^64)`, U the 8 bytes
    ///   at `8 ((j L + l) N + i)` of `expand`, little-endian. A probability deviates from 1/p by less than `2^-64`, by
    ///   a factor of at most `1 +- p 2^-64`; the Renyi divergence of order 2 of M residues from uniform ones is at most
    ///   `(1 + p^2 2^-128)^M <= exp(M 2^-68)`.
    /// - Coefficient i of e_j is coordinate `j N + i` of CBD(eta) under `error` (see [`Self::noise`]), the same integer
    ///   in every limb.
    ///
    /// The time depends on the shapes alone, not on s, e or m. Not guaranteed: that a sum of ciphertexts can be opened
    /// (the caller picks o for its number of clients), and security below two honest clients in a sum.
    ///
    /// Errors: a secret of another basis, slots that do not fit `floor(log2 Q)` bits, parameters out of range, a value of the
    /// message not below `2^w` (does not say which), more blocks than a key has keystream.
    fn encrypt(&self, job: &EncryptJob<'_>) -> Result<Buffer, BackendError>;
}

/// What a host backend does with a buffer that it is asked to move.
fn on_host(x: &Buffer) -> Result<Buffer, BackendError> {
    match x {
        Buffer::Device(_) => {
            Err(BackendError::WrongPlace { found: "a device".into(), expected: "the host: download it there".into() })
        }
        host => Ok(host.clone()),
    }
}

/// How [`open_with`] picks a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Takes a software adapter (a GPU played by the CPU, many times slower than `simd`) where there is no
    /// other: for tests.
    pub allow_software: bool,
    /// Which of several devices that are as good, from 0; beyond the last it begins again. Processes that share a machine take
    /// one each.
    pub device: usize,
}

impl OpenOptions {
    /// The variable of the environment that sets `allow_software` if it is `1`.
    pub const ALLOW_SOFTWARE: &str = "VEILSUM_ALLOW_SOFTWARE";

    /// The same, with a software adapter if that is asked for.
    #[must_use]
    pub const fn or_software(self, asked: bool) -> Self {
        Self { allow_software: self.allow_software || asked, ..self }
    }

    /// The options of the environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self { allow_software: std::env::var(Self::ALLOW_SOFTWARE).is_ok_and(|v| v == "1"), device: 0 }
    }
}

/// Opens a backend with the options of the environment; `None` picks the fastest that this machine has.
pub fn open(kind: Option<BackendKind>) -> Result<Arc<dyn Backend>, BackendError> {
    open_with(kind, &OpenOptions::from_env())
}

/// Opens a backend; `None` picks the fastest that this machine has: CUDA, else a GPU over wgpu, else all cores of the
/// CPU, whose [`Backend::describe`] then says why there is no GPU.
pub fn open_with(kind: Option<BackendKind>, options: &OpenOptions) -> Result<Arc<dyn Backend>, BackendError> {
    let Some(kind) = kind else { return open_best(options) };
    match kind {
        BackendKind::Scalar => Ok(Arc::new(scalar::Scalar)),
        BackendKind::Simd => Ok(Arc::new(simd::Simd::new())),
        BackendKind::Wgpu => Ok(Arc::new(device::DeviceBackend::new(Arc::new(wgpu::Wgpu::open(options)?)))),
        BackendKind::Cuda => Ok(Arc::new(device::DeviceBackend::new(Arc::new(cuda::Cuda::open_any(options.device)?)))),
    }
}

/// The first GPU backend that opens, or the CPU with the reasons of the others.
fn open_best(options: &OpenOptions) -> Result<Arc<dyn Backend>, BackendError> {
    // A driver that is absent stays absent: it is asked once a process, which takes longer than opening the CPU.
    static ABSENT: OnceLock<String> = OnceLock::new();
    if let (Some(reasons), false) = (ABSENT.get(), options.allow_software) {
        return Ok(Arc::new(simd::Simd::new().with_note(reasons)));
    }
    let mut reasons = Vec::new();
    for kind in [BackendKind::Cuda, BackendKind::Wgpu] {
        match open_with(Some(kind), options) {
            Ok(backend) => return Ok(backend),
            Err(BackendError::Unavailable { name, reason }) => reasons.push(format!("no {name}: {reason}")),
            Err(other) => reasons.push(format!("no {}: {other}", kind.name())),
        }
    }
    let reasons = reasons.join("; ");
    let simd = simd::Simd::new().with_note(&reasons);
    ABSENT.get_or_init(|| reasons);
    Ok(Arc::new(simd))
}
