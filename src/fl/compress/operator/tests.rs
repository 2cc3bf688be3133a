use super::*;
use crate::math::prg::{Address, Cipher, Purpose, Secret};

fn key(round: u32) -> StreamKey {
    let address = Address { round, ..Address::default() };
    Secret::from_seed(8).derive(&[2; 16], address, Purpose::Compression, Cipher::ChaCha20)
}

fn random_k(keep: f64, error_feedback: bool) -> Compression {
    Compression::RandomK(RandomK { keep, error_feedback })
}

fn sketch(rows: u32, columns: u64, error_feedback: bool) -> Compression {
    Compression::Sketch(Sketch { rows, columns: Some(columns), ratio: None, error_feedback })
}

/// All that the other tests go through, for 60 coordinates.
fn all() -> Vec<Compression> {
    let mut all = vec![random_k(1.0, false), random_k(0.01, true), sketch(1, 1, true), sketch(4, 15, false)];
    for feedback in [false, true] {
        all.extend([random_k(0.2, feedback), sketch(1, 12, feedback), sketch(3, 4, feedback)]);
    }
    all
}

/// The matrix, from the text above the fast path: one obvious entry after another.
fn matrix(compression: &Compression, dim: usize, key: &StreamKey) -> Vec<Vec<f64>> {
    let m = compression.size(dim);
    let mut s = vec![vec![0f64; dim]; m];
    let (omega, mut reader) = (compression.omega(dim), key.reader(0));
    match *compression {
        Compression::RandomK(RandomK { error_feedback, .. }) => {
            let mut chosen = Vec::new();
            for j in dim - m..dim {
                let t = reader.below(j as u64 + 1) as usize;
                chosen.push(if chosen.contains(&t) { j } else { t });
            }
            chosen.sort_unstable();
            for (row, &i) in s.iter_mut().zip(&chosen) {
                row[i] = if error_feedback { 1.0 } else { (dim as f64 / m as f64).sqrt() };
            }
        }
        Compression::Sketch(Sketch { rows, error_feedback, .. }) => {
            let columns = m / rows as usize;
            let mut bytes = vec![0u8; 4 * dim * rows as usize];
            key.fill(0, &mut bytes);
            for (at, word) in bytes.chunks_exact(4).enumerate() {
                let (row, j) = (at / dim, at % dim);
                let word = u32::from_le_bytes(word.try_into().unwrap());
                let bucket = (f64::from(word >> 1) / f64::from(1u32 << 31) * columns as f64).floor() as usize;
                let shrunk = if error_feedback { 1.0 / omega } else { 1.0 };
                let sign = if word % 2 == 0 { 1.0 } else { -1.0 };
                s[row * columns + bucket][j] = sign * (shrunk / f64::from(rows)).sqrt();
            }
        }
    }
    s
}

fn vector(dim: usize, seed: u32) -> Vec<f32> {
    let mut reader = key(1000 + seed).reader(0);
    (0..dim).map(|_| reader.next_normal() as f32).collect()
}

fn close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().map(|x| x.abs()).fold(1.0, f64::max);
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() <= 1e-6 * size, "{what}: {a} {b}");
    }
}

#[test]
fn the_fast_path_is_the_matrix() {
    // The last has more coordinates than a task takes at a time.
    for (compression, dim) in all().into_iter().map(|c| (c, 60)).chain([(sketch(2, 9, false), 17_011)]) {
        let operator = Operator::draw(&compression, dim, &key(1)).unwrap();
        let s = matrix(&compression, dim, &key(1));
        let rows: Vec<f32> = (0..3).flat_map(|i| vector(dim, i)).collect();
        let compressed = operator.compress(&Rows::dense(rows.clone(), 3, dim).unwrap()).unwrap();
        for i in 0..3 {
            let x = &rows[i * dim..(i + 1) * dim];
            let expected: Vec<f64> =
                s.iter().map(|row| row.iter().zip(x).map(|(s, &x)| s * f64::from(x)).sum()).collect();
            close(compressed.row(i).unwrap(), &expected, &format!("{compression:?}"));
        }
        let y = vector(operator.size(), 9);
        let lifted = operator.lift(&y).unwrap();
        let expected: Vec<f64> =
            (0..dim).map(|j| s.iter().zip(&y).map(|(row, &y)| row[j] * f64::from(y)).sum()).collect();
        close(&lifted, &expected, &format!("{compression:?}"));
    }
}

#[test]
fn the_sum_of_the_compressed_is_the_compressed_sum() {
    for compression in all() {
        let operator = Operator::draw(&compression, 60, &key(2)).unwrap();
        let rows: Vec<Vec<f32>> = (0..20).map(|i| vector(60, i)).collect();
        let sum: Vec<f32> = (0..60).map(|j| rows.iter().map(|row| row[j]).sum()).collect();
        let compressed = operator.compress(&Rows::dense(rows.concat(), 20, 60).unwrap()).unwrap();
        let added: Vec<f64> =
            (0..operator.size()).map(|j| (0..20).map(|i| f64::from(compressed.row(i).unwrap()[j])).sum()).collect();
        let whole = operator.compress(&Rows::dense(sum, 1, 60).unwrap()).unwrap();
        close(whole.row(0).unwrap(), &added, &format!("{compression:?}"));
    }
}

/// Over many draws: the mean of what is lifted, and how far a single one is from the truth.
#[test]
fn unbiased_without_feedback_and_contracting_with_it_as_stated() {
    const DRAWS: u32 = 4000;
    let x = vector(60, 5);
    let square = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
    let truth = square(&x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    for compression in all() {
        let omega = compression.omega(60);
        let (mut mean, mut off, mut length) = (vec![0f64; 60], 0.0, 0.0);
        for draw in 0..DRAWS {
            let operator = Operator::draw(&compression, 60, &key(draw)).unwrap();
            let mut y = vec![0f32; operator.size()];
            operator.compress_row(&x, &mut y);
            let lifted = operator.lift(&y).unwrap();
            mean.iter_mut().zip(lifted.iter()).for_each(|(m, &l)| *m += f64::from(l) / f64::from(DRAWS));
            let error: Vec<f64> = lifted.iter().zip(&x).map(|(&l, &x)| f64::from(l) - f64::from(x)).collect();
            off += square(&error) / f64::from(DRAWS);
            length += square(&y.iter().map(|&y| f64::from(y)).collect::<Vec<_>>()) / f64::from(DRAWS);
        }
        let (gain, spread) = match compression.error_feedback() {
            false => (1.0, omega - 1.0),
            true => (1.0 / omega, 1.0 - 1.0 / omega),
        };
        let bias: Vec<f64> = mean.iter().zip(&x).map(|(m, &x)| m - gain * f64::from(x)).collect();
        // The mean of the draws is off by a single one's spread over their number.
        let expected = gain * gain * (omega - 1.0) * truth / f64::from(DRAWS);
        assert!(square(&bias) <= 2.0 * expected + 1e-9, "{compression:?}: {} {expected}", square(&bias));
        let ratio = off / truth;
        assert!((ratio - spread).abs() <= 0.08 * spread + 1e-9, "{compression:?}: {ratio} {spread}");
        assert!((length / truth - gain).abs() <= 0.08 * gain, "{compression:?}: {} {gain}", length / truth);
        assert!(!compression.error_feedback() || ratio < 1.0, "contracts");
    }
}

#[test]
fn the_same_bits_with_any_number_of_threads_and_another_map_each_round() {
    for compression in [random_k(0.1, false), sketch(3, 1500, true)] {
        let rows = Rows::dense(vector(20 * 50_000, 3), 20, 50_000).unwrap();
        let run = || {
            let operator = Operator::draw(&compression, 50_000, &key(7)).unwrap();
            let compressed = operator.compress(&rows).unwrap();
            let lifted = operator.lift(compressed.row(4).unwrap()).unwrap();
            (compressed.buffer.as_f32().unwrap().to_vec(), lifted.to_vec(), operator)
        };
        let in_pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run);
        let (one, four) = (in_pool(1), in_pool(4));
        assert!(one == four, "{compression:?}");
        assert!(one.2 != Operator::draw(&compression, 50_000, &key(8)).unwrap());
    }
}

#[test]
fn nothing_non_finite_is_hidden_and_wrong_lengths_are_refused() {
    for compression in [random_k(0.1, false), sketch(2, 3, false)] {
        let operator = Operator::draw(&compression, 60, &key(1)).unwrap();
        for (place, bad) in [(0, f32::NAN), (31, f32::INFINITY), (59, f32::NEG_INFINITY)] {
            let mut x = vector(60, 1);
            x[place] = bad;
            let rows = Rows::dense([x, vector(60, 2)].concat(), 2, 60).unwrap();
            let compressed = operator.compress(&rows).unwrap();
            assert!(compressed.row(0).unwrap().iter().all(|y| y.is_nan()), "{compression:?}");
            assert!(compressed.row(1).unwrap().iter().all(|y| y.is_finite()));
        }
        let wrong = Rows::dense(vec![0.0; 59], 1, 59).unwrap();
        assert!(matches!(operator.compress(&wrong), Err(BackendError::WrongLength { expected: 60, found: 59, .. })));
        assert!(operator.lift(&[0.0; 60]).is_err());
    }
    assert!(Operator::draw(&random_k(0.0, false), 60, &key(1)).is_err());
}
