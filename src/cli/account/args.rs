//! Arguments of `veilsum account`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::matrix;
use crate::config;
use crate::privacy::NeighboringRelation;
use crate::privacy::accountant::Rule;

/// Arguments of `veilsum account`.
#[derive(Clone, Debug, ClapArgs)]
pub struct Args {
    /// What adds the noise.
    #[arg(long, value_enum, default_value_t = MechanismName::Smm)]
    pub mechanism: MechanismName,
    /// Scale: a coordinate of 1 becomes gamma integer steps (smm, smm-2022, skellam, distributed-discrete-gaussian,
    /// binomial); of poisson-binomial the bias of a coin for a coordinate of 1, found for --target-epsilon if not given.
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
    /// Coins on each side of the noise of the whole sum (binomial); coins of each client on a coordinate, an even number
    /// (poisson-binomial).
    #[arg(long)]
    pub coins: Option<u64>,
    /// Share of rows of full norm that the bound behind the rounding may shrink, 1e-4 if not given (skellam,
    /// distributed-discrete-gaussian, binomial); of which a coordinate may be cut (poisson-binomial).
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
    /// The cohort's sums are released by so many groups, each of its own: noise counts as that of the smallest group, and
    /// --sigma-total and --coins are those of a group's sum (mechanisms whose noise the clients bring; no --population).
    #[arg(long)]
    pub groups: Option<u64>,
    /// Clients who tell the server their shares of the noise: the others' counts (likewise).
    #[arg(long)]
    pub colluding: Option<u64>,
    /// Noise that the server adds to what the clients bring, Poisson(mu) - Poisson(mu) of the sum: `epsilon` is then that of
    /// those who see what the server publishes, `epsilon_server_view` that of the server (smm, skellam; with --mu).
    #[arg(long, value_name = "MU", conflicts_with_all = ["target_epsilon", "schedule"])]
    pub server_mu: Option<f64>,
    /// How the cohort is drawn from the population.
    #[arg(long, value_enum, default_value_t = SamplingName::Poisson)]
    pub sampling: SamplingName,
    /// What neighbours are; each mechanism has its own if not given.
    #[arg(long, value_enum)]
    pub neighboring: Option<NeighboringName>,
    /// Number of releases; 1 if not given, or those of --schedule.
    #[arg(long)]
    pub rounds: Option<u64>,
    /// Rounds whose noise or cohort changes; see SCHEDULES.
    #[arg(long, value_name = "STAGES")]
    pub schedule: Option<String>,
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

impl Args {
    /// Releases, without a schedule.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(1)
    }
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
    /// Coins whose bias is the row.
    PoissonBinomial,
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
    /// Each client in exactly `--participations` of the `--rounds`, any set of them equally likely.
    RandomAllocation,
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
