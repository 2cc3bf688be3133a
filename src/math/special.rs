//! Special functions in f64 with stated error: log-gamma, log-sum-exp, Bessel ratios, the normal law.
