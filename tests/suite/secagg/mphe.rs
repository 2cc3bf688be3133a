//! `mphe`: a key that nobody has, sums that t of K open, and what goes wrong with either.

mod attacks;
mod figures;
mod rogue_keys;
mod rounds;
mod setup;
mod world;
