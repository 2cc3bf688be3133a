//! Products on every instruction set of this processor against sums in double precision.

use super::*;
use crate::backend::simd::isa::Isa;
use crate::math::prg::{Cipher, StreamKey};

fn normals(len: usize, seed: u8) -> Vec<f32> {
    let mut reader = StreamKey::from_bytes([seed; 32], Cipher::ChaCha20).reader(0);
    (0..len).map(|_| reader.next_normal() as f32).collect()
}

fn machines() -> impl Iterator<Item = MatMul> {
    Isa::ALL.into_iter().filter(|isa| isa.available()).map(|isa| MatMul(Dispatch::new(isa)))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// All shapes of tiles and their edges, against sums in double precision; and the same bits wherever is fused.
#[test]
fn combinations_are_the_sums_that_they_state() {
    for (rows, columns, terms) in [
        (1, 1, 1),
        (10, 200, 784),
        (3, 47, 5),
        (17, 48, 129),
        (6, 896, 75),
        (8, 10, 300),
        (784, 33, 10),
        (2, 5, 256),
        (120, 113, 140),
        (97, 64, 300),
    ] {
        let (out_step, left, right) = (columns + 3, normals(rows * terms, 1), normals(2 * terms + columns, 2));
        // Overlapping rows, in no order.
        let starts: Vec<u32> = (0..terms).map(|k| (k * 7919 % (2 * terms)) as u32).collect();
        let before = normals(rows * out_step, 3);
        let mut seen: Option<Vec<u32>> = None;
        for machine in machines() {
            for left_steps in [(terms, 1), (1, rows)] {
                let mut out = before.clone();
                let job = Combine { rows, columns, out_step, left: &left, left_steps, right: &right, starts: &starts };
                machine.combine(&mut out, &job);
                for (i, &found) in out.iter().enumerate() {
                    let (r, c) = (i / out_step, i % out_step);
                    let term = |k: usize| {
                        let x = f64::from(left[r * left_steps.0 + k * left_steps.1]);
                        x * f64::from(right[starts[k] as usize + c])
                    };
                    let terms = if c < columns { terms } else { 0 };
                    let exact = f64::from(before[i]) + (0..terms).map(term).sum::<f64>();
                    let size = 1.0 + (0..terms).map(|k| term(k).abs()).sum::<f64>();
                    assert!((f64::from(found) - exact).abs() < 2e-6 * size, "{machine:?} {rows}x{columns}: {i}");
                }
                if machine.0.isa() != Isa::Portable && left_steps.0 == terms {
                    assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out), "{machine:?}");
                }
            }
        }
    }
}

#[test]
fn turned_matrices_have_rows_for_columns() {
    for (rows, columns, step) in [(1, 1, 1), (17, 33, 40), (16, 5, 5), (40, 16, 16)] {
        let matrix = normals(rows * step, 1);
        let mut out = vec![0.0; rows * columns];
        machines().for_each(|machine| {
            machine.turn(&mut out, &matrix, rows, step);
            let at = |i: usize| matrix[i % rows * step + i / rows];
            assert!((0..out.len()).all(|i| out[i].to_bits() == at(i).to_bits()));
        });
    }
}

#[test]
fn correlations_are_the_sums_that_they_state() {
    for (rows, columns, length, samples) in
        [(1, 1, 1, 1), (6, 75, 896, 3), (16, 7, 144, 2), (10, 84, 10, 1), (5, 13, 200, 1), (3, 1, 33, 1), (9, 8, 16, 5)]
    {
        let (left_step, left_sample) = (length + 1, rows * (length + 1) + 2);
        let right_sample = columns + length + 4;
        let (left, right) = (normals(samples * left_sample, 4), normals(samples * right_sample, 5));
        let starts: Vec<u32> = (0..columns).map(|c| ((c * 31) % columns) as u32).collect();
        let out_step = columns + 1;
        let before = normals(rows * out_step, 6);
        let mut seen: Option<Vec<u32>> = None;
        for machine in machines() {
            let mut out = before.clone();
            let job = Correlate {
                rows,
                out_step,
                left: &left,
                left_step,
                left_sample,
                right: &right,
                right_sample,
                starts: &starts,
                length,
                samples,
            };
            machine.correlate(&mut out, &job);
            for (i, &found) in out.iter().enumerate() {
                let (r, c) = (i / out_step, i % out_step);
                let mut exact = f64::from(before[i]);
                let mut size = 1.0;
                for s in 0..if c < columns { samples } else { 0 } {
                    for p in 0..length {
                        let x = f64::from(left[s * left_sample + r * left_step + p]);
                        let y = f64::from(right[s * right_sample + starts[c] as usize + p]);
                        exact += x * y;
                        size += (x * y).abs();
                    }
                }
                assert!((f64::from(found) - exact).abs() < 2e-6 * size, "{machine:?} {rows}x{columns}: {i}");
            }
            if machine.0.isa() != Isa::Portable {
                assert_eq!(seen.get_or_insert_with(|| bits(&out)), &bits(&out), "{machine:?}");
            }
        }
    }
}

#[test]
fn nothing_to_add_changes_nothing_and_nan_stays() {
    for machine in machines() {
        let mut out = [1.0, 2.0];
        let (left, right) = ([3.0], [f32::NAN, 1.0]);
        let mut job =
            Combine { rows: 1, columns: 2, out_step: 2, left: &left, left_steps: (1, 1), right: &right, starts: &[] };
        machine.combine(&mut out, &job);
        assert_eq!(out, [1.0, 2.0]);
        job.starts = &[0];
        machine.combine(&mut out, &job);
        assert!(out[0].is_nan() && out[1] == 5.0);

        let mut z = [-1.0, 0.0, -0.0, 2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        machine.relu(&mut z);
        assert_eq!([&z[..4], &z[5..]].concat(), [0.0, 0.0, 0.0, 2.0, f32::INFINITY, 0.0]);
        assert!(z[4].is_nan());
        let mut g = [1.0; 7];
        machine.relu_gradient(&mut g, &z);
        assert_eq!(g, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        machine.add_scaled(&mut g, &[2.0; 3], -0.5);
        assert_eq!(g, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 0.0]);
    }
}
