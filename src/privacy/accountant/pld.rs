//! The privacy loss distribution: composition by convolution, with a bound on either side.
//!
//! For a pair (P, Q) of neighbours' outputs `delta(epsilon) = E_P[(1 - e^(epsilon - L))_+]` with `L = ln dP/dQ`, and the
//! losses of independent releases add. [`dots`] puts the loss of one release between two laws on a grid, [`compose`] adds
//! them up. Both directions of every pair are followed; epsilon is the larger one's.
//!
//! A Skellam mixture is dominated by a Gaussian up to a little delta ([`mixture`]): it is accounted as that Gaussian, and
//! the delta is charged.
//!
//! What is charged: the discretization (in the direction of the bound), what lies outside the window, the rounding of
//! `erfc`, of the transform and of sums. Not proved, as everywhere in this crate: that `libm`'s functions have the
//! errors that they state.

pub mod compose;
pub mod curve;
pub mod dots;
pub mod gaussian;
pub mod mixture;

use realfft::RealFftPlanner;

use super::rdp::validate;
use super::{Accountant, EpsilonReport};
use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;
use compose::{Law, Side, Sum, Window};
use curve::LossCurve;
use dots::{Dots, Grid};
use gaussian::{Direction, SampledGaussian, delta_between, epsilon_between};
use mixture::{Dominating, Mixture};

/// What [`PldAccountant`] knows, for error messages.
const SUPPORTED: &str = "non-private, Gaussian (on the real numbers), Skellam mixture (smm) of known dimension, plain or Poisson sampled once, and compositions of these";
/// Beyond this loss `e^loss` is near the end of the range of numbers: it counts as infinite.
const LIMIT: f64 = 600.0;
/// Share of delta that losses beyond the grid may take.
const TAIL: f64 = 1e-7;
/// P's mass below the grid, over all compositions.
const BELOW: f64 = 1e-12;
/// Grid points with which tilt and window are found.
const COARSE: f64 = 16_384.0;
/// Sizes of the transform that are tried, and the relative distance of the bounds that ends the search after each.
const SIZES: [(usize, f64); 3] = [(1 << 16, 3e-5), (1 << 18, 5e-4), (1 << 20, f64::INFINITY)];
/// Rounding of a loss, per release: a threshold's last bits.
const LOSS_ERROR: f64 = 2e-15;

/// An epsilon between two proved bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Never above the truth.
    pub low: f64,
    /// Never below it.
    pub high: f64,
}

/// Gaussian releases under Poisson sampling, composed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    sigma: f64,
    rate: f64,
    count: u64,
}

impl Part {
    fn curve(&self, direction: Direction) -> SampledGaussian {
        SampledGaussian::new(self.sigma, self.rate, direction)
    }
}

/// Adds up privacy losses; [`PldAccountant::interval`] encloses epsilon.
///
/// Knows the Gaussian mechanism, the Skellam mixture and `NonPrivate`, plain or under one Poisson sampling, and their
/// compositions; everything else is [`PrivacyError::UnknownEvent`]. Without sampling the Gaussian has a closed form, which
/// is used. Of a Skellam mixture there is an upper bound only: the lower one is 0.
#[derive(Debug, Default)]
pub struct PldAccountant {
    parts: Vec<Part>,
    mixtures: Vec<Mixture>,
    non_private: bool,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
enum Query {
    /// The epsilon at a delta.
    Epsilon { delta: f64 },
    /// The delta at an epsilon.
    Delta { epsilon: f64 },
}

impl PldAccountant {
    /// An accountant that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event that is plain, sampled or composed, `count` times.
    fn add(&mut self, rate: f64, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        match event {
            DpEvent::NonPrivate => self.non_private |= rate > 0.0 && count > 0,
            DpEvent::Gaussian { noise_multiplier: sigma } => {
                validate::positive("noise_multiplier", *sigma)?;
                self.add_part(*sigma, rate, count);
            }
            DpEvent::SkellamMixture { mu, l2_bound, dim: Some(dim) } => {
                let one = Mixture::new(*mu, *l2_bound, *dim)?;
                mixture::add(&mut self.mixtures, Mixture { rate, count, ..one });
            }
            DpEvent::PoissonSampled { rate: inner, event } if rate == 1.0 && !is_compound(event) => {
                validate::rate(*inner)?;
                self.add(*inner, event, count)?;
            }
            DpEvent::SelfComposed { event, count: times } if rate == 1.0 => {
                let count = count.checked_mul(*times).ok_or_else(|| PrivacyError::OutOfRange {
                    name: "count",
                    expected: "fewer than 2^64 releases in all".to_owned(),
                    found: format!("{count} times {times}"),
                })?;
                self.add(rate, event, count)?;
            }
            DpEvent::Composed(events) if rate == 1.0 => {
                events.iter().try_for_each(|event| self.add(rate, event, count))?;
            }
            _ => {
                return Err(PrivacyError::UnknownEvent {
                    accountant: "pld",
                    event: format!("{event:?}"),
                    supported: SUPPORTED,
                });
            }
        }
        Ok(())
    }

    fn add_part(&mut self, sigma: f64, rate: f64, count: u64) {
        if rate == 0.0 || count == 0 {
            return;
        }
        match self.parts.iter_mut().find(|part| part.sigma == sigma && part.rate == rate) {
            Some(part) => part.count = part.count.saturating_add(count),
            None => self.parts.push(Part { sigma, rate, count }),
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
        if self.parts.iter().all(|part| part.rate == 1.0) {
            return self.closed(query);
        }
        let one = |direction| self.one_direction(direction, query);
        let (remove, add) = rayon::join(|| one(Direction::Remove), || one(Direction::Add));
        Interval { low: remove.low.max(add.low), high: remove.high.max(add.high) }
    }

    /// The accountant of the Gaussians that dominate everything, and what they charge to `delta`.
    fn dominating(&self, delta: f64) -> Option<(Self, Dominating)> {
        let found = mixture::dominating(&self.mixtures, delta)?;
        let mut gaussians = Self { parts: self.parts.clone(), ..Self::default() };
        for &(sigma, rate, count) in &found.gaussians {
            gaussians.add_part(sigma, rate, count);
        }
        Some((gaussians, found))
    }

    /// The upper bound that the dominating Gaussians give, and which it is.
    fn dominated(&self, query: Query) -> (f64, String) {
        let none = |worst| (worst, mixture::UNKNOWN.to_owned());
        match query {
            Query::Epsilon { delta } => self.dominating(delta).map_or(none(f64::INFINITY), |(gaussians, found)| {
                let rest = Query::Epsilon { delta: (delta - found.charged).next_down() };
                (gaussians.answer(rest).high, found.name())
            }),
            Query::Delta { .. } => {
                let at = |delta| {
                    self.dominating(delta).map_or(none(1.0), |(gaussians, found)| {
                        ((gaussians.answer(query).high + found.charged).next_up().min(1.0), found.name())
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
    fn closed(&self, query: Query) -> Interval {
        let mu = self.parts.iter().map(|part| part.count as f64 / (part.sigma * part.sigma)).sum::<f64>().sqrt();
        let (low, high) = match query {
            Query::Epsilon { delta } => epsilon_between(mu, delta),
            Query::Delta { epsilon } => delta_between(mu, epsilon),
        };
        Interval { low, high }
    }

    fn one_direction(&self, direction: Direction, query: Query) -> Interval {
        let problem = Problem::new(&self.parts, direction, query);
        let mut fft = RealFftPlanner::new();
        let mut found = problem.trivial();
        let window = problem.window();
        for (size, near) in SIZES {
            let next = problem.bounds(&window, size, &mut fft);
            found = Interval { low: found.low.max(next.low), high: found.high.min(next.high) };
            if found.high - found.low <= near * found.high {
                break;
            }
        }
        found
    }
}

/// True for events that sampling would have to be taken into.
fn is_compound(event: &DpEvent) -> bool {
    matches!(event, DpEvent::PoissonSampled { .. } | DpEvent::SelfComposed { .. } | DpEvent::Composed(_))
}

impl Accountant for PldAccountant {
    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        let before = (self.parts.clone(), self.mixtures.clone(), self.non_private);
        let added = self.add(1.0, event, count);
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
        Ok(report(high, Some(low), "pld".to_owned()))
    }

    fn delta(&self, epsilon: f64) -> Result<f64, PrivacyError> {
        Ok(self.delta_interval(epsilon)?.high)
    }
}

/// One direction of a composition and what is asked of it.
struct Problem {
    curves: Vec<(SampledGaussian, u64)>,
    supports: Vec<(f64, f64)>,
    releases: f64,
    query: Query,
}

impl Problem {
    fn new(parts: &[Part], direction: Direction, query: Query) -> Self {
        let curves: Vec<_> = parts.iter().map(|part| (part.curve(direction), part.count)).collect();
        let releases: f64 = parts.iter().map(|part| part.count as f64).sum();
        let tail = match query {
            Query::Epsilon { delta } => TAIL * delta,
            Query::Delta { .. } => 1e-30,
        };
        let support = |curve| curve::support(curve, BELOW / releases, tail / releases, LIMIT);
        let supports = curves.iter().map(|(curve, _)| support(curve)).collect();
        Self { curves, supports, releases, query }
    }

    /// What holds without any computation.
    fn trivial(&self) -> Interval {
        let high = if matches!(self.query, Query::Epsilon { .. }) { f64::INFINITY } else { 1.0 };
        Interval { low: 0.0, high }
    }

    /// The widest loss of one release.
    fn width(&self) -> f64 {
        self.supports.iter().map(|(low, high)| high - low).fold(0.0, f64::max)
    }

    /// The losses of all parts on grids of `step`; `None` where one has no such grid or bound.
    fn sum(&self, step: f64, discretize: impl Fn(&dyn LossCurve, &Grid) -> Option<Dots>) -> Option<Sum> {
        let part = |((curve, count), (low, high)): (&(SampledGaussian, u64), &(f64, f64))| {
            Some((discretize(curve, &Grid::around(*low, *high, step)?)?, *count))
        };
        self.curves.iter().zip(&self.supports).map(part).collect::<Option<Vec<_>>>().map(Sum::new)
    }

    fn upper(&self, step: f64) -> Option<Sum> {
        self.sum(step, |curve, grid| Some(dots::upper(curve, grid)))
    }

    /// Tilt and window: a coarse grid widens the loss, and the window found on it tells a finer grid.
    fn window(&self) -> Window {
        let mut step = self.width() / COARSE;
        let mut window = Window::default();
        for _ in 0..6 {
            let Some(sum) = self.upper(step) else { break };
            let lambda = match self.query {
                Query::Epsilon { delta } => sum.tilt_for_delta(delta),
                Query::Delta { epsilon } => sum.tilt_for_epsilon(epsilon),
            };
            window = sum.window(lambda);
            let finer = self.step(&window, COARSE);
            if finer > 0.7 * step {
                break;
            }
            step = finer;
        }
        window
    }

    /// The step with which `points` grid points hold the window, and twice as many the loss of one release.
    fn step(&self, window: &Window, points: f64) -> f64 {
        ((window.range.1 - window.range.0) / (0.95 * points)).max(self.width() / (2.0 * points))
    }

    fn bounds(&self, window: &Window, size: usize, fft: &mut RealFftPlanner<f64>) -> Interval {
        let step = self.step(window, size as f64);
        let mut law = |sum: Option<Sum>| sum.map(|sum| sum.law(window, size, fft));
        let upper = law(self.upper(step));
        let lower = law(self.sum(step, dots::lower));
        let trivial = self.trivial();
        let rounding = LOSS_ERROR * self.releases;
        let ask = |law: &Law, side: Side| match (self.query, side) {
            (Query::Epsilon { delta }, Side::Upper) => law.epsilon(delta, side) + rounding,
            (Query::Epsilon { delta }, Side::Lower) => (law.epsilon(delta, side) - rounding).max(0.0),
            (Query::Delta { epsilon }, Side::Upper) => law.delta((epsilon - rounding).max(0.0), side),
            (Query::Delta { epsilon }, Side::Lower) => law.delta(epsilon + rounding, side),
        };
        Interval {
            low: lower.map_or(trivial.low, |law| ask(&law, Side::Lower)),
            high: upper.map_or(trivial.high, |law| ask(&law, Side::Upper)),
        }
    }
}
