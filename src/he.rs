//! Ring-LWE in RNS: parameters with their security and noise, a collective key, threshold opening.
//!
//! Polynomials live in `R_Q = Z_Q[X]/(X^N + 1)`, Q a product of primes below 2^30. What follows is sans-I/O: keys,
//! streams and bytes in, keys, polynomials and bytes out; nothing here draws randomness of its own.
//!
//! ```text
//! chooser     request -> (N, primes, w, k, o), security bits, failure probability, bytes
//! collective  holder i: p_i = -a s_i + e_i, committed, then opened; p = sum p_i
//! shamir      s_i shared t of K over R_Q; holder j keeps sigma_j = sum_i F_i(j)
//! encrypt     c0 = p u + e0 + 2^o m, c1 = a u + e1; sums are sums
//! threshold   h_j = lambda_j,T sigma_j c1 + f_j + z_j; c0 + sum h_j = 2^o m + noise; round, drop o bits
//! ```
//!
//! Security rests on ring-LWE with ternary secrets and centred binomial errors, estimated in [`security`] and held under
//! the table of HomomorphicEncryption.org; it is passive: key holders that follow the key generation, see [`threshold`]
//! for what the holders' answers give away and to whom, and `secagg` for what a malicious server may not do.

pub mod chooser;
pub mod collective;
pub mod encrypt;
mod error;
pub mod noise;
pub mod oneshot;
pub mod params;
pub mod poly;
pub mod rns;
pub mod security;
pub mod shamir;
pub mod symmetric;
pub mod threshold;
pub mod wire;

pub use self::collective::{CollectiveKey, Commitment, Contribution, KeyCeremony, KeyShare};
pub use self::encrypt::{Ciphertext, EncryptKeys};
pub use self::error::{HeError, Nearest};
pub use self::params::{Layout, Ring};
pub use self::shamir::{HolderShare, ShareDeal, Threshold};
pub use self::symmetric::SecretKey;
pub use self::threshold::{Holder, HolderSet, OpeningGuard, OpeningPlan, PartialOpening};

/// k of the centred binomial law of every error: that of the secrets of one-shot encryption.
pub const ETA: u32 = crate::backend::SECRET_ETA;
