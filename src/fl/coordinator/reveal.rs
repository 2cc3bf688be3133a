//! The one step that makes a sum visible: what noise is left to add, the decoding, the division.

use super::{Coordinator, GroupSum, RoundTask, RuleReport};
use crate::backend::{Aligned, Buffer, Rows};
use crate::fl::cohort::Sampling;
use crate::fl::groups::Grouping;
use crate::fl::rule::{Aggregate, Aggregator, Inputs};
use crate::fl::{FlError, dropout, nova};
use crate::math::prg::Purpose;
use crate::privacy::mechanism::NoiseLaw;
use crate::sample::binomial::{CentredBinomial, coin_parts};
use crate::sample::discrete_gaussian;
use crate::sample::table::NoiseTable;

/// What the sums of a round come to.
pub(super) struct Revealed {
    /// Of the clients' vectors, in their own scale.
    pub(super) mean: Aligned<f32>,
    /// The share of clients within the clip bound, where it adapts.
    pub(super) share: Option<f64>,
    /// What the robust rule did.
    pub(super) rule: Option<RuleReport>,
}

/// Copies of a round's address for one group: more than the parts of any sum's noise.
const COPIES: u32 = 1 << 16;

impl Coordinator {
    /// Opens the sum of every group: the mean of each, and what they come to together.
    pub(super) fn reveal_all(&mut self, sums: &[GroupSum]) -> Result<Revealed, FlError> {
        let (mut means, mut weights, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        for sum in sums {
            let mut mean = self.reveal(&sum.task, &sum.words, &sum.survivors)?;
            if let Some(state) = &self.clip {
                let (rows, share) = state.split(&mean);
                mean = rows;
                shares.push(share);
            }
            means.push(mean);
            // Under differential privacy every group counts as its expected size, whoever delivered.
            weights.push(if self.plan.is_private() { 1 } else { self.total_weight(&sum.task, &sum.survivors) });
        }
        let share = (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64);
        let (mut mean, rule) = match &self.aggregator {
            None => (mean_of(means, &weights), None),
            Some(aggregator) => {
                let (mean, rule) = self.robust(aggregator, sums, &means, &weights)?;
                (mean, Some(rule))
            }
        };
        // All groups have the map of the round.
        if let Some(operator) = sums.first().and_then(|sum| sum.task.operator.as_ref()) {
            mean = operator.lift(&mean)?;
        }
        if self.plan.local_steps.is_some() {
            let clients = sums.iter().flat_map(|sum| sum.survivors.iter().map(|&client| (&sum.task, client)));
            let counted = clients.filter_map(|(task, client)| {
                Some((self.plan.count(client, task.weight(client)), self.plan.steps_of(client)?))
            });
            let steps = nova::mean_steps(counted);
            mean.iter_mut().for_each(|x| *x = (f64::from(*x) * steps) as f32);
        }
        Ok(Revealed { mean, share, rule })
    }

    /// A vector of the model's length as the map of this round compresses it.
    fn compressed(&self, sums: &[GroupSum], vector: &[f32]) -> Result<Vec<f32>, FlError> {
        let Some(operator) = sums.first().and_then(|sum| sum.task.operator.as_ref()) else {
            return Ok(vector.to_vec());
        };
        let rows = operator.compress(&Rows::dense(vector.to_vec(), 1, vector.len())?)?;
        Ok(rows.row(0)?.to_vec())
    }

    /// What the robust rule makes of the groups' means. Those of nobody are no vectors.
    fn robust(
        &self,
        aggregator: &Aggregator,
        sums: &[GroupSum],
        means: &[Aligned<f32>],
        weights: &[u64],
    ) -> Result<(Aligned<f32>, RuleReport), FlError> {
        let present: Vec<usize> = (0..sums.len()).filter(|&i| weights[i] > 0).collect();
        let dim = means.first().map_or(0, |mean| mean.len());
        let mut rows = Aligned::zeroed(present.len() * dim);
        for (row, &i) in rows.chunks_exact_mut(dim.max(1)).zip(&present) {
            row.copy_from_slice(&means[i]);
        }
        let rows = Rows { buffer: Buffer::HostF32(rows), offset: 0, stride: dim, rows: present.len(), dim };
        let weights: Vec<u64> = present.iter().map(|&i| weights[i]).collect();
        let (round, attempt) = sums.first().map_or((0, 0), |sum| (sum.task.id.round, sum.task.id.attempt));
        // Group numbers are below `copies` of this purpose: they are dealt by copy 0.
        let permutation = self.copied_key(round, attempt, Purpose::Groups, 1);
        // Where a rule begins: the last aggregate.
        let last = Some(&self.aggregate[..]).filter(|last| !last.is_empty());
        let start = last.map(|last| self.compressed(sums, last)).transpose()?;
        let root = self.root.as_ref().map(|root| self.compressed(sums, root)).transpose()?;
        let inputs = Inputs {
            weights: aggregator.rule().weighted().then_some(&weights[..]),
            root: root.as_deref(),
            start: start.as_deref(),
            permutation: Some(&permutation),
        };
        let Aggregate { vector, dropped, chosen, .. } = aggregator.aggregate(&*self.backend, &rows, &inputs)?;
        let name = |&place: &usize| {
            let sum = &sums[present[place]];
            match (self.plan.grouping, sum.task.cohort.first()) {
                (Grouping::Single, Some(&client)) => client,
                _ => u64::from(sum.task.group),
            }
        };
        let report = RuleReport {
            vectors: present.len(),
            dropped: dropped.iter().map(name).collect(),
            chosen: chosen.map(|chosen| chosen.iter().map(name).collect()),
        };
        Ok((vector.as_slice().into(), report))
    }

    /// What a sum of the survivors is divided by: how often they count together, or would if none was stale.
    fn total_weight(&self, task: &RoundTask, survivors: &[u64]) -> u64 {
        let whole = self.plan.counts_whole();
        let weight = |client| if whole { self.plan.whole_weight() } else { task.weight(client) };
        survivors.iter().map(|&client| self.plan.count(client, weight(client))).sum()
    }

    /// The same where clients count alike, as a number of clients: see [`crate::fl::plan::Plan::divisor`].
    fn divisor(&self, task: &RoundTask, survivors: &[u64]) -> f64 {
        if task.starts.is_none() || survivors.is_empty() {
            return self.plan.divisor(survivors.len());
        }
        self.total_weight(task, survivors) as f64 / self.plan.whole_weight() as f64
    }

    /// Adds what noise is left to add, decodes, divides: the mean of a group's vectors.
    fn reveal(&mut self, task: &RoundTask, words: &[u64], survivors: &[u64]) -> Result<Aligned<f32>, FlError> {
        let unit = self.plan.mechanism.unit();
        if self.plan.is_exact() {
            let total = self.total_weight(task, survivors);
            return Ok(open_wide(words, task, unit / total.max(1) as f64, self.plan.row_dim()));
        }
        // From the words each time: a device that fails may have written a part of its result.
        let mut sum: Aligned<u32> = Aligned::zeroed(words.len());
        sum.iter_mut().zip(words).for_each(|(s, &w)| *s = w as u32);
        self.remove_excess(task, survivors, &mut sum)?;
        let mut sum = Buffer::HostU32(sum);
        let copies = task.group * COPIES;
        let key = self.copied_key(task.id.round, task.id.attempt, Purpose::Noise, copies);
        match self.plan.remainder(task.id.round, task.cohort.len()) {
            NoiseLaw::None => {}
            NoiseLaw::Skellam { mu } => {
                if self.table.as_ref().is_none_or(|(of, _)| *of != mu) {
                    self.table = Some((mu, NoiseTable::skellam(mu)?.into()));
                }
                if let Some((_, table)) = &self.table {
                    self.backend.noise(&mut sum, task.shape.bits, table, &key)?;
                }
            }
            NoiseLaw::DiscreteGaussian { sigma } => match &mut self.noise {
                // The ring has 32 bits.
                Some(noise) => noise.add(sum.as_u32_mut()?, sigma, &key)?,
                None => discrete_gaussian::add(sum.as_u32_mut()?, task.shape.bits, sigma, &key)?,
            },
            NoiseLaw::CenteredBinomial { coins } => {
                for (copy, part) in coin_parts(coins).enumerate() {
                    let key = self.copied_key(task.id.round, task.id.attempt, Purpose::Noise, copies + copy as u32);
                    self.backend.noise(&mut sum, task.shape.bits, &CentredBinomial::new(part)?.into(), &key)?;
                }
            }
            // `Plan::remainder` makes it one discrete Gaussian.
            NoiseLaw::DiscreteGaussianShares { .. } => {}
        }
        let params = task.encode.decode((unit / self.divisor(task, survivors)) as f32);
        self.backend.decode_in_place(&mut sum, &params, &task.signs)?;
        Ok(sum.take_f32()?)
    }
}

impl Coordinator {
    /// Takes out the layers of the survivors' noise that are not needed, since so few vanished.
    fn remove_excess(&self, task: &RoundTask, survivors: &[u64], sum: &mut [u32]) -> Result<(), FlError> {
        let layers = task.excess(survivors.len());
        if layers.is_empty() {
            return Ok(());
        }
        let silent = survivors.iter().filter(|client| !self.told.contains_key(client)).count();
        if silent > 0 && self.plan.sampling != Sampling::All {
            // What stays would tell how large the cohort was; where it is public, more noise harms nobody.
            let (round, survivors) = (task.id.round, survivors.len());
            return Err(FlError::Aborted { round, survivors: survivors - silent, threshold: survivors });
        }
        let tables = dropout::tables(&task.layers[layers])?;
        let mut noise = Buffer::HostU32(Aligned::zeroed(sum.len()));
        for keys in survivors.iter().filter_map(|client| self.told.get(client)) {
            for (table, key) in tables.iter().zip(keys) {
                self.backend.noise(&mut noise, task.shape.bits, table, key)?;
            }
        }
        let mask = u32::MAX >> (32 - task.shape.bits);
        sum.iter_mut().zip(noise.as_u32()?).for_each(|(s, &n)| *s = s.wrapping_sub(n) & mask);
        Ok(())
    }
}

/// The weighted mean of the groups' means, each coordinate in f64 and in their order.
fn mean_of(mut means: Vec<Aligned<f32>>, weights: &[u64]) -> Aligned<f32> {
    if means.len() == 1 {
        return means.swap_remove(0);
    }
    let total = weights.iter().map(|&w| w as f64).sum::<f64>().max(1.0);
    let mut all = Aligned::zeroed(means.first().map_or(0, |mean| mean.len()));
    for (i, x) in all.iter_mut().enumerate() {
        let sum: f64 = means.iter().zip(weights).map(|(mean, &w)| w as f64 * f64::from(mean[i])).sum();
        *x = (sum / total) as f32;
    }
    all
}

/// Centres the exact sum of a round without privacy and scales it.
fn open_wide(words: &[u64], task: &RoundTask, unit: f64, dim: usize) -> Aligned<f32> {
    let shift = 64 - task.shape.bits;
    let mut mean = Aligned::zeroed(dim.min(words.len()));
    for (x, &w) in mean.iter_mut().zip(words) {
        *x = ((((w << shift) as i64) >> shift) as f64 * unit) as f32;
    }
    mean
}
