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

/// The yardstick of the fast transform: the same butterflies in `f32`, in place, one lane at a time as far as the
/// source goes, and cut so that the data stay in the caches. Without any scale; the length is a power of two.
///
/// Each block of 2^12 points (16 KiB) is finished before the next one is begun, two stages to a pass; above that,
/// likewise two stages to a pass over all of `x`.
pub fn blocked(x: &mut [f32]) {
    const BLOCK: usize = 1 << 12;
    let block = x.len().min(BLOCK);
    for part in x.chunks_exact_mut(block.max(1)) {
        stages(part, 1);
    }
    stages(x, block);
}

/// The stages from `h` to the end, two at a time.
fn stages(x: &mut [f32], mut h: usize) {
    while 4 * h <= x.len() {
        for block in x.chunks_exact_mut(4 * h) {
            for i in 0..h {
                let [a, b, c, d] = [block[i], block[i + h], block[i + 2 * h], block[i + 3 * h]];
                let [a, b, c, d] = [a + b, a - b, c + d, c - d];
                (block[i], block[i + h], block[i + 2 * h], block[i + 3 * h]) = (a + c, b + d, a - c, b - d);
            }
        }
        h *= 4;
    }
    if 2 * h <= x.len() {
        for block in x.chunks_exact_mut(2 * h) {
            for i in 0..h {
                (block[i], block[i + h]) = (block[i] + block[i + h], block[i] - block[i + h]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocked_form_computes_the_same() {
        for log2 in 0..15u32 {
            let mut x: Vec<f64> = (0..1u32 << log2).map(|i| f64::from(i * 7919 % 1009) - 504.0).collect();
            let mut y: Vec<f32> = x.iter().map(|&v| v as f32).collect();
            fwht(&mut x);
            blocked(&mut y);
            // Integers below 2^24: no addition rounds.
            assert!(x.iter().zip(&y).all(|(a, b)| *a == f64::from(*b)), "2^{log2}");
        }
    }

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
