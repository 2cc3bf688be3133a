use super::factor::{OneHot, exponent, power};
use super::*;
use crate::math::prg::{Cipher, StreamKey, StreamReader};
use crate::model::architecture::{Architecture, Layer, ParameterSpan};
use crate::model::{LocalTrainer, ModelConfig};

const JOB: IntegerClip = IntegerClip { scale_log2: 46, bound: 3 << 43, isolate: false };

fn reader(seed: u8) -> StreamReader {
    StreamKey::from_bytes([seed; 32], Cipher::ChaCha20).reader(0)
}

fn normals(reader: &mut StreamReader, len: usize, scale: f64) -> Vec<f32> {
    (0..len).map(|_| (scale * reader.next_normal()) as f32).collect()
}

/// The integer row, written down from the formulas of the module: `G = m sum_t A_t (x) Z_t`, entry by entry.
fn reference(factors: &[Factor<'_>], dim: usize, job: &IntegerClip) -> Vec<i128> {
    let float = |view: &View<'_>, t: usize, j: usize| {
        let start = t / view.width * view.row + t % view.width;
        f64::from(match view.columns {
            Columns::Beside(_) => view.values[start + j],
            Columns::At(places) => view.values[start + places[j] as usize],
        })
    };
    let energy: f64 = factors.iter().map(|factor| factor.size().energy).sum();
    let mut row = vec![0i128; dim];
    if !energy.is_finite() || energy == 0.0 {
        return row;
    }
    let scale = job.scale_log2.min(35 - (exponent(energy) + 1).div_euclid(2));
    let round = |x: f64, log2: i32| (x * power(log2)).round_ties_even() as i128;
    for factor in factors {
        match factor {
            Factor::Dense { start, values } => {
                values.iter().enumerate().for_each(|(j, &v)| row[start + j] += round(v.into(), scale));
            }
            Factor::OneHot(one) => {
                for (t, &token) in one.tokens.iter().enumerate() {
                    for o in 0..one.outputs {
                        row[one.start + token as usize * one.outputs + o] += round(float(&one.dz, t, o), scale);
                    }
                }
            }
            Factor::Outer(outer) => {
                let (inputs, outputs) = (outer.span.inputs, outer.span.outputs);
                let peak = factor.size().peak;
                if peak == 0.0 {
                    continue;
                }
                let own = 14 - exponent(peak);
                for t in 0..outer.positions {
                    for o in 0..outputs {
                        let z = round(float(&outer.dz, t, o), scale - own);
                        for i in 0..inputs {
                            let at = if outer.turned { o * inputs + i } else { i * outputs + o };
                            row[outer.span.weight.start + at] += round(float(&outer.a, t, i), own) * z;
                        }
                        if let Some(bias) = &outer.span.bias {
                            row[bias.start + o] += round(1.0, own) * z;
                        }
                    }
                }
            }
        }
    }
    let square = norm2(&row);
    if square == 0 {
        return row;
    }
    let bound = u128::from(job.bound);
    let m = (bound * bound / square).isqrt().min(1 << (job.scale_log2 - scale).min(51));
    row.iter_mut().for_each(|v| *v *= m as i128);
    row
}

fn norm2(row: &[i128]) -> u128 {
    row.iter().map(|v| v.unsigned_abs() * v.unsigned_abs()).sum()
}

fn wrapped(rows: &[Vec<i128>]) -> Vec<i64> {
    (0..rows[0].len()).map(|j| rows.iter().fold(0i64, |sum, row| sum.wrapping_add(row[j] as i64))).collect()
}

fn models() -> Vec<Architecture> {
    let list = |text: &str| -> ModelConfig { serde_json::from_str(&format!(r#"{{"layers":{text}}}"#)).unwrap() };
    [
        ModelConfig::Mlp(vec![20, 17, 5, 3]),
        // So few entries that the sums of some hundred rows leave 52 bits.
        ModelConfig::Mlp(vec![2, 2]),
        // Many places and few weights: gradients; padding, wrapped places, a kernel of 1.
        list(
            r#"{"input":[2,9,8],"layers":[{"conv":{"channels":3,"kernel":1}},{"conv":{"channels":5,"kernel":3,"padding":1}},
                {"max-pool":2},"relu",{"conv":{"channels":2,"kernel":2,"padding":1}},{"linear":7},"relu",{"linear":3}]}"#,
        ),
        // Few places and many weights: inner products.
        list(r#"{"input":[3,4,5],"layers":[{"conv":{"channels":40,"kernel":3}},"relu",{"linear":4}]}"#),
        // Tables, norms, attentions; sequences of which the end is padding.
        list(
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6,"padding":0}},{"layer-norm":1e-5},
                {"residual":[{"attention":{"heads":2}}]},{"residual":["gelu",{"position-wise":9},"gelu",{"position-wise":6}]},
                {"positions":"mean"},{"linear":3}]}"#,
        ),
        // Every position predicts the next.
        list(
            r#"{"input":[1,1,18],"layers":[{"embedding":{"tokens":7,"width":6}},
                {"residual":[{"layer-norm":1e-5},{"attention":{"heads":3,"causal":true}}]},{"position-wise":7}]}"#,
        ),
    ]
    .iter()
    .map(|model| model.architecture().unwrap())
    .collect()
}

struct Case {
    trainer: CpuTrainer,
    weights: Vec<f32>,
    batch: Batch,
}

fn case(architecture: &Architecture, len: usize) -> Case {
    let mut reader = reader(7);
    let dim = architecture.inputs();
    let labels = (0..len).map(|_| reader.below(architecture.classes() as u64) as u32).collect();
    let features = match architecture.tokens() {
        Some(tokens) => (0..len * dim).map(|_| reader.below(tokens as u64) as f32).collect(),
        None => normals(&mut reader, len * dim, 1.0),
    };
    let batch = Batch { features, labels, dim };
    let trainer = CpuTrainer::new(architecture.clone());
    let weights = trainer.init(&StreamKey::from_bytes([1; 32], Cipher::ChaCha20));
    Case { trainer, weights, batch }
}

impl Case {
    fn sum(&self, chosen: &[usize], job: &IntegerClip) -> ClippedSum {
        self.trainer.clipped_sum(&self.weights, &self.batch, chosen, job).unwrap()
    }

    fn references(&self, chosen: &[usize], job: &IntegerClip) -> Vec<Vec<i128>> {
        let network = self.trainer.network();
        let mut work = network.workspace(network.pass());
        let one = |&i: &usize| {
            self.trainer.pass(&mut work, &self.weights, (&self.batch, &vec![i; network.pass()]), None, 1.0);
            reference(&network.factors(&work, 3), self.weights.len(), job)
        };
        chosen.iter().map(one).collect()
    }
}

/// Bit for bit the sum of rows that are written out, in any company, on any number of threads; each row within its bound.
#[test]
fn sums_are_those_of_the_rows_written_out() {
    for architecture in models() {
        let case = case(&architecture, 300);
        let bound = u128::from(JOB.bound).pow(2);
        let some: Vec<usize> = (0..40).chain([299, 7, 7]).collect();
        // Bounds that clip all, some and none.
        for factor in [0.05, 1.0, 1e4] {
            let job = IntegerClip { scale_log2: JOB.scale_log2 - exponent(factor), ..JOB };
            let rows = case.references(&some, &job);
            assert!(rows.iter().all(|row| (1..=bound).contains(&norm2(row))), "{architecture}");
            assert_eq!(case.sum(&some, &job).sum, wrapped(&rows), "{architecture} {factor}");
            for i in [0, 5, 31, 33] {
                assert_eq!(case.sum(&[some[i]], &job).sum, wrapped(&rows[i..=i]), "{architecture} {i}");
            }
            let clipped = case.sum(&some, &job).report.clipped;
            let sure = rows.iter().filter(|row| norm2(row) > bound - bound / 128).count();
            assert!(clipped >= sure && (factor > 100.0) == (clipped == 0), "{architecture} {factor} {clipped} {sure}");
        }
        let all: Vec<usize> = (0..300).collect();
        let expected = case.sum(&all, &JOB);
        assert_eq!(expected.sum, wrapped(&case.references(&all, &JOB)), "{architecture}");
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| case.sum(&all, &JOB)), expected, "{architecture} {threads}");
        }
        // A sample more adds its row, wherever it stands.
        let row = case.sum(&[299], &JOB).sum;
        for place in [0, 17, 32, 299] {
            let mut others: Vec<usize> = (0..299).collect();
            let before = case.sum(&others, &JOB).sum;
            others.insert(place, 299);
            let after = case.sum(&others, &JOB).sum;
            assert!(after.iter().zip(&before).zip(&row).all(|((a, b), r)| a.wrapping_sub(*b) == *r), "{architecture}");
        }
        let isolated = case.sum(&some, &IntegerClip { isolate: true, ..JOB });
        let shared = case.sum(&some, &JOB);
        let gap = isolated.sum.iter().zip(&shared.sum).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>().sqrt();
        assert!(gap < 1e-3 * JOB.bound as f64, "{architecture}: {gap}");
    }
}

/// Near the clipped gradients in floats: within a thousandth of the bound, for each.
#[test]
fn rows_are_near_the_clipped_gradients() {
    for architecture in models() {
        let case = case(&architecture, 20);
        let rows = case.trainer.gradient_rows(&case.weights, &case.batch).unwrap();
        let clip = JOB.bound as f64 * power(-JOB.scale_log2);
        let (mut norms, mut worst) = (0.0, 0f64);
        for i in 0..20 {
            let row = rows.row(i).unwrap();
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let factor = (clip / norm).min(1.0);
            let found = case.sum(&[i], &JOB);
            let gap =
                found.sum.iter().zip(row).map(|(&g, &v)| g as f64 * power(-JOB.scale_log2) - factor * f64::from(v));
            worst = worst.max(gap.map(|gap| gap * gap).sum::<f64>().sqrt() / clip);
            assert!((found.report.norm_sum / norm - 1.0).abs() < 1e-3, "{architecture}");
            norms += norm;
        }
        assert!(worst < 1e-3, "{architecture}: {worst}");
        assert!(norms > 0.0);
    }
}

/// Layers of every kind, sizes from the smallest to the largest float, tokens that meet: what `build` and the sums make of
/// factors is the row written out, and never beyond its bound.
#[test]
fn any_factors_give_bounded_rows() {
    let mut draw = reader(9);
    let mut kinds = [0usize; 4];
    for round in 0..600 {
        let positions = [1, 1, 2, 7, 40][draw.below(5) as usize];
        let (inputs, outputs, vocabulary) = (1 + draw.below(6) as usize, 1 + draw.below(5) as usize, 4);
        let bias = draw.below(2) == 1;
        let mut size = |spread: u64| power(draw.below(2 * spread + 1) as i32 - spread as i32);
        let scales = if round % 3 == 0 { [1.0; 4] } else { [size(120), size(120), size(60), size(60)] };
        let weight = 0..inputs * outputs;
        let end = weight.end + if bias { outputs } else { 0 };
        let span = ParameterSpan {
            inputs,
            outputs,
            shape: vec![],
            initial: crate::model::architecture::Initial::Fan,
            weight: weight.clone(),
            bias: bias.then_some(weight.end..end),
        };
        let dim = end + vocabulary * outputs + 3;
        let mut values = |len, scale: f64| match round % 7 {
            // Ones and zeros: rows exactly at powers of two, and empty ones.
            0 => (0..len).map(|_| f32::from(draw.below(3) as u8)).collect(),
            1 => vec![0.0; len],
            _ => normals(&mut draw, len, scale),
        };
        let (a, dz) = (values(positions * inputs, scales[0]), values(positions * outputs, scales[1]));
        let (token_dz, dense) = (values(positions * outputs, scales[2]), values(3, scales[3]));
        let tokens: Vec<u32> = (0..positions).map(|_| draw.below(vocabulary as u64) as u32).collect();
        let (a, dz) = (View::rows(&a, inputs), View::rows(&dz, outputs));
        let factors = [
            Factor::Outer(Outer { span: &span, turned: draw.below(2) == 1, positions, a, dz }),
            Factor::OneHot(OneHot { start: end, outputs, tokens: &tokens, dz: View::rows(&token_dz, outputs) }),
            Factor::Dense { start: dim - 3, values: (&dense[..]).into() },
        ];
        let bound = [1, 3, 1 << 20, 3 << 43, 1 << 48][draw.below(5) as usize];
        let job = IntegerClip { scale_log2: draw.below(90) as i32 - 10, bound, isolate: false };
        let mut worker = Worker::new(dim);
        let mut expected = vec![0i64; dim];
        for times in 1..=3 {
            worker.add(&factors, &job);
            let row = reference(&factors, dim, &job);
            assert!(norm2(&row) <= u128::from(bound).pow(2), "{round}");
            expected.iter_mut().zip(&row).for_each(|(sum, &v)| *sum = sum.wrapping_add(v as i64));
            let seen = worker.seen[times - 1];
            assert!(!seen.zeroed, "{round}");
            kinds[0] += usize::from(seen.clipped);
            kinds[1] += usize::from(seen.multiplier == 0.0);
            kinds[2] += usize::from(!seen.clipped && seen.norm > 0.0);
            kinds[3] += usize::from(norm2(&row) == u128::from(bound).pow(2));
        }
        worker.sums.multiply(&factors);
        let mut found = vec![0i64; dim];
        worker.sums.add_to(&mut found);
        assert_eq!(found, expected, "{round}");
    }
    assert!(kinds.iter().all(|&count| count > 5), "{kinds:?}");
}

/// NaN and infinities in weights, features or a single factor: a row of zeros, counted; the others stay.
#[test]
fn bad_factors_are_rows_of_zeros() {
    for architecture in models().into_iter().filter(|model| model.tokens().is_none()) {
        let mut case = case(&architecture, 6);
        let good = case.sum(&[0, 1, 3, 4, 5], &JOB);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            case.batch.features[2 * case.batch.dim + 1] = bad;
            let found = case.sum(&[0, 1, 2, 3, 4, 5], &JOB);
            assert_eq!((found.sum, found.report.zeroed), (good.sum.clone(), 1), "{architecture} {bad}");
        }
        case.weights[0] = f32::NAN;
        let found = case.sum(&[0, 1], &JOB);
        assert!(found.sum.iter().all(|&v| v == 0) && found.report.zeroed == 2, "{architecture}");
    }
    let values = [1.0, f32::NAN];
    let outcome = build(&[Factor::Dense { start: 0, values: (&values[..]).into() }], &mut Vec::new(), &JOB);
    assert!(outcome.zeroed && outcome.multiplier == 0.0);
}

#[test]
fn what_cannot_be_is_an_error() {
    let architecture = ModelConfig::Mlp(vec![4, 3]).architecture().unwrap();
    let case = case(&architecture, 3);
    assert!(case.trainer.clipped_sum(&case.weights, &case.batch, &[0, 3], &JOB).is_err());
    assert!(case.trainer.clipped_sum(&case.weights[1..], &case.batch, &[0], &JOB).is_err());
    assert_eq!(case.sum(&[], &JOB).sum, vec![0; case.weights.len()]);
    let text = r#"{"layers":{"input":[1,2,2],"layers":["relu",{"dropout":0.5},{"linear":3}]}}"#;
    let dropout: ModelConfig = serde_json::from_str(text).unwrap();
    let architecture = dropout.architecture().unwrap();
    assert!(architecture.layers().iter().any(|layer| matches!(layer, Layer::Dropout { .. })));
    let trainer = CpuTrainer::new(architecture);
    assert!(!trainer.clips_inside());
    let weights = vec![0.0; trainer.parameter_count()];
    assert!(matches!(trainer.clipped_sum(&weights, &case.batch, &[0], &JOB), Err(ModelError::Draws { .. })));
}
