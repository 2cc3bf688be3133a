//! `veilsum account`: what a mechanism costs, or the noise that meets a target.

mod allocation;
pub mod args;
mod curve;
pub mod matrix;
mod noise;
mod parameters;
pub mod plan;
mod report;
mod schedule;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Exit, Failure};
use crate::privacy::DpEvent;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::Schedule;
use crate::privacy::calibrate::wrap::{RingUse, needed_bits};
use crate::privacy::mechanism::PrivacyError;
use args::{Args, MechanismName, SamplingName};
use noise::{Noise, noise};
use report::{Findings, describe, print_table};
use schedule::Course;

const AFTER_HELP: &str = "\
MECHANISMS
  smm               Skellam mixture with a plain L2 clip (default). Each client adds Poisson(mu) - Poisson(mu)
                    to its rounded, rotated row. Its bounds hold for every row: certified by interval arithmetic.
  matrix            Discrete Gaussian noise of one trusted aggregator that is correlated over the rounds (DP-FTRL).
                    --noise-multiplier is that of the whole run; errors are those of the sums of the first rounds.
                    The clients take turns (--population) or have a --separation; nothing is amplified.
  smm-2022          The same noise with the mixed clip and the coordinate bound l_inf, and the accountant,
                    as published (Bao et al. 2022). The l_inf printed is the bound that clients must enforce.
  skellam (with --gamma and --dim), distributed-discrete-gaussian, binomial
                    Skellam, discrete Gaussian or centred binomial noise on the same rows, whose norm is bounded behind
                    the rounding: at most a share --beta of full rows is shrunk (Agarwal, Kairouz, Liu 2021; Kairouz,
                    Liu, Steinke 2021; binomial: Agarwal et al. 2018). The bound that encode enforces is l2_bound.
  poisson-binomial  Coins whose bias is the row, --coins of each client on a coordinate, and no other noise (Chen, Ozgur,
                    Kairouz 2022; --dim). All clients take part: nothing is amplified. A coordinate is cut at most_bias.
  central-gaussian  One trusted aggregator adds a discrete Gaussian.
  gaussian          A Gaussian on the real numbers, as other libraries' DP-SGD adds it: for comparison. Veilsum
                    itself draws integers only.
  skellam           Without --gamma: Poisson(mu) - Poisson(mu) from each client on one integer that a contribution
                    moves by at most --sensitivity.
  discrete-gaussian, discrete-laplace
                    On such an integer, of parameter --noise-multiplier times --sensitivity.
  centered-binomial Heads among --trials coins, less their mean, on such an integer.
  laplace           On one real number, of scale --noise-multiplier times its sensitivity.
  randomized-response
                    One of --categories answers, the true one e^--release-epsilon times as likely as each other.
  pure-dp, zcdp     Any mechanism with --release-epsilon DP, or of --xi, --rho zero-concentrated DP.

ACCOUNTANTS
  rdp   Renyi differential privacy: every mechanism (infinite for binomial noise); an upper bound.
  pld   Privacy loss distribution (all but smm-2022, central-gaussian, poisson-binomial, zcdp; smm where --dim is
        given): an upper bound, and but for smm and noise on rows a lower one, epsilon_low, that says how far it can be
        from the truth. Both are proved.
  best  The least upper bound of those that know the mechanism (default); 'accountant' names it.

SCHEDULES
  Rounds may differ in their noise and in their cohort, in at most 32 stages. What is accounted is the composition of the
  stages as they are; --mu and its like, or what --target-epsilon finds, is the noise of rounds of noise 1.
  ROUNDSxNOISE[@COHORT],...   stages; NOISE is a standard deviation over that of rounds of noise 1, COHORT is --cohort
                              if not given (each client still adds the same --mu)
  weighted:ROUNDSxWEIGHT,...  stages by what a round may cost: noise 1 / sqrt(WEIGHT)
  exponential:LAST[:STEPS]    --rounds in 8, or STEPS, stages of noise 1 to LAST by equal factors
  linear:LAST[:STEPS]         by equal differences
  '{\"law\": ...}'              as `privacy.schedule` of a config has it
  'epsilon alone' of a stage is as if it were all that is released; stages together cost less than the sum of these.

WHOSE NOISE COUNTS
  That of the clients in one sum who keep their shares to themselves: --groups counts the smallest group, --colluding takes
  clients out. --server-mu is a second level: noise of the server's own, which protects from those who see what it
  publishes and not from itself.

WHAT AN EPSILON MEANS
  It belongs to a delta, a neighbouring relation and a view. 'server' knows who takes part in a round;
  'public' sees only the results, and sampling of the cohort (--population) amplifies its privacy: each
  client on its own (poisson), or a set of fixed size, for which neighbours replace one contribution; or each client takes
  part in exactly --participations of the --rounds, in any of them (random-allocation, by rdp).

EXAMPLES
  One sum over 100 clients, as published:
    veilsum account --mechanism smm-2022 --gamma 64 --mu 5.95 --clip 1 --cohort 100 --delta 1e-5
  1000 rounds with 240 of 60000 clients each, and how often 8 bits wrap at 63610 parameters:
    veilsum account --gamma 64 --mu 5.95 --clip 1 --cohort 240 --population 60000 --rounds 1000 \\
      --delta 1e-5 --dim 63610 --bits 8
  DP-SGD, 60 epochs of MNIST in batches of 256, between two bounds:
    veilsum account --mechanism gaussian --noise-multiplier 1.1 --cohort 250 --population 60000 \\
      --rounds 14400 --delta 1e-5
  A count by 100 clients that adds up Skellam noise, 50 times:
    veilsum account --mechanism skellam --mu 0.5 --cohort 100 --rounds 50 --delta 1e-6
  Ten questions by randomized response with 3:1 for the truth (1.0986 = ln 3):
    veilsum account --mechanism randomized-response --release-epsilon 1.0986 --cohort 1 --rounds 10 --delta 1e-6
  Laplace noise on samples of exactly 100 among 10000:
    veilsum account --mechanism laplace --noise-multiplier 2 --cohort 100 --population 10000 \\
      --sampling fixed-size --rounds 1000 --delta 1e-6
  The most truthful randomized response whose hundred answers stay below epsilon 5:
    veilsum account --mechanism randomized-response --target-epsilon 5 --cohort 1 --rounds 100 --delta 1e-6
  Epsilon over rounds by each accountant, as a picture:
    veilsum account --gamma 64 --mu 5.95 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 --dim 63610 \\
      --plot epsilon.svg
  Four coins a coordinate from each of 1000 clients, at epsilon 2:
    veilsum account --mechanism poisson-binomial --coins 4 --dim 10000 --cohort 1000 --delta 1e-6 --target-epsilon 2
  2000 rounds with 100 of 10000 clients in turn and four buffers, at epsilon 4:
    veilsum account --mechanism matrix --matrix blt --cohort 100 --population 10000 --rounds 2000 --delta 1e-6 \
      --target-epsilon 4
  Noise that falls to half over 1000 rounds, and 500 clients in place of 240 in the last hundred:
    veilsum account --mechanism central-gaussian --cohort 240 --population 60000 --delta 1e-5 --target-epsilon 3 \\
      --schedule 600x1,300x0.7,100x0.5@500
  Each client in 5 of 500 rounds, drawn at random:
    veilsum account --mechanism gaussian --noise-multiplier 2 --cohort 100 --sampling random-allocation \\
      --participations 5 --rounds 500 --delta 1e-6
  The noise that meets epsilon 3:
    veilsum account --gamma 64 --clip 1 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 \\
      --target-epsilon 3 --json

Exit codes: 0 success, 2 bad usage, 3 the target cannot be met.";

/// `veilsum account`, or one of its subcommands.
#[derive(Clone, Debug, ClapArgs)]
#[command(
    after_help = AFTER_HELP,
    allow_negative_numbers = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Entry {
    /// Something else than the cost of a mechanism.
    #[command(subcommand)]
    command: Option<Other>,
    /// The mechanism.
    #[command(flatten)]
    args: Option<Args>,
    #[command(flatten)]
    correlation: matrix::MatrixArgs,
}

/// What else is designed.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    /// Design a run: scale, noise and ring for an epsilon, and the config to train it with.
    Plan(plan::Args),
}

impl From<PrivacyError> for Failure {
    fn from(error: PrivacyError) -> Self {
        let exit = match error {
            PrivacyError::OutOfRange { .. } | PrivacyError::UnknownEvent { .. } => Exit::Usage,
            PrivacyError::Infeasible { .. } | PrivacyError::Wraps { .. } => Exit::Refused,
        };
        Self::new(exit, error)
    }
}

/// Runs the command, or its subcommand.
///
/// # Errors
/// As [`account`] and [`plan::run`].
pub fn run(entry: Entry) -> Result<(), Failure> {
    match entry {
        Entry { command: Some(Other::Plan(args)), .. } => plan::run(&args),
        Entry { args: Some(args), correlation, .. } => account(Args { correlation, ..args }),
        Entry { .. } => Err(usage("--cohort and --delta are needed; veilsum account --help explains")),
    }
}

/// Tells what a mechanism costs.
///
/// # Errors
/// [`Exit::Usage`] for a parameter that is missing or outside its range, [`Exit::Refused`] for a target
/// that cannot be met.
pub fn account(args: Args) -> Result<(), Failure> {
    matrix::refuse_unused(&args)?;
    if args.mechanism == MechanismName::Matrix {
        return matrix::run(&args);
    }
    // Refused by name before it counts for anything.
    parameters::refuse_unused(&args)?;
    let args = Args { cohort: honest(&args)?, ..args };
    if args.sampling == SamplingName::RandomAllocation {
        return allocation::run(&args);
    }
    let course = Course::of(&args)?;
    let schedule = schedule(&Args { rounds: course.as_ref().map(Course::rounds).or(args.rounds), ..args.clone() })?;
    if let Some(population) = args.population.or(Some(args.cohort)).filter(|&n| args.delta * n as f64 >= 1.0) {
        eprintln!(
            "warning: delta {} is not below 1 / {population}: publishing a client's data at random would pass",
            args.delta
        );
    }
    match course {
        Some(course) => staged(&args, &schedule, &course),
        None => uniform(&args, &schedule),
    }
}

/// The clients whose noise counts in one sum: those of the smallest group who keep their shares to themselves.
fn honest(args: &Args) -> Result<u64, Failure> {
    if args.groups.is_none() && args.colluding.is_none() {
        return Ok(args.cohort);
    }
    if args.population.is_some() {
        return Err(usage(
            "--groups and --colluding do not go with --population: how much noise a part of a drawn cohort has is left to chance",
        ));
    }
    let (groups, colluding) = (args.groups.unwrap_or(1), args.colluding.unwrap_or(0));
    let size = args.cohort.checked_div(groups).ok_or_else(|| usage("--groups is 0, expected at least 1"))?;
    match size.checked_sub(colluding).filter(|&honest| honest > 0) {
        Some(honest) => Ok(honest),
        None => Err(usage(format!(
            "nobody's noise counts: the smallest of {groups} groups of {} clients has {size}, --colluding is {colluding}",
            args.cohort
        ))),
    }
}

/// All rounds alike.
fn uniform(args: &Args, schedule: &Schedule) -> Result<(), Failure> {
    let clients = noise(args, schedule)?;
    let noise = match args.server_mu {
        None => clients.clone(),
        Some(mu) => {
            crate::privacy::accountant::rdp::validate::positive("--server-mu", mu)?;
            clients.with_more(mu).ok_or_else(|| usage("--server-mu adds to Skellam noise only"))?
        }
    };
    let rule = Rule::from(args.accountant);
    let (report, l_inf) = noise.epsilon(args.clip, schedule, rule)?;
    let server = match args.population.is_some() || args.server_mu.is_some() {
        true => Some(clients.epsilon(args.clip, &Schedule { rate: 1.0, ..*schedule }, rule)?.0.epsilon),
        false => None,
    };
    let wrap = ring(args, &noise, args.cohort)?;
    plot(args, schedule.rounds, |rounds, rule| {
        Ok(noise.epsilon(args.clip, &Schedule { rounds, ..*schedule }, rule)?.0)
    })?;
    let findings = Findings { schedule, noise: &noise, report: &report, l_inf, server, wrap };
    let object = describe(args, &findings);
    if args.json {
        println!("{}", Value::Object(object));
    } else {
        print_table(&object);
    }
    Ok(())
}

/// Rounds that differ.
fn staged(args: &Args, schedule: &Schedule, course: &Course) -> Result<(), Failure> {
    let rule = Rule::from(args.accountant);
    let level = args
        .target_epsilon
        .map(|target| course.calibrated(args, target, |made| Ok(schedule::epsilon(made, args, rule)?.epsilon)))
        .transpose()?;
    let made = course.made(args, level)?;
    // The noise of rounds of factor 1, whether there are some or not.
    let base = course.base(args, level)?;
    let report = schedule::epsilon(&made, args, rule)?;
    let server = match args.population {
        Some(_) => Some(schedule::server(&made, args, rule)?.epsilon),
        None => None,
    };
    let mut wrap: Option<(u32, f64, u32)> = None;
    for stage in &made {
        let this = ring(args, stage.noise(), stage.cohort())?;
        // The rounds that need most room.
        wrap = match (wrap, this) {
            (Some(worst), Some(this)) if this.1 <= worst.1 => Some(worst),
            (worst, this) => this.or(worst),
        };
    }
    plot(args, course.rounds(), |rounds, rule| course.epsilon(args, &made, rounds, rule))?;
    let l_inf = schedule::l_inf(&made, &report);
    let findings = Findings { schedule, noise: base.noise(), report: &report, l_inf, server, wrap };
    let mut object = describe(args, &findings);
    let stages = schedule::describe(course, args, &made)?;
    if args.json {
        object.insert("stages".to_owned(), json!(stages));
        println!("{}", Value::Object(object));
    } else {
        print_table(&object);
        println!("{}", schedule::table(&stages));
    }
    Ok(())
}

/// Draws epsilon over rounds where that was asked for.
fn plot(
    args: &Args,
    rounds: u64,
    at: impl Fn(u64, Rule) -> Result<EpsilonReport, PrivacyError> + Sync,
) -> Result<(), Failure> {
    let Some(path) = &args.plot else { return Ok(()) };
    let curves = curve::curves(args.accountant, rounds, at)?;
    let title = format!("{}: epsilon at delta {:e}", value_name(args.mechanism), args.delta);
    curve::draw(path, title, &curves)?;
    if args.json {
        curve::lines(&curves).iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

fn usage(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn schedule(args: &Args) -> Result<Schedule, Failure> {
    if args.cohort == 0 {
        return Err(usage("--cohort is 0, expected at least 1"));
    }
    let rate = match args.population {
        None => 1.0,
        Some(population) if population < args.cohort => {
            return Err(usage(format!("--population {population} is smaller than --cohort {}", args.cohort)));
        }
        Some(population) => args.cohort as f64 / population as f64,
    };
    if args.rounds == Some(0) {
        return Err(usage("--rounds is 0, expected at least 1"));
    }
    Ok(Schedule { rate, rounds: args.rounds(), delta: args.delta })
}

fn checked_dim(dim: usize) -> Result<usize, Failure> {
    if (1..=1 << 31).contains(&dim) { Ok(dim) } else { Err(usage(format!("--dim is {dim}, expected 1 to 2^31"))) }
}

/// Wrap rate and the bits that keep it below 1e-3.
fn ring(args: &Args, noise: &Noise, cohort: u64) -> Result<Option<(u32, f64, u32)>, Failure> {
    let (Some(bits), Some(dim)) = (args.bits, args.dim) else { return Ok(None) };
    crate::privacy::accountant::rdp::validate::bits(bits)?;
    let cohort = cohort as f64;
    let ring = match noise {
        &Noise::Skellam { gamma, mu_total, .. } => {
            RingUse::skellam(gamma, args.clip, mu_total, cohort, checked_dim(dim)?)
        }
        &Noise::Plain { event: DpEvent::PoissonBinomialVector { coins, others, l2_bound, .. }, .. } => RingUse {
            noise_variance: 0.25 * (coins + others) as f64,
            cohort,
            rounding_std: 0.0,
            signal_rms: (cohort / checked_dim(dim)? as f64).sqrt() * coins as f64 * l2_bound,
        },
        Noise::Plain { .. } => return Ok(None),
    };
    Ok(Some((bits, ring.wrap_rate(bits), needed_bits(&ring, 1e-3))))
}

/// The name on the command line.
fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}
