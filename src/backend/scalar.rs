//! The oracle: naive, one thread, one file per stage, readable beside its formula.
//!
//! Float stages compute in `f64` and round to `f32` once at the end, so that they are the better
//! number in every comparison; integer stages use arithmetic wide enough to be exact.

pub mod binomial;
pub mod clip;
pub mod decode;
pub mod encode;
pub mod encrypt;
pub mod fwht;
pub mod ghost;
pub mod gram;
pub mod mask;
pub mod noise;
pub mod ntt;
pub mod pack;
pub mod polymul;
pub mod select;
pub mod sum;

use super::{
    Backend, BackendError, BackendKind, Buffer, EncodeJob, EncodeReport, EncryptJob, Gram, MaskSign, Rows, check,
};
use crate::math::ntt::RnsBasis;
use crate::math::prg::StreamKey;
use crate::params::{ClipParams, DecodeParams, FwhtParams, GhostParams, Ring};
use crate::sample::noise::Noise;

/// The naive oracle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

impl Backend for Scalar {
    fn kind(&self) -> BackendKind {
        BackendKind::Scalar
    }

    fn describe(&self) -> String {
        "scalar (the naive oracle, 1 thread)".into()
    }

    fn clip(&self, x: &mut Buffer, params: &ClipParams) -> Result<Vec<f32>, BackendError> {
        clip::clip(check::clip(x, params)?, params)
    }

    fn fwht(&self, x: &mut Buffer, params: &FwhtParams) -> Result<(), BackendError> {
        for block in check::fwht(x, params)?.chunks_exact_mut(1 << params.block_log2) {
            let mut wide: Vec<f64> = block.iter().map(|&v| f64::from(v)).collect();
            fwht::fwht(&mut wide);
            for (y, v) in block.iter_mut().zip(wide) {
                *y = (f64::from(params.scale) * v) as f32;
            }
        }
        Ok(())
    }

    fn encode_fixed(&self, rows: &Rows, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let mut fixed = Vec::new();
        let mut report = EncodeReport::default();
        check::rows_shape(rows, job)?;
        for i in 0..rows.rows {
            let (coordinates, seen) = encode::fixed_row(i, &rows.widened(i)?, job)?;
            fixed.extend(coordinates);
            report.merge(&seen);
        }
        Ok((fixed.into(), report))
    }

    fn encode_integer(&self, fixed: &Buffer, job: &EncodeJob<'_>) -> Result<(Buffer, EncodeReport), BackendError> {
        let mut words = Vec::new();
        let mut report = EncodeReport::default();
        for (row, keys) in check::fixed(fixed, job)?.chunks_exact(job.params.padded as usize).zip(job.keys) {
            let (coordinates, seen) = encode::integer_row(row, keys, job);
            words.extend(coordinates);
            report.merge(&seen);
        }
        Ok((words.into(), report))
    }

    fn noise(&self, words: &mut Buffer, bits: u32, noise: &Noise, key: &StreamKey) -> Result<(), BackendError> {
        for (j, word) in check::noise(words, bits, noise)?.iter_mut().enumerate() {
            *word = word.wrapping_add(noise::draw(noise, key, j) as u32) & check::mask(bits);
        }
        Ok(())
    }

    fn sum(&self, acc: &mut Buffer, rows: &Buffer, ring: Ring) -> Result<(), BackendError> {
        let (acc, rows) = check::sum(acc, rows, ring)?;
        check::residues("acc", acc, ring)?;
        check::residues("rows", rows, ring)?;
        sum::sum(acc, rows, ring);
        Ok(())
    }

    fn mask(&self, words: &mut Buffer, ring: Ring, key: &StreamKey, sign: MaskSign) -> Result<(), BackendError> {
        let words = check::mask_words(words, ring)?;
        check::residues("words", words, ring)?;
        mask::mask(words, ring, key, sign);
        Ok(())
    }

    fn pack(&self, words: &Buffer, bits: u32) -> Result<Vec<u8>, BackendError> {
        check::bits(bits)?;
        Ok(pack::pack(words.as_u32()?, bits))
    }

    fn unpack(&self, bytes: &[u8], len: usize, bits: u32) -> Result<Buffer, BackendError> {
        check::packed(bytes, len, bits)?;
        Ok(pack::unpack(bytes, len, bits).into())
    }

    fn decode_in_place(&self, sum: &mut Buffer, params: &DecodeParams, signs: &StreamKey) -> Result<(), BackendError> {
        *sum = decode::decode(check::decode(sum, params)?, params, signs).into();
        Ok(())
    }

    fn gram(&self, rows: &Rows) -> Result<Gram, BackendError> {
        let rows = check::gram(rows)?;
        check::finite_rows(&rows)?;
        let products = gram::triangle(&rows, gram::product);
        Ok(Gram::from_triangles(rows.len(), &products, &gram::triangle(&rows, gram::distance2)))
    }

    fn median(&self, rows: &Rows) -> Result<Vec<f32>, BackendError> {
        let slices = check::median(rows)?;
        check::finite_rows(&slices)?;
        Ok((0..rows.dim).map(|j| select::median(&select::sorted(&slices, j))).collect())
    }

    fn trimmed_mean(&self, rows: &Rows, trim: usize) -> Result<Vec<f32>, BackendError> {
        let slices = check::trimmed(rows, trim)?;
        check::finite_rows(&slices)?;
        Ok((0..rows.dim).map(|j| select::trimmed_mean(&select::sorted(&slices, j), trim)).collect())
    }

    fn ghost_norms(
        &self,
        activations: &Buffer,
        gradients: &Buffer,
        params: &GhostParams,
    ) -> Result<Vec<f64>, BackendError> {
        let (a, g) = check::ghost(activations, gradients, params)?;
        check::finite_samples(a, g, params)?;
        Ok(ghost::norms(a, g, params))
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
        check::finite_samples(a, g, params)?;
        let sum = ghost::sum(a, g, coefficients, params);
        check::within_f32(&sum)?;
        Ok(sum)
    }

    fn ntt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let x = check::lattice::transform(x, basis, largest)?;
        each_row(x, basis, |x, limb| ntt::ntt(x, &basis.limbs()[limb]));
        Ok(())
    }

    fn intt(&self, x: &mut Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let x = check::lattice::transform(x, basis, largest)?;
        each_row(x, basis, |x, limb| ntt::intt(x, &basis.limbs()[limb]));
        Ok(())
    }

    fn polymul(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let (a, b) = check::lattice::product(a, b, basis, largest)?;
        let mut factors = b.chunks_exact(basis.degree()).cycle();
        each_row(a, basis, |a, limb| {
            polymul::polymul(a, factors.next().unwrap_or_default(), basis.limbs()[limb].modulus());
        });
        Ok(())
    }

    fn pointwise(&self, a: &mut Buffer, b: &Buffer, basis: &RnsBasis) -> Result<(), BackendError> {
        let (a, b) = check::lattice::product(a, b, basis, largest)?;
        let mut factors = b.chunks_exact(basis.degree()).cycle();
        each_row(a, basis, |a, limb| {
            polymul::pointwise(a, factors.next().unwrap_or_default(), basis.limbs()[limb].modulus());
        });
        Ok(())
    }

    fn encrypt(&self, job: &EncryptJob<'_>) -> Result<Buffer, BackendError> {
        let message = check::lattice::encrypt(job, largest)?;
        Ok(encrypt::encrypt(job, message).into())
    }
}

fn largest(row: &[u32]) -> u32 {
    row.iter().copied().max().unwrap_or(0)
}

/// Calls `stage` with every row of N residues and the limb that it belongs to.
fn each_row(x: &mut [u32], basis: &RnsBasis, mut stage: impl FnMut(&mut [u32], usize)) {
    for (i, row) in x.chunks_exact_mut(basis.degree()).enumerate() {
        stage(row, i % basis.limbs().len());
    }
}
