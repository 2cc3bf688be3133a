//! The charts of the dashboard.

use crate::net::http::charts::{self, BARS, Bar, Curve, Frame, Unit};
use crate::net::status::format::{self, count, counted};
use crate::net::status::{Evaluation, Guarantee, PhaseSeconds, Round, Status, View};

/// Most points of a curve: more than pixels on a wide screen would be waste.
const POINTS: usize = 600;

/// Most rounds in a bar that gets a sign where one of them had an attempt that was given up.
const MARKED: usize = 8;

pub(super) fn accuracy(status: &Status) -> String {
    let frame = frame(status, "Accuracy", "Correct answers of the model on the server’s test data.", Unit::Percent);
    charts::curves(&frame, &[measured(status, "accuracy", |e| e.accuracy)])
}

/// Empty where no loss was ever measured.
pub(super) fn losses(status: &Status) -> String {
    if status.evaluations.iter().all(|e| e.loss.is_none()) {
        return String::new();
    }
    let frame = frame(status, "Loss", "Loss of the model on the server’s test data.", Unit::Loss);
    charts::curves(&frame, &[measured(status, "loss", |e| e.loss)])
}

fn measured(status: &Status, name: &str, of: fn(&Evaluation) -> Option<f64>) -> Curve {
    let points: Vec<(u64, f64)> = status.evaluations.iter().filter_map(|e| Some((e.round, of(e)?))).collect();
    Curve { name: name.to_owned(), points: thinned(points) }
}

/// Empty where nothing is guaranteed.
pub(super) fn epsilons(status: &Status) -> String {
    let Some(guarantee) = &status.privacy.guarantee else { return String::new() };
    let about = format!("Spent by all releases up to a round, {}.", format::under(guarantee));
    let mut frame = frame(status, "Epsilon", &about, Unit::Epsilon);
    frame.level = guarantee.budget.map(|b| (budget_name(guarantee, b.view), b.epsilon));
    let curve = |name: &str, of: fn(&Round) -> Option<f64>| {
        let points = status.history.iter().map(|r| (r.round, of(r).unwrap_or(f64::NAN))).collect();
        Curve { name: name.to_owned(), points: thinned(points) }
    };
    charts::curves(&frame, &[curve("public view", |r| r.epsilon_public), curve("server’s view", |r| r.epsilon_server)])
}

fn budget_name(guarantee: &Guarantee, view: View) -> String {
    let epsilon = guarantee.budget.map_or(String::new(), |b| format::limit(b.epsilon));
    format!("budget {epsilon} ({} view)", view.name())
}

pub(super) fn participation(status: &Status) -> String {
    let groups = groups(&status.history);
    let mut frame = frame(
        status,
        "Participation",
        &per_bar(&groups, "Updates that reached the sum, of those that were asked for."),
        Unit::Count,
    );
    // Signs above nearly every bar would say nothing.
    let marks = groups.iter().all(|group| group.len() <= MARKED);
    let threshold = status.history.last().map(|r| r.threshold);
    frame.level = threshold
        .filter(|t| status.history.iter().all(|r| r.threshold == *t))
        .map(|t| (format!("needed: {t}"), t as f64));
    let bars: Vec<Bar> = groups
        .iter()
        .map(|group| {
            let (kept, asked) = (mean(group, |r| r.survivors as f64), mean(group, |r| r.cohort as f64));
            let given_up: u64 = group.iter().map(|r| r.abandoned.len() as u64).sum();
            let note = if given_up > 0 {
                format!(", {} given up", counted(given_up, "attempt", "attempts"))
            } else {
                String::new()
            };
            let hint = format!("{}: {kept:.0} of {asked:.0} clients in the sum{note}", name_of(group));
            bar(group, vec![kept, (asked - kept).max(0.0)], marks && given_up > 0, hint)
        })
        .collect();
    let given_up = (marks && status.totals.abandoned > 0).then_some("an attempt was given up");
    charts::bars(&frame, &["in the sum", "dropped out"], &bars, given_up)
}

pub(super) fn times(status: &Status) -> String {
    let groups = groups(&status.history);
    let frame = frame(status, "Time per round", &per_bar(&groups, "By phase."), Unit::Seconds);
    let bars: Vec<Bar> = groups
        .iter()
        .map(|group| {
            let parts: Vec<f64> = (0..5).map(|phase| mean(group, |r| r.seconds.values()[phase])).collect();
            let words: Vec<String> = PhaseSeconds::NAMES
                .iter()
                .zip(&parts)
                .map(|(name, value)| format!("{name} {}", format::seconds(*value)))
                .collect();
            bar(group, parts, false, format!("{}: {}", name_of(group), words.join(", ")))
        })
        .collect();
    charts::bars(&frame, &PhaseSeconds::NAMES, &bars, None)
}

pub(super) fn traffic(status: &Status) -> String {
    let groups = groups(&status.history);
    let frame = frame(
        status,
        "Bytes per round",
        &per_bar(&groups, "What came from all parties, and what was sent to them."),
        Unit::Bytes,
    );
    let bars: Vec<Bar> = groups
        .iter()
        .map(|group| {
            let (came, went) = (mean(group, |r| r.bytes_in as f64), mean(group, |r| r.bytes_out as f64));
            let hint =
                format!("{}: {} in, {} out", name_of(group), format::bytes(came as u64), format::bytes(went as u64));
            bar(group, vec![came, went], false, hint)
        })
        .collect();
    charts::bars(&frame, &["in", "out"], &bars, None)
}

fn frame(status: &Status, title: &str, about: &str, unit: Unit) -> Frame {
    let first = status.history.first().map_or(1, |r| r.round);
    let last = status.history.last().map_or(first, |r| r.round);
    Frame { title: title.to_owned(), about: about.to_owned(), unit, rounds: (first, last.max(first)), level: None }
}

/// Every n-th point, and the last one.
fn thinned(points: Vec<(u64, f64)>) -> Vec<(u64, f64)> {
    let (every, length) = (points.len().div_ceil(POINTS).max(1), points.len());
    points
        .into_iter()
        .enumerate()
        .filter(|(i, _)| (length - 1 - i).is_multiple_of(every))
        .map(|(_, point)| point)
        .collect()
}

/// Rounds that share a bar: of equally many numbers each, so that the axis is even where the history is thinned.
fn groups(history: &[Round]) -> Vec<Vec<&Round>> {
    let (Some(first), Some(last)) = (history.first(), history.last()) else { return Vec::new() };
    let each = (last.round.saturating_sub(first.round) / BARS + 1).max(1);
    let place = |round: &Round| round.round.saturating_sub(first.round) / each;
    history.chunk_by(|a, b| place(a) == place(b)).map(|group| group.iter().collect()).collect()
}

fn per_bar(groups: &[Vec<&Round>], about: &str) -> String {
    match groups.iter().map(|g| span(g)).map(|(a, b)| b.saturating_sub(a).saturating_add(1)).max() {
        Some(each) if each > 1 => format!("{about} A bar is the mean of up to {} rounds.", count(each)),
        _ => about.to_owned(),
    }
}

fn span(group: &[&Round]) -> (u64, u64) {
    (group.first().map_or(0, |r| r.round), group.last().map_or(0, |r| r.round))
}

fn name_of(group: &[&Round]) -> String {
    match span(group) {
        (a, b) if a == b => format!("round {a}"),
        (a, b) => format!("mean of rounds {a} to {b}"),
    }
}

fn mean(group: &[&Round], of: impl Fn(&Round) -> f64) -> f64 {
    group.iter().map(|r| of(r)).sum::<f64>() / group.len().max(1) as f64
}

fn bar(group: &[&Round], parts: Vec<f64>, marked: bool, hint: String) -> Bar {
    Bar { rounds: span(group), parts, marked, hint }
}
