//! What a release costs, apart from how the cost is added up.

use super::mechanism::PrivacyError;

/// Two data sets are neighbours when...
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighboringRelation {
    /// ... one client's contribution is replaced by zero while every noise share remains.
    ZeroOut,
    /// ... one record is added or removed (noise is not a share of a client).
    AddRemove,
    /// ... one record is replaced by another one.
    ReplaceOne,
}

impl NeighboringRelation {
    /// The name in JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroOut => "zero-out (one client's contribution is zeroed, all noise shares remain)",
            Self::AddRemove => "add-or-remove one contribution",
            Self::ReplaceOne => "replace one contribution by another",
        }
    }
}

/// Who looks at the releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The server, or whoever knows the cohort: no amplification by sampling.
    Server,
    /// Everybody who sees only the releases: amplified by sampling.
    Public,
}

impl View {
    /// The name in JSON and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Public => "public",
        }
    }
}

/// Noise on the integers, by its law.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntegerNoise {
    /// Poisson(mu) - Poisson(mu), variance `2 mu`.
    Skellam {
        /// Mean of each Poisson, > 0.
        mu: f64,
    },
    /// `P[k] ~ exp(-k^2 / (2 sigma^2))`.
    DiscreteGaussian {
        /// sigma, > 0.
        sigma: f64,
    },
    /// `P[k] ~ exp(-|k| / scale)`.
    DiscreteLaplace {
        /// The scale, > 0; for a query of sensitivity s pure epsilon-DP with `epsilon = s / scale`.
        scale: f64,
    },
    /// Heads among `trials` fair coins, less their mean; variance `trials / 4`. It ends: a shift by s has outcomes that
    /// tell the two sides apart, of mass `P[heads < s]`.
    CenteredBinomial {
        /// Number of coins, > 0.
        trials: u64,
    },
}

/// The privacy cost of one release, or of a composition of releases. Its JSON form is that of the ledger.
///
/// Where nothing else is said, the neighbours have or lack one contribution ([`NeighboringRelation::AddRemove`], or
/// [`NeighboringRelation::ZeroOut`] where its place is taken by zero), and `sensitivity` is how far it can move the query.
/// [`DpEvent::under`] turns such an event into that of another relation.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DpEvent {
    /// Nothing is protected: infinite cost.
    NonPrivate,
    /// Gaussian noise on the real numbers, of standard deviation `noise_multiplier` times the L2 sensitivity.
    Gaussian {
        /// sigma over sensitivity, > 0.
        noise_multiplier: f64,
    },
    /// A discrete Gaussian on the integers, of parameter sigma = `noise_multiplier` times the L2 sensitivity.
    ///
    /// Its Renyi divergences are at most those of [`DpEvent::Gaussian`] (Canonne, Kamath, Steinke 2020, Theorem 4). Its
    /// hockey-stick divergences are not: at sigma 1, shift 1 and delta 1e-5 its epsilon is 4.43, that of the Gaussian
    /// 4.38. So it is an event of its own.
    DiscreteGaussian {
        /// sigma over sensitivity, > 0.
        noise_multiplier: f64,
    },
    /// The Skellam mixture mechanism with a plain L2 clip: `floor(x) + Bern(frac x) + Sk(mu, mu)` per
    /// coordinate against `Sk(mu, mu)`, over all x with `|x|_2 <= l2_bound`.
    SkellamMixture {
        /// `mu_tot`: the noise of the sum is Poisson(mu) - Poisson(mu), variance `2 mu`.
        mu: f64,
        /// `gamma C`, in integer units.
        l2_bound: f64,
        /// Coordinates of a row as it is encoded, padding included. The Renyi accountant does not need it; the privacy
        /// loss distribution charges a little delta for each coordinate and does not know the event without it.
        dim: Option<u64>,
    },
    /// The mechanism as published (Bao et al. 2022): mixed clip to `c`, `|x|_inf <= l_inf`.
    SkellamMixture2022 {
        /// `mu_tot`.
        mu: f64,
        /// `c = (gamma r)^2`.
        c: f64,
        /// The bound on a coordinate that the clients enforce; orders that it does not allow are not used.
        /// `None` picks the order first and reports the bound to enforce.
        l_inf: Option<f64>,
    },
    /// Integer noise on an integer query that changes by at most `sensitivity`.
    IntegerShift {
        /// The law of the noise.
        noise: IntegerNoise,
        /// Greatest change of the query, in integer steps, > 0.
        sensitivity: u64,
    },
    /// Skellam noise `Sk(mu, mu)` on each coordinate of a vector of integers that changes by a vector of integers. Renyi
    /// divergences at integer orders by the lesser of Agarwal, Kairouz, Liu 2021 and the law's curvature, privacy losses by
    /// a Gaussian that dominates (`docs/integer-noise.md`).
    SkellamVector {
        /// Mean of each Poisson, > 0.
        mu: f64,
        /// Greatest L1 norm of a change.
        l1_bound: f64,
        /// Greatest L2 norm of a change.
        l2_bound: f64,
    },
    /// Centred binomial noise, Binomial(coins, 1/2) - Binomial(coins, 1/2), on each coordinate of a vector of integers that
    /// changes by a vector of integers: by a Gaussian that dominates (`docs/integer-noise.md`).
    BinomialVector {
        /// Coins on each side, > 0.
        coins: u64,
        /// Greatest L2 norm of a change.
        l2_bound: f64,
    },
    /// The sum of `clients` discrete Gaussians on each coordinate of a vector of integers: `1/2 epsilon^2`-concentrated
    /// (Kairouz, Liu, Steinke 2021, Theorem 1). Under Poisson sampling there may be fewer of them, each larger, so that
    /// `sqrt(clients) sigma` stays what it is.
    DistributedDiscreteGaussian {
        /// How many add noise, at most.
        clients: u64,
        /// sigma of each, in integer steps.
        sigma: f64,
        /// Greatest L1 norm of a change, in integer steps.
        l1_bound: f64,
        /// Greatest L2 norm of a change, in integer steps.
        l2_bound: f64,
        /// Coordinates.
        dim: u64,
    },
    /// Coins whose bias carries the data (Chen, Ozgur, Kairouz 2022): on each coordinate heads of `coins` coins of probability
    /// `1/2 + s`, in a sum with `others` coins of other clients of any bias up to `most_bias`. Neighbours: all s of one client,
    /// or none of them, are zero (`docs/poisson-binomial.md`).
    PoissonBinomialVector {
        /// m: coins of a client on a coordinate, > 0.
        coins: u64,
        /// Coins of all other clients on a coordinate.
        others: u64,
        /// Largest |s|, in (0, 1/4].
        most_bias: f64,
        /// Greatest L2 norm of a client's s.
        l2_bound: f64,
    },
    /// Laplace noise on the real numbers, of scale `noise_multiplier` times the L1 sensitivity, on one coordinate.
    Laplace {
        /// Scale over sensitivity, > 0.
        noise_multiplier: f64,
    },
    /// The Gaussian mechanism with a random sensitivity: `sensitivities[i]` with `probabilities[i]`, against 0.
    MixtureOfGaussians {
        /// Standard deviation of the noise, > 0.
        sigma: f64,
        /// Finite and >= 0.
        sensitivities: Vec<f64>,
        /// >= 0, of sum 1.
        probabilities: Vec<f64>,
    },
    /// One of `categories` answers, the true one `e^epsilon` times as likely as each other; neighbours differ in the
    /// true one (under sampling: an absent contribution answers as its neighbour would).
    RandomizedResponse {
        /// Logarithm of the ratio, >= 0.
        epsilon: f64,
        /// Possible answers, at least 2.
        categories: u64,
    },
    /// Any mechanism with pure `epsilon`-DP: the worst of them is randomized response between two answers (Kairouz, Oh,
    /// Viswanath 2015).
    PureDp {
        /// epsilon >= 0.
        epsilon: f64,
    },
    /// `D_a <= xi + rho a` for all `a > 1`, in both directions (Bun, Steinke 2016).
    ZeroConcentrated {
        /// >= 0.
        rho: f64,
        /// >= 0.
        xi: f64,
    },
    /// `event` on `sample` of `population` contributions, each set of that size equally likely. **Neighbours replace one
    /// contribution**, of `event` too: see [`DpEvent::under`].
    FixedSizeSampled {
        /// Contributions drawn, at most `population`.
        sample: u64,
        /// All contributions, > 0.
        population: u64,
        /// The event on the sample, under [`NeighboringRelation::ReplaceOne`].
        event: Box<DpEvent>,
    },
    /// `event` on a Poisson sample: each contribution takes part with probability `rate`.
    PoissonSampled {
        /// Sampling rate q, in `[0, 1]`.
        rate: f64,
        /// The event on the sample.
        event: Box<DpEvent>,
    },
    /// `rounds` releases of `event`, in exactly `participations` of which a contribution takes part: every set of so many
    /// rounds is equally likely, and contributions draw theirs on their own. The whole run is one event. Its noise does not
    /// depend on who takes part.
    RandomAllocation {
        /// k, at least 1 and at most `rounds`.
        participations: u64,
        /// T.
        rounds: u64,
        /// The event of a round in which it takes part.
        event: Box<DpEvent>,
    },
    /// `event`, `count` times, adaptively.
    SelfComposed {
        /// The event composed.
        event: Box<DpEvent>,
        /// How often.
        count: u64,
    },
    /// All of these, adaptively.
    Composed(Vec<DpEvent>),
}

impl DpEvent {
    /// Whether neighbours replace a contribution (samples of fixed size) or have and lack it; `None` where nothing is
    /// released, an error where both are meant.
    pub(crate) fn replaces_one(&self) -> Result<Option<bool>, ()> {
        match self {
            Self::FixedSizeSampled { .. } => Ok(Some(true)),
            Self::SelfComposed { event, .. } => event.replaces_one(),
            Self::Composed(events) => {
                events.iter().try_fold(None, |seen: Option<bool>, event| match (seen, event.replaces_one()?) {
                    (Some(a), Some(b)) if a != b => Err(()),
                    (seen, next) => Ok(seen.or(next)),
                })
            }
            Self::NonPrivate => Ok(None),
            _ => Ok(Some(false)),
        }
    }

    /// This event, stated for neighbours that have or lack one contribution, as one of `relation`.
    ///
    /// [`NeighboringRelation::AddRemove`] and [`NeighboringRelation::ZeroOut`] change nothing. To replace a contribution
    /// moves a query twice as far as to take it out: sensitivities double, and a pure epsilon-DP or `rho`-zCDP mechanism
    /// is one of `2 epsilon` or `4 rho` for groups of two (Bun, Steinke 2016, Proposition 27, for `xi = 0`). Randomized
    /// response is about another answer already.
    ///
    /// # Errors
    /// [`PrivacyError::UnknownEvent`] where this is not proved: under sampling, for the Skellam mixtures, and for mixtures
    /// of Gaussians.
    pub fn under(&self, relation: NeighboringRelation) -> Result<Self, PrivacyError> {
        if relation != NeighboringRelation::ReplaceOne {
            return Ok(self.clone());
        }
        Ok(match self.clone() {
            Self::Gaussian { noise_multiplier } => Self::Gaussian { noise_multiplier: 0.5 * noise_multiplier },
            Self::DiscreteGaussian { noise_multiplier } => {
                Self::DiscreteGaussian { noise_multiplier: 0.5 * noise_multiplier }
            }
            Self::Laplace { noise_multiplier } => Self::Laplace { noise_multiplier: 0.5 * noise_multiplier },
            Self::IntegerShift { noise, sensitivity } => {
                Self::IntegerShift { noise, sensitivity: sensitivity.saturating_mul(2) }
            }
            Self::SkellamVector { mu, l1_bound, l2_bound } => {
                Self::SkellamVector { mu, l1_bound: 2.0 * l1_bound, l2_bound: 2.0 * l2_bound }
            }
            Self::BinomialVector { coins, l2_bound } => Self::BinomialVector { coins, l2_bound: 2.0 * l2_bound },
            Self::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim } => {
                let (l1_bound, l2_bound) = (2.0 * l1_bound, 2.0 * l2_bound);
                Self::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim }
            }
            Self::PureDp { epsilon } => Self::PureDp { epsilon: 2.0 * epsilon },
            Self::ZeroConcentrated { rho, xi: 0.0 } => Self::ZeroConcentrated { rho: 4.0 * rho, xi: 0.0 },
            same @ (Self::NonPrivate | Self::RandomizedResponse { .. } | Self::FixedSizeSampled { .. }) => same,
            Self::PoissonSampled { rate: 1.0, event } => event.under(relation)?,
            Self::SelfComposed { event, count } => {
                Self::SelfComposed { event: Box::new(event.under(relation)?), count }
            }
            Self::Composed(events) => {
                let events = events.iter().map(|event| event.under(relation));
                Self::Composed(events.collect::<Result<_, _>>()?)
            }
            other => {
                return Err(PrivacyError::UnknownEvent {
                    accountant: "replace-one",
                    event: format!("{other:?}"),
                    supported: "non-private, Gaussian, discrete Gaussian (also distributed), Skellam vector, binomial vector, integer shift, Laplace, randomized response, pure DP, zero-concentrated DP with xi 0, none of them Poisson sampled; samples of fixed size; compositions of these",
                });
            }
        })
    }
}
