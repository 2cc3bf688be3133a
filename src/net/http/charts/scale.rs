//! Axes: how far they reach, where their labels stand, in which unit.

use super::Unit;
use crate::net::status::format;

/// Steps between labels, as few as look good in 168 pixels.
const STEPS: f64 = 4.0;
/// Most labels below a chart; a phone has room for them.
const ROUND_TICKS: u64 = 6;
/// Beyond this nothing is drawn as it is.
const REACH: f64 = 1e15;

/// Seconds and what they are called.
const TIMES: [(f64, &str); 5] = [(0.001, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "h"), (86_400.0, "d")];

/// A linear vertical axis.
#[derive(Debug)]
pub(super) struct Scale {
    unit: Unit,
    low: f64,
    high: f64,
    /// One of the shown unit in the unit of the values.
    size: f64,
    name: &'static str,
    /// Values with a label, ascending.
    pub(super) ticks: Vec<f64>,
    decimals: usize,
}

impl Scale {
    /// An axis that reaches all `values`; those that are not finite or beyond 1e15 are cut.
    pub(super) fn fit(unit: Unit, values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.filter(|v| v.is_finite()).map(|v| v.clamp(-REACH, REACH)).collect();
        let largest = values.iter().copied().fold(0.0, f64::max);
        let smallest = values.iter().copied().fold(f64::INFINITY, f64::min).min(largest);
        let (size, name) = match unit {
            Unit::Percent => (0.01, "%"),
            Unit::Epsilon | Unit::Loss | Unit::Count => (1.0, ""),
            Unit::Seconds => format::unit_of(&TIMES, largest),
            Unit::Bytes => format::unit_of(&format::BYTES, largest),
        };
        let from = if unit == Unit::Percent { smallest / size } else { (smallest / size).min(0.0) };
        let (mut from, mut to) = (from, largest / size);
        if to - from <= 1e-9 * to.abs().max(1e-6) {
            // One value: an axis around it that stays within what can be.
            (from, to) = if unit == Unit::Percent {
                ((from - 5.0).max(from.min(0.0)), (to + 5.0).min(to.max(100.0)))
            } else {
                (from, to + 1.0)
            };
        }
        let mut step = nice((to - from) / STEPS);
        if unit == Unit::Count {
            step = step.max(1.0);
        }
        let (mut first, mut last) = ((from / step).floor(), (to / step - 1e-9).ceil());
        if unit == Unit::Percent && smallest >= 0.0 && largest <= 1.0 {
            (first, last) = (first.max(0.0), last.min((100.0 / step).ceil()));
        }
        let ticks = (0..=(last - first) as u32).map(|i| (first + f64::from(i)) * step * size).collect();
        let whole = |decimals: &i32| ((step * 10_f64.powi(*decimals)).fract() - 0.5).abs() > 0.5 - 1e-6;
        let decimals = (0..6).find(whole).unwrap_or(6) as usize;
        Self { unit, low: first * step * size, high: last * step * size, size, name, ticks, decimals }
    }

    /// Where a value stands, 0 at the bottom and 1 at the top.
    pub(super) fn height_of(&self, value: f64) -> f64 {
        ((value.clamp(-REACH, REACH) - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The label of a tick, without the unit.
    pub(super) fn label(&self, tick: f64) -> String {
        let shown = tick / self.size;
        if shown.abs() >= 1e6 {
            return format!("{shown:.0e}");
        }
        // No tick is minus zero.
        format!("{:.*}", self.decimals, if shown.abs() < 1e-9 { 0.0 } else { shown })
    }

    /// The unit of the labels.
    pub(super) const fn unit_name(&self) -> &'static str {
        self.name
    }

    /// A value in words, with its unit.
    pub(super) fn say(&self, value: f64) -> String {
        let value = value.clamp(-REACH, REACH);
        match self.unit {
            Unit::Percent => format::percent(value),
            Unit::Epsilon if value.abs() >= 1e6 => format!("{value:.2e}"),
            Unit::Epsilon => format::epsilon(Some(value)),
            Unit::Loss => format::loss(value),
            Unit::Count => format!("{value:.0}"),
            Unit::Seconds => format::seconds(value),
            Unit::Bytes => format::bytes(value as u64),
        }
    }
}

/// Where round `round` stands among `all`, as a share of the width; a single round stands in the middle.
pub(super) fn place_of(all: (u64, u64), round: f64) -> f64 {
    let width = all.1.saturating_sub(all.0) as f64;
    if width == 0.0 { 0.5 } else { ((round - all.0 as f64) / width).clamp(0.0, 1.0) }
}

/// Rounds that get a label: the first one and multiples of a round step.
pub(super) fn round_ticks(all: (u64, u64)) -> Vec<u64> {
    let width = all.1.saturating_sub(all.0);
    if width < ROUND_TICKS {
        return (0..=width).map(|i| all.0 + i).collect();
    }
    let step = (nice(width as f64 / (ROUND_TICKS - 1) as f64) as u64).max(1);
    let mut ticks = vec![all.0];
    let mut at = (all.0 / step + 1).saturating_mul(step);
    while at <= all.1 && ticks.len() <= ROUND_TICKS as usize {
        // A multiple right behind the first round would cover its label.
        if at - all.0 >= step / 2 {
            ticks.push(at);
        }
        at = at.saturating_add(step);
        if at == u64::MAX {
            break;
        }
    }
    ticks
}

/// The next of 1, 2, 2.5, 5 times a power of ten at or above `step`.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.max(1e-12).log10().floor());
    let factor = step / power;
    let fitting = [1.0, 2.0, 2.5, 5.0].into_iter().find(|f| factor <= f + 1e-9).unwrap_or(10.0);
    fitting * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(unit: Unit, values: &[f64]) -> Vec<String> {
        let scale = Scale::fit(unit, values.iter().copied());
        scale.ticks.iter().map(|t| scale.label(*t)).collect()
    }

    #[test]
    fn labels_are_round_numbers_in_a_unit_that_fits() {
        assert_eq!(labels(Unit::Percent, &[0.1, 0.93]), ["0", "25", "50", "75", "100"]);
        assert_eq!(labels(Unit::Percent, &[0.925, 0.941]), ["92.5", "93.0", "93.5", "94.0", "94.5"]);
        assert_eq!(labels(Unit::Count, &[0.0, 2.0]), ["0", "1", "2"]);
        assert_eq!(labels(Unit::Loss, &[0.3, 2.9]), ["0", "1", "2", "3"]);
        let bytes = Scale::fit(Unit::Bytes, [0.0, 3.0 * 1_048_576.0].into_iter());
        assert_eq!((bytes.unit_name(), bytes.label(bytes.ticks[1])), ("MiB", "1".to_owned()));
        let times = Scale::fit(Unit::Seconds, [0.0, 0.25].into_iter());
        assert_eq!((times.unit_name(), times.label(times.high)), ("ms", "300".to_owned()));
    }

    #[test]
    fn every_value_lies_inside() {
        for values in [[0.2, 0.2], [0.0, 0.0], [0.999, 1.0], [-3.0, 7.0], [0.0, 1e-7]] {
            for unit in [Unit::Percent, Unit::Loss, Unit::Count, Unit::Seconds, Unit::Bytes] {
                let scale = Scale::fit(unit, values.into_iter());
                assert!(
                    scale.low <= values[0] && scale.high >= values[1] && scale.high > scale.low,
                    "{values:?} {scale:?}"
                );
                assert!((2..=9).contains(&scale.ticks.len()), "{scale:?}");
            }
        }
    }

    #[test]
    fn rounds_have_few_labels() {
        assert_eq!(round_ticks((1, 1)), [1]);
        assert_eq!(round_ticks((1, 3)), [1, 2, 3]);
        assert_eq!(round_ticks((1, 60)), [1, 20, 40, 60]);
        assert_eq!(round_ticks((1, 2000)), [1, 500, 1000, 1500, 2000]);
        assert!(round_ticks((0, u64::MAX)).len() <= 8);
        assert_eq!((place_of((1, 1), 1.0), place_of((1, 5), 2.0)), (0.5, 0.25));
    }
}
