//! Rounds: exact sums of the survivors whatever is lost, or a clean abort.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use veilsum::he::OpeningGuard;
use veilsum::secagg::mphe::{MpheClient, MpheServer, Phase, Plan, Request, RoundFault, RoundSession, Setup, Trust};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, VectorShape};

use super::world::{self, Round, Weather, request};
use crate::secagg::net;

const TRUSTS: [Trust; 2] = [Trust::SemiHonestServer, Trust::HonestRoster];

#[test]
fn all_widths_give_the_sum_of_plain() {
    // Widths and bounds: every residue of the ring, and less than that; d that fills blocks and that does not.
    for (epoch, (bits, bound, len)) in
        [(1, 1, 1), (2, 2, 9000), (16, 1 << 15, 37), (16, 1000, 5), (32, 1 << 31, 20), (40, 1 << 30, 4)]
            .into_iter()
            .enumerate()
    {
        let wanted = Request { shape: VectorShape { len, bits }, bound, ..request(Trust::HonestRoster, 16) };
        let keys = world::keys(&Plan::choose(wanted).unwrap(), epoch as u8);
        let mut round = Round::new(&keys, world::round(&keys, 1, 0, true), u64::from(bits));
        let outputs = round.play(&mut Weather::calm());
        let everybody = round.session.cohort().to_vec();
        assert_eq!(outputs[0], Some(round.plain(&everybody)), "{bits} {bound} {len} {:?}", round.server.fault());
        assert!(outputs[1..5].iter().all(|o| *o == Some(Output::Delivered)));
    }
}

/// Extremes of the ring all at once, where a field without room would carry into the next.
#[test]
fn the_greatest_sums_fit_their_fields() {
    let keys = world::usual(Trust::SemiHonestServer);
    for value in [0x8000u64, 0x7fff] {
        let session = world::round(keys, value as u32, 0, true);
        let mut round = Round::new(keys, Arc::clone(&session), 1);
        round.vectors = vec![vec![value; 11]; 4];
        round.clients = round.vectors.iter().enumerate().map(|(i, v)| world::client(&session, i, v)).collect();
        let outputs = round.play(&mut Weather::calm());
        assert_eq!(outputs[0], Some(round.plain(session.cohort())));
    }
}

/// The output of a round with a weather; true for a sum, which is that of plain over the survivors.
fn check(round: &mut Round, weather: &mut Weather) -> bool {
    let outputs = round.play(weather);
    match outputs[0].as_ref().expect("an output by the last deadline") {
        output @ Output::Sum { survivors, .. } => {
            assert_eq!(*output, round.plain(survivors));
            assert!(survivors.len() >= round.session.min_survivors() && round.server.fault().is_none());
            true
        }
        Output::Aborted { survivors, threshold } => {
            let fault = round.server.fault().unwrap();
            assert!(survivors < threshold || matches!(fault, RoundFault::Sets { .. }), "{fault}");
            false
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_losses_delays_and_repetitions_give_the_exact_sum_or_none(
        seed in any::<u64>(),
        clients in proptest::collection::btree_set(0usize..4, 0..4),
        holders in proptest::collection::btree_map(1u16..=4, 0usize..2, 0..3),
        late in any::<bool>(), honest_roster in any::<bool>(),
    ) {
        let keys = world::usual(TRUSTS[usize::from(honest_roster)]);
        let mut round = Round::new(keys, world::round(keys, (seed >> 40) as u32, 0, true), seed);
        let mut silent_after = BTreeMap::new();
        silent_after.extend(clients.iter().map(|&i| (PartyId::Client(net::id(i)), 0)));
        silent_after.extend(holders.iter().map(|(&j, &frames)| (PartyId::Holder(j), frames)));
        let delay = if late { world::STEP } else { world::STEP / 3 };
        let mut weather = Weather { random: net::reader(seed), silent_after, delay, twice: 2, capture: Vec::new() };
        let sum = check(&mut round, &mut weather);
        if !late {
            // Three of four open, and a holder that vanishes between signing and answering costs a second set.
            prop_assert_eq!(sum, clients.len() <= 2 && holders.len() <= 1, "{:?}", round.server.fault());
        }
        for (holder, keys) in round.holders.iter().zip(&keys.holders) {
            prop_assert!(holder.guard().len() <= 2, "{}", keys.holder());
        }
    }
}

#[test]
fn a_second_set_is_another_release_and_a_third_is_not_made() {
    let keys = world::usual(Trust::SemiHonestServer);
    // Without delays the first three holders are asked first.
    let in_order = || Weather { delay: 0, ..Weather::calm() };
    let mut weather = in_order();
    weather.silent_after.insert(PartyId::Holder(2), 1);
    let mut round = Round::new(keys, world::round(keys, 1, 0, true), 1);
    assert!(check(&mut round, &mut weather), "{:?}", round.server.fault());
    assert_eq!(round.server.sets_asked(), 2);
    let counts: Vec<u64> = round.holders.iter().map(|h| h.guard().len()).collect();
    assert_eq!(counts, [2, 0, 2, 1], "sets 1, 2, 3 and 1, 3, 4; holder 2 was gone");
    // Two such holders: three of four are not left.
    weather.silent_after.insert(PartyId::Holder(3), 1);
    let mut round = Round::new(keys, world::round(keys, 2, 0, true), 1);
    assert!(!check(&mut round, &mut weather));
    let fault = round.server.fault().unwrap();
    assert!(matches!(fault, RoundFault::Holders { phase: Phase::Open, found: 2, needed: 3, .. }), "{fault}");
    assert!(fault.to_string().contains("2, 3"), "{fault}");
    // Without a spare set the first loss ends the round.
    let plan = Plan::choose(Request { spare_sets: 0, ..request(Trust::SemiHonestServer, 16) }).unwrap();
    let strict = world::keys(&plan, 3);
    let mut round = Round::new(&strict, world::round(&strict, 1, 0, true), 1);
    let mut weather = in_order();
    weather.silent_after.insert(PartyId::Holder(1), 1);
    assert!(!check(&mut round, &mut weather));
    assert_eq!(*round.server.fault().unwrap(), RoundFault::Sets { asked: 1, silent: vec![1] });
}

#[test]
fn the_key_serves_as_many_openings_as_planned() {
    let plan = Plan::choose(Request { rounds: 2, spare_sets: 0, ..request(Trust::SemiHonestServer, 8) }).unwrap();
    let keys = world::keys(&plan, 4);
    let mut guards = vec![OpeningGuard::default(); 4];
    for number in 1..=3 {
        let session = world::round(&keys, number, 0, true);
        let mut round = Round::new(&keys, Arc::clone(&session), u64::from(number));
        let kept = keys.holders.iter().zip(&guards);
        round.holders = kept.map(|(keys, guard)| world::holder(&session, keys, guard.clone())).collect();
        if number < 3 {
            assert!(check(&mut round, &mut Weather { delay: 0, ..Weather::calm() }));
            guards = round.holders.iter().map(|h| h.guard().clone()).collect();
            continue;
        }
        let error = round.openings().into_iter().map(|(to, frame)| {
            let PartyId::Holder(j) = to else { panic!("{to}") };
            round.holders[usize::from(j) - 1].handle(PartyId::Server, &frame).unwrap_err()
        });
        let errors: Vec<SecAggError> = error.collect();
        assert!(errors.iter().all(|e| e.to_string().contains("all 2 openings")), "{errors:?}");
    }
}

#[test]
fn bytes_are_counted_where_they_are_sent() {
    let keys = world::usual(Trust::SemiHonestServer);
    let mut round = Round::new(keys, world::round(keys, 1, 0, false), 3);
    assert!(check(&mut round, &mut Weather { twice: 2, ..Weather::calm() }));
    let (plan, server) = (round.session.plan().clone(), round.server.traffic());
    let input = 44 + 64 + plan.choice().ciphertext_bytes + 8 + 4 * plan.ring().limbs() as u64 + 24;
    for client in &round.clients {
        assert_eq!(client.traffic().bytes_sent(), input);
        assert_eq!(client.traffic().bytes_received(), 44 + 32);
    }
    assert_eq!(server.received[Phase::Input as usize].bytes, 4 * input);
    let heard: u64 = round.holders.iter().map(|h| h.traffic().received[Phase::Agree as usize].bytes).sum();
    assert_eq!(server.sent[Phase::Agree as usize].bytes, heard);
    assert_eq!(server.sent[Phase::Open as usize].frames, 3);
    assert_eq!(server.received[Phase::Open as usize].frames, 3);
    // The holders of an honest roster get every ciphertext.
    let keys = world::usual(Trust::HonestRoster);
    let mut all = Round::new(keys, world::round(keys, 1, 0, false), 3);
    assert!(check(&mut all, &mut Weather::calm()));
    let [few, many] = [&round, &all].map(|r| r.server.traffic().sent[Phase::Agree as usize].bytes);
    assert!(many > few + 4 * 3 * plan.choice().ciphertext_bytes, "{few} {many}");
}

/// A client that comes late needs the bytes of the key; one without a vector waits for it.
#[test]
fn late_clients_and_late_vectors() {
    let keys = world::usual(Trust::SemiHonestServer);
    let bytes = keys.key.to_bytes();
    let key =
        veilsum::secagg::mphe::SignedKey::from_bytes(&world::key_session(keys.key.session().plan(), 1, false), &bytes);
    let session = world::round(keys, 5, 0, false);
    let own = RoundSession::new(Setup {
        id: session.id(),
        cohort: session.cohort().to_vec(),
        roster: net::roster(4),
        key: Arc::new(key.unwrap()),
        deadlines: None,
    })
    .unwrap();
    assert_eq!(own.context(), session.context());
    let mut round = Round::new(keys, session, 1);
    round.clients = (0..4)
        .map(|i| MpheClient::new(&own, net::id(i), &net::identity(i), &net::secret(i), net::backend()).unwrap())
        .collect();
    assert_eq!(round.play(&mut Weather::calm())[0], None);
    for (client, vector) in round.clients.iter_mut().zip(&round.vectors) {
        assert!(client.wants_vector() && client.poll_output().is_none());
        let bytes = net::packed(own.shape(), vector);
        assert!(client.submit(&bytes[1..]).is_err());
        client.submit(&bytes).unwrap();
        assert!(client.submit(&bytes).is_err() && !client.wants_vector());
    }
    let output = round.play(&mut Weather::calm()).remove(0);
    assert_eq!(output, Some(round.plain(own.cohort())));
}

/// A client that crashed and begins again repeats its bytes; other data have other randomness, also in one attempt.
#[test]
fn a_retry_repeats_its_bytes_and_other_data_share_nothing() {
    let keys = world::usual(Trust::SemiHonestServer);
    let frame = |attempt, value| {
        let session = world::round(keys, 1, attempt, false);
        let mut server = MpheServer::new(&session, net::backend());
        let mut client = world::client(&session, 0, &[value; 11]);
        client.handle(PartyId::Server, &server.poll_transmit().unwrap().frame).unwrap();
        client.poll_transmit().unwrap().frame
    };
    let first = frame(0, 5);
    assert_eq!(first, frame(0, 5));
    for other in [frame(1, 5), frame(0, 6)] {
        // One byte in 256 is equal by chance; equal u or errors would make the second halves equal.
        let (a, b) = (&first[120..first.len() - 64], &other[120..other.len() - 64]);
        let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
        assert!(equal < a.len() / 200, "{equal} of {}", a.len());
    }
}

#[test]
fn rounds_that_do_not_fit_their_key_are_refused() {
    let keys = world::usual(Trust::SemiHonestServer);
    let good = |cohort: Vec<u64>| Setup {
        id: world::round(keys, 1, 0, false).id(),
        cohort,
        roster: net::roster(9),
        key: Arc::clone(&keys.key),
        deadlines: None,
    };
    let ids = |n: usize| (0..n).map(net::id).collect::<Vec<u64>>();
    RoundSession::new(good(ids(4))).unwrap();
    RoundSession::new(good(ids(2))).unwrap();
    let refused = |cohort| RoundSession::new(good(cohort)).unwrap_err();
    // More clients than the fields have room for, fewer than are opened, one twice, an unknown one.
    for cohort in
        [ids(5), ids(1), vec![], vec![net::id(1), net::id(1)], vec![net::id(0), 8], vec![net::id(1), net::id(0)]]
    {
        let error = refused(cohort.clone());
        assert!(matches!(error, SecAggError::OutOfRange { .. } | SecAggError::Identity { .. }), "{cohort:?} {error}");
    }
}
