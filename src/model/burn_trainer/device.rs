//! The trainer on a device that runs the kernels too: rows and deltas come out of Burn as buffers of that device.
//! [`wgpu`](super::wgpu) and [`cuda`](super::cuda) say what differs between the two.
//!
//! Weights go up when they change, once a round, and stay until others come. Between the backward pass and the packed
//! integers nothing is read back. Results are bit-identical from run to run on one device and driver: every pass of
//! [`LocalTrainer::gradient_rows`] has the same shape, whatever the number of samples, since the shape picks the kernel of a
//! matrix product; they differ from those of the processor, in the last bits on wgpu.

use std::any::Any;
use std::cmp::Reverse;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::backend::{Backend as Framework, BackendTypes};
use burn::tensor::{DType, Tensor};

use super::cohort::{Group, MEAN_SAMPLES, as_rows};
use super::memory::{Collector, SharedDevice};
use super::sgd::paired;
use super::weights::Sent;
use super::{BurnTrainer, Linear, Trace, check_linear};
use crate::backend::device::{Device, Memory};
use crate::backend::{Backend, BackendError, BackendKind, Rows};
use crate::data::Batch;
use crate::math::prg::StreamKey;
use crate::model::architecture::Architecture;
use crate::model::local::check_config;
use crate::model::{Clients, LocalConfig, LocalTrainer, ModelError};

/// Samples of one forward and backward pass; a smaller batch is filled up with samples that nobody sees.
const CHUNK: usize = 256;

/// Groups whose shards are on the host at a time: clients of like shards train together, so that few wait for others.
const GROUPS: usize = 4;

/// A tensor as the framework keeps it.
pub type Primitive<P> = <<P as Platform>::Framework as BackendTypes>::FloatTensorPrimitive;

/// The framework's name of a device.
pub type DeviceName<P> = <<P as Platform>::Framework as BackendTypes>::Device;

/// A device that the framework and the kernels share: what differs between the two kinds of them.
pub trait Platform: Any + Debug + Send + Sync + Sized {
    /// The framework on such a device.
    type Framework: Framework;
    /// The device of the kernels.
    type Kernels: Device;
    /// Its backend.
    const KIND: BackendKind;

    /// The framework's name of the device, after everything that it needs was found.
    ///
    /// # Errors
    /// What is missing, and where to get it.
    fn open(kernels: &Self::Kernels) -> Result<DeviceName<Self>, BackendError>;

    /// Most floats of one tensor.
    fn most_floats(kernels: &Self::Kernels) -> usize;

    /// The element type of a tensor, and its strides in elements.
    fn layout(tensor: &Primitive<Self>) -> (DType, Vec<usize>);

    /// The memory of a tensor, and the word of it at which the tensor begins. It stays as it is while there is a handle; all
    /// that computes it comes before what reads it.
    ///
    /// # Errors
    /// What went wrong while it was computed.
    fn hand_out(kernels: &Self::Kernels, tensor: Primitive<Self>) -> Result<(Memory, u64), BackendError>;

    /// Waits until the framework's thread has done what it was given so far; the device may not have.
    fn drain(device: &DeviceName<Self>);

    /// Bytes that are free on the device, if it says so.
    fn free_bytes(kernels: &Self::Kernels) -> Option<u64>;

    /// Gives back what the kernels keep for later. False if there may be no more room than before.
    fn make_room(kernels: &Self::Kernels) -> bool;
}

/// A [`LocalTrainer`] on the device of a backend.
///
/// Errors of every call: those of [`FlexTrainer`](super::FlexTrainer), and what the device refuses: no room, its loss. Rows do
/// not wait for the device: what goes wrong while they are computed may show where they are used. The trainer still works
/// after an error that is not [`BackendError::DeviceLost`].
#[derive(Debug)]
pub struct DeviceTrainer<P: Platform> {
    model: BurnTrainer<Autodiff<P::Framework>>,
    // Dropped before the framework gives its memory back.
    sent: Sent<Vec<Linear<P::Framework>>>,
    shared: SharedDevice<P>,
    /// What was asked for in the place of the rule.
    group_size: Option<usize>,
}

/// A client whose turn it is.
struct Member {
    /// Its row.
    place: usize,
    /// Its samples, at least one.
    shard: Batch,
}

impl<P: Platform> DeviceTrainer<P> {
    /// The trainer of a model on the device of `backend`.
    ///
    /// # Errors
    /// A backend without such a device, what the framework needs and is not here, a model with more parameters than one tensor
    /// holds, or with other layers than linear ones and relu.
    pub fn new(architecture: Architecture, backend: Arc<dyn Backend>) -> Result<Self, ModelError> {
        check_linear(&architecture, "training on a device")?;
        let shared = SharedDevice::<P>::new(backend)?;
        let (most, found) = (shared.most_floats()?, architecture.parameter_count());
        if found > most {
            let reason = format!("{found} parameters, expected at most {most} within one tensor on this device");
            let what = "training on a device".into();
            return Err(BackendError::DeviceFailed { backend: P::KIND.name(), what, reason }.into());
        }
        let model = BurnTrainer { architecture, device: shared.device().clone() };
        Ok(Self { model, sent: Sent::default(), shared, group_size: None })
    }

    /// Trains `clients` at once in [`LocalTrainer::delta_rows`] and [`LocalTrainer::mean_rows`], as far as 256 MiB of weights,
    /// gradients and activations go, whatever the model; 0 and 1 are one after another. Another group size may change the last
    /// bits of results.
    ///
    /// By default 32 of models up to 2^18 parameters whose mini-batches have at most 256 samples: a round of 32 clients with 100 samples each, mini-batches of 10, on a software
    /// adapter (Mesa lavapipe, two cores; no card has been measured), takes 0.15 s for 1.08 s of `digits_mlp` and 1.03 s for 2.84 s of
    /// `mnist_mlp` (`examples/training_speed.rs` with `--clients=32 --samples=100 --device`, and `--group=1` besides);
    /// of 784-320-10, 254,410 parameters, with 20 samples each 0.5 s for 1.3 to 1.8. A lone client pays for the whole group, so that its bits
    /// are those that it has in any cohort: 0.14 s for 0.03 s of `digits_mlp`.
    #[must_use]
    pub const fn with_group_size(mut self, clients: usize) -> Self {
        self.group_size = Some(clients);
        self
    }

    /// The group in which clients train whose passes have `samples`; none where they train one at a time.
    fn group(&self, samples: usize) -> Result<Option<Group>, ModelError> {
        Ok(Group::of(&self.model.architecture, samples, self.shared.most_floats()?, self.group_size))
    }

    /// Runs `work` with the framework, once more where there was no room and the kernels could make some.
    fn run<T: Send>(&self, work: impl Fn() -> Result<T, ModelError> + Send + Sync) -> Result<T, ModelError> {
        let attempt = || {
            let result = self.shared.run(&work);
            if result.is_err() {
                // What was sent may never have arrived.
                self.sent.forget();
            }
            result
        };
        match attempt() {
            Err(ModelError::Backend(BackendError::DeviceMemory { .. })) if self.shared.make_room() => attempt(),
            result => result,
        }
    }

    /// The weights on the device.
    fn parameters(&self, weights: &[f32]) -> Vec<Linear<P::Framework>> {
        self.sent.get(weights, || self.model.parameters(weights))
    }

    /// The weights on the device, as constants of what is differentiated.
    fn constants(&self, weights: &[f32]) -> Vec<Linear<Autodiff<P::Framework>>> {
        self.parameters(weights).into_iter().map(|linear| linear.map(Tensor::from_inner)).collect()
    }

    /// Gradient rows of the samples of a trace, `[len x d]`: `dW = a^T dz`, `db = dz` of every layer side by side.
    fn rows_of(&self, trace: &Trace<P::Framework>, samples: Range<usize>) -> Tensor<P::Framework, 2> {
        let layers = self.model.architecture.spans().iter().zip(trace.activations.iter().zip(&trace.deltas));
        let parts = layers.flat_map(|(span, (activation, delta))| {
            let n = samples.len();
            let activation = activation.clone().slice([samples.clone(), 0..span.inputs]);
            let delta = delta.clone().slice([samples.clone(), 0..span.outputs]);
            let outer = activation.reshape([n, span.inputs, 1]) * delta.clone().reshape([n, 1, span.outputs]);
            let weight = outer.reshape([n, span.inputs * span.outputs]);
            [Some(weight), span.bias.is_some().then_some(delta)].into_iter().flatten()
        });
        Tensor::cat(parts.collect(), 1)
    }

    /// Forward and backward over at most [`CHUNK`] samples of a batch.
    fn filled_trace(
        &self,
        parameters: &[Linear<Autodiff<P::Framework>>],
        batch: &Batch,
        samples: Range<usize>,
    ) -> Trace<P::Framework> {
        let inputs = self.model.architecture.inputs();
        let mut features = batch.features[samples.start * inputs..samples.end * inputs].to_vec();
        features.resize(CHUNK * inputs, 0.0);
        let mut labels = batch.labels[samples].to_vec();
        labels.resize(CHUNK, 0);
        self.model.trace(parameters, &features, &labels)
    }

    /// Rows of a whole batch that is checked and not empty.
    fn traced_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        let (len, dim) = (batch.len(), weights.len());
        let parameters = self.constants(weights);
        // Samples whose rows are one tensor.
        let most = (self.shared.most_floats()? / dim).clamp(1, CHUNK);
        if len <= most {
            return self.shared.view(self.rows_of(&self.filled_trace(&parameters, batch, 0..len), 0..len));
        }
        let collector = self.shared.collector(len, dim)?;
        for start in (0..len).step_by(CHUNK) {
            let samples = start..len.min(start + CHUNK);
            let trace = self.filled_trace(&parameters, batch, samples.clone());
            for first in (0..samples.len()).step_by(most) {
                let part = first..samples.len().min(first + most);
                collector.put(start + first, self.rows_of(&trace, part))?;
            }
        }
        collector.finish()
    }

    /// Every client's tensors as one row each; a client without samples gets zeros.
    fn client_rows(
        &self,
        weights: &[f32],
        clients: &Clients<'_>,
        row: impl Fn(Vec<Linear<P::Framework>>, usize, &Batch) -> Vec<Linear<P::Framework>> + Sync,
    ) -> Result<Rows, ModelError> {
        self.run(|| {
            let collector = self.shared.collector(clients.count, weights.len())?;
            let parameters = self.parameters(weights);
            for i in 0..clients.count {
                let shard = (clients.shard)(i);
                self.model.architecture.check(weights, &shard)?;
                if !shard.is_empty() {
                    collector.put(i, one_row(row(parameters.clone(), i, &shard)))?;
                }
            }
            collector.finish()
        })
    }

    /// The same for a group of clients at a time: what `work` makes of them, one row a place.
    fn group_rows(
        &self,
        weights: &[f32],
        clients: &Clients<'_>,
        group: Group,
        work: impl Fn(&[Linear<P::Framework>], &[Member]) -> Vec<Linear<P::Framework, 3>> + Sync,
    ) -> Result<Rows, ModelError> {
        self.run(|| {
            let collector = self.shared.collector(clients.count, weights.len())?;
            let parameters = self.parameters(weights);
            for start in (0..clients.count).step_by(GROUPS * group.clients) {
                let places = start..clients.count.min(start + GROUPS * group.clients);
                let mut members = self.members(weights, clients, places)?;
                members.sort_by_key(|member| Reverse(member.shard.len()));
                for members in members.chunks(group.clients) {
                    put_runs(&collector, &as_rows(work(&parameters, members), group.clients), members)?;
                }
            }
            collector.finish()
        })
    }

    /// Those of the clients in `places` that have samples.
    fn members(&self, weights: &[f32], clients: &Clients<'_>, places: Range<usize>) -> Result<Vec<Member>, ModelError> {
        let member = |place| {
            let shard = (clients.shard)(place);
            self.model.architecture.check(weights, &shard)?;
            Ok((!shard.is_empty()).then_some(Member { place, shard }))
        };
        places.filter_map(|place| member(place).transpose()).collect()
    }

    /// Gradient of the mean loss over a shard, in passes of bounded size.
    fn shard_gradient(&self, parameters: &[Linear<P::Framework>], shard: &Batch) -> Vec<Linear<P::Framework>> {
        let indices: Vec<usize> = (0..shard.len()).collect();
        let parts = indices.chunks(CHUNK).map(|part| {
            let share = part.len() as f32 / shard.len() as f32;
            let gradient = self.model.mean_gradient(parameters, &shard.select(part.iter().copied()));
            gradient.into_iter().map(|linear| linear.map(|g| g.mul_scalar(share))).collect::<Vec<_>>()
        });
        let sum = |a, b: Vec<Linear<P::Framework>>| paired(a, &b, |a, b| a + b);
        parts.reduce(sum).unwrap_or_default()
    }
}

/// Copies the rows of a group to their places, those of neighbours in one call.
fn put_runs<P: Platform>(
    collector: &Collector<'_, P>,
    rows: &Tensor<P::Framework, 2>,
    members: &[Member],
) -> Result<(), ModelError> {
    let mut first = 0;
    for run in members.chunk_by(|a, b| a.place + 1 == b.place) {
        collector.put(run[0].place, rows.clone().slice([first..first + run.len(), 0..rows.dims()[1]]))?;
        first += run.len();
    }
    Ok(())
}

/// The tensors of all layers as one row.
fn one_row<B: Framework>(layers: Vec<Linear<B>>) -> Tensor<B, 2> {
    as_rows(layers, 1)
}

impl<P: Platform> LocalTrainer for DeviceTrainer<P> {
    fn parameter_count(&self) -> usize {
        self.model.architecture.parameter_count()
    }

    fn init(&self, key: &StreamKey) -> Vec<f32> {
        self.model.architecture.init(key)
    }

    /// The rows are on the device: the memory of one tensor of Burn, or a copy of several on the device. A sample's row
    /// does not depend on how many others the batch has.
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        self.model.architecture.check(weights, batch)?;
        if batch.is_empty() {
            return Ok(Rows::dense(Vec::new(), 0, weights.len())?);
        }
        self.run(|| self.traced_rows(weights, batch))
    }

    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.model.architecture.check(weights, shard)?;
        check_config(config)?;
        self.run(|| {
            let before = self.parameters(weights);
            let after = self.model.descend(before.clone(), shard, config, key);
            self.shared.host(one_row(difference(after, &before)))
        })
    }

    /// Small models train several clients as one batch (see [`Self::with_group_size`]). A client's row depends on nobody else:
    /// neither on the cohort's order nor on its size.
    fn delta_rows(&self, weights: &[f32], clients: &Clients<'_>, config: &LocalConfig) -> Result<Rows, ModelError> {
        check_config(config)?;
        if let Some(group) = self.group(config.batch_size)? {
            return self.group_rows(weights, clients, group, |before, members| {
                let keys: Vec<StreamKey> = members.iter().map(|member| (clients.key)(member.place)).collect();
                self.model.descend_together(before, &shards(members), &keys, config, group)
            });
        }
        self.client_rows(weights, clients, |before, i, shard| {
            let after = self.model.descend(before.clone(), shard, config, &(clients.key)(i));
            difference(after, &before)
        })
    }

    /// The mean over passes of at most 256 samples, each weighted with its share; of small models over passes of 32 samples of
    /// several clients, as in [`Self::delta_rows`].
    fn mean_rows(&self, weights: &[f32], clients: &Clients<'_>) -> Result<Rows, ModelError> {
        if let Some(group) = self.group(MEAN_SAMPLES)? {
            return self.group_rows(weights, clients, group, |parameters, members| {
                self.model.mean_together(parameters, &shards(members), group)
            });
        }
        self.client_rows(weights, clients, |parameters, _, shard| self.shard_gradient(&parameters, shard))
    }

    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.model.architecture.check(weights, batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.run(|| {
            let parameters = self.parameters(weights);
            self.shared.host(self.model.forward(&parameters, self.model.features(&batch.features), |_, z| z))
        })
    }
}

/// The samples of some clients.
fn shards(members: &[Member]) -> Vec<&Batch> {
    members.iter().map(|member| &member.shard).collect()
}

/// `after - before`.
fn difference<B: Framework>(after: Vec<Linear<B>>, before: &[Linear<B>]) -> Vec<Linear<B>> {
    paired(after, before, |a, b| a - b)
}
