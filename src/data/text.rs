//! Text: from files of speeches, paragraphs or rows to samples of token ids.
//!
//! ```text
//! files -> passages (speech, paragraph, row), each with its author
//!       -> split: a passage is whole on one side
//!       -> tokens (characters of an alphabet, or word pieces)
//!       -> next-token: the passages of an author joined, cut into windows [T], label = the token that follows
//!          class:      a passage a sample [T], cut or padded, label = its class
//! ```
//!
//! The features of a sample are token ids, exact in `f32`. See [`TextConfig`].

mod config;
pub mod play;
mod problem;
mod samples;
mod source;
mod tokens;
mod word_piece;

pub use config::{Rest, Task, TextConfig, TextFormat, TextTable, Tokens, Unknown};
pub use problem::TextProblem;
pub use tokens::{Characters, Tokenizer};
pub use word_piece::WordPiece;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::samples::Side;
use self::source::{Corpus, Passage};
use super::csv::{Classes, is_missing};
use super::load::{Draw, check_labels, draw};
use super::table::check_split;
use super::{CellProblem, Column, DataError, OneOrMany, Split};

/// Loads the text that `config` names; relative paths start at `base_dir`.
pub(super) fn load(config: &TextConfig, base_dir: &Path, progress: bool) -> Result<Split, DataError> {
    load_from(config, base_dir, |name| super::load::published_text(name, progress))
}

/// As [`load`], with `published` for path and bytes of a published text.
pub(super) fn load_from(
    config: &TextConfig,
    base_dir: &Path,
    published: impl Fn(&str) -> Result<(PathBuf, Vec<u8>), DataError>,
) -> Result<Split, DataError> {
    check(config)?;
    let tokenizer = Tokenizer::open(config, base_dir)?;
    let format = config.format.clone().unwrap_or(TextFormat::Play);
    let paths = |files: &OneOrMany<PathBuf>| files.as_slice().iter().map(|p| base_dir.join(p)).collect::<Vec<_>>();
    let train = match (&config.name, &config.train) {
        (Some(name), _) => {
            let (path, bytes) = published(name)?;
            let text = source::decode(&path, bytes)?;
            Corpus::read(&format, vec![path], Some(vec![text]))?
        }
        (None, files) => Corpus::read(&format, files.as_ref().map(paths).unwrap_or_default(), None)?,
    };
    let test = config.test.as_ref().map(|files| Corpus::read(&format, paths(files), None)).transpose()?;
    let (kept, held_out) = match &test {
        Some(test) => (
            train.passages.iter().collect(),
            Side { corpus: test, passages: test.passages.iter().collect(), part: "test" },
        ),
        None => {
            let (kept, held_out) = cut(&train, config.test_fraction)?;
            (kept, Side { corpus: &train, passages: held_out, part: "test" })
        }
    };
    let kept = Side { corpus: &train, passages: kept, part: "training" };
    let name = config.name.as_deref().unwrap_or("text");
    let mut split = match (config.task, &format) {
        (Task::NextToken, _) => {
            let column = text_column(&format);
            let stride = config.stride.unwrap_or(config.length);
            let train = kept.windows(name, config, &tokenizer, stride, &column)?;
            Split { train, test: held_out.windows(name, config, &tokenizer, config.length, &column)? }
        }
        (Task::Class, TextFormat::Csv(_)) => rows(name, config, &format, &tokenizer, &kept, &held_out)?,
        (Task::Class, _) => speakers(name, config, &tokenizer, &kept, &held_out)?,
    };
    if test.is_some() {
        // Authors of other files are numbered for themselves.
        split.test.natural_ids = None;
    }
    Ok(split)
}

/// Whatever is wrong with the config itself, before a file is read.
fn check(config: &TextConfig) -> Result<(), DataError> {
    let wrong = |key, found: &str, expected| Err(DataError::Config { key, found: found.to_owned(), expected });
    if config.name.is_some() == config.train.is_some() {
        let found = if config.name.is_some() { "given beside `name`" } else { "absent, as `name` is" };
        return wrong("text.train", found, "given, or `name`: one of the two");
    }
    for (key, files) in [("text.train", &config.train), ("text.test", &config.test)] {
        if files.as_ref().is_some_and(|files| files.as_slice().is_empty()) {
            return wrong(key, "[]", "at least one file");
        }
    }
    check_split(config.test.is_some(), config.test_fraction)?;
    match (&config.format, config.train.is_some()) {
        (None, true) => return wrong("text.format", "absent", "`play`, `plain` or {\"csv\": ...}"),
        (Some(TextFormat::Csv(_)), false) => return wrong("text.format", "csv", "`play` or `plain` beside `name`"),
        _ => {}
    }
    let least = match (config.task, &config.tokens) {
        (Task::Class, Tokens::WordPiece(_)) => 3,
        _ => 1,
    };
    if config.length < least || config.length == usize::MAX {
        let expected = if least == 3 { "at least 3, for [CLS], a piece and [SEP]" } else { "at least 1" };
        return wrong("text.length", &config.length.to_string(), expected);
    }
    if let Some(stride) = config.stride.filter(|s| !(1..=config.length).contains(s)) {
        return wrong("text.stride", &stride.to_string(), "in 1..=`length`");
    }
    match config.task {
        Task::NextToken if config.classes.is_some() => {
            wrong("text.classes", "given", "absent with the task `next-token`")
        }
        Task::Class if config.stride.is_some() => wrong("text.stride", "given", "absent with the task `class`"),
        Task::Class if config.rest != Rest::Drop => wrong("text.rest", "given", "absent with the task `class`"),
        Task::Class => check_classes(config),
        Task::NextToken => Ok(()),
    }
}

/// Whether the classes of a classification are known.
fn check_classes(config: &TextConfig) -> Result<(), DataError> {
    let wrong = |key, found: String, expected| Err(DataError::Config { key, found, expected });
    match &config.format {
        Some(TextFormat::Plain) => {
            return wrong("text.task", "class".to_owned(), "`next-token` with the format `plain`");
        }
        Some(TextFormat::Csv(TextTable { label: None, .. })) => {
            return wrong("text.format.csv.label", "absent".to_owned(), "a column with the task `class`");
        }
        Some(TextFormat::Csv(_)) if config.classes.is_none() => return Ok(()),
        _ => {}
    }
    let Some(classes) = &config.classes else {
        return wrong("text.classes", "absent".to_owned(), "the speakers to tell apart");
    };
    let mut seen = BTreeSet::new();
    if let Some(twice) = classes.iter().find(|name| !seen.insert(*name)) {
        return wrong("text.classes", format!("a list with `{twice}` twice"), "at least two names, each once");
    }
    if classes.len() < 2 {
        return wrong("text.classes", format!("a list of {}", classes.len()), "at least two names, each once");
    }
    Ok(())
}

/// Holds `round(fraction n)` of n passages out, at least one on each side. Both sides keep the order.
fn cut(corpus: &Corpus, fraction: Option<f64>) -> Result<(Vec<&Passage>, Vec<&Passage>), DataError> {
    let n = corpus.passages.len();
    if n < 2 {
        let path = corpus.paths.first().cloned().unwrap_or_default();
        return Err(DataError::Empty {
            path,
            what: "second passage to test on; give `test` instead of `test_fraction`",
        });
    }
    let count = (fraction.unwrap_or(0.0) * n as f64).round().clamp(1.0, (n - 1) as f64) as usize;
    let mut held_out = draw(n, count, Draw::TestFraction).into_iter().peekable();
    let (test, train): (Vec<_>, Vec<_>) =
        corpus.passages.iter().enumerate().partition(|(i, _)| held_out.next_if_eq(i).is_some());
    let passages = |side: Vec<(usize, _)>| side.into_iter().map(|(_, passage)| passage).collect();
    Ok((passages(train), passages(test)))
}

/// Speeches of the speakers that `classes` names.
fn speakers(
    name: &str,
    config: &TextConfig,
    tokenizer: &Tokenizer,
    train: &Side<'_>,
    test: &Side<'_>,
) -> Result<Split, DataError> {
    let classes = config.classes.clone().unwrap_or_default();
    let known = train.corpus.authors.as_deref().unwrap_or_default();
    if let Some(name) = classes.iter().find(|name| !known.contains(name)) {
        let near = |k: &&String| strsim::jaro_winkler(&name.to_lowercase(), &k.to_lowercase());
        let nearest = known.iter().max_by(|a, b| near(a).total_cmp(&near(b))).filter(|k| near(k) > 0.7).cloned();
        let problem = TextProblem::UnknownSpeaker { name: name.clone(), nearest, speakers: known.len() };
        return Err(DataError::Text { path: train.corpus.paths.first().cloned().unwrap_or_default(), problem });
    }
    let part = |side: &Side<'_>| {
        let numbers: Vec<Option<u32>> = side.corpus.authors.iter().flatten().map(|a| number(&classes, a)).collect();
        let class = |passage: &Passage| Ok(numbers.get(passage.author as usize).copied().flatten());
        let mut data = side.labelled(name, config.length, tokenizer, classes.len(), "", class)?;
        data.class_names = Some(classes.clone());
        Ok(data)
    };
    Ok(Split { train: part(train)?, test: part(test)? })
}

/// Rows of a table with the classes of its label column.
fn rows(
    name: &str,
    config: &TextConfig,
    format: &TextFormat,
    tokenizer: &Tokenizer,
    train: &Side<'_>,
    test: &Side<'_>,
) -> Result<Split, DataError> {
    let (text, label) = (text_column(format), label_column(format));
    for side in [train, test] {
        for passage in &side.passages {
            if passage.label.as_deref().is_none_or(is_missing) {
                let found = passage.label.clone().unwrap_or_default();
                return Err(side.corpus.cell(passage, &label, CellProblem::MissingLabel { found }));
            }
            if passage.text.is_empty() {
                return Err(side.corpus.cell(passage, &text, CellProblem::NoText));
            }
        }
    }
    let labels = || train.passages.iter().chain(&test.passages).filter_map(|p| p.label.as_deref());
    let known = match &config.classes {
        Some(_) => Classes::Integers,
        None => Classes::find(None, labels())?,
    };
    let class = |side: &Side<'_>, passage: &Passage| {
        let cell = passage.label.as_deref().unwrap_or_default();
        let found = match &config.classes {
            Some(names) => number(names, cell)
                .ok_or_else(|| CellProblem::NotListed { found: cell.to_owned(), known: names.join(", ") }),
            None => known.class(cell),
        };
        found.map(Some).map_err(|problem| side.corpus.cell(passage, &label, problem))
    };
    let part = |side: &Side<'_>, classes| {
        side.labelled(name, config.length, tokenizer, classes, &text, |passage| class(side, passage))
    };
    let mut split = Split { train: part(train, 0)?, test: part(test, 0)? };
    let classes = config.classes.as_ref().map_or_else(|| known.count(&split.train.labels), Vec::len);
    check_labels(&test.corpus.paths[0], &split.test.labels, classes)?;
    let names = config.classes.clone().or_else(|| known.names());
    for data in [&mut split.train, &mut split.test] {
        (data.classes, data.class_names) = (classes, names.clone());
    }
    Ok(split)
}

/// The place of `name` in a list.
fn number(names: &[String], name: &str) -> Option<u32> {
    names.iter().position(|n| n == name).map(|i| i as u32)
}

/// The column of the text, as errors name it.
fn text_column(format: &TextFormat) -> String {
    match format {
        TextFormat::Csv(table) => column_name(&table.text),
        _ => String::new(),
    }
}

/// The column of the label, as errors name it.
fn label_column(format: &TextFormat) -> String {
    match format {
        TextFormat::Csv(TextTable { label: Some(label), .. }) => column_name(label),
        _ => String::new(),
    }
}

fn column_name(column: &Column) -> String {
    match column {
        Column::Index(i) => i.to_string(),
        Column::Name(name) => name.clone(),
    }
}
