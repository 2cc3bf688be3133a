//! Mathematics without machines: the addressed keystream, exact modular arithmetic, special functions.

pub mod modular;
pub mod ntt;
pub mod prg;
pub mod primes;
pub mod special;
