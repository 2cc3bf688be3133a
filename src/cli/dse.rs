//! `veilsum dse`.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Exit, Failure};
use crate::backend;
use crate::config::{ConfigError, overrides};
use crate::privacy::mechanism::NoiseLaw;
use crate::report::terminal::Table;
use crate::sim::dse::{self, DseConfig, DseResult, Trial};

/// The config of `veilsum dse` without arguments.
const DEFAULT: &str = include_str!("../../configs/dse.json");

/// Arguments of `veilsum dse`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "n clients hold random vectors of norm C; their sum is estimated privately and compared with the truth.

  mse         |estimate - truth|^2 / d
  nmse        |estimate - truth|^2 / |truth|^2
  slope       <estimate, truth> / |truth|^2: 1 for an unbiased estimate; an MSE without it hides a signal
              that the clip has shrunk
  clip ratio  mean factor that the clip applied to a client's vector
  wrap rate   share of coordinates of the sum that left the ring

Examples:
  veilsum dse                                      d = 65,536, n = 100, gamma 64, mu 5.95: smm
  veilsum dse --set privacy.mechanism=smm-2022     the mechanism as published
  veilsum dse --set privacy.mechanism=skellam --set privacy.gamma=1024 --set privacy.mu=1e4
                                                   rounded rows under a bound; so are binomial (privacy.coins) and
                                                   distributed-discrete-gaussian (privacy.sigma_total)
  veilsum dse --set privacy.mu=null --set privacy.target_epsilon=3 --set privacy.bits=10 --json

Exit codes: 0 done, 1 failure, 2 bad config, 3 refused."
)]
pub struct Args {
    /// The estimation; absent: d = 65,536, n = 100, gamma 64, mu 5.95, b = 32, `smm`.
    pub config: Option<PathBuf>,
    /// Overrides a value: a.b=c, where c is JSON or a string; null removes the key.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// One JSON object on stdout.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let config = read(args.config.as_deref(), &args.set)?;
    let backend = backend::open(None).map_err(|e| Failure::new(Exit::Failure, e))?;
    let bar = if args.json { ProgressBar::hidden() } else { ProgressBar::new(config.repeats as u64) };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} repeats, {eta} left") {
        bar.set_style(style);
    }
    let result = dse::run(&config, &backend, || bar.inc(1))?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", to_json(&config, &result));
    } else {
        print_table(&config, &result);
    }
    Ok(())
}

fn read(path: Option<&Path>, set: &[String]) -> Result<DseConfig, Failure> {
    let (text, origin) = match path {
        None => (DEFAULT.to_string(), "the built-in estimation".to_string()),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
            (text, path.display().to_string())
        }
    };
    let mut value = overrides::parse(&text, &origin)?;
    for item in set {
        overrides::set(&mut value, item)?;
    }
    Ok(overrides::typed(&value, &origin)?)
}

/// Name in JSON, name for people, figure.
type Figure = (&'static str, &'static str, fn(&Trial) -> f64);

const FIGURES: [Figure; 5] = [
    ("mse", "MSE", |t| t.mse),
    ("nmse", "NMSE", |t| t.nmse),
    ("slope", "slope", |t| t.slope),
    ("clip_ratio", "clip ratio", |t| t.clip_ratio),
    ("wrap_rate", "wrap rate", |t| t.wrap_rate),
];

fn to_json(config: &DseConfig, result: &DseResult) -> Value {
    let mut out = json!({
        "mechanism": result.mechanism.name(),
        "dim": config.dim,
        "clients": config.clients,
        "repeats": config.repeats,
        "seed": config.seed,
        "privacy": result.privacy,
        "mu_total": match result.mechanism.noise() { NoiseLaw::Skellam { mu } => Some(mu), _ => None },
        "epsilon": Some(result.epsilon.epsilon).filter(|e| e.is_finite()),
        "delta": result.epsilon.delta,
        "order": result.epsilon.order,
        "accountant": result.epsilon.accountant,
        "view": "server",
        "neighboring": result.mechanism.neighboring().name(),
        "certified": result.mechanism.certified(),
        "noise_only_mse": result.noise_mse,
        "predicted_wrap_rate": result.predicted_wrap,
        "trials": result.trials,
    });
    for (key, _, of) in FIGURES {
        let (mean, std) = result.mean_std(of);
        out[key] = json!(mean);
        out[format!("{key}_std")] = json!(std);
    }
    out
}

fn print_table(config: &DseConfig, result: &DseResult) {
    let mut table = Table::new([result.mechanism.name(), "mean", "std"]);
    for (_, name, of) in FIGURES {
        let (mean, std) = result.mean_std(of);
        table.push([name.to_string(), format!("{mean:.6}"), format!("{std:.6}")]);
    }
    table.push(["MSE of the noise alone".to_string(), format!("{:.6}", result.noise_mse), "exact".to_string()]);
    println!("{table}");
    println!(
        "d = {}, n = {}, {} repeats; epsilon {:.4} at delta {:e} (server's view; {}; {}; certified: {})",
        config.dim,
        config.clients,
        config.repeats,
        result.epsilon.epsilon,
        result.epsilon.delta,
        result.mechanism.neighboring().name(),
        result.epsilon.accountant,
        result.mechanism.certified()
    );
}
