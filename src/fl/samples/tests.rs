use super::*;
use crate::fl::dp_sgd::{Clipping, DpSgdParams};

fn level(budget: Option<f64>) -> SampleLevel {
    let local = DpSgd::new(DpSgdParams {
        steps: 5,
        rate: 0.1,
        divisor: Divisor::Public(20.0),
        largest_batch: 20.0,
        learning_rate: 0.1,
        momentum: 0.0,
        clip: 1.0,
        noise_multiplier: 1.0,
        isolate: false,
        clipping: Clipping::Materialised,
    });
    SampleLevel { local: local.unwrap(), delta: 1e-5, epsilon_budget: budget, rule: Rule::Best }
}

fn account(budget: Option<f64>, turns: u64) -> SampleAccount {
    let level = level(budget);
    SampleAccount { level, meter: level.meter(100).unwrap(), turns, begun: BTreeSet::new() }
}

/// Epsilon of a client that took part so often.
fn epsilon(participations: u64) -> f64 {
    let event =
        DpEvent::PoissonSampled { rate: 0.1, event: Box::new(DpEvent::DiscreteGaussian { noise_multiplier: 1.0 }) };
    let delta = 1e-5 * (1.0 - crate::privacy::SAMPLER_SHARE);
    Rule::Rdp.epsilon(&event, 5 * participations, delta).unwrap().epsilon
}

#[test]
fn every_attempt_counts_once() {
    let mut account = account(None, 1);
    for (round, attempt) in [(1, 0), (2, 0), (2, 1), (3, 0), (3, 0)] {
        account.begin(round, attempt);
    }
    for (round, participations) in [(0, 0), (1, 1), (2, 3), (3, 4), (u32::MAX, 4)] {
        let told = account.epsilon(round).unwrap();
        assert_eq!(told.steps, 5 * participations);
        assert_eq!(told.report.epsilon, if participations == 0 { 0.0 } else { epsilon(participations) });
    }
    assert_eq!(account.refuses(4, 0).unwrap(), None, "no budget");
}

#[test]
fn the_budget_holds_before_an_attempt_begins() {
    let mut account = account(Some(epsilon(3)), 1);
    for round in 1..=3 {
        assert_eq!(account.refuses(round, 0).unwrap(), None);
        account.begin(round, 0);
    }
    assert_eq!(account.refuses(4, 0).unwrap(), Some((epsilon(4), epsilon(3))));
    assert!(account.refuses(2, 1).unwrap().is_some(), "another input is another release");
    assert_eq!(account.refuses(2, 0).unwrap(), None, "the same one again is free");
}

#[test]
fn clients_that_take_turns_are_in_every_other_round() {
    let mut account = account(Some(epsilon(2)), 2);
    for round in 1..=4 {
        assert_eq!(account.refuses(round, 0).unwrap(), None);
        account.begin(round, 0);
    }
    assert_eq!(account.epsilon(u32::MAX).unwrap().steps, 10);
    assert!(account.refuses(5, 0).unwrap().is_some());
    assert_eq!((turns(Sampling::RoundRobin, 10, 3.0), turns(Sampling::Poisson, 10, 3.0)), (4, 1));
}

#[test]
fn events_and_relations() {
    let level = level(None);
    assert_eq!(level.neighboring(), NeighboringRelation::AddRemove);
    assert!(level.neighbors().starts_with("add or remove one sample"));
    let all = DpSgdParams { rate: 1.0, divisor: Divisor::Shard, ..*level.local.params() };
    let all = SampleLevel { local: DpSgd::new(all).unwrap(), ..level };
    assert_eq!(all.event(), DpEvent::DiscreteGaussian { noise_multiplier: 1.0 });
    assert_eq!(all.neighboring(), NeighboringRelation::ZeroOut);
    assert!(all.neighbors().contains("contributes zero"));
    assert_eq!(all.steps(u64::MAX), u64::MAX);
}
