//! What is read from outside and is no call: see `src/net/bytes.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use veilsum_fuzz::net::{bytes, plant};

fuzz_target!(init: plant(&bytes::seeds()), |data: &[u8]| bytes::play(data));
