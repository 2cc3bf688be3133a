//! Shares that must not depend on the secrets, and ways to share that are found out.

use super::{FIELD, P, Packing, lagrange};
use crate::math::prg::{Cipher, StreamKey};

fn values(seed: u32, len: usize) -> Vec<u32> {
    let mut bytes = [3; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let mut stream = vec![0; 16 * len];
    StreamKey::from_bytes(bytes, Cipher::ChaCha20).fill(0, &mut stream);
    let word = |bytes: &[u8; 16]| (u128::from_le_bytes(*bytes) % u128::from(P)) as u32;
    stream.as_chunks::<16>().0.iter().map(word).collect()
}

/// Ways to share two secrets of `0..=42` at the points 1..=4 with t = 4: each must hide them from two shares.
type Sharing = fn(&[u32; 2], u32) -> Vec<u32>;

fn sound(secrets: &[u32; 2], seed: u32) -> Vec<u32> {
    Packing::new(4, 4, 2).unwrap().deal(secrets, &values(seed, 2)).unwrap().to_vec()
}

/// Coefficients of -1, 0, 1 in place of uniform values.
fn ternary(secrets: &[u32; 2], seed: u32) -> Vec<u32> {
    let small: Vec<u32> = values(seed, 2).iter().map(|v| (v % 3 + P - 1) % P).collect();
    Packing::new(4, 4, 2).unwrap().deal(secrets, &small).unwrap().to_vec()
}

/// Three secrets packed where two fit: two shares tell an equation.
fn crowded(secrets: &[u32; 2], seed: u32) -> Vec<u32> {
    Packing::new(4, 3, 2).unwrap().deal(secrets, &values(seed, 1)).unwrap().to_vec()
}

/// The largest two-sample chi-square, in standard deviations, of linear combinations of the shares 3 and 4, over
/// their high, middle and low bits.
fn difference(sharing: Sharing) -> f64 {
    const DRAWS: u32 = 20_000;
    // The combination whose randomness is gone, were t = 3: shares 3 and 4 minus what a line through 0 gives.
    let gone = {
        let basis = [P - 1, P - 2, 1];
        let (a, b) = (lagrange(&basis, 3)[2], lagrange(&basis, 4)[2]);
        (b, FIELD.sub(0, a))
    };
    let views = |secrets: [u32; 2], first: u32| {
        let mut counts = vec![[0u32; 64]; 15];
        for i in 0..DRAWS {
            let s = sharing(&secrets, first + i);
            let (a, b) = (s[2], s[3]);
            let free = FIELD.add(FIELD.mul(gone.0, a), FIELD.mul(gone.1, b));
            for (v, value) in [a, b, FIELD.sub(FIELD.add(a, a), b), FIELD.sub(b, a), free].into_iter().enumerate() {
                for (part, shift) in [24, 15, 0].into_iter().enumerate() {
                    counts[3 * v + part][((value >> shift) & 63) as usize] += 1;
                }
            }
        }
        counts
    };
    let (zeros, ones) = (views([0, 0], 0), views([42, 17], DRAWS));
    let chi = |(a, b): (&[u32; 64], &[u32; 64])| -> f64 {
        let square = |(&x, &y): (&u32, &u32)| {
            let (x, y) = (f64::from(x), f64::from(y));
            if x + y > 0.0 { (x - y) * (x - y) / (x + y) } else { 0.0 }
        };
        (a.iter().zip(b).map(square).sum::<f64>() - 63.0) / (2.0f64 * 63.0).sqrt()
    };
    zeros.iter().zip(&ones).map(chi).fold(f64::MIN, f64::max)
}

#[test]
fn few_shares_do_not_depend_on_the_secrets_and_planted_defects_are_found() {
    let found = difference(sound);
    assert!(found < 6.0, "{found}");
    for (name, defect) in [("ternary", ternary as Sharing), ("crowded", crowded)] {
        let found = difference(defect);
        assert!(found > 50.0, "{name}: {found}");
    }
}
