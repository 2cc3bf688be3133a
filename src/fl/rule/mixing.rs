//! Linear maps of vectors, as matrices of coefficients.

/// `w_a = sum_i M_ai v_i`: what stands before a rule makes such mixtures of the vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    inputs: usize,
    coefficients: Vec<f64>,
}

impl Mixing {
    /// From the coefficients, row by row: `outputs x inputs`; what is no whole row is cut off.
    #[must_use]
    pub fn new(inputs: usize, mut coefficients: Vec<f64>) -> Self {
        coefficients.truncate(coefficients.len() / inputs.max(1) * inputs);
        Self { inputs, coefficients }
    }

    /// Every vector times its own factor.
    #[must_use]
    pub fn scaled(factors: &[f64]) -> Self {
        let n = factors.len();
        let mut coefficients = vec![0.0; n * n];
        factors.iter().enumerate().for_each(|(i, &c)| coefficients[i * (n + 1)] = c);
        Self { inputs: n, coefficients }
    }

    /// Every mixture the mean of the vectors named.
    #[must_use]
    pub fn means(inputs: usize, of: &[Vec<usize>]) -> Self {
        let mut coefficients = vec![0.0; inputs * of.len()];
        for (row, members) in coefficients.chunks_exact_mut(inputs.max(1)).zip(of) {
            members.iter().for_each(|&i| row[i] = 1.0 / members.len() as f64);
        }
        Self { inputs, coefficients }
    }

    /// Vectors that are mixed.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Mixtures.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.coefficients.len() / self.inputs.max(1)
    }

    /// The coefficients of mixture a. Panics if a is `outputs()` or more.
    #[must_use]
    pub fn row(&self, a: usize) -> &[f64] {
        &self.coefficients[a * self.inputs..(a + 1) * self.inputs]
    }

    /// The coefficients over the inputs of a combination of the mixtures: `M^T c`.
    #[must_use]
    pub fn pulled_back(&self, combination: &[f64]) -> Vec<f64> {
        let mut out = vec![0f64; self.inputs];
        for (a, &c) in combination.iter().enumerate().filter(|(_, c)| **c != 0.0) {
            out.iter_mut().zip(self.row(a)).for_each(|(sum, m)| *sum += c * m);
        }
        out
    }

    /// This after `first`: `M F`.
    pub(super) fn after(&self, first: &Self) -> Self {
        let rows = (0..self.outputs()).flat_map(|a| first.pulled_back(self.row(a))).collect();
        Self { inputs: first.inputs, coefficients: rows }
    }

    /// The same, one vector more that stays as it is.
    pub(super) fn with_point(&self) -> Self {
        let mut coefficients = Vec::with_capacity((self.outputs() + 1) * (self.inputs + 1));
        for a in 0..self.outputs() {
            coefficients.extend_from_slice(self.row(a));
            coefficients.push(0.0);
        }
        coefficients.extend(std::iter::repeat_n(0.0, self.inputs));
        coefficients.push(1.0);
        Self { inputs: self.inputs + 1, coefficients }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_compose() {
        let first = Mixing::means(3, &[vec![0, 1], vec![2]]);
        let second = Mixing::scaled(&[2.0, 3.0]);
        assert_eq!(second.after(&first), Mixing::new(3, vec![1.0, 1.0, 0.0, 0.0, 0.0, 3.0]));
        assert_eq!(first.pulled_back(&[4.0, 1.0]), [2.0, 2.0, 1.0]);
        assert_eq!(second.with_point(), Mixing::new(3, vec![2.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0]));
        assert_eq!((first.inputs(), first.outputs()), (3, 2));
    }
}
