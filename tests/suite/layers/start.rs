//! Models that begin with a file: BERT against the library transformers, parts that are trained, low-rank maps, refusals.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use veilsum::data::Batch;
use veilsum::model::architecture::{LoraConfig, Trained};
use veilsum::model::weights::save;
use veilsum::model::{LocalConfig, LocalTrainer, ModelConfig, ModelError, StartConfig, trainer_for, trainer_from};

use super::{PLAIN, bits, key, layers, synthetic};

fn start(file: &Path, train: Trained) -> StartConfig {
    StartConfig { file: file.to_owned(), sha256: None, train }
}

fn from(config: &ModelConfig, start: &StartConfig) -> Result<Arc<dyn LocalTrainer>, ModelError> {
    trainer_from(config, start).map(|(trainer, _)| trainer)
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// Tensors as other programs write them.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| t.2.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes);
    let views = views.map(|(t, b)| (t.0.clone(), TensorView::new(Dtype::F32, t.1.clone(), b).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None::<HashMap<String, String>>).unwrap()).unwrap();
}

/// Names, shapes and values.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// The recorded model: its config, its tensors, a batch.
fn recorded() -> (Value, ModelConfig, Tensors, Batch) {
    let all: Value = serde_json::from_str(include_str!("../../vectors/bert.json")).unwrap();
    let config: ModelConfig = serde_json::from_value(all["model"].clone()).unwrap();
    let shape = |t: &Value| t["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let tensors = all["tensors"].as_object().unwrap().iter();
    let tensors = tensors.map(|(name, t)| (name.clone(), shape(t), floats(&t["values"]))).collect();
    let rows = all["tokens"].as_array().unwrap();
    let batch = Batch {
        features: rows.iter().flat_map(floats).collect(),
        labels: all["labels"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap() as u32).collect(),
        dim: rows[0].as_array().unwrap().len(),
    };
    (all, config, tensors, batch)
}

#[test]
fn bert_is_that_of_the_library_transformers() {
    let (all, config, mut tensors, batch) = recorded();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bert.safetensors");
    let head: Vec<f32> = all["head"].as_array().unwrap().iter().flat_map(floats).collect();
    for prefix in ["", "bert."] {
        write(&file, &tensors);
        let trainer = from(&config, &start(&file, Trained::All)).unwrap();
        let mut weights = trainer.init(&key(1));
        let d = weights.len();
        weights[d - head.len()..].copy_from_slice(&head);
        let logits = trainer.logits(&weights, &batch).unwrap();
        let expected: Vec<f32> = all["logits"].as_array().unwrap().iter().flat_map(floats).collect();
        for (found, expected) in logits.iter().zip(&expected) {
            assert!((found - expected).abs() < 2e-6, "{logits:?} {expected:?}");
        }
        let step = LocalConfig { batch_size: 4, ..PLAIN };
        let delta = trainer.local_delta(&weights, &batch, &step, &key(2)).unwrap();
        let architecture = config.architecture().unwrap();
        let spans = architecture.spans();
        let (width, hidden) = (8, 12);
        // Which tensor a span is, and whether theirs is turned.
        let mut names = vec![("embeddings.word_embeddings.weight".to_owned(), 13, width, false)];
        names.push(("embeddings.position_embeddings.weight".into(), 5, width, false));
        names.push(("embeddings.LayerNorm.weight".into(), 1, width, false));
        for block in 0..2 {
            let part = |rest: &str| format!("encoder.layer.{block}.{rest}.weight");
            for map in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"]
            {
                names.push((part(map), width, width, true));
            }
            names.push((part("attention.output.LayerNorm"), 1, width, false));
            names.push((part("intermediate.dense"), width, hidden, true));
            names.push((part("output.dense"), hidden, width, true));
            names.push((part("output.LayerNorm"), 1, width, false));
        }
        assert_eq!(names.len() + 1, spans.len());
        for ((name, inputs, outputs, turned), span) in names.iter().zip(spans) {
            let theirs = floats(&all["gradients"][name]);
            for (k, &d) in delta[span.weight.clone()].iter().enumerate() {
                let (i, o) = (k / outputs, k % outputs);
                let theirs = theirs[if *turned { o * inputs + i } else { k }];
                assert!((d + theirs).abs() < 2e-6 + 1e-5 * theirs.abs(), "{name} {k}: {d} {theirs}");
            }
        }
        // The same with the names of a model that has more than BERT.
        if prefix.is_empty() {
            tensors.iter_mut().for_each(|t| t.0 = format!("bert.{}", t.0));
        }
    }
}

#[test]
fn files_that_are_no_start_are_refused() {
    let (_, config, tensors, _) = recorded();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bert.safetensors");
    let says = |tensors: &[(String, Vec<usize>, Vec<f32>)], parts: &[&str]| {
        write(&file, tensors);
        let message = from(&config, &start(&file, Trained::All)).err().unwrap().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let missing: Vec<_> = tensors.iter().filter(|t| t.0 != "encoder.layer.1.output.dense.bias").cloned().collect();
    says(&missing, &["no tensor encoder.layer.1.output.dense.bias", "bert.safetensors"]);
    let mut other = tensors.clone();
    other[0].1 = vec![8, 13];
    says(&other, &["word_embeddings", "F32 [8, 13]", "F32 [13, 8]"]);
    let mut nan = tensors.clone();
    nan[5].2[3] = f32::NAN;
    says(&nan, &["NaN", "index 3"]);
    write(&file, &tensors);
    let wrong = StartConfig { sha256: Some("00".repeat(32)), ..start(&file, Trained::All) };
    let message = from(&config, &wrong).err().unwrap().to_string();
    assert!(message.contains(&"00".repeat(32)) && message.contains("start.sha256"), "{message}");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    assert!(matches!(from(&config, &start(&file, Trained::All)), Err(ModelError::Container { .. })));
    let nowhere = start(&folder.path().join("none"), Trained::All);
    assert!(matches!(from(&config, &nowhere), Err(ModelError::Io { .. })));
    let lora = |rank, alpha| Trained::Lora(LoraConfig { rank, alpha });
    for (train, says) in [
        (Trained::Last(0), "1 to 11"),
        (Trained::Last(12), "1 to 11"),
        (lora(0, 1.0), "1 to 7"),
        (lora(8, 1.0), "1 to 7"),
        (lora(2, 0.0), "alpha > 0"),
    ] {
        let message = from(&config, &start(&file, train)).err().unwrap().to_string();
        assert!(message.contains(says) && message.contains("start.train"), "{message}");
    }
    let mlp = ModelConfig::Mlp(vec![4, 3]);
    let message = from(&mlp, &start(&file, lora(1, 1.0))).err().unwrap().to_string();
    assert!(message.contains("without attention"), "{message}");
}

/// What is trained of a model has the gradient that it has in the whole, and the model that is saved is whole.
#[test]
fn the_last_layers_learn_as_they_would_in_the_whole() {
    let config = layers(
        r#"{"input":[2,6,5],"layers":[{"conv":{"channels":3,"kernel":3}},"relu",{"max-pool":2},{"linear":7},"relu",
            {"residual":[{"linear":7},"relu"]},{"layer-norm":1e-5},{"linear":3}]}"#,
    );
    let whole = trainer_for(&config).unwrap();
    let weights = whole.init(&key(1));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&file, &config, &weights, &BTreeMap::new()).unwrap();
    let batch = synthetic(40, 60, 3, 4);
    let rows = whole.gradient_rows(&weights, &batch).unwrap();
    // Convolution 57, linear 49, residual 56, norm 14, linear 24.
    for (last, count) in [(1, 24), (2, 38), (3, 94), (4, 143), (5, 200)] {
        let part = from(&config, &start(&file, Trained::Last(last))).unwrap();
        assert_eq!(part.parameter_count(), count);
        let own = part.init(&key(9));
        let cut = weights.len() - count;
        assert_eq!(bits(&own), bits(&weights[cut..]), "the file has them all");
        assert_eq!(bits(&part.logits(&own, &batch).unwrap()), bits(&whole.logits(&weights, &batch).unwrap()));
        let part_rows = part.gradient_rows(&own, &batch).unwrap();
        for i in 0..batch.len() {
            assert_eq!(bits(part_rows.row(i).unwrap()), bits(&rows.row(i).unwrap()[cut..]), "{last}");
        }
        for momentum in [0.0, 0.5] {
            let local = LocalConfig { epochs: 2, batch_size: 8, learning_rate: 0.1, momentum, ..PLAIN };
            let delta = part.local_delta(&own, &batch, &local, &key(3)).unwrap();
            let after: Vec<f32> = own.iter().zip(&delta).map(|(w, d)| w + d).collect();
            let saved = part.saved(&after);
            assert_eq!(bits(&saved[..cut]), bits(&weights[..cut]), "they stay as they were");
            assert_eq!(bits(&saved[cut..]), bits(&after));
            assert!(delta.iter().any(|d| d.abs() > 1e-3));
        }
    }
    // Other classes: the head is new, and the rest that of the file.
    let mut other = config.clone();
    let ModelConfig::Layers(list) = &mut other else { panic!() };
    *list.layers.last_mut().unwrap() = serde_json::from_str(r#"{"linear":4}"#).unwrap();
    let part = from(&other, &start(&file, Trained::Last(2))).unwrap();
    let (one, two) = (part.init(&key(1)), part.init(&key(2)));
    assert_eq!((one.len(), bits(&one[..14])), (46, bits(&two[..14])));
    assert_ne!(bits(&one[14..]), bits(&two[14..]));
    assert_eq!(bits(&one[..14]), bits(&weights[162..176]));
}

#[test]
fn low_rank_maps_have_the_gradients_of_what_they_add() {
    let config = layers(
        r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6,"padding":0}},
            {"residual":[{"layer-norm":1e-5},{"attention":{"heads":2}}]},{"residual":[{"attention":{"heads":3}}]},
            {"positions":"mean"},{"linear":3}]}"#,
    );
    let whole = trainer_for(&config).unwrap();
    let weights = whole.init(&key(1));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&file, &config, &weights, &BTreeMap::new()).unwrap();
    let (rank, alpha) = (2, 3.0);
    let part = from(&config, &start(&file, Trained::Lora(LoraConfig { rank, alpha }))).unwrap();
    // Two attentions with two maps of 6 x 2 and 2 x 6 each, and the head.
    assert_eq!(part.parameter_count(), 2 * 2 * 24 + 21);
    let mut reader = key(5).reader(0);
    let batch = Batch {
        features: (0..50).map(|i| if i % 5 > 2 { 0.0 } else { (1 + reader.below(6)) as f32 }).collect(),
        labels: (0..10).map(|i| i % 3).collect(),
        dim: 5,
    };
    let mut own = part.init(&key(6));
    // B is 0 at first: nothing is added.
    assert_eq!(bits(&part.logits(&own, &batch).unwrap()), bits(&whole.logits(&weights, &batch).unwrap()));
    assert_eq!(bits(&part.saved(&own)), bits(&weights));
    own.iter_mut().for_each(|w| *w += 0.2 * reader.next_normal() as f32);
    let merged = part.saved(&own);
    let (found, expected) = (part.logits(&own, &batch).unwrap(), whole.logits(&merged, &batch).unwrap());
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    let (rows, full) = (part.gradient_rows(&own, &batch).unwrap(), whole.gradient_rows(&merged, &batch).unwrap());
    let architecture = config.architecture().unwrap();
    // Table, positions, norm, then four maps of each attention.
    let touched = [3, 5, 7, 9].map(|k| architecture.spans()[k].weight.clone());
    let scale = alpha / rank as f32;
    for i in 0..batch.len() {
        let (row, full) = (rows.row(i).unwrap(), full.row(i).unwrap());
        for (k, span) in touched.iter().enumerate() {
            let (a, b) = (&own[24 * k..24 * k + 12], &own[24 * k + 12..24 * (k + 1)]);
            let by_map = &full[span.clone()];
            for (r, j) in (0..rank).flat_map(|r| (0..6).map(move |j| (r, j))) {
                let by_a: f32 = (0..6).map(|o| scale * by_map[j * 6 + o] * b[r * 6 + o]).sum();
                let by_b: f32 = (0..6).map(|i| scale * a[i * rank + r] * by_map[i * 6 + j]).sum();
                let found = (row[24 * k + j * rank + r], row[24 * k + 12 + r * 6 + j]);
                assert!(
                    (found.0 - by_a).abs() < 1e-5 && (found.1 - by_b).abs() < 1e-5,
                    "{i} {k}: {found:?} {by_a} {by_b}"
                );
            }
        }
        let head = architecture.spans().last().unwrap().weight.start;
        assert!(row[96..].iter().zip(&full[head..]).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
