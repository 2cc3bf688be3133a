//! Where an axis begins and ends, and where its ticks stand.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::Scale;

/// Larger magnitudes are not drawn: the difference of two of them must stay finite.
const LARGEST: f64 = 1e150;

/// A fitted axis. Positions are plot coordinates: the value itself, or its decimal logarithm.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    /// Position of the left or lower end.
    pub(super) low: f64,
    /// Position of the right or upper end, `> low`.
    pub(super) high: f64,
    /// Positions of the ticks, ascending, inside `[low, high]`.
    pub(super) ticks: Vec<f64>,
    /// Decimals of a label on a linear axis.
    decimals: usize,
}

impl Axis {
    /// An axis over `values` (those that have a position) with about `target` ticks. `pad` is the share of
    /// the span left free at both ends; the axis reaches `reach` as well, without padding there.
    pub(super) fn fit(
        scale: Scale,
        values: impl Iterator<Item = f64>,
        reach: Option<(f64, f64)>,
        pad: f64,
        target: usize,
    ) -> Self {
        let mut ends = values
            .filter_map(|v| position(scale, v))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p), h.max(p)));
        let reach = reach.and_then(|(a, b)| Some((position(scale, a)?, position(scale, b)?))).filter(|(a, b)| a < b);
        if ends.0 <= ends.1 && reach.is_none_or(|(a, b)| ends.0 < a || ends.1 > b) {
            ends = widen(scale, ends.0, ends.1, pad);
        }
        if let Some((a, b)) = reach {
            ends = (ends.0.min(a), ends.1.max(b));
        }
        // Nothing to draw: 0..1, or 1..10 on a logarithmic axis.
        let (low, high) = if ends.0 < ends.1 { ends } else { (0.0, 1.0) };
        let (ticks, decimals) = match scale {
            Scale::Linear => linear_ticks(low, high, target),
            Scale::Log => (log_ticks(low, high, target), 0),
        };
        Self { scale, low, high, ticks, decimals }
    }

    /// Where `value` stands, or `None` if it cannot be drawn.
    pub(super) fn position(&self, value: f64) -> Option<f64> {
        position(self.scale, value)
    }

    /// The label of the tick at `position`.
    pub(super) fn label(&self, position: f64) -> String {
        match self.scale {
            Scale::Linear => number(position, self.decimals),
            Scale::Log => {
                let value = 10f64.powf(position);
                if (1e-4..1e6).contains(&value) {
                    let decimals = (-(position + 1e-9).floor()).max(0.0) as usize;
                    number(value, decimals)
                } else {
                    trim_exponent(&format!("{value:.0e}"))
                }
            }
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (position - self.low) / (self.high - self.low);
        (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, position: &f64) -> String {
        self.label(*position)
    }
}

/// The position of `value` on an axis, or `None` for NaN, infinities, magnitudes of 1e150 and more, and
/// on a logarithmic axis for values that are not above 0.
fn position(scale: Scale, value: f64) -> Option<f64> {
    let drawable = value.abs() < LARGEST;
    match scale {
        Scale::Linear => drawable.then_some(value),
        Scale::Log => (drawable && value > 0.0).then(|| value.log10()),
    }
}

/// Padded ends; a span that is empty or vanishes in rounding is opened.
fn widen(scale: Scale, low: f64, high: f64, pad: f64) -> (f64, f64) {
    let magnitude = low.abs().max(high.abs());
    if high - low <= 1e-9 * magnitude || high == low {
        let open = match scale {
            Scale::Linear if magnitude > 0.0 => 0.1 * magnitude,
            Scale::Linear => 1.0,
            Scale::Log => 0.5,
        };
        return (low - open, high + open);
    }
    let margin = pad * (high - low);
    let mut ends = (low - margin, high + margin);
    if scale == Scale::Linear && low >= 0.0 {
        // An axis of counts, shares or epsilons does not show negative numbers.
        ends.0 = ends.0.max(0.0);
    }
    ends
}

/// Multiples of 1, 2, 2.5 or 5 times a power of ten, and the decimals that tell them apart.
fn linear_ticks(low: f64, high: f64, target: usize) -> (Vec<f64>, usize) {
    let raw = (high - low) / target.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let (factor, extra) = [(1.0, 0), (2.0, 0), (2.5, 1), (5.0, 0), (10.0, 0)]
        .into_iter()
        .find(|(f, _)| f * power >= raw * 0.999)
        .unwrap_or((10.0, 0));
    let step = factor * power;
    let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
    let count = (last - first).clamp(0.0, 50.0) as usize;
    let ticks = (0..=count).map(|i| ((first + i as f64) * step).clamp(low, high)).collect();
    // 2.5 needs one decimal more than its power of ten.
    let decimals =
        (extra - (power * if factor == 10.0 { 10.0 } else { 1.0 }).log10().round() as i32).clamp(0, 12) as usize;
    (ticks, decimals)
}

/// Powers of ten, thinned out over many decades, with 2 and 5 between them over few.
fn log_ticks(low: f64, high: f64, target: usize) -> Vec<f64> {
    let span = high - low;
    let mantissas: &[f64] = match span {
        s if s < 0.7 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        s if s < 2.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let stride = (span / target.max(1) as f64).round().max(1.0) as i64;
    let mut ticks = Vec::new();
    for decade in low.floor() as i64..=high.ceil() as i64 {
        if decade.rem_euclid(stride) != 0 {
            continue;
        }
        // An end of the axis that is a round number is a tick, also where its logarithm was rounded.
        let places = mantissas.iter().map(|m| decade as f64 + m.log10());
        let inside = places.filter(|p| (low - 1e-9..=high + 1e-9).contains(p)).map(|p| p.clamp(low, high));
        ticks.extend(inside);
    }
    ticks
}

/// A label: fixed decimals, thousands and more in short scientific form from a million on.
fn number(value: f64, decimals: usize) -> String {
    let magnitude = value.abs();
    if magnitude >= 1e6 || (magnitude > 0.0 && magnitude < 1e-4) {
        return trim_exponent(&format!("{value:.2e}"));
    }
    let text = format!("{value:.decimals$}");
    // `-0.0` is zero.
    if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}

/// `1.50e6` without the zeros that say nothing: `1.5e6`.
fn trim_exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) if mantissa.contains('.') => {
            format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        let axis = Axis::fit(scale, values.iter().copied(), None, 0.0, 6);
        axis.ticks.iter().map(|&t| axis.label(t)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_axis() {
        assert_eq!(labels(Scale::Linear, &[0.0, 500.0]), ["0", "100", "200", "300", "400", "500"]);
        assert_eq!(labels(Scale::Linear, &[0.0, 3.0]), ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]);
        assert_eq!(labels(Scale::Linear, &[0.9412, 0.9527]), ["0.942", "0.944", "0.946", "0.948", "0.950", "0.952"]);
        assert_eq!(labels(Scale::Linear, &[0.0, 1.5]), ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25", "1.50"]);
        assert_eq!(labels(Scale::Linear, &[-1.0, 1.0]), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(labels(Scale::Linear, &[0.0, 6e7]), ["0", "1e7", "2e7", "3e7", "4e7", "5e7", "6e7"]);
        assert_eq!(labels(Scale::Log, &[1e-5, 1e2]), ["1e-5", "0.0001", "0.001", "0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(Scale::Log, &[1e-9, 1e6]), ["1e-9", "1e-6", "0.001", "1", "1000", "1e6"]);
        assert_eq!(labels(Scale::Log, &[1.0, 20.0]), ["1", "2", "5", "10", "20"]);
        assert_eq!(labels(Scale::Log, &[0.02, 0.5]), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
    }

    #[test]
    fn any_values_give_a_proper_axis() {
        let odd: [&[f64]; 9] = [
            &[],
            &[f64::NAN, f64::INFINITY],
            &[0.0],
            &[5.0, 5.0],
            &[1.0, 1.0 + 1e-15],
            &[-1e149, 1e149],
            &[1e-300, 2e-300],
            &[f64::MAX, f64::MIN],
            &[-3.0, 0.0],
        ];
        for values in odd {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = Axis::fit(scale, values.iter().copied(), None, 0.05, 6);
                assert!(axis.low < axis.high, "{values:?} {axis:?}");
                assert!(axis.ticks.len() < 60, "{values:?} {axis:?}");
                assert!(axis.ticks.iter().all(|t| (axis.low..=axis.high).contains(t)), "{values:?} {axis:?}");
                assert!(axis.ticks.iter().all(|&t| axis.label(t).len() < 16), "{values:?} {axis:?}");
            }
        }
    }

    #[test]
    fn an_axis_reaches_what_it_is_told_to_and_never_hides_data() {
        let fit = |values: &[f64], reach| Axis::fit(Scale::Linear, values.iter().copied(), reach, 0.0, 5);
        let ends = |axis: Axis| (axis.low, axis.high);
        assert_eq!(ends(fit(&[5.0], Some((0.0, 100.0)))), (0.0, 100.0));
        assert_eq!(ends(fit(&[], Some((0.0, 100.0)))), (0.0, 100.0));
        assert_eq!(ends(fit(&[5.0, 120.0], Some((0.0, 100.0)))), (0.0, 120.0));
        assert_eq!(ends(fit(&[5.0, 6.0], Some((1.0, 0.0)))), (5.0, 6.0));
        let axis = fit(&[0.0, 10.0], None);
        assert_eq!((axis.map(&0.0, (400, 0)), axis.map(&2.5, (400, 0)), axis.map(&10.0, (400, 0))), (400, 300, 0));
    }
}
