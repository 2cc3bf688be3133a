//! `veilsum account`: what a mechanism costs, or the noise that meets a target.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Exit, Failure};
use crate::privacy::accountant::rdp::published::{self, PublishedBound};
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::wrap::{RingUse, needed_bits};
use crate::privacy::calibrate::{
    Schedule, SkellamKind, calibrate_mu_by, calibrate_noise_multiplier, discrete_gaussian,
};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::mechanism::fixed::padded;
use crate::privacy::{DpEvent, NeighboringRelation, View};

const AFTER_HELP: &str = "\
MECHANISMS
  smm               Skellam mixture with a plain L2 clip (default). Each client adds Poisson(mu) - Poisson(mu)
                    to its rounded, rotated row. Its bounds hold for every row: certified by interval arithmetic.
  smm-2022          The same noise with the mixed clip and the coordinate bound l_inf, and the accountant,
                    as published (Bao et al. 2022). The l_inf printed is the bound that clients must enforce.
  central-gaussian  One trusted aggregator adds a discrete Gaussian.
  gaussian          A Gaussian on the real numbers, as other libraries' DP-SGD adds it: for comparison. Veilsum
                    itself draws integers only.

ACCOUNTANTS
  rdp   Renyi differential privacy: every mechanism; an upper bound.
  pld   Privacy loss distribution (gaussian, and smm where --dim is given): an upper bound; for gaussian also
        a lower one, epsilon_low, that says how far it can be from the truth. Both are proved.
  best  The least upper bound of those that know the mechanism (default); 'accountant' names it.

WHAT AN EPSILON MEANS
  It belongs to a delta, a neighbouring relation and a view. 'server' knows who takes part in a round;
  'public' sees only the results, and Poisson sampling of the cohort (--population) amplifies its privacy.

EXAMPLES
  One sum over 100 clients, as published:
    veilsum account --mechanism smm-2022 --gamma 64 --mu 5.95 --clip 1 --cohort 100 --delta 1e-5
  1000 rounds with 240 of 60000 clients each, and how often 8 bits wrap at 63610 parameters:
    veilsum account --gamma 64 --mu 5.95 --clip 1 --cohort 240 --population 60000 --rounds 1000 \\
      --delta 1e-5 --dim 63610 --bits 8
  DP-SGD, 60 epochs of MNIST in batches of 256, between two bounds:
    veilsum account --mechanism gaussian --noise-multiplier 1.1 --cohort 250 --population 60000 \\
      --rounds 14400 --delta 1e-5
  The noise that meets epsilon 3:
    veilsum account --gamma 64 --clip 1 --cohort 240 --population 60000 --rounds 1000 --delta 1e-5 \\
      --target-epsilon 3 --json

Exit codes: 0 success, 2 bad usage, 3 the target cannot be met.";

/// Arguments of `veilsum account`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
pub struct Args {
    /// What adds the noise.
    #[arg(long, value_enum, default_value_t = MechanismName::Smm)]
    pub mechanism: MechanismName,
    /// Scale: a coordinate of 1 becomes gamma integer steps (smm, smm-2022).
    #[arg(long, required_if_eq_any([("mechanism", "smm"), ("mechanism", "smm-2022")]))]
    pub gamma: Option<f64>,
    /// Noise of one client, Poisson(mu) - Poisson(mu) in each coordinate (smm, smm-2022).
    #[arg(long, conflicts_with_all = ["target_epsilon", "noise_multiplier"])]
    pub mu: Option<f64>,
    /// Standard deviation of the noise over the clip bound (central-gaussian, gaussian).
    #[arg(long, conflicts_with = "target_epsilon")]
    pub noise_multiplier: Option<f64>,
    /// Find the least noise whose epsilon is at most this, instead of taking --mu or --noise-multiplier.
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
    /// All clients: each takes part with probability cohort / population (Poisson sampling).
    #[arg(long)]
    pub population: Option<u64>,
    /// Number of releases.
    #[arg(long, default_value_t = 1)]
    pub rounds: u64,
    /// Ring width b, 2 to 32: also print how often sums wrap (needs --dim; smm, smm-2022).
    #[arg(long, requires = "dim")]
    pub bits: Option<u32>,
    /// Coordinates of a contribution (smm: the privacy loss distribution charges a little delta for each).
    #[arg(long)]
    pub dim: Option<usize>,
    /// Which accountant answers.
    #[arg(long, value_enum, default_value_t = AccountantName::Best)]
    pub accountant: AccountantName,
    /// Print one JSON object.
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

impl From<AccountantName> for Rule {
    fn from(name: AccountantName) -> Self {
        match name {
            AccountantName::Best => Self::Best,
            AccountantName::Rdp => Self::Rdp,
            AccountantName::Pld => Self::Pld,
        }
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
    /// Discrete Gaussian added by a trusted aggregator.
    CentralGaussian,
    /// Gaussian on the real numbers.
    Gaussian,
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

/// The noise, chosen or found.
#[derive(Clone, Copy, Debug)]
enum Noise {
    Skellam { kind: SkellamKind, gamma: f64, mu_total: f64, padded: Option<u64> },
    Gaussian { multiplier: f64, event: fn(f64) -> DpEvent },
}

impl Noise {
    fn event(self, clip: f64) -> DpEvent {
        match self {
            Self::Skellam { kind, gamma, mu_total, padded } => kind.event(mu_total, gamma, clip, padded),
            Self::Gaussian { multiplier, event } => event(multiplier),
        }
    }

    fn neighboring(self) -> NeighboringRelation {
        match self {
            Self::Skellam { .. } => NeighboringRelation::ZeroOut,
            Self::Gaussian { .. } => NeighboringRelation::AddRemove,
        }
    }

    /// Epsilon under `schedule`, and the coordinate bound of its order where there is one.
    fn epsilon(self, clip: f64, schedule: &Schedule, rule: Rule) -> Result<(EpsilonReport, Option<f64>), PrivacyError> {
        let report = schedule.epsilon(rule, self.event(clip))?;
        let l_inf = match self {
            Self::Skellam { kind: SkellamKind::Smm2022, gamma, mu_total, .. } => {
                let c = (gamma * clip) * (gamma * clip);
                let PublishedBound { l_inf, .. } = published::published_epsilon(
                    mu_total,
                    c,
                    schedule.rate,
                    schedule.rounds as f64,
                    schedule.delta,
                    None,
                )?;
                Some(l_inf)
            }
            _ => None,
        };
        Ok((report, l_inf))
    }
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Usage`] for a parameter that is missing or outside its range, [`Exit::Refused`] for a target
/// that cannot be met.
pub fn run(args: Args) -> Result<(), Failure> {
    let schedule = schedule(&args)?;
    let noise = noise(&args, &schedule)?;
    let rule = Rule::from(args.accountant);
    let (report, l_inf) = noise.epsilon(args.clip, &schedule, rule)?;
    let server = match args.population {
        Some(_) => Some(noise.epsilon(args.clip, &Schedule { rate: 1.0, ..schedule }, rule)?.0.epsilon),
        None => None,
    };
    let wrap = ring(&args, noise)?;
    if let Some(population) = args.population.or(Some(args.cohort)).filter(|&n| args.delta * n as f64 >= 1.0) {
        eprintln!(
            "warning: delta {} is not below 1 / {population}: publishing a client's data at random would pass",
            args.delta
        );
    }
    let object = describe(&args, &schedule, noise, &report, l_inf, server, wrap);
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

/// Takes the noise from the arguments or calibrates it.
fn noise(args: &Args, schedule: &Schedule) -> Result<Noise, Failure> {
    let kind = match args.mechanism {
        MechanismName::Smm => SkellamKind::Smm,
        MechanismName::Smm2022 => SkellamKind::Smm2022,
        MechanismName::CentralGaussian | MechanismName::Gaussian => {
            let event: fn(f64) -> DpEvent = match args.mechanism {
                MechanismName::Gaussian => |noise_multiplier| DpEvent::Gaussian { noise_multiplier },
                _ => discrete_gaussian,
            };
            if args.mu.is_some() || args.gamma.is_some() || args.bits.is_some() || args.dim.is_some() {
                return Err(usage(
                    "central-gaussian and gaussian take --noise-multiplier, not --mu, --gamma, --bits or --dim",
                ));
            }
            let multiplier = match (args.noise_multiplier, args.target_epsilon) {
                (Some(multiplier), _) => multiplier,
                (None, Some(target)) => calibrate_noise_multiplier(schedule, target, args.accountant.into(), event)?,
                (None, None) => {
                    return Err(usage("central-gaussian and gaussian need --noise-multiplier or --target-epsilon"));
                }
            };
            crate::privacy::accountant::rdp::validate::positive("--clip", args.clip)?;
            return Ok(Noise::Gaussian { multiplier, event });
        }
    };
    if args.noise_multiplier.is_some() {
        return Err(usage("smm and smm-2022 take --mu, not --noise-multiplier"));
    }
    let gamma = args.gamma.ok_or_else(|| usage("smm and smm-2022 need --gamma"))?;
    crate::privacy::accountant::rdp::validate::positive("--gamma", gamma)?;
    crate::privacy::accountant::rdp::validate::positive("--clip", args.clip)?;
    let padded = args.dim.map(checked_dim).transpose()?.map(|dim| padded(dim, true) as u64);
    let mu_total = match (args.mu, args.target_epsilon) {
        (Some(mu), _) => {
            crate::privacy::accountant::rdp::validate::positive("--mu", mu)?;
            mu * args.cohort as f64
        }
        (None, Some(target)) => {
            let event = |mu| kind.event(mu, gamma, args.clip, padded);
            calibrate_mu_by(args.accountant.into(), event, (gamma, args.clip), schedule, target)?
        }
        (None, None) => return Err(usage("smm and smm-2022 need --mu or --target-epsilon")),
    };
    Ok(Noise::Skellam { kind, gamma, mu_total, padded })
}

fn checked_dim(dim: usize) -> Result<usize, Failure> {
    if (1..=1 << 31).contains(&dim) { Ok(dim) } else { Err(usage(format!("--dim is {dim}, expected 1 to 2^31"))) }
}

/// Wrap rate and the bits that keep it below 1e-3.
fn ring(args: &Args, noise: Noise) -> Result<Option<(u32, f64, u32)>, Failure> {
    let (Some(bits), Some(dim), Noise::Skellam { gamma, mu_total, .. }) = (args.bits, args.dim, noise) else {
        return Ok(None);
    };
    crate::privacy::accountant::rdp::validate::bits(bits)?;
    let ring = RingUse::skellam(gamma, args.clip, mu_total, args.cohort as f64, checked_dim(dim)?);
    Ok(Some((bits, ring.wrap_rate(bits), needed_bits(&ring, 1e-3))))
}

/// A number that JSON can hold; infinity becomes the string "inf".
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!("inf") }
}

fn describe(
    args: &Args,
    schedule: &Schedule,
    noise: Noise,
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
    let name = args.mechanism.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    put("mechanism", json!(name));
    match noise {
        Noise::Skellam { gamma, mu_total, .. } => {
            put("mu", json!(mu_total / args.cohort as f64));
            put("mu_total", json!(mu_total));
            put("gamma", json!(gamma));
        }
        Noise::Gaussian { multiplier, .. } => {
            put("noise_multiplier", json!(multiplier));
        }
    }
    put("clip", json!(args.clip));
    put("cohort", json!(args.cohort));
    put("population", json!(args.population));
    put("rounds", json!(args.rounds));
    put("sampling_rate", json!(schedule.rate));
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
            ("neighboring", Value::String(_)) => NeighboringRelation::AddRemove.name().to_owned(),
            ("view", Value::String(name)) if name == "server" => {
                "server (knows the cohort; no amplification)".to_owned()
            }
            ("view", Value::String(_)) => "public (sees only releases; amplified by Poisson sampling)".to_owned(),
            ("certified", Value::Bool(false)) => "no".to_owned(),
            ("certified", Value::Bool(true)) => "yes".to_owned(),
            (_, Value::String(text)) => text.clone(),
            (_, other) => other.to_string(),
        };
        println!("{key:width$}  {text}");
    }
}
