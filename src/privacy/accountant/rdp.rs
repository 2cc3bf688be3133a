//! Renyi differential privacy: per-order costs that add up, and their conversion to epsilon.

mod allocation;
mod conversion;
pub mod coordinate;
pub mod gaussian;
pub mod mixture;
mod other;
mod poisson_binomial;
pub mod published;
pub(crate) mod skellam;
mod subsample;
pub(crate) mod validate;

use std::sync::{Arc, LazyLock};

use super::{Accountant, EpsilonReport};
use crate::privacy::DpEvent;
use crate::privacy::mechanism::PrivacyError;
use mixture::SkellamMixtureCurve;
use other::Moments;
pub(crate) use other::closeness_of_shares;

/// Curves and event costs kept by one accountant.
const CACHE: usize = 256;
/// What [`RdpAccountant`] knows, for error messages.
const SUPPORTED: &str = "non-private, Gaussian, discrete Gaussian (also distributed), Skellam mixture (smm, smm-2022), Skellam vector, binomial vector (infinite), Poisson-binomial vector (of a known cohort), integer shift, Laplace, randomized response, pure DP, zero-concentrated DP, each plain or Poisson sampled once, or (but for the mixtures) sampled with a fixed size, the plain ones (but for smm-2022 and distributed noise) also in a random allocation of rounds; and compositions of these, with samples of fixed size among themselves only";

static ORDERS: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut orders = vec![1.01, 1.02, 1.03];
    orders.extend((21..=160).map(|i| f64::from(i) / 20.0));
    orders.extend((81..=110).map(|i| f64::from(i) / 10.0));
    orders.extend((12..=128).map(f64::from));
    orders.extend((33..=64).map(|i| f64::from(4 * i)));
    orders.extend([320.0, 384.0, 512.0, 768.0, 1024.0]);
    orders
});

/// The orders of the accountant, ascending: 0.05 apart up to 8, 0.1 up to 11, the integers up to 128,
/// then sparser up to 1024.
#[must_use]
pub fn orders() -> &'static [f64] {
    &ORDERS
}

/// Adds up Renyi divergences at [`orders`]; `epsilon` is the least over the orders.
///
/// Knows every event but mixtures of Gaussians, plain or under one Poisson sampling, samples of fixed size (of all but the
/// Skellam mixtures, and composed with each other only), and compositions; everything else is
/// [`PrivacyError::UnknownEvent`]. The Skellam mixture with the
/// plain clip is certified for every x (see [`mixture`]).
#[derive(Clone, Debug)]
pub struct RdpAccountant {
    totals: Vec<f64>,
    /// Whether neighbours replace a contribution, once an event has told.
    replaces: Option<bool>,
    published: bool,
    certified: bool,
    vectors: bool,
    curves: Vec<Arc<SkellamMixtureCurve>>,
    costs: Vec<(DpEvent, Arc<[f64]>)>,
}

impl Default for RdpAccountant {
    fn default() -> Self {
        Self::new()
    }
}

impl RdpAccountant {
    /// An accountant that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            totals: vec![0.0; orders().len()],
            replaces: None,
            published: false,
            certified: false,
            vectors: false,
            curves: Vec::new(),
            costs: Vec::new(),
        }
    }

    /// The pairs (order, total RDP).
    pub fn curve(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        orders().iter().copied().zip(self.totals.iter().copied())
    }

    /// Cost of one event at each order, from the cache where possible.
    fn cost(&mut self, event: &DpEvent) -> Result<Arc<[f64]>, PrivacyError> {
        if let Some((_, cost)) = self.costs.iter().find(|(known, _)| known == event) {
            return Ok(Arc::clone(cost));
        }
        let cost: Arc<[f64]> = match event {
            DpEvent::SelfComposed { event, count } => scaled(&self.cost(event)?, *count).into(),
            DpEvent::Composed(events) => {
                let mut total = vec![0.0; orders().len()];
                for event in events {
                    add(&mut total, &self.cost(event)?, 1);
                }
                total.into()
            }
            DpEvent::PoissonSampled { rate, event: inner } => self.sampled_cost(*rate, inner, event)?.into(),
            DpEvent::FixedSizeSampled { sample, population, event: inner } => {
                let rate = validate::share(*sample, *population)?;
                Moments::of(inner)?.ok_or_else(|| unknown(event))?.fixed_size(rate).into()
            }
            DpEvent::RandomAllocation { participations, rounds, event: inner } => {
                validate::event(event)?;
                self.allocated_cost(*participations, *rounds, inner, event)?.into()
            }
            plain => self.sampled_cost(1.0, plain, plain)?.into(),
        };
        if self.costs.len() >= CACHE {
            self.costs.remove(0);
        }
        self.costs.push((event.clone(), Arc::clone(&cost)));
        Ok(cost)
    }

    /// Cost of `event` under Poisson sampling; `whole` is named in errors.
    fn sampled_cost(&mut self, rate: f64, event: &DpEvent, whole: &DpEvent) -> Result<Vec<f64>, PrivacyError> {
        validate::rate(rate)?;
        let each = |f: &dyn Fn(f64) -> f64| orders().iter().map(|&a| f(a)).collect();
        Ok(match event {
            DpEvent::NonPrivate => each(&|_| if rate == 0.0 { 0.0 } else { f64::INFINITY }),
            DpEvent::Gaussian { noise_multiplier } => {
                validate::positive("noise_multiplier", *noise_multiplier)?;
                each(&|a| gaussian::sampled_gaussian(*noise_multiplier, rate, a))
            }
            DpEvent::DiscreteGaussian { noise_multiplier } => {
                validate::positive("noise_multiplier", *noise_multiplier)?;
                each(&|a| gaussian::sampled_discrete_gaussian(*noise_multiplier, rate, a))
            }
            DpEvent::SkellamMixture { mu, l2_bound, .. } => {
                validate::positive("mu", *mu)?;
                validate::positive("l2_bound", *l2_bound)?;
                if rate == 0.0 {
                    return Ok(vec![0.0; orders().len()]);
                }
                let curve = self.curve_of(*mu, *l2_bound);
                sampled_mixture(&curve, rate)
            }
            DpEvent::SkellamMixture2022 { mu, c, l_inf } => {
                validate::positive("mu", *mu)?;
                validate::positive("c", *c)?;
                if let Some(bound) = l_inf {
                    validate::positive("l_inf", *bound)?;
                }
                each(&|a| published_cost(*mu, *c, *l_inf, rate, a))
            }
            DpEvent::DistributedDiscreteGaussian { .. } if rate < 1.0 => {
                validate::event(event)?;
                each(&|a| other::sampled_distributed_gaussian(event, rate, a).unwrap_or(f64::INFINITY))
            }
            DpEvent::PoissonBinomialVector { coins, others, most_bias, l2_bound } if rate == 1.0 => {
                validate::event(event)?;
                let (coins, others, most_bias, l2_bound) = (*coins, *others, *most_bias, *l2_bound);
                poisson_binomial::Release { coins, others, most_bias, l2_bound }.costs()
            }
            other => Moments::of(other)?.ok_or_else(|| unknown(whole))?.poisson(rate),
        })
    }

    /// Cost of `event` in k of T rounds; `whole` is named in errors.
    fn allocated_cost(
        &mut self,
        k: u64,
        rounds: u64,
        event: &DpEvent,
        whole: &DpEvent,
    ) -> Result<Vec<f64>, PrivacyError> {
        match event {
            DpEvent::NonPrivate => Ok(vec![f64::INFINITY; orders().len()]),
            DpEvent::SkellamMixture { mu, l2_bound, .. } => {
                validate::positive("mu", *mu)?;
                validate::positive("l2_bound", *l2_bound)?;
                let curve = self.curve_of(*mu, *l2_bound);
                Ok(allocation::costs(k, rounds, &|a| (a - 1.0) * curve.rdp(a)))
            }
            // Its law depends on how many take part.
            DpEvent::DistributedDiscreteGaussian { .. } => Err(unknown(whole)),
            other => {
                let moments = Moments::of(other)?.ok_or_else(|| unknown(whole))?;
                Ok(allocation::costs(k, rounds, &|a| moments.anywhere(a)))
            }
        }
    }

    /// The curve from the cache or computed.
    fn curve_of(&mut self, mu: f64, l2_bound: f64) -> Arc<SkellamMixtureCurve> {
        let fits = |c: &&Arc<SkellamMixtureCurve>| c.mu() == mu && c.l2_bound() == l2_bound;
        if let Some(curve) = self.curves.iter().find(fits) {
            return Arc::clone(curve);
        }
        let curve = Arc::new(SkellamMixtureCurve::new(mu, l2_bound));
        if self.curves.len() >= CACHE {
            self.curves.remove(0);
        }
        self.curves.push(Arc::clone(&curve));
        curve
    }

    fn name(&self) -> String {
        match (self.published, self.certified) {
            (false, false) if self.vectors => "rdp (Skellam vectors: least of Agarwal 2021 and the law's curvature)",
            (false, false) => "rdp",
            (true, false) => "rdp (smm-2022 bound as published, integer orders 2..=99)",
            (false, true) => "rdp (smm certified for every x)",
            (true, true) => "rdp (smm-2022 bound as published; smm certified for every x)",
        }
        .to_owned()
    }

    /// Remembers which bounds the total rests on.
    fn note(&mut self, event: &DpEvent) {
        match event {
            DpEvent::SkellamMixture { .. } => self.certified = true,
            DpEvent::SkellamMixture2022 { .. } => self.published = true,
            DpEvent::SkellamVector { .. } => self.vectors = true,
            DpEvent::PoissonSampled { event, .. }
            | DpEvent::SelfComposed { event, .. }
            | DpEvent::RandomAllocation { event, .. } => self.note(event),
            DpEvent::Composed(events) => events.iter().for_each(|event| self.note(event)),
            _ => {}
        }
    }
}

impl Accountant for RdpAccountant {
    fn compose(&mut self, event: &DpEvent, count: u64) -> Result<(), PrivacyError> {
        let cost = self.cost(event)?;
        if count > 0 {
            let replaces = event.replaces_one().map_err(|()| unknown(event))?.or(self.replaces);
            if self.replaces.is_some() && self.replaces != replaces {
                return Err(unknown(event));
            }
            self.replaces = replaces;
            self.note(event);
            add(&mut self.totals, &cost, count);
        }
        Ok(())
    }

    fn epsilon(&self, delta: f64) -> Result<EpsilonReport, PrivacyError> {
        validate::delta(delta)?;
        let mut report =
            EpsilonReport { epsilon: f64::INFINITY, epsilon_low: None, delta, order: None, accountant: self.name() };
        if self.totals.iter().all(|&tau| tau == 0.0) {
            report.epsilon = 0.0;
            return Ok(report);
        }
        for (order, tau) in self.curve() {
            let epsilon = conversion::epsilon_at(tau, order, delta);
            if epsilon < report.epsilon {
                report.epsilon = epsilon;
                report.order = Some(order);
            }
        }
        Ok(report)
    }

    fn delta(&self, epsilon: f64) -> Result<f64, PrivacyError> {
        validate::non_negative("epsilon", epsilon)?;
        if self.totals.iter().all(|&tau| tau == 0.0) {
            return Ok(0.0);
        }
        Ok(self.curve().map(|(order, tau)| conversion::delta_at(tau, order, epsilon)).fold(1.0, f64::min))
    }
}

fn unknown(event: &DpEvent) -> PrivacyError {
    PrivacyError::UnknownEvent { accountant: "rdp", event: format!("{event:?}"), supported: SUPPORTED }
}

/// `total += count * cost`; zero costs stay zero and infinities stay infinite.
fn add(total: &mut [f64], cost: &[f64], count: u64) {
    if count > 0 {
        total.iter_mut().zip(cost).for_each(|(t, &c)| *t += c * count as f64);
    }
}

fn scaled(cost: &[f64], count: u64) -> Vec<f64> {
    let mut total = vec![0.0; cost.len()];
    add(&mut total, cost, count);
    total
}

/// The published bound at an order of ours; infinite where the publication says nothing.
fn published_cost(mu: f64, c: f64, l_inf: Option<f64>, rate: f64, order: f64) -> f64 {
    let integer = order as u32;
    if rate == 0.0 {
        return 0.0;
    }
    if f64::from(integer) != order || !published::ORDERS.contains(&integer) {
        return f64::INFINITY;
    }
    if l_inf.is_some_and(|bound| bound > published::linf_bound(mu, integer)) {
        return f64::INFINITY;
    }
    published::sampled_rdp(mu, c, rate, integer)
}

/// The plain mixture under Poisson sampling of `rate` in (0, 1]: both directions, integer orders and chords.
fn sampled_mixture(curve: &SkellamMixtureCurve, rate: f64) -> Vec<f64> {
    if rate == 1.0 {
        return orders().iter().map(|&a| curve.rdp(a)).collect();
    }
    let highest = orders().last().map_or(2, |&a| a as usize);
    let mut moments = vec![0.0; highest + 1];
    for (a, moment) in moments.iter_mut().enumerate().skip(2) {
        *moment = (a as f64 - 1.0) * curve.rdp(a as f64);
    }
    let at_integer = |a: u32| subsample::both_moments(rate, a, |j| moments[j as usize]);
    let mut known: Vec<Option<f64>> = vec![None; highest + 2];
    orders()
        .iter()
        .map(|&order| {
            for a in [order.floor() as u32, order.ceil() as u32] {
                if a >= 2 && known[a as usize].is_none() {
                    known[a as usize] = Some(at_integer(a));
                }
            }
            let moment = subsample::chord(order, |a| known[a as usize].unwrap_or(f64::INFINITY));
            moment / (order - 1.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_ascend() {
        assert!(orders().windows(2).all(|w| w[0] < w[1]) && orders()[0] > 1.0);
    }

    #[test]
    fn nothing_costs_nothing_and_non_private_costs_everything() {
        let mut accountant = RdpAccountant::new();
        assert_eq!(accountant.epsilon(1e-5).unwrap().epsilon, 0.0);
        assert_eq!(accountant.delta(0.0).unwrap(), 0.0);
        accountant.compose(&DpEvent::NonPrivate, 0).unwrap();
        assert_eq!(accountant.epsilon(1e-5).unwrap().epsilon, 0.0);
        accountant.compose(&DpEvent::NonPrivate, 1).unwrap();
        let report = accountant.epsilon(1e-5).unwrap();
        assert!(report.epsilon.is_infinite() && report.order.is_none());
        assert_eq!(accountant.delta(3.0).unwrap(), 1.0);
    }

    #[test]
    fn sampling_twice_is_unknown() {
        let gaussian = DpEvent::Gaussian { noise_multiplier: 1.0 };
        let once = DpEvent::PoissonSampled { rate: 0.1, event: Box::new(gaussian) };
        let twice = DpEvent::PoissonSampled { rate: 0.1, event: Box::new(once) };
        let mut accountant = RdpAccountant::new();
        assert!(matches!(accountant.compose(&twice, 1), Err(PrivacyError::UnknownEvent { .. })));
        assert_eq!(accountant.epsilon(1e-5).unwrap().epsilon, 0.0);
    }
}
