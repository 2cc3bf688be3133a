//! A running total: releases of a run, stage after stage, on top of what was spent before.
//!
//! Renyi divergences cost nothing at another number of releases; privacy losses cost a Fourier transform of their own. So
//! losses are asked for few numbers of releases, and **more releases never cost less**: what was proved for some holds for
//! every number below. A total is the least of the Renyi bound and of what is proved for the same releases or more.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::pld::PldAccountant;
use super::rdp::RdpAccountant;
use super::{Accountant, EpsilonReport, Rule};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, SAMPLER_SHARE};

/// Kinds of sampled releases beyond which their losses are not composed (each has a grid of its own).
const KINDS: usize = 64;
/// Answers of the accountant of losses that this process remembers: a run, its ledger and its calibration ask alike.
const REMEMBERED: usize = 256;

/// The part of delta that the error of the noise tables takes, `(1 + e^epsilon) N t`, at most 1; `error` is `N t`, the sum of
/// the total variation distances of all releases. Beyond [`SAMPLER_SHARE`] of delta an epsilon is void.
#[must_use]
pub fn sampler_part(epsilon: f64, error: f64) -> f64 {
    if error == 0.0 { 0.0 } else { ((1.0 + libm::exp(epsilon)) * error).min(1.0) }
}

/// Epsilon of earlier events and of the releases of each stage so far.
#[derive(Clone, Debug)]
pub struct Meter {
    stages: Vec<(DpEvent, u64)>,
    stride: u64,
    rule: Rule,
    earlier: Vec<(DpEvent, u64)>,
    primed: RdpAccountant,
    /// False where privacy losses are not asked: another rule, an event that they do not know, too many kinds.
    by_losses: bool,
    /// True where privacy losses have a closed form: asked for every number of releases.
    closed: bool,
    /// A report above this is made exact.
    limit: f64,
    /// What was proved for which releases. A clone shares it.
    known: Arc<Mutex<Vec<Known>>>,
}

/// What privacy losses prove.
#[derive(Clone, Debug)]
struct Known {
    releases: Vec<u64>,
    delta: f64,
    report: EpsilonReport,
}

/// How a run will use a meter.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// The event of a release and the number of releases of each stage, at least one stage.
    pub stages: Vec<(DpEvent, u64)>,
    /// Every so many releases a report is exact, >= 1; in between it is that of the next such number, if that is less than
    /// the Renyi bound.
    pub stride: u64,
    /// Which accountants are asked.
    pub rule: Rule,
}

impl Course {
    /// Any number of releases of one event, each report exact.
    #[must_use]
    pub fn open(event: DpEvent) -> Self {
        Self { stages: vec![(event, 0)], stride: 1, rule: Rule::Best }
    }
}

impl Meter {
    /// A meter of `event`, after `earlier`: events with their counts. By the least of all bounds.
    ///
    /// # Errors
    /// As [`Meter::of`].
    pub fn new(event: DpEvent, earlier: &[(DpEvent, u64)]) -> Result<Self, PrivacyError> {
        Self::of(Course::open(event), earlier)
    }

    /// A meter of a run's course, after `earlier`.
    ///
    /// # Errors
    /// [`PrivacyError::UnknownEvent`] where no accountant that is asked knows an event, [`PrivacyError::OutOfRange`].
    pub fn of(course: Course, earlier: &[(DpEvent, u64)]) -> Result<Self, PrivacyError> {
        let Course { stages, stride, rule } = course;
        let all = || earlier.iter().map(|(event, _)| event).chain(stages.iter().map(|(event, _)| event));
        let sampled =
            |event: &DpEvent| matches!(event, DpEvent::PoissonSampled { .. } | DpEvent::FixedSizeSampled { .. });
        let kinds = all().filter(|event| sampled(event)).count();
        let losses = losses(all().map(|event| (event.clone(), 1)));
        let by_losses = match (rule, losses) {
            (Rule::Pld, losses) => losses.map(|_| true)?,
            (Rule::Best, Ok(_)) => kinds <= KINDS,
            (Rule::Best, Err(PrivacyError::UnknownEvent { .. })) | (Rule::Rdp, _) => false,
            (Rule::Best, Err(e)) => return Err(e),
        };
        let mut primed = RdpAccountant::new();
        if rule != Rule::Pld {
            for (event, count) in earlier {
                primed.compose(event, *count)?;
            }
            for (event, _) in &stages {
                primed.compose(event, 0)?;
            }
        }
        let (earlier, known) = (earlier.to_vec(), Arc::default());
        Ok(Self {
            stages,
            stride: stride.max(1),
            rule,
            earlier,
            primed,
            by_losses,
            closed: kinds == 0,
            limit: f64::INFINITY,
            known,
        })
    }

    /// The same meter, whose reports are exact where they would be above a limit that [`Meter::exceeds`] is asked for: no
    /// report is then above a limit that was kept.
    #[must_use]
    pub fn limited(self, limit: Option<f64>) -> Self {
        Self { limit: limit.unwrap_or(f64::INFINITY), ..self }
    }

    /// Epsilon after `releases` of each stage, at `delta` without the part that is set aside for the sampler; exact every
    /// `stride` releases of the course. Depends on nothing that was asked before: a resumed run reports alike.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] for a delta outside (0, 1).
    pub fn epsilon(&self, releases: &[u64], delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let renyi = self.renyi(releases, delta)?;
        if !self.by_losses {
            return Ok(renyi);
        }
        let told = least(self.exact(&self.ahead(releases), delta)?, renyi);
        if told.epsilon <= self.limit {
            return Ok(told);
        }
        let exact = self.exact(releases, delta)?;
        Ok(least(least(exact, self.cheap(releases, delta)?), told))
    }

    /// Epsilon after `releases` of each stage if it is above `limit`, by the best bound: a cheap one decides only where it
    /// is not above.
    ///
    /// # Errors
    /// As [`Meter::epsilon`].
    pub fn exceeds(&self, releases: &[u64], delta: f64, limit: f64) -> Result<Option<f64>, PrivacyError> {
        let mut bound = self.cheap(releases, delta)?.epsilon;
        if bound > limit && self.by_losses {
            bound = bound.min(self.exact(releases, delta)?.epsilon);
        }
        Ok((bound > limit).then_some(bound))
    }

    /// The best bound at exactly these releases.
    ///
    /// # Errors
    /// As [`Meter::epsilon`].
    pub fn exactly(&self, releases: &[u64], delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let renyi = self.renyi(releases, delta)?;
        if self.by_losses { Ok(least(self.exact(releases, delta)?, renyi)) } else { Ok(renyi) }
    }

    /// The Renyi bound; infinite where that is not asked.
    fn renyi(&self, releases: &[u64], delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let mut accountant = self.primed.clone();
        if self.rule != Rule::Pld {
            for ((event, _), &count) in self.stages.iter().zip(releases) {
                accountant.compose(event, count)?;
            }
        }
        let mut report = accountant.epsilon(share(delta))?;
        if self.rule == Rule::Pld {
            report.epsilon = f64::INFINITY;
            "pld".clone_into(&mut report.accountant);
        }
        Ok(EpsilonReport { delta, ..report })
    }

    /// The Renyi bound, or one that is known of these releases or more.
    fn cheap(&self, releases: &[u64], delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let mut best = self.renyi(releases, delta)?;
        let more = |known: &Known| known.delta == delta && at_least(&known.releases, releases);
        for known in lock(&self.known).iter().filter(|known| more(known)) {
            if known.report.epsilon < best.epsilon {
                best = known.report.clone();
            }
        }
        Ok(best)
    }

    /// By privacy losses, which are remembered.
    fn exact(&self, releases: &[u64], delta: f64) -> Result<EpsilonReport, PrivacyError> {
        let same = |known: &&Known| known.delta == delta && known.releases == releases;
        if let Some(known) = lock(&self.known).iter().find(same) {
            return Ok(known.report.clone());
        }
        let stages = self.stages.iter().zip(releases).map(|((event, _), &count)| (event.clone(), count));
        let events = self.earlier.iter().cloned().chain(stages).filter(|(_, count)| *count > 0).collect();
        let report = EpsilonReport { delta, ..remembered(events, share(delta))? };
        if !self.closed {
            let known = Known { releases: releases.to_vec(), delta, report: report.clone() };
            lock(&self.known).push(known);
        }
        Ok(report)
    }

    /// The next releases, or these, at which a report is exact: so many more of the course as it is planned.
    fn ahead(&self, releases: &[u64]) -> Vec<u64> {
        let total: u64 = releases.iter().sum();
        let planned: u64 = self.stages.iter().map(|(_, rounds)| rounds).sum();
        let next = total.div_ceil(self.stride).saturating_mul(self.stride).min(planned);
        if self.closed || next <= total {
            return releases.to_vec();
        }
        let mut left = next;
        let course = self.stages.iter().map(|(_, rounds)| {
            let here = left.min(*rounds);
            left -= here;
            here
        });
        course.zip(releases).map(|(planned, &made)| planned.max(made)).collect()
    }
}

fn share(delta: f64) -> f64 {
    delta * (1.0 - SAMPLER_SHARE)
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What a thread that panicked has left is whole: entries are pushed.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn at_least(these: &[u64], others: &[u64]) -> bool {
    these.len() == others.len() && these.iter().zip(others).all(|(a, b)| a >= b)
}

/// The lesser bound; of two alike the cheap one, which has an order.
fn least(exact: EpsilonReport, cheap: EpsilonReport) -> EpsilonReport {
    if exact.epsilon < cheap.epsilon { exact } else { cheap }
}

fn losses(events: impl IntoIterator<Item = (DpEvent, u64)>) -> Result<PldAccountant, PrivacyError> {
    let mut accountant = PldAccountant::upper_only();
    for (event, count) in events {
        accountant.compose(&event, count)?;
    }
    Ok(accountant)
}

/// A question to the accountant of losses: releases and the bits of delta.
type Question = (Vec<(DpEvent, u64)>, u64);

/// The answer of the accountant of losses, from memory if it was asked lately.
fn remembered(events: Vec<(DpEvent, u64)>, delta: f64) -> Result<EpsilonReport, PrivacyError> {
    static MEMORY: Mutex<VecDeque<(Question, EpsilonReport)>> = Mutex::new(VecDeque::new());
    let question = (events, delta.to_bits());
    if let Some((_, answer)) = lock(&MEMORY).iter().find(|(known, _)| *known == question) {
        return Ok(answer.clone());
    }
    let answer = losses(question.0.iter().cloned())?.epsilon(delta)?;
    let mut memory = lock(&MEMORY);
    if memory.len() >= REMEMBERED {
        memory.pop_front();
    }
    memory.push_back((question, answer.clone()));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(sigma: f64) -> DpEvent {
        DpEvent::PoissonSampled { rate: 0.01, event: Box::new(DpEvent::Gaussian { noise_multiplier: sigma }) }
    }

    fn course(stride: u64, rule: Rule) -> Course {
        Course { stages: vec![(sampled(1.0), 60), (sampled(0.8), 40)], stride, rule }
    }

    #[test]
    fn reports_are_exact_at_strides_and_cover_what_lies_between() {
        let exact = Meter::of(course(1, Rule::Best), &[]).unwrap();
        let coarse = Meter::of(course(25, Rule::Best), &[]).unwrap();
        let rdp = Meter::of(course(25, Rule::Rdp), &[]).unwrap();
        let mut last = 0.0;
        for (a, b) in [(1, 0), (10, 0), (25, 0), (26, 0), (50, 0), (60, 0), (60, 1), (60, 15), (60, 30), (60, 40)] {
            let at = |meter: &Meter| meter.epsilon(&[a, b], 1e-5).unwrap().epsilon;
            let (truth, told) = (at(&exact), at(&coarse));
            assert!(truth <= told && told <= at(&rdp) && told >= last, "{a} {b}");
            if (a + b) % 25 == 0 {
                assert_eq!(truth, told);
            }
            last = told;
        }
        // More than was planned: reruns of rounds that were charged.
        let more = coarse.epsilon(&[63, 45], 1e-5).unwrap().epsilon;
        assert!(more > last && more == exact.epsilon(&[63, 45], 1e-5).unwrap().epsilon);
    }

    #[test]
    fn a_limit_is_as_tight_as_the_best_bound_and_never_looser_than_a_report() {
        let exact = Meter::of(course(1, Rule::Best), &[]).unwrap();
        let limit = exact.epsilon(&[60, 20], 1e-5).unwrap().epsilon;
        let rdp = Meter::of(course(25, Rule::Rdp), &[]).unwrap();
        assert!(rdp.exceeds(&[60, 20], 1e-5, limit).unwrap().is_some(), "the case decides nothing");
        let meter = Meter::of(course(25, Rule::Best), &[]).unwrap().limited(Some(limit));
        for b in 0..=21 {
            let excess = meter.exceeds(&[60, b], 1e-5, limit).unwrap();
            assert_eq!(excess.is_some(), b == 21, "{b}");
            if b <= 20 {
                assert!(meter.epsilon(&[60, b], 1e-5).unwrap().epsilon <= limit, "{b}");
            }
        }
    }

    #[test]
    fn a_report_does_not_depend_on_what_was_asked_before() {
        let [fresh, asked] = [(); 2].map(|()| Meter::of(course(25, Rule::Best), &[]).unwrap());
        for b in [40, 5, 20] {
            assert!(asked.exceeds(&[60, b], 1e-5, 1e-3).unwrap().is_some());
        }
        for (a, b) in [(30, 0), (60, 3), (60, 19)] {
            assert_eq!(asked.epsilon(&[a, b], 1e-5).unwrap(), fresh.epsilon(&[a, b], 1e-5).unwrap());
        }
    }

    #[test]
    fn what_losses_do_not_know_is_left_to_the_renyi_bound_or_an_error() {
        let event = DpEvent::PoissonSampled {
            rate: 0.01,
            event: Box::new(DpEvent::DiscreteGaussian { noise_multiplier: 1.0 }),
        };
        let of = |rule| Meter::of(Course { stages: vec![(event.clone(), 10)], stride: 1, rule }, &[]);
        let best = of(Rule::Best).unwrap().epsilon(&[10], 1e-5).unwrap();
        assert_eq!(best, of(Rule::Rdp).unwrap().epsilon(&[10], 1e-5).unwrap());
        assert_eq!((best.delta, best.accountant.as_str()), (1e-5, "rdp"));
        assert!(matches!(of(Rule::Pld), Err(PrivacyError::UnknownEvent { .. })));
        let pld = Meter::of(course(10, Rule::Pld), &[(sampled(2.0), 7)]).unwrap().epsilon(&[3, 0], 1e-5).unwrap();
        assert_eq!(pld.accountant, "pld");
        assert!(Meter::new(event, &[]).unwrap().epsilon(&[1], 0.0).is_err());
    }
}
