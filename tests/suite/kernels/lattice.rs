//! Negacyclic transforms and products: definitions test the oracle, the oracle tests every instruction set.

use proptest::prelude::*;
use veilsum::backend::{Backend, BackendError, Buffer, scalar};
use veilsum::math::ntt::{MAX_LOG2, MIN_LOG2, RnsBasis, bit_reverse};
use veilsum::math::primes::{NTT_ORDER_LOG2, ntt_friendly};

use super::{blocked, devices, everywhere, oracle, others};

/// The first `limbs` primes of the lattice schemes, at degree `2^log2`.
pub(super) fn basis(log2: u32, limbs: usize) -> RnsBasis {
    RnsBasis::new(1 << log2, &ntt_friendly(NTT_ORDER_LOG2).take(limbs).collect::<Vec<_>>()).unwrap()
}

/// `batch` polynomials; residue i of a row is `f(i, p)`.
fn polynomials(basis: &RnsBasis, batch: usize, f: impl Fn(usize, u32) -> u32) -> Vec<u32> {
    (0..batch)
        .flat_map(|_| basis.primes().flat_map(|p| (0..basis.degree()).map(|i| f(i, p)).collect::<Vec<_>>()))
        .collect()
}

fn mixed(seed: u32) -> impl Fn(usize, u32) -> u32 {
    move |i, p| (i as u32 ^ seed).wrapping_mul(0x9e37_79b9).rotate_left(seed % 31).wrapping_mul(0x85eb_ca6b) % p
}

/// The transform of one row against its definition at a few places, Horner's rule at `psi^(2 brv(i) + 1)`.
#[test]
fn the_oracle_evaluates_at_odd_powers_of_psi_in_bit_reversed_order() {
    for log2 in [MIN_LOG2, 12, MAX_LOG2] {
        let basis = basis(log2, 1);
        let (tables, a) = (&basis.limbs()[0], polynomials(&basis, 1, mixed(3)));
        let p = tables.modulus();
        let mut x = a.clone();
        scalar::ntt::ntt(&mut x, tables);
        for i in [0, 1, 2, 3, 100, a.len() / 2, a.len() - 1] {
            let point = p.pow(tables.psi(), 2 * bit_reverse(i, log2) as u64 + 1);
            assert_eq!(x[i], a.iter().rev().fold(0, |sum, &c| p.add(p.mul(sum, point), c)), "{log2} {i}");
        }
        scalar::ntt::intt(&mut x, tables);
        assert_eq!(x, a);
    }
}

#[test]
fn x_to_the_n_is_minus_one() {
    let basis = basis(10, 2);
    let n = basis.degree();
    for backend in everywhere() {
        for k in [1, 17, n - 1] {
            let mut a = Buffer::from(polynomials(&basis, 1, |i, _| u32::from(i == n - k)));
            let b = Buffer::from(polynomials(&basis, 1, |i, _| u32::from(i == k)));
            backend.polymul(&mut a, &b, &basis).unwrap();
            let minus_one = polynomials(&basis, 1, |i, p| if i == 0 { p - 1 } else { 0 });
            assert_eq!(a.as_u32().unwrap(), minus_one, "{} {k}", backend.describe());
        }
    }
}

/// Patterns that stress lazy ranges: all p-1, all 0, all 1, one hot, alternating, random.
fn pattern(kind: usize, seed: u32) -> Box<dyn Fn(usize, u32) -> u32> {
    let hot = seed as usize % 1024;
    match kind {
        0 => Box::new(|_, p| p - 1),
        1 => Box::new(|_, _| 0),
        2 => Box::new(|_, _| 1),
        3 => Box::new(move |i, p| if i == hot { p - 1 } else { 0 }),
        4 => Box::new(|i, p| if i % 2 == 0 { p - 1 } else { 0 }),
        _ => Box::new(mixed(seed)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_oracle(
        log2 in MIN_LOG2..=MAX_LOG2, limbs in 1usize..4, batch in 1usize..3, kind in 0usize..8, seed in any::<u32>(),
    ) {
        let basis = basis(log2, limbs);
        let x = polynomials(&basis, batch, pattern(kind, seed));
        let (mut forward, mut inverse) = (Buffer::from(x.clone()), Buffer::from(x.clone()));
        oracle().ntt(&mut forward, &basis).unwrap();
        oracle().intt(&mut inverse, &basis).unwrap();
        for backend in others() {
            let (mut y, mut z) = (Buffer::from(x.clone()), Buffer::from(x.clone()));
            backend.ntt(&mut y, &basis).unwrap();
            prop_assert!(y == forward, "forward {log2} {kind} {}", backend.describe());
            backend.intt(&mut z, &basis).unwrap();
            prop_assert!(z == inverse, "inverse {log2} {kind} {}", backend.describe());
            backend.intt(&mut y, &basis).unwrap();
            prop_assert_eq!(y.as_u32().unwrap(), &x[..]);
        }
    }

    #[test]
    fn products_are_those_of_the_school_book(
        kind in 0usize..8, other in 0usize..8, seed in any::<u32>(), broadcast in any::<bool>(),
    ) {
        let basis = basis(10, 2);
        let a = polynomials(&basis, 2, pattern(kind, seed));
        let b = polynomials(&basis, if broadcast { 1 } else { 2 }, pattern(other, seed ^ 0xabcd));
        let b = Buffer::from(b);
        let (mut product, mut entries) = (Buffer::from(a.clone()), Buffer::from(a.clone()));
        oracle().polymul(&mut product, &b, &basis).unwrap();
        oracle().pointwise(&mut entries, &b, &basis).unwrap();
        for backend in others() {
            let (mut y, mut z) = (Buffer::from(a.clone()), Buffer::from(a.clone()));
            backend.polymul(&mut y, &b, &basis).unwrap();
            prop_assert!(y == product, "{kind} {other} {}", backend.describe());
            backend.pointwise(&mut z, &b, &basis).unwrap();
            prop_assert!(z == entries, "{kind} {other} {}", backend.describe());
        }
    }

    /// Longer products against transforms and products of the oracle.
    #[test]
    fn long_products_are_those_of_the_transforms(log2 in 11..=MAX_LOG2, kind in 0usize..8, seed in any::<u32>()) {
        let basis = basis(log2, 1);
        let (a, b) = (polynomials(&basis, 1, pattern(kind, seed)), polynomials(&basis, 1, mixed(!seed)));
        let (mut x, mut y) = (Buffer::from(a.clone()), Buffer::from(b.clone()));
        oracle().ntt(&mut x, &basis).unwrap();
        oracle().ntt(&mut y, &basis).unwrap();
        oracle().pointwise(&mut x, &y, &basis).unwrap();
        oracle().intt(&mut x, &basis).unwrap();
        for backend in others() {
            let mut z = Buffer::from(a.clone());
            backend.polymul(&mut z, &Buffer::from(b.clone()), &basis).unwrap();
            prop_assert!(z == x, "{log2} {kind} {}", backend.describe());
        }
    }

    #[test]
    fn the_transform_is_linear(seed in any::<u32>()) {
        let basis = basis(12, 1);
        let p = basis.limbs()[0].modulus();
        let (a, b) = (polynomials(&basis, 1, mixed(seed)), polynomials(&basis, 1, mixed(!seed)));
        let sum: Vec<u32> = a.iter().zip(&b).map(|(&x, &y)| p.add(x, p.mul(5, y))).collect();
        for backend in others() {
            let transformed = [&a, &b, &sum].map(|x| {
                let mut x = Buffer::from(x.clone());
                backend.ntt(&mut x, &basis).unwrap();
                x.as_u32().unwrap().to_vec()
            });
            let expected: Vec<u32> =
                transformed[0].iter().zip(&transformed[1]).map(|(&x, &y)| p.add(x, p.mul(5, y))).collect();
            prop_assert_eq!(&transformed[2], &expected);
        }
    }
}

/// Small primes too: the lazy ranges hold for every prime, not only for those next to 2^30.
#[test]
fn small_primes_are_transformed_alike() {
    for p in [12_289, 40_961, 65_537, 786_433] {
        let basis = RnsBasis::new(1024, &[p]).unwrap();
        let x = polynomials(&basis, 1, mixed(11));
        let mut expected = Buffer::from(x.clone());
        oracle().ntt(&mut expected, &basis).unwrap();
        for backend in others() {
            let mut y = Buffer::from(x.clone());
            backend.ntt(&mut y, &basis).unwrap();
            assert_eq!(y, expected, "{p} {}", backend.describe());
            backend.intt(&mut y, &basis).unwrap();
            assert_eq!(y.as_u32().unwrap(), x);
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let basis = basis(11, 3);
    let x = polynomials(&basis, 9, mixed(5));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            blocked()
                .into_iter()
                .map(|backend| {
                    let mut y = Buffer::from(x.clone());
                    backend.polymul(&mut y, &Buffer::from(x.clone()), &basis).unwrap();
                    y
                })
                .collect::<Vec<_>>()
        })
    };
    let expected = run(1);
    assert!(expected.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(run(2), expected);
    assert_eq!(run(5), expected);
}

#[test]
fn bad_shapes_and_residues_are_refused_and_nothing_is_written() {
    let basis = basis(10, 2);
    let primes: Vec<u32> = basis.primes().collect();
    let good = polynomials(&basis, 2, mixed(1));
    let mut bad = good.clone();
    (bad[3 * 1024 + 77], bad[3 * 1024 + 78]) = (primes[1], u32::MAX);
    for backend in everywhere() {
        let mut x = Buffer::from(bad.clone());
        let found = backend.ntt(&mut x, &basis).unwrap_err();
        let expected = BackendError::NotReduced { what: "x", batch: 1, limb: 1, index: 77, prime: primes[1] };
        assert_eq!(found, expected);
        assert!(found.to_string().contains("77") && found.to_string().contains("limb 1"), "{found}");
        assert_eq!(backend.intt(&mut x, &basis).unwrap_err(), expected);
        assert_eq!(x.as_u32().unwrap(), bad, "nothing is written");
        let refused = backend.polymul(&mut x, &Buffer::from(good.clone()), &basis);
        assert!(matches!(refused, Err(BackendError::NotReduced { what: "a", .. })));
        let mut x = Buffer::from(good.clone());
        let refused = backend.pointwise(&mut x, &Buffer::from(bad.clone()), &basis);
        assert!(matches!(refused, Err(BackendError::NotReduced { what: "b", .. })));
        let refused = backend.polymul(&mut x, &Buffer::from(vec![0u32; 1024]), &basis);
        assert_eq!(refused, Err(BackendError::WrongLength { what: "b", expected: 4096, found: 1024 }));
        assert_eq!(x.as_u32().unwrap(), good, "nothing is written");
        let mut short = Buffer::from(vec![0u32; 3000]);
        let refused = backend.ntt(&mut short, &basis);
        assert_eq!(refused, Err(BackendError::WrongLength { what: "x", expected: 4096, found: 3000 }));
        let refused = backend.ntt(&mut Buffer::from(vec![0f32; 2048]), &basis);
        assert_eq!(refused, Err(BackendError::WrongType { expected: "u32", found: "f32" }));
        backend.ntt(&mut Buffer::from(Vec::<u32>::new()), &basis).unwrap();
    }
}

/// On a device: what is there stays there, clones keep their values, and a product of more polynomials than one slice holds
/// is the same; `b` is read and stays.
#[test]
fn polynomials_on_a_device_stay_there() {
    let basis = basis(13, 2);
    let (a, b) = (polynomials(&basis, 3, mixed(4)), polynomials(&basis, 1, mixed(9)));
    let mut expected = Buffer::from(a.clone());
    oracle().ntt(&mut expected, &basis).unwrap();
    oracle().pointwise(&mut expected, &Buffer::from(b.clone()), &basis).unwrap();
    for backend in devices() {
        let host = Buffer::from(a.clone());
        let mut x = backend.upload(&host).unwrap();
        let (before, factor) = (x.clone(), backend.upload(&Buffer::from(b.clone())).unwrap());
        backend.ntt(&mut x, &basis).unwrap();
        backend.pointwise(&mut x, &factor, &basis).unwrap();
        assert!(matches!(x, Buffer::Device(_)));
        assert_eq!(backend.download(&x).unwrap(), expected, "{}", backend.describe());
        assert_eq!(backend.download(&before).unwrap(), host, "the clone");
        assert_eq!(backend.download(&factor).unwrap(), Buffer::from(b.clone()));
        let mut square = before.clone();
        backend.polymul(&mut square, &before, &basis).unwrap();
        let mut again = Buffer::from(a.clone());
        others()[0].polymul(&mut again, &host, &basis).unwrap();
        assert_eq!(backend.download(&square).unwrap(), again);
    }
}
