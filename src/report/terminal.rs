//! Tables for the terminal, for Markdown and for spreadsheets.

use std::fmt;

/// How the cells of a column are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Align {
    /// Text.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// A table of text. Rows may be shorter than the header (the rest is empty) or longer (the extra columns
/// have no header).
///
/// [`Display`](fmt::Display) sets the columns two spaces apart under a rule; widths count characters, so
/// that wide (East Asian) characters shift their row.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Table {
    /// One name a column.
    pub headers: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<String>>,
    /// One setting a column; columns beyond the end are set left.
    pub align: Vec<Align>,
}

impl Table {
    /// A table without rows; the first column is set left, the others right.
    #[must_use]
    pub fn new<S: Into<String>>(headers: impl IntoIterator<Item = S>) -> Self {
        let headers: Vec<String> = headers.into_iter().map(Into::into).collect();
        let align = (0..headers.len()).map(|i| if i == 0 { Align::Left } else { Align::Right }).collect();
        Self { headers, rows: Vec::new(), align }
    }

    /// The same table with other column settings.
    #[must_use]
    pub fn with_align(mut self, align: impl IntoIterator<Item = Align>) -> Self {
        self.align = align.into_iter().collect();
        self
    }

    /// Adds a row.
    pub fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// A Markdown table (GitHub's dialect); `|` and `\` are escaped, line breaks become spaces.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let columns = self.columns();
        let clean = |text: &str| one_line(text).replace('\\', "\\\\").replace('|', "\\|");
        let cleaned = Self {
            headers: self.headers.iter().map(|c| clean(c)).collect(),
            rows: self.rows.iter().map(|r| r.iter().map(|c| clean(c)).collect()).collect(),
            align: self.align.clone(),
        };
        let widths: Vec<usize> = cleaned.widths().into_iter().map(|w| w.max(3)).collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = (0..columns).map(|i| cleaned.cell(cells, i, widths[i])).collect();
            format!("| {} |\n", padded.join(" | "))
        };
        let rule: Vec<String> = (0..columns)
            .map(|i| match self.align_of(i) {
                Align::Left => "-".repeat(widths[i]),
                Align::Right => format!("{}:", "-".repeat(widths[i] - 1)),
            })
            .collect();
        let mut out = line(&cleaned.headers);
        out.push_str(&format!("| {} |\n", rule.join(" | ")));
        cleaned.rows.iter().for_each(|r| out.push_str(&line(r)));
        out
    }

    /// Comma-separated values (RFC 4180 quoting, line feeds), header first, all rows equally long.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let mut out = String::new();
        for cells in std::iter::once(&self.headers).chain(&self.rows) {
            let fields: Vec<String> =
                (0..self.columns()).map(|i| csv_field(cells.get(i).map_or("", String::as_str))).collect();
            // A lone empty field is quoted: an empty line would be no record.
            let line = if fields.len() == 1 && fields[0].is_empty() { "\"\"".to_owned() } else { fields.join(",") };
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// Columns of the widest row.
    pub(crate) fn columns(&self) -> usize {
        self.rows.iter().map(Vec::len).chain([self.headers.len()]).max().unwrap_or(0)
    }

    /// How column `i` is set.
    pub(crate) fn align_of(&self, i: usize) -> Align {
        self.align.get(i).copied().unwrap_or_default()
    }

    /// Characters of the widest cell of each column.
    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.columns()];
        for cells in std::iter::once(&self.headers).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(one_line(cell).chars().count());
            }
        }
        widths
    }

    /// Cell `i` of `cells`, padded to `width`.
    fn cell(&self, cells: &[String], i: usize, width: usize) -> String {
        let text = one_line(cells.get(i).map_or("", String::as_str));
        match self.align_of(i) {
            Align::Left => format!("{text:<width$}"),
            Align::Right => format!("{text:>width$}"),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |cells: &[String]| {
            let padded: Vec<String> = widths.iter().enumerate().map(|(i, &w)| self.cell(cells, i, w)).collect();
            padded.join("  ").trim_end().to_owned()
        };
        writeln!(f, "{}", line(&self.headers))?;
        writeln!(f, "{}", "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)))?;
        self.rows.iter().try_for_each(|r| writeln!(f, "{}", line(r)))
    }
}

/// The text with every control character (line breaks, terminal escapes) replaced by a space.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A field of a CSV record, quoted where it has to be.
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut t = Table::new(["mechanism", "bits", "accuracy"]);
        t.push(["smm", "8", "94.2 ± 0.1"]);
        t.push(["central-gaussian", "-", "94.5"]);
        t
    }

    #[test]
    fn columns_line_up() {
        assert_eq!(
            table().to_string(),
            "mechanism         bits    accuracy\n\
             ----------------------------------\n\
             smm                  8  94.2 ± 0.1\n\
             central-gaussian     -        94.5\n"
        );
    }

    #[test]
    fn markdown_escapes_its_own_signs() {
        let mut t = Table::new(["a|b", "n"]);
        t.push(["x\ny", "1"]);
        t.push(["c:\\d"]);
        assert_eq!(t.to_markdown(), "| a\\|b  |   n |\n| ----- | --: |\n| x y   |   1 |\n| c:\\\\d |     |\n");
    }

    #[test]
    fn csv_comes_back_through_a_reader() {
        let mut t = Table::new(["a", "b"]);
        t.push(["x, \"y\"\nz", "1"]);
        t.push(["short"]);
        let text = t.to_csv();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<Vec<String>> = reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect();
        assert_eq!(rows, [["x, \"y\"\nz", "1"], ["short", ""]]);
        let mut single = Table::new(["only"]);
        single.push([""]);
        assert_eq!(single.to_csv(), "only\n\"\"\n");
    }

    #[test]
    fn odd_tables_are_set_without_panic() {
        assert_eq!(Table::default().to_string(), "\n\n");
        assert_eq!(Table::default().to_csv(), "\n");
        let ragged = Table { headers: vec!["h".into()], rows: vec![vec!["1".into(), "2".into()]], align: vec![] };
        assert_eq!(ragged.to_string(), "h\n----\n1  2\n");
        assert_eq!(ragged.to_csv(), "h,\n1,2\n");
        let escape = Table { headers: vec!["\u{1b}[2J".into()], ..Table::default() };
        assert!(!escape.to_string().contains('\u{1b}'));
    }
}
