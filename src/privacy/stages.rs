//! How the noise of a run changes: stages of rounds, each with a factor on the standard deviation of its noise.
//!
//! A stage is one event, composed with itself; stages compose with each other. Accountants take the whole as it is: nothing
//! is averaged, and no bound rests on what the factors were chosen for.

use super::DpEvent;
use super::mechanism::PrivacyError;

/// Rounds in a row with one noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// How many, >= 1.
    pub rounds: u64,
    /// Factor of the noise's standard deviation, > 0.
    pub factor: f64,
}

/// The stages of a run, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Stages(Vec<Stage>);

/// How noise falls (or grows) from the first stage to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// Equal factors from a stage to the next.
    Exponential,
    /// Equal differences.
    Linear,
}

impl Stages {
    /// Most stages of a run: privacy losses cost one discretization each.
    pub const MOST: usize = 32;

    /// The same noise in all rounds.
    #[must_use]
    pub fn uniform(rounds: u64) -> Self {
        Self(vec![Stage { rounds, factor: 1.0 }])
    }

    /// These stages; neighbours with one factor are joined.
    ///
    /// # Errors
    /// [`PrivacyError::OutOfRange`] without stages, for more than [`Stages::MOST`], for one without rounds, and for a factor
    /// outside `[1e-3, 1e3]`.
    pub fn new(stages: impl IntoIterator<Item = Stage>) -> Result<Self, PrivacyError> {
        let mut joined: Vec<Stage> = Vec::new();
        for stage in stages {
            if stage.rounds == 0 {
                return Err(out_of_range("rounds of a stage", "at least 1", 0));
            }
            if !(1e-3..=1e3).contains(&stage.factor) {
                return Err(out_of_range("noise factor of a stage", "a number in [0.001, 1000]", stage.factor));
            }
            match joined.last_mut() {
                Some(last) if last.factor == stage.factor => last.rounds = last.rounds.saturating_add(stage.rounds),
                _ => joined.push(stage),
            }
        }
        if joined.is_empty() || joined.len() > Self::MOST {
            return Err(out_of_range("stages", &format!("1 to {}", Self::MOST), joined.len()));
        }
        Ok(Self(joined))
    }

    /// Stages of `(rounds, weight)`, in which a round gets a part of the budget in proportion to its weight: noise of factor
    /// `1 / sqrt(weight)`, since the Renyi divergences of a release go as `1 / noise^2` (without sampling exactly; under
    /// sampling to leading order in the rate). The weights choose the noise; what it costs is up to the accountant.
    ///
    /// # Errors
    /// As [`Stages::new`]; weights must lie in `[1e-6, 1e6]`.
    pub fn weighted(stages: &[(u64, f64)]) -> Result<Self, PrivacyError> {
        if let Some(&(_, weight)) = stages.iter().find(|(_, weight)| !(1e-6..=1e6).contains(weight)) {
            return Err(out_of_range("weight of a stage", "a number in [1e-6, 1e6]", weight));
        }
        let stage = |&(rounds, weight): &(u64, f64)| Stage { rounds, factor: (1.0 / weight.sqrt()).clamp(1e-3, 1e3) };
        Self::new(stages.iter().map(stage))
    }

    /// `steps` stages of rounds as equal as they can be, whose factors go from 1 to `last`.
    ///
    /// # Errors
    /// As [`Stages::new`]; `steps` must be at least 2 and at most `rounds`.
    pub fn decaying(rounds: u64, decay: Decay, last: f64, steps: u32) -> Result<Self, PrivacyError> {
        let most = rounds.min(Self::MOST as u64);
        if !(2..=most).contains(&u64::from(steps)) {
            return Err(out_of_range("steps of a decay", &format!("2 to {most}"), steps));
        }
        let stage = |i: u32| {
            let at = f64::from(i) / f64::from(steps - 1);
            let factor = match decay {
                Decay::Exponential => last.powf(at),
                Decay::Linear => 1.0 + (last - 1.0) * at,
            };
            let ends = |i: u32| u128::from(rounds) * u128::from(i) / u128::from(steps);
            Stage { rounds: (ends(i + 1) - ends(i)) as u64, factor }
        };
        Self::new((0..steps).map(stage))
    }

    /// The stages, never empty.
    #[must_use]
    pub fn all(&self) -> &[Stage] {
        &self.0
    }

    /// Rounds of all stages.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, stage| sum.saturating_add(stage.rounds))
    }

    /// The largest factor: the noise that needs the most room in a ring.
    #[must_use]
    pub fn greatest(&self) -> f64 {
        self.0.iter().fold(0.0, |most: f64, stage| most.max(stage.factor))
    }

    /// The root of the mean square of the factors: the noise of the mean over all rounds.
    #[must_use]
    pub fn rms(&self) -> f64 {
        let sum = |of: &dyn Fn(&Stage) -> f64| self.0.iter().map(of).sum::<f64>();
        (sum(&|s| s.rounds as f64 * s.factor * s.factor) / sum(&|s| s.rounds as f64)).sqrt()
    }

    /// The event and the number of releases of each stage; `of` tells the event of a factor.
    pub fn events(&self, of: impl Fn(f64) -> DpEvent) -> Vec<(DpEvent, u64)> {
        self.0.iter().map(|stage| (of(stage.factor), stage.rounds)).collect()
    }
}

fn out_of_range(name: &'static str, expected: &str, found: impl ToString) -> PrivacyError {
    PrivacyError::OutOfRange { name, expected: expected.to_owned(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws() {
        let linear = Stages::decaying(10, Decay::Linear, 0.5, 3).unwrap();
        let rounds: Vec<u64> = linear.all().iter().map(|s| s.rounds).collect();
        let factors: Vec<f64> = linear.all().iter().map(|s| s.factor).collect();
        assert_eq!((rounds, factors), (vec![3, 3, 4], vec![1.0, 0.75, 0.5]));
        let falling = Stages::decaying(u64::MAX, Decay::Exponential, 0.25, 3).unwrap();
        assert_eq!((falling.all()[1].factor, falling.rounds()), (0.5, u64::MAX));
        let weighted = Stages::weighted(&[(5, 4.0), (7, 1.0)]).unwrap();
        assert_eq!((weighted.all()[0].factor, weighted.greatest(), weighted.rounds()), (0.5, 1.0, 12));
        assert!((weighted.rms() - ((5.0 * 0.25 + 7.0) / 12.0f64).sqrt()).abs() < 1e-15);
        // Neighbours that are alike are one stage.
        let same = [(2, 1.0), (3, 1.0)].map(|(rounds, factor)| Stage { rounds, factor });
        assert_eq!(Stages::new(same).unwrap(), Stages::uniform(5));
        assert_eq!(Stages::decaying(9, Decay::Linear, 1.0, 4).unwrap(), Stages::uniform(9));
    }

    #[test]
    fn bad_stages_are_refused() {
        let one = |rounds, factor| Stages::new([Stage { rounds, factor }]);
        for bad in [one(0, 1.0), one(1, 0.0), one(1, f64::NAN), one(1, -1.0), one(1, f64::INFINITY), Stages::new([])] {
            assert!(matches!(bad, Err(PrivacyError::OutOfRange { .. })));
        }
        let many = (0..33u32).map(|i| Stage { rounds: 1, factor: 1.0 + f64::from(i % 2) });
        assert!(Stages::new(many).is_err());
        for (last, steps) in [(0.0, 4), (-1.0, 4), (f64::NAN, 4), (0.5, 1), (0.5, 33), (0.5, 11)] {
            assert!(Stages::decaying(10, Decay::Exponential, last, steps).is_err(), "{last} {steps}");
        }
        assert!(Stages::weighted(&[(1, 0.0)]).is_err() && Stages::weighted(&[]).is_err());
    }
}
