//! Which arguments a mechanism takes, and its parameters as they are printed.

use serde_json::{Value, json};

use super::args::{Args, MechanismName, SamplingName};
use super::noise::{Noise, name};
use super::usage;
use crate::cli::Failure;
use crate::privacy::calibrate::{SkellamKind, coins_of};
use crate::privacy::{DpEvent, IntegerNoise};

/// The noise on rows, for the report: as its mechanism counts it.
pub(super) fn row_parameters(noise: &Noise, args: &Args) -> Vec<(&'static str, Value)> {
    let Noise::Skellam { kind, gamma, mu_total, .. } = noise else { return Vec::new() };
    let mut all = match kind {
        SkellamKind::DistributedGaussian(_, most) => {
            vec![("sigma_total", json!((2.0 * mu_total).sqrt())), ("largest_cohort", json!(most))]
        }
        SkellamKind::Binomial(_) => vec![("coins", json!(coins_of(*mu_total)))],
        _ => vec![("mu", json!(mu_total / args.cohort as f64)), ("mu_total", json!(mu_total))],
    };
    all.push(("variance_over_clip", json!(2.0 * mu_total / (gamma * args.clip).powi(2))));
    if let Some((beta, l2_bound)) = kind.bound(*gamma, args.clip) {
        all.push(("beta", json!(beta)));
        all.push(("l2_bound", json!(l2_bound)));
    }
    all
}

/// The parameters of an event, for the report; those of a sum with what each of `clients` adds.
pub(super) fn parameters(event: &DpEvent, clients: u64, clip: f64) -> Vec<(&'static str, Value)> {
    match *event {
        DpEvent::IntegerShift { noise, sensitivity } => {
            let mut all = match noise {
                IntegerNoise::Skellam { mu } => vec![("mu", json!(mu / clients as f64)), ("mu_total", json!(mu))],
                IntegerNoise::DiscreteGaussian { sigma } => vec![("sigma", json!(sigma))],
                IntegerNoise::DiscreteLaplace { scale } => vec![("scale", json!(scale))],
                IntegerNoise::CenteredBinomial { trials } => vec![("trials", json!(trials))],
            };
            all.push(("sensitivity", json!(sensitivity)));
            all
        }
        DpEvent::RandomizedResponse { epsilon, categories } => {
            vec![("release_epsilon", json!(epsilon)), ("categories", json!(categories))]
        }
        DpEvent::PoissonBinomialVector { coins, others, most_bias, l2_bound, .. } => {
            // Coins and clients of which every one moves the sum by coins times its bias.
            let moved = coins as f64 * l2_bound;
            vec![
                ("gamma", json!(l2_bound / clip)),
                ("coins", json!(coins)),
                ("most_bias", json!(most_bias)),
                ("variance_over_clip", json!(0.25 * (coins + others) as f64 / (moved * moved))),
            ]
        }
        DpEvent::PureDp { epsilon } => vec![("release_epsilon", json!(epsilon))],
        DpEvent::ZeroConcentrated { rho, xi } => vec![("rho", json!(rho)), ("xi", json!(xi))],
        _ => Vec::new(),
    }
}

/// An argument that the mechanism does not look at is a mistake.
pub(super) fn refuse_unused(args: &Args) -> Result<(), Failure> {
    use MechanismName as M;
    let rounded = matches!(args.mechanism, M::DistributedDiscreteGaussian | M::Binomial)
        || (args.mechanism == M::Skellam && args.gamma.is_some());
    let rows = &[M::Smm, M::Smm2022, M::Skellam, M::DistributedDiscreteGaussian, M::Binomial, M::PoissonBinomial][..];
    let behind = &rows[2..];
    // The clients bring the noise.
    let shared = rows;
    let on_rows = rounded || rows[..2].contains(&args.mechanism) || args.mechanism == M::PoissonBinomial;
    let integers = &[M::Skellam, M::DiscreteGaussian, M::DiscreteLaplace, M::CenteredBinomial][..];
    let bare = args.mechanism == M::Skellam && args.gamma.is_none();
    let matrix = args.mechanism == M::Matrix;
    let given: [(&str, bool, &[M]); 24] = [
        ("--gamma", args.gamma.is_some(), rows),
        ("--bits", args.bits.is_some(), rows),
        ("--dim", args.dim.is_some(), rows),
        ("--sigma-total", args.sigma_total.is_some(), &rows[3..4]),
        ("--coins", args.coins.is_some(), &rows[4..]),
        ("--beta", args.beta.is_some(), behind),
        (
            "--dim, --bits or --beta without --gamma",
            bare && (args.dim.is_some() || args.bits.is_some() || args.beta.is_some()),
            &[],
        ),
        // On one integer, or on rows.
        ("--sensitivity with --gamma", rounded && args.sensitivity.is_some(), &[]),
        ("--mu", args.mu.is_some(), &[M::Smm, M::Smm2022, M::Skellam]),
        (
            "--noise-multiplier",
            args.noise_multiplier.is_some(),
            &[M::CentralGaussian, M::Matrix, M::Gaussian, M::Laplace, M::DiscreteGaussian, M::DiscreteLaplace],
        ),
        ("--sensitivity", args.sensitivity.is_some(), integers),
        ("--trials", args.trials.is_some(), &[M::CenteredBinomial]),
        ("--release-epsilon", args.release_epsilon.is_some(), &[M::RandomizedResponse, M::PureDp]),
        ("--categories", args.categories.is_some(), &[M::RandomizedResponse]),
        ("--rho", args.rho.is_some(), &[M::Zcdp]),
        ("--xi", args.xi.is_some(), &[M::Zcdp]),
        // On rows it is about a zeroed contribution; with correlated noise clients take turns.
        ("--sampling fixed-size", args.sampling == SamplingName::FixedSize && (on_rows || matrix), &[]),
        ("--groups", args.groups.is_some(), shared),
        ("--colluding", args.colluding.is_some(), shared),
        ("--server-mu", args.server_mu.is_some(), &[M::Smm, M::Skellam]),
        ("--sampling random-allocation", args.sampling == SamplingName::RandomAllocation && matrix, &[]),
        ("--neighboring", args.neighboring.is_some() && matrix, &[]),
        ("--plot", args.plot.is_some() && matrix, &[]),
        ("--schedule", args.schedule.is_some() && matrix, &[]),
    ];
    match given.into_iter().find(|(_, given, by)| *given && !by.contains(&args.mechanism)) {
        None => Ok(()),
        Some((flag, ..)) => Err(usage(format!("--mechanism {} does not take {flag}", name(args)))),
    }
}
