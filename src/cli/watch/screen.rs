//! What `veilsum watch` draws.

mod blocks;

use std::error::Error as _;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::fetch::WatchError;
use crate::net::status::format::{moment, one_line, seconds};
use crate::net::status::{State, Status};

/// From this width on the parties stand beside the figures.
const WIDE: u16 = 120;
/// From this height on there are warnings ...
const WITH_WARNINGS: u16 = 22;
/// ... and from this one on the curve.
const WITH_CURVE: u16 = 18;

/// What is known, and what of it is looked at.
#[derive(Debug)]
pub(super) struct App {
    url: String,
    status: Option<Status>,
    /// Since when the server does not answer, and why not.
    failing: Option<(Duration, String)>,
    /// The first party that is shown.
    first: usize,
    /// Parties that fit, as of the last drawing.
    page: usize,
}

impl App {
    /// Nothing is known yet.
    pub(super) fn new(url: &str) -> Self {
        Self { url: one_line(url, 80), status: None, failing: None, first: 0, page: 1 }
    }

    /// Takes an answer. A failure leaves the last status on the screen.
    pub(super) fn answered(&mut self, answer: Result<Status, WatchError>, now: Duration) {
        match answer {
            Ok(status) => {
                self.failing = None;
                self.status = Some(status);
                self.scroll(0);
            }
            Err(e) => {
                let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
                // The address stands below; here is room for the reason.
                let reason = e.source().map_or_else(|| e.to_string(), ToString::to_string);
                self.failing = Some((since, one_line(&reason, 200)));
            }
        }
    }

    /// Moves the list of parties.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self.status.as_ref().map_or(0, |s| s.parties.len().saturating_sub(1));
        self.first = self.first.saturating_add_signed(by).min(last);
    }

    /// Parties that fit on the screen.
    pub(super) fn page(&self) -> isize {
        isize::try_from(self.page).unwrap_or(1).max(1)
    }

    /// The first party that is shown.
    #[cfg(test)]
    pub(super) const fn first(&self) -> usize {
        self.first
    }

    /// Draws everything; `now` is the time since the Unix epoch.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, now: Duration) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
        self.draw_head(frame, head, now);
        self.draw_foot(frame, foot);
        let Some(status) = &self.status else {
            let words = format!("asking {} for its status; q leaves", self.url);
            return frame.render_widget(Paragraph::new(words).dim(), body);
        };
        let (figures, parties, warnings) = places(body, status);
        blocks::figures(frame, figures, status);
        blocks::warnings(frame, warnings, status);
        self.page = blocks::parties(frame, parties, status, self.first);
    }

    /// Name and state, or since when nobody answers.
    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect, now: Duration) {
        let mut lines = Vec::new();
        if let Some(status) = &self.status {
            let (run, label) = (&status.run, format!(" {} ", status.state.label()));
            let name = Span::raw(run.name.clone()).bold();
            let session: String = run.session.chars().take(8).collect();
            let badge = Span::styled(label, badge(status.state)).bold();
            let about = Span::raw(format!("  veilsum {} · session {session}", run.version)).dim();
            lines.push(Line::from(vec![name, Span::raw("  "), badge, about]));
            lines.push(Line::raw(status.sentence.clone()));
        } else {
            lines.push(Line::from("veilsum watch".bold()));
        }
        if let Some((since, why)) = &self.failing {
            let passed = seconds(now.saturating_sub(*since).as_secs_f64());
            let words = format!(" no answer since {} ({passed}): {why} ", moment(since.as_secs_f64()));
            lines.truncate(1);
            lines.push(Line::styled(words, Style::new().fg(Color::White).bg(Color::Red)));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        let time = |s: &Status| moment(s.taken_at).get(11..).map_or(String::new(), |time| format!("  as of {time}"));
        let as_of = self.status.as_ref().map_or(String::new(), time);
        let words = format!("q leave  ↑↓ PgUp PgDn scroll{as_of}  {}", self.url);
        frame.render_widget(Paragraph::new(words).dim(), area);
    }
}

/// Where figures, parties and warnings stand.
fn places(body: Rect, status: &Status) -> (Rect, Rect, Rect) {
    if body.width >= WIDE {
        let [left, _, right] =
            Layout::horizontal([Constraint::Percentage(42), Constraint::Length(2), Constraint::Min(0)]).areas(body);
        let warnings = if body.height >= WITH_WARNINGS { (body.height / 5).min(12) } else { 0 };
        let [figures, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(warnings)]).areas(left);
        return (figures, right, below);
    }
    let with = |least: u16, lines: u16| if body.height + 3 >= least { lines } else { 0 };
    let curve = with(WITH_CURVE, 3) + body.height.saturating_sub(30) / 4;
    let warnings = with(WITH_WARNINGS, 3) + body.height.saturating_sub(30) / 6;
    let [figures, parties, below] = Layout::vertical([
        Constraint::Length(blocks::height(status, body.width).saturating_add(curve)),
        Constraint::Min(0),
        Constraint::Length(warnings),
    ])
    .areas(body);
    (figures, parties, below)
}

fn badge(state: State) -> Style {
    let colour = match state {
        State::WaitingForClients | State::Draining | State::StandingBy => Color::Gray,
        State::MakingKey | State::Collecting | State::Opening | State::Releasing | State::Evaluating => Color::Cyan,
        State::Finished => Color::Green,
        State::StoppedByBudget => Color::Yellow,
    };
    Style::new().fg(Color::Black).bg(colour)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::net::status::{PartyCounts, Progress, Round, Totals, sample};

    const NOW: Duration = Duration::from_secs(1_795_383_271);

    fn screen(app: &mut App, width: u16, height: u16, now: Duration) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| app.draw(frame, now)).unwrap();
        terminal.backend().to_string()
    }

    fn watching(status: Status) -> App {
        let mut app = App::new("http://127.0.0.1:7444");
        app.answered(Ok(status), NOW);
        app
    }

    #[test]
    fn the_facts_fit_a_small_terminal() {
        let mut app = watching(sample::long(NOW, 90, 24).snapshot(NOW));
        for (width, height) in [(80, 24), (160, 50)] {
            let text = screen(&mut app, width, height, NOW);
            for words in [
                "ward-readmission-2026",
                "collecting updates",
                "15 of 24 clients have delivered; 16 are needed.",
                "90 of 120",
                "15 of 24",
                "42 s left",
                "2.00 of 2.52",
                "5.22",
                "delta 1e-5",
                "zero-out (one client's contribution is",
                "Accuracy 90.81 %",
                "client 0 Charité",
                "delivered",
                "22 of 24 clients connected",
                "the disk is 91 % full (4 times)",
                "q leave",
            ] {
                assert!(text.contains(words), "{width} x {height}: {words} in\n{text}");
            }
        }
    }

    #[test]
    fn the_parties_scroll() {
        let mut app = watching(sample::long(NOW, 20, 30).snapshot(NOW));
        assert!(screen(&mut app, 80, 24, NOW).contains("client 0 "));
        app.scroll(app.page());
        let text = screen(&mut app, 80, 24, NOW);
        assert!(!text.contains("client 0 ") && text.contains(&format!("client {} ", app.first())), "{text}");
        app.scroll(isize::MAX);
        assert!(screen(&mut app, 80, 24, NOW).contains("key holder 3"));
    }

    #[test]
    fn a_server_that_goes_away_is_said_until_it_comes_back() {
        let status = sample::early(NOW).snapshot(NOW);
        let mut app = App::new("http://127.0.0.1:7444");
        let fail = || WatchError::Address { url: "x".into() };
        app.answered(Err(fail()), NOW);
        assert!(screen(&mut app, 80, 24, NOW).contains("no answer since 2026-11-22"));
        app.answered(Ok(status.clone()), NOW);
        assert!(!screen(&mut app, 80, 24, NOW).contains("no answer"));
        app.answered(Err(fail()), NOW);
        app.answered(Err(fail()), NOW + Duration::from_secs(60));
        let text = screen(&mut app, 80, 24, NOW + Duration::from_secs(75));
        assert!(text.contains("(1 min 15 s)") && text.contains("client 0"), "{text}");
        app.answered(Ok(status), NOW);
        assert!(!screen(&mut app, 80, 24, NOW).contains("no answer"));
    }

    #[test]
    fn a_run_without_a_guarantee_shows_no_epsilon() {
        let text = screen(&mut watching(sample::unprotected(NOW).snapshot(NOW)), 80, 24, NOW);
        assert!(text.contains("no guarantee") && !text.contains("psilon"), "{text}");
    }

    #[test]
    fn any_size_and_any_numbers_are_drawn() {
        let m = u64::MAX;
        let mut odd = sample::long(NOW, 5, 3).snapshot(NOW);
        odd.progress = Progress {
            round: m,
            attempt: m,
            cohort: m,
            delivered: m,
            threshold: m,
            seconds_in_phase: -1.0,
            seconds_left: Some(1e300),
        };
        odd.party_counts = PartyCounts { clients: m, clients_connected: m, holders: m, holders_connected: m };
        odd.totals =
            Totals { rounds: m, abandoned: m, asked: 0, survivors: m, bytes_in: m, bytes_out: m, ..Totals::default() };
        odd.history.push(Round { round: m, cohort: m, survivors: m, ..Round::default() });
        odd.evaluations[0].accuracy = Some(-1e300);
        odd.evaluations[1].accuracy = Some(1e300);
        (odd.taken_at, odd.run.rounds, odd.run.name) = (-1e300, 0, "漢字".repeat(200));
        let mut apps = [
            watching(odd.clone()),
            watching(Status::default()),
            watching(sample::empty(NOW).snapshot(NOW)),
            App::new("x"),
            watching(sample::long(NOW, 50, 5_000).snapshot(NOW)),
        ];
        for app in &mut apps {
            for (width, height) in [(1, 1), (2, 3), (20, 5), (40, 12), (80, 24), (119, 70), (120, 10), (300, 100)] {
                screen(app, width, height, NOW);
            }
        }
        assert!(super::super::summary::text(&odd).contains("state"));
    }
}
