//! What a rule refuses.

use crate::backend::BackendError;

/// What can go wrong between vectors and their aggregate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    /// A kernel refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Fewer vectors than the rule's guarantee needs.
    #[error(
        "{rule} with f = {f} needs at least {needed} vectors ({condition}), and there are {found}{}",
        dropped_words(*dropped)
    )]
    TooFew {
        /// The rule, or what stands before it.
        rule: &'static str,
        /// Byzantine vectors that it shall stand.
        f: usize,
        /// The condition on K, the number of vectors.
        condition: &'static str,
        /// The least K that meets it.
        needed: usize,
        /// Vectors that there are.
        found: usize,
        /// Vectors left out before, since they held NaN or an infinity.
        dropped: usize,
    },
    /// No vector at all.
    #[error("there is no vector to aggregate{}", dropped_words(*dropped))]
    NoVectors {
        /// Vectors left out, since they held NaN or an infinity.
        dropped: usize,
    },
    /// A parameter outside its range.
    #[error("{rule}: {name} is {found}, expected {expected}")]
    OutOfRange {
        /// The rule, or what stands before it.
        rule: &'static str,
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
    /// An argument that the rule cannot do without.
    #[error("{rule} needs {what}, and none was given")]
    Missing {
        /// The rule, or what stands before it.
        rule: &'static str,
        /// What it needs.
        what: &'static str,
    },
    /// NaN or an infinity in an argument of the server's own.
    #[error("{what} holds a NaN or an infinity at coordinate {coordinate}")]
    NonFinite {
        /// Which argument.
        what: &'static str,
        /// First such coordinate.
        coordinate: usize,
    },
    /// Weights that differ where the formula has none.
    #[error(
        "{rule} has no weighted form: all weights have to be equal (mean and norm-bounded-mean, with nothing before them, \
         take integer weights)"
    )]
    Weights {
        /// The rule.
        rule: &'static str,
    },
    /// Weights that are all zero.
    #[error("all {vectors} weights are zero: there is nothing to divide by")]
    NoWeight {
        /// Vectors that there are.
        vectors: usize,
    },
    /// An exact search that may take too long.
    #[error(
        "mda with f = {f} of {vectors} vectors may take {work:.1e} steps, and the limit is {limit:.0e}: its search is \
         exact, with a cost that grows as 1.4656^f. Take a lesser f, groups of clients, or multi-krum"
    )]
    TooMuchWork {
        /// Byzantine vectors.
        f: usize,
        /// Vectors.
        vectors: usize,
        /// Bound on the steps.
        work: f64,
        /// The most that is done.
        limit: f64,
    },
}

/// A half sentence about vectors that were left out.
fn dropped_words(dropped: usize) -> String {
    match dropped {
        0 => String::new(),
        1 => " (one more held a NaN or an infinity)".to_owned(),
        n => format!(" ({n} more held a NaN or an infinity)"),
    }
}

impl RuleError {
    /// The same, telling how many vectors were left out before.
    pub(super) fn after_dropping(mut self, count: usize) -> Self {
        if let Self::TooFew { dropped, .. } | Self::NoVectors { dropped } = &mut self {
            *dropped = count;
        }
        self
    }
}

/// `found >= needed`, or the error that names the condition.
pub(super) fn at_least(
    rule: &'static str,
    f: usize,
    condition: &'static str,
    needed: usize,
    found: usize,
) -> Result<(), RuleError> {
    if found == 0 {
        return Err(RuleError::NoVectors { dropped: 0 });
    }
    if found < needed {
        return Err(RuleError::TooFew { rule, f, condition, needed, found, dropped: 0 });
    }
    Ok(())
}

/// `K > 2 f`: a majority of honest vectors.
pub(super) fn majority(rule: &'static str, f: usize, found: usize) -> Result<(), RuleError> {
    at_least(rule, f, "K > 2f", f.saturating_mul(2).saturating_add(1), found)
}

/// A number that has to be finite and positive.
pub(super) fn positive(rule: &'static str, name: &'static str, value: f64) -> Result<(), RuleError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(RuleError::OutOfRange { rule, name, expected: "finite and > 0".into(), found: value })
}

/// A count that has to be at least one.
pub(super) fn counted(rule: &'static str, name: &'static str, value: usize) -> Result<(), RuleError> {
    if value >= 1 {
        return Ok(());
    }
    Err(RuleError::OutOfRange { rule, name, expected: "at least 1".into(), found: 0.0 })
}
