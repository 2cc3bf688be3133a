//! A key set-up of `mphe` whose frames the input drops, changes, repeats, invents and delays: no panic, no hang, and one key
//! for all, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilsum::secagg::{Party, PartyId};
use veilsum_fuzz::mphe::{key_parties, key_session, plan};
use veilsum_fuzz::{Clock, Headers, storm};

fuzz_target!(|data: &[u8]| {
    let plan = plan();
    let (mut server, mut holders) = key_parties(&plan);
    let place = key_session(&plan).place();
    let mut parties: Vec<(PartyId, &mut dyn Party)> = vec![(PartyId::Server, &mut server)];
    for (number, holder) in (1..).zip(&mut holders) {
        parties.push((PartyId::Holder(number), holder));
    }
    let headers = Headers { kinds: 64..73, id: place.id, shape: place.shape };
    storm(data, &mut parties, &headers, &Clock { step: 10, end: 100 });
    let key = server.take_key();
    assert!(key.is_some() || server.fault().is_some() || server.poll_output().is_some(), "an end without a word");
    if let Some(key) = key {
        for keys in holders.iter_mut().filter_map(|holder| holder.take_keys()) {
            assert_eq!(keys.key().key().digest(), key.key().digest(), "two keys of one set-up");
        }
    }
});
