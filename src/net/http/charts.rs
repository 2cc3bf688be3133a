//! Charts for the dashboard: SVG inside HTML, without scripts and without inline styles.
//!
//! A picture has a fixed height and the width of its column: heights are pixels, widths are per cent, so that letters and
//! lines keep their size on a phone ([`crate::report::svg`] draws pictures of one size, whose letters shrink with them).
//! Curves lie in a nested picture that is stretched, with lines that are not. Colours are classes of the style sheet.

mod scale;

use std::fmt::Write as _;

use self::scale::{Scale, place_of};
use crate::report::html::escape;

/// Height of the plotting area in CSS pixels.
const HEIGHT: f64 = 168.0;
/// Pixels above it, for the upper half of the topmost label.
const TOP: f64 = 10.0;
/// Pixels below it, for the labels of the horizontal axis.
const BOTTOM: f64 = 36.0;
/// Units across of the stretched picture.
const ACROSS: f64 = 1000.0;
/// Curves with at most this many points get a dot at each.
const DOTS_UP_TO: usize = 40;
/// Most bars; of more rounds several share one.
pub(super) const BARS: u64 = 60;

/// What a vertical axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shares of `[0, 1]`, shown in per cent.
    Percent,
    /// Epsilons; in words they are rounded up.
    Epsilon,
    /// Losses.
    Loss,
    /// Whole things, such as clients.
    Count,
    /// Seconds, shown in the unit that fits.
    Seconds,
    /// Bytes, shown in the unit that fits.
    Bytes,
}

/// A chart's words and its reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Headline; the unit is put behind it.
    pub title: String,
    /// A sentence below the headline; may be empty.
    pub about: String,
    /// What the vertical axis shows.
    pub unit: Unit,
    /// First and last round.
    pub rounds: (u64, u64),
    /// A dashed line across, with its name.
    pub level: Option<(String, f64)>,
}

/// A curve: its name and `(round, value)` in order; a value that is not finite leaves a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// The points.
    pub points: Vec<(u64, f64)>,
}

/// A stacked bar of one or several rounds.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Bar {
    /// First and last round.
    pub rounds: (u64, u64),
    /// Heights from the bottom up, one a name.
    pub parts: Vec<f64>,
    /// A sign above the bar.
    pub marked: bool,
    /// What is shown where the pointer rests.
    pub hint: String,
}

/// Curves as a `<figure>`. The vertical axis begins at 0, but for shares, which fit the data.
#[must_use]
pub fn curves(frame: &Frame, curves: &[Curve]) -> String {
    let values = || curves.iter().flat_map(|c| &c.points).map(|p| p.1).filter(|v| v.is_finite());
    if values().next().is_none() {
        return nothing(frame);
    }
    let scale = Scale::fit(frame.unit, values().chain(frame.level.iter().map(|l| l.1)));
    let mut inside = String::new();
    let _ = write!(inside, "<svg class=\"stretch\" y=\"{TOP}\" width=\"100%\" height=\"{HEIGHT}\" ");
    let _ = write!(inside, "viewBox=\"0 0 {ACROSS} {HEIGHT}\" preserveAspectRatio=\"none\">");
    let mut dots = String::new();
    for (index, curve) in curves.iter().enumerate() {
        let class = index % 5;
        for run in curve.points.split(|p| !p.1.is_finite()).filter(|run| !run.is_empty()) {
            inside.push_str(&format!("<polyline class=\"l{class}\" points=\""));
            for (round, value) in run {
                let x = place_of(frame.rounds, *round as f64) * ACROSS;
                let _ = write!(inside, "{x:.1},{:.1} ", HEIGHT * (1.0 - scale.height_of(*value)));
            }
            inside.push_str("\"/>");
        }
        let finite = || curve.points.iter().filter(|p| p.1.is_finite());
        let last = finite().count();
        // A last point shows where a long curve is now.
        let dotted = if last <= DOTS_UP_TO { 0 } else { last - 1 };
        for (round, value) in finite().skip(dotted) {
            let (x, y) =
                (place_of(frame.rounds, *round as f64) * 100.0, TOP + HEIGHT * (1.0 - scale.height_of(*value)));
            let hint = escape(&format!("{}, round {round}: {}", curve.name, scale.say(*value)));
            let _ = write!(
                dots,
                "<circle class=\"s{class}\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"3\"><title>{hint}</title></circle>"
            );
        }
    }
    inside.push_str("</svg>");
    inside.push_str(&dots);
    let names: Vec<&str> = curves.iter().map(|c| c.name.as_str()).collect();
    figure(frame, &scale, &names, &inside, &ends(frame, &scale, curves))
}

/// Stacked bars as a `<figure>`, from 0. `mark` is the legend of the sign above bars.
#[must_use]
pub fn bars(frame: &Frame, names: &[&str], bars: &[Bar], mark: Option<&str>) -> String {
    let sum = |bar: &Bar| bar.parts.iter().filter(|p| p.is_finite()).map(|p| p.max(0.0)).sum::<f64>();
    if bars.is_empty() {
        return nothing(frame);
    }
    let scale = Scale::fit(frame.unit, bars.iter().map(sum).chain([0.0]).chain(frame.level.iter().map(|l| l.1)));
    let mut inside = String::new();
    for bar in bars {
        let (from, to) = bar_ends(frame.rounds, bar.rounds);
        let _ = write!(inside, "<g><title>{}</title>", escape(&bar.hint));
        let mut below = 0.0;
        for (index, part) in bar.parts.iter().enumerate().filter(|(_, p)| p.is_finite() && **p > 0.0) {
            let (low, high) = (scale.height_of(below), scale.height_of(below + part));
            below += part;
            let _ = write!(
                inside,
                "<rect class=\"s{}\" x=\"{:.2}%\" width=\"{:.2}%\" y=\"{:.1}\" height=\"{:.1}\"/>",
                index % 5,
                from * 100.0,
                (to - from) * 100.0,
                TOP + HEIGHT * (1.0 - high),
                HEIGHT * (high - low)
            );
        }
        if bar.marked {
            let (x, y) = ((from + to) * 50.0, TOP + HEIGHT * (1.0 - scale.height_of(below)) - 9.0);
            let _ = write!(inside, "<svg class=\"sign\" x=\"{x:.2}%\" y=\"{y:.1}\"><path d=\"M-4 0h8l-4 7z\"/></svg>");
        }
        inside.push_str("</g>");
    }
    let mut names = names.to_vec();
    names.extend(mark);
    let words = format!("{}, {} bars over rounds {} to {}", frame.title, bars.len(), frame.rounds.0, frame.rounds.1);
    let html = figure(frame, &scale, &names, &inside, &words);
    // The last entry of the legend is the sign's.
    match mark {
        Some(_) => html.replacen(
            &format!("<i class=\"k{}\"></i>", (names.len() - 1) % 5),
            "<svg class=\"sign\" width=\"9\" height=\"8\" viewBox=\"-4.5 0 9 8\"><path d=\"M-4 0h8l-4 7z\"/></svg>",
            1,
        ),
        None => html,
    }
}

/// Left and right end of a bar as shares of the width: rounds have equal places, and no bar is wider than a twelfth.
fn bar_ends(all: (u64, u64), rounds: (u64, u64)) -> (f64, f64) {
    let width = all.1.saturating_sub(all.0).saturating_add(1) as f64;
    let middle = ((rounds.0 as f64 + rounds.1 as f64) / 2.0 - all.0 as f64 + 0.5) / width;
    let half = (rounds.1.saturating_sub(rounds.0).saturating_add(1) as f64 / width * 0.38).min(1.0 / 24.0);
    (middle - half, middle + half)
}

/// Headline, legend, axes and what lies between them.
fn figure(frame: &Frame, scale: &Scale, names: &[&str], inside: &str, words: &str) -> String {
    let height = TOP + HEIGHT + BOTTOM;
    let (mut grid, mut labels) = (String::new(), String::new());
    for tick in &scale.ticks {
        let y = TOP + HEIGHT * (1.0 - scale.height_of(*tick));
        let _ = write!(grid, "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let text = scale.label(*tick);
        let _ = write!(labels, "<text x=\"100%\" dx=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", y + 4.0);
    }
    let mut below = String::new();
    let bars = inside.starts_with("<g>");
    for round in scale::round_ticks(frame.rounds) {
        let share = if bars { middle(frame.rounds, round) } else { place_of(frame.rounds, round as f64) };
        let anchor = if share < 0.02 {
            "start"
        } else if share > 0.98 {
            "end"
        } else {
            "middle"
        };
        let (x, y) = (share * 100.0, TOP + HEIGHT + 16.0);
        let text = crate::net::status::format::count(round);
        let _ = write!(below, "<text x=\"{x:.2}%\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>");
    }
    let _ = write!(below, "<text class=\"axis\" x=\"50%\" y=\"{}\" text-anchor=\"middle\">round</text>", height - 3.0);
    let level = frame.level.as_ref().map_or(String::new(), |(name, value)| {
        let y = TOP + HEIGHT * (1.0 - scale.height_of(*value));
        let text = format!(
            "<text class=\"name\" x=\"100%\" dx=\"-4\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            y - 5.0,
            escape(name)
        );
        let under = format!("<line class=\"under\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        format!("{under}<line class=\"level\" x1=\"0\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>{text}")
    });
    format!(
        "<figure class=\"card\">\n{}{}<div class=\"plot\"><svg class=\"scale\" height=\"{height}\" aria-hidden=\"true\">{labels}\
         </svg><svg class=\"area\" height=\"{height}\" role=\"img\" aria-label=\"{}\">{grid}{inside}{level}{below}</svg></div>\n\
         </figure>\n",
        caption(frame, scale.unit_name()),
        legend(names),
        escape(words),
    )
}

fn caption(frame: &Frame, unit: &str) -> String {
    let unit = if unit.is_empty() { String::new() } else { format!(" <span>({})</span>", escape(unit)) };
    let about = if frame.about.is_empty() { String::new() } else { format!("<p>{}</p>", escape(&frame.about)) };
    format!("<figcaption><b>{}</b>{unit}{about}</figcaption>\n", escape(&frame.title))
}

fn legend(names: &[&str]) -> String {
    if names.len() < 2 {
        return String::new();
    }
    let entry = |(index, name): (usize, &&str)| format!("<li><i class=\"k{}\"></i>{}</li>", index % 5, escape(name));
    format!("<ul class=\"legend\">{}</ul>\n", names.iter().enumerate().map(entry).collect::<String>())
}

fn nothing(frame: &Frame) -> String {
    format!("<figure class=\"card\">\n{}<p class=\"nothing\">nothing to show yet</p></figure>\n", caption(frame, ""))
}

/// The middle of a round's place among bars, as a share of the width.
fn middle(all: (u64, u64), round: u64) -> f64 {
    let (from, to) = bar_ends(all, (round, round));
    (from + to) / 2.0
}

/// First and last value of every curve in words, for those who cannot see the picture.
fn ends(frame: &Frame, scale: &Scale, curves: &[Curve]) -> String {
    let mut words = frame.title.clone();
    for curve in curves {
        let mut finite = curve.points.iter().filter(|p| p.1.is_finite());
        let Some(first) = finite.next() else { continue };
        let last = finite.next_back().unwrap_or(first);
        let (a, b) = (scale.say(first.1), scale.say(last.1));
        let _ = write!(words, "; {}: {a} in round {}, {b} in round {}", curve.name, first.0, last.0);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(unit: Unit, last: u64) -> Frame {
        Frame {
            title: "a <title>".into(),
            about: String::new(),
            unit,
            rounds: (1, last),
            level: Some(("budget".into(), 3.0)),
        }
    }

    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let cut = |part: &str| part.split(['"', '%']).next().unwrap_or("").parse().unwrap_or(f64::NAN);
        svg.split(&format!(" {attribute}=\"")).skip(1).map(cut).collect()
    }

    #[test]
    fn a_curve_ends_where_its_numbers_say() {
        let curve = Curve { name: "<public>".into(), points: vec![(1, 0.0), (2, f64::NAN), (3, 4.0), (5, 2.0)] };
        let html = curves(&frame(Unit::Epsilon, 5), &[curve.clone(), curve]);
        assert!(html.contains("points=\"0.0,168.0 \"") && html.contains("points=\"500.0,0.0 1000.0,84.0 \""), "{html}");
        assert_eq!(html.matches("<circle").count(), 6);
        assert!(html.contains("&lt;public&gt;, round 5: 2") && !html.contains("<public>") && !html.contains("NaN"));
        assert!(html.contains(">budget</text>") && html.contains("class=\"level\""));
        assert!(html.contains("&lt;public&gt;: 0.00 in round 1, 2.00 in round 5"));
    }

    #[test]
    fn bars_stand_side_by_side_and_sum_up() {
        let all: Vec<Bar> = (1..=60)
            .map(|r| Bar { rounds: (r, r), parts: vec![3.0, 1.0], marked: r == 7, hint: format!("round {r}") })
            .collect();
        let html = bars(&frame(Unit::Count, 60), &["kept", "lost"], &all, Some("given up"));
        let (x, width) = (numbers(&html, "x"), numbers(&html, "width"));
        assert_eq!(html.matches("<rect").count(), 120);
        assert!(x.iter().all(|x| (0.0..=100.0).contains(x)) && width.iter().all(|w| *w <= 100.0 / 12.0 + 1.0));
        assert_eq!(html.matches("<path").count(), 2, "the sign and its legend");
        assert!(html.contains("<title>round 60</title>"));
        let first = (bar_ends((1, 60), (1, 1)), bar_ends((1, 60), (2, 2)));
        assert!(first.0.0 > 0.0 && first.0.1 < first.1.0);
    }

    #[test]
    fn odd_charts_are_drawn_or_say_that_there_is_nothing() {
        assert!(curves(&frame(Unit::Percent, 1), &[]).contains("nothing to show yet"));
        assert!(bars(&frame(Unit::Seconds, 1), &["a"], &[], None).contains("nothing to show yet"));
        for value in [0.0, -5.0, 1e-300, 1e300, f64::MAX, f64::INFINITY] {
            for unit in [Unit::Percent, Unit::Epsilon, Unit::Loss, Unit::Count, Unit::Seconds, Unit::Bytes] {
                let curve = Curve { name: "c".into(), points: vec![(0, value), (u64::MAX, value)] };
                let frame = Frame { rounds: (0, u64::MAX), ..frame(unit, 1) };
                let html = curves(&frame, &[curve])
                    + &bars(&frame, &["c"], &[Bar { rounds: (1, 1), parts: vec![value], ..Bar::default() }], None);
                assert!(
                    !html.contains("NaN") && !html.contains("inf") && html.len() < 100_000,
                    "{value} {unit:?}: {html}"
                );
            }
        }
    }
}
