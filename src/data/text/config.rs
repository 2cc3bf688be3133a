//! The `text` member of `data`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::{Column, OneOrMany};

/// Text as samples of token ids.
///
/// ```json
/// {"text": {"name": "tiny-shakespeare", "test_fraction": 0.1, "length": 64}}
/// {"text": {"train": ["anna.txt", "bert.txt"], "test": "rest.txt", "format": "plain", "length": 128}}
/// {"text": {"train": "reviews.csv", "test_fraction": 0.2, "length": 128, "task": "class",
///           "format": {"csv": {"text": "review", "label": "stars", "group": "user"}},
///           "tokens": {"word-piece": "vocab.txt"}, "classes": ["bad", "good"]}}
/// ```
///
/// A sample has `length` features, each a token id as a whole number. **Privacy**: the alphabet and the vocabulary are
/// fixed beforehand, so that nothing but sizes (numbers of samples and of authors) is read from the data outside the
/// privacy accounting; the task `class` on a table without `classes` reads the list of labels besides. Protection of
/// one sample is that of one window or passage and not that of its author; with a `stride` below `length` a token is in
/// several samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// A published text, fetched at first use: `tiny-shakespeare`. Exactly one of `name` and `train` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["tiny-shakespeare", null]))]
    pub name: Option<String>,
    /// The training files, UTF-8, raw or gzipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<OneOrMany<PathBuf>>,
    /// The test files; exactly one of `test` and `test_fraction` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<OneOrMany<PathBuf>>,
    /// Share of the passages (speeches, paragraphs, rows) that becomes the test set, in (0, 1), drawn once by a fixed
    /// public key. Passages are whole and on one side each, and windows are cut afterwards: no token is on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_fraction: Option<f64>,
    /// What the files look like; `play` if absent beside `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TextFormat>,
    /// What the tokens are.
    #[serde(default)]
    pub tokens: Tokens,
    /// The characters of the tokens `characters`, each once, in the order of their ids; if absent, newline (id 0) and
    /// the 95 printable characters of ASCII (ids 1 to 95, in their order).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabet: Option<String>,
    /// What to do with a character that is not in the alphabet.
    #[serde(default)]
    pub unknown: Unknown,
    /// Tokens a sample, at least 1.
    pub length: usize,
    /// What a sample is, and what its label.
    #[serde(default)]
    pub task: Task,
    /// From one training window to the next, in 1..=`length`; `length` if absent, so that windows do not overlap. Windows
    /// of the test set never overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// What to do with the last tokens of an author, which fill no window.
    #[serde(default)]
    pub rest: Rest,
    /// The classes of the task `class`, in the order of their numbers: speakers of a play, labels of a table. A play needs
    /// them, and speeches of others are left out; without them the labels of a table are integers from 0, or text
    /// (classes in sorted order).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

impl TextConfig {
    /// The published text of that name as `{"name": NAME}` means it: speeches, characters, windows of 64, a tenth of the
    /// speeches to test on.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            train: None,
            test: None,
            test_fraction: Some(0.1),
            format: None,
            tokens: Tokens::Characters,
            alphabet: None,
            unknown: Unknown::Error,
            length: 64,
            task: Task::NextToken,
            stride: None,
            rest: Rest::Drop,
            classes: None,
        }
    }

    /// Every path in it.
    pub(in crate::data) fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = Vec::new();
        for files in self.train.iter_mut().chain(&mut self.test) {
            match files {
                OneOrMany::One(path) => paths.push(path),
                OneOrMany::Many(list) => paths.extend(list),
            }
        }
        if let Tokens::WordPiece(path) = &mut self.tokens {
            paths.push(path);
        }
        paths
    }
}

/// What the files look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TextFormat {
    /// Speeches with blank lines between them, each a line `NAME:` and then what is said. The natural id is the speaker; one
    /// name in several files is one speaker.
    Play,
    /// Paragraphs with blank lines between them. The natural id is the file.
    Plain,
    /// A table with a column of text. The natural id is `group`; without it, with several files, the file.
    Csv(TextTable),
}

/// Where a table has its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextTable {
    /// The column of the text.
    pub text: Column,
    /// The column of the label, for the task `class`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Column>,
    /// The column that says who wrote each row, for the partition by `natural`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Column>,
    /// Whether the first line holds names; if absent, it does when a column is given by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// What separates the cells, one ASCII character; a comma if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
}

/// What the tokens are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tokens {
    /// The characters of the alphabet. The padding has the id behind the last one.
    #[default]
    Characters,
    /// Pieces of lower-case words, as BERT cuts them (uncased): the file of the vocabulary, a piece a line, the id its line
    /// from 0. It holds `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`.
    WordPiece(PathBuf),
}

/// What to do with a character that is not in the alphabet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// Refuse the file, naming line and column.
    #[default]
    Error,
    /// Leave the character out.
    Drop,
}

/// What a sample is, and what its label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// `length` tokens in a row; the label is the token that follows. The passages of an author (without `group`, of a file)
    /// are joined in their order: characters by a blank line, pieces by `[SEP]`.
    #[default]
    NextToken,
    /// A passage, cut to `length` tokens or filled up with padding; the label is its class. Pieces stand between `[CLS]` and
    /// `[SEP]`. Speeches without a word are left out.
    Class,
}

/// What to do with the last tokens of an author, which fill no window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rest {
    /// Leave them out: fewer than `stride` tokens an author. Authors with at most `length` tokens have no sample.
    #[default]
    Drop,
    /// Fill the last window up with padding, so that every token but an author's first is predicted. The label of such a
    /// window is the padding, one more class with characters; a model has to leave it out of its loss.
    Pad,
}
