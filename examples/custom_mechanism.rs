//! A mechanism of your own in a veilsum simulation.
//!
//! The mechanism here is a Skellam mixture without the rotation: for a model of a few thousand
//! parameters whose gradients are not sparse, the rotation buys little. It says what to compute
//! (`EncodeParams`, a noise law) and what that costs (`DpEvent`); the kernels, the accountant, the
//! coordinator and the run folder are the library's.
//!
//! Run with `cargo run --release --example custom_mechanism`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use veilsum::config::build::{Given, build};
use veilsum::config::{Config, overrides};
use veilsum::params::{EncodeParams, NO_LINF, norm_kind, rounding_kind};
use veilsum::privacy::mechanism::{Mechanism, NoiseLaw, PrivacyError};
use veilsum::privacy::{DpEvent, NeighboringRelation};
use veilsum::sim::{self, RunOptions, Silent};

/// Fraction bits of the fixed point.
const FRACTION_BITS: u32 = 16;

/// Scale, clip, stochastic rounding, Skellam noise; no rotation.
#[derive(Debug)]
struct Unrotated {
    gamma: f64,
    clip: f64,
    mu_total: f64,
    bits: u32,
}

impl Mechanism for Unrotated {
    fn name(&self) -> &'static str {
        "unrotated"
    }

    fn encode_params(&self, dim: usize) -> Result<EncodeParams, PrivacyError> {
        // The exact integer norm is held below this bound: it is what the privacy claim rests on, so it
        // is rounded down.
        let bound = (self.gamma * self.clip * f64::from(1u32 << FRACTION_BITS)).powi(2).floor() as u128;
        Ok(EncodeParams {
            dim: dim as u32,
            padded: dim as u32,
            block_log2: 0,
            rotate: 0,
            bits: self.bits,
            fraction_bits: FRACTION_BITS,
            norm: norm_kind::L2,
            rounding: rounding_kind::STOCHASTIC,
            linf: NO_LINF,
            gamma: self.gamma as f32,
            clip: self.clip as f32,
            _pad: 0,
            norm_bound: EncodeParams::limbs(bound),
        })
    }

    fn noise(&self) -> NoiseLaw {
        NoiseLaw::Skellam { mu: self.mu_total }
    }

    fn distributed(&self) -> bool {
        true
    }

    fn event(&self, dim: usize) -> DpEvent {
        // The analysis of the Skellam mixture holds coordinate by coordinate, in any basis.
        let (mu, l2_bound) = (self.mu_total, self.gamma * self.clip);
        DpEvent::SkellamMixture { mu, l2_bound, dim: Some(dim as u64) }
    }

    fn neighboring(&self) -> NeighboringRelation {
        NeighboringRelation::ZeroOut
    }

    fn certified(&self) -> bool {
        true
    }

    fn rounding_std(&self, _dim: usize) -> f64 {
        // At most 1/2 a coordinate, whatever the row is.
        0.5
    }

    fn unit(&self) -> f64 {
        1.0 / self.gamma
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = r#"{
        "name": "custom_mechanism", "seed": 1,
        "data": {"name": "digits"}, "partition": {"scheme": "per-sample"}, "model": "digits_mlp",
        "algorithm": {"name": "fed_sgd"}, "server": {"optimizer": "adam", "learning_rate": 0.02},
        "cohort": 200, "rounds": 60,
        "privacy": {"mechanism": "smm", "clip": 1.0, "bits": 16, "target_epsilon": 8.0}
    }"#;
    let config: Config = overrides::typed(&overrides::parse(config, "example")?, "example")?;
    let mut experiment = build(&config, std::path::Path::new("."), Given::default())?;
    experiment.plan.mechanism = Arc::new(Unrotated { gamma: 256.0, clip: 1.0, mu_total: 3.0e5, bits: 16 });
    let options = RunOptions { folder: None, resume: false, interrupt: &AtomicBool::new(false) };
    let result = sim::run(&experiment, &options, &mut Silent)?;
    let accuracy = result.evaluation.map_or(0.0, |e| e.accuracy);
    println!(
        "{} rounds with `{}`: accuracy {:.1} %, epsilon {:.3} at delta {:e} ({})",
        result.rounds,
        experiment.plan.mechanism.name(),
        100.0 * accuracy,
        result.epsilon.public.epsilon,
        result.epsilon.public.delta,
        result.epsilon.public.accountant,
    );
    Ok(())
}
