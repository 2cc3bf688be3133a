//! From text to token ids and back.

use std::collections::BTreeMap;
use std::path::Path;

use super::{TextConfig, TextProblem, Tokens, Unknown, WordPiece};
use crate::data::DataError;

/// What turns a text into ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokenizer {
    /// A character is a token.
    Characters(Characters),
    /// A piece of a word is a token.
    WordPiece(WordPiece),
}

impl Tokenizer {
    /// The tokenizer of `config`; the vocabulary's path starts at `base_dir`.
    ///
    /// # Errors
    /// [`DataError::Config`] for an alphabet with fewer than two characters, with one twice, or beside word pieces; those
    /// of [`WordPiece::open`].
    pub fn open(config: &TextConfig, base_dir: &Path) -> Result<Self, DataError> {
        match &config.tokens {
            Tokens::Characters => {
                let alphabet = config.alphabet.clone().unwrap_or_else(printable);
                Characters::new(&alphabet, config.unknown).map(Self::Characters)
            }
            Tokens::WordPiece(path) => {
                if config.alphabet.is_some() || config.unknown != Unknown::Error {
                    let (key, expected) = ("text.alphabet` or `text.unknown", "absent beside `word-piece`");
                    return Err(DataError::Config { key, found: "given".to_owned(), expected });
                }
                WordPiece::open(&base_dir.join(path)).map(Self::WordPiece)
            }
        }
    }

    /// Number of ids, that of the padding included.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Characters(characters) => characters.alphabet.len() + 1,
            Self::WordPiece(pieces) => pieces.vocabulary(),
        }
    }

    /// Number of ids that occur in a text: without the padding behind an alphabet.
    #[must_use]
    pub fn symbols(&self) -> usize {
        match self {
            Self::Characters(characters) => characters.alphabet.len(),
            Self::WordPiece(pieces) => pieces.vocabulary(),
        }
    }

    /// The id that fills the end of a short sample.
    #[must_use]
    pub fn padding(&self) -> u32 {
        match self {
            Self::Characters(characters) => characters.alphabet.len() as u32,
            Self::WordPiece(pieces) => pieces.padding(),
        }
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`TextProblem::Character`] for a character that is not in the alphabet, unless such are left out.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextProblem> {
        match self {
            Self::Characters(characters) => characters.encode(text),
            Self::WordPiece(pieces) => Ok(pieces.encode(text)),
        }
    }

    /// The text of `ids`; padding and ids that are none are left out. For characters the inverse of
    /// [`Tokenizer::encode`].
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        match self {
            Self::Characters(characters) => ids.iter().filter_map(|&id| characters.alphabet.get(id as usize)).collect(),
            Self::WordPiece(pieces) => {
                let ids: Vec<u32> = ids.iter().copied().filter(|&id| id != pieces.padding()).collect();
                pieces.decode(&ids)
            }
        }
    }

    /// What stands between two passages of an author: a blank line, as far as the alphabet has it, or `[SEP]`.
    pub(super) fn separator(&self) -> Vec<u32> {
        match self {
            Self::Characters(characters) => characters.ids.get(&'\n').map_or_else(Vec::new, |&id| vec![id; 2]),
            Self::WordPiece(pieces) => vec![pieces.end()],
        }
    }

    /// A passage to be classified, `length` ids: cut at its end, or filled up with padding.
    pub(super) fn frame(&self, ids: &[u32], length: usize) -> Vec<u32> {
        let mut framed = match self {
            Self::Characters(_) => ids.iter().copied().take(length).collect(),
            Self::WordPiece(pieces) => {
                let kept = ids.iter().copied().take(length.saturating_sub(2));
                std::iter::once(pieces.begin()).chain(kept).chain([pieces.end()]).collect::<Vec<_>>()
            }
        };
        framed.resize(length, self.padding());
        framed
    }
}

/// An alphabet: the id of a character is its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Characters {
    alphabet: Vec<char>,
    ids: BTreeMap<char, u32>,
    unknown: Unknown,
}

impl Characters {
    fn new(alphabet: &str, unknown: Unknown) -> Result<Self, DataError> {
        let wrong = |found: String| {
            Err(DataError::Config { key: "text.alphabet", found, expected: "at least two characters, each once" })
        };
        let alphabet: Vec<char> = alphabet.chars().collect();
        let ids: BTreeMap<char, u32> = alphabet.iter().enumerate().map(|(id, &c)| (c, id as u32)).collect();
        if alphabet.len() < 2 {
            return wrong(format!("{} characters long", alphabet.len()));
        }
        // The map holds the last place of a character that stands twice.
        if let Some((_, c)) = alphabet.iter().enumerate().find(|(id, c)| ids[c] != *id as u32) {
            return wrong(format!("a string with {c:?} twice"));
        }
        Ok(Self { alphabet, ids, unknown })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TextProblem> {
        let (mut line, mut column) = (1, 0);
        let mut ids = Vec::with_capacity(text.len());
        for c in text.chars() {
            column += 1;
            match (self.ids.get(&c), self.unknown) {
                (Some(&id), _) => ids.push(id),
                (None, Unknown::Drop) => {}
                (None, Unknown::Error) => return Err(TextProblem::Character { line, column, found: c }),
            }
            if c == '\n' {
                (line, column) = (line + 1, 0);
            }
        }
        Ok(ids)
    }
}

/// Newline and the 95 printable characters of ASCII.
fn printable() -> String {
    std::iter::once('\n').chain(' '..='~').collect()
}
