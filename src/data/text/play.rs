//! Plays: speeches with blank lines between them, each under the name of its speaker.
//!
//! ```text
//! ROMEO:
//! But, soft! what light through yonder window breaks?
//! It is the east, and Juliet is the sun.
//!
//! JULIET:
//! Ay me!
//! ```

use super::TextProblem;
use super::source::blocks;

/// What somebody says before somebody else speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// Who says it: the line of the name without its colon.
    pub speaker: String,
    /// The lines below the name, with newlines between them; may be empty.
    pub text: String,
    /// Line of the first of them, from 1.
    pub line: u64,
}

/// The speeches of `text` in their order. A line that ends in a colon names a speaker only at the beginning of a speech.
///
/// # Errors
/// [`TextProblem::NoSpeaker`] for a speech whose first line is no name and a colon.
pub fn parse(text: &str) -> Result<Vec<Speech>, TextProblem> {
    blocks(text)
        .map(|(line, block)| {
            let (first, text) = block.split_once('\n').unwrap_or((block, ""));
            let name = first.trim().strip_suffix(':').map(str::trim).filter(|name| !name.is_empty());
            let speaker = name
                .ok_or_else(|| TextProblem::NoSpeaker { line, found: first.trim().chars().take(40).collect() })?
                .to_owned();
            Ok(Speech { speaker, text: text.to_owned(), line: line + 1 })
        })
        .collect()
}
