//! Recorded rows, replayed: the fixed point of a round on any machine gives the words that stand in a file, on every backend.
//!
//! What lies left of the privacy boundary may differ in its last bit between machines; from there on a round is its record.

use std::path::PathBuf;

use serde_json::{Value, json};
use veilsum::backend::{Buffer, EncodeJob};
use veilsum::math::prg::{Cipher, StreamKey};
use veilsum::params::{EncodeParams, norm_kind, rounding_kind};
use veilsum::sample::binomial::CentredBinomial;
use veilsum::sample::noise::Noise;
use veilsum::sample::table::NoiseTable;

use super::*;

const ROWS: usize = 2;
const DIM: u32 = 96;

/// Rows as a transform leaves them, and some coordinates that hurt.
fn rows() -> Vec<i32> {
    let spread = |i: u32| ((i ^ (i >> 3)).wrapping_mul(0x9e37_79b1) as i32) >> 11;
    let mut rows: Vec<i32> = (0..ROWS as u32 * DIM).map(spread).collect();
    rows[5..11].copy_from_slice(&[0, 1, -1, 65_536, -65_536, 65_535]);
    rows[100..103].copy_from_slice(&[i32::MIN, i32::MAX, -65_535]);
    rows
}

/// Keys of ChaCha20, as rounds have them.
fn keys() -> Vec<RowKeys> {
    let key = |n: u8| StreamKey::from_bytes([n; 32], Cipher::ChaCha20);
    (0..ROWS as u8).map(|i| RowKeys { rounding: key(2 * i + 40), noise: key(2 * i + 41) }).collect()
}

/// Name, parameters, noise.
fn cases() -> Vec<(&'static str, EncodeParams, Option<Noise>)> {
    let base = EncodeParams { bits: 16, ..plain_params(DIM, 0) };
    let bound = |norm, norm_bound: u128| EncodeParams { norm, norm_bound: EncodeParams::limbs(norm_bound), ..base };
    let skellam = || Some(NoiseTable::skellam(12.5).unwrap().into());
    vec![
        ("plain", base, None),
        ("l2 and skellam", bound(norm_kind::L2, 1 << 42), skellam()),
        ("mixed and binomial", bound(norm_kind::MIXED, 1 << 26), Some(CentredBinomial::new(24).unwrap().into())),
        ("rounded and skellam", bound(norm_kind::ROUNDED, 1 << 11), skellam()),
        ("kept, clamped", EncodeParams { rounding: rounding_kind::KEEP, bits: 29, linf: 400_000, ..base }, None),
    ]
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/encode_integer.json")
}

/// What the oracle makes of the rows, for the record.
fn record() -> Value {
    let (signs, keys, rows) = (stream(1), keys(), Buffer::HostI32(rows().into_iter().collect()));
    let words = |(name, params, noise): (&str, EncodeParams, Option<Noise>)| {
        let job = EncodeJob { noise: noise.as_ref(), ..job(params, &signs, &keys) };
        let (words, _) = oracle().encode_integer(&rows, &job).unwrap();
        (name.to_owned(), json!(words.as_u32().unwrap()))
    };
    json!({
        "about": "fixed-point coordinates (2^-16 steps) of two rows and the words of `encode_integer`; see tests/suite/kernels/recorded.rs",
        "fixed": rows.as_i32().unwrap(),
        "words": cases().into_iter().map(words).collect::<serde_json::Map<_, _>>(),
    })
}

#[test]
fn recorded_rows_give_the_recorded_words_on_every_backend() {
    if std::env::var_os("VEILSUM_BLESS").is_some() {
        std::fs::write(file(), format!("{}\n", record())).unwrap();
    }
    let recorded: Value = serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect::<Vec<_>>();
    let fixed: Vec<i32> = numbers(&recorded["fixed"]).into_iter().map(|x| x as i32).collect();
    assert_eq!(fixed.len(), ROWS * DIM as usize);
    let (signs, keys) = (stream(1), keys());
    for (name, params, noise) in cases() {
        let expected: Vec<u32> = numbers(&recorded["words"][name]).into_iter().map(|x| x as u32).collect();
        let job = EncodeJob { noise: noise.as_ref(), ..job(params, &signs, &keys) };
        for backend in everywhere() {
            let rows = Buffer::HostI32(fixed.iter().copied().collect());
            let (found, _) = backend.encode_integer(&rows, &job).unwrap();
            let found = backend.to_host(found).unwrap();
            assert_eq!(found.as_u32().unwrap(), &expected[..], "{name} on {}", backend.describe());
        }
    }
}
