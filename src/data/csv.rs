//! Tables of text: one sample a line, numeric features, one column of labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ::csv::{Reader, ReaderBuilder, StringRecord, Trim};

use super::load::{MAX_CLASSES, check_labels, count_classes};
use super::table::{Raw, check_split, cut, finish, not_empty};
use super::{CellProblem, Column, CsvConfig, DataError, Missing, Split, idx};

/// A table before its labels are understood.
struct Table {
    path: PathBuf,
    features: Vec<f32>,
    /// Byte where its line starts, and text, of each label.
    labels: Vec<(u64, String)>,
    groups: Option<Vec<String>>,
    dim: usize,
    label_column: String,
}

/// Loads the tables that `config` names.
pub(super) fn load(config: &CsvConfig, base_dir: &Path) -> Result<Split, DataError> {
    check_split(config.test.is_some(), config.test_fraction)?;
    let paths = config.train.as_slice();
    if paths.is_empty() {
        return Err(DataError::Config { key: "csv.train", found: "[]".to_owned(), expected: "at least one file" });
    }
    let mut train = paths.iter().map(|p| read(config, &base_dir.join(p))).collect::<Result<Vec<_>, _>>()?;
    let mut test = config.test.iter().map(|p| read(config, &base_dir.join(p))).collect::<Result<Vec<_>, _>>()?;
    let labels = train.iter().chain(&test).flat_map(|t| t.labels.iter().map(|(_, text)| text.as_str()));
    let classes = Classes::find(config.positive_above, labels)?;
    let natural_ids = owners(&train);
    let train = classes.join(&mut train, natural_ids)?;
    let test = match test.is_empty() {
        true => None,
        false => Some(classes.join(&mut test, None)?),
    };
    let count = classes.count(&train.labels);
    if let Some(test) = &test {
        check_labels(&test.path, &test.labels, count)?;
    }
    finish("csv", cut(train, test, config.test_fraction)?, &config.normalize, count, classes.names())
}

/// How label cells become classes.
pub(super) enum Classes {
    Integers,
    Threshold(f64),
    Names(BTreeMap<String, u32>),
}

impl Classes {
    /// Numbers stay numbers; text throughout becomes classes in sorted order.
    pub(super) fn find<'a>(threshold: Option<f64>, labels: impl Iterator<Item = &'a str>) -> Result<Self, DataError> {
        if let Some(threshold) = threshold {
            if !threshold.is_finite() {
                let found = threshold.to_string();
                return Err(DataError::Config { key: "csv.positive_above", found, expected: "finite" });
            }
            return Ok(Self::Threshold(threshold));
        }
        let names: BTreeSet<&str> = labels.collect();
        if names.iter().any(|name| name.parse::<f64>().is_ok()) || names.len() > MAX_CLASSES {
            return Ok(Self::Integers);
        }
        Ok(Self::Names(names.into_iter().enumerate().map(|(i, name)| (name.to_owned(), i as u32)).collect()))
    }

    /// Number of classes, where `train` holds the classes of the training samples.
    pub(super) fn count(&self, train: &[u32]) -> usize {
        match self {
            Self::Integers => count_classes(train),
            Self::Threshold(_) => 2,
            Self::Names(names) => names.len(),
        }
    }

    /// What the classes are called, if they have names.
    pub(super) fn names(self) -> Option<Vec<String>> {
        match self {
            Self::Names(names) => Some(names.into_keys().collect()),
            _ => None,
        }
    }

    pub(super) fn class(&self, text: &str) -> Result<u32, CellProblem> {
        let found = || text.to_owned();
        match self {
            Self::Integers => text
                .parse::<f64>()
                .ok()
                .filter(|x| *x >= 0.0 && *x < MAX_CLASSES as f64 && x.fract() == 0.0)
                .map(|x| x as u32)
                .ok_or_else(|| CellProblem::NotAClass { found: found(), limit: MAX_CLASSES }),
            Self::Threshold(threshold) => match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Ok(u32::from(x > *threshold)),
                _ => Err(CellProblem::NotANumber { found: found() }),
            },
            // Every label of every table is in the map.
            Self::Names(names) => names.get(text).copied().ok_or_else(|| CellProblem::NotANumber { found: found() }),
        }
    }

    /// All tables, one after the other.
    fn join(&self, tables: &mut [Table], natural_ids: Option<Vec<u32>>) -> Result<Raw, DataError> {
        let mut raw = Raw { natural_ids, ..Raw::default() };
        for (i, table) in tables.iter_mut().enumerate() {
            if i == 0 {
                (raw.path, raw.dim) = (table.path.clone(), table.dim);
            } else if table.dim != raw.dim {
                let (train, test) = (raw.path, table.path.clone());
                return Err(DataError::Features { train, test, expected: raw.dim, found: table.dim });
            }
            raw.features.append(&mut table.features);
            for (start, text) in &table.labels {
                let label = self.class(text).map_err(|problem| DataError::Cell {
                    path: table.path.clone(),
                    line: line_at(&table.path, *start),
                    column: table.label_column.clone(),
                    problem,
                })?;
                raw.labels.push(label);
            }
        }
        Ok(raw)
    }
}

/// Owners by the `group` column; else, with several files, by file.
fn owners(tables: &[Table]) -> Option<Vec<u32>> {
    if tables.iter().all(|t| t.groups.is_some()) {
        let groups = || tables.iter().flat_map(|t| t.groups.iter().flatten());
        let ids: BTreeMap<&String, u32> =
            groups().collect::<BTreeSet<_>>().into_iter().enumerate().map(|(i, name)| (name, i as u32)).collect();
        return Some(groups().map(|name| ids[name]).collect());
    }
    (tables.len() > 1)
        .then(|| tables.iter().enumerate().flat_map(|(i, t)| std::iter::repeat_n(i as u32, t.labels.len())).collect())
}

/// Where the columns of a table are.
struct Layout {
    names: Vec<String>,
    label: usize,
    group: Option<usize>,
    features: Vec<usize>,
}

impl Layout {
    fn new(config: &CsvConfig, path: &Path, first: &StringRecord) -> Result<(Self, bool), DataError> {
        let by_name = |c: &Column| matches!(c, Column::Name(_));
        let named = by_name(&config.label) || config.group.iter().chain(&config.drop).any(by_name);
        let header = config.header.unwrap_or(named);
        // Positions first: whether the line is a header depends on which cells are features.
        let find = |column: &Column, header: bool| position(column, path, first, header);
        let build = |header: bool| -> Result<Self, DataError> {
            let label = find(&config.label, header)?;
            let group = config.group.as_ref().map(|g| find(g, header)).transpose()?;
            let drop = config.drop.iter().map(|d| find(d, header)).collect::<Result<Vec<_>, _>>()?;
            let features = (0..first.len()).filter(|j| *j != label && Some(*j) != group && !drop.contains(j)).collect();
            let names = first.iter().enumerate().map(|(j, n)| if header { n.to_owned() } else { j.to_string() });
            Ok(Self { names: names.collect(), label, group, features })
        };
        let layout = build(header)?;
        let guess = config.header.is_none()
            && !header
            && !layout.features.is_empty()
            && layout.features.iter().all(|&j| !is_missing(&first[j]) && first[j].parse::<f64>().is_err());
        Ok(if guess { (build(true)?, true) } else { (layout, header) })
    }
}

fn position(column: &Column, path: &Path, first: &StringRecord, header: bool) -> Result<usize, DataError> {
    let found = match column {
        Column::Index(i) => {
            let i = if *i < 0 { i.saturating_add(first.len() as i64) } else { *i };
            usize::try_from(i).ok().filter(|i| *i < first.len())
        }
        Column::Name(name) if header => first.iter().position(|cell| cell == name),
        Column::Name(_) => None,
    };
    found.ok_or_else(|| DataError::NoColumn {
        path: path.to_owned(),
        column: match column {
            Column::Index(i) => i.to_string(),
            Column::Name(name) => name.clone(),
        },
        known: match header {
            true => first.iter().collect::<Vec<_>>().join(", "),
            false => format!("0 to {} (no header)", first.len().saturating_sub(1)),
        },
    })
}

pub(super) fn is_missing(cell: &str) -> bool {
    ["", "?"].contains(&cell) || ["nan", "na"].iter().any(|m| cell.eq_ignore_ascii_case(m))
}

/// A table and its first record; `key` is the member that `delimiter` comes from.
fn open(
    key: &'static str,
    path: &Path,
    delimiter: Option<char>,
) -> Result<(Reader<Box<dyn Read>>, StringRecord), DataError> {
    let delimiter = delimiter.unwrap_or(',');
    let byte = u8::try_from(delimiter)
        .ok()
        .filter(u8::is_ascii)
        .filter(|d| !b"\"\r\n".contains(d))
        .ok_or_else(|| DataError::Config { key, found: delimiter.to_string(), expected: "one ASCII character" })?;
    let mut reader =
        ReaderBuilder::new().has_headers(false).trim(Trim::All).delimiter(byte).from_reader(idx::open(path)?);
    let mut record = StringRecord::new();
    if !reader.read_record(&mut record).map_err(|source| DataError::Table { path: path.to_owned(), source })? {
        return Err(DataError::Empty { path: path.to_owned(), what: "samples" });
    }
    // A byte-order mark belongs to the file, not to the first name.
    if record.get(0).is_some_and(|cell| cell.starts_with('\u{feff}')) {
        let position = record.position().cloned();
        record = record.iter().map(|cell| cell.trim_start_matches('\u{feff}').trim()).collect();
        record.set_position(position);
    }
    Ok((reader, record))
}

/// Some columns of a table as text, row by row.
pub(super) struct Cells {
    path: PathBuf,
    reader: Reader<Box<dyn Read>>,
    columns: Vec<usize>,
    /// The record that was read and not handed out yet.
    first: Option<StringRecord>,
}

impl Cells {
    /// Opens a table for `columns`; without `header` the first line holds names if one of them is asked for by name.
    pub(super) fn open(
        key: &'static str,
        path: &Path,
        columns: &[&Column],
        header: Option<bool>,
        delimiter: Option<char>,
    ) -> Result<Self, DataError> {
        let (reader, first) = open(key, path, delimiter)?;
        let header = header.unwrap_or_else(|| columns.iter().any(|c| matches!(c, Column::Name(_))));
        let columns = columns.iter().map(|c| position(c, path, &first, header)).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), reader, columns, first: (!header).then_some(first) })
    }

    /// Byte where the next record begins (see [`line_at`]), and its cells in the order asked for; `None` at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<(u64, Vec<String>)>, DataError> {
        let mut record = self.first.take().unwrap_or_default();
        let read = |source| DataError::Table { path: self.path.clone(), source };
        if record.is_empty() && !self.reader.read_record(&mut record).map_err(read)? {
            return Ok(None);
        }
        let start = record.position().map_or(0, ::csv::Position::byte);
        let cells = self.columns.iter().map(|&j| record.get(j).unwrap_or_default().to_owned()).collect();
        Ok(Some((start, cells)))
    }
}

fn read(config: &CsvConfig, path: &Path) -> Result<Table, DataError> {
    let (mut reader, mut record) = open("csv.delimiter", path, config.delimiter)?;
    let broken = |source| DataError::Table { path: path.to_owned(), source };
    let (layout, header) = Layout::new(config, path, &record)?;
    let mut table = Table {
        path: path.to_owned(),
        features: Vec::new(),
        labels: Vec::new(),
        groups: layout.group.map(|_| Vec::new()),
        dim: layout.features.len(),
        label_column: layout.names[layout.label].clone(),
    };
    let mut there = !header || reader.read_record(&mut record).map_err(broken)?;
    while there {
        let start = record.position().map_or(0, ::csv::Position::byte);
        row(config, &layout, &record, start, &mut table)?;
        there = reader.read_record(&mut record).map_err(broken)?;
    }
    not_empty(path, table.labels.len(), table.dim)?;
    Ok(table)
}

/// The line, from 1, of the record that the reader began at byte `start`. The reader counts blank lines and
/// the end of a `\r\n` to the record after them; this counts what an editor shows.
pub(super) fn line_at(path: &Path, start: u64) -> u64 {
    let Ok(reader) = idx::open(path) else { return 1 };
    let mut line = 1;
    for (at, byte) in (0..).zip(BufReader::new(reader).bytes()) {
        match byte {
            Ok(b'\n') => line += 1,
            Ok(b'\r') => {}
            Ok(_) if at < start => {}
            _ => break,
        }
    }
    line
}

fn row(
    config: &CsvConfig,
    layout: &Layout,
    cells: &StringRecord,
    start: u64,
    out: &mut Table,
) -> Result<(), DataError> {
    let path = out.path.clone();
    let wrong = |j: usize, problem| DataError::Cell {
        line: line_at(&path, start),
        path: path.clone(),
        column: layout.names[j].clone(),
        problem,
    };
    for &j in &layout.features {
        let cell = &cells[j];
        if is_missing(cell) {
            if config.missing == Missing::Error {
                return Err(wrong(j, CellProblem::Missing { found: cell.to_owned() }));
            }
            out.features.push(f32::NAN);
            continue;
        }
        match cell.parse::<f32>() {
            Ok(x) if x.is_finite() => out.features.push(x),
            _ => return Err(wrong(j, CellProblem::NotANumber { found: cell.to_owned() })),
        }
    }
    let label = &cells[layout.label];
    if is_missing(label) {
        return Err(wrong(layout.label, CellProblem::MissingLabel { found: label.to_owned() }));
    }
    out.labels.push((start, label.to_owned()));
    if let (Some(groups), Some(j)) = (&mut out.groups, layout.group) {
        groups.push(cells[j].to_owned());
    }
    Ok(())
}
