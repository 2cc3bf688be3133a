//! Per-sample gradients of a linear layer, `sum_t a_t g_t^T` with `a_t` extended by a 1 for the bias.

use crate::params::GhostParams;

/// The gradient of one sample, `[(p + bias) x q]` row by row: the bias is the last row.
#[must_use]
pub fn gradient(activations: &[f32], gradients: &[f32], p: &GhostParams) -> Vec<f64> {
    let (inputs, outputs) = (p.inputs as usize, p.outputs as usize);
    let rows = inputs + p.bias as usize;
    let mut sum = vec![0f64; rows * outputs];
    for (a, g) in activations.chunks_exact(inputs).zip(gradients.chunks_exact(outputs)) {
        for i in 0..rows {
            let a = a.get(i).map_or(1.0, |&a| f64::from(a));
            for j in 0..outputs {
                sum[i * outputs + j] += a * f64::from(g[j]);
            }
        }
    }
    sum
}

/// The samples' gradients, one after the other.
pub fn each<'a>(a: &'a [f32], g: &'a [f32], p: &'a GhostParams) -> impl Iterator<Item = Vec<f64>> + 'a {
    let (wide, high) = (p.positions as usize * p.inputs as usize, p.positions as usize * p.outputs as usize);
    a.chunks_exact(wide).zip(g.chunks_exact(high)).map(|(a, g)| gradient(a, g, p))
}

/// `|gradient|^2` of every sample.
#[must_use]
pub fn norms(a: &[f32], g: &[f32], p: &GhostParams) -> Vec<f64> {
    each(a, g, p).map(|gradient| gradient.iter().map(|v| v * v).sum()).collect()
}

/// `sum_i c_i gradient_i`, rounded to `f32` once.
#[must_use]
pub fn sum(a: &[f32], g: &[f32], coefficients: &[f32], p: &GhostParams) -> Vec<f32> {
    let mut sum = vec![0f64; (p.inputs as usize + p.bias as usize) * p.outputs as usize];
    for (gradient, &c) in each(a, g, p).zip(coefficients) {
        for (s, v) in sum.iter_mut().zip(gradient) {
            *s += f64::from(c) * v;
        }
    }
    sum.into_iter().map(|v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two samples of two positions, p = 2, q = 1.
    #[test]
    fn a_layer_by_hand() {
        let (a, g) = ([1.0, 2.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [3.0, 1.0, 1.0, -1.0]);
        let p = GhostParams::new(2, 2, 2, 1);
        let gradients: Vec<_> = each(&a, &g, &p).collect();
        assert_eq!(gradients, [[3.0, 7.0, 4.0], [0.0, -1.0, 0.0]]);
        assert_eq!(norms(&a, &g, &p), [74.0, 1.0]);
        assert_eq!(sum(&a, &g, &[2.0, 0.5], &p), [6.0, 13.5, 8.0]);
        assert_eq!(norms(&a, &g, &p.without_bias()), [58.0, 1.0]);
        assert_eq!(sum(&a, &g, &[2.0, 0.5], &p.without_bias()), [6.0, 13.5]);
    }
}
