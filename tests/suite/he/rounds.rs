//! Keys, encryption, sums and openings against integers.

use proptest::prelude::*;
use veilsum::backend::scalar::Scalar;
use veilsum::backend::{Backend, Buffer, EncryptJob, LatticeSecret, SECRET_ETA};
use veilsum::he::noise::{CiphertextNoise, Weights};
use veilsum::he::params::field_width;
use veilsum::he::threshold::combine;
use veilsum::he::{Ciphertext, ETA, HeError, HolderSet, Layout, Ring, SecretKey, Threshold, oneshot, poly};
use veilsum::math::prg::{Address, Cipher, Purpose, Secret};

use super::{World, key_ring, plan, stream};

/// Values of a client: zeros, ones, the largest, and what lies between.
fn message(len: usize, width: u32, clients: u64, client: u64) -> Vec<u64> {
    let most = ((1u64 << width) - 1) / clients;
    (0..len as u64)
        .map(|i| match (i + client) % 5 {
            0 => 0,
            1 => most,
            2 => 1.min(most),
            _ => i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(client as u32) % (most + 1),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Any K, t, f, T and n: the opened sum is the sum of integers, whoever opens it.
    #[test]
    fn a_sum_opens_to_the_sum_of_integers(
        holders in 1u16..=6, more in 0u16..6, corrupt in 0u16..3, clients in 1u64..5, width in 4u32..16, rotate in 0u16..6,
        fill in 1usize..=100,
    ) {
        let corrupt = corrupt.min(holders - 1);
        let needed = ((holders + corrupt) / 2 + 1 + more).min(holders);
        let threshold = Threshold::new(holders, needed, corrupt).unwrap();
        let ring = key_ring();
        let world = World::new(&ring, threshold, u64::from(holders * 100 + needed));
        let plan = plan(&ring, threshold, clients, width);
        let layout = *plan.layout();
        let len = layout.block(&ring) * 2 * fill / 100;
        let len = len.max(1);
        let mut expected = vec![0u64; len];
        let mut sum: Option<Ciphertext> = None;
        for client in 0..clients {
            let values = message(len, width, clients, client);
            expected.iter_mut().zip(&values).for_each(|(e, v)| *e += v);
            let fresh = world.encrypt(&layout, client, &values);
            match &mut sum {
                Some(sum) => sum.add(&fresh).unwrap(),
                None => sum = Some(fresh),
            }
        }
        let sum = sum.unwrap();
        prop_assert_eq!((sum.weight(), sum.squares()), (clients, clients));
        let set: Vec<u16> = (0..needed).map(|i| (i + rotate) % holders + 1).collect();
        let set = HolderSet::new(threshold, &set).unwrap();
        let parts: Vec<_> = set.holders().iter()
            .map(|&j| world.holder(&plan, j).answer(&Scalar, &[4; 16], &sum, &set).unwrap())
            .collect();
        let opened = combine(&Scalar, &plan, &[4; 16], &sum, &parts).unwrap();
        prop_assert_eq!(&opened[..len], &expected[..]);
        prop_assert!(opened[len..].iter().all(|&v| v == 0), "the padding is zero");
        prop_assert_eq!(world.secret_key().decrypt(&Scalar, &layout, &sum).unwrap(), opened);
    }
}

/// The noise of a sum has the variance of the formula and stays within the bound.
#[test]
fn the_noise_is_the_noise_that_is_tracked() {
    let ring = key_ring();
    let threshold = Threshold::new(3, 3, 2).unwrap();
    let world = World::new(&ring, threshold, 5);
    let layout = *plan(&ring, threshold, 3, 8).layout();
    let mut sum = world.encrypt(&layout, 0, &[0]);
    (1..3).for_each(|client| sum.add(&world.encrypt(&layout, client, &[0])).unwrap());
    let mut nu = sum.halves().1.to_vec();
    poly::multiply(&ring, &mut nu, &world.secret());
    poly::add(&ring, &mut nu, sum.halves().0);
    poly::inverse(&Scalar, &ring, &mut nu).unwrap();
    let p = i64::from(ring.basis().primes().next().unwrap());
    let centred = nu[..4096].iter().map(|&x| if i64::from(x) > p / 2 { i64::from(x) - p } else { i64::from(x) });
    let centred: Vec<f64> = centred.map(|x| x as f64).collect();
    let noise = CiphertextNoise { degree: 4096, holders: 3, eta: ETA, weights: Weights::equal(3) };
    let found = centred.iter().map(|x| x * x).sum::<f64>() / 4096.0;
    let ratio = found / noise.variance();
    assert!((0.85..1.15).contains(&ratio), "{ratio}");
    let bound = noise.tail_bound(4096.0, -40.0) as f64;
    assert!(centred.iter().all(|x| x.abs() <= bound), "{bound}");
    assert!(bound < 14.0 * noise.variance().sqrt());
}

/// Weights of the ciphertexts multiply the values.
#[test]
fn weights_multiply() {
    let ring = key_ring();
    let threshold = Threshold::new(1, 1, 0).unwrap();
    let world = World::new(&ring, threshold, 6);
    let layout = Layout::new(&ring, 20, 2, 60).unwrap();
    let (mut a, mut b) = (world.encrypt(&layout, 1, &[5, 7]), world.encrypt(&layout, 2, &[100, 0]));
    a.weigh(3).unwrap();
    b.weigh(10).unwrap();
    a.add(&b).unwrap();
    assert_eq!((a.weight(), a.squares()), (13, 109));
    assert_eq!(world.secret_key().decrypt(&Scalar, &layout, &a).unwrap()[..3], [1015, 21, 0]);
    assert!(a.weigh(0).is_err() && a.weigh(1 << 30).is_err());
    let mut other = world.encrypt(&layout, 3, &vec![1; 9000]);
    assert!(matches!(other.add(&a), Err(HeError::Length { .. })));
    assert!(matches!(
        SecretKey::generate(&Scalar, &Ring::find(2048, 27, 2).unwrap(), &stream(1))
            .unwrap()
            .decrypt(&Scalar, &layout, &a),
        Err(HeError::ForeignRing { .. })
    ));
}

#[test]
fn one_key_holder_encrypts_and_decrypts() {
    let ring = Ring::find(2048, 27, 2).unwrap();
    let layout = Layout::new(&ring, 16, 2, 12).unwrap();
    let key = SecretKey::generate(&Scalar, &ring, &stream(1)).unwrap();
    let (a, b) = (message(5000, 15, 1, 1), message(5000, 15, 1, 2));
    let mut sum = key.encrypt(&Scalar, &layout, (&stream(2), &stream(3)), &a).unwrap();
    sum.add(&key.encrypt(&Scalar, &layout, (&stream(4), &stream(5)), &b).unwrap()).unwrap();
    let expected: Vec<u64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    assert_eq!(key.decrypt(&Scalar, &layout, &sum).unwrap()[..5000], expected);
    let other = SecretKey::generate(&Scalar, &ring, &stream(6)).unwrap();
    assert!(matches!(other.decrypt(&Scalar, &layout, &sum), Err(HeError::BeyondSlots { .. })));
    let wide = key.encrypt(&Scalar, &layout, (&stream(2), &stream(3)), &[1 << 16]);
    assert_eq!(wide, Err(HeError::MessageTooWide { width: 16 }));
    assert!(key.encrypt(&Scalar, &layout, (&stream(2), &stream(3)), &[]).is_err());
    assert!(format!("{key:?}").contains(".."));
}

/// A whole round of one-shot encryption: the fused kernel, the keys under the collective key, the opening of their sum,
/// then of the vectors; a weight on one client.
#[test]
fn a_round_of_oneshot() {
    let ring = Ring::find(4096, 30, 3).unwrap();
    let (clients, weight) = (3u64, 2u32);
    let total = clients - 1 + u64::from(weight);
    let layout = Layout::new(&ring, 24, 3, 12).unwrap();
    let (key_ring, threshold) = (key_ring(), Threshold::new(4, 3, 1).unwrap());
    let world = World::new(&key_ring, threshold, 8);
    let width = field_width(u64::from(SECRET_ETA), total).unwrap();
    // Of weights that sum to 4 with one of 2: V = 6; a plan for six ciphertexts has room for both.
    let key_plan = plan(&key_ring, threshold, 6, width);
    let (len, expand) = (20_000, stream(50));
    let mut sums = vec![0u32; layout.blocks(&ring, len) * ring.len()];
    let mut expected = vec![0u64; len];
    let mut keys: Option<Ciphertext> = None;
    for client in 0..clients {
        let w = if client == 0 { weight } else { 1 };
        let secret = Secret::from_seed(client);
        let key =
            |purpose| secret.derive(&[1; 16], Address { client, ..Address::default() }, purpose, Cipher::ChaCha20);
        let s = LatticeSecret::sample(&Scalar, ring.basis(), &key(Purpose::LatticeSecret)).unwrap();
        let values = message(len, 24, total, client);
        expected.iter_mut().zip(&values).for_each(|(e, v)| *e += u64::from(w) * v);
        let words = Buffer::from(values.iter().map(|&v| v as u32).collect::<Vec<u32>>());
        let job = EncryptJob {
            basis: ring.basis(),
            params: layout.encrypt_params(SECRET_ETA).unwrap(),
            secret: &s,
            expand: &expand,
            error: &key(Purpose::LatticeError),
            message: &words,
        };
        oneshot::add(&ring, &mut sums, Scalar.encrypt(&job).unwrap().as_u32().unwrap(), w).unwrap();
        let fields = oneshot::key_fields(&Scalar, &ring, &s).unwrap();
        assert!(fields.iter().all(|&f| f <= 42) && fields.len() == 4096);
        let mut c = world.encrypt(key_plan.layout(), 100 + client, &fields);
        c.weigh(w).unwrap();
        match &mut keys {
            Some(keys) => keys.add(&c).unwrap(),
            None => keys = Some(c),
        }
    }
    let keys = keys.unwrap();
    let set = HolderSet::new(threshold, &[4, 1, 2]).unwrap();
    let parts: Vec<_> = set
        .holders()
        .iter()
        .map(|&j| world.holder(&key_plan, j).answer(&Scalar, &[6; 16], &keys, &set).unwrap())
        .collect();
    let fields = combine(&Scalar, &key_plan, &[6; 16], &keys, &parts).unwrap();
    let sum = oneshot::secret_sum(&Scalar, &ring, &fields, total).unwrap();
    assert_eq!(oneshot::open((&ring, &layout), &expand, &sum, &sums, len).unwrap(), expected);
    // Another S opens nothing, and one that no clients can have is refused.
    let mut wrong = fields.clone();
    wrong[5] += 1;
    let wrong = oneshot::secret_sum(&Scalar, &ring, &wrong, total).unwrap();
    assert!(matches!(oneshot::open((&ring, &layout), &expand, &wrong, &sums, len), Err(HeError::BeyondSlots { .. })));
    let mut high = fields.clone();
    high[0] = 42 * total + 1;
    assert!(matches!(oneshot::secret_sum(&Scalar, &ring, &high, total), Err(HeError::BeyondPlan { .. })));
    assert!(oneshot::secret_sum(&Scalar, &ring, &fields[..4000], total).is_err());
    let zero = vec![0; sums.len()];
    assert!(matches!(oneshot::add(&ring, &mut sums, &zero, 1), Err(HeError::Zero { .. })));
    assert!(oneshot::add(&ring, &mut sums, &vec![u32::MAX; zero.len()], 1).is_err());
    assert!(oneshot::add(&ring, &mut sums, &zero[1..], 1).is_err());
}
