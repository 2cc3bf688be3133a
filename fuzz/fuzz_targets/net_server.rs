//! What a server takes from parties that are enrolled and hostile: see `src/net/server.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilsum_fuzz::net::{plant, server};

fuzz_target!(init: plant(&server::seeds()), |data: &[u8]| server::play(data));
