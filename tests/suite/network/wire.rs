//! What the server refuses, and how.

use veilsum::net::NetError;
use veilsum::net::client::enrol;
use veilsum::net::keys::{PartyKeys, Role, TokenRole, Validity};

use super::{Parties, Town, private};

#[test]
fn a_token_is_good_for_one_key() {
    let town = Town::new();
    let server = town.serve(&private(1, ""));
    let address = server.options(None).address;
    let expires = veilsum::net::now().as_secs() + 3600;
    let token = town.authority.token(TokenRole::Client(None), expires).unwrap();
    let role = enrol(&address, &token, &town.path("a"), "first").unwrap();
    assert_eq!(role, Role::Client(0));
    assert_eq!(enrol(&address, &token, &town.path("a"), "again").unwrap(), role, "a retry");
    let error = enrol(&address, &token, &town.path("b"), "second").unwrap_err();
    assert!(matches!(&error, NetError::Refused { reason } if reason.contains("token")), "{error}");
    let holder = town.authority.token(TokenRole::Holder(None), expires).unwrap();
    assert_eq!(enrol(&address, &holder, &town.path("c"), "holder").unwrap(), Role::Holder(1));
    let late = town.authority.token(TokenRole::Client(None), 1).unwrap();
    assert!(matches!(enrol(&address, &late, &town.path("d"), ""), Err(NetError::Refused { .. })));
    server.drained();
}

#[test]
fn a_stranger_is_refused_and_says_why() {
    let (town, other) = (Town::new(), Town::new());
    let server = town.serve(&private(1, ""));
    let outcomes = Parties::join(server.options(None), vec![other.party("x", Role::Client(0))]).outcomes();
    assert!(matches!(&outcomes[..], [Err(NetError::Refused { .. })]), "{outcomes:?}");
    let beyond = town.party("y", Role::Client(12));
    let outcomes = Parties::join(server.options(None), vec![beyond]).outcomes();
    assert!(
        matches!(&outcomes[..], [Err(NetError::Refused { reason })] if reason.contains("no place")),
        "{outcomes:?}"
    );
    server.drained();
}

#[test]
fn a_policy_is_the_last_word() {
    let town = Town::new();
    let config = private(1, "").replace(r#""oneshot": {"holders": 3, "corrupt_holders": 1}"#, r#""masks": {}"#);
    let server = town.serve(&config);
    let mut options = server.options(None);
    let policy = veilsum::net::policy::Policy { min_cohort: 13, max_epsilon: 0.5, ..Default::default() };
    options.policy = std::sync::Arc::new(policy);
    let others = Parties::join(server.options(None), town.clients(1..12));
    let outcomes = Parties::join(options, town.clients(0..1)).outcomes();
    let Err(NetError::Policy { reasons }) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(
        reasons.iter().any(|r| r.contains("min_cohort")) && reasons.iter().any(|r| r.contains("max_epsilon")),
        "{reasons:?}"
    );
    others.stopped();
    server.drain.store(true, std::sync::atomic::Ordering::Relaxed);
}

#[test]
fn a_certificate_that_ends_soon_is_renewed_and_a_party_that_is_shut_out_stays_out() {
    let town = Town::new();
    let server = town.serve(&private(1, ""));
    let folder = town.party("old", Role::Client(0));
    let now = veilsum::net::now().as_secs();
    let validity = Validity { not_before: now - 80 * 86_400, not_after: now + 10 * 86_400 };
    let mut keys = PartyKeys::open(&folder).unwrap();
    let old = town.authority.issue_within(Role::Client(0), &keys.public(), &[], validity).unwrap();
    assert_eq!(keys.install(&old, &town.authority.pem()).unwrap().not_after, validity.not_after);
    let parties = Parties::join(server.options(None), vec![folder.clone()]);
    let renewed = || PartyKeys::open(&folder).unwrap().certificate().unwrap().not_after > validity.not_after;
    let since = std::time::Instant::now();
    while !renewed() {
        assert!(since.elapsed().as_secs() < 60, "no new certificate came");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    parties.stopped();

    let store = veilsum::net::store::open(&town.path("state").join("federation.sqlite").display().to_string()).unwrap();
    store.revoke(Role::Client(0)).unwrap();
    // The server looks every few seconds; until then the party is let in, and stays.
    let refused = || {
        let outcomes = {
            let parties = Parties::join(server.options(None), vec![folder.clone()]);
            std::thread::sleep(std::time::Duration::from_millis(500));
            parties.stopped()
        };
        matches!(&outcomes[..], [Err(NetError::Refused { reason })] if reason.contains("revoked"))
    };
    let since = std::time::Instant::now();
    while !refused() {
        assert!(since.elapsed().as_secs() < 60, "it was not shut out");
    }
    server.drained();
}
