//! Ranges of parameters, checked in one place.

use crate::privacy::mechanism::PrivacyError;
use crate::privacy::{DpEvent, IntegerNoise};

fn out_of_range(name: &'static str, expected: &str, found: f64) -> PrivacyError {
    PrivacyError::OutOfRange { name, expected: expected.to_owned(), found: found.to_string() }
}

/// Finite and > 0.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<(), PrivacyError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(out_of_range(name, "a finite number > 0", value)) }
}

/// Finite and >= 0.
pub(crate) fn non_negative(name: &'static str, value: f64) -> Result<(), PrivacyError> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(out_of_range(name, "a finite number >= 0", value)) }
}

/// A sampling rate.
pub(crate) fn rate(value: f64) -> Result<(), PrivacyError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(out_of_range("sampling rate", "a number in [0, 1]", value)) }
}

/// A delta.
pub(crate) fn delta(value: f64) -> Result<(), PrivacyError> {
    if value > 0.0 && value < 1.0 { Ok(()) } else { Err(out_of_range("delta", "a number in (0, 1)", value)) }
}

/// A width of the ring.
pub(crate) fn bits(value: u32) -> Result<(), PrivacyError> {
    if (2..=32).contains(&value) {
        Ok(())
    } else {
        Err(PrivacyError::OutOfRange { name: "bits", expected: "2 to 32".to_owned(), found: value.to_string() })
    }
}

/// An integer >= `least`.
fn at_least(name: &'static str, least: u64, value: u64) -> Result<(), PrivacyError> {
    if value >= least {
        Ok(())
    } else {
        let expected = format!("an integer >= {least}");
        Err(PrivacyError::OutOfRange { name, expected, found: value.to_string() })
    }
}

/// `sample / population` in `[0, 1]`.
pub(crate) fn share(sample: u64, population: u64) -> Result<f64, PrivacyError> {
    at_least("population", 1, population)?;
    if sample > population {
        let expected = format!("at most the population, {population}");
        return Err(PrivacyError::OutOfRange { name: "sample", expected, found: sample.to_string() });
    }
    Ok(sample as f64 / population as f64)
}

/// The parameters of an event without sampling and composition.
pub(crate) fn event(event: &DpEvent) -> Result<(), PrivacyError> {
    match event {
        DpEvent::Gaussian { noise_multiplier }
        | DpEvent::DiscreteGaussian { noise_multiplier }
        | DpEvent::Laplace { noise_multiplier } => positive("noise_multiplier", *noise_multiplier),
        DpEvent::IntegerShift { noise, sensitivity } => {
            at_least("sensitivity", 1, *sensitivity)?;
            match noise {
                IntegerNoise::Skellam { mu } => positive("mu", *mu),
                IntegerNoise::DiscreteGaussian { sigma } => positive("sigma", *sigma),
                IntegerNoise::DiscreteLaplace { scale } => positive("scale", *scale),
                IntegerNoise::CenteredBinomial { trials } => at_least("trials", 1, *trials),
            }
        }
        DpEvent::SkellamVector { mu, l1_bound, l2_bound } => {
            positive("mu", *mu)?;
            positive("l1_bound", *l1_bound)?;
            positive("l2_bound", *l2_bound)
        }
        DpEvent::BinomialVector { coins, l2_bound } => {
            at_least("coins", 1, *coins)?;
            positive("l2_bound", *l2_bound)
        }
        DpEvent::DistributedDiscreteGaussian { clients, sigma, l1_bound, l2_bound, dim } => {
            at_least("clients", 1, *clients)?;
            at_least("dim", 1, *dim)?;
            positive("sigma", *sigma)?;
            positive("l1_bound", *l1_bound)?;
            positive("l2_bound", *l2_bound)
        }
        DpEvent::PoissonBinomialVector { coins, most_bias, l2_bound, .. } => {
            at_least("coins", 1, *coins)?;
            positive("l2_bound", *l2_bound)?;
            if *most_bias > 0.0 && *most_bias <= 0.25 {
                return Ok(());
            }
            Err(out_of_range("most_bias", "a number in (0, 1/4]", *most_bias))
        }
        DpEvent::MixtureOfGaussians { sigma, sensitivities, probabilities } => {
            positive("sigma", *sigma)?;
            mixture(sensitivities, probabilities)
        }
        DpEvent::RandomizedResponse { epsilon, categories } => {
            non_negative("epsilon", *epsilon)?;
            at_least("categories", 2, *categories)
        }
        DpEvent::RandomAllocation { participations, rounds, .. } => {
            at_least("participations", 1, *participations)?;
            at_least("rounds of an allocation", *participations, *rounds)
        }
        DpEvent::PureDp { epsilon } => non_negative("epsilon", *epsilon),
        DpEvent::ZeroConcentrated { rho, xi } => {
            non_negative("rho", *rho)?;
            non_negative("xi", *xi)
        }
        _ => Ok(()),
    }
}

fn mixture(sensitivities: &[f64], probabilities: &[f64]) -> Result<(), PrivacyError> {
    sensitivities.iter().try_for_each(|&s| non_negative("sensitivities", s))?;
    probabilities.iter().try_for_each(|&p| non_negative("probabilities", p))?;
    let sum: f64 = probabilities.iter().sum();
    if sensitivities.len() != probabilities.len() || (sum - 1.0).abs() > 1e-9 {
        return Err(PrivacyError::OutOfRange {
            name: "probabilities",
            expected: format!("{} numbers, one per sensitivity, of sum 1", sensitivities.len()),
            found: format!("{} numbers of sum {sum}", probabilities.len()),
        });
    }
    Ok(())
}
