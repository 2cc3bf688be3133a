//! Results for people: tables, a roofline, a page.

use super::cost::{Motion, Operation};
use super::record::{Header, Results, Row, size};
use crate::report::html::{self, RunReport};
use crate::report::svg::{self, Chart, Mark, Scale, Series};
use crate::report::terminal::{Align, Table};

/// The rows as a table; with a column for the earlier result if there is one.
#[must_use]
pub fn rows(results: &Results) -> Table {
    let compared = results.rows.iter().any(|r| r.against.is_some());
    let on_device = results.rows.iter().any(|r| r.device_ns_per_element.is_some());
    let mut headers =
        vec!["stage", "size", "rows", "on", "best ns", "median ns", "GB/s", "rate", "of limit", "limited by"];
    if on_device {
        headers.push("device ns");
    }
    if compared {
        headers.push("than before");
    }
    let right = [Align::Right; 2];
    let align = [&[Align::Left][..], &right, &[Align::Left], &right, &right, &[Align::Right, Align::Left], &right];
    let mut table = Table::new(headers).with_align(align.concat());
    for row in &results.rows {
        let mut cells = vec![
            row.name(),
            size(row.dim()),
            row.rows.to_string(),
            target(row),
            nanoseconds(row.ns_per_element),
            row.median_ns_per_element.map_or("-".to_owned(), nanoseconds),
            format!("{:.1}", row.gb_per_s),
            rate(row),
            format!("{:.0} %", 100.0 * row.fraction_of_limit),
            row.limited_by.clone(),
        ];
        if on_device {
            cells.push(row.device_ns_per_element.map_or("-".to_owned(), nanoseconds));
        }
        if compared {
            cells.push(match row.against {
                None => "new".to_owned(),
                Some(a) if a.slower => format!("{:.2}x SLOWER", 1.0 / a.ratio),
                Some(a) if a.ratio < 1.0 => format!("{:.2}x slower", 1.0 / a.ratio),
                Some(a) => format!("{:.2}x faster", a.ratio),
            });
        }
        table.push(cells);
    }
    table
}

/// `simd avx512`; the oracle and a GPU need no second word.
fn target(row: &Row) -> String {
    if row.backend == "scalar" || row.backend == row.isa {
        row.backend.clone()
    } else {
        format!("{} {}", row.backend, row.isa)
    }
}

/// Three digits that mean something.
fn nanoseconds(ns: f64) -> String {
    match ns {
        ns if ns < 1.0 => format!("{ns:.3}"),
        ns if ns < 10.0 => format!("{ns:.2}"),
        ns if ns < 100.0 => format!("{ns:.1}"),
        ns => format!("{ns:.0}"),
    }
}

/// `4.76 G elements/s`, `109 M samples/s`, `141 k NTT/s`.
fn rate(row: &Row) -> String {
    let (value, unit) = match (row.ntt_per_s, row.samples_per_s) {
        (Some(ntts), _) => (ntts, "NTT/s"),
        (_, Some(samples)) => (samples, "samples/s"),
        _ => (row.elements_per_s, "elements/s"),
    };
    let (value, prefix) = match value {
        v if v >= 1e9 => (v / 1e9, "G "),
        v if v >= 1e6 => (v / 1e6, "M "),
        v if v >= 1e3 => (v / 1e3, "k "),
        v => (v, ""),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {prefix}{unit}")
}

/// The measured limits as a table.
#[must_use]
pub fn limits(header: &Header) -> Table {
    let mut table = Table::new(["limits", "working set", "read", "write", "copy", "update"]);
    for limits in &header.limits {
        for level in &limits.levels {
            let mut cells = vec![format!("{} {}, GB/s", limits.isa, level.level), bytes(level.bytes)];
            cells.extend(Motion::ALL.map(|m| format!("{:.1}", level.of(m))));
            table.push(cells);
        }
    }
    table
}

/// The measured port limits as a table.
#[must_use]
pub fn ports(header: &Header) -> Table {
    let mut table = Table::new(["limits", "floats", "words", "products", "chacha", "shared"]);
    for limits in header.limits.iter().filter(|limits| limits.floats > 0.0) {
        let mut cells = vec![format!("{}, 10^9 lane operations/s", limits.isa)];
        cells.extend(Operation::ALL.map(|o| format!("{:.1}", limits.rate(o))));
        cells.push(format!("{:.0} %", 100.0 * limits.sharing));
        table.push(cells);
    }
    table
}

/// `24 KiB`, `96 MiB`.
fn bytes(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{:.1} MiB", bytes as f64 / 1048576.0) }
}

/// One line about machine, threads and program.
#[must_use]
pub fn machine(header: &Header) -> String {
    let m = &header.machine;
    let assumed = if m.caches_assumed { " (assumed)" } else { "" };
    let plural = if header.threads == 1 { "" } else { "s" };
    format!(
        "{}, {}, caches {} / {} / {}{assumed}; {} thread{plural} of {}; veilsum {}",
        m.cpu,
        m.platform,
        bytes(m.l1),
        bytes(m.l2),
        bytes(m.l3),
        header.threads,
        m.processors,
        header.version
    )
}

/// What the columns mean, for people who see the table for the first time.
pub const LEGEND: &str = "Times are per element of all rows, the best and the median run. GB/s counts the bytes that must move. \
The limit is the least time that the bandwidths and port rates measured on the spot allow: L1, L2, L3 or DRAM if memory is it, \
else the kind of lane operations (floats, words, products, chacha); copy: the bandwidth of copies within a GPU. Device ns is \
the best time by the device's own clock (CUDA events, timestamp queries), without the host's start and wait.";

/// The roofline as an SVG picture: lane operations a second over operations a byte, the roofs of the fastest
/// instruction set, and a point a row.
#[must_use]
pub fn roofline(results: &Results) -> String {
    let title = format!("Kernels under the roofs of {}", results.header.machine.cpu);
    let mut chart = Chart::new(title, "lane operations a byte that must move", "10^9 lane operations a second");
    (chart.x_scale, chart.y_scale) = (Scale::Log, Scale::Log);
    let drawable = |r: &&Row| r.bytes_per_element > 0.0 && r.operations_per_element > 0.0;
    let drawn: Vec<&Row> = results.rows.iter().filter(drawable).collect();
    let intensity = |r: &Row| r.operations_per_element / r.bytes_per_element;
    let speed = |r: &Row| r.operations_per_element * r.elements_per_s / 1e9;
    let left = drawn.iter().map(|r| intensity(r)).fold(0.25, f64::min) / 2.0;
    let right = drawn.iter().map(|r| intensity(r)).fold(16.0, f64::max) * 2.0;
    // The last instruction set of the list is the fastest; operations of a GPU are not measured.
    if let Some(limits) = results.header.limits.iter().rfind(|limits| limits.floats > 0.0) {
        for level in &limits.levels {
            let bandwidth = level.of(Motion::Update);
            let ridge = (limits.floats / bandwidth).clamp(left, right);
            let line = [(left, left * bandwidth), (ridge, ridge * bandwidth)];
            chart.series.push(Series::line(format!("{} {bandwidth:.0} GB/s", level.level), line));
        }
        let ridge = (limits.floats / limits.levels[0].update).clamp(left, right);
        chart.series.push(Series::line(
            format!("floats {:.0}/ns", limits.floats),
            [(ridge, limits.floats), (right, limits.floats)],
        ));
        chart.levels.push((format!("products {:.0}/ns", limits.products), limits.products));
    }
    chart.marks = drawn
        .iter()
        .map(|r| Mark { name: format!("{} {}", r.name(), size(r.dim())), x: intensity(r), y: speed(r) })
        .collect();
    svg::line_chart(&chart)
}

/// Everything on one page.
#[must_use]
pub fn page(results: &Results) -> String {
    let report = RunReport {
        title: "veilsum bench".into(),
        summary: vec![("machine".into(), machine(&results.header))],
        notes: vec![LEGEND.into()],
        charts: vec![("Roofline: a point under a roof shows what is left to gain".into(), roofline(results))],
        tables: vec![
            ("Kernels".into(), rows(results)),
            ("Bandwidth by level of memory".into(), limits(&results.header)),
            ("Port limits".into(), ports(&results.header)),
        ],
    };
    html::page(&report)
}

#[cfg(test)]
mod tests {
    use super::super::compare::compare;
    use super::super::record::tests::made_up;
    use super::*;

    #[test]
    fn tables_hold_every_row_and_say_what_changed() {
        let mut results = made_up(&[("fwht", 12.0, 0.25), ("clip", 400_000f64.log2(), 12.345)]);
        results.rows[1].ntt_per_s = Some(141_000.0);
        let text = rows(&results).to_string();
        assert!(text.contains("2^12") && text.contains("400000") && text.contains("0.250") && text.contains("12.3"));
        assert!(text.contains("4.00 G elements/s") && text.contains("141 k NTT/s") && !text.contains("before"));
        assert!(!text.contains("device ns"));
        results.rows[0].device_ns_per_element = Some(0.1875);
        let text = rows(&results).to_string();
        assert!(text.contains("device ns") && text.contains("0.188") && text.contains(" -"), "{text}");
        let before = made_up(&[("fwht", 12.0, 0.1)]).rows;
        compare(&mut results.rows, &before, 1.25).unwrap();
        let text = rows(&results).to_markdown();
        assert!(text.contains("2.50x SLOWER") && text.contains(" new |"), "{text}");
        assert!(limits(&results.header).to_string().contains("avx2 DRAM, GB/s"));
        assert!(ports(&results.header).to_string().contains("100 %"));
    }

    #[test]
    fn the_roofline_shows_roofs_and_points() {
        let svg = roofline(&made_up(&[("fwht", 12.0, 0.25), ("clip", 16.0, 0.1)]));
        assert!(svg.contains("fwht 2^12") && svg.contains("clip 2^16") && svg.contains("L1 200 GB/s"), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
        let empty = made_up(&[]);
        assert!(roofline(&empty).contains("</svg>") && page(&empty).contains("Port limits"));
    }
}
