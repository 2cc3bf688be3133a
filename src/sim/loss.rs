//! A device that was lost in the middle of a run: what is on record of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What became of the round in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// What had been encoded was dropped, nothing of it revealed: it began again with a new attempt number.
    Restarted,
    /// Its sum was complete and charged: the same attempt was decoded on the CPU.
    Decoded,
    /// It was done: its model was evaluated on the CPU.
    Evaluated,
}

/// The loss of a device. The rest of the run, also when it is resumed, computes on the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLoss {
    /// The round in progress.
    pub round: u32,
    /// Its attempt that ran on the device.
    pub attempt: u32,
    /// The backend.
    pub backend: String,
    /// What the driver said.
    pub reason: String,
    /// What became of the round.
    pub recovery: Recovery,
}

impl fmt::Display for DeviceLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { round, attempt, backend, reason, recovery } = self;
        write!(f, "Warning: the device of {backend} was lost in round {round} ({reason}). ")?;
        match recovery {
            Recovery::Restarted => write!(
                f,
                "What attempt {attempt} had encoded is dropped, unseen: the round begins again with a new attempt number."
            ),
            Recovery::Decoded => {
                write!(f, "The sum of attempt {attempt} is complete and charged: it is decoded elsewhere.")
            }
            Recovery::Evaluated => write!(f, "Attempt {attempt} was done: its model is evaluated elsewhere."),
        }?;
        f.write_str(" From here on the run is computed on the CPU.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_says_where_why_and_what_then() {
        let mut loss = DeviceLoss {
            round: 3,
            attempt: 1,
            backend: "wgpu".into(),
            reason: "it was taken away".into(),
            recovery: Recovery::Restarted,
        };
        let text = loss.to_string();
        for part in ["wgpu", "round 3", "it was taken away", "attempt 1", "on the CPU", "new attempt number"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        loss.recovery = Recovery::Decoded;
        assert!(loss.to_string().contains("complete and charged"));
        assert_eq!(serde_json::to_value(&loss).unwrap()["recovery"], "decoded");
    }
}
