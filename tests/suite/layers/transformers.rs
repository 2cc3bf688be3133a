//! Transformers: sizes, gradients against a reference in double precision, padding, refusals.

use veilsum::data::Batch;
use veilsum::model::{Clients, LocalConfig, ModelConfig, ModelError, trainer_for};

use super::reference::reference_loss;
use super::{PLAIN, bits, doubles, key, layers, reference_gradient, sample};

/// Sequences of tokens 1 and above; the last `fill(i)` tokens of sample i are padding.
fn sequences(len: usize, dim: usize, (tokens, classes): (u64, u64), fill: impl Fn(usize) -> usize) -> Batch {
    let mut reader = key(8).reader(0);
    let mut features: Vec<f32> = (0..len * dim).map(|_| (1 + reader.below(tokens - 1)) as f32).collect();
    for (i, sequence) in features.chunks_mut(dim).enumerate() {
        sequence[dim - fill(i)..].fill(0.0);
    }
    Batch { features, labels: (0..len).map(|_| reader.below(classes) as u32).collect(), dim }
}

/// A small model of classes with everything that a transformer has, norms before and behind.
fn classifier(padding: &str, pool: &str) -> ModelConfig {
    layers(&format!(
        r#"{{"input":[1,1,5],"layers":[{{"embedding":{{"tokens":7,"width":6{padding}}}}},{{"layer-norm":1e-5}},
            {{"residual":[{{"attention":{{"heads":2}}}}]}},{{"layer-norm":1e-5}},
            {{"residual":[{{"position-wise":9}},"gelu",{{"residual":["relu",{{"position-wise":9}}]}},{{"position-wise":6}}]}},
            {{"positions":"{pool}"}},{{"layer-norm":1e-3}},{{"linear":3}}]}}"#
    ))
}

/// A small language model.
fn language(padding: &str) -> ModelConfig {
    layers(&format!(
        r#"{{"input":[1,1,5],"layers":[{{"embedding":{{"tokens":7,"width":6{padding}}}}},
            {{"residual":[{{"layer-norm":1e-5}},{{"attention":{{"heads":3,"causal":true}}}}]}},
            {{"residual":[{{"layer-norm":1e-5}},{{"position-wise":8}},"gelu",{{"position-wise":6}}]}},
            {{"layer-norm":1e-5}},{{"position-wise":7}}]}}"#
    ))
}

const PADDED: &str = r#","padding":0"#;

#[test]
fn rows_agree_with_finite_differences() {
    for (config, classes) in [
        (classifier("", "mean"), 3),
        (classifier(PADDED, "mean"), 3),
        (classifier(PADDED, "first"), 3),
        (language(""), 7),
        (language(PADDED), 7),
    ] {
        let architecture = config.architecture().unwrap();
        let trainer = trainer_for(&config).unwrap();
        let mut weights = trainer.init(&key(1));
        // Tables and norms away from where they begin, so that no gradient is small.
        let mut reader = key(2).reader(0);
        weights.iter_mut().for_each(|w| *w += 0.3 * reader.next_normal() as f32);
        let batch = sequences(34, 5, (7, classes), |i| i % 5);
        let rows = trainer.gradient_rows(&weights, &batch).unwrap();
        for i in 0..batch.len() {
            let expected = reference_gradient(&architecture, &doubles(&weights), &batch, i, &[]);
            for (j, (&found, expected)) in rows.row(i).unwrap().iter().zip(expected).enumerate() {
                assert!((f64::from(found) - expected).abs() < 4e-6, "{config}, {i}, {j}: {found} {expected}");
            }
        }
        let clients = Clients { count: 34, shard: &|i| sample(&batch, i), key: &|_| key(0) };
        let same = trainer.mean_rows(&weights, &clients).unwrap();
        assert_eq!(bits(same.buffer.as_f32().unwrap()), bits(rows.buffer.as_f32().unwrap()), "{config}");
    }
}

/// What stands behind the padding changes nothing; the logits of a language model are those of the last token.
#[test]
fn padding_is_seen_by_nobody() {
    for config in [classifier(PADDED, "mean"), language(PADDED)] {
        let trainer = trainer_for(&config).unwrap();
        let weights = trainer.init(&key(1));
        let mut batch = sequences(6, 5, (7, 3), |_| 3);
        let (rows, logits) =
            (trainer.gradient_rows(&weights, &batch).unwrap(), trainer.logits(&weights, &batch).unwrap());
        for sequence in batch.features.chunks_mut(5) {
            sequence[4] = 6.0;
        }
        assert_eq!(bits(&trainer.logits(&weights, &batch).unwrap()), bits(&logits), "{config}");
        let after = trainer.gradient_rows(&weights, &batch).unwrap();
        assert!(bits(after.buffer.as_f32().unwrap()) == bits(rows.buffer.as_f32().unwrap()), "{config}");
    }
    // A sequence of padding alone has no loss, and is no error.
    let trainer = trainer_for(&language(PADDED)).unwrap();
    let empty = sequences(1, 5, (7, 7), |_| 5);
    let rows = trainer.gradient_rows(&trainer.init(&key(1)), &empty).unwrap();
    assert!(rows.row(0).unwrap().iter().all(|&g| g == 0.0));
}

#[test]
fn sizes_are_those_that_are_stated() {
    for (text, expected, classes) in [
        (r#""char_gpt""#, 826_208, 96),
        (r#"{"gpt":{"tokens":96,"length":64,"width":128,"blocks":4,"heads":4}}"#, 826_208, 96),
        (r#"{"bert_mini":{"classes":2}}"#, 22_417_152 + 2 * 385, 2),
        // 22,713,216 are those of the file, with the pooler (147,840) and the segments (768).
        (r#"{"bert_mini":{"classes":3,"length":512}}"#, 22_713_216 - 147_840 - 768 + 3 * 385, 3),
    ] {
        let config: ModelConfig = serde_json::from_str(text).unwrap();
        let architecture = config.architecture().unwrap();
        assert_eq!((architecture.parameter_count(), architecture.classes()), (expected, classes), "{text}");
        assert_eq!(architecture.tensors().last().unwrap().span.end, expected);
        assert_eq!(config.to_string().parse::<ModelConfig>().unwrap(), config);
    }
    let small = language(PADDED).architecture().unwrap().to_string();
    assert_eq!(
        small,
        "1x1x5, embedding of 7 tokens in 6, residual (norm, causal attention of 3 heads) added, residual (norm, position-wise 8, gelu, position-wise 6) added, norm, position-wise 7"
    );
}

#[test]
fn lists_that_are_no_transformer_name_the_place() {
    for (list, parts) in [
        (
            r#"{"input":[1,2,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"linear":3}]}"#,
            &["layer 1 of 2", "[1, 1, length]", "1x2x5"][..],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"linear":5},{"embedding":{"tokens":7,"width":6}},{"linear":3}]}"#,
            &["layer 2 of 3", "first layer only"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6,"padding":7}},{"linear":3}]}"#,
            &["a padding below 7"],
        ),
        (r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":16777217,"width":6}},{"linear":3}]}"#, &["2^24 tokens"]),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":16777216,"width":17}},{"linear":3}]}"#,
            &["268435456 parameters"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"attention":{"heads":4}},{"linear":3}]}"#,
            &["layer 2 of 3", "divides the 6"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"attention":{"heads":0}},{"linear":3}]}"#,
            &["divides the 6"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"attention":{"heads":1}},{"linear":3}]}"#,
            &["an attention behind an embedding"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"position-wise":4},{"linear":3}]}"#,
            &["a position-wise layer behind an embedding"],
        ),
        (r#"{"input":[1,1,5],"layers":[{"layer-norm":1e-5},{"linear":3}]}"#, &["a norm behind"]),
        (
            r#"{"input":[1,1,5],"layers":[{"linear":4},{"layer-norm":0},{"linear":3}]}"#,
            &["layer 2 of 3", "a number > 0"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"conv":{"channels":1,"kernel":1}},{"linear":3}]}"#,
            &["no convolution behind"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"position-wise":6}]}"#,
            &["last layer", "as many outputs as there are tokens", "7"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"residual":[]},{"linear":3}]}"#,
            &["layer 2 of 3", "at least one layer"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"residual":["relu"]},{"linear":3}]}"#,
            &["layer 1 of 2", "behind an embedding or a linear layer"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"residual":["gelu",{"position-wise":4}]},{"linear":3}]}"#,
            &["layer 2 of 3", "1x5x6 become 1x5x4"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"residual":["gelu",{"attention":{"heads":5}}]},{"linear":3}]}"#,
            &["layer 2.2 of 2", "divides"],
        ),
        (
            r#"{"input":[1,1,5],"layers":[{"embedding":{"tokens":7,"width":6}},{"positions":"mean"},{"positions":"mean"},{"linear":3}]}"#,
            &["layer 3 of 4", "before its vectors become one"],
        ),
    ] {
        let error = layers(list).architecture().unwrap_err();
        assert!(matches!(error, ModelError::Layers { .. }), "{list}: {error}");
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{list}: {message}");
    }
    let long = r#"{"bert_mini":{"classes":2,"length":513}}"#.parse::<ModelConfig>().unwrap();
    assert!(long.architecture().unwrap_err().to_string().contains("at most 512"));
}

#[test]
fn features_that_are_no_tokens_are_refused() {
    let trainer = trainer_for(&language("")).unwrap();
    let weights = trainer.init(&key(1));
    for bad in [7.0, -1.0, 1.5, f32::NAN, f32::INFINITY] {
        let mut batch = sequences(3, 5, (7, 7), |_| 0);
        batch.features[8] = bad;
        let message = trainer.gradient_rows(&weights, &batch).unwrap_err().to_string();
        assert!(message.contains("sample 1, position 3") && message.contains("0 to 6"), "{message}");
        assert!(trainer.local_delta(&weights, &batch, &PLAIN, &key(1)).is_err());
        assert!(trainer.logits(&weights, &batch).is_err());
    }
}

/// A language model learns a cycle of tokens, and a run of it has the same bits in any batch.
#[test]
fn a_language_model_learns_what_follows() {
    let config = language("");
    let trainer = trainer_for(&config).unwrap();
    let features = (0..64).flat_map(|s| (0..5).map(move |t| ((s + t) % 7) as f32)).collect();
    let shard = Batch { features, labels: (0..64).map(|s| ((s + 5) % 7) as u32).collect(), dim: 5 };
    let mut weights = trainer.init(&key(1));
    let local = LocalConfig { epochs: 30, batch_size: 8, learning_rate: 0.1, momentum: 0.9, ..PLAIN };
    let delta = trainer.local_delta(&weights, &shard, &local, &key(2)).unwrap();
    weights.iter_mut().zip(&delta).for_each(|(w, d)| *w += d);
    let (loss, correct) = trainer.evaluate(&weights, &shard).unwrap();
    assert!(correct == 64 && loss < 0.1 * 64.0, "{correct} {loss}");
    let architecture = config.architecture().unwrap();
    let mean: f64 = (0..7)
        .map(|i| {
            let x = doubles(&shard.features[5 * i..5 * (i + 1)]);
            reference_loss(&architecture, &doubles(&weights), &x, shard.labels[i], &[])
        })
        .sum();
    assert!(mean < 0.7, "every position but the first learned it: {mean}");
}
