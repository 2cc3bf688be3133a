//! What a client does with its vector: encode under addressed keys, protect, hand over.

use std::sync::Arc;

use super::FlError;
use super::coordinator::RoundTask;
use super::dropout;
use super::plan::Plan;
use crate::backend::{Backend, Buffer, EncodeJob, EncodeReport, NonFinite, RowKeys, Rows};
use crate::math::prg::{Address, Purpose, Secret, StreamKey};
use crate::privacy::mechanism::NoiseLaw;
use crate::sample::binomial::CentredBinomial;
use crate::sample::noise::Noise;
use crate::sample::table::NoiseTable;
use crate::secagg::plain::PlainClient;

/// Coins as the sampler counts them; what is too many for it stays so.
fn binomial_k(coins: u64) -> u32 {
    u32::try_from(coins).unwrap_or(u32::MAX)
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
        let table = match task.share {
            NoiseLaw::Skellam { mu } => Some(NoiseTable::skellam(mu)?.into()),
            NoiseLaw::DiscreteGaussian { sigma } => Some(NoiseTable::discrete_gaussian(sigma)?.into()),
            NoiseLaw::CenteredBinomial { coins } => Some(CentredBinomial::new(binomial_k(coins))?.into()),
            // The share of one client is neither.
            NoiseLaw::None | NoiseLaw::DiscreteGaussianShares { .. } => None,
        };
        Ok(Self {
            plan,
            task,
            secret,
            backend,
            signs: task.signs.clone(),
            table,
            layers: dropout::tables(&task.layers)?,
        })
    }

    fn key(&self, client: u64, purpose: Purpose) -> StreamKey {
        self.copied_key(client, purpose, 0)
    }

    /// The same for further draws of one kind.
    fn copied_key(&self, client: u64, purpose: Purpose, copy: u32) -> StreamKey {
        let address = Address { client, round: self.task.id.round, attempt: self.task.id.attempt, copy };
        self.secret.derive(&self.plan.session, address, purpose, self.plan.cipher)
    }

    /// The key of a client's layer of noise.
    fn layer_key(&self, client: u64, layer: usize) -> StreamKey {
        self.copied_key(client, Purpose::NoiseLayer, layer as u32 + 1)
    }

    /// What a client tells of its noise, for [`super::coordinator::Coordinator::take_out`]: the keys of the layers that are
    /// not needed if so many survive. The number is that of its own protocol machine, and it answers once in an attempt.
    #[must_use]
    pub fn excess_keys(&self, client: u64, survivors: usize) -> Vec<StreamKey> {
        self.task.excess(survivors).map(|layer| self.layer_key(client, layer)).collect()
    }

    /// Encodes one row a client, `rows` in the order of `clients`, and hands each to its protocol machine.
    pub fn protect(&self, clients: &[u64], rows: &Rows) -> Result<(Vec<PlainClient>, EncodeReport), FlError> {
        let Some(clip) = &self.task.clip else { return self.encode(clients, rows) };
        let host = Rows { buffer: self.backend.to_host(rows.buffer.clone())?, ..rows.clone() };
        let (joined, clipped) = clip.join(&host)?;
        let (parties, encoded) = self.encode(clients, &joined)?;
        // What the clients' own clip did; of the encoding what it alone knows.
        let report = EncodeReport { zeroed: encoded.zeroed, linf_hits: encoded.linf_hits, ..clipped };
        Ok((parties, report))
    }

    fn encode(&self, clients: &[u64], rows: &Rows) -> Result<(Vec<PlainClient>, EncodeReport), FlError> {
        let keys: Vec<RowKeys> = clients
            .iter()
            .map(|&c| RowKeys { rounding: self.key(c, Purpose::Rounding), noise: self.key(c, Purpose::Noise) })
            .collect();
        let job = EncodeJob {
            params: self.task.encode,
            signs: &self.signs,
            keys: &keys,
            noise: self.table.as_ref(),
            non_finite: NonFinite::ZeroRow,
        };
        if !self.layers.is_empty() {
            return self.layered(clients, rows, &job);
        }
        if self.plan.is_private() {
            let (packed, report) = self.backend.encode_packed(rows, &job)?;
            let party = |(&client, row)| PlainClient::packed(self.task.id, client, self.task.shape, row);
            let parties = clients.iter().zip(packed.rows()).map(party).collect::<Result<_, _>>()?;
            return Ok((parties, report));
        }
        let (words, report) = self.backend.encode(rows, &job)?;
        let words = self.backend.to_host(words)?;
        let rows = words.as_u32()?.chunks_exact(self.task.encode.padded as usize);
        let parties =
            clients.iter().zip(rows).map(|(&client, row)| self.weighted(client, row)).collect::<Result<_, _>>()?;
        Ok((parties, report))
    }

    /// Rows with the layers of noise that may be taken out again.
    fn layered(
        &self,
        clients: &[u64],
        rows: &Rows,
        job: &EncodeJob<'_>,
    ) -> Result<(Vec<PlainClient>, EncodeReport), FlError> {
        let (words, report) = self.backend.encode(rows, job)?;
        let words = self.backend.to_host(words)?;
        let (shape, bits) = (self.task.shape, self.task.encode.bits);
        let party = |(&client, row): (&u64, &[u32])| {
            let mut row = Buffer::HostU32(row.into());
            for (layer, table) in self.layers.iter().enumerate() {
                self.backend.noise(&mut row, bits, table, &self.layer_key(client, layer))?;
            }
            Ok(PlainClient::packed(self.task.id, client, shape, &self.backend.pack(&row, bits)?)?)
        };
        let rows = words.as_u32()?.chunks_exact(self.task.encode.padded as usize);
        Ok((clients.iter().zip(rows).map(party).collect::<Result<_, FlError>>()?, report))
    }

    /// Without privacy the words are signed fixed-point numbers, multiplied by the client's public weight in the
    /// wide ring of the round.
    fn weighted(&self, client: u64, words: &[u32]) -> Result<PlainClient, FlError> {
        let shape = self.task.shape;
        let weight = self.plan.weights.as_ref().map_or(1, |w| w.get(client as usize).copied().unwrap_or(0)) as i64;
        let mask = (1u64 << shape.bits) - 1;
        let wide: Vec<u64> = words.iter().map(|&w| i64::from(w as i32).wrapping_mul(weight) as u64 & mask).collect();
        Ok(PlainClient::new(self.task.id, client, shape, &wide)?)
    }
}
