//! The releases of an audit: the stages of a round, batched over independent trials.

use std::sync::Arc;

use super::{AuditConfig, Fault, Size};
use crate::backend::{Aligned, Backend, Buffer, EncodeJob, NonFinite, RowKeys, Rows};
use crate::fl::cohort::{Sampling, draw};
use crate::fl::plan::NoisePlacement;
use crate::fl::{FlError, SERVER};
use crate::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use crate::params::{DecodeParams, EncodeParams, NO_LINF, Ring, norm_kind};
use crate::privacy::audit::Observation;
use crate::privacy::mechanism::{Mechanism, NoiseLaw};
use crate::sample::binomial::{CentredBinomial, coin_parts};
use crate::sample::discrete_gaussian;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;

/// Norm of a canary over the clip bound: what a client may send that ignores the bound.
const CANARY_NORM: f64 = 10.0;
/// Coordinates encoded at a time, about.
const BATCH: usize = 1 << 19;
/// Most coordinates of one release's canaries.
const RELEASE: usize = 1 << 26;

/// The noise that is really added.
#[derive(Debug)]
enum Added {
    Nothing,
    /// So many draws of a table, one after another.
    Shares(Noise, u64),
    /// One draw of each.
    Parts(Vec<Noise>),
    /// One discrete Gaussian.
    Gaussian(f64),
}

/// The mechanism as it runs, with the fault if there is one.
#[derive(Debug)]
pub(super) struct Pipeline<'a> {
    config: &'a AuditConfig,
    backend: &'a Arc<dyn Backend>,
    secret: &'a Secret,
    encode: EncodeParams,
    decode: DecodeParams,
    signs: StreamKey,
    added: Added,
    slots: usize,
    /// Probability with which a canary takes part in a round.
    rate: f64,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(
        config: &'a AuditConfig,
        mechanism: &dyn Mechanism,
        backend: &'a Arc<dyn Backend>,
        secret: &'a Secret,
    ) -> Result<Self, FlError> {
        let mut encode = mechanism.encode_params(config.dim)?;
        if config.fault == Some(Fault::NoClip) {
            encode = unclipped(encode);
        }
        let slots = match config.size {
            Size::Runs(_) => 1,
            Size::Canaries(_) => {
                let memory = (RELEASE / encode.padded as usize).max(1);
                config.dim.min(memory).min(usize::try_from(config.cohort).unwrap_or(usize::MAX))
            }
        };
        let rate = if config.fault == Some(Fault::FixedCohort) { 1.0 } else { config.rate() };
        let decode = encode.decode(mechanism.unit() as f32);
        let added = added(config, mechanism)?;
        let signs = key(secret, Address { client: SERVER, ..Address::default() }, Purpose::Signs);
        Ok(Self { config, backend, secret, encode, decode, signs, added, slots, rate })
    }

    /// Canaries of a release: each has a coordinate and a client of its own.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Trials that are played at a time.
    pub(super) fn batch(&self) -> u64 {
        (BATCH / (self.slots * self.encode.padded as usize)).max(1) as u64
    }

    /// Plays `count` trials from number `first` on; every one has its own coins, clients and randomness.
    pub(super) fn observe(&self, batch: u32, first: u64, count: usize) -> Result<Vec<Observation>, FlError> {
        let places = count * self.slots;
        let address = Address { client: SERVER, attempt: batch, ..Address::default() };
        let mut coins = key(self.secret, address, Purpose::Synthetic).reader(0);
        let included: Vec<bool> = (0..places).map(|_| coins.next_u64() & 1 == 1).collect();
        let mut scores = vec![0.0f64; places];
        for round in 0..self.config.rounds {
            let sign = if round % 2 == 0 { 1.0 } else { -1.0 };
            // The law of the draw is the one that is accounted.
            let address = Address { round, ..address };
            let cohort = draw(
                Sampling::Poisson,
                places as u64,
                self.rate * places as f64,
                round,
                &key(self.secret, address, Purpose::Cohort),
            );
            let present: Vec<usize> = cohort.into_iter().map(|i| i as usize).filter(|&i| included[i]).collect();
            let sums = self.sums(batch, first, count, round, sign, &present)?;
            self.score(&sums, sign, &mut scores)?;
        }
        Ok(scores.into_iter().zip(included).map(|(score, included)| Observation { score, included }).collect())
    }

    /// The noisy sums of a round, one trial after another. A client that contributes zero is encoded to zero: such rows
    /// are left out.
    fn sums(
        &self,
        batch: u32,
        first: u64,
        count: usize,
        round: u32,
        sign: f64,
        present: &[usize],
    ) -> Result<Buffer, FlError> {
        let padded = self.encode.padded as usize;
        // Where the fault is planted: rounds 0 and 1 share their keys, 2 and 3, ...
        let reused = self.config.fault == Some(Fault::ReusedRandomness);
        let round = if reused { round - round % 2 } else { round };
        let words = self.encode(first, round, sign, present)?;
        let mut sums: Vec<u32> = Vec::with_capacity(count * padded);
        let (mut row, mut place) = (0, 0);
        for trial in 0..count {
            while place < present.len() && present[place] / self.slots == trial {
                place += 1;
            }
            let mut sum = Buffer::HostU32(vec![0; padded].into());
            if place > row {
                let rows = Buffer::HostU32(words.as_u32()?[row * padded..place * padded].into());
                self.backend.sum(&mut sum, &rows, Ring::Bits(self.encode.bits))?;
            }
            sums.extend_from_slice(sum.as_u32()?);
            row = place;
        }
        let mut sums = Buffer::HostU32(sums.into());
        self.add_noise(&mut sums, Address { round, attempt: batch, ..Address::default() })?;
        Ok(sums)
    }

    /// The canaries' rows, encoded without noise.
    fn encode(&self, first: u64, round: u32, sign: f64, present: &[usize]) -> Result<Buffer, FlError> {
        let dim = self.config.dim;
        let mut words = Buffer::HostU32(Aligned::default());
        if present.is_empty() {
            return Ok(words);
        }
        let mut rows = vec![0.0f32; present.len() * dim];
        let keys: Vec<RowKeys> = present
            .iter()
            .zip(rows.chunks_exact_mut(dim))
            .map(|(&place, row)| {
                row[place % self.slots] = (sign * CANARY_NORM * self.config.privacy.clip) as f32;
                let client = first * self.slots as u64 + place as u64;
                let rounding = key(self.secret, Address { client, round, ..Address::default() }, Purpose::Rounding);
                // No noise is drawn here; its key is never read.
                RowKeys { noise: rounding.clone(), rounding }
            })
            .collect();
        let job = EncodeJob {
            params: self.encode,
            signs: &self.signs,
            keys: &keys,
            noise: None,
            non_finite: NonFinite::ZeroRow,
        };
        let rows = Rows::dense(rows, present.len(), dim)?;
        self.backend.encode_into(&rows, &job, &mut words)?;
        Ok(self.backend.to_host(words)?)
    }

    /// The noise of all trials of a batch, each at its own place of the keystreams.
    fn add_noise(&self, sums: &mut Buffer, address: Address) -> Result<(), FlError> {
        let bits = self.encode.bits;
        match &self.added {
            Added::Nothing => {}
            Added::Shares(noise, shares) => {
                for client in 0..*shares {
                    let key = key(self.secret, Address { client, ..address }, Purpose::Noise);
                    self.backend.noise(sums, bits, noise, &key)?;
                }
            }
            Added::Parts(parts) => {
                for (client, noise) in (0..).zip(parts) {
                    let key = key(self.secret, Address { client, ..address }, Purpose::Noise);
                    self.backend.noise(sums, bits, noise, &key)?;
                }
            }
            Added::Gaussian(sigma) => {
                let key = key(self.secret, Address { client: SERVER, ..address }, Purpose::Noise);
                discrete_gaussian::add(sums.as_u32_mut()?, bits, *sigma, &key)?;
            }
        }
        Ok(())
    }

    /// Adds to every canary's score what the decoded release holds of it, in units of C.
    fn score(&self, sums: &Buffer, sign: f64, scores: &mut [f64]) -> Result<(), FlError> {
        let padded = self.encode.padded as usize;
        let scale = sign / self.config.privacy.clip;
        for (sum, scores) in sums.as_u32()?.chunks_exact(padded).zip(scores.chunks_exact_mut(self.slots)) {
            let release = self.backend.decode(&Buffer::HostU32(sum.into()), &self.decode, &self.signs)?;
            for (score, &x) in scores.iter_mut().zip(&release) {
                *score += scale * f64::from(x);
            }
        }
        Ok(())
    }
}

fn key(secret: &Secret, address: Address, purpose: Purpose) -> StreamKey {
    secret.derive(b"veilsum audit v1", address, purpose, Cipher::ChaCha20)
}

/// Without any bound on a row.
fn unclipped(params: EncodeParams) -> EncodeParams {
    EncodeParams {
        clip: f32::MAX,
        norm: norm_kind::L2,
        norm_bound: EncodeParams::limbs(u128::MAX),
        linf: NO_LINF,
        ..params
    }
}

fn added(config: &AuditConfig, mechanism: &dyn Mechanism) -> Result<Added, FlError> {
    let factor = config.fault.map_or(1.0, Fault::variance);
    Ok(match mechanism.noise() {
        _ if factor == 0.0 => Added::Nothing,
        NoiseLaw::None => Added::Nothing,
        NoiseLaw::Skellam { mu } => {
            let each = config.privacy.noise == NoisePlacement::PerClient;
            let shares = if each { config.cohort } else { 1 };
            let mu = factor * mu / shares as f64;
            Added::Shares(Noise::from(NoiseTable::skellam(if each { mu.next_up() } else { mu })?), shares)
        }
        NoiseLaw::DiscreteGaussian { sigma } => Added::Gaussian(factor.sqrt() * sigma),
        NoiseLaw::DiscreteGaussianShares { sigma_total, .. } => {
            let sigma = (factor / config.cohort as f64).sqrt() * sigma_total;
            Added::Shares(NoiseTable::discrete_gaussian(sigma)?.into(), config.cohort)
        }
        // The sum of all shares, whoever draws them.
        NoiseLaw::CenteredBinomial { coins } => {
            let parts = coin_parts((factor * coins as f64).round() as u64);
            Added::Parts(parts.map(|k| Ok(CentredBinomial::new(k)?.into())).collect::<Result<_, FlError>>()?)
        }
    })
}
