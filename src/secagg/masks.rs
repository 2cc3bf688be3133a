//! `masks`: every vector travels under masks that cancel in the sum (Bonawitz et al. 2017; sparse graphs: Bell et al.
//! 2020).
//!
//! ```text
//! y_i = x_i + PRG(b_i) + sum_(j > i) PRG(s_ij) - sum_(j < i) PRG(s_ij)   mod 2^b,   j over the neighbors of i
//! ```
//! A value of a PRG is 8, 16 or 32 bits of ChaCha20, the least that hold b (64 where b is 1 or above 32), mod `2^b`.
//! b_i is a seed of the client, s_ij what it agrees on with a neighbor. Both b_i and the client's private key are
//! t-shared among the neighbors. In the end the server learns, of every survivor, b_i, and of every lost client the key,
//! never both of one client; what remains is the sum over the survivors, bit-equal to `plain`.
//!
//! | phase | request of the server | a client's answer |
//! |---|---|---|
//! | keys | announcement | public keys, signed |
//! | shares | the neighbors' keys | shares for each neighbor, encrypted to it |
//! | input | the neighbors' shares, who has shared | the masked vector, signed |
//! | consistency | who has survived | a signature of that |
//! | unmask | enough signatures | one share of each neighbor: of its seed if it survived, else of its key |
//!
//! **What is protected.** With [`ServerModel::Malicious`] a server in league with up to f clients learns the sum over one
//! set of at least `min_survivors` clients and nothing else, whatever it sends, drops, repeats or claims, assuming the
//! primitives, the pinned roster and the plan's probability of failure:
//!
//! - A client signs one set of survivors in a session, and opens shares for that set alone, after it has seen q
//!   signatures of it. Two sets never have q each (see [`plan`]).
//! - It opens the seed of a neighbor only with that neighbor's signature of the same set of sharers, so that a vector
//!   that was masked under another view of the round stays masked.
//! - It refuses a set in which any survivor has lost more than D neighbors: survivors could be cut off otherwise.
//! - Every mask is bound to session, round, attempt, cohort, thresholds and the set of sharers.
//!
//! Not protected: the round itself. A malicious server or client can make it fail, and a corrupt client can add any
//! vector of the range. A client that restarts with the same secret and attempt repeats its bytes; another vector needs
//! another attempt (as everywhere in this crate): the caller has to record attempts before it sends. What a client has
//! signed it knows only as long as it lives: after a restart it must not answer beyond its vector in that attempt.
//!
//! Memory: a client holds its packed vector, and its words while it masks them in place; the server one sum (and a few
//! rows, where a device adds) and `O(n k)` bytes of shares. Time: k + 1 masks a client; at the server one a survivor and k a lost client.

pub mod client;
pub mod graph;
mod keys;
pub mod plan;
pub mod server;
pub mod session;
mod statements;
mod unmask;
pub mod wire;

pub use self::client::MasksClient;
pub use self::plan::{Plan, Request, ServerModel};
pub use self::server::MasksServer;
pub use self::session::{Deadlines, PHASES, Phase, Session, Setup, Traffic};
