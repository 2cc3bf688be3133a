//! Gradient inversion: what the gradient of a linear layer tells of its input (Phong et al. 2017, section 3; Geiping et al. 2020,
//! proposition 3.1). No vectors are sent: this adversary is a server that looks at what it gets.
//!
//! ```text
//! z = a W + b:   dW[i][o] = a_i dz_o,  db_o = dz_o,   so that   a_i = sum_o dW[i][o] db_o / sum_o db_o^2
//! ```
//! Of one sample that is exact. Of the mean over several it is a mixture of their inputs, each weighted by how much the layer's outputs
//! had to change for it. Of a sum with noise it is what the noise leaves.

use std::ops::Range;

/// Where the first layer's parameters lie in a gradient: the weight `[inputs x outputs]`, row major, and the bias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstLayer {
    /// Length of the input.
    pub inputs: usize,
    /// Length of the output.
    pub outputs: usize,
    /// The weight.
    pub weight: Range<usize>,
    /// The bias.
    pub bias: Range<usize>,
}

/// The input that a gradient shows, by least squares over the layer's outputs; `None` if the gradient is no such gradient, or its bias part
/// is zero or not finite.
#[must_use]
pub fn input_of(gradient: &[f32], layer: &FirstLayer) -> Option<Vec<f32>> {
    let (weight, bias) = (gradient.get(layer.weight.clone())?, gradient.get(layer.bias.clone())?);
    if weight.len() != layer.inputs.checked_mul(layer.outputs)? || bias.len() != layer.outputs {
        return None;
    }
    let square: f64 = bias.iter().map(|&d| f64::from(d) * f64::from(d)).sum();
    if !(square.is_finite() && square > 0.0) {
        return None;
    }
    let value = |row: &[f32]| {
        let product: f64 = row.iter().zip(bias).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
        (product / square) as f32
    };
    Some(weight.chunks_exact(layer.outputs).map(value).collect())
}

/// The correlation of two signals, in [-1, 1]; 0 where one of them is constant.
#[must_use]
pub fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let n = a.len().min(b.len()).max(1) as f64;
    let mean = |x: &[f32]| x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x) - ma, f64::from(y) - mb);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> FirstLayer {
        FirstLayer { inputs: 3, outputs: 2, weight: 0..6, bias: 6..8 }
    }

    /// The outer product of an input and what its outputs had to change by.
    fn gradient(input: &[f32; 3], change: &[f32; 2]) -> Vec<f32> {
        let weight = input.iter().flat_map(|a| change.iter().map(move |d| a * d));
        weight.chain(change.iter().copied()).chain([9.0, 9.0]).collect()
    }

    #[test]
    fn one_sample_is_seen_and_two_are_mixed() {
        let (a, b) = ([0.5, -1.0, 2.0], [1.0, 0.0, -1.0]);
        let of_a = gradient(&a, &[0.25, -0.5]);
        let found = input_of(&of_a, &layer()).unwrap();
        assert!(found.iter().zip(a).all(|(x, y)| (x - y).abs() < 1e-6), "{found:?}");
        assert!((correlation(&found, &a) - 1.0).abs() < 1e-6);
        // Both had to change alike: their mean.
        let of_b = gradient(&b, &[0.25, -0.5]);
        let mean: Vec<f32> = of_a.iter().zip(&of_b).map(|(x, y)| 0.5 * (x + y)).collect();
        let found = input_of(&mean, &layer()).unwrap();
        assert!(found.iter().zip([0.75, -0.5, 0.5]).all(|(x, y)| (x - y).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn what_is_no_gradient_shows_nothing() {
        assert_eq!(input_of(&[1.0; 7], &layer()), None, "too short");
        assert_eq!(input_of(&gradient(&[1.0; 3], &[0.0, 0.0]), &layer()), None, "nothing had to change");
        assert_eq!(input_of(&[f32::NAN; 8], &layer()), None);
        let odd = FirstLayer { inputs: 4, ..layer() };
        assert_eq!(input_of(&[1.0; 8], &odd), None);
        assert_eq!((correlation(&[1.0, 1.0], &[1.0, 2.0]), correlation(&[], &[])), (0.0, 0.0));
        assert!((correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
    }
}
