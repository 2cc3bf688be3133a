//! The trainer on the processor.
//!
//! Flex is built without its `rayon` feature, so a tensor operation runs on one thread; the parallel loops are ours and
//! cut the batch at fixed places. Results are therefore bit-identical from run to run and for every number of threads on
//! one machine. They may differ in the last bits between machines, whose vector units and caches make the matrix product
//! add in another order.

use burn::backend::Autodiff;
use burn::backend::flex::Flex;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rayon::prelude::*;

use super::{BurnTrainer, Linear, check_linear};
use crate::backend::Rows;
use crate::data::Batch;
use crate::math::prg::StreamKey;
use crate::model::architecture::{Architecture, ParameterSpan};
use crate::model::local::check_config;
use crate::model::{LocalConfig, LocalTrainer, ModelError};

/// Samples of one forward and backward pass of [`LocalTrainer::gradient_rows`]. Fixed, because the
/// last bits of a matrix product may depend on its shape.
const CHUNK: usize = 32;

/// The trainer on the CPU.
pub type FlexTrainer = BurnTrainer<Autodiff<Flex>>;

/// The tensors of a [`super::Trace`] on the host; the first layer's activations are the batch's own features.
struct HostTrace {
    activations: Vec<Vec<f32>>,
    deltas: Vec<Vec<f32>>,
}

impl FlexTrainer {
    /// The trainer of a model of linear layers and relu.
    ///
    /// # Errors
    /// [`ModelError::LinearOnly`] for a model with other layers.
    pub fn new(architecture: Architecture) -> Result<Self, ModelError> {
        check_linear(&architecture, "the framework's trainer on the processor")?;
        Ok(Self { architecture, device: Default::default() })
    }

    fn host_trace(&self, parameters: &[Linear<Autodiff<Flex>>], features: &[f32], labels: &[u32]) -> HostTrace {
        let trace = self.trace(parameters, features, labels);
        HostTrace {
            activations: trace.activations.into_iter().skip(1).map(host).collect(),
            deltas: trace.deltas.into_iter().map(host).collect(),
        }
    }
}

/// A tensor's values on the host, row major.
pub(super) fn host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("converted to f32 just before")
}

/// Layers as one flat vector.
pub(super) fn flatten<B: Backend>(parameters: Vec<Linear<B>>) -> Vec<f32> {
    parameters.into_iter().flat_map(Linear::parts).flat_map(host).collect()
}

/// Writes the gradient of one linear layer: `dW[i][o] = a_i dz_o`, `db = dz`.
fn write_outer(row: &mut [f32], span: &ParameterSpan, activation: &[f32], delta: &[f32]) {
    for (line, &a) in row[span.weight.clone()].chunks_exact_mut(span.outputs).zip(activation) {
        for (gradient, &d) in line.iter_mut().zip(delta) {
            *gradient = a * d;
        }
    }
    if let Some(bias) = &span.bias {
        row[bias.clone()].copy_from_slice(delta);
    }
}

impl LocalTrainer for FlexTrainer {
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
        let parameters = self.parameters::<Autodiff<Flex>>(weights);
        let traces: Vec<HostTrace> = batch
            .features
            .par_chunks(CHUNK * inputs)
            .zip(batch.labels.par_chunks(CHUNK))
            .map(|(features, labels)| self.host_trace(&parameters, features, labels))
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

    /// `v <- momentum v + g + weight_decay w + proximal (w - w_0)`, `w <- w - learning_rate v`, `g`
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
        let after = flatten(self.descend(self.parameters(weights), shard, config, key));
        Ok(after.iter().zip(weights).map(|(after, before)| after - before).collect())
    }

    fn logits(&self, weights: &[f32], batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.architecture.check(weights, batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let parameters = self.parameters::<<Autodiff<Flex> as AutodiffBackend>::InnerBackend>(weights);
        Ok(host(self.forward(&parameters, self.features(&batch.features), |_, z| z)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::relu;
    use super::*;
    use crate::math::prg::Cipher;

    fn trainer(sizes: &[usize]) -> FlexTrainer {
        FlexTrainer::new(Architecture::mlp(sizes).unwrap()).unwrap()
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
                let single = flatten(trainer.mean_gradient(&parameters, &batch.select([i])));
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
