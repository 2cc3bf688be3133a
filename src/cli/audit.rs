//! `veilsum audit`.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::{Exit, Failure, number};
use crate::backend::{self, BackendKind};
use crate::config::{AccountantName, CipherName, MechanismName, PrivacyConfig};
use crate::fl::plan::NoisePlacement;
use crate::math::prg::Secret;
use crate::privacy::View;
use crate::report::progress::Progress;
use crate::report::terminal::Table;
use crate::sim::audit::{self, AuditConfig, AuditResult, Evidence, Fault, Measured, Size, VERDICT_ERROR, Verdict};

const AFTER_HELP: &str = "\
Canaries (clients with ten times the norm that is allowed, each in or out by a coin) go through the real
encode, sum, noise and decode. What can be guessed of the coins is a lower bound of epsilon. It is held
against the epsilon that the accountant claims for the same releases. 'violated' means that the claim is
false; 'consistent' means that this attack did not show it, and is no proof.

  one run     --canaries: many canaries to a release, a guess for each where it is worth one (Steinke, Nasr,
              Jagielski 2023). Holds for every mechanism; catches what is badly broken.
  many runs   --runs: one canary to a release, error rates with Clopper-Pearson bounds, at a threshold for
              epsilon and at the best point of the trade-off curve for mu (Gaussian DP). The second as an
              epsilon assumes a Gaussian's curve; it is used without sampling and where the noise is wide
              (variance 256 steps or more). 100,000 runs catch noise that is 10 % too low.

The verdict is taken at 99.9 %, whatever --confidence the bound is shown with. A small delta (1e-6) and
little privacy loss per release suit the one-run audit best; --delta times --canaries should stay below 0.1.

--fault plants a known mistake, as a self-test: the audit has to find it.

EXAMPLES
  The default: smm, gamma 16, mu 5.12, 100 clients: noise of twice the clip bound:
    veilsum audit
  Half the noise is found:
    veilsum audit --fault half-noise --canaries 524288 --delta 1e-7 --gamma 8 --mu 8 --cohort 16 --dim 16
  Noise 10 % too low is found in many runs:
    veilsum audit --runs 100000 --gamma 64 --mu 2.28 --dim 16 --fault low-noise
  Ten rounds with a Poisson cohort of 100 in 10000, in the public view:
    veilsum audit --population 10000 --rounds 10 --json
  Two releases with the same noise:
    veilsum audit --rounds 2 --fault reused-randomness

Exit codes: 0 consistent, 1 failure, 2 bad usage, 3 violated.";

/// Arguments of `veilsum audit`.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = AFTER_HELP, allow_negative_numbers = true)]
pub struct Args {
    /// What is audited.
    #[arg(long, value_enum, default_value_t = AuditedName::Smm)]
    mechanism: AuditedName,
    /// Scale: a coordinate of 1 becomes gamma integer steps (smm, smm-2022) [default: 16].
    #[arg(long)]
    gamma: Option<f64>,
    /// Noise of one client, Poisson(mu) - Poisson(mu) in each coordinate (smm, smm-2022) [default: 5.12].
    #[arg(long)]
    mu: Option<f64>,
    /// Standard deviation of the noise over the clip bound (central-gaussian) [default: 2].
    #[arg(long)]
    noise_multiplier: Option<f64>,
    /// L2 bound of one client's contribution.
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Clients in a round (the expected number, under sampling).
    #[arg(long, default_value_t = 100)]
    cohort: u64,
    /// All clients: each takes part with probability cohort / population, and the public view is claimed.
    #[arg(long)]
    population: Option<u64>,
    /// Rounds of one run.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Coordinates of a vector.
    #[arg(long, default_value_t = 64)]
    dim: usize,
    /// Ring width, 2 to 32 (smm, smm-2022).
    #[arg(long, default_value_t = 24)]
    bits: u32,
    /// Delta of the claim.
    #[arg(long, default_value_t = 1e-6)]
    delta: f64,
    /// Draw every client's share of the noise (smm, smm-2022), instead of the sum of the shares at once.
    #[arg(long)]
    per_client: bool,
    /// One run with at least this many canaries.
    #[arg(long, default_value_t = 65_536)]
    canaries: u64,
    /// Many runs with one canary instead, this many.
    #[arg(long, conflicts_with = "canaries")]
    runs: Option<u64>,
    /// Confidence of the bound that is shown.
    #[arg(long, default_value_t = 0.95)]
    confidence: f64,
    /// Plant a mistake.
    #[arg(long, value_enum)]
    fault: Option<FaultName>,
    /// Seed of coins and noise, for an audit that repeats; without it the operating system gives one.
    #[arg(long)]
    seed: Option<u64>,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// Mechanisms that can be audited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuditedName {
    /// Skellam mixture, plain L2 clip.
    Smm,
    /// Skellam mixture as published.
    #[value(name = "smm-2022")]
    Smm2022,
    /// Discrete Gaussian added by a trusted aggregator.
    CentralGaussian,
}

/// Mistakes that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FaultName {
    /// No noise.
    NoNoise,
    /// Half the standard deviation of the noise.
    HalfNoise,
    /// 0.9 of the standard deviation.
    LowNoise,
    /// No bound on a vector is enforced.
    NoClip,
    /// The canaries take part in every round, while Poisson sampling is claimed (needs --population).
    FixedCohort,
    /// Every second round uses the randomness of the one before (needs --rounds 2).
    ReusedRandomness,
}

impl From<FaultName> for Fault {
    fn from(name: FaultName) -> Self {
        match name {
            FaultName::NoNoise => Self::NoNoise,
            FaultName::HalfNoise => Self::HalfNoise,
            FaultName::LowNoise => Self::LowNoise,
            FaultName::NoClip => Self::NoClip,
            FaultName::FixedCohort => Self::FixedCohort,
            FaultName::ReusedRandomness => Self::ReusedRandomness,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// [`Exit::Usage`] for bad arguments, [`Exit::Refused`] if the claim is refuted.
pub fn run(args: &Args) -> Result<(), Failure> {
    let config = config(args)?;
    let secret = match args.seed {
        Some(seed) => Secret::from_seed(seed),
        None => Secret::fresh().map_err(|e| Failure::new(Exit::Failure, e))?,
    };
    // Releases are many and small: a GPU would wait for launches. The integers are the same on every backend.
    let backend = backend::open(Some(BackendKind::Simd)).map_err(|e| Failure::new(Exit::Failure, e))?;
    let mut progress: Option<Progress> = None;
    let result = audit::run(&config, &secret, &backend, |done, total| {
        progress.get_or_insert_with(|| Progress::of("trial", 0, total, args.json)).update(done, None, None);
    })?;
    if let Some(progress) = progress {
        progress.finish();
    }
    let text = if args.json { format!("{}\n", to_json(&config, &result)) } else { to_text(&config, &result) };
    // A closed pipe is no failure.
    let _ = std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes());
    match result.verdict {
        Verdict::Consistent => Ok(()),
        Verdict::Violated => Err(Failure::new(
            Exit::Refused,
            format!(
                "violated: epsilon is at least {:.4} at delta {:e}, claimed is {:.4}",
                result.strict.epsilon, result.claimed.delta, result.claimed.epsilon
            ),
        )),
    }
}

fn config(args: &Args) -> Result<AuditConfig, Failure> {
    let central = args.mechanism == AuditedName::CentralGaussian;
    for (given, name, taken) in [
        (args.gamma.is_some(), "--gamma", !central),
        (args.mu.is_some(), "--mu", !central),
        (args.per_client, "--per-client", !central),
        (args.noise_multiplier.is_some(), "--noise-multiplier", central),
    ] {
        if given && !taken {
            return Err(Failure::new(Exit::Usage, format!("{name} does not belong to this mechanism")));
        }
    }
    let privacy = PrivacyConfig {
        mechanism: match args.mechanism {
            AuditedName::Smm => MechanismName::Smm,
            AuditedName::Smm2022 => MechanismName::Smm2022,
            AuditedName::CentralGaussian => MechanismName::CentralGaussian,
        },
        noise: if args.per_client { NoisePlacement::PerClient } else { NoisePlacement::Aggregate },
        clip: args.clip,
        dropout: None,
        server_share: 0.0,
        adaptive_clip: None,
        bits: args.bits,
        gamma: (!central).then(|| args.gamma.unwrap_or(16.0)),
        mu: (!central).then(|| args.mu.unwrap_or(5.12)),
        noise_multiplier: central.then(|| args.noise_multiplier.unwrap_or(2.0)),
        matrix: None,
        l_inf: None,
        sigma_total: None,
        coins: None,
        beta: None,
        delta: args.delta,
        target_epsilon: None,
        accountant: AccountantName::Best,
        schedule: None,
        wrap_limit: 1e-3,
        allow_wrap: false,
        cipher: CipherName::ChaCha20,
    };
    Ok(AuditConfig {
        privacy,
        dim: args.dim,
        cohort: args.cohort,
        population: args.population,
        rounds: args.rounds,
        size: args.runs.map_or(Size::Canaries(args.canaries), Size::Runs),
        confidence: args.confidence,
        fault: args.fault.map(Fault::from),
    })
}

fn to_json(config: &AuditConfig, result: &AuditResult) -> Value {
    json!({
        "mechanism": result.mechanism.name(),
        "verdict": result.verdict,
        "epsilon_claimed": number(result.claimed.epsilon),
        "delta": config.privacy.delta,
        "accountant": result.claimed.accountant,
        "neighboring": result.mechanism.neighboring(),
        "view": result.view,
        "epsilon_lower": result.measured.epsilon,
        "confidence": result.measured.confidence,
        "epsilon_lower_verdict": result.strict.epsilon,
        "confidence_verdict": result.strict.confidence,
        "gaussian_curve": result.strict.gaussian,
        "evidence": result.strict.evidence,
        "canaries_per_release": result.canaries_per_release,
        "observations": result.observations,
        "fault": config.fault,
        "dim": config.dim,
        "cohort": config.cohort,
        "population": config.population,
        "rounds": config.rounds,
        "privacy": result.privacy,
    })
}

fn counts(measured: &Measured) -> String {
    match &measured.evidence {
        Evidence::OneRun(found) => {
            format!("{} of {} guesses right, {} canaries", found.right, found.guesses, found.canaries)
        }
        Evidence::ManyRuns(found) => {
            let bound = if measured.gaussian { found.mu } else { found.epsilon };
            format!(
                "{} of {} missed, {} of {} false alarms{}",
                bound.missed,
                bound.included,
                bound.alarms,
                bound.excluded,
                if measured.gaussian { format!(", mu >= {:.4}", bound.value) } else { String::new() }
            )
        }
    }
}

fn to_text(config: &AuditConfig, result: &AuditResult) -> String {
    let mut table = Table::new([result.mechanism.name(), "epsilon", "from"]);
    let claimed = &result.claimed;
    table.push(["claimed, at most".to_owned(), format!("{:.4}", claimed.epsilon), claimed.accountant.clone()]);
    for measured in [&result.measured, &result.strict] {
        let name = format!("measured, at least ({} %)", 100.0 * measured.confidence);
        table.push([name, format!("{:.4}", measured.epsilon), counts(measured)]);
    }
    let view = match result.view {
        View::Server => "server's view",
        View::Public => "public view",
    };
    let verdict = match result.verdict {
        Verdict::Violated => "violated: the mechanism does not have the epsilon that is claimed",
        Verdict::Consistent => "consistent: this attack does not refute the claim (and does not prove it)",
    };
    let curve = if result.strict.gaussian { "; the bound assumes a Gaussian's trade-off curve" } else { "" };
    format!(
        "{table}\n{} rounds, delta {:e}, {view}, {}; a right mechanism is called broken once in {:.0} audits{curve}\n{verdict}\n",
        config.rounds,
        config.privacy.delta,
        result.mechanism.neighboring().name(),
        1.0 / VERDICT_ERROR,
    )
}
