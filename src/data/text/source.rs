//! From files to passages: what is whole on one side of the split, and who wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{TextFormat, TextProblem, TextTable, play};
use crate::data::csv::{Cells, line_at};
use crate::data::{CellProblem, DataError, idx};

/// Most bytes of one text: 1 GiB.
const MAX_BYTES: u64 = 1 << 30;

/// A speech, a paragraph or a row.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) text: String,
    /// Number of its author.
    pub(super) author: u32,
    /// The label cell of a table.
    pub(super) label: Option<String>,
    /// Number of its file.
    pub(super) file: usize,
    pub(super) place: Place,
}

/// Where a passage stands in its file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Line, from 1, of its first character.
    Line(u64),
    /// Byte where its record begins.
    Record(u64),
}

/// All passages of a set of files.
#[derive(Clone, Debug)]
pub(super) struct Corpus {
    pub(super) paths: Vec<PathBuf>,
    pub(super) passages: Vec<Passage>,
    /// Names of the authors by number: speakers in the order in which they first speak, owners in sorted order. `None` if
    /// nothing tells authors apart.
    pub(super) authors: Option<Vec<String>>,
}

impl Corpus {
    /// Reads `paths`; `contents` are those of files that were read before.
    pub(super) fn read(
        format: &TextFormat,
        paths: Vec<PathBuf>,
        contents: Option<Vec<String>>,
    ) -> Result<Self, DataError> {
        if let TextFormat::Csv(table) = format {
            return Self::table(table, paths);
        }
        let texts = match contents {
            Some(contents) => contents,
            None => paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?,
        };
        match format {
            TextFormat::Play => Self::play(paths, &texts),
            _ => Self::plain(paths, &texts),
        }
    }

    fn play(paths: Vec<PathBuf>, texts: &[String]) -> Result<Self, DataError> {
        let mut corpus = Self { paths, passages: Vec::new(), authors: None };
        let (mut names, mut numbers) = (Vec::new(), BTreeMap::new());
        for (file, text) in texts.iter().enumerate() {
            let path = &corpus.paths[file];
            let speeches = play::parse(text).map_err(|problem| DataError::Text { path: path.clone(), problem })?;
            if speeches.is_empty() {
                return Err(DataError::Empty { path: path.clone(), what: "speeches" });
            }
            for play::Speech { speaker, text, line } in speeches {
                let author = *numbers.entry(speaker.clone()).or_insert_with(|| {
                    names.push(speaker);
                    names.len() as u32 - 1
                });
                corpus.passages.push(Passage { text, author, label: None, file, place: Place::Line(line) });
            }
        }
        corpus.authors = Some(names);
        Ok(corpus)
    }

    fn plain(paths: Vec<PathBuf>, texts: &[String]) -> Result<Self, DataError> {
        let mut passages = Vec::new();
        for (file, text) in texts.iter().enumerate() {
            let before = passages.len();
            passages.extend(blocks(text).map(|(line, block)| Passage {
                text: block.to_owned(),
                author: file as u32,
                label: None,
                file,
                place: Place::Line(line),
            }));
            if passages.len() == before {
                return Err(DataError::Empty { path: paths[file].clone(), what: "text" });
            }
        }
        let authors = Some(paths.iter().map(|path| path.display().to_string()).collect());
        Ok(Self { paths, passages, authors })
    }

    fn table(table: &TextTable, paths: Vec<PathBuf>) -> Result<Self, DataError> {
        let (mut passages, mut owners) = (Vec::new(), Vec::new());
        for (file, path) in paths.iter().enumerate() {
            let wanted: Vec<_> =
                [Some(&table.text), table.label.as_ref(), table.group.as_ref()].into_iter().flatten().collect();
            let before = passages.len();
            let mut cells = Cells::open("text.format.csv.delimiter", path, &wanted, table.header, table.delimiter)?;
            while let Some((start, mut row)) = cells.next_row()? {
                owners.extend(table.group.as_ref().and_then(|_| row.pop()));
                let label = table.label.as_ref().and_then(|_| row.pop());
                let text = row.pop().unwrap_or_default();
                let author = file as u32;
                passages.push(Passage { text, author, label, file, place: Place::Record(start) });
            }
            if passages.len() == before {
                return Err(DataError::Empty { path: path.clone(), what: "samples" });
            }
        }
        let authors = if table.group.is_some() {
            let names: Vec<String> = owners.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            for (passage, owner) in passages.iter_mut().zip(&owners) {
                passage.author = names.binary_search(owner).unwrap_or(0) as u32;
            }
            Some(names)
        } else {
            (paths.len() > 1).then(|| paths.iter().map(|path| path.display().to_string()).collect())
        };
        Ok(Self { paths, passages, authors })
    }

    /// `problem`, which counts lines from the beginning of `passage`, as an error that names the place in the file.
    pub(super) fn error(&self, passage: &Passage, column: &str, problem: TextProblem) -> DataError {
        let path = self.paths[passage.file].clone();
        match (passage.place, problem) {
            (Place::Line(first), TextProblem::Character { line, column, found }) => {
                DataError::Text { path, problem: TextProblem::Character { line: first + line - 1, column, found } }
            }
            (Place::Record(_), TextProblem::Character { found, .. }) => {
                self.cell(passage, column, CellProblem::Character { found })
            }
            (_, problem) => DataError::Text { path, problem },
        }
    }

    /// What is wrong with a cell of the record of `passage`.
    pub(super) fn cell(&self, passage: &Passage, column: &str, problem: CellProblem) -> DataError {
        let path = self.paths[passage.file].clone();
        let line = match passage.place {
            Place::Line(line) => line,
            Place::Record(start) => line_at(&path, start),
        };
        DataError::Cell { path, line, column: column.to_owned(), problem }
    }
}

/// A text file, raw or gzipped, without a byte-order mark and with `\n` at the end of its lines.
pub(super) fn read(path: &Path) -> Result<String, DataError> {
    let mut bytes = Vec::new();
    idx::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    decode(path, bytes)
}

/// The text of bytes that were read from `path`.
pub(super) fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, DataError> {
    let wrong = |problem| DataError::Text { path: path.to_owned(), problem };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(TextProblem::TooLarge { limit: MAX_BYTES }));
    }
    let text =
        String::from_utf8(bytes).map_err(|e| wrong(TextProblem::NotUtf8 { byte: e.utf8_error().valid_up_to() }))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.replace("\r\n", "\n"))
}

/// Runs of lines that are not blank, each with the number of its first line, from 1.
pub(super) fn blocks(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut lines = text.split_inclusive('\n').scan((1, 0), |(line, start), content| {
        let at = (*line, *start, content.trim().is_empty());
        (*line, *start) = (*line + 1, *start + content.len());
        Some(at)
    });
    std::iter::from_fn(move || {
        let (first, start, _) = lines.find(|(_, _, blank)| !blank)?;
        let end = lines.find(|(_, _, blank)| *blank).map_or(text.len(), |(_, end, _)| end);
        Some((first, text[start..end].trim_end_matches('\n')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_know_their_lines() {
        let found: Vec<_> = blocks("\n \na\nb\n\n\n c \n\t\nd").collect();
        assert_eq!(found, [(3, "a\nb"), (7, " c "), (9, "d")]);
        assert_eq!(blocks("").count() + blocks("\n\n").count(), 0);
    }

    #[test]
    fn marks_and_ends_of_lines_are_those_of_the_file() {
        let text = decode(Path::new("f"), b"\xef\xbb\xbfa\r\nb\r\n".to_vec()).unwrap();
        assert_eq!(text, "a\nb\n");
        let e = decode(Path::new("f"), b"ab\xffc".to_vec()).unwrap_err().to_string();
        assert!(e.contains("byte 2"), "{e}");
    }
}
