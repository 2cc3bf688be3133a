//! `oneshot`: a client speaks once. Its vector is encrypted under a key that adds up with those of the others, the key is
//! shared among K holders, and the holders open the sum of the keys.
//!
//! ```text
//! c_j = a_j s + e_j + 2^o sum_(z < k) 2^(w z) (m_(j,z) + B) mod Q        the server adds: C_j = sum c_j
//! s   = packed Shamir shares, one for each holder, sealed to it          holder h adds those of the survivors
//! sum m = decode(C_j - a_j sum s)                                        from t holders' sums
//! ```
//! s is fresh in every (session, round, attempt) and for every plaintext: all that a client draws is keyed by its secret, what
//! the parties agree on, and a hash of its vector. A retry repeats its bytes, other data get another s.
//!
//! | phase | request of the server | answer |
//! |---|---|---|
//! | input | to clients: announcement | ciphertext, sealed shares and weight, signed |
//! | | to holders, as they come: the share of a client, what it has signed | |
//! | open | to holders: who has survived | the sum of these clients' shares, signed; or whose are missing |
//!
//! **What is protected.** A server in league with up to f holders and up to c clients learns the sum over one set of at
//! least `min_survivors >= c + 2` clients and nothing else, whatever it sends, drops, repeats or claims. That assumes
//! Hint-RLWE with centred binomial laws (see [`crate::he::security`]; heuristic), the primitives, and the pinned rosters:
//!
//! - Shares are hidden from the server by the AEAD, and `t - l` of them tell nothing about s (not computationally: at all).
//! - A holder answers for one set in a session ([`holder`]), and only with the signature of every client in it.
//! - Answers for different sets tell nothing together: more than two thirds of the honest holders have to answer for one
//!   set before anything is told, with the other bounds of [`plan`], where that is proved. A rule for t alone, as for a
//!   threshold of half, is not enough: sums of shares can be mixed, and packed shares tell parts of a sum.
//! - What is opened is a sum of integers `z + B`, not of residues: how often a sum mod 2^b wrapped would tell signs.
//!
//! Not protected: the round itself. A malicious server, t holders less than K, or one client that deals wrong shares can make
//! it fail; a client can add any vector of the range. Wrong answers of holders are found and named where more than t answer
//! ([`OneshotServer::suspects`]), and otherwise what they open to is no sum of small numbers and is not given out. Shares that
//! a client has dealt wrongly look the same. A holder's long-term key opens what was sealed to it: whoever wants forward
//! secrecy gives holders a new key in every session.
//!
//! Memory: a client holds its vector and its ciphertext; the server one sum, 140 bytes a client and the frames that wait
//! to be sent (those for holders go first, so that they are those of one client where nothing blocks); a holder
//! `4 N / l` bytes a client. Time: `veilsum bench secagg`.

pub mod client;
mod fields;
pub mod holder;
mod keys;
mod opening;
pub mod plan;
pub mod server;
pub mod session;
mod statements;
pub mod wire;

pub use self::client::OneshotClient;
pub use self::holder::OneshotHolder;
pub use self::keys::{simulated_channel, simulated_holder};
pub use self::plan::{Plan, Request, Weighting};
pub use self::server::{OneshotServer, Suspects};
pub use self::session::{Deadlines, HolderKeys, PHASES, Phase, Session, Setup, Traffic};
