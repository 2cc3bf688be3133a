//! Networks by the textbook, in double precision.

use veilsum::model::Architecture;
use veilsum::model::architecture::{Layer, PositionPool, Shape};

/// Cross entropy of one sample by the textbook, in double precision; `factors` of its dropout layers, one after the other.
pub(super) fn reference_loss(
    architecture: &Architecture,
    weights: &[f64],
    sample: &[f64],
    label: u32,
    factors: &[f64],
) -> f64 {
    let (mut a, mut shape, mut factors) = (sample.to_vec(), architecture.input(), factors.iter());
    let padding = architecture.padding().map(f64::from);
    let length = sample.iter().position(|&t| Some(t) == padding).unwrap_or(sample.len());
    let mut forks = Vec::new();
    let mut spans = architecture.spans().iter();
    let mut parameters = || {
        let span = spans.next().unwrap();
        (&weights[span.weight.clone()], span.bias.clone().map_or(&[][..], |bias| &weights[bias]))
    };
    for &layer in architecture.layers() {
        let next: Shape = layer.output(shape);
        let places = || {
            let inner = move |c| (0..next.height).flat_map(move |y| (0..next.width).map(move |x| (c, y, x)));
            (0..next.channels).flat_map(inner)
        };
        a = match layer {
            Layer::Relu => a.iter().map(|z| z.max(0.0)).collect(),
            Layer::Dropout { .. } => a.iter().map(|z| z * factors.next().unwrap()).collect(),
            Layer::Gelu => a.iter().map(|z| 0.5 * z * libm::erfc(-z / std::f64::consts::SQRT_2)).collect(),
            Layer::Fork => {
                forks.push(a.clone());
                a
            }
            Layer::Join => a.iter().zip(forks.pop().unwrap()).map(|(a, kept)| a + kept).collect(),
            Layer::Embedding { positions, width, .. } => {
                let (table, place) = (parameters(), parameters());
                let at = |t: usize, i: usize| table.0[sample[t] as usize * width + i] + place.0[t * width + i];
                (0..positions * width).map(|k| at(k / width, k % width)).collect()
            }
            Layer::LayerNorm { width, epsilon } => {
                let (gain, bias) = parameters();
                let norm = |row: &[f64]| {
                    let mean = row.iter().sum::<f64>() / width as f64;
                    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                    let root = (variance + f64::from(epsilon)).sqrt();
                    (0..width).map(|i| (row[i] - mean) / root * gain[i] + bias[i]).collect::<Vec<_>>()
                };
                a.chunks(width).flat_map(norm).collect()
            }
            Layer::PositionWise { inputs, outputs } => each(&a, inputs, outputs, parameters()),
            Layer::Attention { width, heads, causal } => {
                let [q, k, v] = [0; 3].map(|_| each(&a, width, width, parameters()));
                let (head, positions) = (width / heads, shape.height);
                let mut out = vec![0.0; a.len()];
                for (t, h) in (0..positions).flat_map(|t| (0..heads).map(move |h| (t, h))) {
                    let part = |x: &[f64], t: usize| x[t * width + h * head..][..head].to_vec();
                    let seen = if causal { length.min(t + 1) } else { length };
                    let score = |u: usize| {
                        let inner: f64 = part(&q, t).iter().zip(part(&k, u)).map(|(q, k)| q * k).sum();
                        (inner / (head as f64).sqrt()).exp()
                    };
                    let total: f64 = (0..seen).map(score).sum();
                    for u in 0..seen {
                        for (i, v) in part(&v, u).into_iter().enumerate() {
                            out[t * width + h * head + i] += score(u) / total * v;
                        }
                    }
                }
                each(&out, width, width, parameters())
            }
            Layer::Positions(PositionPool::First) => a[..shape.width].to_vec(),
            Layer::Positions(PositionPool::Mean) => {
                let mean = |i| (0..length.max(1)).map(|t| a[t * shape.width + i]).sum::<f64>() / length.max(1) as f64;
                (0..shape.width).map(mean).collect()
            }
            Layer::MaxPool2d { size, .. } => places()
                .map(|(c, y, x)| {
                    let row = |i| (c * shape.height + y * size + i) * shape.width + x * size;
                    (0..size).flat_map(|i| &a[row(i)..row(i) + size]).fold(f64::NEG_INFINITY, |m, &v| m.max(v))
                })
                .collect(),
            Layer::Linear { inputs, outputs, .. } => {
                let (w, b) = parameters();
                (0..outputs).map(|o| b[o] + (0..inputs).map(|i| a[i] * w[i * outputs + o]).sum::<f64>()).collect()
            }
            Layer::Conv2d { kernel, padding, .. } => {
                let (w, b) = parameters();
                let at = |c: usize, y: usize, x: usize| {
                    let (y, x) = (y.wrapping_sub(padding), x.wrapping_sub(padding));
                    if y < shape.height && x < shape.width { a[(c * shape.height + y) * shape.width + x] } else { 0.0 }
                };
                let z = |(o, y, x): (usize, usize, usize)| {
                    let mut sum = b[o];
                    for c in 0..shape.channels {
                        for (i, j) in (0..kernel).flat_map(|i| (0..kernel).map(move |j| (i, j))) {
                            sum += w[((o * shape.channels + c) * kernel + i) * kernel + j] * at(c, y + i, x + j);
                        }
                    }
                    sum
                };
                places().map(z).collect()
            }
        };
        shape = next;
    }
    let loss = |z: &[f64], label: usize| z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[label];
    if !architecture.predicts_next() {
        return loss(&a, label as usize);
    }
    let follows = |t: usize| sample.get(t + 1).copied().unwrap_or(f64::from(label));
    let counts = |&t: &usize| t < length && Some(follows(t)) != padding;
    let losses: Vec<f64> = (0..sample.len())
        .filter(counts)
        .map(|t| loss(&a[t * shape.width..(t + 1) * shape.width], follows(t) as usize))
        .collect();
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

/// A linear layer on every vector.
fn each(a: &[f64], inputs: usize, outputs: usize, (w, b): (&[f64], &[f64])) -> Vec<f64> {
    let one = |a: &[f64], o: usize| b[o] + (0..inputs).map(|i| a[i] * w[i * outputs + o]).sum::<f64>();
    a.chunks(inputs).flat_map(|a| (0..outputs).map(|o| one(a, o)).collect::<Vec<_>>()).collect()
}
