//! What can be wrong with a text.

/// What is wrong with a text or a vocabulary. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextProblem {
    /// Bytes that are no UTF-8.
    #[error("not UTF-8: no character begins at byte {byte} (from 0); convert the file to UTF-8")]
    NotUtf8 {
        /// Offset in the decompressed file, from 0.
        byte: usize,
    },
    /// More than this program reads.
    #[error("more than {limit} bytes, the limit of one text; split it into several files")]
    TooLarge {
        /// Most bytes accepted.
        limit: u64,
    },
    /// Samples that take more memory than this program gives to one array.
    #[error("{samples} samples of {length} tokens take more than {limit} bytes; lower `length` or raise `stride`")]
    TooManySamples {
        /// Samples.
        samples: usize,
        /// Tokens a sample.
        length: usize,
        /// Most bytes accepted.
        limit: u64,
    },
    /// A character that is not in the alphabet.
    #[error(
        "line {line}, column {column}: {found:?} (U+{:04X}) is not in the alphabet; remove it, add it to `alphabet`, or leave such characters out with \"unknown\": \"drop\"",
        u32::from(*found)
    )]
    Character {
        /// Line.
        line: u64,
        /// Column.
        column: usize,
        /// The character.
        found: char,
    },
    /// A speech that begins without a speaker.
    #[error("line {line}: a speech begins with `{found}`; expected a line with the speaker and a colon, as `ROMEO:`")]
    NoSpeaker {
        /// Line.
        line: u64,
        /// Start of what stands there.
        found: String,
    },
    /// A class that is not a speaker of the play.
    #[error("nobody is called `{name}`{}; the play has {speakers} speakers", hint(nearest))]
    UnknownSpeaker {
        /// The class.
        name: String,
        /// The nearest speaker, if one is near.
        nearest: Option<String>,
        /// Number of speakers.
        speakers: usize,
    },
    /// No author has enough text for one window.
    #[error(
        "no author has the {} tokens that one window of the {part} set and its label need: the longest text has {longest}; lower `length` (it is {length}), or fill up with \"rest\": \"pad\"",
        length.saturating_add(1)
    )]
    TooShort {
        /// `training` or `test`.
        part: &'static str,
        /// Tokens a sample.
        length: usize,
        /// Tokens of the longest author.
        longest: usize,
    },
    /// A vocabulary without one of the four tokens that cutting and padding need.
    #[error("no `{token}`; a vocabulary of word pieces holds [PAD], [UNK], [CLS] and [SEP], each alone on a line")]
    NoToken {
        /// The token.
        token: &'static str,
    },
    /// A token that stands twice in a vocabulary.
    #[error("line {line}: `{token}` stands in line {first} already; every token has one line")]
    DuplicateToken {
        /// Line.
        line: usize,
        /// Line of the first.
        first: usize,
        /// The token.
        token: String,
    },
    /// An empty line in a vocabulary.
    #[error("line {line} is empty; every line of a vocabulary is a token")]
    EmptyToken {
        /// Line.
        line: usize,
    },
    /// A vocabulary whose ids are not exact in `f32`.
    #[error("{found} tokens; at most {limit} ids are exact as features")]
    Vocabulary {
        /// Tokens.
        found: usize,
        /// Most tokens.
        limit: usize,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |n| format!(" (did you mean `{n}`?)"))
}
