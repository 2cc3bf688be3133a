//! `veilsum account --mechanism matrix`: what a run with correlated noise costs, and how exact its prefix sums are.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Map, Value, json};

use super::args::{Args, MechanismName, SamplingName};
use super::report::print_table;
use super::{parameters, usage};
use crate::cli::{Failure, number};
use crate::fl::cohort;
use crate::privacy::accountant::rdp::validate;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::{Schedule, calibrate_noise_multiplier};
use crate::privacy::matrix::{MatrixKind, Objective, Participation, PrefixError, Strategy};
use crate::privacy::mechanism::matrix::whole_run;
use crate::privacy::{NeighboringRelation, View};

/// Arguments that belong to the matrix.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Matrix (correlated noise)")]
pub struct MatrixArgs {
    /// The family of the matrix, blt if not given (matrix).
    #[arg(long, value_enum)]
    pub matrix: Option<MatrixName>,
    /// Diagonals that are not zero, 1 to 4096 (matrix: square-root, banded).
    #[arg(long)]
    pub bands: Option<u32>,
    /// Buffers, 1 to 8; 4 if not given (matrix: blt).
    #[arg(long)]
    pub degree: Option<u32>,
    /// What the optimizer makes small, the error of the last prefix sum if not given (matrix: banded, blt).
    #[arg(long, value_enum)]
    pub objective: Option<ObjectiveName>,
    /// Most rounds of one client; if not given, what --separation allows in --rounds (matrix). Of a random allocation: the
    /// rounds of each client.
    #[arg(long)]
    pub participations: Option<u64>,
    /// Least distance of two rounds of a client; if not given, that of groups which take turns: --population over
    /// --cohort, rounded up, or 1 (matrix).
    #[arg(long)]
    pub separation: Option<u64>,
}

/// Families of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MatrixName {
    /// Noise of its own for every round.
    Independent,
    /// The first bands of the square root of the prefix sums.
    SquareRoot,
    /// As many bands, optimized.
    Banded,
    /// Buffered linear Toeplitz, optimized.
    Blt,
}

/// What the optimizer makes small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectiveName {
    /// The error of the worst prefix sum.
    Max,
    /// The mean squared error of all prefix sums.
    Mean,
}

impl MatrixArgs {
    /// An argument of a matrix, if one was given.
    fn given(&self) -> Option<&'static str> {
        let all = [
            ("--matrix", self.matrix.is_some()),
            ("--bands", self.bands.is_some()),
            ("--degree", self.degree.is_some()),
            ("--objective", self.objective.is_some()),
            ("--participations", self.participations.is_some()),
            ("--separation", self.separation.is_some()),
        ];
        all.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn kind(&self) -> Result<MatrixKind, Failure> {
        let name = self.matrix.unwrap_or(MatrixName::Blt);
        let (banded, blt) = (matches!(name, MatrixName::SquareRoot | MatrixName::Banded), name == MatrixName::Blt);
        for (flag, given, taken) in [
            ("--bands", self.bands.is_some(), banded),
            ("--degree", self.degree.is_some(), blt),
            ("--objective", self.objective.is_some(), blt || name == MatrixName::Banded),
        ] {
            if given && !taken {
                return Err(usage(format!("--matrix {} does not take {flag}", super::value_name(name))));
            }
        }
        let objective = match self.objective {
            Some(ObjectiveName::Mean) => Objective::Mean,
            _ => Objective::Max,
        };
        let bands = || self.bands.ok_or_else(|| usage("--matrix square-root and banded need --bands"));
        Ok(match name {
            MatrixName::Independent => MatrixKind::Independent,
            MatrixName::SquareRoot => MatrixKind::SquareRoot { bands: bands()? },
            MatrixName::Banded => MatrixKind::Banded { bands: bands()?, objective },
            MatrixName::Blt => MatrixKind::Blt { degree: self.degree.unwrap_or(4), objective },
        })
    }
}

/// Refuses the arguments of a matrix beside another mechanism.
pub(super) fn refuse_unused(args: &Args) -> Result<(), Failure> {
    match args.correlation.given() {
        Some("--participations") if args.sampling == SamplingName::RandomAllocation => Ok(()),
        Some(flag) if args.mechanism != MechanismName::Matrix => {
            Err(usage(format!("--mechanism {} does not take {flag}", super::value_name(args.mechanism))))
        }
        _ => Ok(()),
    }
}

fn participation(args: &Args) -> Participation {
    let turns = args.population.map_or(1, |population| cohort::groups(population, args.cohort as f64));
    let separation = args.correlation.separation.unwrap_or(turns);
    let most = args.rounds().div_ceil(separation.max(1));
    Participation { max: args.correlation.participations.unwrap_or(most).min(most.max(1)), separation }
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    parameters::refuse_unused(args)?;
    let schedule = Schedule { rate: 1.0, rounds: 1, ..super::schedule(args)? };
    let (rule, kind, participation) = (Rule::from(args.accountant), args.correlation.kind()?, participation(args));
    let strategy = Strategy::new(kind, args.rounds(), participation)?;
    validate::positive("--clip", args.clip)?;
    let multiplier = match (args.noise_multiplier, args.target_epsilon) {
        (Some(multiplier), _) => {
            validate::positive("--noise-multiplier", multiplier)?;
            multiplier
        }
        (None, Some(target)) => calibrate_noise_multiplier(&schedule, target, rule, whole_run)?,
        (None, None) => return Err(usage("--mechanism matrix needs --noise-multiplier or --target-epsilon")),
    };
    let report = rule.epsilon(&whole_run(multiplier), 1, args.delta)?;
    let object = describe(args, &strategy, participation, multiplier, &report)?;
    if args.json {
        println!("{}", Value::Object(object));
    } else {
        print_table(&object);
    }
    Ok(())
}

/// The errors of prefix sums at a noise multiplier, in units of the clip bound.
fn scaled(strategy: &Strategy, participation: Participation, multiplier: f64) -> Result<PrefixError, Failure> {
    let by = multiplier * strategy.sensitivity(participation)?;
    let PrefixError { max, mean } = strategy.prefix_error();
    Ok(PrefixError { max: by * max, mean: by * mean })
}

fn describe(
    args: &Args,
    strategy: &Strategy,
    participation: Participation,
    multiplier: f64,
    report: &EpsilonReport,
) -> Result<Map<String, Value>, Failure> {
    let found = scaled(strategy, participation, multiplier)?;
    let identity = Strategy::new(MatrixKind::Independent, args.rounds(), participation)?;
    let independent = scaled(&identity, participation, multiplier)?;
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("epsilon", number(report.epsilon));
    put("delta", json!(report.delta));
    put("order", json!(report.order));
    put("accountant", json!(report.accountant));
    put("neighboring", json!(NeighboringRelation::ZeroOut));
    put("view", json!(View::Server));
    put("mechanism", json!("matrix"));
    put("matrix", json!(super::value_name(args.correlation.matrix.unwrap_or(MatrixName::Blt))));
    put("bands", json!(args.correlation.bands));
    put("buffers", json!(strategy.buffers()));
    put("noise_multiplier", json!(multiplier));
    put("sensitivity", json!(strategy.sensitivity(participation)?));
    put("participations", json!(participation.max));
    put("separation", json!(participation.separation));
    put("clip", json!(args.clip));
    put("cohort", json!(args.cohort));
    put("population", json!(args.population));
    put("rounds", json!(args.rounds()));
    put("certified", json!(true));
    if let Some(target) = args.target_epsilon {
        put("target_epsilon", json!(target));
    }
    // Standard deviations of a coordinate's noise in the sum of the first t rounds.
    for (key, value) in [
        ("prefix_error_max", found.max),
        ("prefix_error_mean", found.mean),
        ("independent_prefix_error_max", independent.max),
        ("independent_prefix_error_mean", independent.mean),
    ] {
        put(key, json!(args.clip * value));
    }
    put("round_error", json!(args.clip * multiplier * strategy.sensitivity(participation)? * strategy.round_error()));
    put("error_over_independent_max", json!(found.max / independent.max));
    put("error_over_independent_mean", json!(found.mean / independent.mean));
    Ok(object)
}
