//! Users' own files: CSV and NPZ.

use std::path::Path;

use npyz::WriterBuilder;
use npyz::npz::NpzWriter;
use veilsum::data::{CellProblem, DataError, Features, Split};

use super::{load_json, shared, write};

fn floats(features: &Features) -> &[f32] {
    match features {
        Features::Floats(v) => v,
        Features::Bytes(_) => panic!("bytes"),
    }
}

fn csv(dir: &Path, table: &str, rest: &str) -> Result<Split, DataError> {
    write(dir, "t.csv", table);
    load_json(&format!(r#"{{"csv":{{"train":"t.csv","test":"t.csv",{rest}}}}}"#), dir)
}

fn cell(e: DataError) -> (u64, String, CellProblem) {
    match e {
        DataError::Cell { line, column, problem, .. } => (line, column, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn csv_with_header_names_and_text_labels() {
    let dir = tempfile::tempdir().unwrap();
    let table = "\u{feff}id,height,kind,width\n7,1.5,cat,2\n8, -3e1 ,ant,\"4\"\n9,0,cat,5\n";
    let split = csv(dir.path(), table, r#""label":"kind","drop":["id"]"#).unwrap();
    assert_eq!(floats(&split.train.features), [1.5, 2.0, -30.0, 4.0, 0.0, 5.0]);
    assert_eq!((split.train.labels.as_slice(), split.train.classes, split.train.dim), (&[1, 0, 1][..], 2, 2));
    assert_eq!(split.train.class_names, Some(vec!["ant".to_owned(), "cat".to_owned()]));
}

#[test]
fn csv_headers_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let load = |table: &str, rest: &str| csv(dir.path(), table, rest).map(|s| s.train.len());
    assert_eq!(load("a,b,y\n1,2,0\n3,4,1\n", r#""label":-1"#).unwrap(), 2);
    assert_eq!(load("1,2,0\n3,4,1\n", r#""label":2"#).unwrap(), 2);
    assert_eq!(load("1,2,ant\n3,4,cat\n", r#""label":2"#).unwrap(), 2);
    assert_eq!(load("1;2;0\n3;4;1\n", r#""label":2,"delimiter":";""#).unwrap(), 2);
    assert_eq!(load("1,2,0\n3,4,1\n", r#""label":2,"header":true"#).unwrap(), 1);
    assert_eq!(load("?,2,0\n3,4,1\n", r#""label":2,"missing":"zero""#).unwrap(), 2);
    // A first line with a single broken cell is data with an error, not a header.
    let e = cell(load("1,x,0\n3,4,1\n", r#""label":2"#).unwrap_err());
    assert_eq!(e, (1, "1".to_owned(), CellProblem::NotANumber { found: "x".to_owned() }));
}

#[test]
fn csv_errors_name_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let load = |table: &str, rest: &str| csv(dir.path(), table, rest).unwrap_err();
    let at = |table, rest| cell(load(table, rest));
    let nan = |found: &str| CellProblem::NotANumber { found: found.to_owned() };
    assert_eq!(at("a,y\n1,0\ninf,1\n", r#""label":"y""#), (3, "a".to_owned(), nan("inf")));
    assert_eq!(at("a,y\n1e39,0\n", r#""label":"y""#), (2, "a".to_owned(), nan("1e39")));
    let (line, column, problem) = at("a,y\n1,0\nNaN,1\n", r#""label":"y""#);
    assert_eq!((line, column.as_str(), problem), (3, "a", CellProblem::Missing { found: "NaN".to_owned() }));
    let (line, column, problem) = at("a,y\n1,0\n\n2,\n", r#""label":"y""#);
    assert_eq!((line, column.as_str(), problem), (4, "y", CellProblem::MissingLabel { found: String::new() }));
    for table in ["a,y\r\n1,0\r\nx,1\r\n", "a,y\n1,0\nx,1", "\n\n1,0\r\n\r\nx,1\r\n"] {
        let line = table[..table.find('x').unwrap()].matches('\n').count() as u64 + 1;
        assert_eq!(at(table, r#""label":1"#).0, line, "{table:?}");
    }
    for label in ["-1", "0.5", "70000", "1e300", "ant"] {
        let (line, _, problem) = cell(load(&format!("a,y\n1,0\n2,{label}\n"), r#""label":"y""#));
        assert_eq!((line, problem), (3, CellProblem::NotAClass { found: label.to_owned(), limit: 65_536 }));
    }
    let e = load("a,y\n1,0\n2\n", r#""label":"y""#);
    assert!(matches!(e, DataError::Table { .. }) && e.to_string().contains("line: 3"), "{e}");
    let e = load("a,y\n1,0\n", r#""label":"z""#).to_string();
    assert!(e.contains("no column `z`; the columns are a, y"), "{e}");
    let e = load("1,0\n", r#""label":5"#).to_string();
    assert!(e.contains("no column `5`; the columns are 0 to 1"), "{e}");
    for (table, what) in [("", "samples"), ("a,y\n", "samples"), ("y\n0\n", "features")] {
        let e = load(table, r#""label":"y""#);
        assert!(matches!(e, DataError::Empty { what: w, .. } if w == what), "{table:?}: {e}");
    }
    let e = load("a,y\n1,0\n", r#""label":"y","delimiter":"é""#);
    assert!(matches!(e, DataError::Config { key: "csv.delimiter", .. }), "{e}");
    write(dir.path(), "bytes.csv", b"a,y\n\xff\xfe,0\n");
    let e = load_json(r#"{"csv":{"train":"bytes.csv","test_fraction":0.5,"label":"y"}}"#, dir.path()).unwrap_err();
    assert!(matches!(e, DataError::Table { .. }), "{e}");
}

#[test]
fn normalisation_takes_its_statistics_from_the_training_set() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.csv", "a,b,c,y\n0,5,?,0\n4,5,1,1\n8,5,3,0\n");
    write(dir.path(), "b.csv", "a,b,c,y\n16,6,NA,1\n");
    let load = |normalize: &str| {
        let json = format!(
            r#"{{"csv":{{"train":"a.csv","test":"b.csv","label":"y","missing":"zero","normalize":{normalize}}}}}"#
        );
        load_json(&json, dir.path())
    };
    let near = |features: &Features, expected: &[f32]| {
        let found = floats(features);
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    };
    let split = load(r#""standard""#).unwrap();
    let s = (32.0f32 / 3.0).sqrt();
    near(&split.train.features, &[-4.0 / s, 0.0, 0.0, 0.0, 0.0, -1.0, 4.0 / s, 0.0, 1.0]);
    near(&split.test.features, &[12.0 / s, 1.0, 0.0]);
    let split = load(r#""min-max""#).unwrap();
    near(&split.train.features, &[0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 1.0]);
    near(&split.test.features, &[2.0, 1.0, 0.0]);
    let split = load(r#"{"fixed":{"mean":[4,5,1],"std":2}}"#).unwrap();
    near(&split.train.features, &[-2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0]);
    for (bad, key) in [(r#"{"fixed":{"mean":0,"std":0}}"#, "std"), (r#"{"fixed":{"mean":0,"std":[1,1]}}"#, "std")] {
        let e = load(bad).unwrap_err().to_string();
        assert!(e.contains(&format!("normalize.fixed.{key}")), "{e}");
    }
    let e = load(r#"{"fixed":{"mean":-3e38,"std":1e-30}}"#).unwrap_err();
    assert!(matches!(e, DataError::Overflow { sample: 0, feature: 0, .. }), "{e}");
}

#[test]
fn a_test_set_is_cut_off_once_and_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let table: String = (0..50).map(|i| format!("{i},{}\n", i % 2)).collect();
    write(dir.path(), "t.csv", &table);
    let load = |rest: &str| load_json(&format!(r#"{{"csv":{{"train":"t.csv","label":1{rest}}}}}"#), dir.path());
    let split = load(r#","test_fraction":0.3"#).unwrap();
    assert_eq!(split, load(r#","test_fraction":0.3"#).unwrap());
    assert_eq!((split.train.len(), split.test.len()), (35, 15));
    let mut all = [floats(&split.train.features), floats(&split.test.features)].concat();
    all.sort_by(f32::total_cmp);
    assert_eq!(all, (0..50u8).map(f32::from).collect::<Vec<_>>());
    for rest in ["", r#","test_fraction":0"#, r#","test_fraction":1"#, r#","test":"t.csv","test_fraction":0.5"#] {
        let e = load(rest).unwrap_err();
        assert!(matches!(e, DataError::Config { key: "test_fraction", .. }), "{rest}: {e}");
    }
}

#[test]
fn files_and_groups_are_natural_owners() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.csv", "1,0,bob\n2,1,ann\n");
    write(dir.path(), "b.csv", "3,0,bob\n");
    let load = |rest: &str| {
        let json = format!(r#"{{"csv":{{"train":["a.csv","b.csv"],"test":"b.csv","label":1,{rest}}}}}"#);
        load_json(&json, dir.path()).unwrap().train.natural_ids
    };
    assert_eq!(load(r#""drop":[2]"#), Some(vec![0, 0, 1]));
    assert_eq!(load(r#""group":2"#), Some(vec![1, 0, 1]));
}

#[test]
fn heart_disease_of_four_hospitals() {
    let Some(dir) = shared("heart-disease") else { return };
    let json = r#"{"csv":{"train":["processed.cleveland.data","processed.hungarian.data","processed.switzerland.data",
        "processed.va.data"],"test_fraction":0.2,"label":-1,"positive_above":0,"missing":"zero","normalize":"standard"}}"#;
    let split = load_json(json, &dir).unwrap();
    assert_eq!((split.train.len(), split.test.len()), (736, 184));
    assert_eq!((split.train.dim, split.train.classes), (13, 2));
    let e = load_json(&json.replace(r#""missing":"zero","#, ""), &dir).unwrap_err();
    assert!(matches!(e, DataError::Cell { line: 88, problem: CellProblem::Missing { .. }, .. }), "{e}");
}

/// Writes an archive with the arrays that `fill` adds.
fn npz(dir: &Path, name: &str, fill: impl FnOnce(&mut NpzWriter<std::io::BufWriter<std::fs::File>>)) {
    let mut archive = NpzWriter::create(dir.join(name)).unwrap();
    fill(&mut archive);
}

macro_rules! array {
    ($archive:expr, $name:expr, $shape:expr, $values:expr) => {{
        let mut writer =
            $archive.array($name, Default::default()).unwrap().default_dtype().shape($shape).begin_nd().unwrap();
        writer.extend($values).unwrap();
        writer.finish().unwrap();
    }};
}

#[test]
fn npz_round_trips_in_every_type() {
    let dir = tempfile::tempdir().unwrap();
    npz(dir.path(), "a.npz", |a| {
        array!(a, "x", &[3, 2, 1], [0.5f32, 1.0, 1.5, 2.0, 2.5, 3.0]);
        array!(a, "y", &[3], [0i64, 2, 1]);
        array!(a, "who", &[3, 1], [9u16, 9, 4]);
    });
    npz(dir.path(), "b.npz", |a| {
        array!(a, "x", &[1, 2], [7u8, 255]);
        array!(a, "y", &[1], [2.0f64]);
        array!(a, "who", &[1], [0i8]);
    });
    let split = load_json(r#"{"npz":{"train":"a.npz","test":"b.npz","group":"who"}}"#, dir.path()).unwrap();
    assert_eq!(floats(&split.train.features), [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
    assert_eq!((split.train.labels.as_slice(), split.train.classes, split.train.dim), (&[0, 2, 1][..], 3, 2));
    assert_eq!(split.train.natural_ids, Some(vec![9, 9, 4]));
    assert_eq!((floats(&split.test.features), split.test.labels.as_slice()), (&[7.0, 255.0][..], &[2][..]));
}

#[test]
fn npz_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let load = |rest: &str| {
        let json = format!(r#"{{"npz":{{"train":"a.npz","test_fraction":0.5{rest}}}}}"#);
        load_json(&json, dir.path()).unwrap_err()
    };
    npz(dir.path(), "a.npz", |a| {
        array!(a, "x", &[2, 1], [1.0f64, f64::NAN]);
        array!(a, "big", &[2, 1], [1e39f64, 0.0]);
        array!(a, "short", &[1, 1], [1.0f32]);
        array!(a, "y", &[2], [0i32, 1]);
        array!(a, "negative", &[2], [0i32, -1]);
        array!(a, "half", &[2], [0.0f32, 0.5]);
        array!(a, "none", &[0, 3], [0.0f32; 0]);
    });
    let e = load("");
    assert!(matches!(e, DataError::ArrayValue { index: 1, .. }), "{e}");
    let e = load(r#","x":"big""#);
    assert!(matches!(e, DataError::ArrayValue { index: 0, .. }), "{e}");
    let e = load(r#","x":"short""#);
    assert!(matches!(&e, DataError::ArrayShape { found, .. } if *found == [2]), "{e}");
    for y in ["negative", "half"] {
        let e = load(&format!(r#","x":"y","y":"{y}""#));
        // `y` as features: n values without a second dimension are n samples of one feature.
        assert!(matches!(&e, DataError::ArrayValue { index: 1, key, .. } if key == y), "{e}");
    }
    let e = load(r#","x":"none""#);
    assert!(matches!(e, DataError::Empty { what: "samples", .. }), "{e}");
    let e = load(r#","x":"z""#).to_string();
    assert!(e.contains("no array `z`") && e.contains("negative"), "{e}");
    write(dir.path(), "a.npz", b"no archive");
    assert!(matches!(load(""), DataError::Io { .. }));
}

/// A stored (not compressed) archive with one entry, made by hand because no writer makes broken ones.
fn forged(header: &str, data: &[u8]) -> Vec<u8> {
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend((header.len() as u16).to_le_bytes());
    npy.extend(header.as_bytes());
    npy.extend(data);
    let mut crc = flate2::Crc::new();
    crc.update(&npy);
    let size = (npy.len() as u32).to_le_bytes();
    // Shared by the local and the central header: version, flags, method, time, date, CRC, sizes, name.
    let common =
        [&[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..], &crc.sum().to_le_bytes(), &size, &size, &[5, 0, 0, 0]].concat();
    let local = [&b"PK\x03\x04"[..], &common, b"x.npy", &npy].concat();
    let central = [&b"PK\x01\x02\x14\x00"[..], &common, &[0; 14], b"x.npy"].concat();
    let ends = [(central.len() as u32).to_le_bytes(), (local.len() as u32).to_le_bytes()].concat();
    [&local[..], &central, b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &ends, &[0, 0]].concat()
}

#[test]
fn npz_headers_that_lie_are_refused_before_anything_is_allocated() {
    let dir = tempfile::tempdir().unwrap();
    let load = |header: &str, data: &[u8]| {
        write(dir.path(), "a.npz", forged(header, data));
        load_json(r#"{"npz":{"train":"a.npz","test_fraction":0.5}}"#, dir.path()).unwrap_err()
    };
    let header =
        |descr: &str, shape: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let huge = "(9223372036854775807, 9223372036854775807)";
    let e = load(&header("<f4", huge), &[]);
    assert!(matches!(e, DataError::TooLarge { .. }), "{e}");
    let e = load(&header("<f4", "(0, 9223372036854775807, 9223372036854775807)"), &[]);
    assert!(matches!(e, DataError::Empty { what: "samples", .. }), "{e}");
    let e = load(&header("<f4", "(1000000000,)"), &[1, 2, 3, 4]);
    assert!(matches!(e, DataError::Truncated { expected: 4_000_000_000, found: 4, .. }), "{e}");
    let e = load(&header("|u1", "(2,)"), &[1, 2, 3]);
    assert!(matches!(e, DataError::Trailing { expected: 2, found: 3, .. }), "{e}");
    let e = load(&header("<c8", "(2,)"), &[0; 16]);
    assert!(matches!(&e, DataError::ArrayType { found, .. } if found == "<c8"), "{e}");
    let e = load("{'descr': '<f4'}", &[]);
    assert!(matches!(e, DataError::ArrayHeader { .. }), "{e}");
}
