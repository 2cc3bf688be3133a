//! Data: fetching, reading, partitioning, the `data` command.

mod command;
mod fetching;
mod partitions;
mod pieces;
mod tables;
mod texts;

use std::path::{Path, PathBuf};

use veilsum::data::{DataConfig, DataError, Split, load};

/// Data beside the project, where there are any.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")).join(name);
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

/// An IDX file of bytes.
fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
    out.extend(data);
    out
}

/// Loads the config written as JSON, with paths in `dir`.
fn load_json(json: &str, dir: &Path) -> Result<Split, DataError> {
    let config: DataConfig = serde_json::from_str(json).unwrap();
    load(&config, dir, false)
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), content).unwrap();
}

#[test]
fn configs_round_trip_and_refuse_unknown_keys() {
    for json in [
        r#"{"name":"mnist","writers":"w.gz","limit_train":10}"#,
        r#"{"csv":{"train":["a.csv","b.csv"],"test_fraction":0.2,"label":"target","normalize":"min-max","missing":"zero"}}"#,
        r#"{"csv":{"train":"a.csv","test":"b.csv","label":-1,"normalize":{"fixed":{"mean":[1.0,2.0],"std":3.0}},"missing":"error"}}"#,
        r#"{"npz":{"train":"a.npz","test":"b.npz","x":"x","y":"labels","normalize":"none"}}"#,
        r#"{"idx":{"train_images":"a","train_labels":"b","test_images":"c","test_labels":"d","mean":0.5,"std":0.25}}"#,
    ] {
        let config: DataConfig = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), json);
    }
    for (json, key) in [
        (r#"{"nam":"mnist"}"#, "nam"),
        (r#"{"csv":{"train":"a","label":0,"lable":1}}"#, "lable"),
        (r#"{"csv":{"train":"a","label":0,"normalize":{"fixed":{"mean":0,"std":1,"var":2}}}}"#, "var"),
        (r#"{"npz":{"train":"a","X":"x"}}"#, "X"),
    ] {
        let e = serde_json::from_str::<DataConfig>(json).unwrap_err().to_string();
        assert!(e.contains(&format!("unknown field `{key}`")), "{json}: {e}");
    }
}

#[test]
fn exactly_one_source() {
    let dir = Path::new("");
    let e = load_json("{}", dir).unwrap_err();
    assert!(matches!(&e, DataError::OneSource { found } if found.is_empty()), "{e}");
    let e = load_json(r#"{"name":"digits","npz":{"train":"a"}}"#, dir).unwrap_err().to_string();
    assert!(e.contains("found name, npz"), "{e}");
    let e = load_json(r#"{"name":"mnits"}"#, dir).unwrap_err().to_string();
    assert!(e.contains("did you mean `mnist`"), "{e}");
    let e = load_json(r#"{"name":"digits","writers":"w"}"#, dir).unwrap_err();
    assert!(matches!(e, DataError::WritersNeedMnist), "{e}");
}

#[test]
fn limits_draw_the_same_samples_each_time() {
    let whole = load_json(r#"{"name":"digits"}"#, Path::new("")).unwrap();
    let json = r#"{"name":"digits","limit_train":500,"limit_test":100000}"#;
    let (a, b) = (load_json(json, Path::new("")).unwrap(), load_json(json, Path::new("")).unwrap());
    assert_eq!(a, b);
    assert_eq!((a.train.len(), a.test.len()), (500, whole.test.len()));
    // Drawn, not the first ones, and of every class.
    assert_ne!(a.train, whole.train.select(&(0..500).collect::<Vec<_>>()));
    assert!(a.train.label_histogram().iter().all(|&n| n > 25), "{:?}", a.train.label_histogram());
    let e = load_json(r#"{"name":"digits","limit_train":0}"#, Path::new("")).unwrap_err().to_string();
    assert!(e.contains("`limit_train` is 0"), "{e}");
}

#[test]
fn gather_normalises_bytes() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "x", idx(&[2, 1, 2], &[0, 255, 51, 102]));
    write(dir.path(), "y", idx(&[2], &[0, 1]));
    let json =
        r#"{"idx":{"train_images":"x","train_labels":"y","test_images":"x","test_labels":"y","mean":0.5,"std":0.25}}"#;
    let split = load_json(json, dir.path()).unwrap();
    let batch = split.train.gather(&[1, 0]);
    let expected = [(0.2 - 0.5) / 0.25, (0.4 - 0.5) / 0.25, -2.0, 2.0];
    assert_eq!((batch.dim, batch.labels.as_slice(), batch.features.len()), (2, &[1, 0][..], 4));
    for (x, e) in batch.features.iter().zip(expected) {
        assert!((x - e).abs() < 1e-6, "{x} {e}");
    }
}

#[test]
fn idx_pairs_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let load = |xs: &[u8], ys: &[u8], tx: &[u8], ty: &[u8]| {
        for (name, content) in [("x", xs), ("y", ys), ("tx", tx), ("ty", ty)] {
            write(dir.path(), name, content);
        }
        let json = r#"{"idx":{"train_images":"x","train_labels":"y","test_images":"tx","test_labels":"ty"}}"#;
        load_json(json, dir.path()).unwrap_err()
    };
    let (x, y) = (idx(&[2, 1, 1], &[1, 2]), idx(&[2], &[0, 1]));
    let e = load(&x, &idx(&[3], &[0, 1, 0]), &x, &y);
    assert!(matches!(e, DataError::Counts { expected: 2, found: 3, .. }), "{e}");
    let e = load(&x, &y, &idx(&[1, 1, 2], &[1, 2]), &idx(&[1], &[0]));
    assert!(matches!(e, DataError::Features { expected: 1, found: 2, .. }), "{e}");
    let e = load(&x, &y, &x, &idx(&[2], &[0, 9]));
    assert!(matches!(e, DataError::Label { sample: 1, found: 9, classes: 2, .. }), "{e}");
    let e = load(&idx(&[0, 1, 1], &[]), &idx(&[0], &[]), &x, &y);
    assert!(matches!(e, DataError::Empty { what: "samples", .. }), "{e}");
    let e = load(&x[..x.len() - 1], &y, &x, &y);
    assert!(matches!(e, DataError::Truncated { expected: 2, found: 1, .. }), "{e}");
    let e = load(&idx(&[0, u32::MAX, u32::MAX], &[]), &idx(&[0], &[]), &x, &y);
    assert!(matches!(e, DataError::Empty { .. }), "{e}");
}
