//! A session of `masks` whose frames the input drops, changes, repeats, invents and delays: no panic, no hang, and a sum
//! only if it is exact.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use veilsum::backend::scalar::Scalar;
use veilsum::math::prg::Secret;
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::masks::{MasksClient, MasksServer, Plan, Request, ServerModel, Session, Setup};
use veilsum::secagg::{Party, PartyId, SessionId, VectorShape};
use veilsum_fuzz::{Clock, Headers, exact_or_aborted, packed, storm};

const N: usize = 4;
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
        shape: SHAPE,
        cohort: (0..N as u64).collect(),
        roster: Arc::new(roster),
        plan: Plan::choose(&Request::new(N, 0, 1, ServerModel::Malicious)).unwrap(),
        graph_seed: [0; 32],
        deadlines: Some([10, 20, 30, 40, 50]),
    })
    .unwrap();
    let vectors = (0..N as u64).map(|c| (0..5).map(|j| (c * 1000 + j * 77) % (1 << 13)).collect()).collect();
    World { session, identities, vectors }
});

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let backend = Arc::new(Scalar);
    let mut server = MasksServer::new(&world.session, backend.clone());
    let mut clients: Vec<MasksClient> = (0..N)
        .map(|c| {
            let secret = Secret::from_seed(10 + c as u64);
            let vector = packed(&world.vectors[c], SHAPE.bits);
            MasksClient::packed(&world.session, c as u64, &world.identities[c], &secret, backend.clone(), &vector)
                .unwrap()
        })
        .collect();
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    for (c, client) in clients.iter_mut().enumerate() {
        parties.push((PartyId::Client(c as u64), client));
    }
    let headers = Headers { kinds: 16..26, id: world.session.id(), shape: SHAPE };
    storm(data, &mut parties, &headers, &Clock { step: 10, end: 100 });
    exact_or_aborted(&mut server, &world.vectors, SHAPE.bits);
});
