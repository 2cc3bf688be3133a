//! A session of `oneshot` whose frames the input drops, changes, repeats, invents and delays: no panic, no hang, and a sum
//! only if it is exact.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use veilsum::backend::scalar::Scalar;
use veilsum::math::prg::Secret;
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::oneshot::{
    OneshotClient, OneshotHolder, OneshotServer, Plan, Request, Session, Setup, simulated_channel, simulated_holder,
};
use veilsum::secagg::{Party, PartyId, SessionId, VectorShape};
use veilsum_fuzz::{Clock, Headers, exact_or_aborted, packed, storm};

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
            let (identity, vector) = (&world.identities[c], packed(&world.vectors[c], SHAPE.bits));
            OneshotClient::packed(&world.session, c as u64, identity, &secret, backend.clone(), &vector).unwrap()
        })
        .collect();
    let mut holders: Vec<OneshotHolder> = (1..=K).map(|number| holder(world, number)).collect();
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    for (c, client) in clients.iter_mut().enumerate() {
        parties.push((PartyId::Client(c as u64), client));
    }
    for (number, holder) in (1..).zip(&mut holders) {
        parties.push((PartyId::Holder(number), holder));
    }
    let headers = Headers { kinds: 48..54, id: world.session.id(), shape: world.session.input_shape() };
    storm(data, &mut parties, &headers, &Clock { step: 10, end: 100 });
    exact_or_aborted(&mut server, &world.vectors, SHAPE.bits);
});
