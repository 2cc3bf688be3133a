//! Backends on a device against the oracle.

use veilsum::backend::{Backend, Buffer};
use veilsum::params::FwhtParams;

use super::floats::{ULP, assert_close, norm};
use super::*;

/// Numbers in (-1, 1) without a pattern.
fn scattered(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

fn fwht(backend: &dyn Backend, x: &[f32], block_log2: u32) -> Vec<f32> {
    let mut buffer = Buffer::from(x.to_vec());
    let scale = 0.5f64.powi(block_log2 as i32).sqrt() as f32;
    let params = FwhtParams { len: x.len() as u32, block_log2, scale, _pad: 0 };
    backend.fwht(&mut buffer, &params).unwrap();
    buffer.as_f32().unwrap().to_vec()
}

#[test]
fn the_transform_is_near_the_oracle_for_every_block_and_number_of_blocks() {
    let shapes =
        (0..=18).map(|k| (k, 1)).chain([(0, 1001), (1, 777), (2, 333), (5, 1023), (11, 3), (12, 5), (13, 3), (20, 1)]);
    for (block_log2, blocks) in shapes {
        let x = scattered(blocks << block_log2);
        let expected = fwht(&oracle(), &x, block_log2);
        let bound = f64::from(block_log2 + 2) * ULP * norm(x.iter().map(|&v| f64::from(v)));
        for backend in devices() {
            let found = fwht(&backend, &x, block_log2);
            assert_close(
                &found,
                &expected,
                bound,
                &format!("{blocks} blocks of 2^{block_log2}, {}", backend.describe()),
            );
        }
    }
}
