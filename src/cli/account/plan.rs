//! `veilsum account plan`: designs a run and writes its config.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::args::AccountantName;
use super::usage;
use crate::cli::train::read_config;
use crate::cli::{Exit, Failure, number};
use crate::config::design::{self, Alternative, Design, Purpose};
use crate::config::{self, Config, ConfigError, PrivacyConfig};
use crate::data::DataConfig;
use crate::files::write_atomic;
use crate::fl::plan::NoisePlacement;
use crate::model::architecture::ModelConfig;
use crate::privacy::View;
use crate::report::terminal::Table;

const AFTER_HELP: &str = "\
The table has a line a ring width: scale gamma, the noise (mu of one client; sigma_total or coins of the whole sum), the share of coordinates that wrap, and the expected
error of one coordinate of the mean (standard deviations: noise, rounding, wraps, all), in the unit of the clipped vectors
and in parts of what the coordinate of one client's vector of full norm has. Chosen is the narrowest ring within 2 % of the
least error; --bits takes another.

EXAMPLES
  What MNIST with 240 of 60000 clients a round, 1000 rounds, epsilon 3 needs:
    veilsum account plan --model mnist_mlp --cohort 240 --population 60000 --rounds 1000 --epsilon 3 --delta 1e-5
  The same with discrete Gaussians of the clients on rounded rows:
    veilsum account plan --model mnist_mlp --cohort 240 --population 60000 --rounds 1000 --epsilon 3 --delta 1e-5 \\
      --mechanism distributed-discrete-gaussian
  A million parameters, without a config:
    veilsum account plan --dim 1000000 --cohort 1000 --population 1000000 --rounds 500 --epsilon 2 --delta 1e-7
  A config to train with; what is no matter of privacy comes from another one:
    veilsum account plan --base configs/smm_mnist.json --cohort 500 --population 60000 --rounds 300 --epsilon 2 \\
      --delta 1e-6 --out my_run.json && veilsum train my_run.json

Exit codes: 0 success, 1 the file could not be written, 2 bad usage, 3 no such run: the message says what would do.";

/// Arguments of `veilsum account plan`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
pub struct Args {
    /// Number of parameters (for a trainer of your own: no config can be written).
    #[arg(long, conflicts_with_all = ["model", "out"])]
    pub dim: Option<usize>,
    /// A model by name (mnist_mlp, mnist_2nn, digits_mlp, mnist_cnn, cifar_cnn, cifar_cnn_large, mphe_cnn), sizes (64-32-10) or
    /// a list of layers as JSON; that of the base if not given.
    #[arg(long)]
    pub model: Option<String>,
    /// Clients in a round (the expected number, under sampling).
    #[arg(long)]
    pub cohort: u64,
    /// All clients.
    #[arg(long)]
    pub population: u64,
    /// Number of rounds.
    #[arg(long)]
    pub rounds: u32,
    /// Epsilon of the whole run, in the public view.
    #[arg(long)]
    pub epsilon: f64,
    /// Delta of (epsilon, delta).
    #[arg(long)]
    pub delta: f64,
    /// L2 bound of one client's vector; that of the base if not given.
    #[arg(long)]
    pub clip: Option<f64>,
    /// What adds the noise.
    #[arg(long, value_enum, default_value_t = PlannedName::Smm)]
    pub mechanism: PlannedName,
    /// Ring width, 2 to 32; 6 to 16 are compared if not given (all but central-gaussian).
    #[arg(long)]
    pub bits: Option<u32>,
    /// Share of rows of full norm that the bound behind the rounding may shrink, 1e-4 if not given (skellam,
    /// distributed-discrete-gaussian, binomial).
    #[arg(long)]
    pub beta: Option<f64>,
    /// Largest predicted share of wrapped coordinates; that of the base if not given.
    #[arg(long)]
    pub wrap_limit: Option<f64>,
    /// Which accountant calibrates, and adds up the run.
    #[arg(long, value_enum, default_value_t = AccountantName::Best)]
    pub accountant: AccountantName,
    /// The config that all the rest is taken from; the quickstart's if not given.
    #[arg(long, value_name = "CONFIG")]
    pub base: Option<PathBuf>,
    /// A named data set in place of the base's (mnist, fashion-mnist, tiny-shakespeare, digits).
    #[arg(long)]
    pub data: Option<String>,
    /// Write the config of the run here.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the file of --out if it is there.
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Mechanisms that a run is designed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlannedName {
    /// Skellam mixture, plain L2 clip.
    Smm,
    /// Skellam noise on rounded rows.
    Skellam,
    /// Discrete Gaussian shares on rounded rows.
    DistributedDiscreteGaussian,
    /// Centred binomial noise on rounded rows.
    Binomial,
    /// Discrete Gaussian added by a trusted aggregator.
    CentralGaussian,
}

impl PlannedName {
    /// Who draws the noise: as the base says where the mechanism leaves a choice.
    fn placement(self, base: NoisePlacement, everybody: bool) -> NoisePlacement {
        match self {
            Self::Smm | Self::Skellam => base,
            Self::DistributedDiscreteGaussian => NoisePlacement::PerClient,
            // Coins are shared out evenly among all clients, or thrown at once.
            Self::Binomial if everybody => base,
            Self::Binomial | Self::CentralGaussian => NoisePlacement::Aggregate,
        }
    }

    /// Whether its norm is bounded behind the rounding.
    const fn is_rounded(self) -> bool {
        matches!(self, Self::Skellam | Self::DistributedDiscreteGaussian | Self::Binomial)
    }
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Usage`] for a parameter outside its range and for a file that is there, [`Exit::Refused`] for a run that cannot
/// be.
pub fn run(args: &Args) -> Result<(), Failure> {
    if let Some(out) = args.out.as_ref().filter(|out| out.exists() && !args.force) {
        return Err(usage(format!(
            "--out {} is there already; name another, or replace it with --force",
            out.display()
        )));
    }
    let (base, folder) = base(args)?;
    let purpose = purpose(args, &base)?;
    let alternatives = purpose.alternatives()?;
    let table = table(&purpose, &alternatives);
    let described: Vec<Value> = alternatives.iter().map(|a| describe(&purpose, a)).collect();
    let several = alternatives.len() > 1;
    let (bits, design) = match design::choose(alternatives) {
        Ok(chosen) => chosen,
        Err(e) => {
            if several {
                eprintln!("{table}");
            }
            return Err(e.into());
        }
    };
    if !args.json {
        println!("{table}");
    }
    if let Some(out) = &args.out {
        let name = out.file_stem().map_or_else(|| base.name.clone(), |stem| stem.to_string_lossy().into_owned());
        let config = Config { name, ..design::config(&base, &folder, &purpose, &design)? };
        let value = serde_json::to_value(&config).map_err(|e| Failure::new(Exit::Failure, e))?;
        // What is written is read back as `train` reads it.
        config::overrides::typed::<Config>(&value, &out.display().to_string())?;
        write_atomic(out, format!("{value:#}\n").as_bytes()).map_err(|e| Failure::new(Exit::Failure, e))?;
    }
    if args.json {
        println!("{}", Value::Object(object(args, &purpose, bits, &design, described)));
        return Ok(());
    }
    println!("{}", sentence(&purpose, bits, &design));
    if let Some(out) = &args.out {
        println!("config   {}   (veilsum train {})", out.display(), out.display());
    }
    Ok(())
}

/// The config that the rest comes from, and the folder of its relative paths.
fn base(args: &Args) -> Result<(Config, PathBuf), Failure> {
    let (mut base, folder) = read_config(args.base.as_deref(), &[])?;
    if let Some(name) = &args.data {
        base.data = DataConfig::named(name);
    }
    if let Some(model) = &args.model {
        base.model = Some(model.parse::<ModelConfig>().map_err(ConfigError::from)?);
    }
    Ok((base, folder))
}

fn purpose(args: &Args, base: &Config) -> Result<Purpose, Failure> {
    let dim = match (args.dim, &base.model) {
        (Some(dim), _) => dim,
        (None, Some(model)) => model.architecture().map_err(ConfigError::from)?.parameter_count(),
        (None, None) => return Err(usage("the base names no model: give --dim or --model")),
    };
    if args.mechanism == PlannedName::CentralGaussian && args.bits.is_some() {
        return Err(usage("--mechanism central-gaussian does not take --bits: its ring has 32"));
    }
    if args.beta.is_some() && !args.mechanism.is_rounded() {
        return Err(usage("--beta is for skellam, distributed-discrete-gaussian and binomial"));
    }
    let mechanism = match args.mechanism {
        PlannedName::Smm => config::MechanismName::Smm,
        PlannedName::Skellam => config::MechanismName::Skellam,
        PlannedName::DistributedDiscreteGaussian => config::MechanismName::DistributedDiscreteGaussian,
        PlannedName::Binomial => config::MechanismName::Binomial,
        PlannedName::CentralGaussian => config::MechanismName::CentralGaussian,
    };
    let given = &base.privacy;
    let noise = args.mechanism.placement(given.noise, args.cohort == args.population);
    let layered =
        noise == NoisePlacement::PerClient && matches!(args.mechanism, PlannedName::Smm | PlannedName::Skellam);
    // All members are named: what the base says about the noise of another design must not come along.
    let privacy = PrivacyConfig {
        mechanism,
        noise,
        clip: args.clip.unwrap_or(given.clip),
        dropout: given.dropout.filter(|_| layered),
        server_share: 0.0,
        adaptive_clip: None,
        bits: given.bits,
        gamma: None,
        mu: None,
        sigma_total: None,
        coins: None,
        beta: args.beta,
        noise_multiplier: None,
        matrix: None,
        l_inf: None,
        delta: args.delta,
        target_epsilon: Some(args.epsilon),
        accountant: args.accountant.into(),
        schedule: None,
        wrap_limit: args.wrap_limit.unwrap_or(given.wrap_limit),
        allow_wrap: false,
        cipher: given.cipher,
    };
    let Args { cohort, population, rounds, bits, .. } = *args;
    Ok(Purpose { dim, cohort, population, rounds, privacy, bits })
}

/// Standard deviation of a coordinate of one client's vector of full norm, spread evenly.
fn coordinate(purpose: &Purpose) -> f64 {
    purpose.privacy.clip / (purpose.dim as f64).sqrt()
}

/// The parameter of a mechanism's noise, where it goes with a gamma.
fn noise_of(privacy: &PrivacyConfig) -> (&'static str, Option<f64>) {
    match privacy.mechanism {
        config::MechanismName::DistributedDiscreteGaussian => ("sigma_total", privacy.sigma_total),
        config::MechanismName::Binomial => ("coins", privacy.coins.map(|coins| coins as f64)),
        _ => ("mu", privacy.mu),
    }
}

fn table(purpose: &Purpose, alternatives: &[Alternative]) -> Table {
    let headers = [
        "bits",
        "gamma",
        noise_of(&purpose.privacy).0,
        "wraps",
        "noise / C",
        "noise",
        "rounding",
        "wraps",
        "error",
        "of a coordinate",
    ];
    let mut table = Table::new(headers);
    let some = |x: Option<f64>, digits: usize| x.map_or("-".to_owned(), |x| format!("{x:.digits$}"));
    for Alternative { bits, outcome } in alternatives {
        let mut row = vec![bits.to_string()];
        match outcome {
            Ok(d) => row.extend([
                some(d.privacy.gamma, 3),
                some(noise_of(&d.privacy).1, 4),
                d.predicted_wrap.map_or("-".to_owned(), |p| format!("{p:.1e}")),
                format!("{:.3}", d.noise_multiplier),
                format!("{:.2e}", d.errors.noise),
                format!("{:.2e}", d.errors.rounding),
                format!("{:.2e}", d.errors.wrap),
                format!("{:.3e}", d.errors.total),
                format!("{:.3}", d.errors.total / coordinate(purpose)),
            ]),
            Err(e) => row.extend(["refused".to_owned(), e.to_string()]),
        }
        table.push(row);
    }
    table
}

fn describe(purpose: &Purpose, alternative: &Alternative) -> Value {
    let Alternative { bits, outcome } = alternative;
    match outcome {
        Ok(design) => {
            let mut object = figures(purpose, design);
            object.insert("bits".to_owned(), json!(bits));
            Value::Object(object)
        }
        Err(e) => json!({ "bits": bits, "refused": e.to_string() }),
    }
}

fn figures(purpose: &Purpose, design: &Design) -> Map<String, Value> {
    let Design { privacy, epsilon, epsilon_server_view, noise_multiplier, predicted_wrap, errors } = design;
    let figures = [
        ("gamma", json!(privacy.gamma)),
        ("mu", json!(privacy.mu)),
        ("mu_total", json!(privacy.mu.map(|mu| mu * purpose.cohort as f64))),
        ("sigma_total", json!(privacy.sigma_total)),
        ("coins", json!(privacy.coins)),
        ("beta", json!(privacy.beta)),
        ("noise_multiplier", json!(noise_multiplier)),
        ("epsilon", number(epsilon.epsilon)),
        ("accountant", json!(epsilon.accountant)),
        ("epsilon_server_view", number(*epsilon_server_view)),
        ("predicted_wrap", json!(predicted_wrap)),
        ("error", json!(errors)),
        ("error_of_a_coordinate", json!(errors.total / coordinate(purpose))),
    ];
    figures.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn object(args: &Args, purpose: &Purpose, bits: u32, design: &Design, alternatives: Vec<Value>) -> Map<String, Value> {
    let mut object = figures(purpose, design);
    let view = if purpose.cohort < purpose.population { View::Public } else { View::Server };
    let more = [
        ("mechanism", json!(purpose.privacy.mechanism)),
        ("bits", json!(bits)),
        ("dim", json!(purpose.dim)),
        ("clip", json!(purpose.privacy.clip)),
        ("cohort", json!(purpose.cohort)),
        ("population", json!(purpose.population)),
        ("rounds", json!(purpose.rounds)),
        ("delta", json!(purpose.privacy.delta)),
        ("target_epsilon", json!(args.epsilon)),
        ("view", json!(view)),
        ("config", json!(args.out)),
        ("alternatives", Value::Array(alternatives)),
    ];
    object.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    object
}

fn sentence(purpose: &Purpose, bits: u32, design: &Design) -> String {
    let scale = match (design.privacy.gamma, noise_of(&design.privacy)) {
        (Some(gamma), ("mu", Some(mu))) => format!("{bits} bits, gamma {gamma:.4}, mu {mu:.4} a client"),
        (Some(gamma), (name, Some(noise))) => format!("{bits} bits, gamma {gamma:.4}, {name} {noise:.4} of the sum"),
        _ => format!("noise multiplier {:.4}", design.noise_multiplier),
    };
    format!(
        "chosen   {scale}: epsilon {:.4} at delta {:e} after {} rounds ({}), {:.1} to those who know the cohorts",
        design.epsilon.epsilon,
        purpose.privacy.delta,
        purpose.rounds,
        design.epsilon.accountant,
        design.epsilon_server_view
    )
}
