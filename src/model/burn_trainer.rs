//! The one trainer on the Burn framework, for any of its autodiff backends.
//!
//! **Repeatable.** Nothing here draws from Burn's process-global generator: initial weights and the
//! order of mini-batches come from the addressed keystream. Flex is built without its `rayon` feature,
//! so a tensor operation runs on one thread; the parallel loops are ours and cut the batch at fixed
//! places. Results are therefore bit-identical from run to run and for every number of threads on one
//! machine. They may differ in the last bits between machines, whose vector units and caches make the
//! matrix product add in another order.

use burn::backend::Autodiff;
use burn::backend::flex::Flex;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use rayon::prelude::*;

use super::architecture::{Architecture, Layer, LinearSpan};
use super::{LocalConfig, LocalTrainer, ModelError};
use crate::backend::Rows;
use crate::data::Batch;
use crate::math::prg::StreamKey;

/// Samples of one forward and backward pass of [`LocalTrainer::gradient_rows`]. Fixed, because the
/// last bits of a matrix product may depend on its shape.
const CHUNK: usize = 32;

/// The trainer on the CPU.
pub type FlexTrainer = BurnTrainer<Autodiff<Flex>>;

/// A [`LocalTrainer`] for an [`Architecture`] on backend `B`, loss: cross entropy of the logits.
#[derive(Clone, Debug)]
pub struct BurnTrainer<B: AutodiffBackend> {
    architecture: Architecture,
    device: B::Device,
}

/// The parameters of one linear layer as tensors: weight `[inputs x outputs]`, bias `[1 x outputs]`.
#[derive(Clone, Debug)]
struct Linear<B: Backend> {
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 2>>,
}

impl<B: Backend> Linear<B> {
    /// Applies `f` to weight and bias.
    fn map<C: Backend>(self, mut f: impl FnMut(Tensor<B, 2>) -> Tensor<C, 2>) -> Linear<C> {
        Linear { weight: f(self.weight), bias: self.bias.map(f) }
    }

    /// Applies `f` to weight and weight, and to bias and bias.
    fn zip<C: Backend>(self, other: &Linear<C>, f: impl Fn(Tensor<B, 2>, Tensor<C, 2>) -> Tensor<B, 2>) -> Self {
        let bias = self.bias.zip(other.bias.clone()).map(|(a, b)| f(a, b));
        Linear { weight: f(self.weight, other.weight.clone()), bias }
    }
}

/// What the rows of one chunk are made of, for every linear layer.
struct Trace {
    /// `a_i`, `[samples x inputs]`; the first layer's are the batch's own features and not copied.
    activations: Vec<Vec<f32>>,
    /// `dL_i / dz_i`, `[samples x outputs]`.
    deltas: Vec<Vec<f32>>,
}

impl<B: AutodiffBackend> BurnTrainer<B> {
    /// A trainer on the default device of `B`.
    #[must_use]
    pub fn new(architecture: Architecture) -> Self {
        Self { architecture, device: B::Device::default() }
    }

    /// The layers of the flat weight vector as tensors.
    fn parameters<C: Backend<Device = B::Device>>(&self, weights: &[f32]) -> Vec<Linear<C>> {
        let tensor = |span: &std::ops::Range<usize>, rows: usize, columns: usize| {
            Tensor::from_data(TensorData::new(weights[span.clone()].to_vec(), [rows, columns]), &self.device)
        };
        let linear = |span: &LinearSpan| Linear {
            weight: tensor(&span.weight, span.inputs, span.outputs),
            bias: span.bias.as_ref().map(|bias| tensor(bias, 1, span.outputs)),
        };
        self.architecture.spans().iter().map(linear).collect()
    }

    /// Logits `[n x classes]`. `tap(input, z)` sees the input and the pre-activation of every linear
    /// layer and returns the pre-activation to go on with.
    fn forward<C: Backend>(
        &self,
        parameters: &[Linear<C>],
        features: Tensor<C, 2>,
        mut tap: impl FnMut(&Tensor<C, 2>, Tensor<C, 2>) -> Tensor<C, 2>,
    ) -> Tensor<C, 2> {
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

    /// Forward and backward over one chunk with zero leaves on the pre-activations.
    ///
    /// With the loss summed over samples, the gradient of the leaf added to `z` is `dL_i / dz_i` in row
    /// `i`: sample `i` touches row `i` only. No parameter is a leaf, so no summed gradient is computed.
    fn trace(&self, parameters: &[Linear<B>], features: &[f32], labels: &[u32]) -> Trace {
        let (mut leaves, mut activations) = (Vec::new(), Vec::new());
        let logits = self.forward(parameters, self.features(features), |input, z| {
            if !leaves.is_empty() {
                activations.push(host(input.clone().inner()));
            }
            let leaf = Tensor::<B, 2>::zeros(z.dims(), &self.device).require_grad();
            leaves.push(leaf.clone());
            z + leaf
        });
        let mut gradients = self.losses(logits, labels).sum().backward();
        let deltas = leaves
            .iter()
            .map(|leaf| host(leaf.grad_remove(&mut gradients).expect("every leaf is part of the loss")))
            .collect();
        Trace { activations, deltas }
    }

    /// Gradient of the mean loss by backward through the parameters as leaves.
    fn mean_gradient(&self, parameters: &[Linear<B::InnerBackend>], batch: &Batch) -> Vec<Linear<B::InnerBackend>> {
        let leaves: Vec<Linear<B>> =
            parameters.iter().map(|linear| linear.clone().map(|t| Tensor::from_inner(t).require_grad())).collect();
        let logits = self.forward(&leaves, self.features(&batch.features), |_, z| z);
        let mut gradients = self.losses(logits, &batch.labels).mean().backward();
        leaves
            .into_iter()
            .map(|linear| linear.map(|leaf| leaf.grad_remove(&mut gradients).expect("every leaf is part of the loss")))
            .collect()
    }
}

/// `max(z, 0)` that keeps NaN, as PyTorch's does: Flex's vectorised `relu` turns NaN into 0 and would
/// hide diverged weights behind finite losses.
fn relu<B: Backend>(z: Tensor<B, 2>) -> Tensor<B, 2> {
    let off = z.clone().lower_equal_elem(0.0);
    z.mask_fill(off, 0.0)
}

/// A tensor's values on the host, row major.
fn host<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("converted to f32 just before")
}

/// Layers as one flat vector.
fn flatten<B: Backend>(parameters: Vec<Linear<B>>) -> Vec<f32> {
    parameters.into_iter().flat_map(|linear| [Some(linear.weight), linear.bias]).flatten().flat_map(host).collect()
}

/// Writes the gradient of one linear layer: `dW[i][o] = a_i dz_o`, `db = dz`.
fn write_outer(row: &mut [f32], span: &LinearSpan, activation: &[f32], delta: &[f32]) {
    for (line, &a) in row[span.weight.clone()].chunks_exact_mut(span.outputs).zip(activation) {
        for (gradient, &d) in line.iter_mut().zip(delta) {
            *gradient = a * d;
        }
    }
    if let Some(bias) = &span.bias {
        row[bias.clone()].copy_from_slice(delta);
    }
}

/// Checks the ranges of a local configuration.
fn check_config(config: &LocalConfig) -> Result<(), ModelError> {
    let within = |what, expected, found: f64, fits: bool| {
        if fits { Ok(()) } else { Err(ModelError::Setting { what, expected, found }) }
    };
    let (rate, momentum, decay) = (config.learning_rate, config.momentum, config.weight_decay);
    within("epochs", "at least 1", f64::from(config.epochs), config.epochs >= 1)?;
    within("batch_size", "at least 1", config.batch_size as f64, config.batch_size >= 1)?;
    within("learning_rate", "a finite number above 0", f64::from(rate), rate.is_finite() && rate > 0.0)?;
    within("momentum", "a number in [0, 1)", f64::from(momentum), (0.0..1.0).contains(&momentum))?;
    within("weight_decay", "a finite number, at least 0", f64::from(decay), decay.is_finite() && decay >= 0.0)
}

/// The samples of `shard` at `indices`.
fn select(shard: &Batch, indices: &[usize]) -> Batch {
    let features = indices.iter().flat_map(|&i| &shard.features[i * shard.dim..(i + 1) * shard.dim]).copied();
    Batch { features: features.collect(), labels: indices.iter().map(|&i| shard.labels[i]).collect(), dim: shard.dim }
}

impl<B: AutodiffBackend> LocalTrainer for BurnTrainer<B> {
    fn parameter_count(&self) -> usize {
        self.architecture.parameter_count()
    }

    fn init(&self, key: &StreamKey) -> Vec<f32> {
        self.architecture.init(key)
    }

    /// A batch cut at multiples of 32 samples gives the same bits as the whole batch.
    fn gradient_rows(&self, weights: &[f32], batch: &Batch) -> Result<Rows, ModelError> {
        self.architecture.check(weights, batch)?;
        let (dim, inputs) = (self.parameter_count(), self.architecture.inputs());
        let parameters = self.parameters::<B>(weights);
        let traces: Vec<Trace> = batch
            .features
            .par_chunks(CHUNK * inputs)
            .zip(batch.labels.par_chunks(CHUNK))
            .map(|(features, labels)| self.trace(&parameters, features, labels))
            .collect();
        let mut rows = vec![0.0f32; batch.len() * dim];
        rows.par_chunks_mut(dim).enumerate().for_each(|(sample, row)| {
            let (trace, i) = (&traces[sample / CHUNK], sample % CHUNK);
            for (k, span) in self.architecture.spans().iter().enumerate() {
                let activation = match k {
                    0 => &batch.features[sample * inputs..(sample + 1) * inputs],
                    _ => &trace.activations[k - 1][i * span.inputs..(i + 1) * span.inputs],
                };
                write_outer(row, span, activation, &trace.deltas[k][i * span.outputs..(i + 1) * span.outputs]);
            }
        });
        Ok(Rows::dense(rows, batch.len(), dim)?)
    }

    /// `v <- momentum v + g + weight_decay w`, `w <- w - learning_rate v` (PyTorch's SGD, v from 0), `g`
    /// the gradient of the mean loss of a mini-batch. Every epoch reshuffles; its last mini-batch may be
    /// smaller. `key` serves one call: another round or client takes another key.
    fn local_delta(
        &self,
        weights: &[f32],
        shard: &Batch,
        config: &LocalConfig,
        key: &StreamKey,
    ) -> Result<Vec<f32>, ModelError> {
        self.architecture.check(weights, shard)?;
        check_config(config)?;
        let mut reader = key.reader(0);
        let mut order: Vec<usize> = (0..shard.len()).collect();
        let mut parameters = self.parameters::<B::InnerBackend>(weights);
        let mut velocity: Option<Vec<Linear<B::InnerBackend>>> = None;
        for _ in 0..config.epochs {
            reader.shuffle(&mut order);
            for indices in order.chunks(config.batch_size) {
                let mut step = self.mean_gradient(&parameters, &select(shard, indices));
                if config.weight_decay > 0.0 {
                    let decayed = |g, w: Tensor<B::InnerBackend, 2>| g + w.mul_scalar(config.weight_decay);
                    step = step.into_iter().zip(&parameters).map(|(g, w)| g.zip(w, decayed)).collect();
                }
                if let Some(previous) = velocity.take().filter(|_| config.momentum > 0.0) {
                    let carried = |g, v: Tensor<B::InnerBackend, 2>| g + v.mul_scalar(config.momentum);
                    step = step.into_iter().zip(&previous).map(|(g, v)| g.zip(v, carried)).collect();
                }
                let moved = |w, v: Tensor<B::InnerBackend, 2>| w - v.mul_scalar(config.learning_rate);
                parameters = parameters.into_iter().zip(&step).map(|(w, v)| w.zip(v, moved)).collect();
                velocity = Some(step);
            }
        }
        let after = flatten(parameters);
        Ok(after.iter().zip(weights).map(|(after, before)| after - before).collect())
    }

    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.architecture.check(weights, batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = self.parameters::<B::InnerBackend>(weights);
        Ok(host(self.forward(&parameters, self.features(&batch.features), |_, z| z)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::prg::Cipher;

    fn trainer(sizes: &[usize]) -> FlexTrainer {
        FlexTrainer::new(Architecture::mlp(sizes).unwrap())
    }

    fn batch(len: usize, dim: usize, classes: u64) -> Batch {
        let mut reader = StreamKey::from_bytes([3; 32], Cipher::ChaCha20).reader(0);
        Batch {
            features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
            labels: (0..len).map(|_| reader.below(classes) as u32).collect(),
            dim,
        }
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let squared = |x: f64, y: f64| (x - y) * (x - y);
        a.iter().zip(b).map(|(&a, &b)| squared(a.into(), b.into())).sum::<f64>().sqrt()
    }

    /// Backward through the parameters as leaves, on a batch of one and on the whole batch.
    #[test]
    fn rows_are_the_gradients_of_single_samples_and_average_to_that_of_the_batch() {
        for sizes in [&[784, 80, 10][..], &[64, 20, 20, 10], &[30, 10]] {
            let trainer = trainer(sizes);
            let weights = trainer.init(&StreamKey::from_bytes([4; 32], Cipher::ChaCha20));
            let parameters = trainer.parameters(&weights);
            let batch = batch(CHUNK + 3, sizes[0], 10);
            let rows = trainer.gradient_rows(&weights, &batch).unwrap();
            let mut mean = vec![0.0f32; weights.len()];
            for i in 0..batch.len() {
                let row = rows.row(i).unwrap();
                let single = flatten(trainer.mean_gradient(&parameters, &select(&batch, &[i])));
                let norm = distance(&single, &vec![0.0; single.len()]);
                assert!(norm > 0.1 && distance(row, &single) < 1e-6 * norm, "{sizes:?}, sample {i}");
                mean.iter_mut().zip(row).for_each(|(m, g)| *m += g / batch.len() as f32);
            }
            let whole = flatten(trainer.mean_gradient(&parameters, &batch));
            let norm = distance(&whole, &vec![0.0; whole.len()]);
            assert!(distance(&mean, &whole) < 1e-6 * norm, "{sizes:?}");
        }
    }

    #[test]
    fn relu_keeps_nan_and_has_no_slope_at_zero() {
        let device = Default::default();
        let leaf = Tensor::<Autodiff<Flex>, 2>::from_data([[-1.0, 0.0, 2.0, f32::NAN, f32::INFINITY]], &device);
        let leaf = leaf.require_grad();
        let out = relu(leaf.clone());
        let values = host(out.clone().inner());
        assert_eq!(values[..3], [0.0, 0.0, 2.0]);
        assert!(values[3].is_nan() && values[4] == f32::INFINITY);
        let gradients = out.sum().backward();
        assert_eq!(host(leaf.grad(&gradients).unwrap()), [0.0, 0.0, 1.0, 1.0, 1.0]);
    }
}
