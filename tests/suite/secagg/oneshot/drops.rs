//! Clients and holders vanish at every step, frames arrive late, twice, in any order or never: the exact sum of those who
//! delivered, or nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use veilsum::math::prg::StreamReader;
use veilsum::secagg::oneshot::{OneshotClient, OneshotServer, PHASES, Phase, Plan, Request, Weighting};
use veilsum::secagg::{Output, Party, PartyId, SecAggError, VectorShape};

use super::super::net;
use super::{Stage, plain, plan, session};

const STEP: u64 = 1000;

/// What happens to whom.
struct Weather {
    random: StreamReader,
    /// Frames that a client or a holder hears before it is gone; `None` stays.
    clients: Vec<Option<usize>>,
    holders: Vec<Option<usize>>,
    /// Gone before its answer leaves it, all the same.
    mute: Vec<bool>,
    /// One in so many frames to a holder is lost; 0 none.
    lost: u64,
    delay: u64,
}

/// Everything that happens until nothing more does.
fn play(stage: &mut Stage, weather: &mut Weather) -> Option<Output> {
    let mut air: BTreeMap<(u64, u64), (PartyId, PartyId, Vec<u8>)> = BTreeMap::new();
    let (mut now, mut serial, mut output) = (0u64, 0u64, None);
    let mut refusals: Vec<SecAggError> = Vec::new();
    let mut heard = (vec![0usize; stage.clients.len()], vec![0usize; stage.holders.len()]);
    loop {
        let mut new = Vec::new();
        while let Some(t) = stage.server.poll_transmit() {
            new.push((PartyId::Server, t.to, t.frame));
        }
        for (i, client) in stage.clients.iter_mut().enumerate() {
            while let Some(t) = client.poll_transmit() {
                new.push((PartyId::Client(net::id(i)), t.to, t.frame));
            }
        }
        for (j, holder) in stage.holders.iter_mut().enumerate() {
            while let Some(t) = holder.poll_transmit() {
                if !weather.mute[j] {
                    new.push((PartyId::Holder(j as u16 + 1), t.to, t.frame));
                }
            }
        }
        for flight in new {
            let falls = weather.lost > 0 && matches!(flight.1, PartyId::Holder(_));
            if falls && weather.random.below(weather.lost) == 0 {
                continue;
            }
            for _ in 0..=usize::from(weather.random.below(4) == 0) {
                serial += 1;
                air.insert((now + weather.random.below(weather.delay + 1), serial), flight.clone());
            }
        }
        output = output.or_else(|| stage.server.poll_output());
        let timeouts =
            stage.clients.iter().map(Party::poll_timeout).chain(stage.holders.iter().map(Party::poll_timeout));
        let timeout = timeouts.chain([stage.server.poll_timeout()]).flatten().min();
        match (air.keys().next().map(|(at, _)| *at), timeout) {
            (None, None) => break,
            (at, Some(timeout)) if at.is_none_or(|at| timeout < at) => {
                now = now.max(timeout);
                stage.server.handle_timeout(now);
                stage.clients.iter_mut().for_each(|c| c.handle_timeout(now));
                stage.holders.iter_mut().for_each(|h| h.handle_timeout(now));
            }
            _ => {
                let ((at, _), (from, to, frame)) = air.pop_first().unwrap();
                now = at;
                let gone = |most: Option<usize>, heard: &mut usize| {
                    *heard += 1;
                    most.is_some_and(|most| *heard > most)
                };
                let result = match to {
                    PartyId::Server => stage.server.handle(from, &frame),
                    PartyId::Client(client) => {
                        let i = stage.session.index(client).unwrap();
                        if gone(weather.clients[i], &mut heard.0[i]) {
                            continue;
                        }
                        stage.clients[i].handle(from, &frame)
                    }
                    PartyId::Holder(number) => {
                        let j = usize::from(number) - 1;
                        if gone(weather.holders[j], &mut heard.1[j]) {
                            continue;
                        }
                        stage.holders[j].handle(from, &frame)
                    }
                };
                refusals.extend(result.err());
            }
        }
    }
    let fine = |e: &SecAggError| {
        use SecAggError::{AnotherSet, Duplicate, HolderAnswered, Late};
        matches!(e, Late | Duplicate { .. } | HolderAnswered { .. } | AnotherSet)
    };
    assert!(refusals.iter().all(fine), "{refusals:?}");
    output
}

fn calm(stage: &Stage, seed: u64) -> Weather {
    Weather {
        random: net::reader(seed),
        clients: vec![None; stage.clients.len()],
        holders: vec![None; stage.holders.len()],
        mute: vec![false; stage.holders.len()],
        lost: 0,
        delay: STEP / 5,
    }
}

/// The sum over the survivors, or an abort; true for a sum.
fn check(stage: &Stage, output: &Output) -> bool {
    let request = stage.session.plan().request();
    match output {
        Output::Sum { survivors, .. } => {
            assert_eq!(*output, plain(&stage.session, &stage.integers, survivors));
            assert!(survivors.len() >= request.min_survivors);
            true
        }
        Output::Aborted { survivors, threshold } => {
            assert!(survivors < threshold);
            assert!([request.min_survivors, usize::from(request.needed)].contains(threshold));
            false
        }
        other @ Output::Delivered => panic!("{other:?}"),
    }
}

/// Every client before it hears, every holder after every number of frames, alone.
#[test]
fn one_party_lost_at_any_step_is_borne() {
    for client in 0..4 {
        let mut stage = Stage::new(plan(4), 1 + client as u32);
        let mut weather = calm(&stage, client as u64);
        weather.clients[client] = Some(0);
        let output = play(&mut stage, &mut weather).unwrap();
        assert!(check(&stage, &output));
        assert!(matches!(output, Output::Sum { survivors, .. } if survivors.len() == 3));
    }
    for frames in 0..6 {
        let mut stage = Stage::new(plan(4), 40 + frames as u32);
        let mut weather = calm(&stage, frames as u64);
        weather.holders[frames % 5] = Some(frames);
        weather.mute[frames % 5] = frames == 5;
        let output = play(&mut stage, &mut weather).unwrap();
        assert!(check(&stage, &output), "{frames}");
        assert!(matches!(output, Output::Sum { survivors, .. } if survivors.len() == 4));
    }
}

#[test]
fn too_few_holders_or_clients_abort() {
    let mut stage = Stage::new(plan(4), 1);
    let mut weather = calm(&stage, 5);
    (weather.holders[0], weather.mute[3]) = (Some(2), true);
    assert_eq!(play(&mut stage, &mut weather), Some(Output::Aborted { survivors: 3, threshold: 4 }));
    let mut stage = Stage::new(plan(4), 1);
    let mut weather = calm(&stage, 5);
    weather.clients = vec![Some(0), Some(0), Some(0), None];
    assert_eq!(play(&mut stage, &mut weather), Some(Output::Aborted { survivors: 1, threshold: 2 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_losses_delays_and_repetitions_give_the_exact_sum_or_none(
        seed in any::<u64>(), clients in proptest::collection::vec(0usize..6, 0..3),
        holders in proptest::collection::vec((0usize..5, 0usize..9), 0..3), mute in proptest::option::of(0usize..5),
        lost in 0u64..30, late in any::<bool>(), bits in 1u32..=40, weighted in 0usize..3,
    ) {
        let weights = match weighted {
            0 => Weighting::Equal,
            1 => Weighting::Inside((1..=6).collect()),
            _ => Weighting::Server(vec![3, 1, 2, 1, 1, 3]),
        };
        let shape = VectorShape { len: 11, bits };
        let request = Request { weights, ..Request::new(6, shape, 1 << (seed % 24), (5, 4, 1)) };
        let mut stage = Stage::new(Plan::choose(&request).unwrap(), 1 + (seed % 200) as u32);
        let mut weather = calm(&stage, seed);
        weather.delay = if late { STEP } else { STEP / 5 };
        weather.lost = if lost < 20 { 0 } else { lost };
        clients.iter().for_each(|&i| weather.clients[i] = Some(0));
        holders.iter().for_each(|&(j, frames)| weather.holders[j] = Some(frames));
        mute.iter().for_each(|&j| weather.mute[j] = true);
        let output = play(&mut stage, &mut weather).unwrap();
        let sum = check(&stage, &output);
        let gone = weather.holders.iter().zip(&weather.mute).filter(|(h, m)| h.is_some() || **m).count();
        if !late && weather.lost == 0 && gone <= 1 {
            prop_assert!(sum, "{output:?}");
        }
        prop_assert!(stage.clients.iter_mut().all(|c| c.poll_timeout().is_none()), "nobody waits for ever");
        prop_assert!(stage.holders.iter_mut().all(|h| h.poll_timeout().is_none()));
    }
}

#[test]
fn bytes_are_counted_where_they_are_sent() {
    let mut stage = Stage::new(plan(3), 4);
    // In order: nobody asks for what is still on its way.
    let mut weather = Weather { delay: 0, ..calm(&stage, 9) };
    assert!(matches!(play(&mut stage, &mut weather), Some(Output::Sum { .. })));
    let plan = stage.session.plan();
    let message = plan.message_bytes() as u64;
    // Header 44, signature 64; a share of 30 bits a column; five holders, so that a path has three hashes.
    let share = (plan.share_len() as u64 * 30).div_ceil(8);
    let blocks = plan.vector().blocks * plan.vector().ring.len() as u64 * 30 / 8;
    assert_eq!(message, 44 + 36 + blocks + 5 * (share + 16) + 64);
    for client in &stage.clients {
        assert_eq!((client.traffic().bytes_sent(), client.traffic().received[0].bytes), (message, 44 + 32));
    }
    let relay = 44 + 4 + 100 + 64 + 3 * 32 + share + 16;
    let (received, sent) = (stage.server.traffic().received, stage.server.traffic().sent);
    assert_eq!(received[Phase::Input as usize].bytes, 3 * message);
    assert_eq!(sent[Phase::Input as usize].bytes, 3 * 76 + 15 * relay);
    assert_eq!(sent[Phase::Open as usize].bytes, 5 * (44 + 1 + 32));
    assert_eq!(received[Phase::Open as usize].bytes, 5 * (44 + share + 64));
    for phase in PHASES {
        let told: u64 = stage.holders.iter().map(|h| h.traffic().sent[phase as usize].bytes).sum();
        assert!(phase == Phase::Input || told == received[phase as usize].bytes);
    }
}

/// What waits at the server does not grow with the clients that have delivered.
#[test]
fn the_server_holds_the_shares_of_one_client() {
    let n = 12;
    let session = session(plan(n), 8, None);
    let integers = super::integers(session.plan(), 2);
    let mut server = OneshotServer::new(&session, net::backend());
    let (start, mut most, mut relays) = (server.held_bytes(), 0, 0);
    while let Some(request) = server.poll_transmit() {
        match request.to {
            PartyId::Client(id) => {
                let i = session.index(id).unwrap();
                let mut client = super::client(&session, i, &integers[i]);
                client.handle(PartyId::Server, &request.frame).unwrap();
                server.handle(request.to, &client.poll_transmit().unwrap().frame).unwrap();
            }
            _ => relays += 1,
        }
        most = most.max(server.held_bytes());
    }
    assert_eq!(relays, 5 * n + 5, "a share of each client and the request to open");
    let of_one = session.plan().message_bytes();
    assert!(most < start + of_one, "{start} bytes, then {most} with messages of {of_one}");
}

/// A client without its vector waits for it; the server at its deadline does not.
#[test]
fn a_vector_may_come_late() {
    let session = session(plan(3), 3, None);
    let integers = super::integers(session.plan(), 1);
    let mut server = OneshotServer::new(&session, net::backend());
    let mut client =
        OneshotClient::new(&session, net::id(1), &net::identity(1), &net::secret(1), net::backend()).unwrap();
    let announce = server.poll_transmit().unwrap();
    assert_eq!(announce.to, PartyId::Client(net::id(0)));
    assert!(client.handle(PartyId::Server, &announce.frame).is_err(), "that of another client");
    let announce = server.poll_transmit().unwrap();
    client.handle(PartyId::Server, &announce.frame).unwrap();
    assert_eq!(client.handle(PartyId::Server, &announce.frame), Err(SecAggError::Late));
    assert!(client.wants_vector() && client.poll_transmit().is_none() && client.poll_output().is_none());
    let bytes = super::packed(session.input_shape(), &integers[1]);
    assert!(client.submit(&bytes[1..]).is_err());
    client.submit(&bytes).unwrap();
    assert!(client.submit(&bytes).is_err() && !client.wants_vector());
    server.handle(PartyId::Client(net::id(1)), &client.poll_transmit().unwrap().frame).unwrap();
    assert_eq!(client.poll_output(), Some(Output::Delivered));
}
