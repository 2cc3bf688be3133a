//! Secure aggregation: exact sums whatever is lost, and servers, clients and wires that do what they like.

mod drops;
mod frames;
mod net;
mod oneshot;
mod rogue;
