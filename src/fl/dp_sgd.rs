//! Local DP-SGD of one client (Abadi et al. 2016, Algorithm 1), with integers at the private boundary.
//!
//! From the server's model `w_0`, for steps `t = 1..=steps`:
//!
//! ```text
//! B_t  = each sample of the shard with probability q, on its own
//! X_t  = sum_{i in B_t} fixed(clip(grad l(w_(t-1), i), C))        integers, every row of L2 norm <= C s, exactly
//! g_t  = (X_t + N_Z(0, (z C s)^2)) / (s B)                         the one private release of the step
//! v_t  = momentum v_(t-1) + g_t,      w_t = w_(t-1) - learning_rate v_t
//! ```
//!
//! and `w_steps - w_0` is what the client sends. `fixed`, the noise and s (integer steps to a unit) are those of
//! [`CentralGaussian`], one release of it a step over the rows of the mini-batch: the clip is held by integer arithmetic, the
//! noise is a discrete Gaussian from the addressed keystream, and everything behind it is post-processing. Rows are computed,
//! encoded and added in parts ([`samples_per_call`]), so that memory is O(rows in flight x d) whatever the mini-batch.
//!
//! What it costs says [`super::samples`].
//!
//! **A row depends on its sample and the model alone.** The sensitivity of `X_t` needs that: a sample more must not change a bit
//! of the others' rows. Parts are filled up with samples that nobody counts, so that each pass of a trainer has one shape, which
//! is what picks the order of additions in a product of matrices; that a row then keeps its bits whatever lies beside it is
//! tested for the trainers of this crate, and a trainer of your own has to see to it. [`DpSgdParams::isolate`] makes it hold by
//! construction: a pass a sample. With [`Clipping::Ghost`] the trainer gives the exact sum of integer rows ([`ghost`]).

pub mod ghost;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::FlError;
use super::cohort::poisson;
use crate::backend::{Aligned, Backend, Buffer, EncodeJob, EncodeReport, NonFinite, RowKeys, Rows};
use crate::data::Batch;
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::model::{LocalTrainer, ModelError, samples_per_call};
use crate::params::{EncodeParams, Ring};
use crate::privacy::mechanism::gaussian::{CentralGaussian, CentralGaussianParams};
use crate::privacy::mechanism::{Mechanism, NoiseLaw};

/// Samples of one pass of a trainer: parts are filled up to a multiple. That of [`samples_per_call`] is one.
const PASS: usize = 32;
/// The ring leaves room for mini-batches of so many times the expected size: a shard may be larger than a public constant expects.
/// Beyond it coordinates would wrap, which costs accuracy and no privacy.
const ROOM: f64 = 4.0;

/// What the noised sum of a mini-batch is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divisor {
    /// A public constant for all clients, > 0: nothing that is sent depends on how many samples a client has but through its
    /// noised sums. Neighbours have or lack a sample.
    Public(f64),
    /// q times the number of the client's samples, which is then public. Neighbours have as many samples, one of which counts or
    /// contributes zero.
    Shard,
}

/// Where gradients are clipped; what is protected, and what it costs, are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clipping {
    /// Each gradient is a row in memory, clipped and encoded by the kernels. Any trainer.
    #[default]
    Materialised,
    /// Inside the backward pass, by exact integer norms, without a row a sample: little memory, and less time where a model
    /// has many weights. The processor's trainer ([`LocalTrainer::clipped_sum`]).
    Ghost,
}

impl Clipping {
    /// Whether this is the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a user chooses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpSgdParams {
    /// Local steps a round, at least 1.
    pub steps: u32,
    /// q: probability that a sample is in the mini-batch of a step, in (0, 1].
    pub rate: f64,
    /// What a sum is divided by.
    pub divisor: Divisor,
    /// Expected size of the largest client's mini-batch, > 0 and public: room in the ring.
    pub largest_batch: f64,
    /// Step size, > 0.
    pub learning_rate: f32,
    /// Momentum, in [0, 1).
    pub momentum: f32,
    /// C: L2 bound of the gradient of one sample, > 0.
    pub clip: f64,
    /// z: standard deviation of the noise of a step over C, > 0.
    pub noise_multiplier: f64,
    /// Every gradient in a pass of its own: a row then depends on its sample and the model alone whatever the arithmetic does.
    /// Several times slower.
    pub isolate: bool,
    /// Where gradients are clipped.
    pub clipping: Clipping,
}

/// Local DP-SGD with valid parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DpSgd {
    params: DpSgdParams,
    mechanism: CentralGaussian,
    /// Of the discrete Gaussian, in integer steps.
    sigma: f64,
}

/// What a client saw of its own gradients; never sent, not covered by any epsilon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GradientReport {
    /// Gradients, over all mini-batches.
    pub rows: u64,
    /// What their encoding saw.
    pub encoded: EncodeReport,
}

impl GradientReport {
    /// Adds another report to this one.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.encoded.merge(&other.encoded);
    }
}

/// Where a client computes.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// The model.
    pub trainer: &'a dyn LocalTrainer,
    /// The kernels.
    pub backend: &'a dyn Backend,
}

/// Where a client's randomness comes from in an attempt of a round.
#[derive(Clone, Copy, Debug)]
pub struct ClientRandomness<'a> {
    /// The client's secret.
    pub secret: &'a Secret,
    /// The run.
    pub session: &'a [u8; 16],
    /// Client, round, attempt.
    pub address: Address,
    /// SHA-256 of the round's input.
    pub input: &'a [u8; 32],
    /// The stream cipher.
    pub cipher: Cipher,
}

impl ClientRandomness<'_> {
    /// A hash of all that a step starts from: whose step of which run and round it is, and the model.
    ///
    /// The model is a function of the input and of the steps before, so that an undisturbed rerun meets the same hash and the
    /// same bits. Where it does not (another processor, a restored copy of a run folder), the step has other randomness.
    fn step(&self, step: u32, weights: &[f32]) -> [u8; 32] {
        let Address { client, round, attempt, copy } = self.address;
        let mut h = Sha256::new();
        h.update(b"veilsum dp-sgd step v1");
        h.update(client.to_le_bytes());
        for number in [round, attempt, copy, step] {
            h.update(number.to_le_bytes());
        }
        h.update(self.input);
        h.update(bytemuck::cast_slice::<f32, u8>(weights));
        h.finalize().into()
    }

    /// Who is in the mini-batch of a step.
    fn batch(&self, step: &[u8; 32]) -> StreamKey {
        self.secret.derive_bound(self.session, Purpose::SampleBatch, step, self.cipher)
    }

    /// The noise of a step, bound to the integers that it hides: other integers never meet the same noise.
    fn noise(&self, step: &[u8; 32], sum: &[u32]) -> StreamKey {
        let mut h = Sha256::new();
        h.update(b"veilsum dp-sgd noise v1");
        h.update(step);
        h.update(bytemuck::cast_slice::<u32, u8>(sum));
        self.secret.derive_bound(self.session, Purpose::SampleNoise, &h.finalize().into(), self.cipher)
    }
}

impl DpSgd {
    /// Checks the parameters.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`] for no steps, a rate outside (0, 1], a divisor, clip, noise multiplier or step size that is not
    /// finite and > 0, a momentum outside [0, 1); a sum that would not fit 32 bits.
    pub fn new(params: DpSgdParams) -> Result<Self, FlError> {
        let bad = |name, expected: &str, found: f64| {
            Err(FlError::OutOfRange { name, expected: expected.to_owned(), found: found.to_string() })
        };
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let DpSgdParams {
            steps, rate, divisor, largest_batch, learning_rate, momentum, clip, noise_multiplier, ..
        } = params;
        if steps == 0 {
            return bad("algorithm.steps", "at least 1", 0.0);
        }
        if !(rate > 0.0 && rate <= 1.0) {
            return bad("algorithm.sampling_rate", "in (0, 1]", rate);
        }
        if let Divisor::Public(size) = divisor
            && !positive(size)
        {
            return bad("algorithm.batch_size", "finite and > 0", size);
        }
        if !positive(largest_batch) {
            return bad("the expected size of a mini-batch", "finite and > 0", largest_batch);
        }
        if !positive(learning_rate.into()) {
            return bad("algorithm.learning_rate", "finite and > 0", learning_rate.into());
        }
        if !(0.0..1.0).contains(&momentum) {
            return bad("algorithm.momentum", "in [0, 1)", momentum.into());
        }
        if !positive(clip) {
            return bad("algorithm.clip", "finite and > 0", clip);
        }
        if !positive(noise_multiplier) {
            return bad("algorithm.noise_multiplier", "finite and > 0", noise_multiplier);
        }
        let cohort = (ROOM * largest_batch).ceil() as u64;
        let mechanism = CentralGaussian::new(CentralGaussianParams { noise_multiplier, clip, cohort })?;
        let NoiseLaw::DiscreteGaussian { sigma } = mechanism.noise() else {
            return bad("algorithm.noise_multiplier", "that of a discrete Gaussian", noise_multiplier);
        };
        crate::sample::discrete_gaussian::check(sigma)?;
        Ok(Self { params, mechanism, sigma })
    }

    /// The parameters.
    #[must_use]
    pub const fn params(&self) -> &DpSgdParams {
        &self.params
    }

    /// What each step releases once.
    #[must_use]
    pub const fn mechanism(&self) -> &CentralGaussian {
        &self.mechanism
    }

    /// `w_after - w_before` of a client, and what it saw of its gradients. The same bits for any number of threads.
    ///
    /// A shard without samples gives noise alone, as any other would; with [`Divisor::Shard`], whose sizes are public, it gives
    /// zero. A gradient with NaN or an infinity counts as zero and is reported to the client.
    ///
    /// # Errors
    /// Those of [`LocalTrainer::gradient_rows`], or of [`LocalTrainer::clipped_sum`] and [`Self::clip_inside`], and of the
    /// backend; weights of another length than the model's.
    pub fn delta(
        &self,
        machine: Machine<'_>,
        weights: &[f32],
        shard: &Batch,
        randomness: &ClientRandomness<'_>,
    ) -> Result<(Vec<f32>, GradientReport), FlError> {
        for (what, expected, found) in [
            ("the weight vector", machine.trainer.parameter_count(), weights.len()),
            ("the shard's features", shard.len().saturating_mul(shard.dim), shard.features.len()),
        ] {
            if found != expected {
                return Err(ModelError::WrongLength { what, expected, found }.into());
            }
        }
        let mut report = GradientReport::default();
        let DpSgdParams { steps, rate, divisor, learning_rate, momentum, .. } = self.params;
        let size = match divisor {
            Divisor::Public(size) => size,
            Divisor::Shard if shard.is_empty() => return Ok((vec![0.0; weights.len()], report)),
            Divisor::Shard => rate * shard.len() as f64,
        };
        let mut now = weights.to_vec();
        let mut velocity = vec![0.0f32; weights.len()];
        for step in 0..steps {
            let context = randomness.step(step, &now);
            let chosen = poisson(shard.len() as u64, rate, &randomness.batch(&context));
            let chosen: Vec<usize> = chosen.into_iter().map(|i| i as usize).collect();
            let (sum, seen) = self.sum(machine, &now, shard, &chosen)?;
            report.merge(&seen);
            let gradient = self.reveal(machine.backend, sum, size, |sum| randomness.noise(&context, sum))?;
            for ((w, v), g) in now.iter_mut().zip(&mut velocity).zip(gradient.iter()) {
                *v = momentum * *v + g;
                *w -= learning_rate * *v;
            }
        }
        now.iter_mut().zip(weights).for_each(|(after, before)| *after -= before);
        Ok((now, report))
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, FlError> {
        Ok(self.mechanism.encode_params(dim)?)
    }

    /// The exact sum of the clipped rows of some samples, integers mod 2^32 on the host.
    fn sum(
        &self,
        machine: Machine<'_>,
        weights: &[f32],
        shard: &Batch,
        chosen: &[usize],
    ) -> Result<(Aligned<u32>, GradientReport), FlError> {
        let Machine { trainer, backend } = machine;
        if self.params.clipping == Clipping::Ghost {
            return self.sum_inside(trainer, weights, shard, chosen);
        }
        let params = self.encode_params(weights.len())?;
        let public = nothing_random();
        let mut acc = backend.upload(&Buffer::HostU32(Aligned::zeroed(params.padded as usize)))?;
        let mut encoded = EncodeReport::default();
        for part in chosen.chunks(samples_per_call(weights.len())) {
            let rows = if self.params.isolate {
                alone(machine, weights, shard, part)?
            } else {
                passes(trainer, weights, shard, part)?
            };
            let keys = vec![RowKeys { rounding: public.clone(), noise: public.clone() }; part.len()];
            let job = EncodeJob { params, signs: &public, keys: &keys, noise: None, non_finite: NonFinite::ZeroRow };
            let (words, seen) = backend.encode(&rows, &job)?;
            backend.sum(&mut acc, &words, Ring::Bits(params.bits))?;
            encoded.merge(&seen);
        }
        let sum = Aligned::from(backend.to_host(acc)?.as_u32()?);
        Ok((sum, GradientReport { rows: chosen.len() as u64, encoded }))
    }

    /// Adds the noise to the exact sum and makes a mean of it: the one place where something leaves the private side.
    fn reveal(
        &self,
        backend: &dyn Backend,
        mut sum: Aligned<u32>,
        size: f64,
        key: impl FnOnce(&[u32]) -> StreamKey,
    ) -> Result<Aligned<f32>, FlError> {
        // Nothing is rotated and nothing padded: as many integers as parameters.
        let params = self.encode_params(sum.len())?;
        let key = key(&sum);
        crate::sample::discrete_gaussian::add(&mut sum, params.bits, self.sigma, &key)?;
        let mut sum = Buffer::HostU32(sum);
        let decode = params.decode((self.mechanism.unit() / size) as f32);
        backend.decode_in_place(&mut sum, &decode, &nothing_random())?;
        Ok(backend.to_host(sum)?.take_f32()?)
    }
}

/// A key where a kernel takes one and reads nothing: the fixed point is not rotated, keeps its fraction, and gets its noise here.
/// A test sees that it is so.
const fn nothing_random() -> StreamKey {
    StreamKey::from_bytes([0; 32], Cipher::ChaCha20)
}

/// The gradient rows of some samples, in passes of one shape.
fn passes(trainer: &dyn LocalTrainer, weights: &[f32], shard: &Batch, part: &[usize]) -> Result<Rows, FlError> {
    let rows = trainer.gradient_rows(weights, &filled(shard, part))?;
    enough(rows.rows, part.len())?;
    // The last ones are of samples that nobody counts.
    Ok(Rows { rows: part.len(), ..rows })
}

/// The same, each sample in a pass of its own; on the host.
fn alone(machine: Machine<'_>, weights: &[f32], shard: &Batch, part: &[usize]) -> Result<Rows, FlError> {
    let one = |&i: &usize| -> Result<Vec<f32>, FlError> {
        let rows = machine.trainer.gradient_rows(weights, &gathered(shard, &[i], 1))?;
        enough(rows.rows, 1)?;
        Ok(rows.on_host(machine.backend)?.row(0)?.to_vec())
    };
    let rows = part.par_iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Rows::dense(rows.concat(), part.len(), weights.len())?)
}

/// A trainer that gives fewer rows than samples is no trainer.
fn enough(found: usize, expected: usize) -> Result<(), ModelError> {
    if found >= expected { Ok(()) } else { Err(ModelError::WrongLength { what: "the gradient rows", expected, found }) }
}

/// Some samples of a shard, and behind them samples of zeros up to a whole number of passes.
fn filled(shard: &Batch, chosen: &[usize]) -> Batch {
    gathered(shard, chosen, chosen.len().next_multiple_of(PASS))
}

/// Some samples of a shard, and samples of zeros up to `len`.
fn gathered(shard: &Batch, chosen: &[usize], len: usize) -> Batch {
    let mut batch = shard.select(chosen.iter().copied());
    batch.features.resize(len * shard.dim, 0.0);
    batch.labels.resize(len, 0);
    batch
}

#[cfg(test)]
mod tests;
