//! The coordinator's state as a checkpoint keeps it.

use std::sync::Arc;

use super::Coordinator;
use crate::fl::FlError;
use crate::fl::checkpoint::Checkpoint;

impl Coordinator {
    /// Continues after a checkpoint of the same run.
    pub fn restore(&mut self, checkpoint: Checkpoint) -> Result<(), FlError> {
        let mismatch = |what, expected: String, found: String| Err(FlError::Checkpoint { what, expected, found });
        if checkpoint.plan != self.plan_digest {
            return mismatch("plan", hex::encode(self.plan_digest), hex::encode(checkpoint.plan));
        }
        if checkpoint.weights.len() != self.plan.dim {
            return mismatch("weights", self.plan.dim.to_string(), checkpoint.weights.len().to_string());
        }
        if !self.optimizer.restore(checkpoint.steps, &checkpoint.optimizer) {
            return mismatch("optimizer", format!("the state of {}", self.optimizer.name()), "another".into());
        }
        if let Some(noise) = &mut self.noise {
            noise.open(&checkpoint.noise, &self.secret, &self.plan.session, checkpoint.round)?;
        }
        if let Some(state) = &mut self.clip {
            match checkpoint.clip {
                Some(clip) if clip.is_finite() && clip > 0.0 => state.clip = clip,
                found => return mismatch("clip", "a number > 0".into(), format!("{found:?}")),
            }
        }
        if ![0, self.plan.dim].contains(&checkpoint.aggregate.len()) {
            return mismatch("aggregate", self.plan.dim.to_string(), checkpoint.aggregate.len().to_string());
        }
        if let Some(control) = &mut self.control {
            if checkpoint.control.len() != self.plan.dim {
                return mismatch("control", self.plan.dim.to_string(), checkpoint.control.len().to_string());
            }
            *control = Arc::new(checkpoint.control);
        }
        self.aggregate = checkpoint.aggregate;
        self.round = checkpoint.round;
        self.steps = checkpoint.steps;
        self.weights = Arc::new(checkpoint.weights);
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.restore(checkpoint.round, checkpoint.versions, &self.weights)?;
        }
        Ok(())
    }

    /// The state after the last finished round.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            round: self.round,
            steps: self.steps,
            plan: self.plan_digest,
            weights: self.weights.as_ref().clone(),
            optimizer: self.optimizer.state().into_iter().map(|(n, v)| (n.to_string(), v)).collect(),
            aggregate: self.aggregate.clone(),
            clip: self.clip.map(|state| state.clip),
            noise: match &self.noise {
                Some(noise) => noise.seal(&self.secret, &self.plan.session, self.round),
                None => Vec::new(),
            },
            residuals: Vec::new(),
            control: self.control.as_ref().map_or(Vec::new(), |control| control.as_ref().clone()),
            versions: self.arrivals.as_ref().map_or(Vec::new(), |arrivals| arrivals.older(self.round)),
        }
    }
}
