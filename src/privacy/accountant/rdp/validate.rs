//! Ranges of parameters, checked in one place.

use crate::privacy::mechanism::PrivacyError;

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
