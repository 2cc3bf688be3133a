//! What can go wrong with a program that trains.

use std::fmt;
use std::time::Duration;

use crate::model::ModelError;

/// The last lines that a program wrote to stderr.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stderr(pub Vec<String>);

impl fmt::Display for Stderr {
    /// Nothing, or the lines behind a word of explanation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str("; its last lines on stderr:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Why an external trainer gave no delta.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// No command.
    #[error("the command of the external trainer is empty, expected a program and its arguments")]
    Command,
    /// A model that is none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A message to the program that cannot be written as JSON.
    #[error("the message `{kind}` to the external trainer cannot be written: {source}")]
    Json {
        /// Kind of the message.
        kind: &'static str,
        /// The writer's reason.
        source: serde_json::Error,
    },
    /// Tensors that cannot be written.
    #[error("the weights for the external trainer cannot be written: {0}")]
    Container(#[from] safetensors::SafeTensorError),
    /// The program could not be started.
    #[error("cannot start the external trainer `{program}`: {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It ended after an earlier error.
    #[error("the external trainer `{program}` has ended; it has to be started again")]
    Over {
        /// The program.
        program: String,
    },
    /// It ended, or closed its stdout.
    #[error("the external trainer `{program}` ended ({status}) where it should have said `{expected}`{stderr}")]
    Ended {
        /// The program.
        program: String,
        /// The kind of message that was waited for.
        expected: &'static str,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: Stderr,
    },
    /// It was silent for too long.
    #[error("the external trainer `{program}` did not say `{expected}` within {} s and was ended{stderr}", patience.as_secs_f64())]
    Late {
        /// The program.
        program: String,
        /// The kind of message that was waited for.
        expected: &'static str,
        /// How long.
        patience: Duration,
        /// What it said.
        stderr: Stderr,
    },
    /// What it wrote is no message.
    #[error("the external trainer `{program}` should have said `{expected}`, but {problem}; it was ended{stderr}")]
    Stream {
        /// The program.
        program: String,
        /// The kind of message that was waited for.
        expected: &'static str,
        /// What is wrong.
        problem: StreamError,
        /// What it said.
        stderr: Stderr,
    },
    /// Another version of the protocol.
    #[error(
        "the external trainer `{program}` speaks version {found} of the protocol, expected 1; it was ended{stderr}"
    )]
    Version {
        /// The program.
        program: String,
        /// Its version.
        found: u32,
        /// What it said.
        stderr: Stderr,
    },
    /// A message that was not its turn.
    #[error("the external trainer `{program}` said `{found}`, expected `{expected}`; it was ended{stderr}")]
    Kind {
        /// The program.
        program: String,
        /// The kind that was waited for.
        expected: &'static str,
        /// The kind that came.
        found: String,
        /// What it said.
        stderr: Stderr,
    },
    /// A message without something that it must have.
    #[error("`{kind}` of the external trainer `{program}` has no `{key}`; it was ended{stderr}")]
    Key {
        /// The program.
        program: String,
        /// Kind of the message.
        kind: &'static str,
        /// The key.
        key: &'static str,
        /// What it said.
        stderr: Stderr,
    },
    /// The update of another round.
    #[error(
        "the external trainer `{program}` gave an update of round {found}, expected {expected}; it was ended{stderr}"
    )]
    Round {
        /// The program.
        program: String,
        /// The round that was asked for.
        expected: u32,
        /// The round that came.
        found: u64,
        /// What it said.
        stderr: Stderr,
    },
    /// A delta that is none.
    #[error("the update of the external trainer `{program}` cannot be used: {problem}; it was ended{stderr}")]
    Tensors {
        /// The program.
        program: String,
        /// What is wrong.
        problem: TensorError,
        /// What it said.
        stderr: Stderr,
    },
    /// It said why it cannot; it goes on and can be asked again.
    #[error("the external trainer `{program}` says: {message}")]
    Refused {
        /// The program.
        program: String,
        /// Its sentence.
        message: String,
    },
}

/// Why bytes of a program are no message.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Nothing came: its stdout is closed.
    #[error("it closed its stdout")]
    End,
    /// It closed its stdout within a message.
    #[error("it closed its stdout after {found} bytes of {what}{}", expected.map_or(String::new(), |e| format!(", expected {e}")))]
    Torn {
        /// Which part.
        what: &'static str,
        /// Its length, where it is known.
        expected: Option<u64>,
        /// Bytes that came.
        found: u64,
    },
    /// A line that does not end.
    #[error(
        "it wrote more than {limit} bytes without a line feed to stdout, which carries messages alone: log to stderr"
    )]
    Line {
        /// Most bytes of a line.
        limit: u64,
    },
    /// A line that is no header.
    #[error("it wrote `{line}` to stdout, which carries messages alone ({source}): log to stderr")]
    Header {
        /// Its beginning.
        line: String,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A message that is too long.
    #[error("it announced `{kind}` with {found} bytes, expected at most {limit}")]
    Bytes {
        /// Kind of the message.
        kind: String,
        /// Bytes announced.
        found: u64,
        /// The most.
        limit: u64,
    },
    /// Its stdout could not be read.
    #[error("its stdout cannot be read: {0}")]
    Io(std::io::Error),
}

/// Why a safetensors file is no delta.
#[derive(Debug, thiserror::Error)]
pub enum TensorError {
    /// No whole file.
    #[error("its {bytes} bytes are no whole safetensors file: {source}")]
    Container {
        /// Its length.
        bytes: usize,
        /// The reader's reason.
        source: safetensors::SafeTensorError,
    },
    /// Other tensors.
    #[error("it lacks the tensors [{missing}] and has [{besides}] besides")]
    Names {
        /// Names that are missing.
        missing: String,
        /// Names that should not be there.
        besides: String,
    },
    /// Another type or shape.
    #[error("tensor {name} is {found}, expected {expected}")]
    Shape {
        /// The tensor.
        name: String,
        /// Type and shape of the model.
        expected: String,
        /// Type and shape that came.
        found: String,
    },
}
