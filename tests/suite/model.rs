//! Models: layouts, gradients against a reference in double precision, repeatability, files.

use std::collections::BTreeMap;
use std::fs;

use veilsum::data::{Batch, Dataset, Features};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::model::weights::{SavedModel, load, save};
use veilsum::model::{
    Architecture, LocalConfig, LocalTrainer, ModelConfig, ModelError, evaluate, evaluate_dataset, samples_per_call,
    trainer_for,
};

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

fn mlp(sizes: &[usize]) -> ModelConfig {
    ModelConfig::Mlp(sizes.to_vec())
}

/// Normal features and uniform labels.
fn synthetic(len: usize, dim: usize, classes: u32, seed: u8) -> Batch {
    let mut reader = key(seed).reader(0);
    Batch {
        features: (0..len * dim).map(|_| reader.next_normal() as f32).collect(),
        labels: (0..len).map(|_| reader.below(u64::from(classes)) as u32).collect(),
        dim,
    }
}

fn dataset(batch: &Batch, classes: usize) -> Dataset {
    Dataset {
        name: "synthetic".to_owned(),
        features: Features::Floats(batch.features.clone()),
        mean: 0.0,
        std: 1.0,
        labels: batch.labels.clone(),
        dim: batch.dim,
        classes,
        natural_ids: None,
        class_names: None,
    }
}

fn sample(batch: &Batch, i: usize) -> Batch {
    Batch {
        features: batch.features[i * batch.dim..(i + 1) * batch.dim].to_vec(),
        labels: vec![batch.labels[i]],
        dim: batch.dim,
    }
}

/// Cross entropy of one sample by the textbook, in double precision.
fn reference_loss(sizes: &[usize], weights: &[f64], features: &[f32], label: u32) -> f64 {
    let mut a: Vec<f64> = features.iter().map(|&x| f64::from(x)).collect();
    let mut start = 0;
    for (k, pair) in sizes.windows(2).enumerate() {
        let (inputs, outputs) = (pair[0], pair[1]);
        let bias = start + inputs * outputs;
        let z =
            |o: usize| (0..inputs).map(|i| a[i] * weights[start + i * outputs + o]).sum::<f64>() + weights[bias + o];
        let z: Vec<f64> = (0..outputs).map(z).collect();
        a = if k + 2 < sizes.len() { z.iter().map(|z| z.max(0.0)).collect() } else { z };
        start = bias + outputs;
    }
    a.iter().map(|z| z.exp()).sum::<f64>().ln() - a[label as usize]
}

/// Central differences of [`reference_loss`], step 1e-5: error about 1e-10 away from kinks.
fn reference_gradient(sizes: &[usize], weights: &[f64], features: &[f32], label: u32) -> Vec<f64> {
    let h = 1e-5;
    let shifted = |j: usize, by: f64| {
        let mut w = weights.to_vec();
        w[j] += by;
        reference_loss(sizes, &w, features, label)
    };
    (0..weights.len()).map(|j| (shifted(j, h) - shifted(j, -h)) / (2.0 * h)).collect()
}

fn doubles(weights: &[f32]) -> Vec<f64> {
    weights.iter().map(|&w| f64::from(w)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn all_rows(trainer: &dyn LocalTrainer, weights: &[f32], batch: &Batch) -> Vec<Vec<f32>> {
    let rows = trainer.gradient_rows(weights, batch).unwrap();
    (0..rows.rows).map(|i| rows.row(i).unwrap().to_vec()).collect()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    for (config, expected) in
        [(ModelConfig::MnistMlp, 63_610), (ModelConfig::Mnist2nn, 199_210), (ModelConfig::DigitsMlp, 2_410)]
    {
        let trainer = trainer_for(&config).unwrap();
        assert_eq!(trainer.parameter_count(), expected, "{config}");
        assert_eq!(trainer.init(&key(1)).len(), expected);
        let tensors = config.architecture().unwrap().tensors();
        let ends: Vec<usize> = tensors.iter().map(|t| t.span.end).collect();
        let starts: Vec<usize> = tensors.iter().map(|t| t.span.start).collect();
        assert_eq!(starts[0], 0);
        assert_eq!(starts[1..], ends[..ends.len() - 1], "no gaps");
        assert_eq!(ends.last(), Some(&expected));
        assert!(tensors.iter().all(|t| t.shape.iter().product::<usize>() == t.span.len()));
    }
}

#[test]
fn rows_of_a_call_stay_in_the_allocators_cache() {
    assert_eq!([1, 2_410, 63_610, 199_210, 1 << 27].map(samples_per_call), [6_291_456, 2_592, 96, 32, 32]);
    assert_eq!([0, usize::MAX].map(samples_per_call), [6_291_456, 32]);
}

#[test]
fn configs_read_and_print() {
    for (text, config) in [
        (r#""mnist_mlp""#, ModelConfig::MnistMlp),
        (r#""mnist_2nn""#, ModelConfig::Mnist2nn),
        (r#""digits_mlp""#, ModelConfig::DigitsMlp),
        (r#"{"mlp":[64,32,10]}"#, mlp(&[64, 32, 10])),
    ] {
        assert_eq!(serde_json::from_str::<ModelConfig>(text).unwrap(), config);
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
        assert_eq!(config.to_string().parse::<ModelConfig>().unwrap(), config);
    }
    for bad in [r#""mnist_cnnn""#, r#"{"mlp":[64],"more":1}"#, r#"{"mlq":[64,10]}"#, "3"] {
        assert!(serde_json::from_str::<ModelConfig>(bad).is_err(), "{bad}");
    }
    let unknown = "mnist".parse::<ModelConfig>().unwrap_err().to_string();
    assert!(unknown.contains("`mnist`") && unknown.contains("mnist_2nn"), "{unknown}");
    for sizes in [&[][..], &[5], &[5, 0, 3], &[1 << 20, 1 << 20], &[usize::MAX, 2]] {
        assert!(matches!(mlp(sizes).architecture(), Err(ModelError::Sizes { .. })), "{sizes:?}");
    }
}

#[test]
fn initial_weights_are_uniform_and_addressed() {
    let trainer = trainer_for(&ModelConfig::MnistMlp).unwrap();
    let weights = trainer.init(&key(1));
    assert_eq!(bits(&weights), bits(&trainer.init(&key(1))));
    assert_ne!(bits(&weights), bits(&trainer.init(&key(2))));
    let first = &weights[..784 * 80];
    let bound = 1.0 / 28.0;
    assert!(first.iter().all(|w| w.abs() <= bound));
    let variance = first.iter().map(|w| f64::from(w * w)).sum::<f64>() / first.len() as f64;
    let expected = f64::from(bound * bound) / 3.0;
    // Var(w^2) = 4/45 bound^4, so the mean of 62,720 squares has a relative standard error of 0.0036.
    assert!((variance / expected - 1.0).abs() < 0.018, "{variance} against {expected}");
}

#[test]
fn rows_agree_with_finite_differences() {
    for (sizes, seed) in [(&[5usize, 4, 3][..], 1u8), (&[6, 5, 4, 3], 2), (&[4, 3], 3)] {
        let trainer = trainer_for(&mlp(sizes)).unwrap();
        let weights = trainer.init(&key(seed));
        let batch = synthetic(40, sizes[0], 3, seed + 10);
        for (i, row) in all_rows(&*trainer, &weights, &batch).iter().enumerate() {
            let one = sample(&batch, i);
            let reference = reference_gradient(sizes, &doubles(&weights), &one.features, one.labels[0]);
            for (j, (&found, expected)) in row.iter().zip(reference).enumerate() {
                assert!((f64::from(found) - expected).abs() < 2e-6, "sample {i}, weight {j}: {found} {expected}");
            }
        }
    }
}

/// A pass over a batch of one, by backward through the parameters, is `local_delta` with step size 1.
#[test]
fn rows_agree_with_passes_over_single_samples() {
    let trainer = trainer_for(&ModelConfig::DigitsMlp).unwrap();
    let weights = trainer.init(&key(3));
    let batch = synthetic(70, 64, 10, 4);
    let config =
        LocalConfig { epochs: 1, batch_size: 1, learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0, proximal: 0.0 };
    for (i, row) in all_rows(&*trainer, &weights, &batch).iter().enumerate() {
        let delta = trainer.local_delta(&weights, &sample(&batch, i), &config, &key(0)).unwrap();
        let worst = row.iter().zip(&delta).map(|(g, d)| (g + d).abs()).fold(0.0, f32::max);
        // w - (w - g) costs two roundings at the size of w and g, below 8 here.
        assert!(worst < 1e-6, "sample {i}: {worst}");
        assert!(row.iter().any(|&g| g.abs() > 1e-3));
    }
}

#[test]
fn results_do_not_depend_on_threads_or_reruns() {
    let trainer = trainer_for(&ModelConfig::MnistMlp).unwrap();
    let weights = trainer.init(&key(5));
    let batch = synthetic(150, 784, 10, 6);
    let data = dataset(&synthetic(1201, 784, 10, 7), 10);
    let config =
        LocalConfig { epochs: 2, batch_size: 32, learning_rate: 0.1, momentum: 0.9, weight_decay: 1e-3, proximal: 0.0 };
    let once = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let rows = trainer.gradient_rows(&weights, &batch).unwrap();
            let delta = trainer.local_delta(&weights, &batch, &config, &key(8)).unwrap();
            let evaluation = evaluate_dataset(&*trainer, &weights, &data).unwrap();
            (bits(rows.buffer.as_f32().unwrap()), bits(&delta), evaluation.loss.to_bits(), evaluation.accuracy)
        })
    };
    let row_bits = |batch: &Batch| bits(trainer.gradient_rows(&weights, batch).unwrap().buffer.as_f32().unwrap());
    let part = |range: std::ops::Range<usize>| Batch {
        features: batch.features[range.start * 784..range.end * 784].to_vec(),
        labels: batch.labels[range].to_vec(),
        dim: 784,
    };
    assert!([row_bits(&part(0..64)), row_bits(&part(64..150))].concat() == row_bits(&batch), "cut at 64");
    let first = once(1);
    for threads in [1, 2, 3, 4] {
        assert!(once(threads) == first, "{threads} threads");
    }
}

/// SGD by hand in double precision on a tiny model, with the mini-batch order of the keystream.
#[test]
fn local_delta_is_sgd_with_momentum_decay_and_proximal_term() {
    let sizes = [4, 3, 3];
    let trainer = trainer_for(&mlp(&sizes)).unwrap();
    let before = trainer.init(&key(9));
    let shard = synthetic(11, 4, 3, 10);
    for (momentum, weight_decay, proximal) in
        [(0.0, 0.0, 0.0), (0.9, 0.0, 0.0), (0.0, 0.05, 0.0), (0.0, 0.0, 0.7), (0.5, 0.01, 0.3)]
    {
        let config = LocalConfig { epochs: 3, batch_size: 4, learning_rate: 0.2, momentum, weight_decay, proximal };
        let mut w = doubles(&before);
        let mut v = vec![0.0; w.len()];
        let mut reader = key(11).reader(0);
        let mut order: Vec<usize> = (0..shard.len()).collect();
        for _ in 0..config.epochs {
            reader.shuffle(&mut order);
            for indices in order.chunks(config.batch_size) {
                let mut gradient = vec![0.0; w.len()];
                for &i in indices {
                    let one = sample(&shard, i);
                    let g = reference_gradient(&sizes, &w, &one.features, one.labels[0]);
                    gradient.iter_mut().zip(g).for_each(|(sum, g)| *sum += g / indices.len() as f64);
                }
                for j in 0..w.len() {
                    let pull = f64::from(weight_decay) * w[j] + f64::from(proximal) * (w[j] - f64::from(before[j]));
                    v[j] = f64::from(momentum) * v[j] + gradient[j] + pull;
                    w[j] -= f64::from(config.learning_rate) * v[j];
                }
            }
        }
        let delta = trainer.local_delta(&before, &shard, &config, &key(11)).unwrap();
        for (j, d) in delta.iter().enumerate() {
            let expected = w[j] - f64::from(before[j]);
            assert!((f64::from(*d) - expected).abs() < 3e-6, "weight {j}: {d} against {expected}");
        }
        assert!(delta.iter().any(|d| d.abs() > 0.01));
    }
}

#[test]
fn bad_arguments_are_named() {
    let trainer = trainer_for(&mlp(&[4, 3])).unwrap();
    let weights = trainer.init(&key(1));
    let batch = synthetic(5, 4, 3, 1);
    let good =
        LocalConfig { epochs: 1, batch_size: 2, learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0, proximal: 0.0 };
    assert!(matches!(
        trainer.gradient_rows(&weights[1..], &batch),
        Err(ModelError::WrongLength { expected: 15, found: 14, .. })
    ));
    let wide = synthetic(5, 6, 3, 1);
    assert!(matches!(trainer.logits(&weights, &wide), Err(ModelError::WrongLength { expected: 4, found: 6, .. })));
    let short = Batch { features: batch.features[..19].to_vec(), ..batch.clone() };
    assert!(matches!(trainer.evaluate(&weights, &short), Err(ModelError::WrongLength { expected: 20, found: 19, .. })));
    let mut labelled = batch.clone();
    labelled.labels[2] = 3;
    assert!(matches!(
        trainer.gradient_rows(&weights, &labelled),
        Err(ModelError::Label { sample: 2, found: 3, classes: 3 })
    ));
    for (what, config) in [
        ("epochs", LocalConfig { epochs: 0, ..good }),
        ("batch_size", LocalConfig { batch_size: 0, ..good }),
        ("learning_rate", LocalConfig { learning_rate: 0.0, ..good }),
        ("learning_rate", LocalConfig { learning_rate: f32::NAN, ..good }),
        ("momentum", LocalConfig { momentum: 1.0, ..good }),
        ("weight_decay", LocalConfig { weight_decay: -0.1, ..good }),
        ("proximal", LocalConfig { proximal: f32::INFINITY, ..good }),
    ] {
        match trainer.local_delta(&weights, &batch, &config, &key(1)) {
            Err(ModelError::Setting { what: named, .. }) => assert_eq!(named, what),
            other => panic!("{what}: {other:?}"),
        }
    }
    let data = dataset(&synthetic(5, 6, 3, 1), 3);
    let message = Architecture::mlp(&[4, 3]).unwrap().check_dataset(&data).unwrap_err().to_string();
    assert!(message.contains("4-3") && message.contains("synthetic") && message.contains('6'), "{message}");
}

#[test]
fn empty_batches_and_nan_do_not_panic() {
    let trainer = trainer_for(&mlp(&[4, 5, 3])).unwrap();
    let weights = trainer.init(&key(1));
    let empty = synthetic(0, 4, 3, 1);
    let config =
        LocalConfig { epochs: 1, batch_size: 2, learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0, proximal: 0.0 };
    assert_eq!(trainer.gradient_rows(&weights, &empty).unwrap().rows, 0);
    assert_eq!(trainer.evaluate(&weights, &empty).unwrap(), (0.0, 0));
    assert!(trainer.local_delta(&weights, &empty, &config, &key(1)).unwrap().iter().all(|&d| d == 0.0));
    assert!(matches!(evaluate_dataset(&*trainer, &weights, &dataset(&empty, 3)), Err(ModelError::NoSamples { .. })));

    for poison in [f32::NAN, f32::INFINITY] {
        let mut batch = synthetic(40, 4, 3, 2);
        let clean = all_rows(&*trainer, &weights, &batch);
        batch.features[35 * 4 + 1] = poison;
        let rows = all_rows(&*trainer, &weights, &batch);
        assert!(rows[35].iter().any(|g| !g.is_finite()));
        let finite = |rows: &[Vec<f32>]| {
            rows.iter().enumerate().filter(|(i, _)| *i != 35).map(|(_, r)| bits(r)).collect::<Vec<_>>()
        };
        assert_eq!(finite(&rows), finite(&clean), "other samples keep their rows");
        let (loss, correct) = trainer.evaluate(&weights, &batch).unwrap();
        assert!(loss.is_nan() && correct < 40);
        assert!(trainer.local_delta(&weights, &batch, &config, &key(1)).unwrap().iter().any(|d| d.is_nan()));
        let mut broken = weights.clone();
        broken[0] = poison;
        let rows = all_rows(&*trainer, &broken, &batch);
        let spoilt = rows.iter().filter(|row| row.iter().any(|g| g.is_nan())).count();
        // An infinite weight may push a hidden unit to minus infinity, which relu turns into a clean 0.
        assert!(if poison.is_nan() { spoilt == 40 } else { spoilt > 1 }, "{spoilt} rows with {poison}");
    }
}

#[test]
fn cross_entropy_of_known_logits() {
    // Uniform logits: ln 3, and a tie goes to class 0; 1000 apart: no overflow.
    let logits = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1000.0, 0.0, 0.0, 1000.0, 0.0, 0.0];
    let (loss, correct) = evaluate::cross_entropy(&logits, &[0, 2, 0, 1], 3).unwrap();
    assert!((loss - (2.0 * 3f64.ln() + 1000.0)).abs() < 1e-9, "{loss}");
    assert_eq!(correct, 2);
    // Weights that copy the input into the logits: the label is the largest feature.
    let trainer = trainer_for(&mlp(&[3, 3])).unwrap();
    let weights = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    let batch = Batch { features: vec![2.0, 1.0, 0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 1.0], labels: vec![0, 1, 1], dim: 3 };
    let (evaluation, confusion) = evaluate::confusion(&*trainer, &weights, &dataset(&batch, 3)).unwrap();
    let confusion = confusion.unwrap();
    assert_eq!((evaluation.samples, evaluation.accuracy), (3, 2.0 / 3.0));
    let tail = |a: f64, b: f64| (1.0 + a.exp() + b.exp()).ln();
    let expected = (tail(-1.0, -2.0) + tail(-1.0, 1.0) + tail(-3.0, -2.0)) / 3.0;
    assert!((evaluation.loss - expected).abs() < 1e-7, "{} against {expected}", evaluation.loss);
    assert_eq!(confusion.counts, [[1, 0, 0], [0, 1, 1], [0, 0, 0]]);
    assert_eq!((confusion.most_mistaken(1), confusion.most_mistaken(0)), (Some((2, 1)), None));
    assert_eq!((confusion.class_accuracy(1), confusion.class_accuracy(2)), (Some(0.5), None));
    assert_eq!(evaluate_dataset(&*trainer, &weights, &dataset(&batch, 3)).unwrap(), evaluation);
}

#[test]
fn files_round_trip_and_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let info = BTreeMap::from([("round".to_owned(), "7".to_owned()), ("data".to_owned(), "mnist".to_owned())]);
    for config in [ModelConfig::MnistMlp, mlp(&[4, 3, 2])] {
        let weights = trainer_for(&config).unwrap().init(&key(2));
        save(&path, &config, &weights, &info).unwrap();
        let bytes = fs::read(&path).unwrap();
        save(&path, &config, &weights, &info).unwrap();
        assert!(fs::read(&path).unwrap() == bytes, "the same model gives the same bytes");
        assert_eq!(load(&path).unwrap(), SavedModel { config, weights, info: info.clone() });
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["model.safetensors"], "no temporary file stays");
    assert!(matches!(
        save(&path, &mlp(&[4, 3]), &[0.0; 14], &info),
        Err(ModelError::WrongLength { expected: 15, found: 14, .. })
    ));
    assert!(matches!(
        save(&folder.path().join("absent/model"), &mlp(&[1, 1]), &[0.0; 2], &info),
        Err(ModelError::File(_))
    ));
}

#[test]
fn bad_files_say_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    assert!(matches!(load(&path), Err(ModelError::Io { .. })));
    let config = mlp(&[4, 3, 2]);
    let weights = trainer_for(&config).unwrap().init(&key(2));
    save(&path, &config, &weights, &BTreeMap::new()).unwrap();
    let good = fs::read(&path).unwrap();
    for cut in 0..good.len() {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(matches!(load(&path), Err(ModelError::Container { bytes, .. }) if bytes == cut), "cut at {cut}");
    }
    // Every byte of the header broken in turn: an error or the same model, never a panic.
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for place in 0..header {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        if let Ok(model) = load(&path) {
            assert_eq!(model.weights.len(), weights.len());
        }
    }
    let altered = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let text: Vec<u8> = std::str::from_utf8(&good[8..header]).unwrap().replace(from, to).into_bytes();
        fs::write(&path, [&good[..8], &text, &good[header..]].concat()).unwrap();
        load(&path).unwrap_err()
    };
    assert!(matches!(altered("veilsum", "another"), ModelError::NoDescription { .. }));
    assert!(matches!(altered(r#"\"model\""#, r#"\"modem\""#), ModelError::Description { .. }));
    let names = altered("layers.1.bias", "layers.9.bias").to_string();
    assert!(names.contains("layers.9.bias") && names.contains("layers.1.bias") && names.contains("4-3-2"), "{names}");
    let shape = altered(r#""shape":[4,3]"#, r#""shape":[3,4]"#).to_string();
    assert!(shape.contains("layers.0.weight") && shape.contains("[4, 3]") && shape.contains("[3, 4]"), "{shape}");
    let dtype = altered(r#""dtype":"F32""#, r#""dtype":"I32""#).to_string();
    assert!(dtype.contains("I32") && dtype.contains("F32"), "{dtype}");
    let mut broken = weights;
    (broken[13], broken[14]) = (f32::NAN, f32::INFINITY);
    save(&path, &config, &broken, &BTreeMap::new()).unwrap();
    assert!(matches!(
        load(&path),
        Err(ModelError::NonFinite { name, count: 2, total: 3, first: 1, .. }) if name == "layers.0.bias"
    ));
}

/// A model trained here on the embedded digits, evaluated by the command.
#[test]
fn eval_prints_what_the_library_computes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let data_config = veilsum::data::DataConfig::named("digits");
    let split = veilsum::data::load(&data_config, folder.path(), false).unwrap();
    let trainer = trainer_for(&ModelConfig::DigitsMlp).unwrap();
    let mut weights = trainer.init(&key(1));
    let config =
        LocalConfig { epochs: 5, batch_size: 16, learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0, proximal: 0.0 };
    let shard = split.train.gather(&(0..split.train.len()).collect::<Vec<_>>());
    let delta = trainer.local_delta(&weights, &shard, &config, &key(2)).unwrap();
    weights.iter_mut().zip(&delta).for_each(|(w, d)| *w += d);
    save(&path, &ModelConfig::DigitsMlp, &weights, &BTreeMap::new()).unwrap();

    let eval = |arguments: &[&str]| {
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_veilsum"))
            .arg("eval")
            .arg(&path)
            .args(arguments)
            .output()
            .unwrap();
        (command.status.code(), String::from_utf8(command.stdout).unwrap(), String::from_utf8(command.stderr).unwrap())
    };
    let config_path = folder.path().join("config.json");
    fs::write(&config_path, r#"{"rounds": 3, "data": {"name": "digits"}}"#).unwrap();
    for (half, data) in [("test", &split.test), ("train", &split.train)] {
        let expected = evaluate_dataset(&*trainer, &weights, data).unwrap();
        assert!(expected.accuracy > 0.85, "{half}: {}", expected.accuracy);
        for source in ["digits", config_path.to_str().unwrap()] {
            let (code, out, err) = eval(&["--data", source, "--split", half, "--json"]);
            assert_eq!(code, Some(0), "{err}");
            let found: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!(found["accuracy"].as_f64(), Some(expected.accuracy));
            assert!((found["loss"].as_f64().unwrap() - expected.loss).abs() < 1e-12);
            assert_eq!(found["samples"], data.len());
            assert_eq!((found["model"].as_str(), found["split"].as_str()), (Some("digits_mlp"), Some(half)));
            let counts = found["confusion"].as_array().unwrap();
            let all: u64 = counts.iter().flat_map(|row| row.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum();
            assert_eq!(all as usize, data.len());
        }
    }
    let (code, out, _) = eval(&["--data", "digits"]);
    assert!(code == Some(0) && out.contains("accuracy") && out.lines().count() == 14, "{out}");

    save(&path, &mlp(&[4, 3]), &[0.0; 15], &BTreeMap::new()).unwrap();
    let (code, out, err) = eval(&["--data", "digits"]);
    assert!(code == Some(2) && out.is_empty() && err.contains("4-3") && err.contains("digits"), "{err}");
    fs::write(&path, b"half a fi").unwrap();
    assert_eq!(eval(&["--data", "digits"]).0, Some(2));
}
