//! Clients of a cohort as one batch on a device: what each would do alone, and nothing of the others.

use std::sync::Arc;

use veilsum::backend::device::DeviceBackend;
use veilsum::backend::{Backend, BackendKind};
use veilsum::data::Batch;
use veilsum::math::prg::StreamKey;
use veilsum::model::burn_trainer::{CudaTrainer, WgpuTrainer};
use veilsum::model::{Architecture, Clients, LocalConfig, LocalTrainer};

use super::{Tolerance, key, near, part, same_bits, synthetic, tolerance, trained_on, values};

const LOCAL: LocalConfig =
    LocalConfig { epochs: 2, batch_size: 7, learning_rate: 0.1, momentum: 0.5, weight_decay: 0.01, proximal: 0.2 };

/// Samples of every client: none, one, a part of a mini-batch, several mini-batches.
const SHARDS: [usize; 9] = [3, 0, 25, 1, 7, 14, 0, 8, 30];

type Trainer = Arc<dyn LocalTrainer>;

/// A trainer with groups of `clients`, or as the rule says.
fn trainer(device: &DeviceBackend, sizes: &[usize], clients: Option<usize>) -> Trainer {
    let (model, backend): (_, Arc<dyn Backend>) = (Architecture::mlp(sizes).unwrap(), Arc::new(device.clone()));
    match device.kind() {
        BackendKind::Cuda => {
            let trainer = CudaTrainer::new(model, backend).unwrap();
            Arc::new(match clients {
                Some(clients) => trainer.with_group_size(clients),
                None => trainer,
            })
        }
        _ => {
            let trainer = WgpuTrainer::new(model, backend).unwrap();
            Arc::new(match clients {
                Some(clients) => trainer.with_group_size(clients),
                None => trainer,
            })
        }
    }
}

/// A cohort by name: client `i` has a shard and a key of its own.
struct Cohort<'a> {
    device: &'a DeviceBackend,
    trainer: &'a Trainer,
    weights: Vec<f32>,
    shard: &'a (dyn Fn(usize) -> Batch + Sync),
}

impl Cohort<'_> {
    fn key(client: usize) -> StreamKey {
        key(20 + client as u8)
    }

    /// The deltas (with a configuration) or mean gradients of some clients.
    fn rows(&self, names: &[usize], config: Option<&LocalConfig>) -> Vec<Vec<f32>> {
        let shard = |i: usize| (self.shard)(names[i]);
        let clients = Clients { count: names.len(), shard: &shard, key: &|i| Self::key(names[i]) };
        let rows = match config {
            Some(config) => self.trainer.delta_rows(&self.weights, &clients, config),
            None => self.trainer.mean_rows(&self.weights, &clients),
        };
        values(self.device, &rows.unwrap())
    }
}

/// The part of client `i`, of as many samples as [`SHARDS`] says, over and over.
fn shard_of(all: &Batch, i: usize) -> Batch {
    let len = SHARDS[i % SHARDS.len()];
    let first = 5 * i % (all.len() - len);
    part(all, first..first + len)
}

#[test]
fn every_client_trains_as_it_would_alone() {
    for device in trained_on() {
        let plain = LocalConfig { epochs: 1, momentum: 0.0, weight_decay: 0.0, proximal: 0.0, ..LOCAL };
        let single = LocalConfig { batch_size: 1, ..LOCAL };
        for (sizes, config) in [(&[64, 20, 10][..], LOCAL), (&[30, 10], plain), (&[13, 7, 9, 4], single)] {
            let grouped = trainer(&device, sizes, Some(4));
            let all = synthetic(100, sizes[0], sizes[sizes.len() - 1] as u64);
            let shard = |i| shard_of(&all, i);
            let weights = grouped.init(&key(4));
            let cohort = Cohort { device: &device, trainer: &grouped, weights: weights.clone(), shard: &shard };
            let names: Vec<usize> = (0..SHARDS.len()).collect();
            let found = cohort.rows(&names, Some(&config));
            let present: Vec<usize> = names.iter().copied().filter(|&i| SHARDS[i] > 0).collect();
            let alone = |&i: &usize| grouped.local_delta(&weights, &shard(i), &config, &Cohort::key(i)).unwrap();
            let expected: Vec<Vec<f32>> = present.iter().map(alone).collect();
            let some: Vec<Vec<f32>> = present.iter().map(|&i| found[i].clone()).collect();
            let what = format!("{} {sizes:?}", device.kind().name());
            near(&some, &expected, &tolerance(&device), &what);
            let absent = names.iter().filter(|&&i| SHARDS[i] == 0);
            assert!(absent.clone().count() == 2 && absent.into_iter().all(|&i| found[i].iter().all(|&x| x == 0.0)));
            // Group by group or one at a time.
            let apart = trainer(&device, sizes, Some(1));
            let apart = Cohort { device: &device, trainer: &apart, weights, shard: &shard };
            same_bits(
                &present.iter().map(|&i| apart.rows(&names, Some(&config))[i].clone()).collect::<Vec<_>>(),
                &expected,
            );
            let means = |cohort: &Cohort<'_>| cohort.rows(&present, None);
            near(&means(&cohort), &means(&apart), &tolerance(&device), &what);
        }
    }
}

#[test]
fn a_clients_bits_depend_neither_on_the_order_nor_on_the_size_of_the_cohort() {
    for device in trained_on() {
        for (sizes, group) in [(&[64, 20, 10][..], Some(4)), (&[30, 9, 5], None)] {
            let trainer = trainer(&device, sizes, group);
            let all = synthetic(100, sizes[0], sizes[sizes.len() - 1] as u64);
            let shard = |i| shard_of(&all, i);
            let cohort = Cohort { device: &device, trainer: &trainer, weights: trainer.init(&key(4)), shard: &shard };
            for config in [Some(&LOCAL), None] {
                // More than the shards that are on the host at a time.
                let names: Vec<usize> = (0..21).collect();
                let whole = cohort.rows(&names, config);
                same_bits(&cohort.rows(&names, config), &whole);
                let permuted: Vec<usize> = (0..21).map(|i| 8 * i % 21).collect();
                let expected: Vec<Vec<f32>> = permuted.iter().map(|&i| whole[i].clone()).collect();
                same_bits(&cohort.rows(&permuted, config), &expected);
                same_bits(&cohort.rows(&names[..6], config), &whole[..6]);
                same_bits(&cohort.rows(&[8], config), &whole[8..9]);
                same_bits(&cohort.rows(&[], config), &[]);
            }
        }
    }
}

#[test]
fn a_client_with_features_that_are_no_numbers_leaves_the_others_alone() {
    for device in trained_on() {
        let trainer = trainer(&device, &[64, 20, 10], Some(4));
        let all = synthetic(100, 64, 10);
        let shard = |i| shard_of(&all, i);
        let weights = trainer.init(&key(4));
        let names: Vec<usize> = (0..SHARDS.len()).collect();
        let good = Cohort { device: &device, trainer: &trainer, weights: weights.clone(), shard: &shard };
        // It finishes first, or last.
        for strange in [3, 8] {
            let poisoned = |i| {
                let mut batch = shard_of(&all, i);
                if i == strange {
                    batch.features.fill(f32::NAN);
                }
                batch
            };
            let bad = Cohort { device: &device, trainer: &trainer, weights: weights.clone(), shard: &poisoned };
            for config in [Some(&LOCAL), None] {
                let (mut found, mut expected) = (bad.rows(&names, config), good.rows(&names, config));
                assert!(found.remove(strange).iter().any(|x| x.is_nan()));
                expected.remove(strange);
                same_bits(&found, &expected);
                assert!(expected.concat().iter().all(|x| x.is_finite()));
            }
        }
    }
}

/// In a group and alone: the rows of a whole cohort are near those of one client after another.
#[test]
fn a_cohort_of_a_model_by_name_is_near_that_of_one_client_at_a_time() {
    for device in trained_on() {
        let sizes = [64, 32, 10];
        let (all, names) = (synthetic(100, 64, 10), (0..40).collect::<Vec<usize>>());
        let shard = |i| part(&all, i..i + 12);
        let rows = |group| {
            let trainer = trainer(&device, &sizes, group);
            let weights = trainer.init(&key(4));
            Cohort { device: &device, trainer: &trainer, weights, shard: &shard }.rows(&names, Some(&LOCAL))
        };
        let most = match device.kind() {
            BackendKind::Cuda => tolerance(&device),
            _ => Tolerance { row: 1e-5, all: 1e-5 },
        };
        near(&rows(None), &rows(Some(1)), &most, device.kind().name());
    }
}
