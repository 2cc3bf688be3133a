//! What a client takes from a hostile server: see `src/net/client.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilsum_fuzz::net::{client, plant};

fuzz_target!(init: plant(&client::seeds()), |data: &[u8]| client::play(data));
