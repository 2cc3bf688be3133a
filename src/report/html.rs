//! The page of a run: one file, no script, no link to anything outside, light and dark.

use plotters::style::RGBColor;

use super::svg::{GRID, INK, PALETTE, PAPER};
use super::terminal::{Align, Table};

/// Most characters that a tile of the summary holds.
const TILE: usize = 24;

/// What a page shows, from top to bottom.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RunReport {
    /// Headline, and the title of the browser's tab.
    pub title: String,
    /// The figures that matter most: name and value.
    pub summary: Vec<(String, String)>,
    /// What a reader has to know to judge the figures; one paragraph each.
    pub notes: Vec<String>,
    /// Caption and picture, as [`super::svg::line_chart`] draws it. The picture is put into the page as it
    /// is: it must be trusted markup.
    pub charts: Vec<(String, String)>,
    /// Caption and table.
    pub tables: Vec<(String, Table)>,
}

/// The page as a complete HTML document in UTF-8. All text but the pictures is escaped; a security policy
/// in the page forbids scripts and every outside source, so that the file can be passed on as it is.
#[must_use]
pub fn page(report: &RunReport) -> String {
    let title = escape(&report.title);
    let mut body = format!("<h1>{title}</h1>\n");
    // A sentence does not fit a tile: it takes a line of the list below.
    let (tiles, lines): (Vec<_>, Vec<_>) = report.summary.iter().partition(|(_, value)| value.chars().count() <= TILE);
    body.push_str(&definitions("tiles", &tiles));
    body.push_str(&definitions("lines", &lines));
    if !report.notes.is_empty() {
        body.push_str("<section class=\"notes\">\n");
        for note in &report.notes {
            body.push_str(&format!("<p>{}</p>\n", escape(note)));
        }
        body.push_str("</section>\n");
    }
    for (caption, svg) in &report.charts {
        let caption = figure_caption(caption);
        body.push_str(&format!("<figure>\n{}{caption}</figure>\n", standalone_parts_removed(svg)));
    }
    for (caption, table) in &report.tables {
        body.push_str(&table_html(caption, table));
    }
    let style = style();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// `text` with the five signs that mean something in HTML and XML replaced, in content and in quoted
/// attributes; control characters other than line breaks and tabs, which XML forbids, become U+FFFD.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Names and values as a list of its own class; nothing if there are none.
fn definitions(class: &str, entries: &[&(String, String)]) -> String {
    let entry =
        |(name, value): &&(String, String)| format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value));
    match entries {
        [] => String::new(),
        _ => format!("<dl class=\"{class}\">\n{}</dl>\n", entries.iter().map(entry).collect::<String>()),
    }
}

fn figure_caption(caption: &str) -> String {
    if caption.is_empty() { String::new() } else { format!("<figcaption>{}</figcaption>\n", escape(caption)) }
}

/// The picture without an XML declaration, which only a file of its own may have.
fn standalone_parts_removed(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |start| &svg[start..])
}

fn table_html(caption: &str, table: &Table) -> String {
    let row = |open: &str, close: &str, cells: &[String]| {
        let cell = |i: usize| {
            let class = if table.align_of(i) == Align::Right { " class=\"r\"" } else { "" };
            format!("<{open}{class}>{}</{close}>", escape(cells.get(i).map_or("", String::as_str)))
        };
        format!("<tr>{}</tr>\n", (0..table.columns()).map(cell).collect::<String>())
    };
    let head = row("th scope=\"col\"", "th", &table.headers);
    let rows: String = table.rows.iter().map(|r| row("td", "td", r)).collect();
    format!(
        "<figure class=\"table\">\n<div class=\"scroll\"><table>\n<thead>\n{head}</thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n{}</figure>\n",
        figure_caption(caption)
    )
}

/// The style sheet. A picture brings its own colours as attributes, which any rule overrides: dark mode
/// gives paper, ink and grid new values, and the darkest colour of a curve a lighter shade.
fn style() -> String {
    let hex = |c: RGBColor| format!("#{:02X}{:02X}{:02X}", c.0, c.1, c.2);
    let (paper, ink, grid, blue) = (hex(PAPER), hex(INK), hex(GRID), hex(PALETTE[0]));
    format!(
        ":root{{color-scheme:light dark;--page:#f4f5f7;--card:{paper};--ink:{ink};--soft:#5c6470;--line:{grid}}}
@media (prefers-color-scheme:dark){{:root{{--page:#14171b;--card:#1d2126;--ink:#e6e8ea;--soft:#9aa3ad;--line:#343a42}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,sans-serif}}
main{{max-width:800px;margin:0 auto;padding:24px 16px 48px}}
h1{{font-size:1.5rem;line-height:1.25;margin:0 0 16px;overflow-wrap:anywhere}}
dl{{margin:0 0 16px}}
dt{{color:var(--soft);font-size:.8rem}}
dd{{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}}
.tiles{{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px}}
.tiles div,.lines,.notes,figure{{background:var(--card);border:1px solid var(--line);border-radius:8px}}
.tiles div{{padding:10px 14px}}
.tiles dd{{font-size:1.1rem;font-weight:600}}
.lines{{padding:6px 14px}}
.lines div{{display:grid;grid-template-columns:12em 1fr;gap:0 12px;align-items:baseline;padding:3px 0}}
.lines dd{{font-size:.95rem}}
@media (max-width:480px){{.lines div{{grid-template-columns:1fr}}}}
.notes{{padding:4px 16px;margin:0 0 16px;font-size:.9rem}}
.notes p{{margin:8px 0}}
figure{{margin:0 0 16px;padding:12px}}
figcaption{{color:var(--soft);font-size:.85rem;padding:6px 4px 0}}
svg.chart{{display:block;width:100%;height:auto}}
svg.chart [fill=\"{paper}\"]{{fill:var(--card)}}
svg.chart [fill=\"{ink}\"]{{fill:var(--ink)}}
svg.chart [stroke=\"{ink}\"]{{stroke:var(--ink)}}
svg.chart [stroke=\"{grid}\"]{{stroke:var(--line)}}
@media (prefers-color-scheme:dark){{svg.chart [stroke=\"{blue}\"]{{stroke:#2F86C6}}svg.chart [fill=\"{blue}\"]{{fill:#2F86C6}}}}
.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%;font-size:.9rem}}
th,td{{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}}
th{{color:var(--soft);font-weight:600}}
.r{{text-align:right;font-variant-numeric:tabular-nums}}
@media print{{body{{background:none}}figure,dl,.notes{{break-inside:avoid}}}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::svg::{Chart, Series, line_chart};

    fn full() -> RunReport {
        let mut chart = Chart::new("Accuracy", "round", "accuracy (%)");
        chart.series.push(Series::line("smm", [(1.0, 10.0), (2.0, 50.0)]));
        let mut table = Table::new(["setting", "value"]);
        table.push(["bits", "8"]);
        table.push(["a", "b", "no header"]);
        RunReport {
            title: "run <script>alert(1)</script> & \"more\"".into(),
            summary: vec![("ε".into(), "2.99 < 3".into())],
            notes: vec!["<img src=x onerror=alert(1)>".into()],
            charts: vec![("caption <b>".into(), format!("<?xml version=\"1.0\"?>{}", line_chart(&chart)))],
            tables: vec![("settings".into(), table)],
        }
    }

    #[test]
    fn nothing_from_outside_runs_or_loads() {
        let html = page(&full());
        let lower = html.to_lowercase();
        for forbidden in ["<script", "<img", "<link", "<iframe", "@import", "url(", " src=\"", "href=", "<?xml"] {
            assert!(!lower.contains(forbidden), "{forbidden}");
        }
        // The one address is the name of the SVG namespace, which nobody fetches.
        assert_eq!(lower.matches("http://").count() + lower.matches("https://").count(), 1);
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;"));
        assert!(html.contains("2.99 &lt; 3") && html.contains("caption &lt;b&gt;"));
        assert!(html.contains("<td class=\"r\">8</td>") && html.contains("<th scope=\"col\">setting</th>"));
    }

    #[test]
    fn tags_are_balanced() {
        let html = page(&full());
        for tag in ["html", "head", "body", "main", "style", "title", "dl", "dt", "dd", "figure", "table", "tr", "svg"]
        {
            let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
            let opened =
                html.match_indices(&open).filter(|(i, _)| html[i + open.len()..].starts_with([' ', '>', '\n']));
            assert_eq!(opened.count(), html.matches(&close).count(), "{tag}");
        }
        assert!(page(&RunReport::default()).contains("<main>\n<h1></h1>\n</main>"));
    }

    #[test]
    fn dark_mode_reaches_every_neutral_colour_of_a_picture() {
        let html = page(&full());
        for colour in ["[fill=\"#FFFFFF\"]", "[fill=\"#222222\"]", "[stroke=\"#222222\"]", "[stroke=\"#E2E2E2\"]"] {
            let attribute = colour.trim_start_matches('[').trim_end_matches(']');
            assert!(html.contains(colour), "no rule for {colour}");
            assert!(html.matches(attribute).count() > 1, "no picture uses {attribute}");
        }
    }

    #[test]
    fn escape_leaves_no_sign_that_means_something() {
        assert_eq!(escape("a<b>&\"'\u{0}\n\u{1b}é"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}\n\u{fffd}é");
    }
}
