//! What can go wrong with data: every variant names the file and carries the numbers.

use std::fmt;
use std::path::PathBuf;

use super::text::TextProblem;

/// What can go wrong with data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The first four bytes are not those of the IDX kind asked for.
    #[error(
        "{path}: not an IDX file of {expected_dims} dimensions of {expected_type}: magic number {found:#010x}, expected {expected:#010x}"
    )]
    Magic {
        /// The file.
        path: PathBuf,
        /// Element type asked for.
        expected_type: &'static str,
        /// Dimensions asked for.
        expected_dims: u8,
        /// Magic number asked for.
        expected: u32,
        /// Magic number found.
        found: u32,
    },
    /// A file ends before its header or its data do.
    #[error("{path}: truncated: {what} needs {expected} bytes, the file holds {found}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Which part.
        what: &'static str,
        /// Bytes that the part needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Bytes follow the last element.
    #[error("{path}: {expected} bytes of data expected after the header, found {found}")]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes that the header announces.
        expected: u64,
        /// Bytes found; when decompressing, one more than expected stands for "more".
        found: u64,
    },
    /// A header announces more than this program reads.
    #[error("{path}: dimensions {dims:?} announce more than {limit} bytes, the limit of one array")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Dimensions found.
        dims: Vec<u64>,
        /// Most bytes accepted.
        limit: u64,
    },
    /// Two files that go together have another number of samples.
    #[error("{labels} has {found} labels, but {samples} has {expected} samples")]
    Counts {
        /// The file with the samples.
        samples: PathBuf,
        /// The file with the labels.
        labels: PathBuf,
        /// Samples.
        expected: usize,
        /// Labels.
        found: usize,
    },
    /// Training and test samples have another number of features.
    #[error("{test} has {found} features a sample, but {train} has {expected}")]
    Features {
        /// The training file.
        train: PathBuf,
        /// The other file.
        test: PathBuf,
        /// Features of a training sample.
        expected: usize,
        /// Features of the other.
        found: usize,
    },
    /// Content other than the published one.
    #[error("{path}: content sha256 {found}, expected {expected}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// Published hash.
        expected: &'static str,
        /// Hash found.
        found: String,
    },
    /// The cache folder of the user is unknown.
    #[error("no cache folder: set {variable} to a folder that may hold data sets")]
    NoCacheFolder {
        /// The environment variable that names one.
        variable: &'static str,
    },
    /// No source gave a data set.
    #[error("{0}")]
    Unobtainable(Box<Unobtainable>),
    /// No data set of that name.
    #[error("unknown data set `{name}`{}; the data sets are {known}", hint(nearest))]
    UnknownName {
        /// Name asked for.
        name: String,
        /// The nearest name, if one is near.
        nearest: Option<&'static str>,
        /// All names.
        known: String,
    },
    /// `data` names no source, or several.
    #[error("`data` needs exactly one of `name`, `csv`, `npz`, `idx`, `text`; found {}", list(found))]
    OneSource {
        /// The sources found.
        found: Vec<&'static str>,
    },
    /// A member of a config is out of range.
    #[error("`{key}` is {found}, but must be {expected}")]
    Config {
        /// The member.
        key: &'static str,
        /// Value found.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `writers` beside a data set that is not MNIST in its published order.
    #[error("`writers` goes with `name: mnist` or with `idx` only: its row i belongs to image i")]
    WritersNeedMnist,
    /// A file of writers that is not one row of 8 integers an image.
    #[error("{path}: writers need {expected:?} integers, found {found:?}")]
    WriterShape {
        /// The file.
        path: PathBuf,
        /// Rows and columns needed.
        expected: [usize; 2],
        /// Dimensions found.
        found: Vec<usize>,
    },
    /// A file of writers that belongs to other images, or to another order.
    #[error("{path}: row {sample} says class {found}, but image {sample} has label {expected}")]
    WriterLabel {
        /// The file.
        path: PathBuf,
        /// Row, from 0.
        sample: usize,
        /// Label of the image.
        expected: u32,
        /// Class in the file.
        found: i32,
    },
    /// A cell of a table is wrong.
    #[error("{path}, line {line}, column {column}: {problem}")]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Name or number of the column.
        column: String,
        /// What is wrong.
        problem: CellProblem,
    },
    /// A table that is not well formed (another number of cells in a line, broken UTF-8).
    #[error("{path}: {source}")]
    Table {
        /// The file.
        path: PathBuf,
        /// The reader's reason, with the line.
        source: csv::Error,
    },
    /// A column that the table does not have.
    #[error("{path}: no column `{column}`; the columns are {known}")]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Column asked for.
        column: String,
        /// Columns there are.
        known: String,
    },
    /// An array that the archive does not have.
    #[error("{path}: no array `{key}`; the arrays are {known}")]
    NoArray {
        /// The file.
        path: PathBuf,
        /// Array asked for.
        key: String,
        /// Arrays there are.
        known: String,
    },
    /// An array whose header cannot be read.
    #[error("{path}: array `{key}` has no readable NPY header: found `{found}`")]
    ArrayHeader {
        /// The file.
        path: PathBuf,
        /// The array.
        key: String,
        /// Start of what stands there.
        found: String,
    },
    /// An array of another element type.
    #[error("{path}: array `{key}` has element type `{found}`; expected {expected}")]
    ArrayType {
        /// The file.
        path: PathBuf,
        /// The array.
        key: String,
        /// NumPy's name of the type found.
        found: String,
        /// Types that are read.
        expected: &'static str,
    },
    /// An array of another shape.
    #[error("{path}: array `{key}` has shape {found:?}; expected {expected}")]
    ArrayShape {
        /// The file.
        path: PathBuf,
        /// The array.
        key: String,
        /// Shape found.
        found: Vec<u64>,
        /// Shape asked for.
        expected: String,
    },
    /// A value of an array is not finite, or not a class.
    #[error("{path}: array `{key}`, element {index}: {found} is not {expected}")]
    ArrayValue {
        /// The file.
        path: PathBuf,
        /// The array.
        key: String,
        /// Position in C order.
        index: usize,
        /// Value found.
        found: f64,
        /// What would be right.
        expected: &'static str,
    },
    /// A feature that the normalisation brought out of the range of `f32`.
    #[error("{path}: sample {sample}, feature {feature} is not finite after the normalisation")]
    Overflow {
        /// The file.
        path: PathBuf,
        /// Sample, from 0, after the test set was cut off.
        sample: usize,
        /// Feature, from 0.
        feature: usize,
    },
    /// Another number of constants than features.
    #[error("`{key}` has {found} numbers, but a sample has {expected} features")]
    Constants {
        /// The member.
        key: &'static str,
        /// Features a sample.
        expected: usize,
        /// Constants found.
        found: usize,
    },
    /// A label outside the classes of the training set.
    #[error("{path}: sample {sample} has label {found}, but classes are 0..{classes}")]
    Label {
        /// The file.
        path: PathBuf,
        /// Index of the sample, from 0.
        sample: usize,
        /// Label found.
        found: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A data set without samples or without features.
    #[error("{path}: no {what}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// A text or a vocabulary that cannot be used.
    #[error("{path}: {problem}")]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column where there are any.
        problem: TextProblem,
    },
    /// A partition that cannot be dealt.
    #[error("cannot partition {samples} samples: {reason}")]
    Partition {
        /// Samples of the data set.
        samples: usize,
        /// Why not.
        reason: PartitionProblem,
    },
}

impl DataError {
    /// Wraps a reason of the system with the file that it concerns.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// What is wrong with a cell of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellProblem {
    /// Nothing there, or a sign for "unknown".
    #[error("missing value `{found}` (`\"missing\": \"zero\"` accepts it)")]
    Missing {
        /// The cell.
        found: String,
    },
    /// Not a finite decimal number.
    #[error("`{found}` is not a finite number")]
    NotANumber {
        /// The cell.
        found: String,
    },
    /// A label that is neither a class index nor text throughout.
    #[error("label {found} is not an integer in 0..{limit} (`positive_above` turns a number into two classes)")]
    NotAClass {
        /// The cell.
        found: String,
        /// Most classes.
        limit: usize,
    },
    /// A sample without a label.
    #[error("missing label `{found}`")]
    MissingLabel {
        /// The cell.
        found: String,
    },
    /// A label that is none of those listed.
    #[error("label `{found}` is not in `classes`, which has {known}")]
    NotListed {
        /// The cell.
        found: String,
        /// The classes.
        known: String,
    },
    /// A cell without text.
    #[error("no text")]
    NoText,
    /// A character that is not in the alphabet.
    #[error(
        "{found:?} (U+{:04X}) is not in the alphabet; remove it, add it to `alphabet`, or leave such characters out with \"unknown\": \"drop\"",
        u32::from(*found)
    )]
    Character {
        /// The character.
        found: char,
    },
}

/// Why data cannot be dealt to clients.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PartitionProblem {
    /// A count of zero.
    #[error("`{key}` is 0, but must be at least 1")]
    Zero {
        /// The member.
        key: &'static str,
    },
    /// More parts than samples.
    #[error("{parts} {what} asked for, at most one a sample is possible")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// Parts asked for.
        parts: usize,
    },
    /// A concentration that is not one.
    #[error("`alpha` is {found}, but must be finite and in {low}..={high}")]
    Alpha {
        /// Value found.
        found: f64,
        /// Least value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// No deal met the least size.
    #[error(
        "no Dirichlet deal gave each of {clients} clients {min_size} samples in {attempts} attempts; the best gave {best}: raise `alpha`, lower `clients` or `min_size`"
    )]
    MinSize {
        /// Clients asked for.
        clients: usize,
        /// Least size asked for.
        min_size: usize,
        /// Deals tried.
        attempts: u32,
        /// Least size of the best deal.
        best: usize,
    },
    /// Nobody knows who owns the samples.
    #[error("`{name}` has no natural ids: give `writers` (MNIST), `group` (CSV, NPZ, text) or several training files")]
    NoNaturalIds {
        /// The data set.
        name: String,
    },
}

/// A source that was tried, and why it gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The mirror or the package.
    pub source: String,
    /// Why not.
    pub reason: String,
}

/// A data set that no source gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unobtainable {
    /// The data set.
    pub name: String,
    /// The folder of the cache that lacks it.
    pub dir: PathBuf,
    /// Files that it needs, with their content hashes.
    pub files: Vec<(String, String)>,
    /// Every source tried, in order.
    pub tried: Vec<Attempt>,
}

impl fmt::Display for Unobtainable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "`{}` could not be fetched; {} sources tried:", self.name, self.tried.len())?;
        for Attempt { source, reason } in &self.tried {
            writeln!(f, "  - {source}: {reason}")?;
        }
        writeln!(f, "offline, put these files (raw or .gz) into {} yourself:", self.dir.display())?;
        for (file, sha256) in &self.files {
            writeln!(f, "  {file} (content sha256 {sha256})")?;
        }
        write!(f, "or train on the embedded set: \"data\": {{\"name\": \"digits\"}}")
    }
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |n| format!(" (did you mean `{n}`?)"))
}

fn list(found: &[&'static str]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(", ") }
}
