//! How the calls of the table are made: buffers and keys once, the call many times.

use std::hint::black_box;
use std::sync::Arc;

use bytemuck::Zeroable;

use super::{Body, Shape};
use crate::backend::simd::Simd;
use crate::backend::{
    Aligned, BackendKind, Buffer, EncodeJob, EncryptJob, LatticeSecret, MaskSign, NonFinite, RowKeys, Rows, bf16, f16,
};
use crate::bench::BenchError;
use crate::bench::request::Target;
use crate::math::ntt::RnsBasis;
use crate::math::prg::{Cipher, StreamKey};
use crate::math::primes;
use crate::params::{ClipParams, DecodeParams, EncodeParams, EncryptParams, FwhtParams, GhostParams, NO_LINF, Ring};
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;

type Opened = Result<Body, BenchError>;

/// Ring width of the stages on words.
const BITS: u32 = 16;

/// A public key; the bench has no secrets.
fn stream(n: u8) -> StreamKey {
    StreamKey::from_bytes([n; 32], Cipher::ChaCha20)
}

/// Words without a pattern that a branch predictor or a cache could use.
fn words(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i ^ i >> 15).wrapping_mul(0x9e37_79b1)).collect()
}

/// Floats in [-1, 1).
fn floats(len: usize) -> Vec<f32> {
    words(len).into_iter().map(|w| w as i32 as f32 / (1u64 << 31) as f32).collect()
}

/// The largest prime below 2^30 that is 1 mod 2^16.
const PRIME: u32 = 1_073_479_681;

/// Residues mod `p`.
fn residues(len: usize, p: u32) -> Vec<u32> {
    words(len).into_iter().map(|w| w % p).collect()
}

/// The rows of a stage, where it runs.
fn dense(target: &Target, shape: &Shape) -> Result<Rows, BenchError> {
    let buffer = target.place(floats(shape.elements()))?;
    Ok(Rows { buffer, offset: 0, stride: shape.dim, rows: shape.rows, dim: shape.dim })
}

/// `--size` is at most 2^27, and so is the product with the rows: see `request`.
const fn int(n: usize) -> u32 {
    n as u32
}

pub(super) fn clip(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let fresh = floats(shape.elements());
    let mut x = target.place(fresh.clone())?;
    let again = target.clone();
    let first = fresh.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    let mut bound = first;
    let (rows, dim) = (int(shape.rows), int(shape.dim));
    Ok(Box::new(move || {
        // A little less each time, so that every call has every row to scale; once in a million calls the
        // rows start again, long before they are denormal.
        bound *= 1.0 - 1.0 / 65536.0;
        if bound < first * 1e-9 {
            bound = first;
            x = again.place(fresh.clone())?;
        }
        let norms = backend.clip(&mut x, &ClipParams { rows, dim, stride: dim, bound })?;
        black_box(norms);
        Ok(())
    }))
}

pub(super) fn fwht(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let mut x = target.place(floats(shape.elements()))?;
    let params = FwhtParams {
        len: int(shape.elements()),
        block_log2: shape.dim.ilog2(),
        scale: (shape.dim as f32).sqrt().recip(),
        _pad: 0,
    };
    Ok(Box::new(move || Ok(backend.fwht(black_box(&mut x), &params)?)))
}

pub(super) fn encode(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let wide = floats(shape.elements());
    let buffer: Buffer = match shape.variant {
        "f16" => wide.into_iter().map(f16::from_f32).collect::<Vec<_>>().into(),
        "bf16" => wide.into_iter().map(bf16::from_f32).collect::<Vec<_>>().into(),
        _ => wide.into(),
    };
    let rows = Rows::side_by_side(target.place(buffer)?, shape.rows, shape.dim)?;
    let key = |row: usize| RowKeys { rounding: stream(row as u8), noise: stream(!(row as u8)) };
    let keys: Vec<RowKeys> = (0..shape.rows).map(key).collect();
    let signs = stream(3);
    let mut out = Buffer::HostU32(Aligned::default());
    let packed = shape.variant == "packed";
    let noise = match shape.variant {
        "skellam" => Some(law("skellam-5.95")?),
        "binomial" => Some(law("binomial-12")?),
        _ => None,
    };
    let params = EncodeParams {
        dim: int(shape.dim),
        padded: int(shape.dim),
        block_log2: shape.dim.ilog2(),
        rotate: 1,
        bits: BITS,
        fraction_bits: 16,
        linf: NO_LINF,
        gamma: 64.0,
        clip: 1.0,
        // (gamma C 2^F)^2.
        norm_bound: EncodeParams::limbs(1 << 44),
        ..EncodeParams::zeroed()
    };
    Ok(Box::new(move || {
        let noise = noise.as_ref();
        // As in a private round.
        let job = EncodeJob { params, signs: &signs, keys: &keys, noise, non_finite: NonFinite::ZeroRow };
        if packed {
            black_box(backend.encode_packed(black_box(&rows), &job)?);
        } else {
            black_box(backend.encode_into(black_box(&rows), &job, &mut out)?);
        }
        Ok(())
    }))
}

/// The law of a variant of `noise`.
fn law(variant: &str) -> Result<Noise, BenchError> {
    Ok(match variant {
        // Variance k / 2.
        "binomial-12" => Noise::Binomial(CentredBinomial::new(24)?),
        "skellam-5.95" => NoiseTable::skellam(5.95)?.into(),
        _ => NoiseTable::skellam(1428.0)?.into(),
    })
}

pub(super) fn keystream(target: &Target, shape: &Shape) -> Opened {
    let cipher = if shape.variant == "chacha8" { Cipher::ChaCha8 } else { Cipher::ChaCha20 };
    let key = StreamKey::from_bytes([5; 32], cipher);
    let mut out = vec![0u8; shape.elements()];
    // No verb of a backend: the oracle is the stream itself.
    if target.backend.kind() == BackendKind::Scalar {
        return Ok(Box::new(move || {
            key.fill(0, black_box(&mut out));
            Ok(())
        }));
    }
    let simd = Simd::with_isa(target.isa)?;
    Ok(Box::new(move || Ok(simd.keystream(&key, 0, black_box(&mut out))?)))
}

pub(super) fn noise(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let law = law(shape.variant)?;
    let mut x = target.place(words(shape.elements()))?;
    let key = stream(4);
    Ok(Box::new(move || Ok(backend.noise(black_box(&mut x), 32, &law, &key)?)))
}

pub(super) fn pack(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let x = target.place(words(shape.elements()))?;
    Ok(Box::new(move || {
        black_box(backend.pack(black_box(&x), BITS)?);
        Ok(())
    }))
}

pub(super) fn unpack(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let len = shape.elements();
    let bytes = backend.pack(&target.place(words(len))?, BITS)?;
    Ok(Box::new(move || {
        black_box(backend.unpack(black_box(&bytes), len, BITS)?);
        Ok(())
    }))
}

pub(super) fn sum(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let (data, ring) = match shape.variant {
        "modular" => (residues(shape.elements(), PRIME), Ring::Prime(PRIME)),
        _ => (words(shape.elements()), Ring::Bits(BITS)),
    };
    let rows = target.place(data)?;
    let mut acc = target.place(vec![0u32; shape.dim])?;
    Ok(Box::new(move || Ok(backend.sum(black_box(&mut acc), &rows, ring)?)))
}

pub(super) fn decode(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let mut sum = target.place(words(shape.elements()))?;
    let signs = stream(3);
    let params = DecodeParams {
        dim: int(shape.dim),
        padded: int(shape.dim),
        block_log2: shape.dim.ilog2(),
        rotate: 1,
        bits: BITS,
        unit: 1.0 / 64.0,
        _pad: [0; 2],
    };
    Ok(Box::new(move || {
        backend.decode_in_place(black_box(&mut sum), &params, &signs)?;
        // The bits of the floats are as good a sum as any.
        sum = std::mem::replace(&mut sum, Buffer::from(Vec::<u32>::new())).into_bits();
        Ok(())
    }))
}

pub(super) fn ntt(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let basis = RnsBasis::new(shape.dim, &[PRIME])?;
    let mut x = target.place(residues(shape.elements(), PRIME))?;
    Ok(Box::new(move || Ok(backend.ntt(black_box(&mut x), &basis)?)))
}

pub(super) fn intt(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let basis = RnsBasis::new(shape.dim, &[PRIME])?;
    let mut x = target.place(residues(shape.elements(), PRIME))?;
    Ok(Box::new(move || Ok(backend.intt(black_box(&mut x), &basis)?)))
}

pub(super) fn polymul(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let basis = RnsBasis::new(shape.dim, &[PRIME])?;
    let mut a = target.place(residues(shape.elements(), PRIME))?;
    let b = a.clone();
    Ok(Box::new(move || Ok(backend.polymul(black_box(&mut a), &b, &basis)?)))
}

pub(super) fn gram(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let rows = dense(target, shape)?;
    Ok(Box::new(move || {
        black_box(backend.gram(black_box(&rows))?);
        Ok(())
    }))
}

pub(super) fn median(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let rows = dense(target, shape)?;
    Ok(Box::new(move || {
        black_box(backend.median(black_box(&rows))?);
        Ok(())
    }))
}

pub(super) fn trimmed_mean(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let rows = dense(target, shape)?;
    let trim = shape.rows / 5;
    Ok(Box::new(move || {
        black_box(backend.trimmed_mean(black_box(&rows), trim)?);
        Ok(())
    }))
}

pub(super) fn ghost(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let positions = super::positions(shape.variant);
    let activations = target.place(floats(shape.elements() * positions))?;
    let gradients = activations.clone();
    let params = GhostParams::new(int(shape.rows), int(positions), int(shape.dim), int(shape.dim)).without_bias();
    if shape.variant == "sum" {
        let coefficients = vec![0.5; shape.rows];
        return Ok(Box::new(move || {
            black_box(backend.ghost_sum(black_box(&activations), &gradients, &coefficients, &params)?);
            Ok(())
        }));
    }
    Ok(Box::new(move || {
        black_box(backend.ghost_norms(black_box(&activations), &gradients, &params)?);
        Ok(())
    }))
}

pub(super) fn mask(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let (data, ring) = match shape.variant {
        "modular" => (residues(shape.elements(), PRIME), Ring::Prime(PRIME)),
        _ => (words(shape.elements()), Ring::Bits(BITS)),
    };
    let mut x = target.place(data)?;
    let key = stream(6);
    Ok(Box::new(move || Ok(backend.mask(black_box(&mut x), ring, &key, MaskSign::Add)?)))
}

pub(super) fn encrypt(target: &Target, shape: &Shape) -> Opened {
    let backend = Arc::clone(&target.backend);
    let primes: Vec<u32> = primes::ntt_friendly(16).take(2).collect();
    let basis = RnsBasis::new(shape.dim, &primes)?;
    let params = EncryptParams { slots: 2, width: 20, offset: 16, eta: 21 };
    let secret = LatticeSecret::sample(&*backend, &basis, &stream(7))?;
    let (expand, error) = (stream(8), stream(9));
    let message = words(2 * shape.elements()).into_iter().map(|w| w >> 12).collect::<Vec<u32>>();
    let message = target.place(message)?;
    Ok(Box::new(move || {
        let (basis, secret, message) = (&basis, &secret, black_box(&message));
        black_box(backend.encrypt(&EncryptJob { basis, params, secret, expand: &expand, error: &error, message })?);
        Ok(())
    }))
}
