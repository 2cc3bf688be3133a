//! The one trainer on the Burn framework, for any of its autodiff backends.
//!
//! [`flex`] runs it on the processor, [`device`] on a device that is shared with the kernels, [`wgpu`] and [`cuda`] say what
//! is different on either; `memory.rs` is the adapter between the memory of such a device and [`crate::backend::Buffer`].
//! `sgd.rs` is a client's local SGD, `cohort.rs` that of several clients as one batch.
//!
//! **Repeatable.** Nothing here draws from Burn's process-global generator: initial weights and the order of
//! mini-batches come from the addressed keystream. Burn is built without `autotune`, which would pick kernels by the
//! clock, and without `fusion`.

mod cohort;
pub mod cuda;
pub mod device;
pub mod flex;
mod memory;
mod sgd;
mod weights;
pub mod wgpu;
mod worker;

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};

pub use self::cuda::CudaTrainer;
pub use self::flex::FlexTrainer;
use self::sgd::{Descent, MiniBatches};
pub use self::wgpu::WgpuTrainer;
use super::architecture::{Architecture, Layer, ParameterSpan};
use super::{LocalConfig, ModelError};
use crate::data::Batch;
use crate::math::prg::StreamKey;

/// An [`Architecture`] on the autodiff backend `B`, loss: cross entropy of the logits.
#[derive(Clone, Debug)]
pub struct BurnTrainer<B: AutodiffBackend> {
    architecture: Architecture,
    device: B::Device,
}

/// The parameters of one linear layer as tensors: weight `[inputs x outputs]`, bias `[1 x outputs]`; those of several clients
/// have a leading axis more.
#[derive(Clone, Debug)]
struct Linear<B: Backend, const D: usize = 2> {
    weight: Tensor<B, D>,
    bias: Option<Tensor<B, D>>,
}

impl<B: Backend, const D: usize> Linear<B, D> {
    /// Applies `f` to weight and bias.
    fn map<C: Backend, const E: usize>(self, mut f: impl FnMut(Tensor<B, D>) -> Tensor<C, E>) -> Linear<C, E> {
        Linear { weight: f(self.weight), bias: self.bias.map(f) }
    }

    /// Applies `f` to weight and weight, and to bias and bias.
    fn zip<C: Backend>(self, other: &Linear<C, D>, f: impl Fn(Tensor<B, D>, Tensor<C, D>) -> Tensor<B, D>) -> Self {
        let bias = self.bias.zip(other.bias.clone()).map(|(a, b)| f(a, b));
        Linear { weight: f(self.weight, other.weight.clone()), bias }
    }

    /// Weight and bias, in the order of the flat weight vector.
    fn parts(self) -> impl Iterator<Item = Tensor<B, D>> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }
}

/// What the gradient rows of some samples are made of, for every linear layer.
struct Trace<B: Backend> {
    /// `a_i`, `[samples x inputs]`.
    activations: Vec<Tensor<B, 2>>,
    /// `dL_i / dz_i`, `[samples x outputs]`.
    deltas: Vec<Tensor<B, 2>>,
}

impl<B: AutodiffBackend> BurnTrainer<B> {
    /// The layers of the flat weight vector as tensors.
    fn parameters<C: Backend<Device = B::Device>>(&self, weights: &[f32]) -> Vec<Linear<C>> {
        let tensor = |span: &std::ops::Range<usize>, rows: usize, columns: usize| {
            Tensor::from_data(TensorData::new(weights[span.clone()].to_vec(), [rows, columns]), &self.device)
        };
        let linear = |span: &ParameterSpan| Linear {
            weight: tensor(&span.weight, span.inputs, span.outputs),
            bias: span.bias.as_ref().map(|bias| tensor(bias, 1, span.outputs)),
        };
        self.architecture.spans().iter().map(linear).collect()
    }

    /// Logits `[n x classes]`, or of several clients `[clients x n x classes]`. `tap(input, z)` sees the input and the
    /// pre-activation of every linear layer and returns the pre-activation to go on with.
    fn forward<C: Backend, const D: usize>(
        &self,
        parameters: &[Linear<C, D>],
        features: Tensor<C, D>,
        mut tap: impl FnMut(&Tensor<C, D>, Tensor<C, D>) -> Tensor<C, D>,
    ) -> Tensor<C, D> {
        let mut linears = parameters.iter();
        self.architecture.layers().iter().fold(features, |x, layer| match layer {
            Layer::Linear { .. } => {
                let linear = linears.next().expect("made from the same layer list");
                let product = x.clone().matmul(linear.weight.clone());
                let z = match &linear.bias {
                    Some(bias) => product + bias.clone(),
                    None => product,
                };
                tap(&x, z)
            }
            Layer::Relu => relu(x),
            // `new` of every trainer refuses them.
            _ => x,
        })
    }

    /// Features `[n x dim]` as a tensor.
    fn features<C: Backend<Device = B::Device>>(&self, features: &[f32]) -> Tensor<C, 2> {
        let dim = self.architecture.inputs();
        Tensor::from_data(TensorData::new(features.to_vec(), [features.len() / dim, dim]), &self.device)
    }

    /// Cross entropy of every sample, `[n x 1]`.
    fn losses(&self, logits: Tensor<B, 2>, labels: &[u32]) -> Tensor<B, 2> {
        let indices: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(indices, [labels.len(), 1]), &self.device);
        log_softmax(logits, 1).gather(1, targets).neg()
    }

    /// Forward and backward over some samples with zero leaves on the pre-activations.
    ///
    /// With the loss summed over samples, the gradient of the leaf added to `z` is `dL_i / dz_i` in row
    /// `i`: sample `i` touches row `i` only. No parameter is a leaf, so no summed gradient is computed.
    fn trace(&self, parameters: &[Linear<B>], features: &[f32], labels: &[u32]) -> Trace<B::InnerBackend> {
        let (mut leaves, mut activations) = (Vec::new(), Vec::new());
        let logits = self.forward(parameters, self.features(features), |input, z| {
            activations.push(input.clone().inner());
            let leaf = Tensor::<B, 2>::zeros(z.dims(), &self.device).require_grad();
            leaves.push(leaf.clone());
            z + leaf
        });
        let mut gradients = self.losses(logits, labels).sum().backward();
        let deltas = leaves
            .iter()
            .map(|leaf| leaf.grad_remove(&mut gradients).expect("every leaf is part of the loss"))
            .collect();
        Trace { activations, deltas }
    }

    /// Gradient of what `loss` makes of the logits, by backward through the parameters as leaves.
    fn gradient<const D: usize>(
        &self,
        parameters: &[Linear<B::InnerBackend, D>],
        features: Tensor<B, D>,
        loss: impl FnOnce(Tensor<B, D>) -> Tensor<B, 1>,
    ) -> Vec<Linear<B::InnerBackend, D>> {
        let leaves: Vec<Linear<B, D>> =
            parameters.iter().map(|linear| linear.clone().map(|t| Tensor::from_inner(t).require_grad())).collect();
        let logits = self.forward(&leaves, features, |_, z| z);
        let mut gradients = loss(logits).backward();
        leaves
            .into_iter()
            .map(|linear| linear.map(|leaf| leaf.grad_remove(&mut gradients).expect("every leaf is part of the loss")))
            .collect()
    }

    /// Gradient of the mean loss.
    fn mean_gradient(&self, parameters: &[Linear<B::InnerBackend>], batch: &Batch) -> Vec<Linear<B::InnerBackend>> {
        let mean = |logits| self.losses(logits, &batch.labels).mean();
        self.gradient(parameters, self.features(&batch.features), mean)
    }

    /// The parameters after local SGD over the client's mini-batches, along the gradients of their mean losses.
    fn descend(
        &self,
        parameters: Vec<Linear<B::InnerBackend>>,
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Vec<Linear<B::InnerBackend>> {
        let mut batches = MiniBatches::new(shard.len(), config, key);
        let mut descent = Descent::new(parameters, config);
        while let Some(indices) = batches.advance() {
            let gradient = self.mean_gradient(descent.parameters(), &shard.select(indices.iter().copied()));
            descent.step(gradient);
        }
        descent.finish()
    }
}

/// `max(z, 0)` that keeps NaN, as PyTorch's does: Flex's vectorised `relu` turns NaN into 0 and would
/// hide diverged weights behind finite losses.
fn relu<B: Backend, const D: usize>(z: Tensor<B, D>) -> Tensor<B, D> {
    let off = z.clone().lower_equal_elem(0.0);
    z.mask_fill(off, 0.0)
}

/// That a model has linear layers and relu only, since `what` trains nothing else.
fn check_linear(architecture: &Architecture, what: &'static str) -> Result<(), ModelError> {
    if architecture.is_mlp() {
        return Ok(());
    }
    Err(ModelError::LinearOnly { what, model: architecture.to_string() })
}
