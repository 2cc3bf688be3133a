//! The framework's autodiff as the oracle: logits, gradient rows and mean gradients of every kind of layer.

use burn::backend::Autodiff;
use burn::backend::flex::Flex;
use burn::tensor::activation::log_softmax;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Int, Tensor, TensorData};

use super::CpuTrainer;
use crate::data::Batch;
use crate::math::prg::{Cipher, StreamKey};
use crate::model::architecture::{Architecture, Layer};
use crate::model::{Clients, LocalTrainer, ModelConfig};

type Oracle = Autodiff<Flex>;

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

fn synthetic(len: usize, dim: usize, classes: u64) -> Batch {
    let mut reader = key(3).reader(0);
    Batch {
        features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
        labels: (0..len).map(|_| reader.below(classes) as u32).collect(),
        dim,
    }
}

/// Logits and the gradient of the mean loss.
fn framework(architecture: &Architecture, weights: &[f32], batch: &Batch) -> (Vec<f32>, Vec<f32>) {
    let (device, n) = (Default::default(), batch.len());
    let mut leaves: Vec<Tensor<Oracle, 1>> = Vec::new();
    let mut leaf = |span: &std::ops::Range<usize>| {
        let values = TensorData::new(weights[span.clone()].to_vec(), [span.len()]);
        leaves.push(Tensor::from_data(values, &device).require_grad());
        leaves[leaves.len() - 1].clone()
    };
    let mut spans = architecture.spans().iter();
    let mut shape = architecture.input();
    let mut x = Tensor::<Oracle, 1>::from_data(TensorData::new(batch.features.clone(), [n * batch.dim]), &device);
    for &layer in architecture.layers() {
        let dims = [n, shape.channels, shape.height, shape.width];
        x = match layer {
            Layer::Relu => {
                let off = x.clone().lower_equal_elem(0.0);
                x.mask_fill(off, 0.0)
            }
            Layer::MaxPool2d { size, .. } => {
                max_pool2d(x.reshape(dims), [size; 2], [size; 2], [0; 2], [1; 2], false).flatten(0, 3)
            }
            Layer::Conv2d { padding, .. } => {
                let span = spans.next().unwrap();
                let weight = leaf(&span.weight).reshape([span.shape[0], span.shape[1], span.shape[2], span.shape[3]]);
                let bias = span.bias.as_ref().map(&mut leaf);
                let options = ConvOptions::new([1; 2], [padding; 2], [1; 2], 1);
                conv2d(x.reshape(dims), weight, bias, options).flatten(0, 3)
            }
            Layer::Linear { inputs, outputs, .. } => {
                let span = spans.next().unwrap();
                let weight = leaf(&span.weight).reshape([inputs, outputs]);
                let bias = leaf(span.bias.as_ref().unwrap()).reshape([1, outputs]);
                (x.reshape([n, inputs]).matmul(weight) + bias).flatten(0, 1)
            }
            Layer::Dropout { .. } => panic!("the framework draws from a generator of the process"),
            other => panic!("{other} is not compared with the framework"),
        };
        shape = layer.output(shape);
    }
    let logits = x.reshape([n, shape.len()]);
    let labels: Vec<i32> = batch.labels.iter().map(|&label| label as i32).collect();
    let targets = Tensor::<Oracle, 2, Int>::from_data(TensorData::new(labels, [n, 1]), &device);
    let gradients = log_softmax(logits.clone(), 1).gather(1, targets).neg().mean().backward();
    let host = |t: Tensor<Flex, 1>| t.into_data().into_vec::<f32>().unwrap();
    let gradient = leaves.iter().flat_map(|leaf| host(leaf.grad(&gradients).unwrap())).collect();
    (host(logits.flatten::<1>(0, 1).inner()), gradient)
}

/// Distance over length.
fn relative(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let gap = norm(&mut found.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let size = norm(&mut expected.iter().map(|&v| f64::from(v)));
    assert!(size > 0.0);
    gap / size
}

fn models() -> Vec<ModelConfig> {
    let list = |text: &str| serde_json::from_str(&format!(r#"{{"layers":{text}}}"#)).unwrap();
    vec![
        ModelConfig::Mlp(vec![30, 20, 10]),
        ModelConfig::CifarCnn,
        // As `mphe_cnn`, and small: of millions of values that relu and pools decide about, some decisions fall otherwise
        // where sums round otherwise, and a gradient jumps.
        list(
            r#"{"input":[1,9,9],"layers":[{"conv":{"channels":6,"kernel":3,"padding":1}},"relu",
                {"conv":{"channels":6,"kernel":3,"padding":1}},"relu",{"max-pool":2},{"linear":20},"relu",{"linear":10}]}"#,
        ),
        // A kernel of 1, maps smaller than a register, padding that differs from both neighbours, no layer between.
        list(
            r#"{"input":[2,5,4],"layers":[{"conv":{"channels":3,"kernel":1}},{"conv":{"channels":5,"kernel":2,"padding":1}},
                {"max-pool":2},"relu",{"conv":{"channels":2,"kernel":3,"padding":2}},{"linear":7},"relu",{"linear":3}]}"#,
        ),
        list(r#"{"input":[3,9,7],"layers":[{"max-pool":3},"relu",{"conv":{"channels":9,"kernel":2}},{"linear":4}]}"#),
    ]
}

#[test]
fn logits_rows_and_means_are_those_of_the_framework() {
    for model in models() {
        let architecture = model.architecture().unwrap();
        let trainer = CpuTrainer::new(architecture.clone());
        let weights = trainer.init(&key(4));
        let batch = synthetic(35, architecture.inputs(), architecture.classes() as u64);
        let (logits, mean) = framework(&architecture, &weights, &batch);
        assert!(relative(&trainer.logits(&weights, &batch).unwrap(), &logits) < 2e-6, "{model}");
        let clients = Clients { count: 1, shard: &|_| batch.clone(), key: &|_| key(0) };
        let found = trainer.mean_rows(&weights, &clients).unwrap();
        assert!(relative(found.row(0).unwrap(), &mean) < 5e-6, "{model}");
        let rows = trainer.gradient_rows(&weights, &batch).unwrap();
        let mut sum = vec![0.0f32; weights.len()];
        for i in 0..batch.len() {
            let row = rows.row(i).unwrap();
            sum.iter_mut().zip(row).for_each(|(sum, g)| *sum += g / batch.len() as f32);
            if [0, 7, 31, 32, 34].contains(&i) {
                let (_, single) = framework(&architecture, &weights, &batch.select([i]));
                assert!(relative(row, &single) < 5e-6, "{model}, sample {i}");
            }
        }
        assert!(relative(&sum, &mean) < 5e-6, "{model}: rows average to the gradient of the batch");
    }
}
