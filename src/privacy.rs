//! Mechanisms, events and accountants. Says what to compute and what it costs; knows no protocol.

pub mod accountant;
pub mod calibrate;
pub mod event;
pub mod mechanism;

pub use event::{DpEvent, NeighboringRelation, View};
