//! Mathematics without machines: the addressed keystream and special functions.

pub mod prg;
pub mod special;
