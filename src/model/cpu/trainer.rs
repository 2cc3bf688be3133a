//! [`LocalTrainer`] over a network.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use super::ghost;
use super::loss::{cross_entropy_gradient, next_token_gradient};
use super::network::{Network, Workspace};
use super::pointwise::{Draws, most_visits};
use crate::backend::Rows;
use crate::backend::simd::matmul::MatMul;
use crate::data::Batch;
use crate::math::prg::StreamKey;
use crate::model::architecture::Architecture;
use crate::model::local::check_config;
use crate::model::start::Start;
use crate::model::{Clients, ClippedSum, IntegerClip, LocalConfig, LocalTrainer, ModelError};

/// The trainer on the processor, for every architecture.
#[derive(Clone, Debug)]
pub struct CpuTrainer {
    architecture: Architecture,
    network: Network,
    kernels: MatMul,
    /// Where training begins, of a model that does not begin at random.
    start: Option<Arc<Start>>,
}

impl CpuTrainer {
    /// The trainer of a model.
    #[must_use]
    pub fn new(architecture: Architecture) -> Self {
        let network = Network::new(&architecture);
        Self { architecture, network, kernels: MatMul::new(), start: None }
    }

    /// The trainer of a model that begins with given weights, of which a part may be trained (see [`Architecture::tuned`]).
    #[must_use]
    pub fn starting(start: Start) -> Self {
        let fresh = Self::new(start.architecture().clone());
        Self { start: Some(Arc::new(start)), ..fresh }
    }

    /// The trained weights, and behind them those that are not.
    pub(super) fn whole<'w>(&self, weights: &'w [f32]) -> Cow<'w, [f32]> {
        match self.start.as_deref().map(Start::frozen) {
            None | Some([]) => Cow::Borrowed(weights),
            Some(frozen) => Cow::Owned([weights, frozen].concat()),
        }
    }

    pub(super) const fn network(&self) -> &Network {
        &self.network
    }

    /// Checks weights and samples, and that a row needs no key.
    pub(super) fn check_rows(&self, weights: &[f32], batch: &Batch) -> Result<(), ModelError> {
        self.architecture.check(weights, batch)?;
        if self.draws() { Err(ModelError::Draws { model: self.architecture.to_string() }) } else { Ok(()) }
    }

    /// Forward and backward over at most [`Network::pass`] samples of a batch; the loss is `scale` times the sum of theirs.
    pub(super) fn pass(
        &self,
        work: &mut Workspace,
        weights: &[f32],
        (batch, indices): (&Batch, &[usize]),
        draws: Option<&Draws<'_>>,
        scale: f32,
    ) {
        let samples = indices.iter().map(|&i| &batch.features[i * batch.dim..(i + 1) * batch.dim]);
        self.network.forward(work, weights, samples, draws);
        let classes = self.architecture.classes();
        if self.architecture.predicts_next() {
            let (padding, each) = (self.architecture.padding(), batch.dim * classes);
            self.network.backward(work, weights, |logits, out| {
                for ((&i, z), out) in indices.iter().zip(logits.chunks_exact(each)).zip(out.chunks_exact_mut(each)) {
                    let sequence = &batch.features[i * batch.dim..(i + 1) * batch.dim];
                    next_token_gradient(z, (sequence, batch.labels[i]), padding, scale, out);
                }
            });
            return;
        }
        self.network.backward(work, weights, |logits, out| {
            cross_entropy_gradient(logits, indices.iter().map(|&i| &batch.labels[i]), classes, scale, out);
        });
    }

    /// Adds `scale` times the gradient of the summed losses of `indices` to `out`; `visit` is the first one's.
    fn add_gradient(
        &self,
        work: &mut Workspace,
        weights: &[f32],
        (batch, indices): (&Batch, &[usize]),
        (key, visit): (&StreamKey, u64),
        scale: f32,
        out: &mut [f32],
    ) {
        for (part, visit) in indices.chunks(self.network.pass()).zip((visit..).step_by(self.network.pass())) {
            self.pass(work, weights, (batch, part), Some(&Draws::new(key, visit)), scale);
            self.network.add_gradient(work, out);
        }
    }

    /// What local SGD comes to, with or without a correction of every gradient.
    fn delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        correction: Option<&[f32]>,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.architecture.check(weights, shard)?;
        check_config(config)?;
        if let Some(found) = correction.map(<[f32]>::len).filter(|&found| found != weights.len()) {
            return Err(ModelError::WrongLength { what: "the correction", expected: weights.len(), found });
        }
        self.check_visits(config.epochs, shard.len())?;
        let after = self.descend(weights, shard, config, correction, key);
        Ok(after.iter().zip(weights).map(|(after, before)| after - before).collect())
    }

    /// The weights after local SGD (see [`LocalTrainer::local_delta`]).
    fn descend(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        correction: Option<&[f32]>,
        key: &StreamKey,
    ) -> Vec<f32> {
        let mut reader = key.reader(0);
        let mut order: Vec<usize> = (0..shard.len()).collect();
        let mut work = self.network.workspace(self.network.pass().min(shard.len()).min(config.batch_size));
        let (mut now, dim) = (self.whole(weights).into_owned(), weights.len());
        let plain =
            config.momentum == 0.0 && config.weight_decay == 0.0 && config.proximal == 0.0 && correction.is_none();
        let mut memory = Memory::default();
        let mut visit = 0;
        for _ in 0..config.epochs {
            reader.shuffle(&mut order);
            for indices in order.chunks(config.batch_size) {
                let scale = 1.0 / indices.len() as f32;
                if plain && indices.len() <= self.network.pass() {
                    // The step itself is what the products add up: no gradient is stored.
                    let draws = Draws::new(key, visit);
                    self.pass(&mut work, &now, (shard, indices), Some(&draws), -config.learning_rate * scale);
                    self.network.add_gradient(&work, &mut now[..dim]);
                } else {
                    let gradient = memory.cleared(dim);
                    self.add_gradient(&mut work, &now, (shard, indices), (key, visit), scale, gradient);
                    if let Some(correction) = correction {
                        self.kernels.add_scaled(gradient, correction, 1.0);
                    }
                    memory.step(self.kernels, &mut now[..dim], weights, config);
                }
                visit += indices.len() as u64;
            }
        }
        now
    }

    /// That the keystream has a word for every value that dropout draws for.
    fn check_visits(&self, epochs: u32, samples: usize) -> Result<(), ModelError> {
        let (found, most) = (u64::from(epochs).saturating_mul(samples as u64), most_visits(self.network.drawn()));
        if found <= most {
            return Ok(());
        }
        let expected =
            "as few as one keystream has dropout for: 2^37 bytes, 4 for every value of every epoch and sample";
        Err(ModelError::Setting { what: "epochs", expected, found: f64::from(epochs) })
    }
}

/// What SGD keeps from step to step.
#[derive(Default)]
struct Memory {
    gradient: Vec<f32>,
    velocity: Vec<f32>,
}

impl Memory {
    /// Zeros for the next gradient.
    fn cleared(&mut self, len: usize) -> &mut [f32] {
        self.gradient.clear();
        self.gradient.resize(len, 0.0);
        &mut self.gradient
    }

    /// One step along the gradient.
    fn step(&mut self, kernels: MatMul, now: &mut [f32], start: &[f32], config: &LocalConfig) {
        if config.weight_decay > 0.0 {
            kernels.add_scaled(&mut self.gradient, now, config.weight_decay);
        }
        if config.proximal > 0.0 {
            for ((g, w), w0) in self.gradient.iter_mut().zip(&*now).zip(start) {
                *g += config.proximal * (w - w0);
            }
        }
        if config.momentum == 0.0 {
            return kernels.add_scaled(now, &self.gradient, -config.learning_rate);
        }
        self.velocity.resize(now.len(), 0.0);
        for (v, g) in self.velocity.iter_mut().zip(&self.gradient) {
            *v = config.momentum * *v + g;
        }
        kernels.add_scaled(now, &self.velocity, -config.learning_rate);
    }
}

impl LocalTrainer for CpuTrainer {
    fn parameter_count(&self) -> usize {
        self.architecture.parameter_count()
    }

    fn init(&self, key: &StreamKey) -> Vec<f32> {
        let mut weights = self.architecture.init(key);
        if let Some(start) = &self.start {
            start.copy_known(&mut weights);
        }
        weights
    }

    fn saved(&self, weights: &[f32]) -> Vec<f32> {
        match &self.start {
            Some(start) => start.merged(weights),
            None => weights.to_vec(),
        }
    }

    fn draws(&self) -> bool {
        self.architecture.draws()
    }

    /// A sample's row has the same bits in every batch.
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        self.check_rows(weights, batch)?;
        let dim = self.parameter_count();
        let weights = &*self.whole(weights);
        let mut rows = vec![0.0f32; batch.len() * dim];
        let (indices, pass): (Vec<usize>, _) = ((0..batch.len()).collect(), self.network.pass());
        rows.par_chunks_mut(pass * dim).zip(indices.par_chunks(pass)).for_each_init(
            || self.network.workspace(pass.min(batch.len())),
            |work, (rows, part)| {
                self.pass(work, weights, (batch, part), None, 1.0);
                for (sample, row) in rows.chunks_exact_mut(dim).enumerate() {
                    self.network.add_row(work, sample, row);
                }
            },
        );
        Ok(Rows::dense(rows, batch.len(), dim)?)
    }

    fn clips_inside(&self) -> bool {
        !self.draws()
    }

    /// In passes of 32 samples, or of one each, on all cores; the same bits for any number of threads.
    fn clipped_sum(
        &self,
        weights: &[f32],
        batch: &Batch,
        chosen: &[usize],
        clip: &IntegerClip,
    ) -> Result<ClippedSum, ModelError> {
        ghost::clipped_sum(self, weights, batch, chosen, clip)
    }

    /// `v <- momentum v + g + weight_decay w + proximal (w - w_0)`, `w <- w - learning_rate v`, `g`
    /// the gradient of the mean loss of a mini-batch. Every epoch reshuffles; its last mini-batch may be
    /// smaller. `key` serves one call: another round or client takes another key.
    ///
    /// With more visits of dropout than a keystream has words: [`ModelError::Setting`].
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.delta(weights, shard, config, None, key)
    }

    fn corrected_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        correction: &[f32],
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.delta(weights, shard, config, Some(correction), key)
    }

    /// The samples of a shard are visited in their order.
    fn mean_rows(&self, weights: &[f32], clients: &Clients<'_>) -> Result<Rows, ModelError> {
        let dim = self.parameter_count();
        let whole = &*self.whole(weights);
        let mut rows = vec![0.0f32; clients.count * dim];
        rows.par_chunks_mut(dim).enumerate().try_for_each(|(i, row)| {
            let shard = (clients.shard)(i);
            self.architecture.check(weights, &shard)?;
            self.check_visits(1, shard.len())?;
            let mut work = self.network.workspace(self.network.pass().min(shard.len()));
            let indices: Vec<usize> = (0..shard.len()).collect();
            let scale = 1.0 / shard.len().max(1) as f32;
            self.add_gradient(&mut work, whole, (&shard, &indices), (&(clients.key)(i), 0), scale, row);
            Ok::<_, ModelError>(())
        })?;
        Ok(Rows::dense(rows, clients.count, dim)?)
    }

    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.architecture.check(weights, batch)?;
        let weights = &*self.whole(weights);
        let mut work = self.network.workspace(self.network.pass().min(batch.len()));
        let mut logits = Vec::with_capacity(batch.len() * self.architecture.classes());
        for part in batch.features.chunks(self.network.pass() * batch.dim.max(1)) {
            let given = self.network.forward(&mut work, weights, part.chunks_exact(batch.dim), None);
            if !self.architecture.predicts_next() {
                logits.extend_from_slice(given);
                continue;
            }
            let classes = self.architecture.classes();
            for (sequence, z) in part.chunks_exact(batch.dim).zip(given.chunks_exact(batch.dim * classes)) {
                let last = self.architecture.last_position(sequence);
                logits.extend_from_slice(&z[last * classes..(last + 1) * classes]);
            }
        }
        Ok(logits)
    }
}
