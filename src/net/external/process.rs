//! A child process with three pipes, none of which can make us wait without an end.
//!
//! One thread writes to its stdin, one reads a message of its stdout when it is asked to, one passes its stderr on. What the program
//! writes without being asked fills its pipe, and then it waits, not we.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{self, Message};
use super::{Stderr, StreamError, printable};

/// Lines of stderr that are kept for an error.
const KEPT: usize = 20;
/// Most bytes of a line of stderr; a longer one goes on in the next.
const MAX_LINE: usize = 4096;
/// How long the end of stderr is waited for behind the end of the process.
const DRAIN: Duration = Duration::from_secs(2);
/// Between two looks at a process that is to end.
const TICK: Duration = Duration::from_millis(5);

/// A running program. Dropped without [`Self::bye`], [`Self::end`] or [`Self::ended`] it is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// `None` once stdin is to be closed.
    outgoing: Option<Sender<Vec<u8>>>,
    /// Asks for a message with so many bytes at most.
    requests: Sender<u64>,
    answers: Receiver<Result<Message, StreamError>>,
    tail: Arc<Mutex<VecDeque<String>>>,
    /// Closed at the end of stderr.
    drained: Receiver<()>,
    patience: Duration,
    /// Whether its end is known.
    reaped: bool,
}

impl Process {
    /// Starts a command, which is not empty. `patience` is how long it is given at each step of its end.
    pub(super) fn start(command: &[String], patience: Duration) -> std::io::Result<Self> {
        let mut builder = Command::new(command.first().map_or("", String::as_str));
        builder.args(command.iter().skip(1));
        builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: it ends with all that it has started, and Ctrl-C reaches us first.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut builder, 0);
        let mut child = builder.spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (outgoing, to_write) = mpsc::channel();
        let (requests, asked) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (draining, drained) = mpsc::channel();
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(KEPT)));
        let kept = Arc::clone(&tail);
        let process =
            Self { child, outgoing: Some(outgoing), requests, answers, tail, drained, patience, reaped: false };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(work);
        if let Some(stdin) = stdin {
            spawn("trainer-stdin", Box::new(move || write(stdin, &to_write)))?;
        }
        if let Some(stdout) = stdout {
            spawn("trainer-stdout", Box::new(move || read(BufReader::new(stdout), &asked, &answer)))?;
        }
        if let Some(stderr) = stderr {
            let pass = move || {
                pass_on(BufReader::new(stderr), &kept);
                drop(draining);
            };
            spawn("trainer-stderr", Box::new(pass))?;
        }
        Ok(process)
    }

    /// Says something and waits for the answer; `None` if it is late.
    pub(super) fn exchange(
        &mut self,
        message: Vec<u8>,
        most_bytes: u64,
        patience: Duration,
    ) -> Option<Result<Message, StreamError>> {
        // A program that reads no more may still say why: writing is done without looking back.
        self.say(message);
        if self.requests.send(most_bytes).is_err() {
            return Some(Err(StreamError::End));
        }
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(StreamError::End)),
        }
    }

    fn say(&self, message: Vec<u8>) {
        if let Some(outgoing) = &self.outgoing {
            // The thread has ended if stdin is closed, which the answer will show.
            outgoing.send(message).unwrap_or_default();
        }
    }

    /// Says goodbye, and sees that it goes.
    pub(super) fn bye(mut self) {
        self.say(message::bye());
        self.outgoing = None;
        if self.wait().is_none() {
            self.end();
        }
    }

    /// Of a program that has closed its stdout: how it ended, and its last words. One that goes on is ended.
    pub(super) fn ended(mut self) -> (String, Stderr) {
        self.outgoing = None;
        match self.wait() {
            Some(status) => (status.to_string(), self.last_words()),
            None => {
                let (_, stderr) = self.end();
                ("it closed its stdout, went on, and was ended".into(), stderr)
            }
        }
    }

    /// Ends it: SIGTERM, time, SIGKILL.
    pub(super) fn end(mut self) -> (String, Stderr) {
        self.outgoing = None;
        self.signal_end();
        let status = self.wait().map_or_else(|| self.kill(), |status| status.to_string());
        (status, self.last_words())
    }

    /// Waits for its end, not for long.
    fn wait(&mut self) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.reaped = true;
                return Some(status);
            }
            if started.elapsed() >= self.patience {
                return None;
            }
            thread::sleep(TICK);
        }
    }

    /// What it wrote to stderr at last.
    fn last_words(&self) -> Stderr {
        // A process that it has left behind may hold stderr open: not for us.
        self.drained.recv_timeout(DRAIN).unwrap_or_default();
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        Stderr(tail.iter().cloned().collect())
    }

    #[cfg(unix)]
    fn signal_end(&self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    /// Only before its end is known: then its number may be another's.
    #[cfg(unix)]
    fn signal(&self, signal: nix::sys::signal::Signal) {
        if let Ok(group) = i32::try_from(self.child.id())
            && !self.reaped
        {
            // It may have ended just now.
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), signal).unwrap_or_default();
        }
    }

    /// There is nothing to ask with.
    #[cfg(not(unix))]
    fn signal_end(&self) {}

    fn kill(&mut self) -> String {
        #[cfg(unix)]
        self.signal(nix::sys::signal::Signal::SIGKILL);
        if let Err(e) = self.child.kill() {
            return format!("it cannot be ended: {e}");
        }
        // A process that waits for a disk does not even end then; it is left to the system.
        self.wait().map_or_else(|| "it was killed and does not end".into(), |status| status.to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
        }
    }
}

/// Writes messages until there are no more, or nobody reads them.
fn write(mut stdin: ChildStdin, messages: &Receiver<Vec<u8>>) {
    for message in messages {
        if stdin.write_all(&message).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Reads a message for each request, until one is none.
fn read(mut stdout: impl BufRead, requests: &Receiver<u64>, answers: &Sender<Result<Message, StreamError>>) {
    for most_bytes in requests {
        let answer = message::read(&mut stdout, most_bytes);
        let last = answer.is_err();
        if answers.send(answer).is_err() || last {
            return;
        }
    }
}

/// Passes every line on to our stderr, and keeps the last ones. A carriage return ends a line too: progress bars.
fn pass_on(mut stderr: impl Read, kept: &Mutex<VecDeque<String>>) {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = match stderr.read(&mut chunk) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        for &byte in &chunk[..read] {
            if byte == b'\n' || byte == b'\r' || line.len() == MAX_LINE {
                keep(&mut line, kept);
            }
            if byte != b'\n' && byte != b'\r' {
                line.push(byte);
            }
        }
    }
    keep(&mut line, kept);
}

fn keep(line: &mut Vec<u8>, kept: &Mutex<VecDeque<String>>) {
    if line.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(line);
    let visible = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    let passed: String = text.chars().map(visible).collect();
    // Nobody may be there to read it.
    writeln!(std::io::stderr().lock(), "trainer: {passed}").unwrap_or_default();
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(printable(&text));
    line.clear();
}
