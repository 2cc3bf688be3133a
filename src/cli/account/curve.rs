//! `veilsum account --plot`: epsilon over rounds, a curve an accountant.

use std::path::Path;

use rayon::prelude::*;
use serde_json::{Value, json};

use super::args::AccountantName;
use crate::cli::{Exit, Failure, number};
use crate::files::write_atomic;
use crate::privacy::accountant::{EpsilonReport, Rule};
use crate::privacy::mechanism::PrivacyError;
use crate::report::svg::{Chart, Series, line_chart};

/// Points of a curve.
const POINTS: u64 = 24;

/// The curve of one accountant.
pub(super) struct Curve {
    accountant: &'static str,
    points: Vec<(u64, EpsilonReport)>,
}

/// The curves of the accountants that were asked for and know the mechanism; `at` tells epsilon after so many rounds.
pub(super) fn curves(
    asked: AccountantName,
    rounds: u64,
    at: impl Fn(u64, Rule) -> Result<EpsilonReport, PrivacyError> + Sync,
) -> Result<Vec<Curve>, Failure> {
    let mut all = Vec::new();
    for (name, rule) in [("rdp", Rule::Rdp), ("pld", Rule::Pld)] {
        if asked != AccountantName::Best && Rule::from(asked) != rule {
            continue;
        }
        let point = |rounds: u64| Ok((rounds, at(rounds, rule)?));
        match numbers(rounds).into_par_iter().map(point).collect::<Result<Vec<_>, PrivacyError>>() {
            Ok(points) => all.push(Curve { accountant: name, points }),
            Err(PrivacyError::UnknownEvent { .. }) if asked == AccountantName::Best => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all)
}

/// About [`POINTS`] numbers of rounds, as far from each other as they can be, the last one `rounds`.
fn numbers(rounds: u64) -> Vec<u64> {
    let count = rounds.min(POINTS);
    let mut all: Vec<u64> =
        (1..=count).map(|i| (u128::from(rounds) * u128::from(i) / u128::from(count)) as u64).collect();
    if rounds > POINTS {
        all.insert(0, 1);
    }
    all.dedup();
    all
}

/// One JSON object a point.
pub(super) fn lines(curves: &[Curve]) -> Vec<Value> {
    let point = |curve: &Curve, (rounds, report): &(u64, EpsilonReport)| {
        json!({
            "rounds": rounds,
            "accountant": curve.accountant,
            "epsilon": number(report.epsilon),
            "epsilon_low": report.epsilon_low.map_or(Value::Null, number),
            "delta": report.delta,
            "bound": report.accountant,
        })
    };
    curves.iter().flat_map(|curve| curve.points.iter().map(move |p| point(curve, p))).collect()
}

/// Draws the curves to a file: upper bounds as lines, and a band down to the lower bounds where there are some.
pub(super) fn draw(path: &Path, title: String, curves: &[Curve]) -> Result<(), Failure> {
    let mut chart = Chart::new(title, "rounds", "epsilon");
    for Curve { accountant, points } in curves {
        let upper = points.iter().map(|(k, report)| (*k as f64, report.epsilon));
        chart.series.push(Series::line(format!("{accountant}, upper bound"), upper));
        let band = points.iter().filter_map(|(k, report)| {
            let low = report.epsilon_low.filter(|_| report.epsilon.is_finite())?;
            Some((*k as f64, 0.5 * (report.epsilon + low), 0.5 * (report.epsilon - low)))
        });
        let band = Series::with_spread(format!("{accountant}, between its bounds"), band);
        if !band.points.is_empty() {
            chart.series.push(band);
        }
    }
    chart.y_range = Some((0.0, 0.0));
    write_atomic(path, line_chart(&chart).as_bytes()).map_err(|e| Failure::new(Exit::Failure, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_rounds_end_at_the_last() {
        assert_eq!(numbers(1), [1]);
        assert_eq!(numbers(3), [1, 2, 3]);
        for rounds in [24, 25, 1000, u64::MAX] {
            let all = numbers(rounds);
            assert_eq!((all[0], all[all.len() - 1]), (1, rounds));
            assert!(all.len() <= 25 && all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
        }
    }
}
