//! A session of `oneshot` whose frames the input drops, changes, repeats, invents and delays: no panic, no hang, and a sum
//! only if it is exact.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use veilsum::backend::scalar::Scalar;
use veilsum::math::prg::Secret;
use veilsum::secagg::frame::{Header, pack, write_header};
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::oneshot::{
    OneshotClient, OneshotHolder, OneshotServer, Plan, Request, Session, Setup, simulated_channel, simulated_holder,
};
use veilsum::secagg::{Output, Party, PartyId, SessionId, VectorShape};

const N: usize = 3;
const K: u16 = 4;
const SHAPE: VectorShape = VectorShape { len: 5, bits: 13 };

struct World {
    session: Arc<Session>,
    identities: Vec<Identity>,
    vectors: Vec<Vec<u64>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let secret = Secret::from_seed(1);
    let identities: Vec<Identity> = (0..N as u64).map(|c| Identity::simulated(&secret, c)).collect();
    let roster = Roster::new(identities.iter().enumerate().map(|(c, i)| (c as u64, i.public()))).unwrap();
    let session = Session::new(Setup {
        id: SessionId { session: [1; 16], round: 1, attempt: 0 },
        cohort: (0..N as u64).collect(),
        roster: Arc::new(roster),
        holders: (1..=K).map(|j| simulated_holder(&secret, j).1).collect(),
        plan: Plan::choose(&Request::new(N, SHAPE, 1 << 12, (K, 3, 0))).unwrap(),
        deadlines: Some([20, 60]),
    })
    .unwrap();
    let vectors = (0..N as u64).map(|c| (0..5).map(|j| (c * 1000 + j * 77) % (1 << 13)).collect()).collect();
    World { session, identities, vectors }
});

fn packed(vector: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    pack(vector.iter().copied(), SHAPE.bits, &mut out);
    out
}

fn holder(world: &World, number: u16) -> OneshotHolder {
    let secret = Secret::from_seed(1);
    let identity = simulated_holder(&secret, number).0;
    OneshotHolder::new(&world.session, number, &identity, &simulated_channel(&secret, number), None).unwrap()
}

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let backend = Arc::new(Scalar);
    let mut server = OneshotServer::new(&world.session, backend.clone());
    let mut clients: Vec<OneshotClient> = (0..N)
        .map(|c| {
            let secret = Secret::from_seed(10 + c as u64);
            let (identity, vector) = (&world.identities[c], packed(&world.vectors[c]));
            OneshotClient::packed(&world.session, c as u64, identity, &secret, backend.clone(), &vector).unwrap()
        })
        .collect();
    let mut holders: Vec<OneshotHolder> = (1..=K).map(|number| holder(world, number)).collect();
    let mut air: Vec<(PartyId, PartyId, Vec<u8>)> = Vec::new();
    let mut input = data.iter().copied();
    let mut now = 0;
    let mut next = || input.next();
    loop {
        air.extend(std::iter::from_fn(|| server.poll_transmit()).map(|t| (PartyId::Server, t.to, t.frame)));
        for (c, client) in clients.iter_mut().enumerate() {
            let from = PartyId::Client(c as u64);
            air.extend(std::iter::from_fn(|| client.poll_transmit()).map(|t| (from, t.to, t.frame)));
        }
        for (number, holder) in (1..).zip(&mut holders) {
            let from = PartyId::Holder(number);
            air.extend(std::iter::from_fn(|| holder.poll_transmit()).map(|t| (from, t.to, t.frame)));
        }
        // After the end of the input everything arrives in order, and then the clock runs out.
        let (action, place) = (next().unwrap_or(0), next().unwrap_or(0) as usize);
        if air.is_empty() && action < 240 {
            now += 10;
            server.handle_timeout(now);
            clients.iter_mut().for_each(|c| c.handle_timeout(now));
            holders.iter_mut().for_each(|h| h.handle_timeout(now));
            if now > 100 {
                break;
            }
            continue;
        }
        let mut flight = match action {
            0..240 => air.remove(place % air.len()),
            _ => {
                let who = (place / 3 % (K as usize + 1)) as u16;
                let party = if action % 2 == 0 { PartyId::Client(who.into()) } else { PartyId::Holder(who) };
                let (from, to) = if place % 3 == 0 { (party, PartyId::Server) } else { (PartyId::Server, party) };
                let (id, shape) = (world.session.id(), world.session.input_shape());
                let header = Header { kind: 48 + action % 6, id, client: who.into(), shape };
                let mut frame = write_header(&header, 64);
                let len = next().unwrap_or(0);
                frame.extend((0..len).map_while(|_| next()));
                (from, to, frame)
            }
        };
        match action {
            // Lost.
            200..210 => continue,
            // Repeated.
            210..220 => air.push(flight.clone()),
            // Changed.
            220..240 => {
                air.push(flight.clone());
                let len = flight.2.len();
                let at = usize::from(next().unwrap_or(0)) * len / 256;
                flight.2[at] ^= next().unwrap_or(1);
                if action >= 235 {
                    flight.2.truncate(at);
                }
            }
            _ => {}
        }
        let (from, to, frame) = flight;
        let _ = match to {
            PartyId::Server => server.handle(from, &frame),
            PartyId::Client(c) => clients.get_mut(c as usize).map_or(Ok(()), |c| c.handle(from, &frame)),
            PartyId::Holder(j) => {
                let place = usize::from(j).checked_sub(1).and_then(|at| holders.get_mut(at));
                place.map_or(Ok(()), |h| h.handle(from, &frame))
            }
        };
    }
    match server.poll_output() {
        Some(Output::Sum { words, survivors }) => {
            let of =
                |j: usize| survivors.iter().map(|&c| world.vectors[c as usize][j]).sum::<u64>() % (1 << SHAPE.bits);
            assert!(survivors.len() >= 2 && words == (0..5).map(of).collect::<Vec<_>>());
        }
        other => assert!(matches!(other, Some(Output::Aborted { .. })), "{other:?}"),
    }
});
