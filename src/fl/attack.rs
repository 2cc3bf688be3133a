//! What Byzantine clients send: the adversary of a simulation.
//!
//! An [`Attack`] makes the vectors of the clients it controls from what it [sees](Sight): its own honest vectors, or those
//! of all others. It sees everything before the server does, in the same round. None of these knows which rule the server
//! uses. Attacks on data ([`label_flip`], [`backdoor`]) change what a client trains on; the vector is trained as ever.
//!
//! | attack | vector | sees |
//! |---|---|---|
//! | [`sign_flip`] | `-strength x_own` | its own vector |
//! | [`gaussian`] | `strength N(0, I)` | nothing |
//! | [`label_flip`] | `strength x_own`, trained on flipped labels | its own data |
//! | [`inner_product`] | `-strength mean` | the honest mean |
//! | [`alie`] | `mean + strength std` | the honest vectors |
//! | [`min_max`], [`min_sum`] | `mean + gamma p`, gamma as large as distances allow | the honest vectors |
//! | [`mimic`] | one honest vector | the honest vectors |
//! | [`free_rider`] | zero, or noise | nothing |
//! | [`backdoor`] | `strength x_own`, trained on stamped images | its own data |
//!
//! The parameter of an attack is its `strength`; epsilon is privacy. [`inversion`] is none of these: it changes no vector that is sent, it
//! reads one (`examples/gradient_inversion.rs`).
//!
//! Vectors are `f32`: a strength that takes a coordinate beyond its range sends an infinity, which rules leave out.

pub mod adversary;
pub mod alie;
pub mod backdoor;
pub mod config;
pub mod free_rider;
pub mod gaussian;
pub mod inner_product;
pub mod inversion;
pub mod label_flip;
pub mod mimic;
pub mod min_max;
pub mod min_sum;
pub mod sign_flip;
mod statistics;

use std::borrow::Cow;
use std::fmt;

pub use self::adversary::{Adversary, AdversaryConfig};
pub use self::backdoor::Backdoor;
pub use self::config::AttackConfig;
pub use self::label_flip::LabelFlip;
use crate::backend::{Backend, BackendError, Buffer, Gram, Rows};
use crate::math::prg::StreamKey;

/// What an attack looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The shape of a vector alone.
    Nothing,
    /// The vectors that its own clients would send, or their data.
    Own,
    /// The mean of the honest vectors of the round.
    HonestMean,
    /// Every honest vector of the round.
    Honest,
}

/// What there is to see in a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The vectors of the honest clients, in the order of their ids.
    pub honest: Option<&'a Rows>,
    /// What the attack's own clients would send, one row each.
    pub own: Option<&'a Rows>,
    /// Clients that the attack controls in this round: rows to forge.
    pub count: usize,
    /// Coordinates of a vector.
    pub dim: usize,
    /// Round, from 1.
    pub round: u32,
}

/// How an attack changes the data of its clients before they train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DataAttack<'a> {
    /// Other labels.
    Labels(&'a LabelFlip),
    /// A pattern on some samples, with the label of its target.
    Trigger(&'a Backdoor),
}

/// What an attack refuses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AttackError {
    /// A kernel refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Something that the attack has to see.
    #[error("{attack} needs {what}, and none was given")]
    Missing {
        /// The attack.
        attack: &'static str,
        /// What it needs.
        what: &'static str,
    },
    /// A parameter outside its range.
    #[error("{attack}: {name} is {found}, expected {expected}")]
    OutOfRange {
        /// The attack.
        attack: &'static str,
        /// Parameter.
        name: &'static str,
        /// The allowed range, in words.
        expected: String,
        /// Value found.
        found: f64,
    },
    /// An argument of another length.
    #[error("{what} has length {found}, expected {expected}")]
    WrongLength {
        /// Which argument.
        what: &'static str,
        /// Expected.
        expected: usize,
        /// Found.
        found: usize,
    },
}

/// What the clients in an adversary's hands send.
pub trait Attack: fmt::Debug + Send + Sync {
    /// The name in configs.
    fn name(&self) -> &'static str;

    /// What it looks at: what [`View`] has to hold.
    fn sees(&self) -> Sight;

    /// What it does to the data of its clients before they train.
    fn data(&self) -> Option<DataAttack<'_>> {
        None
    }

    /// The `view.count` rows that its clients send, side by side on the host. `key` is one of the round's: the same key gives
    /// the same rows.
    ///
    /// Errors: something to see that is missing or of another shape, rows with NaN or an infinity, those of kernels.
    fn forge(&self, backend: &dyn Backend, view: &View<'_>, key: &StreamKey) -> Result<Rows, AttackError>;
}

impl<'a> View<'a> {
    /// The honest rows, at least one.
    fn honest_anywhere(&self, attack: &'static str) -> Result<&'a Rows, AttackError> {
        let what = "the vectors of the honest clients";
        let rows = self.honest.filter(|rows| rows.rows > 0).ok_or(AttackError::Missing { attack, what })?;
        if rows.dim != self.dim {
            return Err(AttackError::WrongLength { what: "an honest vector", expected: self.dim, found: rows.dim });
        }
        Ok(rows)
    }

    /// The honest rows on the host, at least one.
    fn honest_rows(&self, attack: &'static str, backend: &dyn Backend) -> Result<Cow<'a, Rows>, AttackError> {
        on_host(self.honest_anywhere(attack)?, backend)
    }

    /// Products and distances of the honest rows.
    fn honest_gram(&self, attack: &'static str, backend: &dyn Backend) -> Result<Gram, AttackError> {
        let rows = self.honest_anywhere(attack)?;
        if backend.device().is_none() || matches!(rows.buffer, Buffer::Device(_)) {
            return Ok(backend.gram(rows)?);
        }
        Ok(backend.gram(&Rows { buffer: backend.upload(&rows.buffer)?, ..*rows })?)
    }

    /// The rows of its own clients on the host, as many as are forged.
    fn own_rows(&self, attack: &'static str, backend: &dyn Backend) -> Result<Cow<'a, Rows>, AttackError> {
        let what = "the vectors that its own clients would send";
        let rows = self.own.ok_or(AttackError::Missing { attack, what })?;
        for (what, expected, found) in
            [(what, self.count, rows.rows), ("a vector of the attack's own clients", self.dim, rows.dim)]
        {
            if expected != found {
                return Err(AttackError::WrongLength { what, expected, found });
            }
        }
        on_host(rows, backend)
    }

    /// The same row from every client.
    fn repeated(&self, row: &[f32]) -> Result<Rows, AttackError> {
        Ok(Rows::dense(row.repeat(self.count), self.count, self.dim)?)
    }

    /// Its own rows times a factor.
    fn own_times(&self, attack: &'static str, factor: f64, backend: &dyn Backend) -> Result<Rows, AttackError> {
        let own = self.own_rows(attack, backend)?;
        let mut data = Vec::with_capacity(self.count * self.dim);
        for i in 0..own.rows {
            data.extend(own.row(i)?.iter().map(|&v| (factor * f64::from(v)) as f32));
        }
        Ok(Rows::dense(data, self.count, self.dim)?)
    }
}

/// The rows on the host.
fn on_host<'a>(rows: &'a Rows, backend: &dyn Backend) -> Result<Cow<'a, Rows>, AttackError> {
    Ok(match rows.buffer {
        Buffer::Device(_) => Cow::Owned(Rows { buffer: backend.download(&rows.buffer)?, ..*rows }),
        _ => Cow::Borrowed(rows),
    })
}

/// A number that has to be finite.
fn finite(attack: &'static str, name: &'static str, value: f64) -> Result<(), AttackError> {
    if value.is_finite() {
        return Ok(());
    }
    Err(AttackError::OutOfRange { attack, name, expected: "finite".into(), found: value })
}

/// A number that has to be finite and at least zero.
fn not_negative(attack: &'static str, name: &'static str, value: f64) -> Result<(), AttackError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(AttackError::OutOfRange { attack, name, expected: "finite and at least 0".into(), found: value })
}
