//! The one step that makes a sum visible: what noise is left to add, the decoding, the division.

use super::{Coordinator, RoundTask};
use crate::backend::{Aligned, Buffer};
use crate::fl::cohort::Sampling;
use crate::fl::{FlError, dropout};
use crate::math::prg::Purpose;
use crate::privacy::mechanism::NoiseLaw;
use crate::sample::binomial::{CentredBinomial, coin_parts};
use crate::sample::discrete_gaussian;
use crate::sample::table::NoiseTable;

impl Coordinator {
    /// Adds what noise is left to add, decodes, divides: the mean of the round's vectors.
    pub(super) fn reveal(
        &mut self,
        task: &RoundTask,
        words: &[u64],
        survivors: &[u64],
    ) -> Result<Aligned<f32>, FlError> {
        let unit = self.plan.mechanism.unit();
        if self.plan.is_exact() {
            let total: u64 = match &self.plan.weights {
                Some(w) => survivors.iter().map(|&c| w.get(c as usize).copied().unwrap_or(0)).sum(),
                None => survivors.len() as u64,
            };
            return Ok(open_wide(words, task, unit / total.max(1) as f64, self.plan.row_dim()));
        }
        // From the words each time: a device that fails may have written a part of its result.
        let mut sum: Aligned<u32> = Aligned::zeroed(words.len());
        sum.iter_mut().zip(words).for_each(|(s, &w)| *s = w as u32);
        self.remove_excess(task, survivors, &mut sum)?;
        let mut sum = Buffer::HostU32(sum);
        let key = self.key(task.id.round, task.id.attempt, Purpose::Noise);
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
                    let key = self.copied_key(task.id.round, task.id.attempt, Purpose::Noise, copy as u32);
                    self.backend.noise(&mut sum, task.shape.bits, &CentredBinomial::new(part)?.into(), &key)?;
                }
            }
            // `Plan::remainder` makes it one discrete Gaussian.
            NoiseLaw::DiscreteGaussianShares { .. } => {}
        }
        let params = task.encode.decode((unit / self.plan.divisor(survivors.len())) as f32);
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
        for keys in self.told.values() {
            for (table, key) in tables.iter().zip(keys) {
                self.backend.noise(&mut noise, task.shape.bits, table, key)?;
            }
        }
        let mask = u32::MAX >> (32 - task.shape.bits);
        sum.iter_mut().zip(noise.as_u32()?).for_each(|(s, &n)| *s = s.wrapping_sub(n) & mask);
        Ok(())
    }
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
