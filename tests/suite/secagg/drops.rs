//! Clients vanish at every step, frames arrive late, twice and in any order: the exact sum of the survivors, or nothing.

use proptest::prelude::*;
use veilsum::secagg::masks::{Deadlines, MasksClient, MasksServer, PHASES, Phase, Plan, Request, ServerModel};
use veilsum::secagg::{Output, Party, PartyId, VectorShape};

use super::net::{self, Weather};

const STEP: u64 = 1000;

fn deadlines() -> Deadlines {
    [STEP, 2 * STEP, 3 * STEP, 4 * STEP, 5 * STEP]
}

struct Played {
    output: Output,
    clients: Vec<Option<Output>>,
    vectors: Vec<Vec<u64>>,
    session: std::sync::Arc<veilsum::secagg::masks::Session>,
}

fn play(plan: Plan, shape: VectorShape, seed: u64, silent_after: Vec<Option<usize>>, delay: u64, twice: u64) -> Played {
    let n = plan.request().clients;
    let session = net::session_of(plan, shape, 1 + (seed % 200) as u32, Some(deadlines()));
    let vectors = net::vectors(n, shape, seed);
    let mut clients = net::clients(&session, &vectors);
    let mut server = MasksServer::new(&session, net::backend());
    let mut weather = Weather { random: net::reader(seed ^ 77), silent_after, delay, twice };
    let (output, ends) = net::play(&mut server, &mut clients, &mut weather);
    Played { output: output.expect("an output by the last deadline"), clients: ends, vectors, session }
}

/// The sum over the survivors, or an abort; true for a sum.
fn check(played: &Played) -> bool {
    match &played.output {
        Output::Sum { survivors, .. } => {
            assert_eq!(played.output, net::plain(&played.session, &played.vectors, survivors));
            assert!(survivors.len() >= played.session.plan().min_survivors());
            true
        }
        Output::Aborted { survivors, threshold } => {
            assert!(survivors < threshold || *threshold == played.session.plan().min_survivors());
            false
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_widths_and_graphs_give_the_sum_of_plain() {
    for server in [ServerModel::SemiHonest, ServerModel::Malicious] {
        let ring = Request { privacy_bits: 2, availability_bits: 0, ..Request::new(40, 1, 1, server) };
        let ring = Plan::choose(&ring).unwrap();
        assert!(!ring.is_complete(), "{ring}");
        let all = Plan::choose(&Request::new(5, 1, 1, server)).unwrap();
        for (plan, bits) in [(all, 1), (all, 2), (all, 16), (all, 31), (all, 32), (all, 33), (all, 63), (ring, 12)] {
            let n = plan.request().clients;
            let played = play(plan, VectorShape { len: 37, bits }, u64::from(bits), vec![None; n], 0, 0);
            assert!(check(&played), "{plan} {bits}: {:?}", played.output);
            let Output::Sum { survivors, .. } = &played.output else { unreachable!() };
            assert_eq!(survivors.len(), n);
            assert!(played.clients.iter().all(|c| *c == Some(Output::Delivered)));
        }
    }
}

/// Every client of every step, alone.
#[test]
fn one_client_lost_at_any_step_is_borne() {
    for server in [ServerModel::SemiHonest, ServerModel::Malicious] {
        let plan = Plan::choose(&Request::new(5, 0, 1, server)).unwrap();
        for lost in 0..5 {
            for frames in 0..5 {
                let mut silent = vec![None; 5];
                silent[lost] = Some(frames);
                let played = play(plan, VectorShape { len: 9, bits: 20 }, (lost * 5 + frames) as u64, silent, 100, 3);
                assert!(check(&played), "{lost} {frames}: {:?}", played.output);
                let Output::Sum { survivors, .. } = &played.output else { unreachable!() };
                // In the sum if its vector was sent: the third frame.
                assert_eq!(survivors.len(), if frames >= 3 { 5 } else { 4 });
            }
        }
    }
}

#[test]
fn too_many_lost_clients_abort_at_the_step_where_they_are_missed() {
    for server in [ServerModel::SemiHonest, ServerModel::Malicious] {
        let plan = Plan::complete(&Request::new(7, 1, 2, server)).unwrap();
        for frames in 0..5 {
            let silent = (0..7).map(|i| (i < 4).then_some(frames)).collect();
            let played = play(plan, VectorShape { len: 3, bits: 9 }, frames as u64, silent, 10, 0);
            let semi = server == ServerModel::SemiHonest;
            // With four frames a client of the shorter protocol is through.
            assert_eq!(check(&played), semi && frames == 4, "{server:?} {frames}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_losses_delays_and_repetitions_give_the_exact_sum_or_none(
        seed in any::<u64>(), lost in proptest::collection::vec((0usize..9, 0usize..6), 0..5), late in any::<bool>(),
        malicious in any::<bool>(), bits in 1u32..=63,
    ) {
        let server = if malicious { ServerModel::Malicious } else { ServerModel::SemiHonest };
        let plan = Plan::choose(&Request::new(9, 1, 3, server)).unwrap();
        let mut silent = vec![None; 9];
        for (client, frames) in &lost {
            silent[*client] = Some(*frames);
        }
        let gone = silent.iter().flatten().filter(|&&frames| frames < 5).count();
        let delay = if late { STEP } else { STEP / 3 };
        let played = play(plan, VectorShape { len: 11, bits }, seed, silent, delay, 2);
        let sum = check(&played);
        if !late && gone <= 3 {
            prop_assert!(sum, "{:?}", played.output);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_sparse_graph_bears_losses_too(seed in any::<u64>(), lost in proptest::collection::btree_map(0usize..40, 0usize..5, 0..4)) {
        let request = Request { privacy_bits: 2, availability_bits: 0, ..Request::new(40, 1, 2, ServerModel::Malicious) };
        let plan = Plan::choose(&request).unwrap();
        prop_assert!(!plan.is_complete());
        let silent: Vec<Option<usize>> = (0..40).map(|i| lost.get(&i).copied()).collect();
        let gone = lost.len();
        let played = play(plan, VectorShape { len: 4, bits: 16 }, seed, silent, STEP / 3, 3);
        let sum = check(&played);
        // Never more than D neighbors of anybody.
        if gone <= plan.missing() {
            prop_assert!(sum, "{:?}", played.output);
        }
    }
}

#[test]
fn bytes_are_counted_where_they_are_sent() {
    let plan = Plan::choose(&Request::new(5, 1, 1, ServerModel::Malicious)).unwrap();
    let shape = VectorShape { len: 100, bits: 16 };
    let session = net::session_of(plan, shape, 3, None);
    let vectors = net::vectors(5, shape, 1);
    let mut clients = net::clients(&session, &vectors);
    let mut server = MasksServer::new(&session, net::backend());
    let mut weather = Weather { random: net::reader(4), silent_after: vec![None; 5], delay: 5, twice: 2 };
    let (output, _) = net::play(&mut server, &mut clients, &mut weather);
    assert!(matches!(output, Some(Output::Sum { .. })));
    // Header 44, signature 64; four neighbors; a sealed pair of shares 96; a share 40.
    let expected = [44 + 96 + 64, 44 + 4 + 4 * 100 + 64, 44 + 200 + 64, 44 + 64, 44 + 4 + 5 * 45 + 64];
    for client in &clients {
        let sent: Vec<u64> = client.traffic().sent.iter().map(|c| c.bytes).collect();
        assert_eq!(sent, expected);
        assert_eq!(client.traffic().bytes_sent(), expected.iter().sum::<u64>());
    }
    for phase in PHASES {
        let at = phase as usize;
        assert_eq!(server.traffic().received[at].bytes, 5 * expected[at], "{phase:?}");
        let heard: u64 = clients.iter().map(|c| c.traffic().received[at].bytes).sum();
        assert_eq!(server.traffic().sent[at].bytes, heard, "{phase:?}");
    }
    assert_eq!(server.traffic().received[Phase::Input as usize].frames, 5);
}

/// A client without its vector keys itself; the vector comes when it is asked for it.
#[test]
fn a_vector_may_come_late() {
    let plan = Plan::choose(&Request::new(3, 0, 0, ServerModel::SemiHonest)).unwrap();
    let shape = VectorShape { len: 6, bits: 16 };
    let session = net::session_of(plan, shape, 3, None);
    let vectors = net::vectors(3, shape, 1);
    let mut clients: Vec<MasksClient> = (0..3)
        .map(|i| MasksClient::new(&session, net::id(i), &net::identity(i), &net::secret(i), net::backend()).unwrap())
        .collect();
    let mut server = MasksServer::new(&session, net::backend());
    let calm = || Weather { random: net::reader(4), silent_after: vec![None; 3], delay: 5, twice: 0 };
    assert_eq!(net::play(&mut server, &mut clients, &mut calm()).0, None);
    for (client, vector) in clients.iter_mut().zip(&vectors) {
        assert!(client.wants_vector() && client.poll_output().is_none());
        let bytes = net::packed(shape, vector);
        assert!(client.submit(&bytes[1..]).is_err());
        client.submit(&bytes).unwrap();
        assert!(client.submit(&bytes).is_err() && !client.wants_vector());
    }
    let (output, _) = net::play(&mut server, &mut clients, &mut calm());
    assert_eq!(output.unwrap(), net::plain(&session, &vectors, session.cohort()));
}

/// A client that crashed and begins again with the same secret sends the same bytes.
#[test]
fn a_retry_repeats_its_bytes_and_another_attempt_does_not() {
    let plan = Plan::choose(&Request::new(4, 0, 1, ServerModel::Malicious)).unwrap();
    let shape = VectorShape { len: 6, bits: 16 };
    let vectors = net::vectors(4, shape, 1);
    let transcript = |round: u32| {
        let session = net::session_of(plan, shape, round, None);
        let mut clients = net::clients(&session, &vectors);
        let mut server = MasksServer::new(&session, net::backend());
        let mut frames = Vec::new();
        while server.phase().is_some() {
            while let Some(t) = server.poll_transmit() {
                let i = session.cohort().iter().position(|&c| t.to == PartyId::Client(c)).unwrap();
                clients[i].handle(PartyId::Server, &t.frame).unwrap();
            }
            for (i, client) in clients.iter_mut().enumerate() {
                while let Some(t) = client.poll_transmit() {
                    server.handle(PartyId::Client(net::id(i)), &t.frame).unwrap();
                    frames.push(t.frame);
                }
            }
        }
        frames
    };
    let (first, again, other) = (transcript(1), transcript(1), transcript(2));
    assert_eq!(first.len(), 20);
    assert_eq!(first, again);
    assert!(first.iter().zip(&other).all(|(a, b)| a[44..] != b[44..]));
}
