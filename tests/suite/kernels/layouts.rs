//! The parameters that cross to a device have one layout, in Rust, in the shaders and in the CUDA kernels.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

use naga::{Module, TypeInner};
use veilsum::params::{
    ClipParams, DecodeParams, EncodeParams, EncryptParams, EncryptPassParams, FlatPassParams, FwhtParams,
    FwhtPassParams, GhostParams, GhostPassParams, GramParams, NttPassParams, ResidueParams, RowsPassParams,
    SelectParams,
};

/// A struct: its name, its size, and its members with their offsets.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

/// The layout of a struct, its padding left out: only `offset_of!` knows it, and takes no variable.
macro_rules! layout {
    ($name:ident { $($member:ident),+ }) => {
        (stringify!($name), size_of::<$name>(), vec![$((stringify!($member), offset_of!($name, $member))),+])
    };
}

/// Every struct that a shader or a kernel gets.
fn layouts() -> Vec<Layout> {
    vec![
        layout!(ClipParams { rows, dim, stride, bound }),
        layout!(EncryptParams { slots, width, offset, eta }),
        layout!(FwhtParams { len, block_log2, scale }),
        layout!(FwhtPassParams { groups, len, columns_log2, stride_log2, active_bits, scale }),
        layout!(EncodeParams {
            dim,
            padded,
            block_log2,
            rotate,
            bits,
            fraction_bits,
            norm,
            rounding,
            linf,
            gamma,
            clip,
            norm_bound
        }),
        layout!(DecodeParams { dim, padded, block_log2, rotate, bits, unit }),
        layout!(GhostParams { samples, positions, inputs, outputs, bias }),
        layout!(NttPassParams { groups, degree_log2, limbs, local_log2 }),
        layout!(ResidueParams { groups, len, other_len, degree_log2, limbs }),
        layout!(EncryptPassParams { groups, len, degree_log2, limbs, first, slots, eta, values }),
        layout!(SelectParams { groups, rows, dim, offset, stride, trim, rows_log2, columns_log2 }),
        layout!(GramParams { groups, rows, dim, offset, stride, tiles, pairs, first }),
        layout!(GhostPassParams { groups, samples, positions, inputs, outputs, bias, tiles, first }),
        layout!(RowsPassParams {
            groups,
            chunks,
            first_row,
            offset,
            stride,
            dim,
            padded,
            first,
            bits,
            fraction_bits,
            norm,
            rounding,
            linf,
            count,
            rotate,
            factor,
            bound_mantissa,
            bound_exponent,
            element,
            norm_bound
        }),
        layout!(FlatPassParams { groups, len, first, bits, modulus, count, factor, unit }),
    ]
}

fn shared() -> Module {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/common/params.wgsl");
    naga::front::wgsl::parse_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A struct of a shader: its name, its size, and its members with their offsets.
type Found = (String, u32, Vec<(String, u32)>);

/// Every struct of a module, without the members that are padding.
fn structs(module: &Module) -> Vec<Found> {
    let members = |members: &[naga::StructMember]| {
        let named = members.iter().map(|m| (m.name.clone().unwrap(), m.offset));
        named.filter(|(name, _)| !name.starts_with("_pad")).collect()
    };
    let all = module.types.iter().filter_map(|(_, ty)| match &ty.inner {
        TypeInner::Struct { members: list, span } => Some((ty.name.clone().unwrap(), *span, members(list))),
        _ => None,
    });
    all.collect()
}

#[test]
fn every_struct_of_the_shaders_has_the_layout_of_its_twin() {
    let found = structs(&shared());
    let expected = layouts();
    assert_eq!(found.len(), expected.len(), "a struct is missing in params.wgsl or in this test");
    for (name, size, members) in expected {
        let (_, span, found) = found.iter().find(|(found, ..)| found == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(*span as usize, size, "size of {name}");
        assert!(size.is_multiple_of(16), "size of {name}");
        let found: Vec<_> = found.iter().map(|(name, offset)| (name.as_str(), *offset as usize)).collect();
        assert_eq!(found, members, "members of {name}");
    }
}

#[test]
fn a_member_in_another_place_is_seen() {
    let swapped = naga::front::wgsl::parse_str("struct A { y: u32, x: u32, _pad: vec2<u32> }").unwrap();
    let members = vec![("y".to_owned(), 0), ("x".to_owned(), 4)];
    assert_eq!(structs(&swapped), [("A".to_owned(), 16, members)]);
}

/// What the assertions of a CUDA header say: struct to size and offsets.
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

/// The header's compilers check its assertions, this test compares them.
#[test]
fn every_struct_of_the_cuda_header_has_the_layout_of_its_twin() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/common/params.cuh");
    let text = std::fs::read_to_string(path).unwrap();
    let twins = layouts().into_iter().map(|(name, size, members)| (name, (size, BTreeMap::from_iter(members))));
    assert_eq!(asserted(&text), twins.collect());
    // Every struct of the header asserts something.
    let declared = text.lines().filter_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {"));
    assert_eq!(declared.count(), layouts().len());
}
