//! `mphe`: vectors under a lattice key that nobody has alone; t of K key holders open the sum (the multi-party scheme of
//! Mouchet et al. 2021, made secure).
//!
//! ```text
//! key     p = sum p_i, p_i = -a s_i + e_i committed before any is opened; s_i shared t of K; all K sign p
//! client  c0 = p u + e0 + 2^o m,  c1 = a u + e1,  m = z + B unwrapped, |z| <= B certain
//! sum     of the ciphertexts of those who delivered
//! open    h_j = lambda_j,T sigma_j c1 + f_j + z_j of t holders; c0 + sum h_j; drop o bits; minus n B; mod 2^b
//! ```
//! | key set-up, once for many rounds ([`KeyServer`], [`KeyHolder`]) | request of the server | a holder's answer |
//! |---|---|---|
//! | commit | the set-up's context | X25519 key and commitment, signed |
//! | share | those of all K | its contribution, and for each other holder an encrypted share, all signed |
//! | sign | all contributions, the shares for it | a signature of the finished key |
//! | certify | all K signatures | |
//!
//! | round ([`MpheServer`], [`MpheClient`], [`RoundHolder`]) | request of the server | answer |
//! |---|---|---|
//! | input | the round's context | a client's ciphertext, signed with hash and weight; the client is done |
//! | agree | to the holders: the survivors, what each has signed, and the sum or its terms | a signature of all that |
//! | open | a set T of t holders with their signatures of the same | a part of the opening |
//!
//! **Which server.** Nothing proves that a ciphertext is well formed or that its sender knows what is in it. A client of
//! the roster in league with the server can, late and having seen the others', send one that cancels the c1 of all but one
//! client, whose vector is then what is opened; or one whose c1 is a constant, and the opening tells digits of the key.
//! Both are tests (`tests/suite/secagg/mphe/attacks.rs`), and no rule of the holders stops them. So a plan names its
//! [`Trust`], and says it in its report:
//! - *semi-honest server*: the holders get the sum of the ciphertexts from the server. They check who has signed, how many,
//!   that the set is one and is opened once; that the sum is the sum of these they believe.
//! - *malicious server, honest roster*: the holders get every ciphertext, check that it is the one that its client has
//!   signed, and add them themselves. The server may do what it likes, with no client of the roster in league.
//!
//! In both up to f holders may be in league with the server, `t > (K + f)/2`, and at least one holder of T is honest. In
//! both a holder answers for one set of survivors a round ([`session::RoundSession::opening`]: of all its attempts), after
//! it has seen the signatures of all of T under the same sum, and for no more sets T than planned; another T draws fresh
//! noise and is counted as another release.
//!
//! Not protected: that there is a sum, or the right one. A client may add anything of the slots' width, a holder may make
//! an opening fail or move it. A dealer of a key set-up proves that its contribution is the committed one, and not that its
//! shares fit it: if they do not, openings fail. Key holders that choose s_i, e_i or u otherwise than prescribed are not
//! bounded by the noise analysis ([`crate::he::noise`]).
//!
//! **Randomness.** All that a holder draws in a set-up follows from its secret and the set-up's context, and an epoch is
//! begun once ([`key_holder::Epochs`]). All that a client draws follows from its secret, the round's context **and its
//! plaintext**: a retry repeats its bytes, and other data have other randomness, so that no two plaintexts ever share it.
//! Holders are asked to have [`crate::he::OpeningGuard`] on record before an answer is sent.
//!
//! A client that joins late needs the public key with its signatures ([`SignedKey`]), nothing else. A new key is a new
//! set-up under a new epoch: nothing that was drawn under the one before is drawn again, since all of it is bound to the
//! epoch, and the openings of the one are not counted for the other.

pub mod certificate;
mod checks;
pub mod client;
pub mod fault;
pub mod holder;
pub mod key_holder;
pub mod key_server;
pub mod material;
pub mod plan;
pub mod server;
pub mod session;
pub mod simulated;
mod statements;
pub mod wire;

pub use self::certificate::SignedKey;
pub use self::client::MpheClient;
pub use self::fault::{KeyFault, Misdeed, RoundFault};
pub use self::holder::RoundHolder;
pub use self::key_holder::{Epochs, KeyHolder};
pub use self::key_server::KeyServer;
pub use self::material::HolderKeys;
pub use self::plan::{Plan, Request, Trust};
pub use self::server::MpheServer;
pub use self::session::{Deadlines, KEY_PHASES, KeyConfig, KeyPhase, KeySession, PHASES, Phase, RoundSession, Setup};
pub use crate::he::{OpeningGuard, Threshold};
pub use crate::secagg::traffic::Traffic;
