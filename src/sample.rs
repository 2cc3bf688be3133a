//! Exact samplers of integer noise: rational oracles, and tables for constant-time draws.

pub mod table;
