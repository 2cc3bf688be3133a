//! What a plan refuses, each check a function: the combinations that no single part can judge.

use super::{Direction, Later, NoisePlacement, Plan};
use crate::fl::FlError;
use crate::fl::asynchrony::{Asynchrony, ReleaseWhen, Update};
use crate::fl::cohort::{self, Sampling};
use crate::fl::compress::Compression;
use crate::fl::groups::{self, Grouping};
use crate::fl::protocol::Protocol;
use crate::privacy::mechanism::NoiseLaw;
use crate::privacy::{DpEvent, truncation};
use crate::sample::binomial;

impl Plan {
    /// Stages come one after another and differ in their noise alone.
    pub(super) fn check_stages(&self) -> Result<(), FlError> {
        let refuse = |expected: &str, found: String| {
            Err(FlError::OutOfRange { name: "stages of noise", expected: expected.to_string(), found })
        };
        let mut last = 1;
        for Later { from, mechanism } in &self.later {
            if *from <= last || *from > self.rounds {
                return refuse(&format!("begun one after another, in rounds 2 to {}", self.rounds), from.to_string());
            }
            last = *from;
            let (first, other) = (self.mechanism.as_ref(), mechanism.as_ref());
            let alike = first.name() == other.name()
                && first.unit() == other.unit()
                && first.distributed() == other.distributed()
                && first.neighboring() == other.neighboring()
                && first.encode_params(self.row_dim())? == other.encode_params(self.row_dim())?
                && std::mem::discriminant(&first.noise()) == std::mem::discriminant(&other.noise())
                && other.event(self.row_dim()) != DpEvent::NonPrivate
                && self.is_private();
            if !alike {
                return refuse("of one private mechanism, with other noise only", format!("{first:?} and {other:?}"));
            }
        }
        Ok(())
    }

    /// Whether clients take part no more often than the cost of correlated noise assumes.
    pub(super) fn check_correlation(&self) -> Result<(), FlError> {
        let Some(correlation) = self.mechanism.correlation() else { return Ok(()) };
        let (assumed, rounds) = (correlation.participation, u64::from(self.rounds));
        let bad = |name, expected, found| Err(FlError::OutOfRange { name, expected, found });
        let Some(turns) = cohort::participation(self.sampling, self.clients, self.cohort, rounds) else {
            let expected = "`round-robin` or `all` (no amplification by sampling is proved for correlated noise)";
            return bad("sampling", expected.into(), format!("{:?}", self.sampling));
        };
        if rounds > correlation.strategy.rounds() {
            return bad(
                "rounds",
                format!("at most {}, those of the matrix", correlation.strategy.rounds()),
                rounds.to_string(),
            );
        }
        if turns.max > assumed.max || turns.separation < assumed.separation {
            return bad("participation", format!("at most that of the mechanism, {assumed:?}"), format!("{turns:?}"));
        }
        Ok(())
    }

    /// Only noise that is drawn for a group of any size has groups.
    pub(super) fn check_grouping(&self) -> Result<(), FlError> {
        if self.grouping == Grouping::Whole {
            return Ok(());
        }
        let bad = |expected: &str, found: String| {
            Err(FlError::OutOfRange { name: "group_size", expected: expected.to_owned(), found })
        };
        let groups = self.cohort / self.expected_size();
        if groups > groups::MOST as f64 {
            return bad(&format!("at most {} groups a round", groups::MOST), format!("{groups} groups"));
        }
        if self.mechanism.correlation().is_some() {
            return bad("absent beside correlated noise, whose state is one sum's", self.mechanism.name().into());
        }
        let law = self.mechanism.noise();
        let shared = self.placement == NoisePlacement::PerClient;
        if matches!(law, NoiseLaw::DiscreteGaussianShares { .. })
            || (shared && matches!(law, NoiseLaw::CenteredBinomial { .. }))
        {
            return bad(
                "absent, or the mechanism `smm`, `smm-2022`, `skellam`, `central-gaussian`, `none` (the shares of others are \
                 made for cohorts of one size)",
                self.mechanism.name().into(),
            );
        }
        Ok(())
    }

    /// Control variates beside what they are not made for.
    pub(super) fn check_controls(&self) -> Result<(), FlError> {
        if !self.controlled {
            return Ok(());
        }
        let bad = |name, expected: &str, found: String| {
            Err(FlError::OutOfRange { name, expected: format!("{expected} with `scaffold`"), found })
        };
        if self.is_private() {
            let found = self.mechanism.name().into();
            return bad(
                "privacy.mechanism",
                "`none` or `quantized` (what a clip makes of both vectors together is not accounted)",
                found,
            );
        }
        if let Some(compression) = &self.compression {
            return bad("compression", "absent", compression.name().into());
        }
        if self.aggregation.is_some() {
            return bad("aggregation", "absent (a rule over both vectors has no published meaning)", "given".into());
        }
        if self.asynchrony.is_some() {
            return bad("asynchrony", "absent", "given".into());
        }
        if self.weights.is_some() {
            return bad("algorithm.weights", "uniform", "samples".into());
        }
        Ok(())
    }

    /// What has no meaning, or no proof, where clients arrive when they like.
    pub(super) fn check_asynchrony(&self) -> Result<(), FlError> {
        let Some(rules) = &self.asynchrony else { return Ok(()) };
        let bad = |name, expected: &str, found: String| {
            Err(FlError::OutOfRange { name, expected: expected.to_owned(), found })
        };
        if self.sampling != Sampling::All {
            let expected =
                "`all` beside `asynchrony` (whoever arrives takes part; `cohort` is how many work at a time)";
            return bad("sampling", expected, format!("{:?}", self.sampling));
        }
        let mix = matches!(rules.config.update, Update::Mix { .. });
        if mix && self.direction == Direction::Gradient {
            return bad(
                "asynchrony.update",
                "`mean` or `buffered` with gradients: `mix` moves towards models",
                "mix".into(),
            );
        }
        if rules.config.update != Update::Mean && self.aggregation.is_some() {
            return bad("asynchrony.update", "`mean` beside a robust rule", format!("{:?}", rules.config.update));
        }
        if self.adaptive.is_some() {
            return bad(
                "privacy.adaptive_clip",
                "absent beside `asynchrony`, whose clients clip at any time",
                "given".into(),
            );
        }
        if self.mechanism.correlation().is_some() || self.mechanism.bias_bits().is_some() {
            let expected = "a mechanism whose rounds are alike and whose vectors may be scaled (`smm`, `skellam`, \
                            `central-gaussian`, `quantized`, `none`) beside `asynchrony`";
            return bad("privacy.mechanism", expected, self.mechanism.name().into());
        }
        // The shares of others are made for cohorts of one size.
        let fixed = matches!(self.mechanism.noise(), NoiseLaw::CenteredBinomial { .. });
        if fixed && self.placement == NoisePlacement::PerClient {
            return bad("privacy.noise", "`aggregate` with this mechanism beside `asynchrony`", "per_client".into());
        }
        if let Some(compression) = self.compression.filter(Compression::error_feedback) {
            return bad("compression", "without error feedback beside `asynchrony`", compression.name().into());
        }
        if matches!(self.protocol, Protocol::Mphe(_)) {
            return bad("secagg", "`plain`, `masks` or `oneshot` beside `asynchrony`", "mphe".into());
        }
        let shared = self.is_private() && self.placement == NoisePlacement::PerClient;
        if rules.config.agent && shared && (self.dropout.is_some() || self.grouping != Grouping::Whole) {
            let expected = "false where clients share the noise of groups, or of a cohort that may shrink: a stand-in adds none \
                            that counts";
            return bad("asynchrony.agent", expected, "true".into());
        }
        if rules.config.agent && !matches!(self.protocol, Protocol::Plain | Protocol::Oneshot(_)) {
            let expected =
                "`plain` or `oneshot` beside `asynchrony.agent`: a stand-in is one message that was left behind";
            return bad("secagg", expected, format!("{:?}", self.protocol));
        }
        let least = rules.config.release.least();
        let name = match rules.config.release {
            ReleaseWhen::Every { .. } => "asynchrony.release.every.least",
            ReleaseWhen::Arrivals(_) => "asynchrony.release.arrivals",
        };
        let groups = self.cohort / self.expected_size();
        if self.grouping != Grouping::Single && self.protocol != Protocol::Plain {
            // The smallest sums that may be opened, as they would be planned.
            let smallest = (f64::from(least) / groups).floor();
            let small = Self { cohort: smallest, grouping: Grouping::Whole, asynchrony: None, ..self.clone() };
            if smallest < 1.0 {
                return bad(name, &format!("at least {groups:.0}, a client a group"), least.to_string());
            }
            small.protocol.validate(&small).map_err(|e| FlError::OutOfRange {
                name,
                expected: format!("enough clients for the protocol ({e})"),
                found: least.to_string(),
            })?;
        }
        Ok(())
    }

    /// A rule needs vectors, and so many that its condition holds.
    pub(super) fn check_aggregation(&self) -> Result<(), FlError> {
        let Some(config) = &self.aggregation else { return Ok(()) };
        let bad = |name, expected: &str, found: String| {
            Err(FlError::OutOfRange { name, expected: expected.to_owned(), found })
        };
        let aggregator = config.build()?;
        match (config.needs_root(), config.root_samples) {
            (true, Some(1..)) | (false, None) => {}
            (true, found) => {
                let expected = "at least 1 with this rule: the update of the server's own data is what it trusts";
                return bad("aggregation.root_samples", expected, found.unwrap_or(0).to_string());
            }
            (false, Some(samples)) => {
                let expected = "absent with a rule that needs no data of the server's own";
                return bad("aggregation.root_samples", expected, samples.to_string());
            }
        }
        if config.needs_root() && self.local_steps.is_some() {
            return bad("algorithm.normalized", "false with `fltrust`, which compares lengths", "true".into());
        }
        if self.grouping == Grouping::Whole {
            let expected = "given beside `aggregation`: a robust rule works on the sums of groups, or with `plain` and no \
                            mechanism on the vectors of clients (group_size 1)";
            return bad("group_size", expected, "absent".into());
        }
        if self.weights.is_some() && !(aggregator.rule().weighted() && config.before.is_empty()) {
            let expected = "`uniform` with this rule, whose formula has no weights";
            return bad("algorithm.weights", expected, format!("samples, with {}", aggregator.rule().name()));
        }
        Ok(aggregator.check(match self.grouping {
            Grouping::Split(count) => count as usize,
            Grouping::Whole | Grouping::Single => self.cohort as usize,
        })?)
    }

    /// Coins are shared out evenly, or the sum would depend on how many share them.
    pub(super) fn check_coins(&self) -> Result<(), FlError> {
        if self.mechanism.bias_bits().is_some() && self.placement == NoisePlacement::Aggregate {
            return Err(FlError::OutOfRange {
                name: "privacy.noise",
                expected: "`per_client` (the coins are the clients' own answers)".into(),
                found: "aggregate".into(),
            });
        }
        let (NoisePlacement::PerClient, NoiseLaw::CenteredBinomial { coins }) =
            (self.placement, self.mechanism.noise())
        else {
            return Ok(());
        };
        let even = coins.is_multiple_of(self.clients) && coins / self.clients <= u64::from(binomial::MAX_K);
        if self.sampling == Sampling::All && even {
            return Ok(());
        }
        Err(FlError::OutOfRange {
            name: "privacy.coins",
            expected: format!(
                "with noise `per_client`: sampling `all`, and a multiple of the {} clients with at most {} for each; or noise `aggregate`",
                self.clients,
                binomial::MAX_K
            ),
            found: format!("{coins}, sampling {:?}", self.sampling),
        })
    }

    /// Only a Skellam variable is a sum of independent shares of any size.
    pub(super) fn check_dropout(&self) -> Result<(), FlError> {
        let Some(dropout) = &self.dropout else { return Ok(()) };
        if self.placement != NoisePlacement::PerClient || !matches!(self.mechanism.noise(), NoiseLaw::Skellam { .. }) {
            return Err(FlError::OutOfRange {
                name: "privacy.dropout",
                expected: "absent, or noise `per_client` of `smm`, `smm-2022` or `skellam`".into(),
                found: format!("noise {:?} of {}", self.placement, self.mechanism.name()),
            });
        }
        let arriving = |rules: &Asynchrony| u64::from(rules.config.release.least());
        let cohort = self.asynchrony.as_ref().map_or(self.clients, arriving);
        dropout.validate((self.sampling == Sampling::All).then(|| self.grouping.least_size(cohort)))
    }

    /// Only a Skellam variable is split into two that are accounted alike.
    pub(super) fn check_server_share(&self) -> Result<(), FlError> {
        let bad = |expected: &str, found: String| {
            Err(FlError::OutOfRange { name: "privacy.server_share", expected: expected.into(), found })
        };
        if !(0.0..1.0).contains(&self.server_share) {
            return bad("in [0, 1): the clients have to add some noise", self.server_share.to_string());
        }
        if self.server_share > 0.0 && self.mechanism.with_part_of_noise(1.0 - self.server_share).is_none() {
            return bad(
                "absent, or the mechanism `smm`, `smm-2022` or `skellam`",
                format!("{} with {}", self.server_share, self.mechanism.name()),
            );
        }
        Ok(())
    }

    pub(super) fn check_adaptive(&self) -> Result<(), FlError> {
        let Some((rule, first)) = &self.adaptive else { return Ok(()) };
        rule.validate()?;
        let bad = |expected: &str, found: &str| {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            Err(FlError::OutOfRange { name: "privacy.adaptive_clip", expected, found })
        };
        if !(first.is_finite() && *first > 0.0) {
            return bad("a first bound > 0", &first.to_string());
        }
        if !self.is_private() {
            return bad("absent where nothing is protected", "given");
        }
        if self.mechanism.correlation().is_some() {
            return bad("absent beside correlated noise, which prefix sums of rows in one scale are made for", "given");
        }
        Ok(())
    }

    pub(super) fn check_compression(&self) -> Result<(), FlError> {
        let Some(compression) = &self.compression else { return Ok(()) };
        compression.validate(self.dim)?;
        compression.validate_clients(self.dim, self.clients, false)?;
        if self.mechanism.correlation().is_some() {
            return Err(FlError::OutOfRange {
                name: "compression",
                expected: "absent beside correlated noise, which cancels over rounds in one system of coordinates only"
                    .into(),
                found: compression.name().into(),
            });
        }
        Ok(())
    }

    /// A cut cohort's cost must fit in what is set aside of delta, at the budget if there is one.
    pub(super) fn check_truncation(&self) -> Result<(), FlError> {
        let Sampling::TruncatedPoisson { most } = self.sampling else { return Ok(()) };
        let (rate, rounds) = (self.sampling_rate(), u64::from(self.rounds));
        let epsilon = self.epsilon_budget.unwrap_or(0.0);
        if self.is_private() && !truncation::fits(self.clients, rate, most, rounds, epsilon, self.delta) {
            let least = truncation::least(self.clients, rate, rounds, epsilon, self.delta)?;
            return Err(FlError::OutOfRange {
                name: "sampling.truncated-poisson.most",
                expected: format!("at least {least}: a cut must be so improbable that delta bears it"),
                found: most.to_string(),
            });
        }
        Ok(())
    }
}
