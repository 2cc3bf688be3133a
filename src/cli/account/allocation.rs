//! `veilsum account --sampling random-allocation`: each client takes part in exactly `--participations` of the rounds, in a
//! set of them drawn at random.

use serde_json::{Value, json};

use super::args::Args;
use super::noise::Noise;
use super::report::{Findings, describe, print_table};
use super::schedule::{Course, Made};
use super::usage;
use crate::cli::Failure;
use crate::privacy::DpEvent;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::Schedule;
use crate::privacy::mechanism::PrivacyError;

/// k and T, if the arguments allow an allocation.
fn rounds(args: &Args) -> Result<(u64, u64), Failure> {
    for (flag, given) in [
        ("--population: --participations and --rounds say how often a client takes part", args.population.is_some()),
        ("--schedule: the rounds of an allocation are alike", args.schedule.is_some()),
        ("--plot: it is the cost of the whole run", args.plot.is_some()),
        ("--separation", args.correlation.separation.is_some()),
        ("--neighboring", args.neighboring.is_some()),
        ("--server-mu", args.server_mu.is_some()),
    ] {
        if given {
            return Err(usage(format!("--sampling random-allocation does not take {flag}")));
        }
    }
    let (Some(k), Some(rounds)) = (args.correlation.participations, args.rounds) else {
        return Err(usage("--sampling random-allocation needs --participations and --rounds"));
    };
    if k == 0 || k > rounds {
        return Err(usage(format!("--participations is {k}, expected 1 to --rounds, {rounds}")));
    }
    Ok((k, rounds))
}

/// What the run costs those who see its releases, or those who know its rounds.
fn cost(args: &Args, noise: &Noise, (k, rounds): (u64, u64), known: bool) -> Result<EpsilonReport, PrivacyError> {
    let event = Box::new(noise.plain_event(args.clip));
    let whole = if known {
        DpEvent::SelfComposed { event, count: k }
    } else {
        DpEvent::RandomAllocation { participations: k, rounds, event }
    };
    Rule::from(args.accountant).epsilon(&whole, 1, args.delta)
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let allocation = rounds(args)?;
    let course = Course::uniform(args.cohort, 1);
    let epsilon = |made: &[Made]| match made.first() {
        Some(one) => Ok(cost(args, one.noise(), allocation, false)?.epsilon),
        None => Ok(f64::INFINITY),
    };
    let level = args.target_epsilon.map(|target| course.calibrated(args, target, epsilon)).transpose()?;
    let one = course.base(args, level)?;
    let report = cost(args, one.noise(), allocation, false)?;
    let server = Some(cost(args, one.noise(), allocation, true)?.epsilon);
    let (k, rounds) = allocation;
    let schedule = Schedule { rate: k as f64 / rounds as f64, rounds, delta: args.delta };
    let wrap = super::ring(args, one.noise(), args.cohort)?;
    let findings = Findings { schedule: &schedule, noise: one.noise(), report: &report, l_inf: None, server, wrap };
    let mut object = describe(args, &findings);
    object.insert("participations".to_owned(), json!(k));
    if args.json {
        println!("{}", Value::Object(object));
    } else {
        print_table(&object);
    }
    Ok(())
}
