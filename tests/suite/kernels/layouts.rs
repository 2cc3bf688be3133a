//! The structs that cross to a kernel have the layout that its headers say. `kernels/common/params.cuh` asserts size and
//! offsets for its compilers; here the same lines are compared with Rust.

use std::collections::BTreeMap;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::Path;

use veilsum::params::{
    ClipParams, DecodeParams, EncodeParams, EncryptParams, EncryptPassParams, FlatPassParams, FwhtParams,
    FwhtPassParams, GhostParams, GhostPassParams, GramParams, NttPassParams, ResidueParams, RowsPassParams,
    SelectParams,
};

/// Size in bytes, and the offset of every member but the padding.
type Layout = (usize, BTreeMap<&'static str, usize>);

fn layout<const N: usize>(size: usize, members: [(&'static str, usize); N]) -> Layout {
    (size, BTreeMap::from(members))
}

fn clip() -> Layout {
    layout(
        size_of::<ClipParams>(),
        [
            ("rows", offset_of!(ClipParams, rows)),
            ("dim", offset_of!(ClipParams, dim)),
            ("stride", offset_of!(ClipParams, stride)),
            ("bound", offset_of!(ClipParams, bound)),
        ],
    )
}

fn fwht() -> Layout {
    layout(
        size_of::<FwhtParams>(),
        [
            ("len", offset_of!(FwhtParams, len)),
            ("block_log2", offset_of!(FwhtParams, block_log2)),
            ("scale", offset_of!(FwhtParams, scale)),
        ],
    )
}

fn fwht_pass() -> Layout {
    layout(
        size_of::<FwhtPassParams>(),
        [
            ("groups", offset_of!(FwhtPassParams, groups)),
            ("len", offset_of!(FwhtPassParams, len)),
            ("columns_log2", offset_of!(FwhtPassParams, columns_log2)),
            ("stride_log2", offset_of!(FwhtPassParams, stride_log2)),
            ("active_bits", offset_of!(FwhtPassParams, active_bits)),
            ("scale", offset_of!(FwhtPassParams, scale)),
        ],
    )
}

fn encode() -> Layout {
    layout(
        size_of::<EncodeParams>(),
        [
            ("dim", offset_of!(EncodeParams, dim)),
            ("padded", offset_of!(EncodeParams, padded)),
            ("block_log2", offset_of!(EncodeParams, block_log2)),
            ("rotate", offset_of!(EncodeParams, rotate)),
            ("bits", offset_of!(EncodeParams, bits)),
            ("fraction_bits", offset_of!(EncodeParams, fraction_bits)),
            ("norm", offset_of!(EncodeParams, norm)),
            ("rounding", offset_of!(EncodeParams, rounding)),
            ("linf", offset_of!(EncodeParams, linf)),
            ("gamma", offset_of!(EncodeParams, gamma)),
            ("clip", offset_of!(EncodeParams, clip)),
            ("norm_bound", offset_of!(EncodeParams, norm_bound)),
        ],
    )
}

fn decode() -> Layout {
    layout(
        size_of::<DecodeParams>(),
        [
            ("dim", offset_of!(DecodeParams, dim)),
            ("padded", offset_of!(DecodeParams, padded)),
            ("block_log2", offset_of!(DecodeParams, block_log2)),
            ("rotate", offset_of!(DecodeParams, rotate)),
            ("bits", offset_of!(DecodeParams, bits)),
            ("unit", offset_of!(DecodeParams, unit)),
        ],
    )
}

fn encrypt() -> Layout {
    layout(
        size_of::<EncryptParams>(),
        [
            ("slots", offset_of!(EncryptParams, slots)),
            ("width", offset_of!(EncryptParams, width)),
            ("offset", offset_of!(EncryptParams, offset)),
            ("eta", offset_of!(EncryptParams, eta)),
        ],
    )
}

fn ghost() -> Layout {
    layout(
        size_of::<GhostParams>(),
        [
            ("samples", offset_of!(GhostParams, samples)),
            ("positions", offset_of!(GhostParams, positions)),
            ("inputs", offset_of!(GhostParams, inputs)),
            ("outputs", offset_of!(GhostParams, outputs)),
            ("bias", offset_of!(GhostParams, bias)),
        ],
    )
}

fn rows_pass() -> Layout {
    layout(
        size_of::<RowsPassParams>(),
        [
            ("groups", offset_of!(RowsPassParams, groups)),
            ("chunks", offset_of!(RowsPassParams, chunks)),
            ("first_row", offset_of!(RowsPassParams, first_row)),
            ("offset", offset_of!(RowsPassParams, offset)),
            ("stride", offset_of!(RowsPassParams, stride)),
            ("dim", offset_of!(RowsPassParams, dim)),
            ("padded", offset_of!(RowsPassParams, padded)),
            ("first", offset_of!(RowsPassParams, first)),
            ("bits", offset_of!(RowsPassParams, bits)),
            ("fraction_bits", offset_of!(RowsPassParams, fraction_bits)),
            ("norm", offset_of!(RowsPassParams, norm)),
            ("rounding", offset_of!(RowsPassParams, rounding)),
            ("linf", offset_of!(RowsPassParams, linf)),
            ("count", offset_of!(RowsPassParams, count)),
            ("rotate", offset_of!(RowsPassParams, rotate)),
            ("factor", offset_of!(RowsPassParams, factor)),
            ("bound_mantissa", offset_of!(RowsPassParams, bound_mantissa)),
            ("bound_exponent", offset_of!(RowsPassParams, bound_exponent)),
            ("norm_bound", offset_of!(RowsPassParams, norm_bound)),
        ],
    )
}

fn flat_pass() -> Layout {
    layout(
        size_of::<FlatPassParams>(),
        [
            ("groups", offset_of!(FlatPassParams, groups)),
            ("len", offset_of!(FlatPassParams, len)),
            ("first", offset_of!(FlatPassParams, first)),
            ("bits", offset_of!(FlatPassParams, bits)),
            ("modulus", offset_of!(FlatPassParams, modulus)),
            ("count", offset_of!(FlatPassParams, count)),
            ("factor", offset_of!(FlatPassParams, factor)),
            ("unit", offset_of!(FlatPassParams, unit)),
        ],
    )
}

fn ntt_pass() -> Layout {
    layout(
        size_of::<NttPassParams>(),
        [
            ("groups", offset_of!(NttPassParams, groups)),
            ("degree_log2", offset_of!(NttPassParams, degree_log2)),
            ("limbs", offset_of!(NttPassParams, limbs)),
            ("local_log2", offset_of!(NttPassParams, local_log2)),
        ],
    )
}

fn residues() -> Layout {
    layout(
        size_of::<ResidueParams>(),
        [
            ("groups", offset_of!(ResidueParams, groups)),
            ("len", offset_of!(ResidueParams, len)),
            ("other_len", offset_of!(ResidueParams, other_len)),
            ("degree_log2", offset_of!(ResidueParams, degree_log2)),
            ("limbs", offset_of!(ResidueParams, limbs)),
        ],
    )
}

fn encrypt_pass() -> Layout {
    layout(
        size_of::<EncryptPassParams>(),
        [
            ("groups", offset_of!(EncryptPassParams, groups)),
            ("len", offset_of!(EncryptPassParams, len)),
            ("degree_log2", offset_of!(EncryptPassParams, degree_log2)),
            ("limbs", offset_of!(EncryptPassParams, limbs)),
            ("first", offset_of!(EncryptPassParams, first)),
            ("slots", offset_of!(EncryptPassParams, slots)),
            ("eta", offset_of!(EncryptPassParams, eta)),
            ("values", offset_of!(EncryptPassParams, values)),
        ],
    )
}

fn select() -> Layout {
    layout(
        size_of::<SelectParams>(),
        [
            ("groups", offset_of!(SelectParams, groups)),
            ("rows", offset_of!(SelectParams, rows)),
            ("dim", offset_of!(SelectParams, dim)),
            ("offset", offset_of!(SelectParams, offset)),
            ("stride", offset_of!(SelectParams, stride)),
            ("trim", offset_of!(SelectParams, trim)),
            ("rows_log2", offset_of!(SelectParams, rows_log2)),
            ("columns_log2", offset_of!(SelectParams, columns_log2)),
        ],
    )
}

fn gram() -> Layout {
    layout(
        size_of::<GramParams>(),
        [
            ("groups", offset_of!(GramParams, groups)),
            ("rows", offset_of!(GramParams, rows)),
            ("dim", offset_of!(GramParams, dim)),
            ("offset", offset_of!(GramParams, offset)),
            ("stride", offset_of!(GramParams, stride)),
            ("tiles", offset_of!(GramParams, tiles)),
            ("pairs", offset_of!(GramParams, pairs)),
            ("first", offset_of!(GramParams, first)),
        ],
    )
}

fn ghost_pass() -> Layout {
    layout(
        size_of::<GhostPassParams>(),
        [
            ("groups", offset_of!(GhostPassParams, groups)),
            ("samples", offset_of!(GhostPassParams, samples)),
            ("positions", offset_of!(GhostPassParams, positions)),
            ("inputs", offset_of!(GhostPassParams, inputs)),
            ("outputs", offset_of!(GhostPassParams, outputs)),
            ("bias", offset_of!(GhostPassParams, bias)),
            ("tiles", offset_of!(GhostPassParams, tiles)),
            ("first", offset_of!(GhostPassParams, first)),
        ],
    )
}

/// What the assertions of a header say: struct to size and offsets.
fn asserted(text: &str) -> BTreeMap<&str, (usize, BTreeMap<&str, usize>)> {
    let mut found: BTreeMap<&str, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
    for line in text.lines() {
        let Some((claim, _)) = line.strip_prefix("static_assert(").and_then(|rest| rest.split_once(", \"")) else {
            continue;
        };
        let (left, number) = claim.split_once(" == ").unwrap();
        let number = number.parse().unwrap();
        if let Some(name) = left.strip_prefix("sizeof(").and_then(|l| l.strip_suffix(')')) {
            found.entry(name).or_default().0 = number;
        } else {
            let inside = left.strip_prefix("offsetof(").and_then(|l| l.strip_suffix(')')).unwrap();
            let (name, member) = inside.split_once(", ").unwrap();
            found.entry(name).or_default().1.insert(member, number);
        }
    }
    found
}

#[test]
fn the_structs_of_the_cuda_header_are_those_of_rust() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/common/params.cuh");
    let text = fs::read_to_string(path).unwrap();
    let expected = BTreeMap::from([
        ("ClipParams", clip()),
        ("DecodeParams", decode()),
        ("EncodeParams", encode()),
        ("EncryptParams", encrypt()),
        ("FwhtParams", fwht()),
        ("FlatPassParams", flat_pass()),
        ("FwhtPassParams", fwht_pass()),
        ("GhostParams", ghost()),
        ("NttPassParams", ntt_pass()),
        ("ResidueParams", residues()),
        ("EncryptPassParams", encrypt_pass()),
        ("SelectParams", select()),
        ("GramParams", gram()),
        ("GhostPassParams", ghost_pass()),
        ("RowsPassParams", rows_pass()),
    ]);
    assert_eq!(asserted(&text), expected);
    // Every struct of the header asserts something.
    let declared: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("struct ")?.strip_suffix(" {")).collect();
    assert_eq!(declared.len(), expected.len(), "{declared:?}");
}
