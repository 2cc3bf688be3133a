//! Mathematics without machines: the addressed keystream, double-word numbers, intervals, exact modular arithmetic, a
//! minimizer, searches, special functions.

pub mod double;
pub mod interval;
pub mod minimize;
pub mod modular;
pub mod ntt;
pub mod packed;
pub mod prg;
pub mod primes;
pub mod search;
pub mod shamir;
pub mod special;
