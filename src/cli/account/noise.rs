//! From arguments to the noise of one release and its event.

use super::args::{Args, MechanismName, SamplingName};
use super::parameters::refuse_unused;
use super::usage;
use crate::cli::Failure;
use crate::privacy::accountant::rdp::published::{self, PublishedBound};
use crate::privacy::accountant::rdp::validate;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::calibrate::bias::calibrate_bias;
use crate::privacy::calibrate::search::Search;
use crate::privacy::calibrate::{
    Rounding, Schedule, SkellamKind, calibrate_mu_by, calibrate_noise_multiplier, discrete_gaussian,
};
use crate::privacy::mechanism::distributed_gaussian::largest_cohort;
use crate::privacy::mechanism::fixed::padded;
use crate::privacy::mechanism::poisson_binomial::{PoissonBinomial, PoissonBinomialParams};
use crate::privacy::mechanism::rounded::{DEFAULT_BETA, RoundedScale};
use crate::privacy::mechanism::{Mechanism, PrivacyError};
use crate::privacy::{DpEvent, IntegerNoise, NeighboringRelation};

/// The noise, chosen or found.
#[derive(Clone, Debug)]
pub(super) enum Noise {
    /// The mechanisms on rows.
    Skellam {
        /// Which of them.
        kind: SkellamKind,
        /// Scale.
        gamma: f64,
        /// Half the variance of the whole sum's noise.
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

    /// The same with more Skellam noise on the sum: the law is closed under sums. `None` for other noise.
    pub(super) fn with_more(&self, mu: f64) -> Option<Self> {
        let skellam = |kind: SkellamKind| matches!(kind, SkellamKind::Smm | SkellamKind::Skellam(_));
        match *self {
            Self::Skellam { kind, gamma, mu_total, padded } if skellam(kind) => {
                // Rounded down, whatever the last digits are.
                Some(Self::Skellam { kind, gamma, mu_total: (mu_total + mu).next_down(), padded })
            }
            Self::Plain {
                multiplier,
                event: DpEvent::IntegerShift { noise: IntegerNoise::Skellam { mu: own }, sensitivity },
                relation,
                fixed_size,
            } => {
                let noise = IntegerNoise::Skellam { mu: (own + mu).next_down() };
                Some(Self::Plain {
                    multiplier,
                    event: DpEvent::IntegerShift { noise, sensitivity },
                    relation,
                    fixed_size,
                })
            }
            _ => None,
        }
    }

    /// True if `--clip` is what bounds a contribution.
    pub(super) fn is_clipped(&self) -> bool {
        use DpEvent::{DiscreteGaussian, Gaussian, Laplace, PoissonBinomialVector};
        match self {
            Self::Skellam { .. } => true,
            Self::Plain { event, .. } => {
                matches!(
                    event,
                    Gaussian { .. } | DiscreteGaussian { .. } | Laplace { .. } | PoissonBinomialVector { .. }
                )
            }
        }
    }

    /// The event of a release of everybody's contributions, for the mechanism's own neighbours.
    pub(super) fn plain_event(&self, clip: f64) -> DpEvent {
        match self {
            Self::Skellam { kind, gamma, mu_total, padded } => kind.event(*mu_total, *gamma, clip, *padded),
            Self::Plain { event, .. } => event.clone(),
        }
    }

    /// The event of a release at this sampling rate, as it is accounted.
    pub(super) fn event(&self, clip: f64, rate: f64) -> Result<DpEvent, PrivacyError> {
        match self {
            Self::Skellam { kind, gamma, mu_total, padded } => {
                Ok(sampled(rate, &kind.event(*mu_total, *gamma, clip, *padded)))
            }
            Self::Plain { event, relation, fixed_size, .. } => whole(event, *relation, *fixed_size, rate),
        }
    }

    /// Epsilon under `schedule`, and the coordinate bound of its order where there is one.
    pub(super) fn epsilon(
        &self,
        clip: f64,
        schedule: &Schedule,
        rule: Rule,
    ) -> Result<(EpsilonReport, Option<f64>), PrivacyError> {
        let report = rule.epsilon(&self.event(clip, schedule.rate)?, schedule.rounds, schedule.delta)?;
        let l_inf = match self {
            Self::Skellam { kind: SkellamKind::Smm2022, gamma, mu_total, .. } => {
                Some(l_inf(*mu_total, gamma * clip, schedule)?)
            }
            _ => None,
        };
        Ok((report, l_inf))
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
        MechanismName::DistributedDiscreteGaussian | MechanismName::Binomial => rounded(args, schedule),
        MechanismName::Skellam if args.gamma.is_some() => rounded(args, schedule),
        _ => plain(args, schedule),
    }
}

/// The mechanisms whose norm is bounded behind the rounding.
fn rounded(args: &Args, schedule: &Schedule) -> Result<Noise, Failure> {
    let Some(dim) = args.dim else {
        return Err(usage(format!(
            "--mechanism {} on rows needs --dim: the bound behind the rounding depends on it",
            name(args)
        )));
    };
    let gamma = args.gamma.unwrap_or(1.0);
    let beta = args.beta.unwrap_or(DEFAULT_BETA);
    RoundedScale { gamma, clip: args.clip, bits: 32, beta }.check()?;
    let rounding = Rounding { padded: RoundedScale::padded(super::checked_dim(dim)?), beta };
    if args.coins.is_some() && args.target_epsilon.is_some() {
        return Err(usage("--target-epsilon finds --coins: give one of the two"));
    }
    let cohort = args.cohort as f64;
    let (kind, half) = match args.mechanism {
        MechanismName::Skellam => (SkellamKind::Skellam(rounding), args.mu.map(|mu| mu * cohort)),
        MechanismName::Binomial => (SkellamKind::Binomial(rounding), args.coins.map(|coins| 0.25 * coins as f64)),
        _ => {
            let most = largest_cohort(cohort, schedule.rate);
            (SkellamKind::DistributedGaussian(rounding, most), args.sigma_total.map(|sigma| 0.5 * sigma * sigma))
        }
    };
    rows(args, schedule, kind, half)
}

fn skellam_mixture(args: &Args, schedule: &Schedule, kind: SkellamKind) -> Result<Noise, Failure> {
    rows(args, schedule, kind, args.mu.map(|mu| mu * args.cohort as f64))
}

/// Noise on rows, given as half the variance of the sum's or calibrated.
fn rows(args: &Args, schedule: &Schedule, kind: SkellamKind, half: Option<f64>) -> Result<Noise, Failure> {
    let gamma = args.gamma.ok_or_else(|| usage("smm and smm-2022 need --gamma"))?;
    validate::positive("--gamma", gamma)?;
    validate::positive("--clip", args.clip)?;
    if args.neighboring.is_some() {
        let own = NeighboringRelation::ZeroOut.name();
        return Err(usage(format!("{} on rows takes no --neighboring; its neighbours are: {own}", name(args))));
    }
    let padded = args.dim.map(super::checked_dim).transpose()?.map(|dim| padded(dim, true) as u64);
    let flag = match kind {
        SkellamKind::DistributedGaussian(..) => "--sigma-total",
        SkellamKind::Binomial(_) => "--coins",
        _ => "--mu",
    };
    let mu_total = match (half, args.target_epsilon) {
        (Some(half), _) => {
            validate::positive(flag, half)?;
            half
        }
        (None, Some(target)) => {
            let event = |mu| kind.event(mu, gamma, args.clip, padded);
            calibrate_mu_by(args.accountant.into(), event, (gamma, args.clip), schedule, target)?
        }
        (None, None) => return Err(usage(format!("{} needs {flag} or --target-epsilon", name(args)))),
    };
    Ok(Noise::Skellam { kind, gamma, mu_total, padded })
}

/// Mechanisms other than the mixtures.
fn plain(args: &Args, schedule: &Schedule) -> Result<Noise, Failure> {
    validate::positive("--clip", args.clip)?;
    let fixed_size = match (args.sampling, args.population) {
        (SamplingName::Poisson | SamplingName::RandomAllocation, _) => None,
        (SamplingName::FixedSize, Some(population)) => Some((args.cohort, population)),
        (SamplingName::FixedSize, None) => return Err(usage("--sampling fixed-size needs --population")),
    };
    let relation = relation(args, fixed_size.is_some())?;
    let made = |(multiplier, event)| Noise::Plain { multiplier, event, relation, fixed_size };
    let Some(target) = args.target_epsilon else {
        let event = fixed_event(args).unwrap_or_else(|| scaled_event(args, args.noise_multiplier))?;
        return Ok(made((args.noise_multiplier, event)));
    };
    let level = Level::of(args)?;
    // A relation or a sampling that is not proved for this mechanism says so before anything is searched.
    whole(&level.event(args, level.probe(args))?.1, relation, fixed_size, schedule.rate)?;
    if level == Level::Bias {
        let (params, dim) = biased(args, 1.0)?;
        let gaussian = calibrate_noise_multiplier(schedule, target, Rule::Rdp, discrete_gaussian)?;
        let rule = Rule::from(args.accountant);
        let cost = |event: DpEvent| Ok(schedule.epsilon(rule, event)?.epsilon);
        let found = calibrate_bias(&params, dim, target, gaussian, cost)?;
        return Ok(made(level.event(args, found)?));
    }
    let found = level.search(target).run(|noise| {
        // Noise so little that no event has it protects nothing.
        let Ok(event) = level.event(args, noise) else { return Ok(f64::INFINITY) };
        match made(event).epsilon(args.clip, schedule, args.accountant.into()) {
            Ok((report, _)) => Ok(report.epsilon),
            Err(PrivacyError::OutOfRange { .. }) => Ok(f64::INFINITY),
            Err(e) => Err(e),
        }
    })?;
    Ok(made(level.event(args, found)?))
}

/// What stands for "more noise" of a mechanism: epsilon falls as it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// The noise over the sensitivity.
    Multiplier,
    /// The number of coins, rounded up.
    Trials,
    /// One over the pure epsilon of a release.
    ReleaseEpsilon,
    /// One over rho.
    Rho,
    /// One over the bias of a coin.
    Bias,
}

/// Most coins whose losses are tabulated.
pub(super) const MOST_TRIALS: f64 = 500_000.0;

impl Level {
    /// Refuses the parameter that is to be found if it is given.
    fn of(args: &Args) -> Result<Self, Failure> {
        let (level, flag, given) = match args.mechanism {
            MechanismName::CenteredBinomial => (Self::Trials, "--trials", args.trials.is_some()),
            MechanismName::RandomizedResponse | MechanismName::PureDp => {
                (Self::ReleaseEpsilon, "--release-epsilon", args.release_epsilon.is_some())
            }
            MechanismName::Zcdp => (Self::Rho, "--rho", args.rho.is_some()),
            MechanismName::PoissonBinomial => (Self::Bias, "--gamma", args.gamma.is_some()),
            _ => (Self::Multiplier, "--noise-multiplier", args.noise_multiplier.is_some()),
        };
        if given { Err(usage(format!("--target-epsilon finds {flag}: give one of the two"))) } else { Ok(level) }
    }

    /// A level that every mechanism has.
    fn probe(self, args: &Args) -> f64 {
        if self == Self::Bias { 1e4 * args.clip } else { 1.0 }
    }

    /// The event at a level, and its multiplier where it has one.
    fn event(self, args: &Args, level: f64) -> Result<(Option<f64>, DpEvent), Failure> {
        Ok(match self {
            Self::Multiplier => (Some(level), scaled_event(args, Some(level))?),
            Self::Trials => (None, shift(args, IntegerNoise::CenteredBinomial { trials: level.ceil() as u64 })),
            Self::ReleaseEpsilon if args.mechanism == MechanismName::PureDp => {
                (None, DpEvent::PureDp { epsilon: 1.0 / level })
            }
            Self::ReleaseEpsilon => (None, randomized_response(args, 1.0 / level)),
            Self::Bias => (None, biased_coins(args, 1.0 / level)?),
            Self::Rho => (None, DpEvent::ZeroConcentrated { rho: 1.0 / level, xi: args.xi.unwrap_or(0.0) }),
        })
    }

    fn search(self, target: f64) -> Search {
        let (guess, largest) = match self {
            Self::Multiplier => (1.0, 1e15),
            Self::Trials => (1000.0, MOST_TRIALS),
            // Many rounds of little epsilon each: from where they add up to the target at worst.
            Self::ReleaseEpsilon | Self::Rho => (1.0 / target.max(1e-12), 1e12),
            // Searched by `calibrate_bias`, which knows the ends.
            Self::Bias => (100.0, 1e5),
        };
        let grain = if self == Self::Trials { 0.5 } else { 0.0 };
        Search { target, guess, factor: 2.0, largest, grain }
    }
}

fn randomized_response(args: &Args, epsilon: f64) -> DpEvent {
    DpEvent::RandomizedResponse { epsilon, categories: args.categories.unwrap_or(2) }
}

/// The event of a release as it is accounted.
fn whole(
    event: &DpEvent,
    relation: NeighboringRelation,
    fixed_size: Option<(u64, u64)>,
    rate: f64,
) -> Result<DpEvent, PrivacyError> {
    match fixed_size {
        // Whoever knows the sample sees no sampling.
        Some((sample, population)) if rate < 1.0 => {
            Ok(DpEvent::FixedSizeSampled { sample, population, event: Box::new(event.under(relation)?) })
        }
        _ => sampled(rate, event).under(relation),
    }
}

/// The relation asked for, or the mechanism's own.
fn relation(args: &Args, fixed_size: bool) -> Result<NeighboringRelation, Failure> {
    use NeighboringRelation::{AddRemove, ReplaceOne, ZeroOut};
    let own = match args.mechanism {
        _ if fixed_size => ReplaceOne,
        MechanismName::RandomizedResponse if args.population.is_none() => ReplaceOne,
        // Who is absent answers as its neighbour would; each client's share of the noise remains.
        MechanismName::RandomizedResponse | MechanismName::Skellam | MechanismName::PoissonBinomial => ZeroOut,
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
            None => Err(usage("--mechanism centered-binomial needs --trials or --target-epsilon")),
        },
        MechanismName::PoissonBinomial => match args.gamma {
            Some(gamma) => biased_coins(args, gamma),
            None => Err(usage("--mechanism poisson-binomial needs --gamma or --target-epsilon")),
        },
        MechanismName::RandomizedResponse => need("--release-epsilon or --target-epsilon", args.release_epsilon)
            .map(|epsilon| randomized_response(args, epsilon)),
        MechanismName::PureDp => need("--release-epsilon or --target-epsilon", args.release_epsilon)
            .map(|epsilon| DpEvent::PureDp { epsilon }),
        MechanismName::Zcdp => need("--rho or --target-epsilon", args.rho)
            .map(|rho| DpEvent::ZeroConcentrated { rho, xi: args.xi.unwrap_or(0.0) }),
        _ => return None,
    };
    Some(event)
}

/// The event of coins of this bias for a coordinate of 1.
fn biased_coins(args: &Args, gamma: f64) -> Result<DpEvent, Failure> {
    let (params, dim) = biased(args, gamma)?;
    let mechanism = PoissonBinomial::new(params)?;
    mechanism.encode_params(dim)?;
    Ok(mechanism.event(dim))
}

/// The parameters of such coins, and how many coordinates there are.
fn biased(args: &Args, gamma: f64) -> Result<(PoissonBinomialParams, usize), Failure> {
    let (Some(coins), Some(dim)) = (args.coins, args.dim) else {
        return Err(usage("--mechanism poisson-binomial needs --coins and --dim"));
    };
    let beta = args.beta.unwrap_or(DEFAULT_BETA);
    let params = PoissonBinomialParams { gamma, clip: args.clip, bits: 32, coins, clients: args.cohort, beta };
    Ok((params, super::checked_dim(dim)?))
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

pub(super) fn name(args: &Args) -> String {
    super::value_name(args.mechanism)
}
