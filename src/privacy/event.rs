//! What a release costs, apart from how the cost is added up.

/// Two data sets are neighbours when...
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighboringRelation {
    /// ... one client's contribution is replaced by zero while every noise share remains.
    ZeroOut,
    /// ... one record is added or removed (noise is not a share of a client).
    AddRemove,
}

impl NeighboringRelation {
    /// The name in JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroOut => "zero-out (one client's contribution is zeroed, all noise shares remain)",
            Self::AddRemove => "add-or-remove one contribution",
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

/// The privacy cost of one release, or of a composition of releases. Its JSON form is that of the ledger.
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
    /// `event` on a Poisson sample: each contribution takes part with probability `rate`.
    PoissonSampled {
        /// Sampling rate q, in `[0, 1]`.
        rate: f64,
        /// The event on the sample.
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
