//! The parts of the screen, each below a headline in the rule above it.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, Wrap};

use crate::net::status::format::{self, count, counted};
use crate::net::status::{Guarantee, Part, Party, Round, Status, role_name};

/// Most lines of the curve, with its headline.
const CURVE: u16 = 12;
/// Characters of the names of meters.
const NAME: usize = 17;
/// Below this width the parties have fewer columns.
const NARROW: u16 = 76;
/// Heights of the curve are shares of this.
const FULL: f64 = 1000.0;

/// A rule with a headline.
fn rule(title: String) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(Style::new().dim())
        .title(Span::styled(format!(" {title} "), Style::new().bold()))
}

/// Lines that [`figures`] needs without the curve: progress and privacy with their headlines.
pub(super) fn height(status: &Status, width: u16) -> u16 {
    let lines = 2 + progress(status, width).len() + privacy(status, width).len();
    u16::try_from(lines).unwrap_or(u16::MAX)
}

/// Progress, privacy, and where there is room the curve and the last rounds.
pub(super) fn figures(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let (progress, privacy) = (progress(status, area.width), privacy(status, area.width));
    let length = |lines: &[Line<'_>]| Constraint::Length(1 + u16::try_from(lines.len()).unwrap_or(u16::MAX - 1));
    let [top, middle, below, rest] =
        Layout::vertical([length(&progress), length(&privacy), Constraint::Max(CURVE), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(progress).block(rule("Progress".to_owned())), top);
    let title = format!("Privacy: mechanism {}, protocol {}", status.privacy.mechanism, status.privacy.protocol);
    frame.render_widget(Paragraph::new(privacy).block(rule(title)), middle);
    if below.height >= 2 {
        curve(frame, below, status);
    }
    if rest.height >= 4 {
        rounds(frame, rest, status);
    }
}

/// `text` in lines of at most `width` characters, broken at spaces where there are any.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width).max(1);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

fn progress(status: &Status, across: u16) -> Vec<Line<'static>> {
    let (p, run, totals) = (&status.progress, &status.run, &status.totals);
    let width = usize::from(across);
    let left = status.seconds_to_go().map_or(String::new(), |s| format!(", about {} left", format::seconds(s)));
    let rounds = format!("{} of {}{left}", count(totals.rounds), count(run.rounds));
    let mut lines = vec![meter(width, "rounds", share(totals.rounds, run.rounds), None, &rounds, Color::Blue)];
    if p.round == 0 {
        lines.push(Line::raw("the first round has not begun"));
    } else {
        let name = format!("round {}", count(p.round))
            + &if p.attempt > 1 { format!(" ({})", count(p.attempt)) } else { String::new() };
        let words = format!("{} of {}, {} needed", count(p.delivered), count(p.cohort), count(p.threshold));
        let need = (p.cohort > 0).then(|| share(p.threshold, p.cohort));
        lines.push(meter(width, &name, share(p.delivered, p.cohort), need, &words, Color::Green));
    }
    let ends = p.seconds_left.map_or(String::new(), |s| format!(", {} left", format::seconds(s)));
    let words = format!(
        "attempt {}, in this state for {}{ends} · {} in, {} out",
        count(p.attempt),
        format::seconds(p.seconds_in_phase),
        format::bytes(totals.bytes_in),
        format::bytes(totals.bytes_out),
    );
    lines.extend(wrapped(&words, across).into_iter().map(Line::from));
    lines
}

fn privacy(status: &Status, width: u16) -> Vec<Line<'static>> {
    let nothing = "no guarantee: nothing bounds what the releases tell about a participant";
    match &status.privacy.guarantee {
        None => wrapped(nothing, width).into_iter().map(|line| Line::from(line.yellow())).collect(),
        Some(guarantee) => spent(width, guarantee),
    }
}

fn spent(across: u16, guarantee: &Guarantee) -> Vec<Line<'static>> {
    let width = usize::from(across);
    let views = [("public", "epsilon, public", guarantee.public), ("server", "epsilon, server", guarantee.server)];
    let mut lines: Vec<Line<'static>> = views
        .into_iter()
        .map(|(view, name, epsilon)| {
            let value = format::epsilon(epsilon);
            match guarantee.budget.filter(|b| b.view.name() == view) {
                Some(budget) => {
                    let filled = epsilon.map_or(1.0, |e| e / budget.epsilon);
                    let words = format!("{value} of {}", format::limit(budget.epsilon));
                    meter(width, name, filled, None, &words, if filled > 0.9 { Color::Yellow } else { Color::Blue })
                }
                None => Line::from(vec![
                    Span::raw(format!("{name:NAME$} ")),
                    Span::raw(format!("{value} (no limit in this view)")),
                ]),
            }
        })
        .collect();
    let under = format!("{}; accountant {}", format::under(guarantee), guarantee.accountant);
    lines.extend(wrapped(&under, across).into_iter().map(|line| Line::from(line.dim())));
    lines
}

/// `name ████▌░░░┃░░ words`: a bar in whole cells with a mark.
fn meter(width: usize, name: &str, filled: f64, mark: Option<f64>, words: &str, colour: Color) -> Line<'static> {
    let cells = width.saturating_sub(NAME + words.chars().count() + 3).min(60);
    let place = |share: f64| (share.clamp(0.0, 1.0) * cells as f64).round() as usize;
    let full = if filled.is_finite() { place(filled) } else { cells };
    let mut bar: Vec<char> = (0..cells).map(|i| if i < full { '█' } else { '░' }).collect();
    if let Some(cell) = mark.map(place).and_then(|at| bar.get_mut(at.min(cells.saturating_sub(1)))) {
        *cell = '┃';
    }
    let bar: String = bar.into_iter().collect();
    Line::from(vec![
        Span::raw(format!("{name:NAME$} ")),
        Span::styled(bar, Style::new().fg(colour)),
        Span::raw(" "),
        Span::raw(words.to_owned()).bold(),
    ])
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

/// The accuracy over all measurements, stretched to the width; a full height is 100 per cent.
fn curve(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let values: Vec<(u64, f64)> = status.evaluations.iter().filter_map(|e| Some((e.round, e.accuracy?))).collect();
    let loss = status
        .evaluations
        .iter()
        .rev()
        .find_map(|e| e.loss)
        .map_or(String::new(), |l| format!(", loss {}", format::loss(l)));
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        let words = if loss.is_empty() { "not measured yet".to_owned() } else { format!("not measured{loss}") };
        return frame.render_widget(Paragraph::new(words.dim()).block(rule("Accuracy".to_owned())), area);
    };
    let percent = |share: f64| format::percent(share.clamp(0.0, 1.0));
    let title = format!("Accuracy {} after round {}{loss}", percent(last.1), count(last.0));
    let block = rule(title).title(
        Line::from(format!(" round {} to {} ", count(first.0), count(last.0)).dim()).alignment(Alignment::Right),
    );
    let width = usize::from(area.width).max(1);
    let height = |column: usize| {
        let (_, value) = values.get(column * values.len() / width).copied().unwrap_or(*last);
        (value.clamp(0.0, 1.0) * FULL) as u64
    };
    let data: Vec<u64> = (0..width).map(height).collect();
    frame.render_widget(
        Sparkline::default().block(block).data(&data).max(FULL as u64).style(Style::new().fg(Color::Cyan)),
        area,
    );
}

/// The last rounds, the newest first.
fn rounds(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let private = status.privacy.guarantee.is_some();
    let title = if private { "Last rounds, epsilons as above" } else { "Last rounds" };
    let epsilon = |value: Option<f64>| if private { format::epsilon(value) } else { "-".to_owned() };
    let row = |r: &Round| {
        let cells = [
            count(r.round),
            r.accuracy.map_or("-".to_owned(), |a| format::percent(a.clamp(0.0, 1.0))),
            epsilon(r.epsilon_public),
            epsilon(r.epsilon_server),
            format!("{} of {}", count(r.survivors), count(r.cohort)),
            format::seconds(r.seconds.total()),
        ];
        Row::new(cells.map(right))
    };
    let rows = status.history.iter().rev().take(usize::from(area.height)).map(row);
    let names = [
        "round",
        "accuracy",
        if private { "ε public" } else { "" },
        if private { "ε server" } else { "" },
        "in the sum",
        "time",
    ];
    let widths = [7, 9, 9, 9, 12, 11].map(Constraint::Max);
    let header = Row::new(names.map(|name| right(name.to_owned()))).dim();
    frame.render_widget(Table::new(rows, widths).header(header).block(rule(title.to_owned())), area);
}

/// The last warnings, the newest first.
pub(super) fn warnings(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    if area.height < 2 {
        return;
    }
    let title = if status.counters.warnings == 0 {
        "Warnings: none".to_owned()
    } else {
        format!("Warnings: {}", count(status.counters.warnings))
    };
    let line = |w: &crate::net::status::Warning| {
        let times = if w.times > 1 { format!(" ({} times)", count(w.times)) } else { String::new() };
        // The day is left out: the screen is looked at now.
        let moment = format::moment(w.at);
        let time = moment.get(11..19).unwrap_or(&moment).to_owned();
        Line::from(vec![Span::raw(time).dim(), Span::raw(format!(" {}{times}", w.text)).yellow()])
    };
    let lines: Vec<Line<'_>> = status.warnings.iter().rev().take(usize::from(area.height)).map(line).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }).block(rule(title)), area);
}

/// The parties from the `first` on; how many fit.
pub(super) fn parties(frame: &mut Frame<'_>, area: Rect, status: &Status, first: usize) -> usize {
    let page = usize::from(area.height.saturating_sub(2));
    let counts = &status.party_counts;
    let mut title = format!(
        "Parties: {} of {} connected",
        count(counts.clients_connected),
        counted(counts.clients, "client", "clients")
    );
    if counts.holders > 0 {
        title += &format!(", {} of {} key holders", count(counts.holders_connected), count(counts.holders));
    }
    let listed = status.listed();
    let last = (first + page).min(listed.len());
    let mut block = rule(title);
    if listed.len() > page && last > first {
        let place = format!(" {} to {last} of {} ", first + 1, count(counts.all()));
        block = block.title(Line::from(place.dim()).alignment(Alignment::Right));
    }
    // A narrow screen has no room for bytes.
    let columns = if area.width < NARROW { 6 } else { 8 };
    let header = ["party", "link", "round", "heard", "deliv.", "missed", "in", "out"].into_iter().take(columns);
    let rows = listed.iter().skip(first).take(page).map(|party| Row::new(cells(party).into_iter().take(columns)));
    let widths = [16, 4, 9, 11, 6, 6, 8, 8].into_iter().take(columns).enumerate();
    let widths = widths.map(|(i, width)| if i == 0 { Constraint::Min(width) } else { Constraint::Length(width) });
    let header = header.enumerate().map(|(i, name)| if i < 3 { Cell::new(name) } else { right(name.to_owned()) });
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).dim()).block(block), area);
    page
}

fn cells(party: &Party) -> [Cell<'static>; 8] {
    let role = role_name(party.role);
    let name = if party.name.trim().is_empty() { role } else { format!("{role} {}", party.name.trim()) };
    let link = if party.connected { Span::raw("on").green() } else { Span::raw("off").red() };
    let part = match party.part {
        Part::Idle => Span::raw("-").dim(),
        Part::Asked => Span::raw("asked").cyan(),
        Part::Delivered => Span::raw("delivered").green(),
        Part::Missing => Span::raw("missing").red(),
    };
    [
        Cell::new(name),
        Cell::new(link),
        Cell::new(part),
        right(party.seconds_since_heard.map_or("never".to_owned(), format::seconds)),
        right(count(party.rounds_delivered)),
        right(count(party.rounds_missed)),
        right(format::bytes(party.bytes_in)),
        right(format::bytes(party.bytes_out)),
    ]
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Line::from(text).alignment(Alignment::Right))
}
