//! Networks with convolutions, pools and dropout: sizes, gradients against a reference in double precision, refusals.

mod reference;
mod start;
mod transformers;

use std::collections::BTreeMap;

use veilsum::data::Batch;
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::model::architecture::Layer;
use veilsum::model::weights::{SavedModel, load, save};
use veilsum::model::{Architecture, Clients, LocalConfig, ModelConfig, ModelError, evaluate_dataset, trainer_for};

use self::reference::reference_loss;

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

fn layers(text: &str) -> ModelConfig {
    serde_json::from_str(&format!(r#"{{"layers":{text}}}"#)).unwrap()
}

/// Every kind of layer, dropout on maps and on vectors.
fn all_kinds(share: f64) -> ModelConfig {
    layers(&format!(
        r#"{{"input":[2,6,5],"layers":[{{"conv":{{"channels":3,"kernel":3,"padding":1}}}},{{"dropout":{share}}},"relu",
            {{"max-pool":2}},{{"conv":{{"channels":4,"kernel":2}}}},"relu",{{"linear":6}},"relu",{{"dropout":{share}}},
            {{"linear":3}}]}}"#
    ))
}

fn synthetic(len: usize, dim: usize, classes: u32, seed: u8) -> Batch {
    let mut reader = key(seed).reader(0);
    Batch {
        features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
        labels: (0..len).map(|_| reader.below(u64::from(classes)) as u32).collect(),
        dim,
    }
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

const PLAIN: LocalConfig =
    LocalConfig { epochs: 1, batch_size: 1, learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0, proximal: 0.0 };

/// The factors of dropout of one visit, by the address that the trainer documents.
fn factors(architecture: &Architecture, key: &StreamKey, visit: usize) -> Vec<f64> {
    let (mut shape, mut shares) = (architecture.input(), Vec::new());
    for layer in architecture.layers() {
        if let Layer::Dropout { share } = layer {
            shares.extend(std::iter::repeat_n(f64::from(*share), shape.len()));
        }
        shape = layer.output(shape);
    }
    let mut bytes = vec![0u8; 4 * shares.len()];
    key.fill((1 << 37) + (visit * bytes.len()) as u64, &mut bytes);
    let words = bytes.chunks_exact(4).map(|b| f64::from(u32::from_le_bytes(b.try_into().unwrap())));
    let factor =
        |(word, share): (f64, f64)| if word < (1.0 - share) * 2f64.powi(32) { 1.0 / (1.0 - share) } else { 0.0 };
    words.zip(shares).map(factor).collect()
}

/// Central differences of [`reference_loss`] with step 1e-6: its error is about 1e-9 away from kinks.
fn reference_gradient(
    architecture: &Architecture,
    weights: &[f64],
    batch: &Batch,
    i: usize,
    factors: &[f64],
) -> Vec<f64> {
    let (h, sample) = (1e-6, doubles(&batch.features[i * batch.dim..(i + 1) * batch.dim]));
    let shifted = |j: usize, by: f64| {
        let mut w = weights.to_vec();
        w[j] += by;
        reference_loss(architecture, &w, &sample, batch.labels[i], factors)
    };
    (0..weights.len()).map(|j| (shifted(j, h) - shifted(j, -h)) / (2.0 * h)).collect()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    for (config, name, expected, input) in [
        (ModelConfig::MnistCnn, "mnist_cnn", 1_663_370, 784),
        (ModelConfig::CifarCnn, "cifar_cnn", 62_006, 3072),
        (ModelConfig::CifarCnnLarge, "cifar_cnn_large", 2_209_910, 3072),
        (ModelConfig::MpheCnn, "mphe_cnn", 199_658, 784),
    ] {
        let architecture = config.architecture().unwrap();
        assert_eq!((architecture.parameter_count(), architecture.inputs()), (expected, input), "{name}");
        assert_eq!(architecture.classes(), 10);
        assert_eq!(trainer_for(&config).unwrap().init(&key(1)).len(), expected);
        let tensors = architecture.tensors();
        let ends: Vec<usize> = tensors.iter().map(|t| t.span.end).collect();
        assert_eq!((tensors[0].span.start, *ends.last().unwrap()), (0, expected));
        assert!(tensors.iter().skip(1).zip(&ends).all(|(t, &end)| t.span.start == end), "no gaps");
        assert!(tensors.iter().all(|t| t.shape.iter().product::<usize>() == t.span.len()));
        assert_eq!(serde_json::to_string(&config).unwrap(), format!("\"{name}\""));
        assert_eq!(name.parse::<ModelConfig>().unwrap(), config);
        assert!(ModelConfig::NAMED.contains(&config));
    }
    let shapes: Vec<Vec<usize>> =
        ModelConfig::CifarCnn.architecture().unwrap().tensors().into_iter().map(|t| t.shape).collect();
    assert_eq!(shapes[..4], [vec![6, 3, 5, 5], vec![6], vec![16, 6, 5, 5], vec![16]]);
    assert_eq!(shapes[4..6], [vec![400, 120], vec![120]]);
}

#[test]
fn lists_read_print_and_name_the_place_of_a_mistake() {
    let text = r#"{"layers":{"input":[1,8,8],"layers":[{"conv":{"channels":4,"kernel":3,"padding":1}},"relu",{"max-pool":2},{"dropout":0.3},{"linear":10}]}}"#;
    let config: ModelConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.to_string(), text);
    assert_eq!(text.parse::<ModelConfig>().unwrap(), config);
    let shown = config.architecture().unwrap().to_string();
    assert_eq!(shown, "1x8x8, conv 4 of 3x3 padded by 1, relu, pool 2, dropout 0.3, linear 10");
    for bad in [
        r#"{"layers":{"input":[1,8,8],"layers":[],"more":1}}"#,
        r#"{"layers":{"input":[8,8],"layers":[{"linear":10}]}}"#,
        r#"{"layers":{"input":[1,8,8],"layers":[{"conv":{"channels":4,"kernel":3,"stride":2}},{"linear":10}]}}"#,
        r#"{"layers":{"input":[1,8,8],"layers":["tanh",{"linear":10}]}}"#,
    ] {
        assert!(serde_json::from_str::<ModelConfig>(bad).is_err(), "{bad}");
        assert!(matches!(bad.parse::<ModelConfig>(), Err(ModelError::Json(_))), "{bad}");
    }
    for (list, parts) in [
        (r#"{"input":[0,8,8],"layers":[{"linear":10}]}"#, &["`input`", "[0, 8, 8]", "at least 1"][..]),
        (r#"{"input":[18446744073709551615,3,8],"layers":[{"linear":10}]}"#, &["`input`", "16777216 values"]),
        (r#"{"input":[1,8,8],"layers":[]}"#, &["last layer", "absent", "linear"]),
        (r#"{"input":[1,8,8],"layers":[{"linear":10},"relu"]}"#, &["last layer", "\"relu\"", "linear"]),
        (r#"{"input":[1,8,8],"layers":["relu",{"linear":0}]}"#, &["layer 2 of 2", "{\"linear\":0}", "at least 1"]),
        (
            r#"{"input":[1,8,8],"layers":[{"linear":9},{"max-pool":2},{"linear":2}]}"#,
            &["layer 2 of 3", "behind a linear"],
        ),
        (
            r#"{"input":[1,8,8],"layers":[{"linear":9},{"conv":{"channels":1,"kernel":1}},{"linear":2}]}"#,
            &["layer 2 of 3", "behind a linear"],
        ),
        (r#"{"input":[1,8,6],"layers":[{"max-pool":7},{"linear":2}]}"#, &["layer 1 of 2", "1 to 6", "1x8x6"]),
        (r#"{"input":[1,8,8],"layers":[{"max-pool":0},{"linear":2}]}"#, &["layer 1 of 2", "1 to 8"]),
        (
            r#"{"input":[1,8,8],"layers":[{"conv":{"channels":1,"kernel":9}},{"linear":2}]}"#,
            &["layer 1 of 2", "\"kernel\":9", "1x8x8", "at most 8"],
        ),
        (
            r#"{"input":[1,8,8],"layers":[{"conv":{"channels":1,"kernel":3,"padding":3}},{"linear":2}]}"#,
            &["layer 1 of 2", "padding", "0 to 2"],
        ),
        (r#"{"input":[1,8,8],"layers":[{"conv":{"channels":0,"kernel":3}},{"linear":2}]}"#, &["at least 1 channel"]),
        (
            r#"{"input":[1,8,8],"layers":[{"conv":{"channels":1,"kernel":18446744073709551615,"padding":18446744073709551614}},{"linear":2}]}"#,
            &["layer 1 of 2", "a kernel that fits"],
        ),
        (
            r#"{"input":[1,8,8],"layers":[{"conv":{"channels":18446744073709551615,"kernel":3}},{"linear":2}]}"#,
            &["layer 1 of 2", "values a sample"],
        ),
        (r#"{"input":[1,8,8],"layers":[{"dropout":1.0},{"linear":2}]}"#, &["layer 1 of 2", "[0, 1)"]),
        (r#"{"input":[1,8,8],"layers":[{"dropout":-0.1},{"linear":2}]}"#, &["layer 1 of 2", "[0, 1)"]),
        (r#"{"input":[1,1,16384],"layers":[{"linear":16384},{"linear":2}]}"#, &["layer 1 of 2", "268435456"]),
        (
            r#"{"input":[1,1,11585],"layers":[{"linear":11585},{"linear":11585},{"linear":2}]}"#,
            &["layer 2 of 3", "268435456", "268447620"],
        ),
    ] {
        let error = layers(list).architecture().unwrap_err();
        assert!(matches!(error, ModelError::Layers { .. }), "{list}: {error}");
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{list}: {message}");
    }
}

#[test]
fn rows_agree_with_finite_differences() {
    for config in [
        all_kinds(0.0),
        layers(r#"{"input":[1,7,7],"layers":[{"conv":{"channels":2,"kernel":3}},"relu",{"max-pool":3},{"linear":3}]}"#),
        layers(
            r#"{"input":[3,3,3],"layers":[{"conv":{"channels":9,"kernel":1}},{"conv":{"channels":1,"kernel":3,"padding":2}},{"linear":3}]}"#,
        ),
    ] {
        let architecture = config.architecture().unwrap();
        let trainer = trainer_for(&config).unwrap();
        let weights = trainer.init(&key(1));
        let batch = synthetic(34, architecture.inputs(), 3, 2);
        let clients = Clients { count: 34, shard: &|i| sample(&batch, i), key: &|_| key(0) };
        let rows = trainer.mean_rows(&weights, &clients).unwrap();
        for i in 0..batch.len() {
            // A share of 0 keeps everything.
            let factors = vec![1.0; 1000];
            let expected = reference_gradient(&architecture, &doubles(&weights), &batch, i, &factors);
            for (j, (&found, expected)) in rows.row(i).unwrap().iter().zip(expected).enumerate() {
                assert!((f64::from(found) - expected).abs() < 2e-6, "{config}, {i}, {j}: {found} {expected}");
            }
        }
        if !trainer.draws() {
            let same = trainer.gradient_rows(&weights, &batch).unwrap();
            assert_eq!(bits(same.buffer.as_f32().unwrap()), bits(rows.buffer.as_f32().unwrap()));
        }
    }
}

fn sample(batch: &Batch, i: usize) -> Batch {
    Batch {
        features: batch.features[i * batch.dim..(i + 1) * batch.dim].to_vec(),
        labels: vec![batch.labels[i]],
        dim: batch.dim,
    }
}

/// Local SGD by hand in double precision, with the order of mini-batches and the dropout of the client's key.
#[test]
fn local_sgd_draws_dropout_from_the_clients_key() {
    let config = all_kinds(0.4);
    let architecture = config.architecture().unwrap();
    let trainer = trainer_for(&config).unwrap();
    assert!(trainer.draws());
    let before = trainer.init(&key(5));
    let shard = synthetic(5, 60, 3, 6);
    for (momentum, proximal) in [(0.0, 0.0), (0.5, 0.3)] {
        let local = LocalConfig { epochs: 2, batch_size: 2, learning_rate: 0.1, momentum, proximal, ..PLAIN };
        let (mut w, mut v, mut visit) = (doubles(&before), vec![0.0; before.len()], 0);
        let (mut reader, mut order) = (key(7).reader(0), (0..shard.len()).collect::<Vec<_>>());
        for _ in 0..local.epochs {
            reader.shuffle(&mut order);
            for indices in order.chunks(local.batch_size) {
                let mut gradient = vec![0.0; w.len()];
                for &i in indices {
                    let factors = factors(&architecture, &key(7), visit);
                    assert!(factors.contains(&0.0) && factors.iter().any(|&f| (f - 1.0 / 0.6).abs() < 1e-6));
                    let g = reference_gradient(&architecture, &w, &shard, i, &factors);
                    gradient.iter_mut().zip(g).for_each(|(sum, g)| *sum += g / indices.len() as f64);
                    visit += 1;
                }
                for j in 0..w.len() {
                    let pull = f64::from(proximal) * (w[j] - f64::from(before[j]));
                    v[j] = f64::from(momentum) * v[j] + gradient[j] + pull;
                    w[j] -= f64::from(local.learning_rate) * v[j];
                }
            }
        }
        let delta = trainer.local_delta(&before, &shard, &local, &key(7)).unwrap();
        for (j, &d) in delta.iter().enumerate() {
            let expected = w[j] - f64::from(before[j]);
            assert!((f64::from(d) - expected).abs() < 3e-6, "weight {j}: {d} against {expected}");
        }
        assert!(delta.iter().any(|d| d.abs() > 0.01));
    }
}

#[test]
fn dropout_repeats_is_off_in_evaluation_and_refuses_rows_without_a_key() {
    let (with, without) = (trainer_for(&all_kinds(0.4)).unwrap(), trainer_for(&all_kinds(0.0)).unwrap());
    let weights = with.init(&key(1));
    let batch = synthetic(70, 60, 3, 2);
    assert_eq!(bits(&with.logits(&weights, &batch).unwrap()), bits(&without.logits(&weights, &batch).unwrap()));
    let delta = |byte| bits(&with.local_delta(&weights, &batch, &PLAIN, &key(byte)).unwrap());
    assert_eq!(delta(3), delta(3));
    assert_ne!(delta(3), delta(4));
    let message = with.gradient_rows(&weights, &batch).unwrap_err().to_string();
    assert!(message.contains("dropout") && message.contains("key"), "{message}");
    // A mean over many visits has the expectation of evaluation: the scale is 1 / (1 - share).
    let linear = layers(r#"{"input":[1,1,1],"layers":[{"dropout":0.25},{"linear":2}]}"#);
    let trainer = trainer_for(&linear).unwrap();
    let one = Batch { features: vec![1.0; 20_000], labels: vec![0; 20_000], dim: 1 };
    let clients = Clients { count: 1, shard: &|_| one.clone(), key: &|_| key(9) };
    let rows = trainer.mean_rows(&[0.0; 4], &clients).unwrap();
    // Gradient by the first weight: -(1/2) E[factor]; the factor's standard deviation is sqrt(1/3), hence 0.2 % here.
    let mean = f64::from(rows.row(0).unwrap()[0]) / -0.5;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
}

#[test]
fn results_do_not_depend_on_threads_batches_or_reruns() {
    for config in [ModelConfig::CifarCnn, all_kinds(0.3)] {
        let architecture = config.architecture().unwrap();
        let trainer = trainer_for(&config).unwrap();
        let weights = trainer.init(&key(5));
        let batch = synthetic(70, architecture.inputs(), architecture.classes() as u32, 6);
        let local = LocalConfig { batch_size: 40, learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-3, ..PLAIN };
        let clients = Clients { count: 5, shard: &|i| sample(&batch, i), key: &|i| key(i as u8) };
        let once = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let rows = trainer.mean_rows(&weights, &clients).unwrap();
                let deltas = trainer.delta_rows(&weights, &clients, &local).unwrap();
                let delta = trainer.local_delta(&weights, &batch, &local, &key(8)).unwrap();
                let logits = trainer.logits(&weights, &batch).unwrap();
                let rows = [rows.buffer.as_f32().unwrap(), deltas.buffer.as_f32().unwrap()].concat();
                (bits(&rows), bits(&delta), bits(&logits))
            })
        };
        let first = once(1);
        assert!([2, 3].iter().all(|&threads| once(threads) == first), "{config}");
        if !trainer.draws() {
            let rows = trainer.gradient_rows(&weights, &batch).unwrap();
            for i in [0, 31, 32, 69] {
                let alone = trainer.gradient_rows(&weights, &sample(&batch, i)).unwrap();
                assert_eq!(bits(rows.row(i).unwrap()), bits(alone.row(0).unwrap()), "sample {i} in another batch");
            }
        }
    }
}

/// Relu has no slope at 0, the first of equal values wins a square, and NaN passes both.
#[test]
fn ties_and_nan() {
    let list = |size: usize, input: &str| {
        let pooled = r#"["relu",{"conv":{"channels":1,"kernel":1}},"relu",{"max-pool":SIZE},{"linear":2}]"#;
        layers(&format!(r#"{{"input":{input},"layers":{}}}"#, pooled.replace("SIZE", &size.to_string())))
    };
    // Convolution w = 2, b = 0; linear W = (0.1, -0.1), b = 0.
    let weights = [2.0, 0.0, 0.1, -0.1, 0.0, 0.0];
    let run = |config: &ModelConfig, features: &[f32]| {
        let trainer = trainer_for(config).unwrap();
        let batch = Batch { features: features.to_vec(), labels: vec![0], dim: features.len() };
        let row = trainer.gradient_rows(&weights, &batch).unwrap().row(0).unwrap().to_vec();
        (trainer.logits(&weights, &batch).unwrap()[0], row)
    };
    let square = list(2, "[1,2,2]");
    let (first, row) = run(&square, &[1.0, 3.0, 3.0, -5.0]);
    let slope = -0.2 / (1.0 + 1.2f32.exp());
    assert!((first - 0.6).abs() < 1e-6);
    assert!((row[0] - 3.0 * slope).abs() < 1e-6 && (row[1] - slope).abs() < 1e-6, "one of both: {row:?}");
    assert_eq!(run(&square, &[-1.0, -2.0, -0.5, -3.0]).0, 0.0);
    for place in 0..4 {
        let mut features = [1.0, 2.0, 3.0, 4.0];
        features[place] = f32::NAN;
        let (first, row) = run(&square, &features);
        assert!(first.is_nan() && row.iter().any(|g| g.is_nan()), "NaN at {place} is hidden");
    }
    let single = list(1, "[1,1,1]");
    let (zero, one) = (run(&single, &[0.0]).1, run(&single, &[1.0]).1);
    assert_eq!(zero[..2], [0.0, 0.0], "no slope at 0");
    assert!(one[0] < -0.05 && one[1] < -0.05, "{one:?}");
    // A NaN in one sample leaves the rows of the others as they are.
    let clean = synthetic(40, 784, 10, 3);
    let trainer = trainer_for(&ModelConfig::MpheCnn).unwrap();
    let weights = trainer.init(&key(1));
    let rows = |batch: &Batch| {
        let rows = trainer.gradient_rows(&weights, batch).unwrap();
        (0..40).filter(|i| *i != 35).map(|i| bits(rows.row(i).unwrap())).collect::<Vec<_>>()
    };
    let mut dirty = clean.clone();
    dirty.features[35 * 784 + 783] = f32::INFINITY;
    assert!(rows(&dirty) == rows(&clean));
}

#[test]
fn files_hold_the_shapes_and_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for config in [ModelConfig::CifarCnn, all_kinds(0.3)] {
        let weights = trainer_for(&config).unwrap().init(&key(2));
        save(&path, &config, &weights, &BTreeMap::new()).unwrap();
        assert_eq!(load(&path).unwrap(), SavedModel { config, weights, info: BTreeMap::new() });
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]).into_owned();
        assert!(text.contains("layers.0.weight") && text.contains("input channels"), "{text}");
    }
    let mlp = ModelConfig::DigitsMlp;
    save(&path, &mlp, &trainer_for(&mlp).unwrap().init(&key(2)), &BTreeMap::new()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        !String::from_utf8_lossy(&bytes[..bytes.len().min(800)]).contains("channels"),
        "files of perceptrons are as they were"
    );
}

/// A small net of the kind of `mnist_cnn` on the embedded digits.
#[test]
fn a_convolutional_net_learns_the_digits() {
    let config = layers(
        r#"{"input":[1,8,8],"layers":[{"conv":{"channels":8,"kernel":3,"padding":1}},"relu",{"max-pool":2},
            {"conv":{"channels":16,"kernel":3,"padding":1}},"relu",{"max-pool":2},{"linear":32},"relu",{"dropout":0.1},
            {"linear":10}]}"#,
    );
    let folder = tempfile::tempdir().unwrap();
    let split = veilsum::data::load(&veilsum::data::DataConfig::named("digits"), folder.path(), false).unwrap();
    config.architecture().unwrap().check_dataset(&split.train).unwrap();
    let trainer = trainer_for(&config).unwrap();
    let mut weights = trainer.init(&key(1));
    let shard = split.train.gather(&(0..split.train.len()).collect::<Vec<_>>());
    let local = LocalConfig { epochs: 12, batch_size: 16, learning_rate: 0.02, momentum: 0.8, ..PLAIN };
    let delta = trainer.local_delta(&weights, &shard, &local, &key(2)).unwrap();
    weights.iter_mut().zip(&delta).for_each(|(w, d)| *w += d);
    let evaluation = evaluate_dataset(&*trainer, &weights, &split.test).unwrap();
    assert!(evaluation.accuracy > 0.9, "{}", evaluation.accuracy);
}

#[cfg(feature = "device-training")]
#[test]
fn devices_refuse_what_they_do_not_train() {
    let backend = std::sync::Arc::new(veilsum::backend::simd::Simd::new());
    let message = match veilsum::model::trainer_on(&ModelConfig::CifarCnn, backend) {
        Err(error @ ModelError::LinearOnly { .. }) => error.to_string(),
        other => panic!("{:?}", other.map(|_| "a trainer")),
    };
    assert!(message.contains("3x32x32, conv 6 of 5x5") && message.contains(r#""train_on": "cpu""#), "{message}");
}

/// FedSGD over clients of one sample, whose rows need a key each where there is dropout.
#[test]
fn a_run_with_dropout_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let model = concat!(
        r#"model={"layers":{"input":[1,8,8],"layers":[{"conv":{"channels":4,"kernel":3}},"relu",{"max-pool":2},"#,
        r#"{"dropout":SHARE},{"linear":10}]}}"#
    );
    let run = |name: &str, share: &str| {
        let out = folder.path().join(name);
        let model = model.replace("SHARE", share);
        let settings = ["data.name=digits", &model, "cohort=40", "rounds=3", "seed=5", "privacy.mechanism=none"];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_veilsum"));
        command.args(["train", "--json", "--out", out.to_str().unwrap(), "--set", "backend=simd"]);
        command.args(settings.iter().flat_map(|set| ["--set", set]));
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        load(&out.join("model.safetensors")).unwrap()
    };
    let (first, again, other) = (run("a", "0.3"), run("b", "0.3"), run("c", "0.0"));
    assert_eq!(bits(&first.weights), bits(&again.weights));
    assert_ne!(bits(&first.weights), bits(&other.weights), "rows without dropout");
    assert!(matches!(first.config, ModelConfig::Layers(_)));
}

/// Control variates: one step moves by as much more, and none moves as ever.
#[test]
fn a_correction_is_added_to_every_gradient() {
    for (config, dim, classes) in [(all_kinds(0.0), 60, 3), (ModelConfig::Mlp(vec![20, 8, 10]), 20, 10)] {
        let trainer = trainer_for(&config).unwrap();
        let weights = trainer.init(&key(1));
        let shard = synthetic(24, dim, classes, 2);
        let several = LocalConfig { epochs: 2, batch_size: 10, learning_rate: 0.1, ..PLAIN };
        let once = LocalConfig { batch_size: 24, learning_rate: 0.1, ..PLAIN };
        let zeros = vec![0.0; weights.len()];
        for local in [several, once] {
            let plain = trainer.local_delta(&weights, &shard, &local, &key(3)).unwrap();
            let same = trainer.corrected_delta(&weights, &shard, &local, &zeros, &key(3)).unwrap();
            assert!(plain.iter().zip(&same).all(|(plain, same)| (plain - same).abs() < 1e-6), "{config}");
            assert!(plain.iter().any(|x| x.abs() > 1e-4), "{config}");
        }
        let plain = trainer.local_delta(&weights, &shard, &once, &key(3)).unwrap();
        let correction: Vec<f32> = (0..weights.len()).map(|i| (i % 5) as f32 * 0.2 - 0.4).collect();
        let moved = trainer.corrected_delta(&weights, &shard, &once, &correction, &key(3)).unwrap();
        for ((plain, moved), c) in plain.iter().zip(&moved).zip(&correction) {
            assert!((moved - (plain - 0.1 * c)).abs() < 1e-6, "{config}: {plain} {moved} {c}");
        }
        let short = trainer.corrected_delta(&weights, &shard, &once, &zeros[1..], &key(3));
        assert!(matches!(short, Err(ModelError::WrongLength { what: "the correction", .. })), "{short:?}");
    }
}
