//! A round of `mphe` whose frames the input drops, changes, repeats, invents and delays: no panic, no hang, and a sum only if
//! it is exact.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use veilsum::backend::scalar::Scalar;
use veilsum::he::OpeningGuard;
use veilsum::math::prg::Secret;
use veilsum::secagg::identity::{Identity, Roster};
use veilsum::secagg::mphe::{
    Deadlines, HolderKeys, MpheClient, MpheServer, RoundHolder, RoundSession, Setup,
};
use veilsum::secagg::{Party, PartyId, SessionId};
use veilsum_fuzz::mphe::{identity, key_parties, plan};
use veilsum_fuzz::{Clock, Headers, exact_or_aborted, packed, storm};

const N: usize = 3;

struct World {
    session: Arc<RoundSession>,
    holders: Vec<HolderKeys>,
    identities: Vec<Identity>,
    vectors: Vec<Vec<u64>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (mut server, mut holders) = key_parties(&plan());
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    for (number, holder) in (1..).zip(&mut holders) {
        parties.push((PartyId::Holder(number), holder));
    }
    let place = SessionId { session: [0; 16], round: 0, attempt: 0 };
    let headers = Headers { kinds: 64..73, id: place, shape: plan().request().shape };
    storm(&[], &mut parties, &headers, &Clock { step: 10, end: 100 });
    let key = Arc::new(server.take_key().expect("an undisturbed set-up has a key"));
    let secret = Secret::from_seed(1);
    let identities: Vec<Identity> = (0..N as u64).map(|c| Identity::simulated(&secret, c)).collect();
    let roster = Roster::new(identities.iter().enumerate().map(|(c, i)| (c as u64, i.public()))).unwrap();
    let session = RoundSession::new(Setup {
        id: SessionId { session: [3; 16], round: 1, attempt: 0 },
        cohort: (0..N as u64).collect(),
        roster: Arc::new(roster),
        key,
        deadlines: Some(Deadlines { input: 20, agree: 40, open: 60 }),
    })
    .unwrap();
    let vectors = (0..N as u64).map(|c| (0..5).map(|j| (c * 1000 + j * 77) % (1 << 12)).collect()).collect();
    World { session, holders: holders.iter_mut().filter_map(|h| h.take_keys()).collect(), identities, vectors }
});

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let backend = Arc::new(Scalar);
    let bits = world.session.shape().bits;
    let mut server = MpheServer::new(&world.session, backend.clone());
    let mut clients: Vec<MpheClient> = (0..N)
        .map(|c| {
            let secret = Secret::from_seed(10 + c as u64);
            let (identity, vector) = (&world.identities[c], packed(&world.vectors[c], bits));
            MpheClient::packed(&world.session, c as u64, identity, &secret, backend.clone(), &vector).unwrap()
        })
        .collect();
    let mut holders: Vec<RoundHolder> = world
        .holders
        .iter()
        .map(|keys| {
            let guard = OpeningGuard::default();
            RoundHolder::new(&world.session, keys, guard, &identity(keys.holder()), backend.clone()).unwrap()
        })
        .collect();
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    for (c, client) in clients.iter_mut().enumerate() {
        parties.push((PartyId::Client(c as u64), client));
    }
    for (number, holder) in (1..).zip(&mut holders) {
        parties.push((PartyId::Holder(number), holder));
    }
    let headers = Headers { kinds: 80..86, id: world.session.id(), shape: world.session.shape() };
    storm(data, &mut parties, &headers, &Clock { step: 10, end: 100 });
    exact_or_aborted(&mut server, &world.vectors, bits);
});
