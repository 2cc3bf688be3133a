//! Certified bounds for the Skellam mixture: theorems with proofs, and the finitely many numbers that they ask for,
//! computed in intervals.
//!
//! [`law`] encloses the Skellam law, [`normal`] the normal tail and its inverse, [`renyi`] bounds the Renyi divergences
//! of a coordinate, [`domination`] finds a Gaussian that dominates it; [`steps`] does both for shifts by integers. The proofs are in `docs/smm-accounting.md` and `docs/integer-noise.md`; each
//! function names the statement that it computes. Taken on trust: that `libm`'s functions have the errors that
//! [`crate::math::interval`] and [`crate::math::special`] state.

pub mod domination;
pub mod law;
pub mod normal;
pub mod renyi;
pub mod steps;
