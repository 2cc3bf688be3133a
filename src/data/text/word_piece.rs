//! WordPiece as BERT's uncased models cut text (Devlin et al. 2019; `tokenization.py` of google-research/bert).
//!
//! ```text
//! text -> without control characters; white space becomes a space; CJK ideographs stand alone
//!      -> NFD without nonspacing marks (accents) -> lower case
//!      -> words, cut at spaces and around every punctuation character
//!      -> the longest piece of the vocabulary that begins a word, then the longest `##piece` that goes on, to its end
//! ```
//!
//! A word with a part that no piece covers, or of more than 100 characters, is `[UNK]` as a whole. A text cannot write
//! special tokens: `[SEP]` in it is five characters like others.

use std::collections::HashMap;
use std::path::Path;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use super::TextProblem;

/// Words of more characters are unknown.
const LONGEST_WORD: usize = 100;
/// Largest number of ids that are exact in `f32`.
const MOST_TOKENS: usize = 1 << 24;

/// A vocabulary of word pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordPiece {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    /// `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`.
    special: [u32; 4],
}

impl WordPiece {
    /// Reads a vocabulary: a token a line, its id the line from 0.
    ///
    /// # Errors
    /// [`DataError::Io`](crate::data::DataError::Io), and [`DataError::Text`](crate::data::DataError::Text) with what
    /// [`WordPiece::parse`] says.
    pub fn open(path: &Path) -> Result<Self, crate::data::DataError> {
        let text = super::source::read(path)?;
        Self::parse(&text).map_err(|problem| crate::data::DataError::Text { path: path.to_owned(), problem })
    }

    /// The vocabulary whose lines are `text`.
    ///
    /// # Errors
    /// [`TextProblem::EmptyToken`], [`TextProblem::DuplicateToken`], [`TextProblem::NoToken`] without `[PAD]`, `[UNK]`,
    /// `[CLS]` or `[SEP]`, [`TextProblem::Vocabulary`] with more than 2^24 tokens.
    pub fn parse(text: &str) -> Result<Self, TextProblem> {
        let tokens: Vec<String> = text.lines().map(str::to_owned).collect();
        if tokens.len() > MOST_TOKENS {
            return Err(TextProblem::Vocabulary { found: tokens.len(), limit: MOST_TOKENS });
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.trim().is_empty() {
                return Err(TextProblem::EmptyToken { line: id + 1 });
            }
            if let Some(first) = ids.insert(token.clone(), id as u32) {
                let (line, first) = (id + 1, first as usize + 1);
                return Err(TextProblem::DuplicateToken { line, first, token: token.clone() });
            }
        }
        let find = |token| ids.get(token).copied().ok_or(TextProblem::NoToken { token });
        let special = [find("[PAD]")?, find("[UNK]")?, find("[CLS]")?, find("[SEP]")?];
        Ok(Self { tokens, ids, special })
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.tokens.len()
    }

    /// The id of `[PAD]`.
    #[must_use]
    pub fn padding(&self) -> u32 {
        self.special[0]
    }

    /// The id of `[UNK]`.
    #[must_use]
    pub fn unknown(&self) -> u32 {
        self.special[1]
    }

    /// The id of `[CLS]`, with which a text to be classified begins.
    #[must_use]
    pub fn begin(&self) -> u32 {
        self.special[2]
    }

    /// The id of `[SEP]`, with which a text ends.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.special[3]
    }

    /// The ids of `text`, without `[CLS]` and `[SEP]`.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for word in words(&normalize(text)) {
            self.pieces(word, &mut ids);
        }
        ids
    }

    /// The tokens of `ids` with spaces between words; ids that are none are left out. What [`WordPiece::encode`] loses
    /// (case, accents, spaces, unknown words) stays lost.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        for token in ids.iter().filter_map(|&id| self.tokens.get(id as usize)) {
            match token.strip_prefix("##") {
                Some(rest) if !text.is_empty() => text.push_str(rest),
                _ if text.is_empty() => text.push_str(token),
                _ => text.extend([" ", token]),
            }
        }
        text
    }

    /// Greedy cut of one word: `[UNK]` unless pieces cover all of it.
    fn pieces(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let ends: Vec<usize> = word.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
        let mut start = 0;
        while ends.len() <= LONGEST_WORD && start < word.len() {
            let prefix = if start == 0 { "" } else { "##" };
            let longest = ends
                .iter()
                .rev()
                .take_while(|&&end| end > start)
                .find_map(|&end| self.ids.get(&format!("{prefix}{}", &word[start..end])).map(|&id| (end, id)));
            let Some((end, id)) = longest else { break };
            ids.push(id);
            start = end;
        }
        if start < word.len() {
            ids.truncate(before);
            ids.push(self.unknown());
        }
    }
}

/// Clean, apart, without accents, in lower case.
fn normalize(text: &str) -> String {
    let clean = text.chars().filter(|&c| c != '\u{fffd}' && !is_control(c));
    let mut apart = String::with_capacity(text.len());
    for c in clean {
        match c {
            _ if c.is_whitespace() => apart.push(' '),
            _ if is_ideograph(c) => apart.extend([' ', c, ' ']),
            _ => apart.push(c),
        }
    }
    let bare = apart.nfd().filter(|c| c.general_category() != GeneralCategory::NonspacingMark);
    bare.flat_map(char::to_lowercase).collect()
}

/// Words between white space; a punctuation character is a word of its own.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().flat_map(|chunk| {
        chunk.split_inclusive(is_punctuation).flat_map(|part| {
            // Only the last character of a part can be punctuation.
            let cut =
                part.char_indices().next_back().filter(|(_, c)| is_punctuation(*c)).map_or(part.len(), |(at, _)| at);
            [&part[..cut], &part[cut..]].into_iter().filter(|word| !word.is_empty())
        })
    })
}

/// Control, format and private-use characters, but for tab and the ends of lines.
fn is_control(c: char) -> bool {
    use GeneralCategory::{Control, Format, PrivateUse};
    !matches!(c, '\t' | '\n' | '\r') && matches!(c.general_category(), Control | Format | PrivateUse)
}

/// ASCII that is no letter, digit, space or control character, and the categories P of Unicode.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The blocks of CJK ideographs that BERT sets apart.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2a6df | 0x2a700..=0x2b73f
        | 0x2b740..=0x2b81f | 0x2b820..=0x2ceaf | 0x2f800..=0x2fa1f)
}
