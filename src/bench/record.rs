//! Results as JSON lines: a header, then a row a case.

use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

use super::BenchError;
use super::cost::Cost;
use super::limits::Limits;
use super::machine::Machine;
use super::measure::Timing;
use super::request::Case;
use crate::backend::device::Device;
use crate::report::ReportError;

/// Version of the format, the value of [`Header::veilsum_bench`].
pub const FORMAT: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub veilsum_bench: u32,
    /// Version of the program.
    pub version: String,
    /// What it ran on.
    pub machine: Machine,
    /// Threads of the kernels and of the limits.
    pub threads: usize,
    /// Seconds that each row was timed for.
    pub seconds: f64,
    /// True if Ctrl-C ended the measurement.
    #[serde(default)]
    pub interrupted: bool,
    /// Rows that follow.
    pub rows: usize,
    /// Limits of each instruction set that a row ran on.
    pub limits: Vec<Limits>,
}

/// One case, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Stage.
    pub stage: String,
    /// Variant of the stage; empty if it has one.
    #[serde(default)]
    pub variant: String,
    /// Backend.
    pub backend: String,
    /// Instruction set; for a GPU the backend once more.
    pub isa: String,
    /// log2 of the elements of a row; a whole number for a power of two.
    #[serde(serialize_with = "whole_if_whole")]
    pub log2_dim: f64,
    /// Rows.
    pub rows: usize,
    /// Threads.
    pub threads: usize,
    /// Best time, in nanoseconds an element of all rows.
    pub ns_per_element: f64,
    /// Median time, likewise.
    #[serde(default)]
    pub median_ns_per_element: Option<f64>,
    /// Best time by the device's own clock, in nanoseconds an element; only of a device that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ns_per_element: Option<f64>,
    /// That clock: `CUDA events` or `timestamp queries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_clock: Option<String>,
    /// Bytes that must move, in gigabytes a second at the best time.
    pub gb_per_s: f64,
    /// Elements a second at the best time.
    #[serde(default)]
    pub elements_per_s: f64,
    /// The same for stages whose elements are noise samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_per_s: Option<f64>,
    /// Number theoretic transforms a second, for stages that make them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ntt_per_s: Option<f64>,
    /// Least time that the measured limits allow over the best time.
    pub fraction_of_limit: f64,
    /// That least time, in nanoseconds an element.
    #[serde(default)]
    pub limit_ns_per_element: f64,
    /// What the limit is: `L1`, `L2`, `L3`, `DRAM`, `copy` (of a GPU's memory), `floats`, `words`, `products`, `chacha`.
    #[serde(default)]
    pub limited_by: String,
    /// Bytes that must move for an element.
    #[serde(default)]
    pub bytes_per_element: f64,
    /// Lane operations that an element needs.
    #[serde(default)]
    pub operations_per_element: f64,
    /// Timed runs.
    #[serde(default)]
    pub runs: usize,
    /// Calls in a timed run.
    #[serde(default)]
    pub batch: usize,
    /// What an earlier result says, with `--against`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
}

/// The same row of an earlier result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// Its best time.
    pub ns_per_element: f64,
    /// Its best time over the present one: above 1 is faster now.
    pub ratio: f64,
    /// True if now slower than the tolerance allows.
    pub slower: bool,
}

/// What makes two rows the same measurement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    stage: String,
    variant: String,
    /// Elements a row, from the logarithm.
    dim: u64,
    rows: usize,
    backend: String,
    isa: String,
    threads: usize,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variant = if self.variant.is_empty() { String::new() } else { format!("/{}", self.variant) };
        write!(f, "{}{variant} {} x {}", self.stage, self.rows, size(self.dim as usize))?;
        let plural = if self.threads == 1 { "" } else { "s" };
        write!(f, " {} {} {} thread{plural}", self.backend, self.isa, self.threads)
    }
}

/// `2^16`, or the number itself.
#[must_use]
pub fn size(dim: usize) -> String {
    if dim.is_power_of_two() { format!("2^{}", dim.ilog2()) } else { dim.to_string() }
}

impl Row {
    /// A row without times; for [`Row::measured`], and to know its key before the measurement.
    #[must_use]
    pub fn planned(case: &Case, threads: usize) -> Self {
        let cost = case.cost();
        Self {
            stage: case.stage.name.to_owned(),
            variant: case.shape.variant.to_owned(),
            backend: case.target.backend.kind().name().to_owned(),
            isa: case.target.unit().to_owned(),
            log2_dim: case.shape.log2(),
            rows: case.shape.rows,
            threads,
            ns_per_element: 0.0,
            median_ns_per_element: None,
            device_ns_per_element: None,
            device_clock: case.target.backend.device().and_then(Device::clock).map(str::to_owned),
            gb_per_s: 0.0,
            elements_per_s: 0.0,
            samples_per_s: None,
            ntt_per_s: None,
            fraction_of_limit: 0.0,
            limit_ns_per_element: 0.0,
            limited_by: String::new(),
            bytes_per_element: cost.total_bytes() / cost.elements,
            operations_per_element: cost.total_operations() / cost.elements,
            runs: 0,
            batch: 0,
            against: None,
        }
    }

    /// The row of a case whose calls cost `cost`, took `timing`, and run under `limits`.
    #[must_use]
    pub fn measured(self, cost: &Cost, timing: &Timing, limits: &Limits, machine: &Machine) -> Self {
        let bound = limits.bound(cost, machine, self.threads);
        let nanoseconds = |seconds: f64| seconds * 1e9 / cost.elements;
        let elements_per_s = cost.elements / timing.best;
        Self {
            ns_per_element: nanoseconds(timing.best),
            median_ns_per_element: Some(nanoseconds(timing.median)),
            device_ns_per_element: timing.device.map(nanoseconds),
            gb_per_s: cost.total_bytes() / timing.best / 1e9,
            elements_per_s,
            samples_per_s: cost.samples.then_some(elements_per_s),
            ntt_per_s: (cost.ntts > 0.0).then_some(cost.ntts / timing.best),
            fraction_of_limit: bound.seconds / timing.best,
            limit_ns_per_element: nanoseconds(bound.seconds),
            limited_by: bound.by,
            runs: timing.runs,
            batch: timing.batch,
            ..self
        }
    }

    /// What makes it the same measurement as another row.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            stage: self.stage.clone(),
            variant: self.variant.clone(),
            dim: self.dim() as u64,
            rows: self.rows,
            backend: self.backend.clone(),
            isa: self.isa.clone(),
            threads: self.threads,
        }
    }

    /// Elements a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.log2_dim.exp2().round() as usize
    }

    /// Stage and variant.
    #[must_use]
    pub fn name(&self) -> String {
        if self.variant.is_empty() { self.stage.clone() } else { format!("{}/{}", self.stage, self.variant) }
    }
}

/// `16` and not `16.0`.
fn whole_if_whole<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 { serializer.serialize_i64(*value as i64) } else { serializer.serialize_f64(*value) }
}

/// A whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    /// First line.
    pub header: Header,
    /// The other lines.
    pub rows: Vec<Row>,
}

impl Results {
    /// The JSON lines, each with a line feed.
    ///
    /// # Panics
    /// Never: numbers, texts and lists have a JSON form.
    #[must_use]
    pub fn to_jsonl(&self) -> String {
        let line = |text: Result<String, serde_json::Error>| text.expect("plain data") + "\n";
        let header = line(serde_json::to_string(&self.header));
        self.rows.iter().fold(header, |text, row| text + &line(serde_json::to_string(row)))
    }

    /// Reads what [`Results::to_jsonl`] wrote.
    ///
    /// # Errors
    /// [`BenchError::Format`] names the line of the first thing that is no such result: another kind of
    /// file, a cut line, missing rows, a time that is not above 0.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).map_err(|source| ReportError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text).map_err(|(line, what)| BenchError::Format { path: path.to_path_buf(), line, what })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let wanted = "expected what `veilsum bench --json` or `--out` writes";
        let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l)).filter(|(_, l)| !l.trim().is_empty());
        let (line, first) = lines.next().ok_or_else(|| (1, format!("the file is empty; {wanted}")))?;
        let header: Header =
            serde_json::from_str(first).map_err(|e| (line, format!("no header of a bench: {e}; {wanted}")))?;
        if header.veilsum_bench != FORMAT {
            return Err((line, format!("format {}, expected {FORMAT}: measure again", header.veilsum_bench)));
        }
        let mut rows: Vec<Row> = Vec::new();
        let mut last = line;
        for (line, text) in lines {
            let row: Row = serde_json::from_str(text).map_err(|e| (line, format!("no row of a bench: {e}")))?;
            let positive = row.ns_per_element.is_finite() && row.ns_per_element > 0.0;
            if !positive || !(0.0..=40.0).contains(&row.log2_dim) {
                let what = format!("ns_per_element {} and log2_dim {}", row.ns_per_element, row.log2_dim);
                return Err((line, format!("{what}: expected a time above 0 and a logarithm of 0 to 40")));
            }
            rows.push(row);
            last = line;
        }
        if rows.len() != header.rows {
            return Err((last, format!("the file ends after {} of {} rows", rows.len(), header.rows)));
        }
        Ok(Self { header, rows })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A made-up result: a row for each `(stage, log2_dim, ns)`.
    pub(in crate::bench) fn made_up(rows: &[(&str, f64, f64)]) -> Results {
        let level = |name: &str, speed: f64| crate::bench::limits::Level {
            level: name.into(),
            bytes: 1 << 20,
            read: speed,
            write: speed,
            copy: speed,
            update: speed,
        };
        let limits = Limits {
            isa: "avx2".into(),
            levels: vec![level("L1", 200.0), level("DRAM", 10.0)],
            floats: 80.0,
            words: 80.0,
            products: 40.0,
            chacha: 80.0,
            sharing: 1.0,
        };
        let header = Header {
            veilsum_bench: FORMAT,
            version: "0".into(),
            machine: Machine::detect(),
            threads: 1,
            seconds: 0.1,
            interrupted: false,
            rows: rows.len(),
            limits: vec![limits],
        };
        let case = &crate::bench::request::plan(&crate::bench::request::Request::default()).unwrap()[0];
        let row = |(stage, log2_dim, ns): &(&str, f64, f64)| Row {
            stage: (*stage).to_owned(),
            variant: String::new(),
            isa: "avx2".into(),
            log2_dim: *log2_dim,
            ns_per_element: *ns,
            median_ns_per_element: Some(1.1 * ns),
            elements_per_s: 1e9 / ns,
            gb_per_s: 8.0 / ns,
            fraction_of_limit: 0.5,
            limit_ns_per_element: 0.5 * ns,
            limited_by: "L1".into(),
            rows: 1,
            ..Row::planned(case, 1)
        };
        Results { header, rows: rows.iter().map(row).collect() }
    }

    #[test]
    fn results_come_back_from_their_lines() {
        let results = made_up(&[("fwht", 12.0, 0.25), ("gram", 400_000f64.log2(), 0.125)]);
        let text = results.to_jsonl();
        assert_eq!(Results::parse(&text), Ok(results.clone()));
        assert!(text.contains("\"log2_dim\":12,") && text.lines().count() == 3);
        assert_eq!(results.rows[1].key().to_string(), "gram 1 x 400000 simd avx2 1 thread");
        let first: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        for key in "stage backend isa log2_dim rows threads ns_per_element gb_per_s fraction_of_limit".split(' ') {
            assert!(!first[key].is_null(), "{key}: {first}");
        }
    }

    #[test]
    fn a_file_that_is_no_result_is_named_with_its_line() {
        let text = made_up(&[("fwht", 12.0, 0.25), ("clip", 12.0, 0.1)]).to_jsonl();
        let fails = |text: &str, line: usize, word: &str| {
            let (found, what) = Results::parse(text).unwrap_err();
            assert!(found == line && what.contains(word), "{found}: {what}");
        };
        fails("", 1, "empty");
        fails("{\"round\":1}\n", 1, "no header");
        fails("a,b\n1,2\n", 1, "no header");
        fails(&text.replace("\"veilsum_bench\":1", "\"veilsum_bench\":9"), 1, "format 9, expected 1");
        fails(&text[..text.len() - 40], 3, "no row");
        let whole_lines: String = text.split_inclusive('\n').take(2).collect();
        fails(&whole_lines, 2, "after 1 of 2 rows");
        fails(&text.replace("\"ns_per_element\":0.25", "\"ns_per_element\":0"), 2, "above 0");
        fails(&text.replace("\"ns_per_element\":0.25", "\"ns_per_element\":null"), 2, "no row");
        fails(&text.replace("\"log2_dim\":12", "\"log2_dim\":99"), 2, "0 to 40");
    }
}
