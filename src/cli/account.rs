//! `veilsum account`: what a mechanism costs, or the noise that meets a target.

mod curve;
pub mod matrix;
mod noise;
pub mod plan;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Exit, Failure, number};
use crate::config;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::Schedule;
use crate::privacy::calibrate::wrap::{RingUse, needed_bits};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{NeighboringRelation, View};
use noise::{Noise, noise};

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
  pld   Privacy loss distribution (all but smm-2022, central-gaussian, distributed-discrete-gaussian, zcdp; smm where
        --dim is given): an upper bound, and but for smm and noise on rows a lower one, epsilon_low, that says how far it
        can be from the truth. Both are proved.
  best  The least upper bound of those that know the mechanism (default); 'accountant' names it.

WHAT AN EPSILON MEANS
  It belongs to a delta, a neighbouring relation and a view. 'server' knows who takes part in a round;
  'public' sees only the results, and sampling of the cohort (--population) amplifies its privacy: each
  client on its own (poisson), or a set of fixed size, for which neighbours replace one contribution.

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
  2000 rounds with 100 of 10000 clients in turn and four buffers, at epsilon 4:
    veilsum account --mechanism matrix --matrix blt --cohort 100 --population 10000 --rounds 2000 --delta 1e-6 \
      --target-epsilon 4
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

/// Arguments of `veilsum account`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// What adds the noise.
    #[arg(long, value_enum, default_value_t = MechanismName::Smm)]
    pub mechanism: MechanismName,
    /// Scale: a coordinate of 1 becomes gamma integer steps (smm, smm-2022, skellam, distributed-discrete-gaussian,
    /// binomial).
    #[arg(long, required_if_eq_any([("mechanism", "smm"), ("mechanism", "smm-2022"), ("mechanism", "binomial"),
        ("mechanism", "distributed-discrete-gaussian")]))]
    pub gamma: Option<f64>,
    /// Noise of one client, Poisson(mu) - Poisson(mu) in each coordinate (smm, smm-2022, skellam).
    #[arg(long, conflicts_with_all = ["target_epsilon", "noise_multiplier"])]
    pub mu: Option<f64>,
    /// Parameter of the noise over the clip bound or the sensitivity: a standard deviation (central-gaussian, gaussian,
    /// discrete-gaussian) or a scale (laplace, discrete-laplace).
    #[arg(long, conflicts_with = "target_epsilon")]
    pub noise_multiplier: Option<f64>,
    /// Parameter of the discrete Gaussian that the sum of all shares is near to, in integer steps
    /// (distributed-discrete-gaussian).
    #[arg(long, conflicts_with = "target_epsilon")]
    pub sigma_total: Option<f64>,
    /// Coins on each side of the noise of the whole sum (binomial).
    #[arg(long, conflicts_with = "target_epsilon")]
    pub coins: Option<u64>,
    /// Share of rows of full norm that the bound behind the rounding may shrink, 1e-4 if not given (skellam,
    /// distributed-discrete-gaussian, binomial).
    #[arg(long)]
    pub beta: Option<f64>,
    /// How far a contribution moves the integer that is released, 1 if not given (skellam, discrete-gaussian,
    /// discrete-laplace, centered-binomial).
    #[arg(long)]
    pub sensitivity: Option<u64>,
    /// Number of coins (centered-binomial).
    #[arg(long)]
    pub trials: Option<u64>,
    /// Pure epsilon of one release (randomized-response, pure-dp).
    #[arg(long, value_name = "EPSILON")]
    pub release_epsilon: Option<f64>,
    /// Number of answers, 2 if not given (randomized-response).
    #[arg(long)]
    pub categories: Option<u64>,
    /// Renyi divergences are at most xi + rho order (zcdp).
    #[arg(long)]
    pub rho: Option<f64>,
    /// See --rho; 0 if not given (zcdp).
    #[arg(long)]
    pub xi: Option<f64>,
    /// Find the least noise whose epsilon is at most this, instead of taking --mu, --noise-multiplier, --trials,
    /// --release-epsilon or --rho.
    #[arg(long, value_name = "EPSILON")]
    pub target_epsilon: Option<f64>,
    /// L2 bound of one client's contribution.
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,
    /// Clients in a round (the expected number, under sampling).
    #[arg(long)]
    pub cohort: u64,
    /// Delta of (epsilon, delta).
    #[arg(long)]
    pub delta: f64,
    /// All clients: each takes part with probability cohort / population.
    #[arg(long)]
    pub population: Option<u64>,
    /// How the cohort is drawn from the population.
    #[arg(long, value_enum, default_value_t = SamplingName::Poisson)]
    pub sampling: SamplingName,
    /// What neighbours are; each mechanism has its own if not given.
    #[arg(long, value_enum)]
    pub neighboring: Option<NeighboringName>,
    /// Number of releases.
    #[arg(long, default_value_t = 1)]
    pub rounds: u64,
    /// Ring width b, 2 to 32: also print how often sums wrap (needs --dim; mechanisms with --gamma).
    #[arg(long, requires = "dim")]
    pub bits: Option<u32>,
    /// Coordinates of a contribution (smm: the privacy loss distribution charges a little delta for each; with a bound
    /// behind the rounding it depends on them).
    #[arg(long)]
    pub dim: Option<usize>,
    /// Those of `matrix`: parsed beside these, since an optional group of arguments cannot hold another one.
    #[arg(skip)]
    pub correlation: matrix::MatrixArgs,
    /// Which accountant answers.
    #[arg(long, value_enum, default_value_t = AccountantName::Best)]
    pub accountant: AccountantName,
    /// Draw epsilon over rounds here, as SVG: a curve an accountant.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
    /// Print one JSON object; with --plot the points of the curves before it, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// Accountants that `account` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccountantName {
    /// The least bound of all that know the mechanism.
    Best,
    /// Renyi differential privacy.
    Rdp,
    /// Privacy loss distribution.
    Pld,
}

impl From<AccountantName> for config::AccountantName {
    fn from(name: AccountantName) -> Self {
        match name {
            AccountantName::Best => Self::Best,
            AccountantName::Rdp => Self::Rdp,
            AccountantName::Pld => Self::Pld,
        }
    }
}

impl From<AccountantName> for Rule {
    fn from(name: AccountantName) -> Self {
        config::AccountantName::from(name).into()
    }
}

/// Mechanisms that `account` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MechanismName {
    /// Skellam mixture, plain L2 clip.
    Smm,
    /// Skellam mixture as published.
    #[value(name = "smm-2022")]
    Smm2022,
    /// Discrete Gaussian shares on rounded rows.
    DistributedDiscreteGaussian,
    /// Centred binomial noise on rounded rows.
    Binomial,
    /// Discrete Gaussian added by a trusted aggregator.
    CentralGaussian,
    /// Discrete Gaussian that is correlated over rounds.
    Matrix,
    /// Gaussian on the real numbers.
    Gaussian,
    /// Skellam noise on rounded rows, or on an integer.
    Skellam,
    /// Discrete Gaussian on an integer.
    DiscreteGaussian,
    /// Discrete Laplace on an integer.
    DiscreteLaplace,
    /// Fair coins on an integer.
    CenteredBinomial,
    /// Laplace on a real number.
    Laplace,
    /// k-ary randomized response.
    RandomizedResponse,
    /// Any mechanism with pure DP.
    PureDp,
    /// Any mechanism with zero-concentrated DP.
    Zcdp,
}

/// How a cohort is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SamplingName {
    /// Each client on its own.
    Poisson,
    /// A set of `--cohort` clients, all equally likely.
    FixedSize,
}

/// Neighbouring relations that `account` can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NeighboringName {
    /// A contribution is there or not.
    AddRemove,
    /// A contribution is replaced by another one.
    ReplaceOne,
}

impl From<NeighboringName> for NeighboringRelation {
    fn from(name: NeighboringName) -> Self {
        match name {
            NeighboringName::AddRemove => Self::AddRemove,
            NeighboringName::ReplaceOne => Self::ReplaceOne,
        }
    }
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
    let schedule = schedule(&args)?;
    let noise = noise(&args, &schedule)?;
    let rule = Rule::from(args.accountant);
    let (report, l_inf) = noise.epsilon(args.clip, &schedule, rule)?;
    let server = match args.population {
        Some(_) => Some(noise.epsilon(args.clip, &Schedule { rate: 1.0, ..schedule }, rule)?.0.epsilon),
        None => None,
    };
    let wrap = ring(&args, &noise)?;
    if let Some(population) = args.population.or(Some(args.cohort)).filter(|&n| args.delta * n as f64 >= 1.0) {
        eprintln!(
            "warning: delta {} is not below 1 / {population}: publishing a client's data at random would pass",
            args.delta
        );
    }
    if let Some(path) = &args.plot {
        let curves = curve::curves(&args, &schedule, &noise)?;
        let title = format!("{}: epsilon at delta {:e}", value_name(args.mechanism), args.delta);
        curve::draw(path, title, &curves)?;
        if args.json {
            curve::lines(&curves).iter().for_each(|line| println!("{line}"));
        }
    }
    let object = describe(&args, &schedule, &noise, &report, l_inf, server, wrap);
    if args.json {
        println!("{}", Value::Object(object));
    } else {
        print_table(&object);
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
    if args.rounds == 0 {
        return Err(usage("--rounds is 0, expected at least 1"));
    }
    Ok(Schedule { rate, rounds: args.rounds, delta: args.delta })
}

fn checked_dim(dim: usize) -> Result<usize, Failure> {
    if (1..=1 << 31).contains(&dim) { Ok(dim) } else { Err(usage(format!("--dim is {dim}, expected 1 to 2^31"))) }
}

/// Wrap rate and the bits that keep it below 1e-3.
fn ring(args: &Args, noise: &Noise) -> Result<Option<(u32, f64, u32)>, Failure> {
    let (Some(bits), Some(dim), &Noise::Skellam { gamma, mu_total, .. }) = (args.bits, args.dim, noise) else {
        return Ok(None);
    };
    crate::privacy::accountant::rdp::validate::bits(bits)?;
    let ring = RingUse::skellam(gamma, args.clip, mu_total, args.cohort as f64, checked_dim(dim)?);
    Ok(Some((bits, ring.wrap_rate(bits), needed_bits(&ring, 1e-3))))
}

/// The name on the command line.
fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

fn describe(
    args: &Args,
    schedule: &Schedule,
    noise: &Noise,
    report: &EpsilonReport,
    l_inf: Option<f64>,
    server: Option<f64>,
    wrap: Option<(u32, f64, u32)>,
) -> Map<String, Value> {
    let view = if args.population.is_some() { View::Public } else { View::Server };
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("epsilon", number(report.epsilon));
    put("epsilon_low", report.epsilon_low.map_or(Value::Null, number));
    put("delta", json!(report.delta));
    put("order", json!(report.order));
    put("l_inf", json!(l_inf));
    put("accountant", json!(report.accountant));
    put("neighboring", json!(noise.neighboring()));
    put("view", json!(view));
    if let Some(epsilon) = server {
        put("epsilon_server_view", number(epsilon));
    }
    put("mechanism", json!(value_name(args.mechanism)));
    match noise {
        Noise::Skellam { gamma, .. } => {
            for (key, value) in noise::row_parameters(noise, args) {
                put(key, value);
            }
            put("gamma", json!(gamma));
        }
        Noise::Plain { multiplier, event, .. } => {
            put("noise_multiplier", json!(multiplier));
            for (key, value) in noise::parameters(event, args.cohort) {
                put(key, value);
            }
        }
    }
    if noise.is_clipped() {
        put("clip", json!(args.clip));
    }
    put("cohort", json!(args.cohort));
    put("population", json!(args.population));
    put("rounds", json!(args.rounds));
    put("sampling_rate", json!(schedule.rate));
    put("sampling", json!(args.population.map(|_| value_name(args.sampling))));
    // Every bound behind every accountant is proved or enclosed.
    put("certified", json!(true));
    if let Some(target) = args.target_epsilon {
        put("target_epsilon", json!(target));
    }
    if let Some(dim) = args.dim {
        put("dim", json!(dim));
    }
    if let Some((bits, rate, needed)) = wrap {
        put("bits", json!(bits));
        put("predicted_wrap", json!(rate));
        put("bits_for_wrap_1e-3", json!(needed));
    }
    object
}

/// One aligned line a key; the keys of the JSON object with their meaning spelled out.
fn print_table(object: &Map<String, Value>) {
    let width = object.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        let text = match (key.as_str(), value) {
            ("neighboring", Value::String(name)) if name == "zero-out" => {
                NeighboringRelation::ZeroOut.name().to_owned()
            }
            ("neighboring", Value::String(name)) if name == "replace-one" => {
                NeighboringRelation::ReplaceOne.name().to_owned()
            }
            ("neighboring", Value::String(_)) => NeighboringRelation::AddRemove.name().to_owned(),
            ("view", Value::String(name)) if name == "server" => {
                "server (knows the cohort; no amplification)".to_owned()
            }
            ("view", Value::String(_)) => "public (sees only releases; amplified by sampling)".to_owned(),
            ("certified", Value::Bool(false)) => "no".to_owned(),
            ("certified", Value::Bool(true)) => "yes".to_owned(),
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        println!("{key:width$}  {text}");
    }
}
