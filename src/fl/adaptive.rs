//! A clip bound that follows a quantile of the clients' norms, learned privately (Andrew, Thakkar, McMahan, Ramaswamy 2021).
//!
//! The mechanism keeps one clip bound for all rounds; what changes is the scale of the rows: a client with the row x sends
//! `C_0 / C_t` times x, clipped to `C_0`, and the mean is multiplied back. Whether x was within `C_t` travels as one more
//! coordinate, `+-w C_0 / 2`, in the same vector: row and answer together have an L2 norm of at most
//! `C_0 sqrt(1 + w^2 / 4)`, which is what the mechanism clips to and what is accounted. So both releases of a round are one,
//! for every mechanism, and nothing is split: for the Gaussian this is exactly the paper's pair of noises (Theorem 1,
//! `z^-2 = z_delta^-2 + (2 sigma_b)^-2`).
//!
//! `C_(t+1) = C_t exp(-learning_rate (share - quantile))`, `share` the noised share of clients within `C_t`.

use serde::{Deserialize, Serialize};

use super::{FlError, client_clip};
use crate::backend::{Aligned, EncodeReport, Rows};

/// The bound stays within this factor of its first value.
const FARTHEST: f64 = 1e6;

/// A clip bound that adapts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveClip {
    /// Share of the clients whose norms shall be within the bound, in (0, 1).
    #[serde(default = "half")]
    pub quantile: f64,
    /// eta: a round changes the bound by a factor of at most e^eta. In (0, 2].
    #[serde(default = "fifth")]
    pub learning_rate: f64,
    /// w: what the answer may add to the norm, as a share of the clip bound. The count of the answers has noise of
    /// `sqrt(1 + w^2/4) / w` standard deviations of the noise of a clip's length; the rows' noise grows by
    /// `sqrt(1 + w^2/4)`. In (0, 2].
    #[serde(default = "quarter")]
    pub weight: f64,
}

fn half() -> f64 {
    0.5
}

fn fifth() -> f64 {
    0.2
}

fn quarter() -> f64 {
    0.25
}

impl AdaptiveClip {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`FlError::OutOfRange`].
    pub fn validate(&self) -> Result<(), FlError> {
        let bad = |name, expected: &str, found: f64| {
            Err(FlError::OutOfRange { name, expected: expected.to_owned(), found: found.to_string() })
        };
        let range = |value: f64| value > 0.0 && value <= 2.0;
        if !(self.quantile > 0.0 && self.quantile < 1.0) {
            return bad("privacy.adaptive_clip.quantile", "in (0, 1)", self.quantile);
        }
        if !range(self.learning_rate) {
            return bad("privacy.adaptive_clip.learning_rate", "in (0, 2]", self.learning_rate);
        }
        if !range(self.weight) {
            return bad("privacy.adaptive_clip.weight", "in (0, 2]", self.weight);
        }
        Ok(())
    }

    /// The bound of a row with its answer, for rows within `clip`: `clip sqrt(1 + w^2/4)`.
    #[must_use]
    pub fn joint_clip(&self, clip: f64) -> f64 {
        clip * (1.0 + 0.25 * self.weight * self.weight).sqrt()
    }
}

/// How far a run's bound has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipState {
    /// How it adapts.
    pub rule: AdaptiveClip,
    /// The bound of the mechanism's rows, `C_0`.
    pub first: f64,
    /// The bound of this round, `C_t`.
    pub clip: f64,
}

impl ClipState {
    /// Before the first round.
    #[must_use]
    pub const fn new(rule: AdaptiveClip, first: f64) -> Self {
        Self { rule, first, clip: first }
    }

    /// Rows on the host with their answers as a last coordinate, and what the clip did.
    ///
    /// A row with NaN or an infinity keeps its NaN, so that `encode` makes all of it zero, answer included. The exact
    /// bound on row and answer is held by `encode`.
    ///
    /// # Errors
    /// Rows that are not on the host.
    pub fn join(&self, rows: &Rows) -> Result<(Rows, EncodeReport), FlError> {
        let (scale, answer) = (self.first / self.clip, 0.5 * self.rule.weight * self.first);
        client_clip::clip(rows, self.clip, rows.dim + 1, |_, row, ratio, out| {
            let factor = scale * ratio;
            out.extend(row.iter().map(|&x| (f64::from(x) * factor) as f32));
            out.push(if ratio == 1.0 { answer } else { -answer } as f32);
        })
    }

    /// Splits a decoded mean into that of the rows, in their own scale, and the share of clients within the bound.
    #[must_use]
    pub fn split(&self, mean: &[f32]) -> (Aligned<f32>, f64) {
        let Some((&answer, rows)) = mean.split_last() else { return (Aligned::zeroed(0), 0.0) };
        let factor = self.clip / self.first;
        let share = f64::from(answer) / (self.rule.weight * self.first) + 0.5;
        (rows.iter().map(|&x| (f64::from(x) * factor) as f32).collect(), share)
    }

    /// The bound of the next round, after `share` of the clients were within this one. Shares beyond 0 and 1, which noise
    /// makes, count as these.
    #[must_use]
    pub fn next(mut self, share: f64) -> Self {
        let off = share.clamp(0.0, 1.0) - self.rule.quantile;
        let clip = self.clip * libm::exp(-self.rule.learning_rate * off);
        self.clip = clip.clamp(self.first / FARTHEST, self.first * FARTHEST);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: AdaptiveClip = AdaptiveClip { quantile: 0.5, learning_rate: 0.2, weight: 0.25 };

    #[test]
    fn row_and_answer_stay_within_the_joint_bound() {
        let state = ClipState { clip: 0.5, ..ClipState::new(RULE, 2.0) };
        let rows = Rows::dense(vec![0.0, 0.5, 3.0, 4.0, f32::NAN, 1.0, 0.0, 0.0], 4, 2).unwrap();
        let (joined, report) = state.join(&rows).unwrap();
        let bound = RULE.joint_clip(2.0);
        for i in [0, 1, 3] {
            let row = joined.row(i).unwrap();
            let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            assert!(norm <= bound * (1.0 + 1e-6), "{row:?}");
        }
        // On the bound: within; beyond it: clipped; both at the mechanism's bound.
        assert_eq!(joined.row(0).unwrap(), [0.0, 2.0, 0.25]);
        assert_eq!(joined.row(1).unwrap(), [1.2, 1.6, -0.25]);
        assert_eq!(joined.row(3).unwrap(), [0.0, 0.0, 0.25]);
        assert!(joined.row(2).unwrap().iter().all(|x| x.is_nan()));
        assert_eq!((report.clipped, report.norm_sum), (1, 5.5));
        // Three answers of three clients, one of them -: back to the scale of the rows, and 2 of 3.
        let (mean, share) = state.split(&[1.2, 1.6, 0.25 / 3.0]);
        assert_eq!(&mean[..], [0.3, 0.4]);
        assert!((share - 2.0 / 3.0).abs() < 1e-7);
    }

    #[test]
    fn the_bound_finds_the_quantile() {
        // Norms 1, 2, ..., 100: the bound for 70 % of them is near 70.
        let mut state = ClipState::new(AdaptiveClip { quantile: 0.7, ..RULE }, 1.0);
        for _ in 0..200 {
            let share = (1..=100).filter(|&n| f64::from(n) <= state.clip).count() as f64 / 100.0;
            state = state.next(share);
        }
        assert!((state.clip - 70.0).abs() < 2.0, "{}", state.clip);
        assert!(state.next(f64::INFINITY).clip < state.clip && state.next(-9.0).clip > state.clip);
    }

    #[test]
    fn ranges_are_checked() {
        for bad in [
            AdaptiveClip { quantile: 0.0, ..RULE },
            AdaptiveClip { quantile: 1.0, ..RULE },
            AdaptiveClip { learning_rate: f64::NAN, ..RULE },
            AdaptiveClip { weight: 0.0, ..RULE },
            AdaptiveClip { weight: 3.0, ..RULE },
        ] {
            assert!(matches!(bad.validate(), Err(FlError::OutOfRange { .. })));
        }
        assert!(RULE.validate().is_ok());
    }
}
