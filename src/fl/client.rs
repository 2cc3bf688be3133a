//! What a client does with its vector: encode under addressed keys, protect, hand over.

use std::sync::Arc;

use super::FlError;
use super::asynchrony::SCALE;
use super::client_clip;
use super::coordinator::RoundTask;
use super::dropout;
use super::magnitude;
use super::plan::Plan;
use super::protocol::RoundProtocol;
use crate::backend::{Backend, Buffer, EncodeJob, EncodeReport, NonFinite, Packed, RowKeys, Rows};
use crate::math::prg::{Address, Purpose, Secret, StreamKey};
use crate::params::EncodeParams;
use crate::privacy::mechanism::NoiseLaw;
use crate::sample::noise::Noise;
use crate::sample::poisson_binomial::BiasedCoins;
use crate::secagg::VectorShape;
use crate::secagg::frame;
use crate::secagg::identity::Identity;
use crate::secagg::masks::{MasksClient, Session};
use crate::secagg::mphe::{MpheClient, RoundSession};
use crate::secagg::oneshot::{self, OneshotClient};

/// A client's key in a round; `copy` counts further draws of one kind.
fn key(plan: &Plan, task: &RoundTask, secret: &Secret, client: u64, (purpose, copy): (Purpose, u32)) -> StreamKey {
    let address = Address { client, round: task.id.round, attempt: task.id.attempt, copy };
    secret.derive(&plan.session, address, purpose, plan.cipher)
}

/// The key of a client's layer of noise.
fn layer_key(plan: &Plan, task: &RoundTask, secret: &Secret, client: u64, layer: usize) -> StreamKey {
    key(plan, task, secret, client, (Purpose::NoiseLayer, layer as u32 + 1))
}

/// What a client tells of its noise, for [`super::coordinator::Coordinator::take_out`]: the keys of the layers that are not
/// needed if so many survive. The number is that of its own protocol machine, and it answers once in an attempt.
#[must_use]
pub fn excess_keys(plan: &Plan, task: &RoundTask, secret: &Secret, client: u64, survivors: usize) -> Vec<StreamKey> {
    task.excess(survivors).map(|layer| layer_key(plan, task, secret, client, layer)).collect()
}

/// The clients of one round that run in this process.
#[derive(Debug)]
pub struct ClientRound<'a> {
    plan: &'a Plan,
    task: &'a RoundTask,
    secret: &'a Secret,
    backend: Arc<dyn Backend>,
    signs: StreamKey,
    table: Option<Noise>,
    /// What the clients compute, and the shape of their vectors: of the round, or of a wider ring.
    encode: EncodeParams,
    shape: VectorShape,
    layers: Vec<Noise>,
}

impl<'a> ClientRound<'a> {
    /// Prepares what the clients share: the public signs and the table of their share of the noise.
    pub fn new(
        plan: &'a Plan,
        task: &'a RoundTask,
        secret: &'a Secret,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, FlError> {
        let shape = match &task.protocol {
            RoundProtocol::Oneshot(session) => session.input_shape(),
            RoundProtocol::Mphe(session) => session.shape(),
            RoundProtocol::Plain | RoundProtocol::Masks(_) => task.shape,
        };
        // A ring in which the integers do not wrap; the sum is reduced to the ring of the round, so that its bits are the same.
        let bits = if plan.is_exact() { task.encode.bits } else { shape.bits };
        Ok(Self {
            plan,
            task,
            secret,
            backend,
            signs: task.signs.clone(),
            table: magnitude::sampler(task.share)?,
            encode: EncodeParams { bits, ..task.encode },
            shape,
            layers: dropout::tables(&task.layers)?,
        })
    }

    fn key(&self, client: u64, purpose: Purpose) -> StreamKey {
        key(self.plan, self.task, self.secret, client, (purpose, 0))
    }

    /// The machine of a client of `masks`, which waits for its vector after two phases.
    ///
    /// # Errors
    /// A client that is not in the cohort.
    pub fn masked(&self, session: &Arc<Session>, client: u64) -> Result<MasksClient, FlError> {
        let identity = Identity::simulated(self.secret, client);
        Ok(MasksClient::new(session, client, &identity, self.secret, Arc::clone(&self.backend))?)
    }

    /// The machine of a client of `oneshot` with its vector, packed.
    ///
    /// # Errors
    /// A client that is not in the cohort, a vector beyond the bound of the session.
    pub fn sealed(
        &self,
        session: &Arc<oneshot::Session>,
        client: u64,
        vector: &[u8],
    ) -> Result<OneshotClient, FlError> {
        let identity = Identity::simulated(self.secret, client);
        Ok(OneshotClient::packed(session, client, &identity, self.secret, Arc::clone(&self.backend), vector)?)
    }

    /// The machine of a client of `mphe` with its vector, packed.
    ///
    /// # Errors
    /// A client that is not in the cohort, a vector beyond the bound of the key.
    pub fn encrypted(&self, session: &Arc<RoundSession>, client: u64, vector: &[u8]) -> Result<MpheClient, FlError> {
        let identity = Identity::simulated(self.secret, client);
        Ok(MpheClient::packed(session, client, &identity, self.secret, Arc::clone(&self.backend), vector)?)
    }

    /// The vectors that are added, packed: one row a client, `rows` in the order of `clients`, compressed by the map of the round,
    /// encoded under its keys.
    ///
    /// # Errors
    /// Those of [`Backend::encode_packed`].
    pub fn vectors(&self, clients: &[u64], rows: &Rows) -> Result<(Packed, EncodeReport), FlError> {
        match &self.task.operator {
            Some(operator) => self.clipped(clients, &operator.compress(&*rows.on_host(&*self.backend)?)?),
            None => self.clipped(clients, rows),
        }
    }

    /// Clipped by the client where the bound adapts, or where a narrow ring takes vectors by what they count: after the clip, so that
    /// `encode` has nothing left to clip. Else by `encode`.
    fn clipped(&self, clients: &[u64], rows: &Rows) -> Result<(Packed, EncodeReport), FlError> {
        let (rows, clipped) = match (&self.task.clip, &self.task.starts) {
            (Some(clip), _) => clip.join(&*rows.on_host(&*self.backend)?)?,
            // Exact integers are weighed behind the encoding.
            (None, Some(_)) if !self.plan.is_exact() => {
                let host = rows.on_host(&*self.backend)?;
                client_clip::clip(&host, f64::from(self.encode.clip), rows.dim, |i, row, ratio, out| {
                    let share = clients.get(i).map_or(1.0, |&c| self.task.weight(c) as f64 / SCALE as f64);
                    out.extend(row.iter().map(|&x| (f64::from(x) * ratio * share) as f32));
                })?
            }
            _ => return self.encode(clients, rows),
        };
        let (vectors, encoded) = self.encode(clients, &rows)?;
        // What the clients' own clip did; of the encoding what it alone knows.
        let report = EncodeReport { zeroed: encoded.zeroed, linf_hits: encoded.linf_hits, ..clipped };
        Ok((vectors, report))
    }

    fn encode(&self, clients: &[u64], rows: &Rows) -> Result<(Packed, EncodeReport), FlError> {
        let keys: Vec<RowKeys> = clients
            .iter()
            .map(|&c| RowKeys { rounding: self.key(c, Purpose::Rounding), noise: self.key(c, Purpose::Noise) })
            .collect();
        if let Some(bits) = self.plan.mechanism.bias_bits() {
            return self.thrown(rows, &keys, bits);
        }
        let job = EncodeJob {
            params: self.encode,
            signs: &self.signs,
            keys: &keys,
            noise: self.table.as_ref(),
            non_finite: NonFinite::ZeroRow,
        };
        if !self.plan.is_exact() && self.layers.is_empty() {
            return Ok(self.backend.encode_packed(rows, &job)?);
        }
        let (words, report) = self.backend.encode(rows, &job)?;
        let words = self.backend.to_host(words)?;
        let rows = words.as_u32()?.chunks_exact(self.encode.padded as usize);
        let mut packed = Packed { bytes: Vec::new(), row_bytes: self.shape.packed_len() };
        for (&client, row) in clients.iter().zip(rows) {
            if self.plan.is_exact() {
                frame::pack(self.weighted(client, row), self.shape.bits, &mut packed.bytes);
            } else {
                packed.bytes.extend(self.layered(client, row)?);
            }
        }
        Ok((packed, report))
    }

    /// Coins biased by the rows, which are encoded on any backend as fixed point; thrown on the host, one key a row.
    fn thrown(&self, rows: &Rows, keys: &[RowKeys], bias_bits: u32) -> Result<(Packed, EncodeReport), FlError> {
        let NoiseLaw::CenteredBinomial { coins } = self.task.share else {
            return Err(FlError::OutOfRange {
                name: "privacy.coins",
                expected: "an even number of coins of each client".into(),
                found: format!("{:?}", self.task.share),
            });
        };
        let pairs = u32::try_from(coins).unwrap_or(u32::MAX);
        let law = BiasedCoins::new(pairs.saturating_mul(2), bias_bits)?;
        // The fixed point has 32 bits, whatever the ring.
        let params = EncodeParams { bits: 32, ..self.task.encode };
        let job = EncodeJob { params, signs: &self.signs, keys, noise: None, non_finite: NonFinite::ZeroRow };
        let (words, report) = self.backend.encode(rows, &job)?;
        let words = self.backend.to_host(words)?;
        let bits = self.shape.bits;
        let mut packed = Packed { bytes: Vec::new(), row_bytes: self.shape.packed_len() };
        let mask = u32::MAX >> (32 - bits.clamp(1, 32));
        for (row, keys) in words.as_u32()?.chunks_exact(params.padded as usize).zip(keys) {
            let mut row = row.to_vec();
            law.throw(&mut row, &keys.noise)?;
            row.iter_mut().for_each(|word| *word &= mask);
            packed.bytes.extend(self.backend.pack(&Buffer::HostU32(row.into()), bits)?);
        }
        Ok((packed, report))
    }

    /// A row with the layers of noise that may be taken out again, packed.
    fn layered(&self, client: u64, words: &[u32]) -> Result<Vec<u8>, FlError> {
        let bits = self.shape.bits;
        let mut row = Buffer::HostU32(words.into());
        for (layer, table) in self.layers.iter().enumerate() {
            self.backend.noise(&mut row, bits, table, &layer_key(self.plan, self.task, self.secret, client, layer))?;
        }
        Ok(self.backend.pack(&row, bits)?)
    }

    /// Without privacy the words are signed fixed-point numbers, multiplied by the client's public weight in the
    /// wide ring of the round.
    fn weighted<'w>(&self, client: u64, words: &'w [u32]) -> impl Iterator<Item = u64> + use<'w> {
        let weight = self.plan.count(client, self.task.weight(client)) as i64;
        let mask = (1u64 << self.shape.bits) - 1;
        words.iter().map(move |&w| i64::from(w as i32).wrapping_mul(weight) as u64 & mask)
    }
}
