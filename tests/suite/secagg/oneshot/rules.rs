//! What holders tell about different sets is nothing together; and what lesser rules would give away.

use std::sync::Arc;

use veilsum::math::packed::{P, Packing, PackingError};
use veilsum::secagg::oneshot::{Plan, Request};
use veilsum::secagg::{Party, PartyId, SecAggError};

use super::super::net;
use super::rogue::{relays, request, values};
use super::{SHAPE, Stage, holder, plan};

/// Two stories, told to different holders, with a corrupt one that answers both: neither opens.
#[test]
fn two_sets_are_not_opened_side_by_side() {
    let mut stage = Stage::new(plan(4), 1);
    let session = Arc::clone(&stage.session);
    let (_, frames) = relays(&mut stage);
    let sets = [vec![true; 4], vec![true, true, false, true]];
    let mut answers = [Vec::new(), Vec::new()];
    for (number, stories) in [(1, vec![0]), (2, vec![0]), (3, vec![1]), (4, vec![1]), (5, vec![0, 1])] {
        let at = usize::from(number) - 1;
        for story in stories {
            let mut party = holder(&session, number, None);
            frames[at].iter().for_each(|frame| party.handle(PartyId::Server, frame).unwrap());
            party.handle(PartyId::Server, &request(&session, number, &sets[story], &frames[at])).unwrap();
            answers[story].push((number, values(&session, &party.poll_transmit().unwrap().frame)));
        }
    }
    for answers in &answers {
        let shares: Vec<(u16, &[u32])> = answers.iter().map(|(j, v)| (*j, &v[..])).collect();
        let packing = session.plan().packing();
        assert_eq!(packing.open(&shares), Err(PackingError::TooFew { found: 3, needed: 4 }));
        // Three answers, and three tell nothing.
        assert_eq!(usize::from(packing.hidden()), shares.len());
    }
}

/// Why the rule is about `t - l + 1` and not about t: K = 4, f = 1, t = 3 > (K + f)/2, l = 2 would satisfy `f + l <= t`. The
/// server opens one set with holders 1 and 2 and the corrupt one, tells holder 3 another, and has one equation mod p of two
/// coefficients of the victim's key: hardly any small numbers solve it.
#[test]
fn packing_beyond_the_rule_uncovers_keys() {
    let asked = Request { packing: Some(2), ..Request::new(4, SHAPE, 1 << 15, (4, 3, 1)) };
    assert!(matches!(Plan::choose(&asked), Err(SecAggError::OutOfRange { name: "needed holders", found: 3, .. })));
    let asked = Request { needed: 4, ..asked };
    assert!(matches!(Plan::choose(&asked), Err(SecAggError::OutOfRange { name: "packing", found: 2, .. })));
    let packing = Packing::new(4, 3, 2).unwrap();
    let mut r = net::reader(8);
    let mut deal = |secrets: [u32; 2]| packing.deal(&secrets, &[r.below(u64::from(P)) as u32]).unwrap().to_vec();
    let victim = [37, 5];
    let (own, others) = (deal(victim), deal([30, 60]));
    let sum = |j: usize| (own[j] + others[j]) % P;
    let all = [sum(0), sum(1), sum(3)];
    let all = packing.open(&[(1, &all[..1]), (2, &all[1..2]), (4, &all[2..])]).unwrap().secrets;
    assert_eq!(all, [67, 65]);
    // The answers for the set without the victim: of holder 3, and of the corrupt one, which is holder 4.
    let (third, fourth) = (others[2], others[3]);
    let fits = |a: u32, b: u32| {
        // Secrets of the set without the victim if its key were (a, b): with them and one of the two answers the polynomial
        // is known, and gives the other.
        let secrets = [all[0].wrapping_sub(a), all[1].wrapping_sub(b)];
        secrets.iter().all(|&s| s < P)
            && (0..2).all(|z| secrets[z] <= 42 * 3)
            && same_line(&packing, secrets, (third, fourth))
    };
    let found: Vec<[u32; 2]> =
        (0..=42).flat_map(|a| (0..=42).map(move |b| [a, b])).filter(|&[a, b]| fits(a, b)).collect();
    assert!(found.contains(&victim) && found.len() < 8, "of 1849 keys these are left: {found:?}");
    // Within the rule, l = 1, the same two answers fit every key.
    let packing = Packing::new(4, 3, 1).unwrap();
    let shares = packing.deal(&[60], &[123_456, 654_321]).unwrap();
    assert_eq!(
        packing.open(&[(3, &shares[2..3]), (4, &shares[3..4])]).unwrap_err(),
        PackingError::TooFew { found: 2, needed: 3 }
    );
}

/// Why the rule is about two thirds: with t = 2 of three honest holders, l = 1, no two sets are opened side by side, but three
/// holders that are told three sets give a combination of two sums.
#[test]
fn sets_are_not_mixed() {
    let asked = Request::new(4, SHAPE, 1 << 15, (3, 2, 0));
    assert!(matches!(Plan::choose(&asked), Err(SecAggError::OutOfRange { name: "needed holders", found: 2, .. })));
    let packing = Packing::new(3, 2, 1).unwrap();
    let mut r = net::reader(9);
    let mut deal = |secret: u32| packing.deal(&[secret], &[r.below(u64::from(P)) as u32]).unwrap().to_vec();
    let (u, v) = (deal(1234), deal(777));
    let p = i128::from(P);
    // Secrets lie at -1: the weights of (1, 2) and (1, 3) for the value there are (3, -2) and (2, -1).
    let at_one = i128::from((u[0] + v[0]) % P);
    let mixed = (6 * at_one - 4 * i128::from(u[1]) - 3 * i128::from(v[2])).rem_euclid(p);
    assert_eq!(mixed, 2 * 1234 + 3 * 777, "twice the one sum and three times the other");
    // With t = 3 no two of the three fit a polynomial alone, and nothing cancels.
    let packing = Packing::new(3, 3, 1).unwrap();
    let mut deal = |secret: u32| packing.deal(&[secret], &[r.below(u64::from(P)) as u32, 5]).unwrap().to_vec();
    let (u, v) = (deal(1234), deal(777));
    let at_one = i128::from((u[0] + v[0]) % P);
    assert_ne!((6 * at_one - 4 * i128::from(u[1]) - 3 * i128::from(v[2])).rem_euclid(p), 2 * 1234 + 3 * 777);
}

/// Whether some share 1 gives the shares 3 and 4 with these secrets: both are affine in it.
fn same_line(packing: &Packing, secrets: [u32; 2], (third, fourth): (u32, u32)) -> bool {
    let at = |x: u32| packing.deal(&secrets, &[x]).unwrap().to_vec();
    let (zero, one) = (at(0), at(1));
    let p = u64::from(P);
    let minus = |a: u32, b: u32| (u64::from(a) + p - u64::from(b)) % p;
    let slopes = [2, 3].map(|j| minus(one[j], zero[j]));
    minus(third, zero[2]) * slopes[1] % p == minus(fourth, zero[3]) * slopes[0] % p
}
