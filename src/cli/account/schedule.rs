//! `veilsum account --schedule`: rounds whose noise or cohort changes, as one composition of the stages' own events.

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::args::{Args, MechanismName};
use super::noise::{Noise, name, noise};
use super::parameters::{parameters, row_parameters};
use super::usage;
use crate::cli::{Exit, Failure, number};
use crate::config::schedule::{ScheduleConfig, stages};
use crate::privacy::DpEvent;
use crate::privacy::accountant::rdp::{published, validate};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::search::Search;
use crate::privacy::calibrate::{SkellamKind, discrete_gaussian};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::mechanism::binomial::MOST_COINS;
use crate::privacy::stages::{Decay, Stage, Stages};
use crate::report::terminal::Table;

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
        let one = Self(vec![Step { rounds: self.rounds(), factor: 1.0, cohort: args.cohort }]);
        one.made(args, level)?.pop().ok_or_else(|| usage("--schedule has no stage"))
    }

    /// The least base noise whose course costs at most `target`.
    pub(super) fn calibrated(&self, args: &Args, target: f64) -> Result<f64, Failure> {
        let Some(knob) = Knob::of(args, self)? else {
            return Err(usage(format!("--schedule finds no noise of {}: give its parameters", name(args))));
        };
        if knob.given(args).is_some() {
            return Err(usage("--target-epsilon finds the noise: give one of the two"));
        }
        let rule = Rule::from(args.accountant);
        let cost = |level: f64, rule: Rule| match self.made(args, Some(level)) {
            Ok(made) => Ok(epsilon(&made, args, rule)?.epsilon),
            // Noise so little that no mechanism has it protects nothing.
            Err(_) => Ok(f64::INFINITY),
        };
        // A mechanism or a relation that is not known at all says so before anything is searched.
        epsilon(&self.made(args, Some(knob.level(args, 1.0)))?, args, rule)?;
        let guess = knob.level(args, self.multiplier(args, target)?);
        let search = Search { target, guess, factor: 1.05, largest: knob.largest(), grain: knob.grain() };
        Ok(search.run(|level| cost(level, rule))?)
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

    /// Epsilon of the course at the accountant's best; `rate` 1 is the view of those who know the cohorts.
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
            multiplier.into_iter().chain(parameters(event, cohort)).collect()
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

/// What stands for the noise of a mechanism, and how a factor on its standard deviation changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knob {
    /// `mu` of one client, by the square.
    Mu,
    /// By the factor.
    NoiseMultiplier,
    /// By the factor.
    SigmaTotal,
    /// By the square, rounded up.
    Coins,
    /// By the square, rounded up.
    Trials,
}

impl Knob {
    /// That of the mechanism; `None` for one without a noise to scale, if the course does not ask for any.
    fn of(args: &Args, course: &Course) -> Result<Option<Self>, Failure> {
        Ok(Some(match args.mechanism {
            MechanismName::Smm | MechanismName::Smm2022 | MechanismName::Skellam => Self::Mu,
            MechanismName::DistributedDiscreteGaussian => Self::SigmaTotal,
            MechanismName::Binomial => Self::Coins,
            MechanismName::CenteredBinomial => Self::Trials,
            MechanismName::CentralGaussian
            | MechanismName::Gaussian
            | MechanismName::Laplace
            | MechanismName::DiscreteGaussian
            | MechanismName::DiscreteLaplace => Self::NoiseMultiplier,
            MechanismName::Matrix => {
                return Err(usage("--mechanism matrix does not take --schedule: its noise is that of the whole run"));
            }
            MechanismName::RandomizedResponse | MechanismName::PureDp | MechanismName::Zcdp
                if course.0.iter().all(|step| step.factor == 1.0) =>
            {
                return Ok(None);
            }
            _ => {
                return Err(usage(format!(
                    "--mechanism {} has no noise that a stage could scale: its stages may differ in their cohorts only \
                     (ROUNDSx1@COHORT)",
                    name(args)
                )));
            }
        }))
    }

    fn given(self, args: &Args) -> Option<f64> {
        match self {
            Self::Mu => args.mu,
            Self::NoiseMultiplier => args.noise_multiplier,
            Self::SigmaTotal => args.sigma_total,
            Self::Coins => args.coins.map(|coins| coins as f64),
            Self::Trials => args.trials.map(|trials| trials as f64),
        }
    }

    fn set(self, args: &mut Args, base: f64, factor: f64) {
        let (square, whole) = (base * factor * factor, |x: f64| Some(x.ceil() as u64));
        match self {
            Self::Mu => args.mu = Some(square),
            Self::NoiseMultiplier => args.noise_multiplier = Some(base * factor),
            Self::SigmaTotal => args.sigma_total = Some(base * factor),
            Self::Coins => args.coins = whole(square),
            Self::Trials => args.trials = whole(square),
        }
    }

    /// The level at which the noise of the sum has so many times the sensitivity's standard deviation, roughly.
    fn level(self, args: &Args, multiplier: f64) -> f64 {
        let sensitivity = args.gamma.map_or(args.sensitivity.unwrap_or(1) as f64, |gamma| gamma * args.clip);
        let sigma = multiplier * sensitivity;
        match self {
            Self::Mu => 0.5 * sigma * sigma / args.cohort.max(1) as f64,
            Self::NoiseMultiplier => multiplier,
            Self::SigmaTotal => sigma,
            Self::Coins => 2.0 * sigma * sigma,
            Self::Trials => 4.0 * sigma * sigma,
        }
        .clamp(1e-9, self.largest())
    }

    fn largest(self) -> f64 {
        match self {
            Self::Coins => MOST_COINS as f64,
            Self::Trials => super::noise::MOST_TRIALS,
            _ => 1e15,
        }
    }

    fn grain(self) -> f64 {
        if matches!(self, Self::Coins | Self::Trials) { 0.5 } else { 0.0 }
    }
}

/// `ROUNDSxNOISE[@COHORT],...`, `weighted:ROUNDSxWEIGHT,...`, `exponential:LAST[:STEPS]`, `linear:LAST[:STEPS]`, or the JSON
/// of a config's `privacy.schedule`.
fn parse(text: &str, rounds: Option<u64>, cohort: u64) -> Result<Course, Failure> {
    let needed = || {
        let rounds = rounds.ok_or_else(|| usage("this --schedule needs --rounds, which it deals to its stages"))?;
        if rounds == 0 { Err(usage("--rounds is 0, expected at least 1")) } else { Ok(rounds) }
    };
    let alike =
        |stages: &Stages| stages.all().iter().map(|s| Step { rounds: s.rounds, factor: s.factor, cohort }).collect();
    if text.trim_start().starts_with('{') {
        let config: ScheduleConfig =
            serde_json::from_str(text).map_err(|e| usage(format!("--schedule is no schedule of a config: {e}")))?;
        let own = match &config {
            ScheduleConfig::Stages { stages } => Some(stages.iter().map(|s| u64::from(s.rounds)).sum()),
            ScheduleConfig::Weighted { stages } => Some(stages.iter().map(|s| u64::from(s.rounds)).sum()),
            _ => None,
        };
        let all = own.map_or_else(needed, Ok)?;
        let made = stages(Some(&config), all).map_err(|e| usage(e.to_string()))?;
        return Ok(Course(alike(&made)));
    }
    if let Some((law, rest)) = text.split_once(':') {
        let made = match law.trim() {
            "weighted" => {
                let pairs = rest.split(',').map(pair).collect::<Result<Vec<_>, _>>()?;
                if let Some((_, _, Some(other))) = pairs.iter().find(|(_, _, cohort)| cohort.is_some()) {
                    return Err(usage(format!("--schedule weighted: takes no cohorts, found @{other}")));
                }
                Stages::weighted(&pairs.iter().map(|&(rounds, weight, _)| (rounds, weight)).collect::<Vec<_>>())?
            }
            "exponential" => decay(Decay::Exponential, rest, needed()?)?,
            "linear" => decay(Decay::Linear, rest, needed()?)?,
            other => {
                return Err(usage(format!(
                    "--schedule names the law {other:?}, expected weighted, exponential or linear, or stages ROUNDSxNOISE"
                )));
            }
        };
        return Ok(Course(alike(&made)));
    }
    let mut steps: Vec<Step> = Vec::new();
    for part in text.split(',') {
        let (rounds, factor, own) = pair(part)?;
        // The ranges are those of a run's stages.
        Stages::new([Stage { rounds, factor }])?;
        let cohort = own.unwrap_or(cohort);
        match steps.last_mut() {
            Some(last) if last.factor == factor && last.cohort == cohort => {
                last.rounds = last.rounds.saturating_add(rounds);
            }
            _ => steps.push(Step { rounds, factor, cohort }),
        }
    }
    if steps.len() > Stages::MOST {
        let (expected, found) = (format!("1 to {}", Stages::MOST), steps.len().to_string());
        return Err(Failure::new(Exit::Usage, PrivacyError::OutOfRange { name: "stages", expected, found }));
    }
    Ok(Course(steps))
}

/// `ROUNDSxNUMBER[@COHORT]`.
fn pair(part: &str) -> Result<(u64, f64, Option<u64>), Failure> {
    let wrong = || {
        usage(format!(
            "--schedule has the stage {part:?}, expected ROUNDSxNOISE or ROUNDSxNOISE@COHORT, as in 500x0.8@240"
        ))
    };
    let (stage, cohort) = match part.split_once('@') {
        Some((stage, cohort)) => (stage, Some(cohort.trim().parse::<u64>().map_err(|_| wrong())?)),
        None => (part, None),
    };
    let (rounds, number) = stage.split_once('x').ok_or_else(wrong)?;
    let rounds = rounds.trim().parse::<u64>().map_err(|_| wrong())?;
    Ok((rounds, number.trim().parse::<f64>().map_err(|_| wrong())?, cohort))
}

/// `LAST[:STEPS]`.
fn decay(law: Decay, text: &str, rounds: u64) -> Result<Stages, Failure> {
    let wrong = || {
        usage(format!("--schedule has {text:?} behind its law, expected LAST or LAST:STEPS, as in exponential:0.5:8"))
    };
    let (last, steps) = match text.split_once(':') {
        Some((last, steps)) => (last, steps.trim().parse::<u32>().map_err(|_| wrong())?),
        None => (text, 8),
    };
    let last = last.trim().parse::<f64>().map_err(|_| wrong())?;
    validate::positive("noise of the last stage", last)?;
    Ok(Stages::decaying(rounds, law, last, steps)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(text: &str, rounds: Option<u64>) -> Course {
        parse(text, rounds, 10).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn stages_are_read() {
        let step = |rounds, factor, cohort| Step { rounds, factor, cohort };
        assert_eq!(course("5x1,3x0.5@20, 2x0.5@20", None), Course(vec![step(5, 1.0, 10), step(5, 0.5, 20)]));
        assert_eq!(course("weighted:5x4,1x1", None), Course(vec![step(5, 0.5, 10), step(1, 1.0, 10)]));
        assert_eq!(course("linear:0.5:2", Some(4)), Course(vec![step(2, 1.0, 10), step(2, 0.5, 10)]));
        assert_eq!(course("exponential:0.25", Some(8)).0.len(), 8);
        let json = r#"{"law": "stages", "stages": [{"rounds": 5, "noise": 1.0}, {"rounds": 1, "noise": 0.5}]}"#;
        assert_eq!(course(json, None), course("5x1,1x0.5", None));
        let all = course("5x1,3x0.5,2x0.25", None);
        assert_eq!((all.rounds(), all.first(6).0.len(), all.first(6).rounds(), all.first(99)), (10, 2, 6, all.clone()));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let many = vec!["1x1,1x2"; 17].join(",");
        for (text, says) in [
            ("5", "ROUNDSxNOISE"),
            ("5x", "ROUNDSxNOISE"),
            ("x1", "ROUNDSxNOISE"),
            ("5x1@", "ROUNDSxNOISE"),
            ("0x1", "at least 1"),
            ("5x0", "0.001"),
            ("5xNaN", "0.001"),
            ("5x1,", "ROUNDSxNOISE"),
            ("sinus:3", "sinus"),
            ("linear:0.5", "--rounds"),
            ("weighted:5x1@3", "no cohorts"),
            ("{}", "config"),
            (many.as_str(), "1 to 32"),
        ] {
            let refused = parse(text, None, 10).expect_err(text).to_string();
            assert!(refused.contains(says), "{text}: {refused}");
        }
        assert!(parse("linear:0:4", Some(9), 10).is_err() && parse("linear:0.5:1", Some(9), 10).is_err());
    }
}
