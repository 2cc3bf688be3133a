//! From arguments to the noise of one release and its event.

use serde_json::{Value, json};

use super::{Args, MechanismName, SamplingName, usage};
use crate::cli::Failure;
use crate::privacy::accountant::rdp::published::{self, PublishedBound};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::{
    Schedule, SkellamKind, calibrate_mu_by, calibrate_noise_multiplier, discrete_gaussian,
};
use crate::privacy::mechanism::PrivacyError;
use crate::privacy::mechanism::fixed::padded;
use crate::privacy::{DpEvent, IntegerNoise, NeighboringRelation};

/// The noise, chosen or found.
#[derive(Clone, Debug)]
pub(super) enum Noise {
    /// The Skellam mixtures.
    Skellam {
        /// Which of the two.
        kind: SkellamKind,
        /// Scale.
        gamma: f64,
        /// Of the whole sum.
        mu_total: f64,
        /// Coordinates of an encoded row, where they are known.
        padded: Option<u64>,
    },
    /// A mechanism whose event says all; `multiplier` where its noise has one.
    Plain { multiplier: Option<f64>, event: DpEvent, relation: NeighboringRelation, fixed_size: Option<(u64, u64)> },
}

impl Noise {
    pub(super) fn neighboring(&self) -> NeighboringRelation {
        match self {
            Self::Skellam { .. } => NeighboringRelation::ZeroOut,
            Self::Plain { relation, .. } => *relation,
        }
    }

    /// True if `--clip` is what bounds a contribution.
    pub(super) fn is_clipped(&self) -> bool {
        use DpEvent::{DiscreteGaussian, Gaussian, Laplace};
        match self {
            Self::Skellam { .. } => true,
            Self::Plain { event, .. } => matches!(event, Gaussian { .. } | DiscreteGaussian { .. } | Laplace { .. }),
        }
    }

    /// Epsilon under `schedule`, and the coordinate bound of its order where there is one.
    pub(super) fn epsilon(
        &self,
        clip: f64,
        schedule: &Schedule,
        rule: Rule,
    ) -> Result<(EpsilonReport, Option<f64>), PrivacyError> {
        match self {
            Self::Skellam { kind, gamma, mu_total, padded } => {
                let report = schedule.epsilon(rule, kind.event(*mu_total, *gamma, clip, *padded))?;
                let l_inf = match kind {
                    SkellamKind::Smm => None,
                    SkellamKind::Smm2022 => Some(l_inf(*mu_total, gamma * clip, schedule)?),
                };
                Ok((report, l_inf))
            }
            Self::Plain { event, relation, fixed_size, .. } => {
                let whole = match *fixed_size {
                    // Whoever knows the sample sees no sampling.
                    Some((sample, population)) if schedule.rate < 1.0 => {
                        DpEvent::FixedSizeSampled { sample, population, event: Box::new(event.under(*relation)?) }
                    }
                    _ => sampled(schedule.rate, event).under(*relation)?,
                };
                Ok((rule.epsilon(&whole, schedule.rounds, schedule.delta)?, None))
            }
        }
    }
}

fn sampled(rate: f64, event: &DpEvent) -> DpEvent {
    DpEvent::PoissonSampled { rate, event: Box::new(event.clone()) }
}

fn l_inf(mu_total: f64, l2_bound: f64, schedule: &Schedule) -> Result<f64, PrivacyError> {
    let (c, rounds) = (l2_bound * l2_bound, schedule.rounds as f64);
    let PublishedBound { l_inf, .. } =
        published::published_epsilon(mu_total, c, schedule.rate, rounds, schedule.delta, None)?;
    Ok(l_inf)
}

/// Takes the noise from the arguments or calibrates it.
pub(super) fn noise(args: &Args, schedule: &Schedule) -> Result<Noise, Failure> {
    refuse_unused(args)?;
    match args.mechanism {
        MechanismName::Smm => skellam_mixture(args, schedule, SkellamKind::Smm),
        MechanismName::Smm2022 => skellam_mixture(args, schedule, SkellamKind::Smm2022),
        _ => plain(args, schedule),
    }
}

fn skellam_mixture(args: &Args, schedule: &Schedule, kind: SkellamKind) -> Result<Noise, Failure> {
    let gamma = args.gamma.ok_or_else(|| usage("smm and smm-2022 need --gamma"))?;
    validate::positive("--gamma", gamma)?;
    validate::positive("--clip", args.clip)?;
    if args.neighboring.is_some() {
        let own = NeighboringRelation::ZeroOut.name();
        return Err(usage(format!("smm and smm-2022 take no --neighboring; their neighbours are: {own}")));
    }
    let padded = args.dim.map(super::checked_dim).transpose()?.map(|dim| padded(dim, true) as u64);
    let mu_total = match (args.mu, args.target_epsilon) {
        (Some(mu), _) => {
            validate::positive("--mu", mu)?;
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

/// Mechanisms other than the mixtures.
fn plain(args: &Args, schedule: &Schedule) -> Result<Noise, Failure> {
    validate::positive("--clip", args.clip)?;
    let fixed_size = match (args.sampling, args.population) {
        (SamplingName::Poisson, _) => None,
        (SamplingName::FixedSize, Some(population)) => Some((args.cohort, population)),
        (SamplingName::FixedSize, None) => return Err(usage("--sampling fixed-size needs --population")),
    };
    let relation = relation(args, fixed_size.is_some())?;
    let (multiplier, event) = match (args.noise_multiplier, args.target_epsilon) {
        (multiplier, None) => (multiplier, fixed_event(args).unwrap_or_else(|| scaled_event(args, multiplier))?),
        (_, Some(_)) if fixed_size.is_some() => {
            return Err(usage("--target-epsilon is not available with --sampling fixed-size: give the noise"));
        }
        (_, Some(target)) => {
            // The least noise of which the event under the relation asked for is allowed.
            let event = |multiplier| scaled_event(args, Some(multiplier));
            sampled(schedule.rate, &event(1.0)?).under(relation)?;
            let under = |multiplier| {
                let found = event(multiplier).ok().and_then(|event| event.under(relation).ok());
                found.unwrap_or(DpEvent::NonPrivate)
            };
            let multiplier = calibrate_noise_multiplier(schedule, target, args.accountant.into(), under)?;
            (Some(multiplier), event(multiplier)?)
        }
    };
    Ok(Noise::Plain { multiplier, event, relation, fixed_size })
}

/// The relation asked for, or the mechanism's own.
fn relation(args: &Args, fixed_size: bool) -> Result<NeighboringRelation, Failure> {
    use NeighboringRelation::{AddRemove, ReplaceOne, ZeroOut};
    let own = match args.mechanism {
        _ if fixed_size => ReplaceOne,
        MechanismName::RandomizedResponse if args.population.is_none() => ReplaceOne,
        // Who is absent answers as its neighbour would; each client's share of the noise remains.
        MechanismName::RandomizedResponse | MechanismName::Skellam => ZeroOut,
        _ => AddRemove,
    };
    let asked = args.neighboring.map_or(own, NeighboringRelation::from);
    // Sensitivities double; randomized response has no other relation.
    let doubles = asked == ReplaceOne && args.mechanism != MechanismName::RandomizedResponse;
    if asked == own || doubles {
        return Ok(asked);
    }
    Err(usage(format!("here neighbours are: {}; --neighboring asks for another relation", own.name())))
}

/// The event of a mechanism whose noise is not scaled by `--noise-multiplier`; `None` for the others.
fn fixed_event(args: &Args) -> Option<Result<DpEvent, Failure>> {
    let need =
        |flag: &str, value: Option<f64>| value.ok_or_else(|| usage(format!("--mechanism {} needs {flag}", name(args))));
    let event = match args.mechanism {
        MechanismName::Skellam => {
            let mu = need("--mu or --target-epsilon", args.mu).map(|mu| mu * args.cohort as f64);
            mu.map(|mu| shift(args, IntegerNoise::Skellam { mu }))
        }
        MechanismName::CenteredBinomial => match args.trials {
            Some(trials) => Ok(shift(args, IntegerNoise::CenteredBinomial { trials })),
            None => Err(usage("--mechanism centered-binomial needs --trials")),
        },
        MechanismName::RandomizedResponse => need("--release-epsilon", args.release_epsilon)
            .map(|epsilon| DpEvent::RandomizedResponse { epsilon, categories: args.categories.unwrap_or(2) }),
        MechanismName::PureDp => {
            need("--release-epsilon", args.release_epsilon).map(|epsilon| DpEvent::PureDp { epsilon })
        }
        MechanismName::Zcdp => {
            need("--rho", args.rho).map(|rho| DpEvent::ZeroConcentrated { rho, xi: args.xi.unwrap_or(0.0) })
        }
        _ => return None,
    };
    Some(event)
}

/// The event of a mechanism whose noise is `multiplier` times the sensitivity.
fn scaled_event(args: &Args, multiplier: Option<f64>) -> Result<DpEvent, Failure> {
    let refused = || usage(format!("{} needs --noise-multiplier or --target-epsilon", name(args)));
    let noise_multiplier = multiplier.ok_or_else(refused)?;
    let scale = noise_multiplier * sensitivity(args) as f64;
    Ok(match args.mechanism {
        MechanismName::CentralGaussian => discrete_gaussian(noise_multiplier),
        MechanismName::Gaussian => DpEvent::Gaussian { noise_multiplier },
        MechanismName::Laplace => DpEvent::Laplace { noise_multiplier },
        MechanismName::DiscreteGaussian => shift(args, IntegerNoise::DiscreteGaussian { sigma: scale }),
        MechanismName::DiscreteLaplace => shift(args, IntegerNoise::DiscreteLaplace { scale }),
        MechanismName::Skellam => shift(args, IntegerNoise::Skellam { mu: 0.5 * scale * scale }),
        _ => return Err(usage(format!("--target-epsilon cannot calibrate {}: give its parameters", name(args)))),
    })
}

fn sensitivity(args: &Args) -> u64 {
    args.sensitivity.unwrap_or(1)
}

fn shift(args: &Args, noise: IntegerNoise) -> DpEvent {
    DpEvent::IntegerShift { noise, sensitivity: sensitivity(args) }
}

fn name(args: &Args) -> String {
    super::value_name(args.mechanism)
}

/// The parameters of an event, for the report; those of a sum with what each of `clients` adds.
pub(super) fn parameters(event: &DpEvent, clients: u64) -> Vec<(&'static str, Value)> {
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
        DpEvent::PureDp { epsilon } => vec![("release_epsilon", json!(epsilon))],
        DpEvent::ZeroConcentrated { rho, xi } => vec![("rho", json!(rho)), ("xi", json!(xi))],
        _ => Vec::new(),
    }
}

/// An argument that the mechanism does not look at is a mistake.
fn refuse_unused(args: &Args) -> Result<(), Failure> {
    use MechanismName as M;
    let mixtures = &[M::Smm, M::Smm2022][..];
    let integers = &[M::Skellam, M::DiscreteGaussian, M::DiscreteLaplace, M::CenteredBinomial][..];
    let given: [(&str, bool, &[M]); 12] = [
        ("--gamma", args.gamma.is_some(), mixtures),
        ("--bits", args.bits.is_some(), mixtures),
        ("--dim", args.dim.is_some(), mixtures),
        ("--mu", args.mu.is_some(), &[M::Smm, M::Smm2022, M::Skellam]),
        (
            "--noise-multiplier",
            args.noise_multiplier.is_some(),
            &[M::CentralGaussian, M::Gaussian, M::Laplace, M::DiscreteGaussian, M::DiscreteLaplace],
        ),
        ("--sensitivity", args.sensitivity.is_some(), integers),
        ("--trials", args.trials.is_some(), &[M::CenteredBinomial]),
        ("--release-epsilon", args.release_epsilon.is_some(), &[M::RandomizedResponse, M::PureDp]),
        ("--categories", args.categories.is_some(), &[M::RandomizedResponse]),
        ("--rho", args.rho.is_some(), &[M::Zcdp]),
        ("--xi", args.xi.is_some(), &[M::Zcdp]),
        // The mixtures are about a zeroed contribution.
        ("--sampling fixed-size", args.sampling == SamplingName::FixedSize && mixtures.contains(&args.mechanism), &[]),
    ];
    match given.into_iter().find(|(_, given, by)| *given && !by.contains(&args.mechanism)) {
        None => Ok(()),
        Some((flag, ..)) => Err(usage(format!("--mechanism {} does not take {flag}", name(args)))),
    }
}
