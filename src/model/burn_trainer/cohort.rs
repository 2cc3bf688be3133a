//! Clients of a cohort as one batch: weights `[clients x inputs x outputs]`, mini-batches `[clients x samples x inputs]`.
//!
//! The loss of a pass is the sum over clients of each client's mean loss, so that what backward says of a client's weights is
//! its own gradient; products of matrices are batched over clients, everything else is elementwise or along other axes.
//!
//! **A client's bits are its own.** The shape of a pass is that of [`Group`], a function of the model, the configuration and
//! the device's limits, never of the cohort: places without a client are filled with zeros, a mini-batch with copies of one of
//! its own samples at weight 0. A copy is finite where its client is, so no mask has to keep NaN out; a client that has
//! finished keeps its weights by selection, since `0 NaN = NaN`.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Bool, Tensor, TensorData};

use super::sgd::{Descent, MiniBatches, paired};
use super::{BurnTrainer, Linear};
use crate::data::Batch;
use crate::math::prg::StreamKey;
use crate::model::LocalConfig;
use crate::model::architecture::Architecture;

/// Clients of a group, where memory does not allow fewer.
const CLIENTS: usize = 32;

/// Most parameters of a model whose clients train as one batch (see `DeviceTrainer::with_group_size` for the figures).
const MOST_PARAMETERS: usize = 1 << 18;

/// Most samples of a mini-batch whose clients train as one batch: with more the arithmetic of one client is work enough, and
/// shards that are smaller would be filled up.
const MOST_SAMPLES: usize = 256;

/// Samples of a client in one pass where only the mean gradient of its shard is wanted.
pub(super) const MEAN_SAMPLES: usize = 32;

/// Floats of a group on the device: 256 MiB.
const ROOM: usize = 1 << 26;

/// Parameters, gradient, velocity, what they were before, and what is on the way, in copies of the weights.
const COPIES: usize = 8;

/// Value, slope and what is on the way, in copies of what a layer gives.
const LAYER_COPIES: usize = 4;

/// The shape of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Clients that train at once.
    pub(super) clients: usize,
    /// Samples of each.
    samples: usize,
}

impl Group {
    /// That of a model whose mini-batches have `samples`, on a device whose tensors hold at most `most_floats`; nothing where
    /// clients train one at a time. `asked` takes the place of the rule, not of the memory.
    pub(super) fn of(model: &Architecture, samples: usize, most_floats: usize, asked: Option<usize>) -> Option<Self> {
        let parameters = model.parameter_count();
        let suits = parameters <= MOST_PARAMETERS && samples <= MOST_SAMPLES;
        let wanted = asked.unwrap_or(if suits { CLIENTS } else { 1 });
        let outputs = model.spans().iter().map(|span| span.outputs);
        let widest = outputs.clone().max().unwrap_or(0).max(model.inputs());
        let values = model.inputs() + LAYER_COPIES * outputs.sum::<usize>();
        let one = (COPIES * parameters).saturating_add(samples.saturating_mul(values)).max(1);
        let largest = parameters.max(samples.saturating_mul(widest)).max(1);
        let clients = wanted.min(ROOM / one).min(most_floats / largest);
        (clients > 1).then_some(Self { clients, samples })
    }
}

/// What the clients of a group see in one pass.
struct Slab<'a> {
    group: Group,
    model: &'a Architecture,
    /// `[clients x samples x inputs]`.
    features: Vec<f32>,
    /// `[clients x samples x classes]`: minus the weight of a sample at its label, else 0. The sum of the products with the
    /// logarithms of the probabilities is the loss.
    targets: Vec<f32>,
    /// Clients that have nothing more to see.
    idle: Vec<bool>,
}

impl<'a> Slab<'a> {
    /// Nobody sees anything.
    fn new(group: Group, model: &'a Architecture) -> Self {
        let samples = group.clients * group.samples;
        Self {
            group,
            model,
            features: vec![0.0; samples * model.inputs()],
            targets: vec![0.0; samples * model.classes()],
            idle: vec![true; group.clients],
        }
    }

    /// Client `c` sees `indices` of its shard, at least one, each at weight `weight`; copies of the first fill the mini-batch.
    fn put(&mut self, c: usize, shard: &Batch, indices: impl ExactSizeIterator<Item = usize> + Clone, weight: f32) {
        let (inputs, classes, len) = (self.model.inputs(), self.model.classes(), indices.len());
        let first = indices.clone().next().into_iter().cycle();
        let rows = c * self.group.samples..(c + 1) * self.group.samples;
        for ((row, i), place) in rows.zip(indices.chain(first)).zip(0..) {
            self.features[row * inputs..(row + 1) * inputs]
                .copy_from_slice(&shard.features[i * inputs..(i + 1) * inputs]);
            if place < len {
                self.targets[row * classes + shard.labels[i] as usize] = -weight;
            }
        }
        self.idle[c] = false;
    }

    /// True where one of the first `members` clients has nothing more to see.
    fn some_idle(&self, members: usize) -> bool {
        self.idle[..members].contains(&true)
    }

    /// True where nobody sees anything.
    fn is_empty(&self) -> bool {
        !self.idle.contains(&false)
    }
}

impl<B: AutodiffBackend> BurnTrainer<B> {
    /// The same parameters for every client of a group.
    fn spread(&self, parameters: &[Linear<B::InnerBackend>], group: Group) -> Vec<Linear<B::InnerBackend, 3>> {
        let every = |t: Tensor<B::InnerBackend, 2>| t.unsqueeze::<3>().repeat_dim(0, group.clients);
        parameters.iter().map(|linear| linear.clone().map(every)).collect()
    }

    /// Every client's gradient of its weighted loss.
    fn pass(&self, parameters: &[Linear<B::InnerBackend, 3>], slab: Slab<'_>) -> Vec<Linear<B::InnerBackend, 3>> {
        let Group { clients, samples } = slab.group;
        let tensor = |values: Vec<f32>, width: usize| -> Tensor<B, 3> {
            Tensor::from_data(TensorData::new(values, [clients, samples, width]), &self.device)
        };
        let features = tensor(slab.features, slab.model.inputs());
        let targets = tensor(slab.targets, slab.model.classes());
        self.gradient(parameters, features, |logits| (log_softmax(logits, 2) * targets).sum())
    }

    /// True for idle clients, `[clients x 1 x 1]`.
    fn mask(&self, idle: &[bool]) -> Tensor<B::InnerBackend, 3, Bool> {
        Tensor::from_data(TensorData::new(idle.to_vec(), [idle.len(), 1, 1]), &self.device)
    }

    /// What local SGD from `start` comes to, `after - before` of every client: of those of `shards` (at most as many as the
    /// group has places, each with samples) and their keys what [`BurnTrainer::descend`] does, of the other places nothing
    /// that means anything. `config.batch_size` is that of the group.
    pub(super) fn descend_together(
        &self,
        start: &[Linear<B::InnerBackend>],
        shards: &[&Batch],
        keys: &[StreamKey],
        config: &LocalConfig,
        group: Group,
    ) -> Vec<Linear<B::InnerBackend, 3>> {
        let orders = shards.iter().zip(keys).take(group.clients);
        let mut orders: Vec<_> = orders.map(|(shard, key)| MiniBatches::new(shard.len(), config, key)).collect();
        let before = self.spread(start, group);
        let mut descent = Descent::new(before.clone(), config);
        loop {
            let mut slab = Slab::new(group, &self.architecture);
            for (c, (order, shard)) in orders.iter_mut().zip(shards).enumerate() {
                if let Some(indices) = order.advance() {
                    slab.put(c, shard, indices.iter().copied(), 1.0 / indices.len() as f32);
                }
            }
            if slab.is_empty() {
                return paired(descent.finish(), &before, |after, before| after - before);
            }
            let finished = slab.some_idle(orders.len()).then(|| self.mask(&slab.idle));
            let gradient = self.pass(descent.parameters(), slab);
            match finished {
                None => descent.step(gradient),
                Some(mask) => descent.step_and(gradient, |after, before| after.mask_where(mask.clone(), before)),
            }
        }
    }

    /// The gradient of the mean loss over every client's shard, in passes of as many samples as the group has; places as in
    /// [`Self::descend_together`].
    pub(super) fn mean_together(
        &self,
        start: &[Linear<B::InnerBackend>],
        shards: &[&Batch],
        group: Group,
    ) -> Vec<Linear<B::InnerBackend, 3>> {
        let parameters = self.spread(start, group);
        let shards = &shards[..shards.len().min(group.clients)];
        let longest = shards.iter().map(|shard| shard.len()).max().unwrap_or(0);
        let mut sum: Option<Vec<Linear<B::InnerBackend, 3>>> = None;
        for first in (0..longest).step_by(group.samples) {
            let mut slab = Slab::new(group, &self.architecture);
            for (c, shard) in shards.iter().enumerate().filter(|(_, shard)| first < shard.len()) {
                let end = shard.len().min(first + group.samples);
                slab.put(c, shard, first..end, 1.0 / shard.len() as f32);
            }
            let idle = slab.idle.clone();
            let part = self.pass(&parameters, slab);
            sum = Some(match sum {
                None => part,
                Some(sum) => {
                    let finished = self.mask(&idle);
                    paired(sum, &part, |sum, part| (sum.clone() + part).mask_where(finished.clone(), sum))
                }
            });
        }
        sum.unwrap_or(parameters)
    }
}

/// The tensors of all layers side by side: one row for each of `clients`.
pub(super) fn as_rows<B: Backend, const D: usize>(layers: Vec<Linear<B, D>>, clients: usize) -> Tensor<B, 2> {
    let parts = layers.into_iter().flat_map(Linear::parts).map(|part| {
        let len = part.dims().iter().product::<usize>();
        part.reshape([clients, len / clients.max(1)])
    });
    Tensor::cat(parts.collect(), 1)
}

#[cfg(test)]
mod tests {
    use super::super::flex::{FlexTrainer, flatten, host};
    use super::*;
    use crate::math::prg::Cipher;

    const LOCAL: LocalConfig =
        LocalConfig { epochs: 3, batch_size: 4, learning_rate: 0.1, momentum: 0.5, weight_decay: 0.01, proximal: 0.2 };

    fn key(byte: u8) -> StreamKey {
        StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
    }

    fn shard(len: usize, dim: usize, classes: u64, byte: u8) -> Batch {
        let mut reader = key(byte).reader(1 << 20);
        Batch {
            features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
            labels: (0..len).map(|_| reader.below(classes) as u32).collect(),
            dim,
        }
    }

    fn trainer(sizes: &[usize]) -> FlexTrainer {
        FlexTrainer::new(Architecture::mlp(sizes).unwrap()).unwrap()
    }

    fn group(trainer: &FlexTrainer, samples: usize, clients: usize) -> Group {
        Group::of(&trainer.architecture, samples, usize::MAX, Some(clients)).unwrap()
    }

    /// Rows of the clients that there are, from a group of eight.
    fn rows(trainer: &FlexTrainer, members: &[(Batch, StreamKey)], config: &LocalConfig) -> Vec<Vec<f32>> {
        let start = trainer.parameters(&trainer.architecture.init(&key(77)));
        let shards: Vec<&Batch> = members.iter().map(|(shard, _)| shard).collect();
        let keys: Vec<StreamKey> = members.iter().map(|(_, key)| key.clone()).collect();
        let group = group(trainer, config.batch_size, 8);
        split(trainer.descend_together(&start, &shards, &keys, config, group), members.len())
    }

    fn split(layers: Vec<Linear<burn::backend::Flex, 3>>, members: usize) -> Vec<Vec<f32>> {
        let rows = as_rows(layers, 8);
        let dim = rows.dims()[1];
        host(rows).chunks(dim).take(members).map(<[f32]>::to_vec).collect()
    }

    fn norm(a: &[f32]) -> f64 {
        a.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
    }

    fn off(a: &[f32], b: &[f32]) -> f64 {
        norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    fn bits(row: &[f32]) -> Vec<u32> {
        row.iter().map(|x| x.to_bits()).collect()
    }

    fn members(dim: usize, classes: u64) -> Vec<(Batch, StreamKey)> {
        [9, 1, 4, 26, 3, 8].iter().zip(10..).map(|(&len, i)| (shard(len, dim, classes, i), key(i))).collect()
    }

    #[test]
    fn every_client_descends_as_it_would_alone() {
        let plain = LocalConfig { epochs: 1, momentum: 0.0, weight_decay: 0.0, proximal: 0.0, ..LOCAL };
        for sizes in [&[12, 9, 5][..], &[12, 5], &[12, 6, 7, 5]] {
            let trainer = trainer(sizes);
            let weights = trainer.architecture.init(&key(77));
            for config in
                [LOCAL, plain, LocalConfig { batch_size: 1, ..LOCAL }, LocalConfig { batch_size: 30, ..LOCAL }]
            {
                let members = members(12, 5);
                for (i, (row, (shard, key))) in rows(&trainer, &members, &config).iter().zip(&members).enumerate() {
                    let after = flatten(trainer.descend(trainer.parameters(&weights), shard, &config, key));
                    let alone: Vec<f32> = after.iter().zip(&weights).map(|(a, b)| a - b).collect();
                    let norm = norm(&alone);
                    assert!(norm > 0.01 && off(row, &alone) < 1e-5 * norm, "{sizes:?} {config:?} client {i}");
                }
            }
        }
    }

    #[test]
    fn nobody_else_changes_a_clients_bits() {
        let trainer = trainer(&[12, 9, 5]);
        let mut members = members(12, 5);
        let whole = rows(&trainer, &members, &LOCAL);
        for (member, row) in members.iter().zip(&whole) {
            assert_eq!(bits(&rows(&trainer, std::slice::from_ref(member), &LOCAL)[0]), bits(row));
        }
        members.reverse();
        let reversed = rows(&trainer, &members, &LOCAL);
        assert!(reversed.iter().rev().zip(&whole).all(|(a, b)| bits(a) == bits(b)));
        members.reverse();
        // The one that trains longest, and one that has long finished.
        for strange in [3, 1] {
            let mut members = members.clone();
            members[strange].0.features.fill(f32::NAN);
            for (i, (a, b)) in rows(&trainer, &members, &LOCAL).iter().zip(&whole).enumerate() {
                assert!(if i == strange { a.iter().any(|x| x.is_nan()) } else { bits(a) == bits(b) }, "{strange} {i}");
            }
        }
    }

    #[test]
    fn a_client_without_samples_stays_where_it_is() {
        let trainer = trainer(&[12, 9, 5]);
        let mut members = members(12, 5);
        members[2].0 = shard(0, 12, 5, 0);
        assert!(rows(&trainer, &members, &LOCAL)[2].iter().all(|&x| x == 0.0));
    }

    #[test]
    fn means_are_those_of_every_clients_own_samples() {
        let trainer = trainer(&[12, 9, 5]);
        let start = trainer.parameters(&trainer.architecture.init(&key(77)));
        let members = members(12, 5);
        let shards: Vec<&Batch> = members.iter().map(|(shard, _)| shard).collect();
        let group = group(&trainer, 4, 8);
        let whole = split(trainer.mean_together(&start, &shards, group), shards.len());
        for (i, (row, shard)) in whole.iter().zip(&shards).enumerate() {
            let alone = flatten(trainer.mean_gradient(&start, shard));
            assert!(off(row, &alone) < 1e-5 * norm(&alone), "{i}");
            assert_eq!(bits(&split(trainer.mean_together(&start, &[shard], group), 1)[0]), bits(row), "{i}");
        }
        assert!(trainer.mean_together(&start, &[], group).len() == 2);
    }

    #[test]
    fn a_group_is_as_large_as_its_memory_allows_and_large_models_have_none() {
        let of = |sizes: &[usize], samples, most, asked| {
            Group::of(&Architecture::mlp(sizes).unwrap(), samples, most, asked).map(|group| group.clients)
        };
        let digits = [64, 32, 10];
        assert_eq!(of(&digits, 10, usize::MAX, None), Some(CLIENTS));
        assert_eq!(of(&digits, 10, usize::MAX, Some(1)), None);
        assert_eq!(of(&digits, 10, usize::MAX, Some(100)), Some(100));
        // Tensors of one device hold less.
        assert_eq!(of(&digits, 10, 5 * 2410, None), Some(5));
        assert_eq!(of(&digits, 10, 2410, None), None);
        assert_eq!(of(&digits, MOST_SAMPLES + 1, usize::MAX, None), None);
        assert_eq!(of(&digits, usize::MAX, usize::MAX, Some(8)), None);
        assert_eq!(of(&[1000, 1000, 10], 10, usize::MAX, None), None);
        let large = of(&[1000, 1000, 10], 10, usize::MAX, Some(1000)).unwrap();
        assert!(large * COPIES * 1_011_010 <= ROOM && large > 4, "{large}");
    }
}
