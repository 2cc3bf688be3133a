//! Attacks on the opening and the sharing: each fails against what is built, and the same attack succeeds against the
//! defect that it looks for, planted here.

use num_bigint::BigUint;
use veilsum::backend::scalar::Scalar;
use veilsum::he::poly::SecretPoly;
use veilsum::he::shamir::{deal, lagrange};
use veilsum::he::threshold::combine;
use veilsum::he::{
    Ciphertext, HeError, Holder, HolderSet, OpeningGuard, OpeningPlan, PartialOpening, Ring, Threshold, poly,
};
use veilsum::math::prg::{Secret, StreamKey};
use veilsum::sample::uniform::Interval;
use zeroize::Zeroizing;

use super::{World, key_ring, plan, stream};

/// `lambda_(j,T) sigma_j c1`: a part of an opening without noise and masks, the planted defect.
fn bare(world: &World, set: &HolderSet, j: u16, sum: &Ciphertext) -> Vec<u32> {
    let ring = &world.setup.ring;
    let mut part = world.held[usize::from(j) - 1].poly().expose().to_vec();
    poly::scale(ring, &mut part, &lagrange(ring, set.holders(), j));
    poly::multiply(ring, &mut part, sum.halves().1);
    part
}

/// Coefficients of `x` (transformed), centred mod the first prime.
fn centred(ring: &Ring, x: &[u32]) -> Vec<i64> {
    let mut x = x.to_vec();
    poly::inverse(&Scalar, ring, &mut x).unwrap();
    let p = i64::from(ring.basis().primes().next().unwrap());
    x[..ring.degree()].iter().map(|&v| if i64::from(v) > p / 2 { i64::from(v) - p } else { i64::from(v) }).collect()
}

/// The server's attack: `s = (sum h_j) / c1`. True if that is a sum of `holders` ternary secrets.
fn key_is_recovered(ring: &Ring, sum: &Ciphertext, parts: &[Vec<u32>], holders: i64) -> bool {
    let mut total = vec![0u32; ring.len()];
    parts.iter().for_each(|part| poly::add(ring, &mut total, part));
    let n = ring.degree();
    let inverses: Vec<u32> = sum.halves().1[..ring.len()]
        .iter()
        .enumerate()
        .map(|(i, &c)| ring.basis().limbs()[i / n].modulus().inverse(c))
        .collect();
    assert!(inverses.iter().all(|&i| i != 0), "c1 can be divided by");
    poly::multiply(ring, &mut total, &inverses);
    centred(ring, &total).iter().all(|c| c.abs() <= holders)
}

#[test]
fn without_flooding_an_opening_shows_the_key() {
    let (ring, threshold) = (key_ring(), Threshold::new(3, 3, 2).unwrap());
    let world = World::new(&ring, threshold, 11);
    let plan = plan(&ring, threshold, 2, 10);
    let mut sum = world.encrypt(plan.layout(), 1, &[1, 2, 3]);
    sum.add(&world.encrypt(plan.layout(), 2, &[4, 5, 6])).unwrap();
    let set = HolderSet::new(threshold, &[1, 2, 3]).unwrap();
    let parts: Vec<Vec<u32>> = [1, 2, 3]
        .map(|j| world.holder(&plan, j).answer(&Scalar, &[1; 16], &sum, &set).unwrap().poly().to_vec())
        .to_vec();
    assert!(!key_is_recovered(&ring, &sum, &parts, 3));
    let planted: Vec<Vec<u32>> = [1, 2, 3].map(|j| bare(&world, &set, j, &sum)).to_vec();
    assert!(key_is_recovered(&ring, &sum, &planted, 3), "the attack finds the defect");
    // What is left of a part without its exact half is the flooding: uniform on the planned interval.
    let bins = |part: &[u32], bare: &[u32]| {
        let mut f = part.to_vec();
        poly::subtract(&ring, &mut f, bare);
        poly::inverse(&Scalar, &ring, &mut f).unwrap();
        let bound = BigUint::from(plan.flooding().bound);
        let mut counts = [0f64; 16];
        for value in integers(&ring, &f) {
            // In [0, 2 B'] after the shift, else outside of all bins.
            let shifted = (value + &bound) % modulus(&ring);
            let bin = shifted * 16u32 / (&bound * 2u32 + 1u32);
            if let Some(count) = usize::try_from(bin).ok().and_then(|bin| counts.get_mut(bin)) {
                *count += 1.0;
            }
        }
        counts.iter().map(|c| (c - 256.0).powi(2) / 256.0).sum::<f64>()
    };
    // 15 degrees of freedom: 60 is beyond 10^-6.
    for j in 0..3 {
        assert!(bins(&parts[j], &planted[j]) < 60.0, "{}", bins(&parts[j], &planted[j]));
        assert!(bins(&planted[j], &planted[j]) > 1000.0, "no flooding is found by the same test");
    }
}

fn modulus(ring: &Ring) -> BigUint {
    ring.basis().primes().fold(BigUint::from(1u32), |q, p| q * p)
}

/// Coefficients as integers of `[0, Q)`.
fn integers(ring: &Ring, x: &[u32]) -> Vec<BigUint> {
    let (n, q) = (ring.degree(), modulus(ring));
    let units: Vec<BigUint> = ring
        .basis()
        .limbs()
        .iter()
        .map(|limb| {
            let rest = &q / limb.modulus().value();
            let inverse = limb.modulus().inverse(u32::try_from(&rest % limb.modulus().value()).unwrap());
            rest * inverse
        })
        .collect();
    (0..n).map(|i| units.iter().enumerate().map(|(l, unit)| unit * x[l * n + i]).sum::<BigUint>() % &q).collect()
}

/// A corrupt holder outside the set: K = 4, T = {1, 2, 3}, holder 4 works with the server, which sees the parts one by
/// one. `2 h_1 - 6 h_3 + 3 sigma_4 c1 + 3 c0 - 3 2^o m = 3 nu + 2 f_1 - 6 f_3`, whose parity is that of the noise nu.
#[test]
fn parts_are_masked_in_pairs_or_show_the_noise() {
    let (ring, threshold) = (key_ring(), Threshold::new(4, 3, 1).unwrap());
    let world = World::new(&ring, threshold, 12);
    let plan = plan(&ring, threshold, 2, 10);
    // Zeros: then 2^o m is zero too.
    let mut sum = world.encrypt(plan.layout(), 1, &[0]);
    sum.add(&world.encrypt(plan.layout(), 2, &[0])).unwrap();
    let set = HolderSet::new(threshold, &[1, 2, 3]).unwrap();
    let answer = |j: u16| world.holder(&plan, j).answer(&Scalar, &[1; 16], &sum, &set).unwrap();
    let parts: Vec<PartialOpening> = [1, 2, 3].map(answer).to_vec();
    assert!(combine(&Scalar, &plan, &[1; 16], &sum, &parts).unwrap().iter().all(|&v| v == 0));
    // The true noise, by whoever has the key.
    let mut nu = sum.halves().1.to_vec();
    poly::multiply(&ring, &mut nu, &world.secret());
    poly::add(&ring, &mut nu, sum.halves().0);
    let nu = centred(&ring, &nu);
    let parities = |h1: &[u32], h3: &[u32]| {
        let scaled = |x: &[u32], c: u32| {
            let mut x = x.to_vec();
            poly::scale(&ring, &mut x, &vec![c; ring.limbs()]);
            x
        };
        let mut y = scaled(h1, 2);
        poly::subtract(&ring, &mut y, &scaled(h3, 6));
        let mut corrupt = scaled(world.held[3].poly().expose(), 3);
        poly::multiply(&ring, &mut corrupt, sum.halves().1);
        poly::add(&ring, &mut y, &corrupt);
        poly::add(&ring, &mut y, &scaled(sum.halves().0, 3));
        poly::inverse(&Scalar, &ring, &mut y).unwrap();
        let (q, two) = (modulus(&ring), BigUint::from(2u32));
        let odd = |v: BigUint| if v > &q / 2u32 { (&q - v) % &two } else { v % &two } == BigUint::from(1u32);
        integers(&ring, &y).into_iter().zip(&nu).filter(|(v, nu)| odd(v.clone()) == (*nu % 2 != 0)).count()
    };
    let found = parities(parts[0].poly(), parts[2].poly());
    assert!((found as i64 - 2048).abs() < 6 * 32, "half of the parities are guessed: {found}");
    // The same parts with their flooding and without the masks.
    let planted = [1u16, 3].map(|j| {
        let mut part = bare(&world, &set, j, &sum);
        let interval = Interval::new(plan.flooding().bound).unwrap();
        let mut f = vec![0u32; ring.len()];
        let n = ring.degree();
        interval
            .fill(&stream(60 + j as u8), 0, n, |i, v| {
                for (l, p) in ring.basis().primes().enumerate() {
                    let p = u128::from(p);
                    f[l * n + i] = ((v % p + p - interval.bound() % p) % p) as u32;
                }
            })
            .unwrap();
        poly::forward(&Scalar, &ring, &mut f).unwrap();
        poly::add(&ring, &mut part, &f);
        part
    });
    assert_eq!(parities(&planted[0], &planted[1]), 4096, "every parity is known without the masks");
    let unpaired = Holder::new(
        plan.clone(),
        world.held[0].clone(),
        Secret::from_seed(1),
        std::collections::BTreeMap::new(),
        OpeningGuard::default(),
    );
    assert!(matches!(unpaired, Err(HeError::PairKeyMissing { holder: 1, other: 2 })));
}

/// Chi-square of the pairs (top three bits of share 1, of share 2), 63 degrees of freedom.
fn chi_square(ring: &Ring, shares: [&[u32]; 2]) -> f64 {
    let p = u64::from(ring.basis().primes().next().unwrap());
    let [one, two] = shares.map(|s| {
        let mut s = s.to_vec();
        poly::inverse(&Scalar, ring, &mut s).unwrap();
        s
    });
    let mut counts = [0f64; 64];
    one.iter().zip(&two).for_each(|(&x, &y)| counts[(u64::from(x) * 8 / p * 8 + u64::from(y) * 8 / p) as usize] += 1.0);
    let expected = one.len() as f64 / 64.0;
    counts.iter().map(|c| (c - expected).powi(2) / expected).sum()
}

/// Two of three shares say nothing about the secret, whichever it is; with ternary coefficients the same test fails, and
/// one share gives the secret.
#[test]
fn fewer_than_t_shares_are_independent_of_the_key() {
    let ring = Ring::find(4096, 26, 1).unwrap();
    let threshold = Threshold::new(5, 3, 0).unwrap();
    let zero = vec![0u32; ring.len()];
    let ones = {
        let mut x = poly::lift(&ring, &vec![1u32; ring.degree()]);
        poly::forward(&Scalar, &ring, &mut x).unwrap();
        x.to_vec()
    };
    let ternary = |key: &StreamKey| {
        let mut x = poly::lift(&ring, &poly::ternary(&ring, key, 1).unwrap());
        poly::forward(&Scalar, &ring, &mut x).unwrap();
        x
    };
    // 63 degrees of freedom: 140 is beyond 10^-7.
    for (number, secret) in [zero, ones, ternary(&stream(3)).to_vec()].into_iter().enumerate() {
        let secret = SecretPoly::new(&ring, Zeroizing::new(secret)).unwrap();
        let deals = deal(&ring, threshold, (&[0; 16], 1), &secret, &stream(70 + number as u8)).unwrap();
        for (i, j) in [(0, 1), (2, 4), (1, 3)] {
            let found = chi_square(&ring, [deals[i].poly().expose(), deals[j].poly().expose()]);
            assert!(found < 140.0, "shares {i} and {j} of secret {number}: {found}");
        }
        // The defect: F(j) = s + r1 j + r2 j^2 with ternary r.
        let planted = |j: u32| {
            let mut f = ternary(&stream(80)).to_vec();
            for r in [ternary(&stream(81)).to_vec(), secret.expose().to_vec()] {
                poly::scale(&ring, &mut f, &[j]);
                poly::add(&ring, &mut f, &r);
            }
            f
        };
        let found = chi_square(&ring, [&planted(1), &planted(2)]);
        assert!(found > 10_000.0, "the same test finds ternary coefficients: {found}");
        let balanced = |x: i64| (x.rem_euclid(3) + 1).rem_euclid(3) - 1;
        let guessed: Vec<i64> = centred(&ring, &planted(3)).into_iter().map(balanced).collect();
        assert_eq!(guessed, centred(&ring, secret.expose()), "one share is enough then");
    }
}

#[test]
fn a_holder_answers_once() {
    let (ring, threshold) = (key_ring(), Threshold::new(4, 3, 0).unwrap());
    let world = World::new(&ring, threshold, 13);
    let plan = plan(&ring, threshold, 2, 10);
    let sum = world.encrypt(plan.layout(), 1, &[1, 2, 3]);
    let other = world.encrypt(plan.layout(), 2, &[1, 2, 3]);
    let set = HolderSet::new(threshold, &[1, 2, 3]).unwrap();
    let second = HolderSet::new(threshold, &[1, 2, 4]).unwrap();
    let mut holder = world.holder(&plan, 1);
    let first = holder.answer(&Scalar, &[1; 16], &sum, &set).unwrap();
    assert_eq!(holder.answer(&Scalar, &[1; 16], &sum, &set).unwrap(), first, "the same bytes again");
    // The same flooding under two sets would be lambda - lambda' times a share: refused, and not the same flooding.
    assert_eq!(holder.answer(&Scalar, &[1; 16], &sum, &second), Err(HeError::Answered));
    assert_eq!(holder.answer(&Scalar, &[1; 16], &other, &set), Err(HeError::Answered));
    assert_eq!(holder.answer(&Scalar, &[2; 16], &sum, &set), Err(HeError::Answered), "nor in another session");
    let apart = world.holder(&plan, 1).answer(&Scalar, &[1; 16], &sum, &second).unwrap();
    let residue = |part: &PartialOpening, set: &HolderSet| {
        let mut f = part.poly().to_vec();
        poly::subtract(&ring, &mut f, &bare(&world, set, 1, &sum));
        f
    };
    let (f, g) = (residue(&first, &set), residue(&apart, &second));
    assert!(f.iter().zip(&g).filter(|(f, g)| f == g).count() < 20);
    // Where the plan has room for a second set it is another release with other noise, and a third is refused.
    let mut roomy = world.holder(&plan.clone().with_sets(2).unwrap(), 1);
    assert_eq!(roomy.answer(&Scalar, &[1; 16], &sum, &set).unwrap(), first);
    assert_eq!(roomy.answer(&Scalar, &[1; 16], &sum, &second).unwrap(), apart);
    assert_eq!((roomy.guard().len(), holder.guard().len()), (2, 1));
    let third = HolderSet::new(threshold, &[1, 3, 4]).unwrap();
    assert_eq!(roomy.answer(&Scalar, &[1; 16], &sum, &third), Err(HeError::Answered));
    assert_eq!(roomy.answer(&Scalar, &[1; 16], &other, &set), Err(HeError::Answered), "nor another sum");
    assert_eq!(OpeningGuard::from_bytes(&ring, &roomy.guard().to_bytes(&ring)).unwrap(), *roomy.guard());
    assert!(plan.clone().with_sets(0).is_err() && plan.clone().with_sets(9).is_err());
    // What was answered survives a restart.
    let guard = OpeningGuard::from_bytes(&ring, &holder.guard().to_bytes(&ring)).unwrap();
    let pairs = (2..=4).map(|j| (j, Secret::from_seed(u64::from(j)))).collect();
    let mut again = Holder::new(plan.clone(), world.held[0].clone(), Secret::from_seed(77_001), pairs, guard).unwrap();
    assert_eq!(again.answer(&Scalar, &[1; 16], &other, &set), Err(HeError::Answered));
    // Eight openings are planned.
    for session in 2..=8u8 {
        let fresh = world.encrypt(plan.layout(), 10 + u64::from(session), &[1]);
        holder.answer(&Scalar, &[session; 16], &fresh, &set).unwrap();
    }
    let fresh = world.encrypt(plan.layout(), 30, &[1]);
    assert_eq!(holder.answer(&Scalar, &[9; 16], &fresh, &set), Err(HeError::OpeningsSpent { planned: 8 }));
    assert_eq!(holder.guard().len(), 8);
    assert_eq!(format!("{holder:?}"), "Holder(1, 8 answered, ..)");
}

#[test]
fn requests_beyond_the_plan_are_refused() {
    let (ring, threshold) = (key_ring(), Threshold::new(3, 2, 0).unwrap());
    let world = World::new(&ring, threshold, 14);
    let plan = plan(&ring, threshold, 2, 10);
    let layout = plan.layout();
    let set = HolderSet::new(threshold, &[1, 2]).unwrap();
    let ask = |sum: &Ciphertext, set: &HolderSet, j| world.holder(&plan, j).answer(&Scalar, &[1; 16], sum, set);
    let mut sum = world.encrypt(layout, 1, &[1]);
    assert_eq!(ask(&sum, &set, 3), Err(HeError::NotInSet { holder: 3 }));
    sum.add(&world.encrypt(layout, 2, &[1])).unwrap();
    ask(&sum, &set, 1).unwrap();
    sum.add(&world.encrypt(layout, 3, &[1])).unwrap();
    assert!(matches!(ask(&sum, &set, 1), Err(HeError::BeyondPlan { found: 3, planned: 2, .. })));
    let long = world.encrypt(layout, 1, &vec![1; 3 * layout.block(&ring)]);
    assert!(matches!(ask(&long, &set, 1), Err(HeError::BeyondPlan { found: 3, planned: 2, .. })));
    let larger = Threshold::new(3, 3, 0).unwrap();
    let all = HolderSet::new(larger, &[1, 2, 3]).unwrap();
    assert!(matches!(ask(&world.encrypt(layout, 1, &[1]), &all, 1), Err(HeError::Set { .. })));
    for bad in [vec![1], vec![1, 1], vec![0, 1], vec![1, 4], vec![1, 2, 3]] {
        assert!(HolderSet::new(threshold, &bad).is_err(), "{bad:?}");
    }
    // A plan with fewer bits than its flooding takes is none.
    let thin = veilsum::he::Layout::new(&ring, 10, 1, plan.flooding().offset(2) - 1).unwrap();
    let weights = veilsum::he::noise::Weights::equal(2);
    assert!(matches!(OpeningPlan::new(&ring, thin, threshold, weights, (8, 2, 40)), Err(HeError::OutOfRange { .. })));
}

#[test]
fn wrong_parts_open_nothing() {
    let (ring, threshold) = (key_ring(), Threshold::new(3, 2, 0).unwrap());
    let world = World::new(&ring, threshold, 15);
    let plan = plan(&ring, threshold, 2, 10);
    let sum = world.encrypt(plan.layout(), 1, &[7]);
    let set = HolderSet::new(threshold, &[1, 2]).unwrap();
    let second = HolderSet::new(threshold, &[2, 3]).unwrap();
    let part = |j, set: &HolderSet| world.holder(&plan, j).answer(&Scalar, &[1; 16], &sum, set).unwrap();
    let (one, two, three) = (part(1, &set), part(2, &set), part(3, &second));
    let open = |parts: &[PartialOpening]| combine(&Scalar, &plan, &[1; 16], &sum, parts);
    assert_eq!(open(&[two.clone(), one.clone()]).unwrap()[0], 7);
    assert!(matches!(open(&[]), Err(HeError::Set { .. })));
    assert!(matches!(open(std::slice::from_ref(&one)), Err(HeError::Missing { holder: 2, .. })));
    assert!(matches!(open(&[one.clone(), one.clone()]), Err(HeError::Duplicate { holder: 1, .. })));
    assert!(matches!(open(&[one.clone(), three]), Err(HeError::Set { .. })));
    let elsewhere = combine(&Scalar, &plan, &[2; 16], &sum, &[one.clone(), two.clone()]);
    assert!(matches!(elsewhere, Err(HeError::ForeignSession { .. })));
    let other = world.encrypt(plan.layout(), 2, &[7]);
    let foreign = combine(&Scalar, &plan, &[1; 16], &other, &[one.clone(), two]);
    assert!(matches!(foreign, Err(HeError::ForeignSession { .. })));
    // A part made with another share: the sum falls beyond its slots.
    let mut stranger = World::new(&ring, threshold, 16).holder(&plan, 2);
    let wrong = stranger.answer(&Scalar, &[1; 16], &sum, &set).unwrap();
    assert!(matches!(open(&[one, wrong]), Err(HeError::BeyondSlots { .. })));
}
