//! The live line of a run, on stderr: a bar where stderr is a terminal, a plain line now and then where
//! it is a file or a pipe, nothing where the caller wants silence.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Plain lines come after at least this share of the rounds ...
const PLAIN_SHARE: f64 = 0.1;
/// ... or after this much time.
const PLAIN_PAUSE: Duration = Duration::from_secs(15);

/// Shows how far a run of rounds is.
#[derive(Debug)]
pub struct Progress {
    output: Output,
    what: &'static str,
    start: u64,
    total: u64,
    begun: Instant,
    accuracy: Option<f64>,
}

#[derive(Debug)]
enum Output {
    Hidden,
    Plain(Pacer),
    Bar(ProgressBar),
}

impl Progress {
    /// Progress of rounds `start + 1 ..= total`; `start` is above 0 in a resumed run. `quiet` (or
    /// `--json`) shows nothing.
    #[must_use]
    pub fn rounds(start: u64, total: u64, quiet: bool) -> Self {
        Self::of("round", start, total, quiet)
    }

    /// The same of anything that is counted: `what` is its name, in the singular.
    #[must_use]
    pub fn of(what: &'static str, start: u64, total: u64, quiet: bool) -> Self {
        let output = if quiet {
            Output::Hidden
        } else if std::io::stderr().is_terminal() {
            Output::Bar(bar(what, start, total))
        } else {
            Output::Plain(Pacer::new(start, total))
        };
        Self { output, what, start, total, begun: Instant::now(), accuracy: None }
    }

    /// Round `round` is done. `accuracy` is in `[0, 1]`; `None` in a round that measured none goes on
    /// showing the last one. `epsilon` is what has been spent so far, `None` without privacy.
    pub fn update(&mut self, round: u64, accuracy: Option<f64>, epsilon: Option<f64>) {
        self.accuracy = accuracy.or(self.accuracy);
        let figures = figures(self.accuracy, epsilon);
        match &mut self.output {
            Output::Hidden => {}
            Output::Bar(bar) => {
                bar.set_message(figures);
                bar.set_position(round);
            }
            Output::Plain(pacer) => {
                let elapsed = self.begun.elapsed();
                if pacer.due(round, elapsed) {
                    eprintln!("{}", plain_line(self.what, self.start, round, self.total, &figures, elapsed));
                }
            }
        }
    }

    /// Writes a line to stderr without tearing the bar; silent in a quiet run.
    pub fn note(&self, line: &str) {
        match &self.output {
            Output::Hidden => {}
            Output::Plain(_) => eprintln!("{line}"),
            Output::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
        }
    }

    /// Ends the display; the bar stays on the screen at its last position.
    pub fn finish(self) {
        if let Output::Bar(bar) = self.output {
            bar.abandon();
        }
    }
}

/// The bar, at 10 frames a second at most, so that it costs nothing in fast rounds.
fn bar(what: &str, start: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template(&format!(
        "{what} {{pos}}/{{len}} {{bar:24}} {{msg}}  {{elapsed}} elapsed, {{eta}} left"
    ))
    .expect("the template is a constant but for a word and is drawn in a test");
    bar.set_style(style.progress_chars("=> "));
    bar.set_position(start);
    bar.reset_eta();
    bar
}

/// `accuracy 93.10 %  epsilon 1.421`, or what of it is known.
fn figures(accuracy: Option<f64>, epsilon: Option<f64>) -> String {
    let accuracy = accuracy.map(|a| format!("accuracy {:.2} %", 100.0 * a));
    let epsilon = epsilon.map(|e| format!("epsilon {e:.3}"));
    [accuracy, epsilon].into_iter().flatten().collect::<Vec<_>>().join("  ")
}

/// One line for a log file.
fn plain_line(what: &str, start: u64, round: u64, total: u64, figures: &str, elapsed: Duration) -> String {
    let done = round.saturating_sub(start);
    let left = total.saturating_sub(round);
    let gap = if figures.is_empty() { "" } else { "  " };
    let seconds = elapsed.as_secs_f64();
    match done {
        0 => format!("{what} {round}/{total}{gap}{figures}"),
        _ => format!(
            "{what} {round}/{total}{gap}{figures}  {seconds:.0} s elapsed, about {:.0} s left",
            seconds / done as f64 * left as f64
        ),
    }
}

/// Decides which rounds get a plain line: every tenth of the run, every 15 seconds, and the last.
#[derive(Debug)]
struct Pacer {
    start: u64,
    total: u64,
    shown: u64,
    shown_at: Duration,
}

impl Pacer {
    fn new(start: u64, total: u64) -> Self {
        Self { start, total, shown: start, shown_at: Duration::ZERO }
    }

    /// True if round `round`, done at `now` after the start, deserves a line.
    fn due(&mut self, round: u64, now: Duration) -> bool {
        let step = (self.total.saturating_sub(self.start) as f64 * PLAIN_SHARE).max(1.0);
        let due = round.saturating_sub(self.shown) as f64 >= step
            || now.saturating_sub(self.shown_at) >= PLAIN_PAUSE
            || (round >= self.total && self.shown < self.total);
        if due {
            (self.shown, self.shown_at) = (round, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_run_gets_ten_lines_and_the_last_round_one() {
        let mut pacer = Pacer::new(0, 1003);
        let shown: Vec<u64> = (1..=1003).filter(|&r| pacer.due(r, Duration::ZERO)).collect();
        assert_eq!(shown, [101, 202, 303, 404, 505, 606, 707, 808, 909, 1003]);
    }

    #[test]
    fn a_slow_run_gets_a_line_every_fifteen_seconds() {
        let mut pacer = Pacer::new(0, 10_000);
        let shown: Vec<u64> = (1..=60).filter(|&r| pacer.due(r, Duration::from_secs(r))).collect();
        assert_eq!(shown, [15, 30, 45, 60]);
    }

    #[test]
    fn a_resumed_run_counts_from_where_it_was() {
        let mut pacer = Pacer::new(900, 1000);
        assert!(!pacer.due(901, Duration::ZERO));
        assert!(pacer.due(910, Duration::ZERO));
        let line = plain_line("round", 900, 910, 1000, &figures(Some(0.9312), Some(1.4214)), Duration::from_secs(20));
        assert_eq!(line, "round 910/1000  accuracy 93.12 %  epsilon 1.421  20 s elapsed, about 180 s left");
        assert_eq!(plain_line("trial", 5, 5, 9, "", Duration::ZERO), "trial 5/9");
    }

    #[test]
    fn the_bar_takes_position_and_figures() {
        let shown = bar("round", 400, 500);
        shown.set_draw_target(ProgressDrawTarget::hidden());
        let mut progress = Progress {
            output: Output::Bar(shown.clone()),
            what: "round",
            start: 400,
            total: 500,
            begun: Instant::now(),
            accuracy: None,
        };
        assert_eq!((shown.position(), shown.length()), (400, Some(500)));
        progress.update(440, Some(0.94), Some(2.4));
        progress.update(450, None, Some(2.5));
        assert_eq!((shown.position(), shown.message().as_str()), (450, "accuracy 94.00 %  epsilon 2.500"));
        progress.finish();
        assert_eq!(shown.position(), 450);
    }

    #[test]
    fn a_quiet_run_has_no_output_to_write_to() {
        let mut progress = Progress::rounds(0, 3, true);
        progress.update(1, Some(0.5), None);
        assert!(matches!(progress.output, Output::Hidden));
        progress.finish();
    }
}
