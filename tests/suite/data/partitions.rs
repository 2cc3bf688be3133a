//! Partitioners.

use proptest::prelude::*;
use veilsum::data::partition::{Partition, PartitionConfig, PartitionReport, partition};
use veilsum::data::{DataError, Dataset, Features, PartitionProblem};
use veilsum::math::prg::{Cipher, StreamKey};

use super::{idx, load_json, shared, write};

fn key(byte: u8) -> StreamKey {
    StreamKey::from_bytes([byte; 32], Cipher::ChaCha20)
}

/// `samples` labels that cycle through `classes`.
fn data(samples: usize, classes: usize) -> Dataset {
    Dataset {
        name: "cycle".to_owned(),
        features: Features::Bytes(vec![0; samples]),
        mean: 0.0,
        std: 1.0,
        labels: (0..samples).map(|i| (i % classes) as u32).collect(),
        dim: 1,
        classes,
        natural_ids: Some((0..samples).map(|i| (i * 7 % 5) as u32).collect()),
        class_names: None,
    }
}

fn problem(data: &Dataset, config: PartitionConfig) -> PartitionProblem {
    match partition(data, &config, &key(0)).unwrap_err() {
        DataError::Partition { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn assert_deals_everything_once(partition: &Partition, samples: usize) {
    let mut all = partition.clients.concat();
    all.sort_unstable();
    assert_eq!(all, (0..samples).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_scheme_deals_every_sample_once_and_repeats(
        samples in 1usize..200, classes in 1usize..8, clients in 1usize..30, each in 1usize..4,
        alpha in 0.01f64..100.0, byte: u8,
    ) {
        let data = data(samples, classes);
        for config in [
            PartitionConfig::Iid { clients },
            PartitionConfig::PerSample {},
            PartitionConfig::Dirichlet { clients, alpha, min_size: 0 },
            PartitionConfig::LabelShards { clients, shards_per_client: each },
            PartitionConfig::Natural {},
        ] {
            match partition(&data, &config, &key(byte)) {
                Ok(dealt) => {
                    assert_deals_everything_once(&dealt, samples);
                    prop_assert_eq!(&dealt, &partition(&data, &config, &key(byte)).unwrap());
                    prop_assert!(dealt.clients.iter().all(|c| c.is_sorted()));
                    prop_assert_eq!(PartitionReport::new(&data, &dealt).samples, samples);
                }
                Err(e) => {
                    let parts = if matches!(config, PartitionConfig::LabelShards { .. }) { clients * each } else { clients };
                    prop_assert!(parts > samples, "{}", e);
                }
            }
        }
    }
}

#[test]
fn sizes_and_labels_follow_the_scheme() {
    let data = data(1000, 10);
    let report = |config| {
        let dealt = partition(&data, &config, &key(1)).unwrap();
        PartitionReport::new(&data, &dealt)
    };
    let iid = report(PartitionConfig::Iid { clients: 7 });
    assert_eq!((iid.sizes.min, iid.sizes.max, iid.clients), (142, 143, 7));
    assert!(iid.total_variation.max < 0.25, "{iid}");
    // Two shards of 50 samples of one class each: total variation 0.9 (the same class twice) or 0.8.
    let shards = report(PartitionConfig::LabelShards { clients: 10, shards_per_client: 2 });
    assert_eq!((shards.sizes.min, shards.sizes.max), (100, 100));
    assert!(shards.listed.iter().all(|c| c.labels.iter().filter(|&&n| n > 0).count() <= 2), "{shards}");
    assert!(shards.total_variation.mean > 0.79, "{shards}");
    let skewed = report(PartitionConfig::Dirichlet { clients: 10, alpha: 0.1, min_size: 5 });
    let even = report(PartitionConfig::Dirichlet { clients: 10, alpha: 1000.0, min_size: 5 });
    assert!(skewed.sizes.min >= 5);
    assert!(skewed.total_variation.mean > 0.5 && even.total_variation.mean < 0.1, "{skewed}\n{even}");
    assert_eq!(report(PartitionConfig::PerSample {}).clients, 1000);
    assert_eq!(report(PartitionConfig::Natural {}).clients, 5);
}

#[test]
fn another_key_deals_otherwise() {
    let data = data(100, 10);
    for config in [
        PartitionConfig::Iid { clients: 5 },
        PartitionConfig::Dirichlet { clients: 5, alpha: 1.0, min_size: 1 },
        PartitionConfig::LabelShards { clients: 5, shards_per_client: 2 },
    ] {
        assert_ne!(partition(&data, &config, &key(1)).unwrap(), partition(&data, &config, &key(2)).unwrap());
    }
}

#[test]
fn what_cannot_be_dealt_is_refused() {
    let mut data = data(10, 2);
    let dirichlet = |clients, alpha, min_size| PartitionConfig::Dirichlet { clients, alpha, min_size };
    assert_eq!(problem(&data, PartitionConfig::Iid { clients: 0 }), PartitionProblem::Zero { key: "clients" });
    let e = problem(&data, PartitionConfig::Iid { clients: 11 });
    assert_eq!(e, PartitionProblem::TooMany { what: "clients", parts: 11 });
    let e = problem(&data, PartitionConfig::LabelShards { clients: 2, shards_per_client: 0 });
    assert_eq!(e, PartitionProblem::Zero { key: "shards_per_client" });
    let e = problem(&data, PartitionConfig::LabelShards { clients: usize::MAX, shards_per_client: 2 });
    assert_eq!(e, PartitionProblem::TooMany { what: "shards", parts: usize::MAX });
    for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e7] {
        assert!(matches!(problem(&data, dirichlet(2, alpha, 1)), PartitionProblem::Alpha { .. }), "{alpha}");
    }
    assert!(matches!(problem(&data, dirichlet(2, 1.0, 6)), PartitionProblem::TooMany { parts: 12, .. }));
    let e = problem(&data, dirichlet(5, 0.001, 2));
    assert!(matches!(e, PartitionProblem::MinSize { clients: 5, min_size: 2, best: 0, .. }), "{e}");
    data.natural_ids = None;
    let e = problem(&data, PartitionConfig::Natural {});
    assert_eq!(e, PartitionProblem::NoNaturalIds { name: "cycle".to_owned() });
}

#[test]
fn configs_are_tagged_and_strict() {
    let config: PartitionConfig = serde_json::from_str(r#"{"scheme":"dirichlet","clients":20,"alpha":0.5}"#).unwrap();
    assert_eq!(config, PartitionConfig::Dirichlet { clients: 20, alpha: 0.5, min_size: 1 });
    let json = r#"{"scheme":"label-shards","clients":3,"shards_per_client":2}"#;
    assert_eq!(serde_json::to_string(&serde_json::from_str::<PartitionConfig>(json).unwrap()).unwrap(), json);
    for json in [r#"{"scheme":"natural","clients":2}"#, r#"{"scheme":"iid","clients":2,"alpha":1}"#] {
        let e = serde_json::from_str::<PartitionConfig>(json).unwrap_err().to_string();
        assert!(e.contains("unknown field"), "{e}");
    }
}

/// The published facts of MNIST by writer; pixels are not needed for them.
#[test]
fn mnist_by_writer() {
    let Some(writers) = shared("mnist-writers/qmnist-train-labels-idx2-int.gz") else { return };
    let table = veilsum::data::idx::read_i32(&writers, 2).unwrap();
    let labels: Vec<u8> = table.data.chunks_exact(8).map(|row| row[0] as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "x", idx(&[60_000, 1, 1], &labels));
    write(dir.path(), "y", idx(&[60_000], &labels));
    let json = format!(
        r#"{{"idx":{{"train_images":"x","train_labels":"y","test_images":"x","test_labels":"y"}},"writers":{writers:?}}}"#
    );
    let split = load_json(&json, dir.path()).unwrap();
    let dealt = partition(&split.train, &PartitionConfig::Natural {}, &key(0)).unwrap();
    let sizes = PartitionReport::new(&split.train, &dealt).sizes;
    assert_eq!((dealt.len(), sizes.min, sizes.median, sizes.max), (539, 19, 116.0, 131));
    // The same rows beside images in another order.
    let mut moved = labels;
    moved.rotate_left(1);
    write(dir.path(), "y", idx(&[60_000], &moved));
    let e = load_json(&json, dir.path()).unwrap_err();
    assert!(matches!(e, DataError::WriterLabel { .. }), "{e}");
    let e = load_json(&json.replace("qmnist-train", "qmnist-test"), dir.path()).unwrap_err();
    assert!(matches!(e, DataError::WriterLabel { .. }), "{e}");
}
