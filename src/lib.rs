//! # veilsum: private federated learning
//!
//! Many parties train one model; nobody shows its data, nobody shows its update, and the privacy loss
//! is accounted and printed. A federated round is one pipeline:
//!
//! ```text
//! gradient rows [n x d] f32
//!   -> clip      per-row L2 (per sample or per client)
//!   -> encode    pad, +-1 signs, block FWHT, scale gamma | fixed point | stochastic round, noise, wrap mod 2^b
//!   -> protect   plain | pairwise masks
//!   -> sum       wrapping add, any order, any number of machines
//!   -> reveal    -> decode (centre, inverse FWHT, unscale)  -> server optimizer -> model
//! ```
//!
//! Everything left of `|` is `f32`; everything right of it is an integer and bit-identical on every
//! backend. No privacy claim rests on floating point. See `ARCHITECTURE.md` for the rooms.

pub mod backend;
pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod files;
pub mod fl;
pub mod he;
pub mod math;
pub mod model;
#[cfg(feature = "net")]
pub mod net;
pub mod params;
pub mod privacy;
pub mod report;
pub mod sample;
pub mod secagg;
pub mod sim;
