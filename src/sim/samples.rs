//! Clients that run DP-SGD: their rows, and what they saw of their gradients.

use std::sync::PoisonError;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::SimError;
use crate::backend::Rows;
use crate::config::build::Experiment;
use crate::data::Batch;
use crate::fl::FlError;
use crate::fl::coordinator::RoundTask;
use crate::fl::dp_sgd::{ClientRandomness, GradientReport, Machine};
use crate::fl::samples::SampleLevel;
use crate::math::prg::Address;

/// What the clients of a round saw of the gradients of their samples; likewise never sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradientRecord {
    /// How many, over all mini-batches of all clients.
    pub rows: u64,
    /// Those that counted as zero because they held NaN or an infinity.
    pub zeroed: usize,
    /// Share that the clip changed.
    pub clipped: f64,
    /// Mean L2 norm before the clip.
    pub norm: f64,
}

impl From<&GradientReport> for GradientRecord {
    fn from(report: &GradientReport) -> Self {
        let n = report.rows.max(1) as f64;
        Self {
            rows: report.rows,
            zeroed: report.encoded.zeroed,
            clipped: report.encoded.clipped as f64 / n,
            norm: report.encoded.norm_sum / n,
        }
    }
}

/// One row a member: its delta. Clients work side by side on the processor, and one after another on a device.
pub(super) fn rows(
    experiment: &Experiment,
    task: &RoundTask,
    level: &SampleLevel,
    members: &[u64],
    shard: &(dyn Fn(u64) -> Batch + Sync),
) -> Result<Rows, SimError> {
    let plan = &experiment.plan;
    let machine = Machine { trainer: &*experiment.trainer, backend: &*experiment.backend };
    let one = |&client: &u64| {
        let randomness = ClientRandomness {
            secret: &experiment.secret,
            session: &plan.session,
            address: Address { client, round: task.id.round, attempt: task.id.attempt, copy: 0 },
            input: &task.input,
            cipher: plan.cipher,
        };
        level.local.delta(machine, &task.weights, &shard(client), &randomness)
    };
    let done: Vec<(Vec<f32>, GradientReport)> = if experiment.backend.device().is_some() {
        members.iter().map(one).collect::<Result<_, FlError>>()?
    } else {
        members.par_iter().map(one).collect::<Result<_, FlError>>()?
    };
    // In the order of the members: sums of floats come out alike.
    let mut seen = experiment.gradients.lock().unwrap_or_else(PoisonError::into_inner);
    let mut data = Vec::with_capacity(members.len() * plan.dim);
    for (delta, report) in &done {
        data.extend_from_slice(delta);
        seen.merge(report);
    }
    Ok(Rows::dense(data, members.len(), plan.dim).map_err(FlError::from)?)
}

/// What the clients saw since this was last asked.
pub(super) fn take_report(experiment: &Experiment) -> GradientReport {
    std::mem::take(&mut *experiment.gradients.lock().unwrap_or_else(PoisonError::into_inner))
}
