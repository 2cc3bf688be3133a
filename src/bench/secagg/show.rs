//! Rows of protocols as a table and as a picture.

use super::{Case, Row};
use crate::bench::record::size;
use crate::report::svg::{self, Chart, Scale, Series};
use crate::report::terminal::{Align, Table};

/// What the columns mean.
pub const LEGEND: &str = "A client's time and bytes are those of all its frames; add is the server's time to check and add one \
client's vector, open its time from the last vector to the sum, both a value. Best / median over the clients that were played. \
setup is the server's time before the first vector, of all clients; keys that of all \
parties for the key of 1000 sums; a holder's time is that for the clients that were played. \
Vanishing clients of masks leave when others hold shares of their keys, those of the others before they say a word.";

/// The case in a word.
#[must_use]
pub fn name(case: &Case) -> String {
    let Case { protocol, clients, dim, dropout, .. } = case;
    format!("{} n = {clients}, d = {}, {:.0} % lost", protocol.name(), size(*dim as usize), 100.0 * dropout)
}

/// A table, a row a case.
#[must_use]
pub fn table(rows: &[Row]) -> Table {
    let headers = [
        "protocol",
        "clients",
        "d",
        "lost",
        "played",
        "client ns a value",
        "B a value",
        "add ns a value",
        "open ns a value",
        "setup ms",
        "keys ms",
        "holder ms",
        "holder B a client",
    ];
    let mut align = [Align::Right; 13];
    align[0] = Align::Left;
    let mut table = Table::new(headers).with_align(align);
    for row in rows {
        let case = &row.case;
        let pair = |times: &super::Times| {
            format!("{} / {}", number(row.per_value(times.best)), number(row.per_value(times.median)))
        };
        let holders = row.holder_ns > 0.0;
        let held = |text: String| if holders { text } else { "-".into() };
        table.push([
            case.protocol.name().to_owned(),
            case.clients.to_string(),
            size(case.dim as usize),
            format!("{:.0} %", 100.0 * case.dropout),
            case.delivering.to_string(),
            pair(&row.client_ns),
            format!("{:.3}", row.per_value(row.client_sent as f64)),
            pair(&row.add_ns),
            number(row.per_value(row.open_ns)),
            number(row.setup_ns / 1e6),
            if row.keys_ns > 0.0 { number(row.keys_ns / 1e6) } else { "-".into() },
            held(number(row.holder_ns / 1e6)),
            held(format!("{:.0}", row.holder_received_per_client)),
        ]);
    }
    table
}

/// Three digits, or whole numbers.
fn number(x: f64) -> String {
    match x {
        x if x >= 99.95 => format!("{x:.0}"),
        x if x >= 9.995 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

/// A client's median time a value over the number of clients, a curve for each protocol and share that vanishes; the longest
/// vectors only.
#[must_use]
pub fn chart(rows: &[Row]) -> String {
    let dim = rows.iter().map(|row| row.case.dim).max().unwrap_or(0);
    let title = format!("What a client spends on a value, d = {}", size(dim as usize));
    let mut chart = Chart::new(title, "clients", "ns a value (median)");
    (chart.x_scale, chart.y_scale) = (Scale::Log, Scale::Log);
    for row in rows.iter().filter(|row| row.case.dim == dim) {
        let name = format!("{}, {:.0} % lost", row.case.protocol.name(), 100.0 * row.case.dropout);
        let at = match chart.series.iter().position(|series| series.name == name) {
            Some(at) => at,
            None => {
                chart.series.push(Series::line(name, []));
                chart.series.len() - 1
            }
        };
        let (x, y) = (f64::from(row.case.clients), row.per_value(row.client_ns.median));
        chart.series[at].points.push(svg::Point { x, y, spread: 0.0 });
    }
    svg::line_chart(&chart)
}

/// A JSON object a line.
#[must_use]
pub fn jsonl(rows: &[Row]) -> String {
    rows.iter().filter_map(|row| serde_json::to_string(row).ok()).map(|line| line + "\n").collect()
}
