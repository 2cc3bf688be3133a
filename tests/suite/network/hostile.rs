//! Hostile bytes, for a moment: what `scripts/fuzz net` plays for longer, by the very files of `fuzz/src/net`. Every honest input of the
//! targets, inputs that once were findings, and some at random.

// What the targets show each other nobody else needs.
#![allow(unreachable_pub, dead_code)]

#[path = "../../../fuzz/src/net/bytes.rs"]
mod bytes;
#[path = "../../../fuzz/src/net/client.rs"]
mod client;
#[path = "../../../fuzz/src/net/input.rs"]
mod input;
#[path = "../../../fuzz/src/net/server.rs"]
mod server;
#[path = "../../../fuzz/src/net/town.rs"]
mod town;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Plays the seeds, and as many inputs at random.
fn played(seeds: &[Vec<u8>], cases: u32, play: fn(&[u8])) {
    seeds.iter().for_each(|seed| play(seed));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let played = TestRunner::new(config).run(&bytes, |data| {
        play(&data);
        Ok(())
    });
    played.unwrap();
}

#[test]
fn what_is_read_is_a_value_or_an_error() {
    played(&bytes::seeds(), 400, bytes::play);
}

#[test]
fn hostile_parties_stop_no_round() {
    let seeds: Vec<Vec<u8>> = server::seeds().into_iter().step_by(3).collect();
    played(&seeds, 10, server::play);
}

#[test]
fn a_hostile_server_gets_nothing_that_it_should_not() {
    // Else the promise would be empty: an honest server gets its answer, under every protocol.
    for config in [0, 2, 3, 4] {
        let (rounds, outcome) = client::answered(&client::honest(config, &[]));
        assert_eq!(rounds, 1, "config {config}: {outcome}");
    }
    let seeds: Vec<Vec<u8>> = client::seeds().into_iter().step_by(2).collect();
    played(&seeds, 20, client::play);
}

#[test]
fn a_party_makes_nothing_by_a_number_that_a_server_says() {
    let honest = town::config("\"plain\"");
    let refused = |from: &str, to: &str, expected: &str| {
        let text = honest.replace(from, to);
        assert_ne!(text, honest);
        let error = town::party(&town::typed(&text).unwrap(), [3; 16]).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(expected)), "{to}: {error:?}");
    };
    refused(r#""clients": 3"#, r#""clients": 999999999999999"#, "at most 1048576");
    refused(r#""rounds": 100000"#, r#""rounds": 4294967295"#, "at most 1048576");
    refused(r#"{"mlp": [3, 2]}"#, r#"{"mlp": [4294967295, 4294967295]}"#, "parameters");
    // A name that it reads has to be that of a file: a device has no end.
    #[cfg(unix)]
    refused(r#""algorithm""#, r#""start": {"file": "/dev/zero"}, "algorithm""#, "not a file");
}

#[test]
fn a_party_takes_a_bounded_part_of_the_connections() {
    let town = super::Town::new();
    let server = town.serve(&super::private(1, ""));
    let folder = town.party("greedy", super::Role::Client(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let served = |link: &server::Link| runtime.block_on(link.served());
    let dial = || {
        let (config, _) = veilsum::net::tls::client_config(&folder).unwrap();
        runtime.block_on(server::Link::dial(server.address, config))
    };
    // Four that may listen, and four times as many in all.
    let links: Vec<server::Link> = (0..16).map(|_| dial()).collect();
    assert!(links.iter().all(served));
    assert!(!served(&dial()), "one more than it has room for");
    assert!(served(&links[0]));
    let other = town.party("modest", super::Role::Client(1));
    let (config, _) = veilsum::net::tls::client_config(&other).unwrap();
    assert!(served(&runtime.block_on(server::Link::dial(server.address, config))));
    drop(links);
    server.drained();
}
