//! Cells of a table of text as they stand, for queries.

use std::path::Path;

use ::csv::{ReaderBuilder, StringRecord, Trim};

use super::{DataError, idx};

/// The cells of the named columns of a comma-separated table whose first line names its columns: one vector a record, in
/// the order asked for. Compressed files are read as they are.
///
/// # Errors
/// [`DataError::Io`], [`DataError::Table`] for a line with another number of cells, [`DataError::NoColumn`],
/// [`DataError::Empty`] for a file without a line.
pub fn read(path: &Path, columns: &[&str]) -> Result<Vec<Vec<String>>, DataError> {
    let mut reader = ReaderBuilder::new().has_headers(false).trim(Trim::All).from_reader(idx::open(path)?);
    let broken = |source| DataError::Table { path: path.to_owned(), source };
    let mut record = StringRecord::new();
    if !reader.read_record(&mut record).map_err(broken)? {
        return Err(DataError::Empty { path: path.to_owned(), what: "line with the names of the columns" });
    }
    let names: Vec<String> = record.iter().map(|c| c.trim_start_matches('\u{feff}').trim().to_owned()).collect();
    let find = |column: &&str| {
        names.iter().position(|name| name == column).ok_or_else(|| DataError::NoColumn {
            path: path.to_owned(),
            column: (*column).to_owned(),
            known: names.join(", "),
        })
    };
    let places = columns.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    while reader.read_record(&mut record).map_err(broken)? {
        rows.push(places.iter().map(|&j| record.get(j).unwrap_or_default().to_owned()).collect());
    }
    Ok(rows)
}
