//! Curves as SVG pictures that explain themselves: title, axis labels, legend, spread.

mod axis;
pub mod heat;
mod marks;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use self::axis::Axis;
use super::html::escape;
use super::terminal::one_line;

/// Width of a picture in CSS pixels.
pub const WIDTH: u32 = 720;
/// Height of a picture in CSS pixels.
pub const HEIGHT: u32 = 420;

/// Drawing units a CSS pixel: the plotting library rounds to whole units, and whole pixels make steps.
const UNITS: u32 = 4;

/// Paper; the HTML page gives these three colours new values in dark mode.
pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);
/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Grid.
pub(super) const GRID: RGBColor = RGBColor(226, 226, 226);

/// Okabe and Ito's colours, told apart with any colour blindness; yellow and black are left out because
/// they vanish on white and on dark paper.
pub(super) const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Series with at most this many points get a dot at each.
const DOTS_UP_TO: usize = 40;

/// How values map to an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scale {
    /// Equal steps, equal distance.
    #[default]
    Linear,
    /// Equal factors, equal distance; values that are not above 0 are not drawn.
    Log,
}

/// One point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// Half height of the band around the point (a standard deviation); 0 or not finite draws none.
    pub spread: f64,
}

/// One named curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points in drawing order. One that cannot be drawn (NaN, infinite, 1e150 and more, not above 0 on a
    /// logarithmic axis) is skipped and leaves a gap in the curve.
    pub points: Vec<Point>,
}

impl Series {
    /// A curve through `(x, y)`.
    pub fn line(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y)| Point { x, y, spread: 0.0 }).collect();
        Self { name: name.into(), points }
    }

    /// A curve through `(x, mean, standard deviation)` with a band of mean +- standard deviation.
    pub fn with_spread(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64, f64)>) -> Self {
        let points = points.into_iter().map(|(x, y, spread)| Point { x, y, spread }).collect();
        Self { name: name.into(), points }
    }
}

/// A single point with its name beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Name; left out where it would cover another one.
    pub name: String,
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
}

/// A line chart.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Chart {
    /// Headline.
    pub title: String,
    /// What the horizontal axis shows, with its unit.
    pub x_label: String,
    /// What the vertical axis shows, with its unit.
    pub y_label: String,
    /// Horizontal axis.
    pub x_scale: Scale,
    /// Vertical axis.
    pub y_scale: Scale,
    /// Heights that the vertical axis reaches whatever the data are, ascending; else it fits the data.
    pub y_range: Option<(f64, f64)>,
    /// The curves; colours in this order.
    pub series: Vec<Series>,
    /// Horizontal dashed lines: name and height (a budget, a target).
    pub levels: Vec<(String, f64)>,
    /// Points of their own, without a line in the legend.
    pub marks: Vec<Mark>,
}

impl Chart {
    /// A chart with linear axes and no curves yet.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Self { title: title.into(), x_label: x_label.into(), y_label: y_label.into(), ..Self::default() }
    }
}

/// Draws `chart` as one `<svg>` element of 720 x 420 pixels: valid alone as a file and inside HTML.
///
/// Total: any chart gives a picture, also without series or with nothing that can be drawn (then axes
/// and the words "no data"). All text is escaped.
#[must_use]
pub fn line_chart(chart: &Chart) -> String {
    let mut body = String::new();
    {
        let root = SVGBackend::with_string(&mut body, (WIDTH * UNITS, HEIGHT * UNITS)).into_drawing_area();
        // Drawing to a string fails only if the text layout fails, and the built-in layout cannot.
        draw(&root, chart).and_then(|()| root.present()).expect("drawing to a string cannot fail");
    }
    let size = format!("<svg width=\"{}\" height=\"{}\"", WIDTH * UNITS, HEIGHT * UNITS);
    let name = escape(&one_line(&chart.title));
    let open = format!("<svg class=\"chart\" role=\"img\" aria-label=\"{name}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    body.replacen(&size, &open, 1)
}

/// Draws several charts below each other as one picture, each with its own headline and legend.
///
/// Vertical axes that should be compared need the same `y_range`.
#[must_use]
pub fn stacked_charts(title: &str, charts: &[Chart]) -> String {
    let height = HEIGHT as usize * charts.len();
    let mut picture = format!(
        "<svg class=\"chart\" role=\"img\" aria-label=\"{}\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">\n",
        escape(&one_line(title))
    );
    for (place, chart) in charts.iter().enumerate() {
        let y = HEIGHT as usize * place;
        picture += &line_chart(chart).replacen("<svg class=\"chart\" role=\"img\"", &format!("<svg y=\"{y}\""), 1);
    }
    picture + "</svg>\n"
}

/// The range of heights of some charts, which they need to be compared; `None` if nothing can be drawn.
#[must_use]
pub fn common_heights(charts: &[Chart]) -> Option<(f64, f64)> {
    let finite = || charts.iter().flat_map(heights).filter(|y| y.is_finite());
    let low = finite().reduce(f64::min)?;
    Some((low, finite().reduce(f64::max)?))
}

type Plane = Cartesian2d<Axis, Axis>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Plane>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// `px` CSS pixels in drawing units.
const fn units(px: u32) -> u32 {
    px * UNITS
}

/// A text style of `px` CSS pixels (the backend divides the size by 1.24).
fn text(px: f64, pos: Pos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", px * 1.24 * f64::from(UNITS)).into_font()).color(&INK).pos(pos)
}

fn draw(root: &Area<'_>, chart: &Chart) -> Drawn {
    root.fill(&PAPER)?;
    let (head, rest) = root.split_vertically(units(34));
    let centre = Pos::new(HPos::Center, VPos::Center);
    let mut headline = text(16.0, centre);
    headline.font = headline.font.style(FontStyle::Bold);
    head.draw_text(&one_line(&chart.title), &headline, (units(WIDTH / 2) as i32, units(19) as i32))?;
    let entries = legend_entries(chart);
    let rows = legend_rows(&entries);
    let (legend, plot) = rest.split_vertically(units(20 * rows.len() as u32));
    draw_legend(&legend, &rows)?;

    let x_values = chart.series.iter().flat_map(|s| &s.points).map(|p| p.x).chain(chart.marks.iter().map(|m| m.x));
    let x = Axis::fit(chart.x_scale, x_values, None, 0.0, 8);
    let y = Axis::fit(chart.y_scale, heights(chart), chart.y_range, 0.05, 6);
    let widest = y.ticks.iter().map(|&t| y.label(t).chars().count()).max().unwrap_or(1) as u32;
    let mut context = ChartBuilder::on(&plot)
        .margin_right(units(24))
        .margin_top(units(10))
        .margin_bottom(units(6))
        .margin_left(units(4))
        .x_label_area_size(units(46))
        .y_label_area_size(units(34 + 7 * widest))
        .build_cartesian_2d(x.clone(), y.clone())?;
    context
        .configure_mesh()
        .bold_line_style(GRID.stroke_width(UNITS))
        .axis_style(INK.stroke_width(UNITS))
        .set_all_tick_mark_size(units(4))
        .label_style(text(12.0, Pos::default()))
        .axis_desc_style(text(13.0, Pos::default()))
        .x_desc(one_line(&chart.x_label))
        .y_desc(one_line(&chart.y_label))
        .draw()?;
    let mut anything = false;
    for (index, series) in chart.series.iter().enumerate() {
        anything |= draw_series(&mut context, series, index, &x, &y)?;
    }
    for (_, level) in &chart.levels {
        draw_level(&mut context, *level, &x, &y)?;
    }
    anything |= marks::draw(root, &mut context, &chart.marks, &x, &y)?;
    if !anything {
        let middle = (units(WIDTH / 2) as i32, units((HEIGHT - 60) / 2) as i32);
        plot.draw_text("no data", &text(14.0, centre), middle)?;
    }
    Ok(())
}

/// Every height that the vertical axis should show: points, ends of bands, levels, marks.
fn heights(chart: &Chart) -> impl Iterator<Item = f64> + '_ {
    let points = chart.series.iter().flat_map(|s| &s.points).flat_map(|p| {
        let spread = if p.spread.is_finite() { p.spread.abs() } else { 0.0 };
        [p.y, p.y - spread, p.y + spread]
    });
    points.chain(chart.levels.iter().map(|l| l.1)).chain(chart.marks.iter().map(|m| m.y))
}

/// Draws one curve; false if nothing of it could be drawn.
fn draw_series(
    context: &mut Context<'_, '_>,
    series: &Series,
    index: usize,
    x: &Axis,
    y: &Axis,
) -> Result<bool, DrawingAreaErrorKind<std::io::Error>> {
    let colour = PALETTE[index % PALETTE.len()];
    let place = |p: &Point| Some((x.position(p.x)?, y.position(p.y)?));
    let mut anything = false;
    for run in series.points.split(|p| place(p).is_none()).filter(|run| !run.is_empty()) {
        anything = true;
        let line: Vec<(f64, f64)> = run.iter().filter_map(place).collect();
        draw_band(context, run, colour, x, y)?;
        if line.len() <= DOTS_UP_TO {
            let dots = line.iter().map(|&p| Circle::new(p, units(3), colour.filled()));
            context.draw_series(dots)?;
        }
        let style = colour.stroke_width(units(2));
        // The palette comes round: its second turn is dashed.
        if index / PALETTE.len() % 2 == 1 {
            context.draw_series(DashedLineSeries::new(line, units(6), units(4), style))?;
        } else {
            context.draw_series(LineSeries::new(line, style))?;
        }
    }
    Ok(anything)
}

/// The band of one unbroken run of points, cut at the ends of the axis.
fn draw_band(context: &mut Context<'_, '_>, run: &[Point], colour: RGBColor, x: &Axis, y: &Axis) -> Drawn {
    let edge = |sign: f64| {
        run.iter().filter_map(move |p| {
            let spread = if p.spread.is_finite() { p.spread.abs() } else { 0.0 };
            // Below 0 on a logarithmic axis is below its lower end.
            let end = y.position(p.y + sign * spread).unwrap_or(if sign < 0.0 { y.low } else { y.high });
            Some((x.position(p.x)?, end.clamp(y.low, y.high)))
        })
    };
    if !run.iter().any(|p| p.spread.is_finite() && p.spread != 0.0) {
        return Ok(());
    }
    let upper: Vec<(f64, f64)> = edge(1.0).collect();
    let lower: Vec<(f64, f64)> = edge(-1.0).collect();
    if let ([(px, top)], [(_, bottom)]) = (upper.as_slice(), lower.as_slice()) {
        // One point has no width: a bar instead of a band.
        let bar = PathElement::new(vec![(*px, *bottom), (*px, *top)], colour.mix(0.5).stroke_width(units(2)));
        return context.draw_series([bar]).map(|_| ());
    }
    let outline: Vec<(f64, f64)> = upper.into_iter().chain(lower.into_iter().rev()).collect();
    context.draw_series([Polygon::new(outline, colour.mix(0.2))]).map(|_| ())
}

/// A dashed line across the whole plot.
fn draw_level(context: &mut Context<'_, '_>, level: f64, x: &Axis, y: &Axis) -> Drawn {
    let Some(height) = y.position(level).filter(|h| (y.low..=y.high).contains(h)) else { return Ok(()) };
    let line = [(x.low, height), (x.high, height)];
    context.draw_series(DashedLineSeries::new(line, units(5), units(5), INK.stroke_width(units(1))))?;
    Ok(())
}

/// A line of the legend: name, colour, dashed or not, width in CSS pixels.
struct Entry {
    name: String,
    colour: RGBColor,
    dashed: bool,
    width: u32,
}

fn legend_entries(chart: &Chart) -> Vec<Entry> {
    let entry = |name: &str, colour, dashed| {
        let name = shorten(&one_line(name), 60);
        // 6.8 pixels a character is generous for a 12 pixel sans serif.
        let width = 44 + name.chars().count() as u32 * 68 / 10;
        Entry { name, colour, dashed, width }
    };
    let series = chart.series.iter().enumerate().map(|(i, s)| {
        let dashed = i / PALETTE.len() % 2 == 1;
        entry(&s.name, PALETTE[i % PALETTE.len()], dashed)
    });
    series.chain(chart.levels.iter().map(|(name, _)| entry(name, INK, true))).collect()
}

/// The legend, broken into rows that fit the width; at most eight rows, so that the plot keeps its room.
fn legend_rows(entries: &[Entry]) -> Vec<Vec<&Entry>> {
    let mut rows: Vec<Vec<&Entry>> = Vec::new();
    let mut used = u32::MAX;
    for entry in entries {
        if used.saturating_add(entry.width) > WIDTH - 20 {
            rows.push(Vec::new());
            used = 0;
        }
        used += entry.width;
        if let Some(row) = rows.last_mut() {
            row.push(entry);
        }
    }
    rows.truncate(8);
    rows
}

fn draw_legend(area: &Area<'_>, rows: &[Vec<&Entry>]) -> Drawn {
    for (number, row) in rows.iter().enumerate() {
        let width: u32 = row.iter().map(|e| e.width).sum();
        let mut left = (WIDTH - width.min(WIDTH)) / 2 + 6;
        let middle = units(20 * number as u32 + 9) as i32;
        for entry in row {
            let dashes: &[(u32, u32)] = if entry.dashed { &[(0, 6), (9, 15), (18, 22)] } else { &[(0, 22)] };
            for &(from, to) in dashes {
                let ends = vec![(units(left + from) as i32, middle), (units(left + to) as i32, middle)];
                let thickness = if entry.colour == INK { units(1) } else { units(3) };
                area.draw(&PathElement::new(ends, entry.colour.stroke_width(thickness)))?;
            }
            let style = text(12.0, Pos::new(HPos::Left, VPos::Center));
            area.draw_text(&entry.name, &style, (units(left + 28) as i32, middle))?;
            left += entry.width;
        }
    }
    Ok(())
}

/// At most `limit` characters, the last one an ellipsis where some were cut.
fn shorten(name: &str, limit: usize) -> String {
    if name.chars().count() <= limit {
        return name.to_owned();
    }
    name.chars().take(limit - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart { series, ..Chart::new("title", "x", "y") }
    }

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn a_chart_shows_its_words_and_curves() {
        let mut c = chart(vec![Series::line("first", (0..500).map(|i| (f64::from(i), f64::from(i % 7))))]);
        c.levels.push(("budget".into(), 3.0));
        let svg = line_chart(&c);
        for word in ["title", "\nx\n", "\ny\n", "first", "budget", "\n100\n", "\n400\n"] {
            assert!(svg.contains(word), "{word:?} in {svg}");
        }
        assert!(svg.starts_with("<svg class=\"chart\" role=\"img\" aria-label=\"title\" width=\"720\" height=\"420\""));
        assert!(svg.contains("viewBox=\"0 0 2880 1680\"") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(count(&svg, "stroke=\"#0072B2\""), 2, "curve and legend");
        assert!(!svg.contains("no data"));
    }

    #[test]
    fn stacked_charts_stand_below_each_other_to_one_scale() {
        let mut charts = [1.0, 50.0].map(|y| chart(vec![Series::with_spread("curve", [(0.0, y, 0.5), (1.0, y, 0.0)])]));
        let range = common_heights(&charts).unwrap();
        assert_eq!(range, (0.5, 50.5));
        for chart in &mut charts {
            chart.y_range = Some(range);
        }
        let svg = stacked_charts("<two>", &charts);
        assert!(
            svg.starts_with(
                "<svg class=\"chart\" role=\"img\" aria-label=\"&lt;two&gt;\" width=\"720\" height=\"840\""
            )
        );
        assert_eq!((count(&svg, "<svg"), count(&svg, "</svg>")), (3, 3));
        assert!(svg.contains("<svg y=\"0\"") && svg.contains("<svg y=\"420\""));
        assert_eq!(count(&svg, "\n50\n"), 2, "both axes reach the higher chart's values");
        assert_eq!(common_heights(&[chart(Vec::new())]), None);
    }

    #[test]
    fn text_is_escaped() {
        let mut c = chart(vec![Series::line("<s>&\"", [(0.0, 1.0)])]);
        c.title = "</svg><script>\u{0}".into();
        let svg = line_chart(&c);
        assert!(!svg.contains("<script") && !svg.contains('\u{0}') && !svg.contains("<s>"));
        assert!(svg.contains("&lt;s&gt;&amp;&quot;"));
        assert_eq!(count(&svg, "</svg>"), 1);
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let nan = Series::line("nan", [(f64::NAN, 1.0), (1.0, f64::INFINITY), (2.0, 1e200)]);
        for c in [chart(vec![]), chart(vec![Series::line("empty", [])]), chart(vec![nan])] {
            assert!(line_chart(&c).contains("no data"));
        }
        let mut c = chart(vec![Series::line("negative", [(1.0, -1.0)])]);
        c.y_scale = Scale::Log;
        assert!(line_chart(&c).contains("no data"));
    }

    #[test]
    fn a_value_that_cannot_be_drawn_leaves_a_gap() {
        let svg = line_chart(&chart(vec![Series::line(
            "gap",
            [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 2.0)],
        )]));
        assert_eq!(count(&svg, "<circle"), 4);
        // Two pieces and the line in the legend.
        assert_eq!(count(&svg, "stroke=\"#0072B2\" stroke-width=\"8\""), 2);
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn single_points_and_odd_spreads_are_drawn() {
        let svg = line_chart(&chart(vec![Series::with_spread("one", [(3.0, 1.0, 0.5)])]));
        assert_eq!(count(&svg, "<circle"), 1);
        assert!(svg.contains("opacity=\"0.5\""), "the bar of a single point");
        let band = Series::with_spread("band", [(1.0, 1.0, 2.0), (2.0, 1.0, f64::NAN), (3.0, 1.0, f64::INFINITY)]);
        for scale in [Scale::Linear, Scale::Log] {
            let mut c = chart(vec![band.clone()]);
            c.y_scale = scale;
            let svg = line_chart(&c);
            assert_eq!(count(&svg, "<polygon"), 1);
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn many_series_keep_their_legend_inside_the_picture() {
        let many = (0..60).map(|i| Series::line(format!("series number {i}"), [(0.0, f64::from(i)), (1.0, 0.0)]));
        let svg = line_chart(&chart(many.collect()));
        assert!(svg.contains("series number 6") && svg.contains("<polyline"));
        let long = line_chart(&chart(vec![Series::line("x".repeat(1000), [(0.0, 1.0)])]));
        assert!(long.contains(&format!("{}…", "x".repeat(59))) && !long.contains(&"x".repeat(60)));
        let mut heights = svg.split(" y=\"").skip(1).filter_map(|t| t.split('"').next()?.parse::<i64>().ok());
        assert!(heights.all(|y| (0..=i64::from(HEIGHT * UNITS)).contains(&y)));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_numbers_give_a_whole_picture(
            points in proptest::collection::vec((proptest::num::f64::ANY, proptest::num::f64::ANY, proptest::num::f64::ANY), 0..30),
            reach in proptest::option::of((proptest::num::f64::ANY, proptest::num::f64::ANY)),
            level in proptest::num::f64::ANY,
            logs in (proptest::bool::ANY, proptest::bool::ANY),
        ) {
            let scale = |log| if log { Scale::Log } else { Scale::Linear };
            let mut c = chart(vec![Series::with_spread("s", points); 7]);
            (c.x_scale, c.y_scale, c.y_range) = (scale(logs.0), scale(logs.1), reach);
            c.levels.push(("level".into(), level));
            let svg = line_chart(&c);
            proptest::prop_assert!(svg.trim_end().ends_with("</svg>"));
            proptest::prop_assert!(!svg.contains("NaN") && svg.len() < 4_000_000);
        }
    }
}
