//! Mechanisms, events, accountants and the ledger. Says what to compute and what it costs; knows no protocol.

pub mod accountant;
pub mod audit;
pub mod calibrate;
pub mod event;
pub mod ledger;
pub mod matrix;
pub mod mechanism;
pub mod query;
pub mod stages;
pub mod truncation;

pub use event::{DpEvent, IntegerNoise, NeighboringRelation, View};

/// Share of delta that is set aside for the error of the noise tables: mechanisms are calibrated and
/// accounted at `delta (1 - SAMPLER_SHARE)`. N draws, each within total variation t of the exact law, cost
/// `(1 + e^epsilon) N t` of delta; with 128-bit thresholds that is far below this share.
pub const SAMPLER_SHARE: f64 = 1.0 / (1u64 << 20) as f64;
