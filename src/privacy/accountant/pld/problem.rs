//! One direction of a composition: the window that matters, and bounds on a grid in it.

use realfft::RealFftPlanner;

use super::Interval;
use super::compose::{Law, Side, Sum, Window};
use super::curve::{self, LossCurve};
use super::dots::{self, Dots, Grid};
use super::gaussian::Direction;
use super::single;
use super::source::{Sampling, Source};

/// Beyond this loss `e^loss` is near the end of the range of numbers: it counts as infinite.
const LIMIT: f64 = 600.0;
/// Share of delta that losses beyond the grid may take.
const TAIL: f64 = 1e-7;
/// P's mass below the grid, over all compositions.
const BELOW: f64 = 1e-12;
/// Grid points with which tilt and window are found.
const COARSE: f64 = 16_384.0;

/// Releases of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// The mechanism.
    pub(super) source: Source,
    /// How contributions are drawn.
    pub(super) sampling: Sampling,
    /// Releases.
    pub(super) count: u64,
}

impl Part {
    /// The sigma of a Gaussian without sampling.
    pub(super) fn plain_gaussian(&self) -> Option<f64> {
        match self.source {
            Source::Gaussian(sigma) if self.sampling == Sampling::Poisson(1.0) => Some(sigma),
            _ => None,
        }
    }

    /// True if both directions have one curve.
    pub(super) fn is_symmetric(&self) -> bool {
        let same = matches!(self.sampling, Sampling::Fixed(_)) || self.sampling.rate() == 1.0;
        same && self.source.is_symmetric()
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Query {
    /// The epsilon at a delta.
    Epsilon { delta: f64 },
    /// The delta at an epsilon.
    Delta { epsilon: f64 },
}

/// One direction of a composition and what is asked of it.
pub(super) struct Problem {
    curves: Vec<(Box<dyn LossCurve>, u64)>,
    supports: Vec<(f64, f64)>,
    query: Query,
}

impl Problem {
    pub(super) fn new(parts: &[Part], direction: Direction, query: Query) -> Self {
        let curve = |part: &Part| (part.source.curve(part.sampling, direction), part.count);
        let curves: Vec<_> = parts.iter().map(curve).collect();
        let releases: f64 = parts.iter().map(|part| part.count as f64).sum();
        let tail = match query {
            Query::Epsilon { delta } => TAIL * delta,
            Query::Delta { .. } => 1e-30,
        };
        let support = |curve: &dyn LossCurve| curve::support(curve, BELOW / releases, tail / releases, LIMIT);
        let supports = curves.iter().map(|(curve, _)| support(curve.as_ref())).collect();
        Self { curves, supports, query }
    }

    /// The sum of `term` over all releases.
    pub(super) fn each(&self, term: impl Fn(&dyn LossCurve) -> f64) -> f64 {
        self.curves.iter().map(|(curve, count)| *count as f64 * term(curve.as_ref())).sum()
    }

    /// The answer for one release.
    pub(super) fn single(&self) -> Option<Interval> {
        let [(curve, 1)] = self.curves.as_slice() else { return None };
        Some(match self.query {
            Query::Epsilon { delta } => single::epsilon(curve.as_ref(), delta, LIMIT),
            Query::Delta { epsilon } => single::delta(curve.as_ref(), epsilon),
        })
    }

    /// What holds without any computation: the greatest losses add up, if none is infinite.
    pub(super) fn trivial(&self) -> Interval {
        let bounded = self.each(|curve| curve.infinite() + curve.left_out()) == 0.0;
        let sum = if bounded { self.each(|curve| curve.greatest() + curve.loss_error()) } else { f64::INFINITY };
        let most = sum.max(0.0) * (1.0 + 1e-12);
        let high = match self.query {
            Query::Epsilon { .. } => most,
            Query::Delta { epsilon } if epsilon >= most => 0.0,
            Query::Delta { .. } => 1.0,
        };
        Interval { low: 0.0, high }
    }

    /// The widest loss of one release.
    fn width(&self) -> f64 {
        self.supports.iter().map(|(low, high)| high - low).fold(0.0, f64::max)
    }

    /// The losses of all parts on grids of `step`; `None` where one has no such grid or bound.
    fn sum(&self, step: f64, discretize: impl Fn(&dyn LossCurve, &Grid) -> Option<Dots>) -> Option<Sum> {
        let parts = self.curves.iter().zip(&self.supports).map(|((curve, count), &(low, high))| {
            Some((discretize(curve.as_ref(), &Grid::around(low, high, step)?)?, *count))
        });
        parts.collect::<Option<Vec<_>>>().map(Sum::new)
    }

    fn upper(&self, step: f64) -> Option<Sum> {
        self.sum(step, |curve, grid| Some(dots::upper(curve, grid)))
    }

    /// Tilt and window: a coarse grid widens the loss, and the window found on it tells a finer grid.
    pub(super) fn window(&self) -> Window {
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

    pub(super) fn bounds(
        &self,
        window: &Window,
        size: usize,
        upper_only: bool,
        fft: &mut RealFftPlanner<f64>,
    ) -> Interval {
        let step = self.step(window, size as f64);
        let mut law = |sum: Option<Sum>| sum.map(|sum| sum.law(window, size, fft));
        let upper = law(self.upper(step));
        let lower = if upper_only { None } else { law(self.sum(step, dots::lower)) };
        let trivial = self.trivial();
        // Roundings of losses move epsilon, errors of masses epsilon and delta.
        let rounding = self.each(|curve| curve.loss_error() + 2.0 * curve.mass_error());
        let slack = libm::exp(self.each(|curve| curve.mass_error()));
        let ask = |law: &Law, side: Side| match (self.query, side) {
            (Query::Epsilon { delta }, Side::Upper) => law.epsilon(delta / slack, side) + rounding,
            (Query::Epsilon { delta }, Side::Lower) => (law.epsilon(delta * slack, side) - rounding).max(0.0),
            (Query::Delta { epsilon }, Side::Upper) => {
                (law.delta((epsilon - rounding).max(0.0), side) * slack).min(1.0)
            }
            (Query::Delta { epsilon }, Side::Lower) => law.delta(epsilon + rounding, side) / slack,
        };
        Interval {
            low: lower.map_or(trivial.low, |law| ask(&law, Side::Lower)),
            high: upper.map_or(trivial.high, |law| ask(&law, Side::Upper)),
        }
    }
}
