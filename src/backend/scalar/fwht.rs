//! `y = H x` with `H_(2n) = [[H_n, H_n], [H_n, -H_n]]` and `H_1 = [1]` (natural, Sylvester order).

/// Transforms one block in place, without any scale. The length is a power of two.
pub fn fwht(x: &mut [f64]) {
    let mut h = 1;
    while h < x.len() {
        for start in (0..x.len()).step_by(2 * h) {
            for i in start..start + h {
                (x[i], x[i + h]) = (x[i] + x[i + h], x[i] - x[i + h]);
            }
        }
        h *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `H[i][j] = (-1)^popcount(i & j)`.
    #[test]
    fn every_column_is_the_walsh_function() {
        for j in 0..32u32 {
            let mut e = vec![0.0; 32];
            e[j as usize] = 1.0;
            fwht(&mut e);
            for i in 0..32u32 {
                assert_eq!(e[i as usize], if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 });
            }
        }
    }
}
