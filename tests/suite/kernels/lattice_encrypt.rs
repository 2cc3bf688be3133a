//! One-shot encryption: every instruction set against the oracle, and opened again by whoever has the sum of the
//! secrets.

use num_bigint::BigUint;
use proptest::prelude::*;
use veilsum::backend::scalar::{Scalar, binomial, encrypt::expand};
use veilsum::backend::{Backend, BackendError, Buffer, EncryptJob, LatticeSecret, SECRET_ETA};
use veilsum::math::ntt::RnsBasis;
use veilsum::math::prg::{Address, Cipher, Purpose, Secret, StreamKey};
use veilsum::params::EncryptParams;
use veilsum::sample::binomial::CentredBinomial;

use super::lattice::basis;
use super::{blocked, everywhere, oracle, others, stream};

/// Set P1 of three primes: w = 26, k = 3, o = 11.
const P1: EncryptParams = EncryptParams { slots: 3, width: 26, offset: 11, eta: 21 };

fn values(len: usize, width: u32, seed: u32) -> Vec<u32> {
    let mixed = |i: usize| (i as u32 ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(seed % 31).wrapping_mul(0x85eb_ca6b);
    (0..len).map(|i| if i % 7 == 0 { u32::MAX } else { mixed(i) } >> (32 - width)).collect()
}

/// The streams of a client: secret, errors.
fn client(n: u64) -> (StreamKey, StreamKey) {
    let secret = Secret::from_seed(n);
    let key = |purpose| secret.derive(&[7; 16], Address { client: n, ..Address::default() }, purpose, Cipher::ChaCha20);
    (key(Purpose::LatticeSecret), key(Purpose::LatticeError))
}

/// `v = C - a S + 2^(o-1) mod Q` limb by limb, then CRT, then the slots: what a holder of S does, from the formula.
fn open(basis: &RnsBasis, p: EncryptParams, key: &StreamKey, sum: &[u32], secret: &[u32], len: usize) -> Vec<u32> {
    let n = basis.degree();
    let q = basis.primes().fold(BigUint::from(1u32), |q, p| q * p);
    let mut values = Vec::new();
    for (j, c) in sum.chunks(n * basis.limbs().len()).enumerate() {
        let mut mask = Buffer::from(expand(basis, key, j));
        Scalar.pointwise(&mut mask, &Buffer::from(secret.to_vec()), basis).unwrap();
        Scalar.intt(&mut mask, basis).unwrap();
        let mask = mask.as_u32().unwrap();
        let whole: Vec<BigUint> = (0..n)
            .map(|i| {
                let limbs = basis.limbs().iter().enumerate().map(|(l, tables)| {
                    let m = tables.modulus();
                    let v = m.add(m.sub(c[l * n + i], mask[l * n + i]), m.pow(2, u64::from(p.offset) - 1));
                    // CRT: v (Q/p) ((Q/p)^-1 mod p).
                    let rest = &q / m.value();
                    let inverse = m.inverse((&rest % m.value()).try_into().unwrap());
                    rest * m.mul(v, inverse)
                });
                (limbs.sum::<BigUint>() % &q) >> p.offset
            })
            .collect();
        let slot = |v: &BigUint, z: u32| -> u32 {
            ((v >> (p.width * z)) % (BigUint::from(1u32) << p.width)).try_into().unwrap()
        };
        values.extend((0..p.slots).flat_map(|z| whole.iter().map(move |v| slot(v, z)).collect::<Vec<_>>()));
    }
    assert!(values[len..].iter().all(|&v| v == 0), "the padding is zero");
    values.truncate(len);
    values
}

/// Adds rows mod the primes.
fn add(basis: &RnsBasis, sum: &mut [u32], row: &[u32]) {
    let n = basis.degree();
    for (i, (x, &y)) in sum.iter_mut().zip(row).enumerate() {
        *x = basis.limbs()[i / n % basis.limbs().len()].modulus().add(*x, y);
    }
}

/// Three clients encrypt, the server adds, the sum is opened: exactly the sums, for zeros too, where half of the
/// errors are negative (rounding after CRT instead of before would give `2^w - 1` there).
#[test]
fn a_sum_of_three_clients_opens_to_the_sum() {
    let basis = basis(12, 3);
    let len = 2 * 3 * 4096 - 1000;
    let expand_key = stream(77);
    for backend in everywhere() {
        for zero in [false, true] {
            let (mut c, mut s, mut expected) = (vec![], vec![], vec![0u32; len]);
            for n in 0..3 {
                let (secret_key, error) = client(n);
                let secret = LatticeSecret::sample(&*backend, &basis, &secret_key).unwrap();
                let message = if zero { vec![0; len] } else { values(len, 24, n as u32 + 1) };
                expected.iter_mut().zip(&message).for_each(|(e, m)| *e += m);
                let message = Buffer::from(message);
                let job = EncryptJob {
                    basis: &basis,
                    params: P1,
                    secret: &secret,
                    expand: &expand_key,
                    error: &error,
                    message: &message,
                };
                let ciphertext = backend.download(&backend.encrypt(&job).unwrap()).unwrap();
                c.resize(ciphertext.len(), 0);
                s.resize(secret.expose().len(), 0);
                add(&basis, &mut c, ciphertext.as_u32().unwrap());
                add(&basis, &mut s, secret.expose());
            }
            assert_eq!(open(&basis, P1, &expand_key, &c, &s, len), expected, "{}", backend.describe());
        }
    }
    let law = CentredBinomial::new(P1.eta).unwrap();
    let sums = (0..4096).map(|i| (0..3).map(|n| binomial::draw(law, &client(n).1, i)).sum::<i64>());
    assert!(sums.filter(|&e| e < 0).count() > 1500, "negative errors were among them");
}

/// s has coefficients of CBD(21): small, and with the variance 10.5.
#[test]
fn the_secret_is_small_and_the_same_everywhere() {
    let basis = basis(12, 2);
    let key = client(5).0;
    let expected = LatticeSecret::sample(&oracle(), &basis, &key).unwrap();
    let mut s = Buffer::from(expected.expose().to_vec());
    oracle().intt(&mut s, &basis).unwrap();
    let s = s.as_u32().unwrap();
    let law = CentredBinomial::new(SECRET_ETA).unwrap();
    for i in 0..4096 {
        let e = binomial::draw(law, &key, i) as i32;
        assert!(e.abs() <= 21);
        for (l, limb) in basis.limbs().iter().enumerate() {
            assert_eq!(s[4096 * l + i], limb.modulus().reduce_signed(e));
        }
    }
    for backend in others() {
        assert_eq!(LatticeSecret::sample(&*backend, &basis, &key).unwrap().expose(), expected.expose());
    }
    assert_eq!(format!("{expected:?}"), "LatticeSecret(.., N = 4096, L = 2)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_oracle(
        log2 in 10u32..=11, limbs in 1usize..4, slots in 1u32..4, fill in 0usize..5000, eta in 1u32..40, seed in any::<u32>(),
    ) {
        let basis = basis(log2, limbs);
        let offset = 7;
        let width = ((basis.floor_log2() - offset) / slots).min(32);
        let params = EncryptParams { slots, width, offset, eta };
        let message = Buffer::from(values(fill, width, seed));
        let (secret_key, error) = client(u64::from(seed));
        let secret = LatticeSecret::sample(&oracle(), &basis, &secret_key).unwrap();
        let expand_key = stream(1);
        let job = EncryptJob { basis: &basis, params, secret: &secret, expand: &expand_key, error: &error, message: &message };
        let expected = oracle().encrypt(&job).unwrap();
        prop_assert_eq!(expected.len(), (fill.div_ceil(job.block()) * limbs) << log2);
        for backend in others() {
            let found = backend.encrypt(&job).and_then(|c| backend.download(&c)).unwrap();
            prop_assert!(found == expected, "{:?} {}", params, backend.describe());
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let parallel = pool.install(|| blocked().pop().map(|backend| backend.encrypt(&job).unwrap()));
        prop_assert_eq!(parallel, Some(expected));
    }
}

#[test]
fn jobs_that_cannot_be_opened_are_refused() {
    let (basis, other) = (basis(10, 3), basis(10, 2));
    let (secret_key, error) = client(1);
    let expand_key = stream(1);
    let secret = LatticeSecret::sample(&oracle(), &basis, &secret_key).unwrap();
    let message = Buffer::from(values(100, 26, 3));
    for backend in everywhere() {
        let job = EncryptJob {
            basis: &basis,
            params: P1,
            secret: &secret,
            expand: &expand_key,
            error: &error,
            message: &message,
        };
        backend.encrypt(&job).unwrap();
        let refuse = |params: EncryptParams, name: &str| {
            let found = backend.encrypt(&EncryptJob { params, ..job }).unwrap_err();
            assert!(matches!(found, BackendError::OutOfRange { name: n, .. } if n == name), "{name}: {found}");
        };
        refuse(EncryptParams { slots: 4, ..P1 }, "slots * width + offset");
        refuse(EncryptParams { offset: 12, ..P1 }, "slots * width + offset");
        refuse(EncryptParams { slots: 0, ..P1 }, "slots");
        refuse(EncryptParams { width: 0, ..P1 }, "width");
        refuse(EncryptParams { width: 33, slots: 1, ..P1 }, "width");
        refuse(EncryptParams { slots: u32::MAX, width: 32, offset: u32::MAX, ..P1 }, "slots * width + offset");
        refuse(EncryptParams { offset: 0, ..P1 }, "offset");
        refuse(EncryptParams { offset: 5, ..P1 }, "eta");
        refuse(EncryptParams { eta: 0, ..P1 }, "eta");
        refuse(EncryptParams { eta: 5000, slots: 1, offset: 40, ..P1 }, "eta");
        let narrow = EncryptParams { width: 25, ..P1 };
        let found = backend.encrypt(&EncryptJob { params: narrow, ..job });
        assert_eq!(found, Err(BackendError::MessageTooWide { width: 25 }));
        let small = EncryptParams { slots: 1, ..P1 };
        assert_eq!(backend.encrypt(&EncryptJob { basis: &other, params: small, ..job }), Err(BackendError::WrongBasis));
        let floats = Buffer::from(vec![0f32; 4]);
        let found = backend.encrypt(&EncryptJob { message: &floats, ..job });
        assert_eq!(found, Err(BackendError::WrongType { expected: "u32", found: "f32" }));
        let nothing = Buffer::from(Vec::<u32>::new());
        assert!(backend.encrypt(&EncryptJob { message: &nothing, ..job }).unwrap().is_empty());
    }
}
