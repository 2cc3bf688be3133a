//! Training in another process, in any language and framework.
//!
//! veilsum starts a program and speaks with it on its stdin and stdout; what it writes to stderr is passed on, each line with
//! `trainer: ` before it. Every message is one line of JSON, ended by a line feed, and exactly `bytes` bytes behind it:
//!
//! ```text
//! {"veilsum":1,"kind":"train","round":3,"bytes":9888}\n<9888 bytes: a safetensors file>
//! ```
//!
//! | from | kind | keys besides `veilsum` (the version, 1), `kind` and `bytes` | bytes |
//! |---|---|---|---|
//! | veilsum | `hello` | `program`, `model`, `input`, `layers`, `layout`, `tensors` (name and shape, in order), `parameters`, `training`, `seed` | 0 |
//! | trainer | `ready` | `samples`: how many it has | 0 |
//! | veilsum | `train` | `round` | the weights |
//! | trainer | `update` | `round` as asked, `samples` that were trained on | the delta `w_after - w_before` |
//! | trainer | `error` | `message`, a sentence; in the place of `ready` or `update` | 0 |
//! | veilsum | `bye` | none; the program ends, and stdin with it | 0 |
//!
//! Bytes of weights and of a delta are a safetensors file with the tensors of `hello`: the same names and shapes, `F32`, none
//! missing and none besides. Keys that a side does not know are ignored; a `bytes` that is absent is 0. What tensors mean is in
//! [`crate::model::architecture`]. The trainer speaks when it is spoken to: once for each `hello` and `train`.
//!
//! The program is believed in what it computes and in nothing else. Lines and lengths have limits, which are checked before anything
//! is allocated; one that answers late is asked to end (SIGTERM) and then ended (SIGKILL), with the processes that it has
//! started in its group; one that breaks the protocol likewise. What a program leaves behind that ended by itself is not looked for. NaN is passed on as it is: encoding makes a zero row of it.
//!
//! **A delta is computed once.** A framework may not give the same bits twice, and a key noises one plaintext: a driver keeps the
//! delta of an attempt durably before it answers, or takes a new attempt number where it has to ask again.

mod error;
mod hello;
mod message;
mod process;
mod tensors;

use std::time::Duration;

pub use self::error::{ExternalError, Stderr, StreamError, TensorError};
use self::hello::Hello;
use self::message::Message;
use self::process::Process;
use self::tensors::Layout;
use crate::model::LocalConfig;
use crate::model::architecture::ModelConfig;

/// What a trainer is to do, the same in every round.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The model.
    pub model: ModelConfig,
    /// Local SGD, or what the program makes of these numbers.
    pub local: LocalConfig,
    /// For the program's shuffling. Only its upper 53 bits are handed on, which every language reads as a whole number.
    pub seed: u64,
}

/// How long a program may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From its start until it is ready: imports, data.
    pub start: Duration,
    /// From the weights of a round until its delta is here.
    pub round: Duration,
    /// From `bye` until SIGTERM, and from that until SIGKILL.
    pub stop: Duration,
}

impl Default for Limits {
    /// Two minutes, half an hour, five seconds.
    fn default() -> Self {
        Self { start: Duration::from_secs(120), round: Duration::from_secs(1800), stop: Duration::from_secs(5) }
    }
}

/// A process that trains. It ends when this is dropped, which takes twice [`Limits::stop`] at most.
#[derive(Debug)]
pub struct ExternalTrainer {
    program: String,
    layout: Layout,
    limits: Limits,
    samples: u64,
    /// `None` once it has ended.
    process: Option<Process>,
}

impl ExternalTrainer {
    /// Starts `command` (the program and its arguments; no shell is between) and waits until it is ready.
    ///
    /// # Errors
    /// [`ExternalError`]: a command or model that is none, a program that cannot be started, ends, is late, breaks the protocol, or
    /// says why it cannot.
    pub fn start(command: &[String], job: &Job, limits: Limits) -> Result<Self, ExternalError> {
        let Some(program) = command.first().filter(|program| !program.is_empty()) else {
            return Err(ExternalError::Command);
        };
        let architecture = job.model.architecture()?;
        let layout = Layout::new(&architecture);
        let hello = Hello::new(job, &architecture).line()?;
        let process = Process::start(command, limits.stop)
            .map_err(|source| ExternalError::Start { program: program.clone(), source })?;
        let mut trainer = Self { program: program.clone(), layout, limits, samples: 0, process: Some(process) };
        let ready = trainer.exchange(hello, "ready", 0, limits.start)?;
        trainer.samples = trainer.required(ready.header.samples, "ready", "samples")?;
        Ok(trainer)
    }

    /// Samples that the program has trained on in its last round, before that those it has.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// Number of parameters d.
    #[must_use]
    pub const fn parameter_count(&self) -> usize {
        self.layout.parameters()
    }

    /// `w_after - w_before` of the program's training from `weights`, `[d]`, as it computed it: NaN and infinities too.
    ///
    /// After [`ExternalError::Refused`] it can be asked again; after any other error it has ended.
    ///
    /// # Errors
    /// Weights of another length; a program that ends, is late, breaks the protocol, or says why it cannot.
    pub fn delta(&mut self, round: u32, weights: &[f32]) -> Result<Vec<f32>, ExternalError> {
        let train = message::train(round, &self.layout.file(weights)?);
        let update = self.exchange(train, "update", self.layout.most_bytes(), self.limits.round)?;
        let found = self.required(update.header.round.map(u64::from), "update", "round")?;
        if found != u64::from(round) {
            let program = self.program.clone();
            return Err(self.give_up(|stderr| ExternalError::Round { program, expected: round, found, stderr }));
        }
        let samples = self.required(update.header.samples, "update", "samples")?;
        match self.layout.flat(&update.body) {
            Ok(delta) => {
                self.samples = samples;
                Ok(delta)
            }
            Err(problem) => {
                let program = self.program.clone();
                Err(self.give_up(|stderr| ExternalError::Tensors { program, problem, stderr }))
            }
        }
    }

    /// Says something and waits for an answer of one kind.
    fn exchange(
        &mut self,
        message: Vec<u8>,
        expected: &'static str,
        most_bytes: u64,
        patience: Duration,
    ) -> Result<Message, ExternalError> {
        let program = self.program.clone();
        let Some(process) = self.process.as_mut() else { return Err(ExternalError::Over { program }) };
        let answer = match process.exchange(message, most_bytes, patience) {
            Some(Ok(answer)) => answer,
            Some(Err(StreamError::End)) => return Err(self.ended(expected)),
            Some(Err(problem)) => {
                return Err(self.give_up(|stderr| ExternalError::Stream { program, expected, problem, stderr }));
            }
            None => return Err(self.give_up(|stderr| ExternalError::Late { program, expected, patience, stderr })),
        };
        let header = &answer.header;
        if header.veilsum != message::VERSION {
            let found = header.veilsum;
            return Err(self.give_up(|stderr| ExternalError::Version { program, found, stderr }));
        }
        match header.kind.as_str() {
            kind if kind == expected => Ok(answer),
            "error" => {
                let message = printable(header.message.as_deref().unwrap_or("nothing more"));
                Err(ExternalError::Refused { program, message })
            }
            kind => {
                let found = printable(kind);
                Err(self.give_up(|stderr| ExternalError::Kind { program, expected, found, stderr }))
            }
        }
    }

    /// A key that an answer must have.
    fn required(&mut self, value: Option<u64>, kind: &'static str, key: &'static str) -> Result<u64, ExternalError> {
        let program = self.program.clone();
        value.ok_or_else(|| self.give_up(|stderr| ExternalError::Key { program, kind, key, stderr }))
    }

    /// Ends a program that is not believed any more, and makes an error with what it said at last.
    fn give_up(&mut self, error: impl FnOnce(Stderr) -> ExternalError) -> ExternalError {
        error(self.process.take().map_or_else(Stderr::default, |process| process.end().1))
    }

    /// Of a program that has closed its stdout: in most cases it has ended.
    fn ended(&mut self, expected: &'static str) -> ExternalError {
        let program = self.program.clone();
        match self.process.take() {
            None => ExternalError::Over { program },
            Some(process) => {
                let (status, stderr) = process.ended();
                ExternalError::Ended { program, expected, status, stderr }
            }
        }
    }
}

impl Drop for ExternalTrainer {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.bye();
        }
    }
}

/// The first 200 characters of what somebody else wrote, without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    const MOST: usize = 200;
    let visible = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(MOST).map(visible).collect()
}

#[cfg(test)]
mod tests;
