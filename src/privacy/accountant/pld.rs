//! The privacy loss distribution: composition by convolution, with a bound on either side.
//!
//! For a pair (P, Q) of neighbours' outputs `delta(epsilon) = E_P[(1 - e^(epsilon - L))_+]` with `L = ln dP/dQ`, and the
//! losses of independent releases add. [`dots`] puts the loss of one release between two laws on a grid, [`compose`] adds
//! them up. Both directions of every pair are followed; epsilon is the larger one's.
//!
//! A Skellam mixture, and integers under Skellam, binomial or (also distributed) discrete Gaussian noise, are dominated by a
//! Gaussian up to a little delta ([`mixture`]): they are accounted as that Gaussian, and the delta is charged.
//!
//! What is charged: the discretization (in the direction of the bound), what lies outside the window, the rounding of
//! `erfc`, of the transform and of sums. Not proved, as everywhere in this crate: that `libm`'s functions have the
//! errors that they state.
//!
//! [`atoms`] are discrete pairs (integer noise, randomized response), [`continuous`] ones Laplace noise, mixtures of
//! Gaussians and samples of fixed size. One release needs no grid ([`single`]).

pub mod atoms;
pub mod compose;
pub mod continuous;
pub mod curve;
pub mod dots;
pub mod gaussian;
pub mod mixture;
mod problem;
pub mod single;
mod source;

use realfft::RealFftPlanner;

use super::rdp::validate;
use super::{Accountant, EpsilonReport};
use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;
use gaussian::{Direction, delta_between, epsilon_between};
use mixture::{Dominating, Mixture};
use problem::{Part, Problem, Query};
use source::{Sampling, Source};

/// What [`PldAccountant`] knows, for error messages.
const SUPPORTED: &str = "non-private, Gaussian (on the real numbers), mixture of Gaussians, Laplace, integer shift with up to 2^19 outcomes, randomized response, pure DP, Skellam mixture (smm) of known dimension, Skellam vector, binomial vector, distributed discrete Gaussian, each plain or Poisson sampled once, or (but for the mixtures and vectors) sampled with a fixed size, and compositions of these, with samples of fixed size among themselves only";
/// Sizes of the transform that are tried, and the relative distance of the bounds that ends the search after each.
const SIZES: [(usize, f64); 3] = [(1 << 16, 3e-5), (1 << 18, 5e-4), (1 << 20, f64::INFINITY)];
/// Releases of which the first size is enough where the distance of the bounds is not known.
const FEW: f64 = 20_000.0;

/// An epsilon between two proved bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Never above the truth.
    pub low: f64,
    /// Never below it.
    pub high: f64,
}

/// Adds up privacy losses; [`PldAccountant::interval`] encloses epsilon.
///
/// Knows the mechanisms whose two laws are explicit (Gaussian and mixtures of Gaussians, Laplace, integer noise on an
/// integer query, randomized response, pure DP), the Skellam mixture, vectors of integers and `NonPrivate`, plain or under one Poisson sampling, and their
/// compositions; everything else is [`PrivacyError::UnknownEvent`]. Samples of fixed size are about neighbours that replace
/// a contribution: they compose with each other only. Without sampling the Gaussian has a closed form, which is used.
/// Of a Skellam mixture and of vectors of integers there is an upper bound only: the lower one is 0.
#[derive(Debug, Default)]
pub struct PldAccountant {
    parts: Vec<Part>,
    mixtures: Vec<Mixture>,
    non_private: bool,
    /// Lower bounds are not asked for.
    upper_only: bool,
}

impl PldAccountant {
    /// An accountant that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An accountant that has seen nothing and is not asked how far its bounds can be from the truth: twice as fast, its
    /// lower bounds may be 0.
    #[must_use]
    pub fn upper_only() -> Self {
        Self { upper_only: true, ..Self::default() }
    }

    /// Adds an event that is plain, sampled or composed, `count` times.
    fn add(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        match event {
            DpEvent::PoissonSampled { rate, event } => {
                validate::rate(*rate)?;
                self.add_sampled(event, Sampling::Poisson(*rate), count)
            }
            DpEvent::FixedSizeSampled { sample, population, event } => {
                let rate = validate::share(*sample, *population)?;
                self.add_sampled(event, Sampling::Fixed(rate), count)
            }
            DpEvent::SelfComposed { event, count: times } => {
                let count = count.checked_mul(*times).ok_or_else(|| PrivacyError::OutOfRange {
                    name: "count",
                    expected: "fewer than 2^64 releases in all".to_owned(),
                    found: format!("{count} times {times}"),
                })?;
                self.add(event, count)
            }
            DpEvent::Composed(events) => events.iter().try_for_each(|event| self.add(event, count)),
            plain => self.add_sampled(plain, Sampling::Poisson(1.0), count),
        }
    }

    /// Adds an event without sampling and composition of its own, under `sampling`.
    fn add_sampled(&mut self, event: &DpEvent, sampling: Sampling, count: u64) -> Result<(), PrivacyError> {
        if *event == DpEvent::NonPrivate {
            self.non_private |= sampling.rate() > 0.0 && count > 0;
            return Ok(());
        }
        let fixed = |sampling: Sampling| matches!(sampling, Sampling::Fixed(_));
        if let (Some(one), Sampling::Poisson(rate)) = (Mixture::of(event)?, sampling)
            && !self.parts.iter().any(|part| fixed(part.sampling))
        {
            mixture::add(&mut self.mixtures, Mixture { rate, count, ..one });
            return Ok(());
        }
        let allowed = |source: &Source| !fixed(sampling) || source.is_symmetric();
        let alike = self.parts.iter().all(|part| fixed(part.sampling) == fixed(sampling))
            && (self.mixtures.is_empty() || !fixed(sampling));
        match Source::of(event)?.filter(allowed).filter(|_| alike) {
            Some(source) => self.add_part(source, sampling, count),
            None => {
                return Err(PrivacyError::UnknownEvent {
                    accountant: "pld",
                    event: format!("{event:?} under {sampling:?}"),
                    supported: SUPPORTED,
                });
            }
        }
        Ok(())
    }

    fn add_part(&mut self, source: Source, sampling: Sampling, count: u64) {
        if sampling.rate() == 0.0 || count == 0 || source.is_free() {
            return;
        }
        match self.parts.iter_mut().find(|part| part.source == source && part.sampling == sampling) {
            Some(part) => part.count = part.count.saturating_add(count),
            None => self.parts.push(Part { source, sampling, count }),
        }
    }

    /// Epsilon at `delta` in (0, 1), enclosed; both infinite if nothing is protected.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a delta outside (0, 1).
    pub fn interval(&self, delta: f64) -> Result<Interval, PrivacyError> {
        validate::delta(delta)?;
        Ok(self.answer(Query::Epsilon { delta }))
    }

    /// Delta at `epsilon >= 0`, enclosed.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for an epsilon that is negative or not finite.
    pub fn delta_interval(&self, epsilon: f64) -> Result<Interval, PrivacyError> {
        validate::non_negative("epsilon", epsilon)?;
        Ok(self.answer(Query::Delta { epsilon }))
    }

    fn answer(&self, query: Query) -> Interval {
        if self.non_private {
            let worst = if matches!(query, Query::Epsilon { .. }) { f64::INFINITY } else { 1.0 };
            return Interval { low: worst, high: worst };
        }
        if !self.mixtures.is_empty() {
            return Interval { low: 0.0, high: self.dominated(query).0 };
        }
        if self.parts.is_empty() {
            return Interval { low: 0.0, high: 0.0 };
        }
        if let Some(sigmas) = self.parts.iter().map(Part::plain_gaussian).collect::<Option<Vec<_>>>() {
            return self.closed(&sigmas, query);
        }
        let one = |direction| self.one_direction(direction, query);
        if self.parts.iter().all(Part::is_symmetric) {
            return one(Direction::Remove);
        }
        let (remove, add) = rayon::join(|| one(Direction::Remove), || one(Direction::Add));
        Interval { low: remove.low.max(add.low), high: remove.high.max(add.high) }
    }

    /// The accountant of the Gaussians that dominate everything, and what they charge to `delta`.
    fn dominating(&self, delta: f64) -> Option<(Self, Dominating)> {
        let found = mixture::dominating(&self.mixtures, delta)?;
        // The Gaussians' lower bound says nothing of the mixtures.
        let mut gaussians = Self { parts: self.parts.clone(), ..Self::upper_only() };
        for &(sigma, rate, count) in &found.gaussians {
            gaussians.add_part(Source::Gaussian(sigma), Sampling::Poisson(rate), count);
        }
        Some((gaussians, found))
    }

    /// The upper bound that the dominating Gaussians give, and which it is.
    ///
    /// Where the laws are only known to within factors `e^s` and `e^-s` ([`Dominating::off`]), `delta(epsilon)` is at most
    /// `e^s` times the known ones' at `epsilon - 2 s`.
    fn dominated(&self, query: Query) -> (f64, String) {
        let none = |worst| (worst, mixture::unknown(&self.mixtures));
        match query {
            Query::Epsilon { delta } => self.dominating(delta).map_or(none(f64::INFINITY), |(gaussians, found)| {
                let within = (delta * libm::exp(-found.off) * (1.0 - 4.0 * f64::EPSILON)).min(delta);
                let rest = (within - found.charged).next_down();
                if rest <= 0.0 {
                    return (f64::INFINITY, found.name());
                }
                let rest = Query::Epsilon { delta: rest };
                ((gaussians.answer(rest).high + 2.0 * found.off).next_up(), found.name())
            }),
            Query::Delta { epsilon } => {
                let at = |delta| {
                    self.dominating(delta).map_or(none(1.0), |(gaussians, found)| {
                        let known = epsilon - 2.0 * found.off;
                        if known < 0.0 {
                            return (1.0, found.name());
                        }
                        let known = gaussians.answer(Query::Delta { epsilon: known.next_down().max(0.0) }).high;
                        let sum = (known + found.charged).next_up() * libm::exp(found.off) * (1.0 + 4.0 * f64::EPSILON);
                        (sum.min(1.0), found.name())
                    })
                };
                // Any delta to charge to gives a bound; the second is about the one that comes out.
                let first = at(1e-9);
                let second = at(first.0.clamp(1e-15, 0.5));
                if second.0 < first.0 { second } else { first }
            }
        }
    }

    /// Gaussians without sampling are one Gaussian.
    fn closed(&self, sigmas: &[f64], query: Query) -> Interval {
        let each = self.parts.iter().zip(sigmas).map(|(part, sigma)| part.count as f64 / (sigma * sigma));
        let mu = each.sum::<f64>().sqrt();
        let (low, high) = match query {
            Query::Epsilon { delta } => epsilon_between(mu, delta),
            Query::Delta { epsilon } => delta_between(mu, epsilon),
        };
        Interval { low, high }
    }

    fn one_direction(&self, direction: Direction, query: Query) -> Interval {
        let problem = Problem::new(&self.parts, direction, query);
        if let Some(found) = problem.single() {
            return found;
        }
        let mut fft = RealFftPlanner::new();
        let mut found = problem.trivial();
        let window = problem.window();
        let few = problem.each(|_| 1.0) <= FEW;
        for (size, near) in SIZES {
            let next = problem.bounds(&window, size, self.upper_only, &mut fft);
            found = Interval { low: found.low.max(next.low), high: found.high.min(next.high) };
            let distance = found.high - found.low;
            let enough = if self.upper_only { few || size > SIZES[0].0 } else { distance <= near * found.high };
            if enough {
                break;
            }
        }
        found
    }
}

impl Accountant for PldAccountant {
    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        let before = (self.parts.clone(), self.mixtures.clone(), self.non_private);
        let added = self.add(event, count);
        if added.is_err() {
            (self.parts, self.mixtures, self.non_private) = before;
        }
        added
    }

    fn epsilon(&self, delta: f64) -> Result<EpsilonReport, PrivacyError> {
        validate::delta(delta)?;
        let report =
            |epsilon, epsilon_low, accountant| EpsilonReport { epsilon, epsilon_low, delta, order: None, accountant };
        if !self.mixtures.is_empty() && !self.non_private {
            let (epsilon, name) = self.dominated(Query::Epsilon { delta });
            return Ok(report(epsilon, None, name));
        }
        let Interval { low, high } = self.interval(delta)?;
        Ok(report(high, (!self.upper_only).then_some(low), "pld".to_owned()))
    }

    fn delta(&self, epsilon: f64) -> Result<f64, PrivacyError> {
        Ok(self.delta_interval(epsilon)?.high)
    }
}
