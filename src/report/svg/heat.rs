//! Heat maps: a table of numbers whose cells carry their values as colours.

use std::fmt::Write;

use super::{WIDTH, shorten};
use crate::report::html::escape;
use crate::report::terminal::one_line;

/// A table of numbers.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HeatMap {
    /// Headline.
    pub title: String,
    /// What the columns show.
    pub x_label: String,
    /// What the rows show.
    pub y_label: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the rows.
    pub rows: Vec<String>,
    /// One row a row name, one value a column name; a value that is not finite leaves its cell empty.
    pub values: Vec<Vec<f64>>,
    /// The ends of the colours; else those of the values.
    pub range: Option<(f64, f64)>,
}

/// Light to dark; told apart in print and with any colour blindness (ColorBrewer's YlGnBu).
const COLOURS: [(u8, u8, u8); 6] =
    [(255, 255, 217), (199, 233, 180), (127, 205, 187), (65, 182, 196), (34, 94, 168), (8, 29, 88)];

/// Height of a row, and longest name of a column or row in characters.
const ROW: usize = 30;
const NAME: usize = 34;

/// The ends of the finite values of some maps, which need them to be compared; `None` if there is none.
#[must_use]
pub fn common_range(maps: &[HeatMap]) -> Option<(f64, f64)> {
    let finite = || maps.iter().flat_map(|map| map.values.iter().flatten()).copied().filter(|v| v.is_finite());
    Some((finite().reduce(f64::min)?, finite().reduce(f64::max)?))
}

/// Draws maps below each other as one `<svg>` element of 720 pixels' width.
///
/// Total: any map gives a picture; without a finite value it says "no data". All text is escaped.
#[must_use]
pub fn heat_maps(title: &str, maps: &[HeatMap]) -> String {
    let heights: Vec<usize> = maps.iter().map(height).collect();
    let total = heights.iter().sum::<usize>().max(60);
    let mut out = format!(
        "<svg class=\"chart\" role=\"img\" aria-label=\"{}\" width=\"{WIDTH}\" height=\"{total}\" viewBox=\"0 0 {WIDTH} {total}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\">\n<rect width=\"{WIDTH}\" height=\"{total}\" fill=\"#FFFFFF\"/>\n",
        escape(&one_line(title))
    );
    let mut top = 0;
    for (map, height) in maps.iter().zip(&heights) {
        out += &format!("<g transform=\"translate(0,{top})\">\n{}</g>\n", draw(map));
        top += height;
    }
    out + "</svg>\n"
}

/// Room of the names of the columns, which lean.
fn head(map: &HeatMap) -> usize {
    let longest = map.columns.iter().map(|name| name.chars().count().min(NAME)).max().unwrap_or(0);
    50 + longest * 9 / 2
}

fn height(map: &HeatMap) -> usize {
    head(map) + ROW * map.rows.len().max(1) + 40
}

/// Text at a place; `attributes` are its anchor and more.
fn words(out: &mut String, (x, y): (f64, f64), size: u32, attributes: &str, text: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"#222222\" {attributes}>{}</text>",
        escape(&one_line(text))
    );
}

fn draw(map: &HeatMap) -> String {
    let mut out = String::new();
    let (width, head) = (f64::from(WIDTH), head(map) as f64);
    words(&mut out, (width / 2.0, 22.0), 16, "text-anchor=\"middle\" font-weight=\"bold\"", &shorten(&map.title, 90));
    let Some((low, high)) = map.range.or_else(|| common_range(std::slice::from_ref(map))) else {
        words(&mut out, (width / 2.0, head), 14, "text-anchor=\"middle\"", "no data");
        return out;
    };
    let longest = map.rows.iter().map(|name| name.chars().count().min(NAME)).max().unwrap_or(0);
    let left = 16.0 + 6.6 * longest as f64;
    // Leaning names of the last columns need room on the right.
    let step = ((width - left - 60.0) / map.columns.len().max(1) as f64).min(110.0);
    for (i, name) in map.columns.iter().enumerate() {
        let (x, y) = (left + step * (i as f64 + 0.5), head - 6.0);
        let turn = format!("transform=\"rotate(-35 {x:.1} {y:.1})\"");
        words(&mut out, (x, y), 11, &turn, &shorten(name, NAME));
    }
    for (j, (name, values)) in map.rows.iter().zip(&map.values).enumerate() {
        let y = head + (ROW * j) as f64;
        let middle = y + ROW as f64 / 2.0 + 4.0;
        words(&mut out, (left - 6.0, middle), 11, "text-anchor=\"end\"", &shorten(name, NAME));
        for (i, &value) in values.iter().enumerate().filter(|(i, v)| v.is_finite() && *i < map.columns.len()) {
            let x = left + step * i as f64;
            let share = if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 0.5 };
            let (r, g, b) = colour(share);
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"#{r:02X}{g:02X}{b:02X}\"/>",
                step - 1.0,
                ROW - 1
            );
            let ink = if share > 0.55 { "#FEFEFE" } else { "#232323" };
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{middle:.1}\" font-size=\"11\" fill=\"{ink}\" text-anchor=\"middle\">{}</text>",
                x + step / 2.0,
                number(value)
            );
        }
    }
    let foot = head + (ROW * map.rows.len()) as f64 + 20.0;
    let text = format!("columns: {}; rows: {}", map.x_label, map.y_label);
    words(&mut out, (width / 2.0, foot), 12, "text-anchor=\"middle\"", &shorten(&text, 110));
    out
}

/// Three digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        x if x >= 1e5 => format!("{value:.1e}"),
        x if x >= 99.95 => format!("{value:.0}"),
        x if x >= 0.1 || x == 0.0 => format!("{value:.1}"),
        _ => format!("{value:.1e}"),
    }
}

/// The colour at a share of the way, linear between the stops.
fn colour(share: f64) -> (u8, u8, u8) {
    let at = share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let below = (at as usize).min(COLOURS.len() - 2);
    let (from, to, part) = (COLOURS[below], COLOURS[below + 1], at - below as f64);
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    (mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> HeatMap {
        HeatMap {
            title: "<accuracy>".into(),
            x_label: "attack".into(),
            y_label: "rule".into(),
            columns: vec!["none".into(), "sign-flip".into(), "x".repeat(100)],
            rows: vec!["mean".into(), "krum".into()],
            values: vec![vec![95.25, 10.0, f64::NAN], vec![90.0, 89.5, 1.0]],
            range: None,
        }
    }

    #[test]
    fn cells_carry_their_values_and_names_are_escaped() {
        let svg = heat_maps("two", &[map(), HeatMap { range: Some((0.0, 100.0)), ..map() }]);
        for word in ["&lt;accuracy&gt;", ">95.2<", ">10.0<", ">89.5<", "sign-flip", "columns: attack; rows: rule"] {
            assert!(svg.contains(word), "{word}");
        }
        assert_eq!(svg.matches("<rect").count(), 1 + 2 * 5, "the paper, and no cell for what is not finite");
        assert!(!svg.contains("NaN") && !svg.contains("<accuracy>") && svg.contains('…'));
        assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (1, 1));
        assert_eq!(common_range(&[map()]), Some((1.0, 95.25)));
        // The ends have the ends of the colours.
        assert!(svg.contains("#081D58") && svg.contains("#FFFFD9"));
    }

    #[test]
    fn any_map_gives_a_picture() {
        let none = HeatMap { values: vec![vec![f64::NAN; 3]; 2], ..map() };
        for bad in [HeatMap::default(), none, HeatMap { values: vec![vec![5.0; 9]], ..map() }] {
            let svg = heat_maps("odd", &[bad]);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
        }
        assert!(heat_maps("nothing", &[]).contains("height=\"60\""));
        assert_eq!(
            [number(1.26), number(123.4), number(0.0), number(1e-3), number(1e7)],
            ["1.3", "123", "0.0", "1.0e-3", "1.0e7"]
        );
    }
}
