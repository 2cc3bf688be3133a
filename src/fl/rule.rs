//! Aggregation rules: what a server makes of K vectors when up to f of them may be anything (Byzantine).
//!
//! An [`Aggregator`] is a [`Rule`] and what stands [before](before::PreAggregation) it. It takes rows of `f32` in a
//! [`Rows`] of any backend, one per client **in the order of the clients' ids** (ties go to the lowest index), and gives
//! one vector. Rows with NaN or an infinity are left out and named, never averaged, and the rule's condition on K is
//! checked again on what is left.
//!
//! | rule | condition | K x d work besides the result |
//! |---|---|---|
//! | [`mean`], [`norm_bounded_mean`] | K >= 1 | none, norms |
//! | [`median`] | K >= 1 | kernel `median` |
//! | [`trimmed_mean`] (f), [`meamed`] (f) | K > 2f | kernel `trimmed_mean`, a sort |
//! | [`krum`] (f), multi-Krum (f, m) | K > 2f + 2 | kernel `gram` |
//! | [`bulyan`] (f) | K >= 4f + 3 | kernel `gram`, a sort |
//! | [`geometric_median`] | K >= 1 | kernel `gram` |
//! | [`centered_clipping`] (tau, iterations) | K >= 1 | kernel `gram` |
//! | [`mda`] (f) | K > 2f | kernel `gram` |
//! | [`fltrust`] | K >= 1, the server's own vector | norms, products |
//!
//! Distances come from the kernel `gram`. A rule whose aggregate is a combination `sum_k c_k x_k` is computed on the K x K
//! inner products ([`pairs::Pairs`]) and reads the vectors once more for the sum, in `f64` and in the order of the rows:
//! the same coefficients give the same bits on every backend. Those coefficients are [`Aggregate::shares`]: what part every
//! client has in the result.
//!
//! A rule needs individual vectors; a secure sum shows none. Under secure aggregation a rule works on the sums of groups,
//! and its f counts groups with a Byzantine member.

pub mod before;
pub mod bulyan;
pub mod centered_clipping;
pub mod config;
mod error;
pub mod fltrust;
pub mod geometric_median;
pub mod krum;
pub mod mda;
pub mod meamed;
pub mod mean;
pub mod median;
pub mod mixing;
pub mod norm_bounded_mean;
pub mod pairs;
pub mod trimmed_mean;
pub mod vectors;

use std::fmt;

use self::before::PreAggregation;
pub use self::config::{AggregationConfig, PreAggregationConfig, RuleConfig};
pub use self::error::RuleError;
pub use self::vectors::Vectors;
use crate::backend::{Backend, BackendError, Rows};
use crate::math::prg::StreamKey;

/// What a rule may need besides the vectors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inputs<'a> {
    /// Integer weights, one per row (sample counts, staleness); absent: all equal.
    pub weights: Option<&'a [u64]>,
    /// The update of the server itself, on data that it trusts: for [`fltrust`].
    pub root: Option<&'a [f32]>,
    /// Where [`centered_clipping`] begins: the aggregate of the last round; absent: zero.
    pub start: Option<&'a [f32]>,
    /// Key of this round's public permutation: for [`before::bucketing`].
    pub permutation: Option<&'a StreamKey>,
}

/// What a rule makes of the vectors that it sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The aggregate, d coordinates.
    pub vector: Vec<f32>,
    /// The coefficient of every vector in it, if it is a combination of them.
    pub shares: Option<Vec<f64>>,
    /// The vectors that were selected, ascending, if the rule selects some.
    pub chosen: Option<Vec<usize>>,
    /// Iterations that it took; 0 for a rule without.
    pub iterations: u32,
    /// False if an iteration ended before it met its tolerance.
    pub converged: bool,
}

impl Outcome {
    /// A vector of which there is nothing else to say.
    #[must_use]
    pub const fn of(vector: Vec<f32>) -> Self {
        Self { vector, shares: None, chosen: None, iterations: 0, converged: true }
    }

    /// A combination of the vectors.
    pub fn combination(vectors: &Vectors<'_>, shares: Vec<f64>) -> Result<Self, RuleError> {
        let vector = vectors.combined(&shares, None)?;
        Ok(Self { shares: Some(shares), ..Self::of(vector) })
    }

    /// The mean of the vectors named, which are distinct.
    pub fn mean_of(vectors: &Vectors<'_>, mut chosen: Vec<usize>) -> Result<Self, RuleError> {
        chosen.sort_unstable();
        let mut shares = vec![0.0; vectors.count()];
        chosen.iter().for_each(|&i| shares[i] = 1.0 / chosen.len() as f64);
        Ok(Self { chosen: Some(chosen), ..Self::combination(vectors, shares)? })
    }
}

/// An aggregation rule. It knows its own parameters; how many vectors there are it learns in every round.
pub trait Rule: fmt::Debug + Send + Sync {
    /// The name in configs.
    fn name(&self) -> &'static str;

    /// Whether the rule's condition holds for so many vectors. Errors: [`RuleError::TooFew`] with the condition, a parameter
    /// that is out of range for so many.
    fn check(&self, vectors: usize) -> Result<(), RuleError>;

    /// True if the formula has weights. Other rules are never given weights that differ.
    fn weighted(&self) -> bool {
        false
    }

    /// The aggregate of vectors for whose number [`Rule::check`] holds. Errors: an input that is missing, those of kernels.
    /// A row with NaN or an infinity must be such an error ([`BackendError::NonFinite`]), as it is of every verb of
    /// [`Vectors`] that reads the row; it is left out then, and the rule called again.
    fn aggregate(&self, vectors: &Vectors<'_>, inputs: &Inputs<'_>) -> Result<Outcome, RuleError>;
}

/// The aggregate of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// d coordinates, all finite.
    pub vector: Vec<f32>,
    /// The rows that were left out because they held NaN or an infinity, ascending.
    pub dropped: Vec<usize>,
    /// The coefficient of every row that was given, if the aggregate is a combination of them: 0 for one left out. They add
    /// up to 1 but where a vector was clipped or nothing was trusted.
    pub shares: Option<Vec<f64>>,
    /// The rows that were selected, ascending: of Krum, multi-Krum, Bulyan's first step and MDA. Mixed neighbours count
    /// as the row around which they were mixed; behind bucketing there is no such row, and nothing is said.
    pub chosen: Option<Vec<usize>>,
    /// Iterations that the rule took; 0 for a rule without.
    pub iterations: u32,
    /// False if an iteration ended before it met its tolerance.
    pub converged: bool,
}

/// A rule and what stands before it, in order.
#[derive(Debug)]
pub struct Aggregator {
    before: Vec<Box<dyn PreAggregation>>,
    rule: Box<dyn Rule>,
}

impl Aggregator {
    /// From its parts.
    #[must_use]
    pub fn new(before: Vec<Box<dyn PreAggregation>>, rule: Box<dyn Rule>) -> Self {
        Self { before, rule }
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &dyn Rule {
        &*self.rule
    }

    /// Whether all conditions hold for so many vectors, each on the number that reaches it. Errors: the first that does not.
    pub fn check(&self, vectors: usize) -> Result<(), RuleError> {
        let mut left = vectors;
        for before in &self.before {
            before.check(left)?;
            left = before.outputs(left);
        }
        self.rule.check(left)
    }

    /// Aggregates rows of `f32`, on the host or on the backend's device.
    ///
    /// Errors: too few vectors, also once those with NaN or an infinity are left out; weights that differ where there is no
    /// weighted form; an input that is missing or of another length; what the kernels refuse.
    pub fn aggregate(&self, backend: &dyn Backend, rows: &Rows, inputs: &Inputs<'_>) -> Result<Aggregate, RuleError> {
        self.check(rows.rows)?;
        self.check_inputs(rows, inputs)?;
        let vectors = Vectors::new(backend, rows)?;
        let all: Vec<usize> = (0..rows.rows).collect();
        match self.once(vectors, inputs, &all) {
            Err(RuleError::Backend(BackendError::NonFinite { .. })) => {}
            other => return other,
        }
        // Rarely: the rows are looked at one by one, and those that are finite copied.
        let vectors = Vectors::new(backend, rows)?;
        let dropped = vectors.not_finite()?;
        let kept: Vec<usize> = (0..rows.rows).filter(|i| !dropped.contains(i)).collect();
        self.check(kept.len()).map_err(|e| e.after_dropping(dropped.len()))?;
        let finite = vectors.without(&dropped)?;
        let weights: Option<Vec<u64>> = inputs.weights.map(|w| kept.iter().map(|&i| w[i]).collect());
        let inputs = Inputs { weights: weights.as_deref(), ..*inputs };
        let mut aggregate = self.once(Vectors::new(backend, &finite)?, &inputs, &kept)?;
        if let Some(shares) = &mut aggregate.shares {
            let mut of_all = vec![0.0; rows.rows];
            kept.iter().zip(&*shares).for_each(|(&i, &c)| of_all[i] = c);
            *shares = of_all;
        }
        Ok(Aggregate { dropped, ..aggregate })
    }

    /// Aggregates rows of which none may be left out; row i is row `origin[i]` of those that were given.
    fn once(&self, mut vectors: Vectors<'_>, inputs: &Inputs<'_>, origin: &[usize]) -> Result<Aggregate, RuleError> {
        let mut one_each = true;
        for before in &self.before {
            let mixing = before.mix(&vectors, inputs)?;
            one_each &= before.outputs(vectors.count()) == vectors.count() && before.keeps_places();
            vectors = vectors.mixed(mixing);
        }
        let Outcome { vector, shares, chosen, iterations, converged } = self.rule.aggregate(&vectors, inputs)?;
        let shares = shares.map(|c| vectors.shares(&c));
        let chosen = chosen.filter(|_| one_each).map(|c| c.into_iter().map(|i| origin[i]).collect());
        Ok(Aggregate { vector, dropped: Vec::new(), shares, chosen, iterations, converged })
    }

    /// Lengths, weights and values of what is given besides the rows.
    fn check_inputs(&self, rows: &Rows, inputs: &Inputs<'_>) -> Result<(), RuleError> {
        for (what, vector) in [("the root vector", inputs.root), ("the start of centered clipping", inputs.start)] {
            let Some(vector) = vector else { continue };
            if vector.len() != rows.dim {
                return Err(RuleError::WrongLength { what, expected: rows.dim, found: vector.len() });
            }
            if let Some(coordinate) = vector.iter().position(|v| !v.is_finite()) {
                return Err(RuleError::NonFinite { what, coordinate });
            }
        }
        let Some(weights) = inputs.weights else { return Ok(()) };
        if weights.len() != rows.rows {
            return Err(RuleError::WrongLength { what: "the weights", expected: rows.rows, found: weights.len() });
        }
        if weights.iter().all(|&w| w == 0) {
            return Err(RuleError::NoWeight { vectors: weights.len() });
        }
        let weighted = self.rule.weighted() && self.before.is_empty();
        if !weighted && weights.windows(2).any(|w| w[0] != w[1]) {
            return Err(RuleError::Weights { rule: self.rule.name() });
        }
        Ok(())
    }
}
