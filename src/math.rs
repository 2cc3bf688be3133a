//! Mathematics without machines: the addressed keystream, exact modular arithmetic, intervals, searches, special functions.

pub mod interval;
pub mod modular;
pub mod ntt;
pub mod prg;
pub mod primes;
pub mod search;
pub mod special;
