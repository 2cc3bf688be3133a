//! `veilsum watch`.

mod fetch;
mod screen;
mod summary;

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::fetch::{Server, WatchError};
use self::screen::App;
use crate::cli::{Exit, Failure};
use crate::net::now;
use crate::net::status::Status;

/// The screen is drawn at least this often, for what counts seconds.
const TICK: Duration = Duration::from_millis(250);

/// Arguments of `veilsum watch`.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Watch a running federation in the terminal: progress, epsilon by view, accuracy, parties, warnings. It only \
        reads, from the status address of a server (veilsum serve), and goes on when the server goes away and comes \
        back.\n\nKeys: q, Esc or Ctrl-C leave; arrows, Page Up and Page Down, Home and End scroll the parties.",
    after_help = "Examples:
  veilsum watch
  veilsum watch http://10.0.0.5:7444 --every 5
  veilsum watch --once
  veilsum watch --json | jq .progress

Exit codes: 0 success, 1 the server could not be asked or gave no status, 2 bad usage."
)]
pub struct Args {
    /// The status address of the server.
    #[arg(default_value = "http://127.0.0.1:7444")]
    url: String,
    /// A summary as plain text, once; needs no terminal.
    #[arg(long)]
    once: bool,
    /// The status as JSON on stdout, once.
    #[arg(long, conflicts_with = "once")]
    json: bool,
    /// Seconds between two looks, 0.2 to 3600.
    #[arg(long, default_value_t = 1.0, value_parser = pause)]
    every: f64,
}

fn pause(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    let fits = (0.2..=3600.0).contains(&seconds);
    if fits { Ok(seconds) } else { Err(format!("{text} s: 0.2 to 3600 seconds are possible")) }
}

/// Runs the command.
///
/// # Errors
/// See the exit codes in its help.
pub fn run(args: &Args) -> Result<(), Failure> {
    let server = Server::new(&args.url)?;
    if args.json {
        let status = server.status()?;
        let text = serde_json::to_string_pretty(&status).map_err(|e| Failure::new(Exit::Failure, e))?;
        return print(&(text + "\n"));
    }
    if args.once {
        return print(&summary::text(&server.status()?));
    }
    if !std::io::stdout().is_terminal() {
        let message = "the standard output is no terminal; --once prints a summary there, --json the whole status";
        return Err(Failure::new(Exit::Usage, message));
    }
    watch(server, Duration::from_secs_f64(args.every))
}

/// Writes to stdout; a reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// The terminal as it was, whatever happens while it is drawn on.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, WatchError> {
        // It also restores the terminal before the message of a panic.
        ratatui::try_init().map(Self).map_err(|source| WatchError::Terminal { action: "prepare", source })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to hear of a terminal that is gone.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Draws until somebody leaves.
fn watch(server: Server, every: Duration) -> Result<(), Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&ended);
    // Ctrl-C is a key here; this is for `kill` and for a session that ends. Without it these end the command at once.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let mut app = App::new(server.base());
    let (answers, _stop) = poll(server, every);
    let mut screen = Screen::open()?;
    end_with_the_terminal();
    while !ended.load(Ordering::Relaxed) {
        while let Ok(answer) = answers.try_recv() {
            app.answered(answer, now());
        }
        screen
            .0
            .draw(|frame| app.draw(frame, now()))
            .map_err(|source| WatchError::Terminal { action: "draw on", source })?;
        if key(&mut app).map_err(|source| WatchError::Terminal { action: "read from", source })? {
            break;
        }
    }
    Ok(())
}

/// Ends the process when the terminal is gone. What reads keys does not notice: it would look for one for ever, at full speed.
fn end_with_the_terminal() {
    std::thread::spawn(|| {
        while std::io::stdout().is_terminal() {
            std::thread::sleep(TICK);
        }
        std::process::exit(Exit::Failure as i32);
    });
}

/// Waits for a key for [`TICK`] at most and takes what has come; true if somebody leaves.
fn key(app: &mut App) -> std::io::Result<bool> {
    let mut wait = TICK;
    while event::poll(wait)? {
        if let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && pressed(app, key)
        {
            return Ok(true);
        }
        wait = Duration::ZERO;
    }
    Ok(false)
}

/// Does what a key means; true if it leaves.
fn pressed(app: &mut App, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => return true,
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Up | KeyCode::Char('k') => app.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => app.scroll(1),
        KeyCode::PageUp => app.scroll(-app.page()),
        KeyCode::PageDown | KeyCode::Char(' ') => app.scroll(app.page()),
        KeyCode::Home => app.scroll(isize::MIN),
        KeyCode::End => app.scroll(isize::MAX),
        _ => {}
    }
    false
}

type Answer = Result<Status, WatchError>;

/// Asks again and again on a thread of its own, so that a slow server never holds up a key. It ends when the second value is
/// dropped; the process does not wait for a request that is under way.
fn poll(server: Server, every: Duration) -> (Receiver<Answer>, Sender<()>) {
    let (answer, answers) = channel();
    let (stop, stopped) = channel::<()>();
    std::thread::spawn(move || {
        while answer.send(server.status()).is_ok() {
            if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    });
    (answers, stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::status::sample;

    #[test]
    fn keys_scroll_and_leave() {
        let now = Duration::from_secs(1_795_383_271);
        let mut app = App::new("http://127.0.0.1:7444");
        app.answered(Ok(sample::long(now, 20, 100).snapshot(now)), now);
        let mut press = |code, modifiers| {
            let left = pressed(&mut app, KeyEvent::new(code, modifiers));
            (left, app.first())
        };
        let none = KeyModifiers::NONE;
        assert_eq!(press(KeyCode::Up, none), (false, 0));
        assert_eq!(press(KeyCode::Down, none), (false, 1));
        assert_eq!(press(KeyCode::End, none), (false, 102));
        assert_eq!(press(KeyCode::Down, none), (false, 102));
        assert_eq!(press(KeyCode::Home, none), (false, 0));
        assert!(press(KeyCode::Char('q'), none).0 && press(KeyCode::Char('c'), KeyModifiers::CONTROL).0);
        assert!(!press(KeyCode::Char('c'), none).0);
    }

    #[test]
    fn pauses_have_limits() {
        assert_eq!(pause("0.2"), Ok(0.2));
        for bad in ["0", "-1", "NaN", "inf", "4000", "x"] {
            assert!(pause(bad).is_err(), "{bad}");
        }
    }
}
