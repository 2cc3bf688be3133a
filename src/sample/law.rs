//! Probability mass functions in f64, for tests and reports.
