//! `veilsum account --schedule`: rounds whose noise or cohort changes, as one composition of the stages' own events.

mod knob;
mod parse;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::args::Args;
use super::noise::{Noise, name, noise};
use super::parameters::{parameters, row_parameters};
use super::usage;
use crate::cli::{Failure, number};
use crate::privacy::DpEvent;
use crate::privacy::accountant::rdp::published;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::search::Search;
use crate::privacy::calibrate::{SkellamKind, discrete_gaussian};
use crate::privacy::mechanism::PrivacyError;
use crate::report::terminal::Table;
use knob::Knob;
use parse::parse;

/// Rounds in a row with one noise and one cohort.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    rounds: u64,
    /// Factor of the noise's standard deviation.
    factor: f64,
    cohort: u64,
}

/// The stages of a run, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Course(Vec<Step>);

/// A stage with its noise.
pub(super) struct Made {
    step: Step,
    rate: f64,
    noise: Noise,
}

impl Course {
    /// The course that was asked for, if one was.
    pub(super) fn of(args: &Args) -> Result<Option<Self>, Failure> {
        let Some(text) = &args.schedule else { return Ok(None) };
        let course = parse(text, args.rounds, args.cohort)?;
        if let Some(rounds) = args.rounds.filter(|&rounds| rounds != course.rounds()) {
            return Err(usage(format!(
                "--schedule has {} rounds, --rounds says {rounds}; leave --rounds out, or make them agree",
                course.rounds()
            )));
        }
        // What has no noise to change is refused before anything is computed.
        Knob::of(args, &course)?;
        Ok(Some(course))
    }

    /// So many rounds alike.
    pub(super) fn uniform(cohort: u64, rounds: u64) -> Self {
        Self(vec![Step { rounds, factor: 1.0, cohort }])
    }

    /// Rounds of all stages.
    pub(super) fn rounds(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, step| sum.saturating_add(step.rounds))
    }

    /// The same course, cut after so many rounds.
    fn first(&self, rounds: u64) -> Self {
        let mut left = rounds;
        let cut = |step: &Step| {
            let here = left.min(step.rounds);
            left -= here;
            (here > 0).then_some(Step { rounds: here, ..*step })
        };
        Self(self.0.iter().filter_map(cut).collect())
    }

    /// The noise of every stage at this level of the base noise; `None` where the arguments give all.
    pub(super) fn made(&self, args: &Args, level: Option<f64>) -> Result<Vec<Made>, Failure> {
        let knob = Knob::of(args, self)?;
        let base = level.or_else(|| knob.and_then(|knob| knob.given(args)));
        let made = |step: &Step| {
            let mut own = Args { cohort: step.cohort, rounds: Some(step.rounds), target_epsilon: None, ..args.clone() };
            if let (Some(knob), Some(base)) = (knob, base) {
                knob.set(&mut own, base, step.factor);
            }
            let schedule = super::schedule(&own)?;
            Ok(Made { step: *step, rate: schedule.rate, noise: noise(&own, &schedule)? })
        };
        self.0.iter().map(made).collect()
    }

    /// A round of factor 1 and the cohort of `--cohort`.
    pub(super) fn base(&self, args: &Args, level: Option<f64>) -> Result<Made, Failure> {
        Self::uniform(args.cohort, self.rounds())
            .made(args, level)?
            .pop()
            .ok_or_else(|| usage("--schedule has no stage"))
    }

    /// The least base noise at which the `cost` of the course is at most `target`.
    pub(super) fn calibrated(
        &self,
        args: &Args,
        target: f64,
        cost: impl Fn(&[Made]) -> Result<f64, PrivacyError>,
    ) -> Result<f64, Failure> {
        let Some(knob) = Knob::of(args, self)? else {
            return Err(usage(format!(
                "no noise of {} is found for rounds like these: give its parameters",
                name(args)
            )));
        };
        if knob.given(args).is_some() {
            return Err(usage("--target-epsilon finds the noise: give one of the two"));
        }
        // A mechanism or a relation that is not known at all says so before anything is searched.
        cost(&self.made(args, Some(knob.level(args, 1.0)))?)?;
        let guess = knob.level(args, self.multiplier(args, target)?);
        let search = Search { target, guess, factor: 1.05, largest: knob.largest(), grain: knob.grain() };
        Ok(search.run(|level| match self.made(args, Some(level)) {
            Ok(made) => cost(&made),
            // Noise so little that no mechanism has it protects nothing.
            Err(_) => Ok(f64::INFINITY),
        })?)
    }

    /// The noise multiplier of a Gaussian with this course: where the search begins.
    fn multiplier(&self, args: &Args, target: f64) -> Result<f64, Failure> {
        let search = Search { target, guess: 1.0, factor: 2.0, largest: 1e15, grain: 0.0 };
        let stage = |step: &Step, noise: f64| {
            let rate = args.population.map_or(1.0, |population| step.cohort as f64 / population as f64).min(1.0);
            let event = Box::new(discrete_gaussian(noise * step.factor));
            DpEvent::SelfComposed { event: Box::new(DpEvent::PoissonSampled { rate, event }), count: step.rounds }
        };
        Ok(search.run(|noise| {
            let all = DpEvent::Composed(self.0.iter().map(|step| stage(step, noise)).collect());
            Ok(Rule::Rdp.epsilon(&all, 1, args.delta)?.epsilon)
        })?)
    }

    /// Epsilon of the first rounds of the course.
    pub(super) fn epsilon(
        &self,
        args: &Args,
        made: &[Made],
        rounds: u64,
        rule: Rule,
    ) -> Result<EpsilonReport, PrivacyError> {
        let first = self.first(rounds);
        let events = made.iter().zip(&first.0).map(|(made, step)| made.event(args, made.rate, step.rounds));
        rule.epsilon(&DpEvent::Composed(events.collect::<Result<_, _>>()?), 1, args.delta)
    }
}

/// Epsilon of all stages.
pub(super) fn epsilon(made: &[Made], args: &Args, rule: Rule) -> Result<EpsilonReport, PrivacyError> {
    let events = made.iter().map(|made| made.event(args, made.rate, made.step.rounds));
    rule.epsilon(&DpEvent::Composed(events.collect::<Result<_, _>>()?), 1, args.delta)
}

/// Epsilon of all stages to those who know the cohorts.
pub(super) fn server(made: &[Made], args: &Args, rule: Rule) -> Result<EpsilonReport, PrivacyError> {
    let events = made.iter().map(|made| made.event(args, 1.0, made.step.rounds));
    rule.epsilon(&DpEvent::Composed(events.collect::<Result<_, _>>()?), 1, args.delta)
}

/// The coordinate bound that the order of a report allows in every stage (smm-2022).
pub(super) fn l_inf(made: &[Made], report: &EpsilonReport) -> Option<f64> {
    let order = report.order? as u32;
    let bound = |made: &Made| match made.noise {
        Noise::Skellam { kind: SkellamKind::Smm2022, mu_total, .. } => Some(published::linf_bound(mu_total, order)),
        _ => None,
    };
    made.iter().filter_map(bound).reduce(f64::min)
}

impl Made {
    /// So many rounds of this stage.
    fn event(&self, args: &Args, rate: f64, rounds: u64) -> Result<DpEvent, PrivacyError> {
        Ok(DpEvent::SelfComposed { event: Box::new(self.noise.event(args.clip, rate)?), count: rounds })
    }

    /// Its noise.
    pub(super) fn noise(&self) -> &Noise {
        &self.noise
    }

    /// Clients in a round.
    pub(super) fn cohort(&self) -> u64 {
        self.step.cohort
    }
}

/// One object a stage: its own epsilon, as if nothing else were released, and that of all up to its end.
pub(super) fn describe(course: &Course, args: &Args, made: &[Made]) -> Result<Vec<Map<String, Value>>, PrivacyError> {
    let rule = Rule::from(args.accountant);
    let ends: Vec<u64> = course
        .0
        .iter()
        .scan(0u64, |end, step| {
            *end = end.saturating_add(step.rounds);
            Some(*end)
        })
        .collect();
    let costs: Vec<(EpsilonReport, EpsilonReport)> = made
        .par_iter()
        .zip(&ends)
        .map(|(stage, &end)| {
            let own = rule.epsilon(&stage.event(args, stage.rate, stage.step.rounds)?, 1, args.delta)?;
            Ok((own, course.epsilon(args, made, end, rule)?))
        })
        .collect::<Result<_, PrivacyError>>()?;
    Ok(made.iter().zip(costs).map(|(stage, (own, after))| object(args, stage, &own, &after)).collect())
}

fn object(args: &Args, stage: &Made, own: &EpsilonReport, after: &EpsilonReport) -> Map<String, Value> {
    let Step { rounds, factor, cohort } = stage.step;
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| all.insert(key.to_owned(), value);
    put("rounds", json!(rounds));
    put("noise", json!(factor));
    put("cohort", json!(cohort));
    put("sampling_rate", json!(stage.rate));
    let known = match &stage.noise {
        Noise::Skellam { .. } => row_parameters(&stage.noise, &Args { cohort, ..args.clone() }),
        Noise::Plain { multiplier, event, .. } => {
            let multiplier = multiplier.map(|multiplier| ("noise_multiplier", json!(multiplier)));
            multiplier.into_iter().chain(parameters(event, cohort, args.clip)).collect()
        }
    };
    for (key, value) in known {
        put(key, value);
    }
    put("epsilon", number(own.epsilon));
    put("epsilon_so_far", number(after.epsilon));
    put("accountant", json!(after.accountant));
    all
}

/// The stages as lines.
pub(super) fn table(stages: &[Map<String, Value>]) -> Table {
    let columns = ["rounds", "noise", "cohort", "sampling_rate", "epsilon", "epsilon_so_far"];
    let mut table = Table::new(["rounds", "noise", "cohort", "sampling rate", "epsilon alone", "epsilon so far"]);
    for stage in stages {
        table.push(columns.map(|column| stage.get(column).map_or_else(String::new, ToString::to_string)));
    }
    table
}
