//! Single points with names that do not cover each other.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::{Area, Context, INK, Mark, text, units};

/// A rectangle in drawing units: left, top, right, bottom.
type Rectangle = [i32; 4];

/// Height of a name, and width of a character, in CSS pixels.
const LETTER: (u32, u32) = (12, 6);

fn overlap(a: &Rectangle, b: &Rectangle) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Draws the marks that have a position; false if none has.
pub(super) fn draw(
    root: &Area<'_>,
    context: &mut Context<'_, '_>,
    marks: &[Mark],
    x: &Axis,
    y: &Axis,
) -> Result<bool, DrawingAreaErrorKind<std::io::Error>> {
    let placed: Vec<(&Mark, (f64, f64))> =
        marks.iter().filter_map(|m| Some((m, (x.position(m.x)?, y.position(m.y)?)))).collect();
    context.draw_series(placed.iter().map(|(_, p)| Circle::new(*p, units(3), INK.filled())))?;
    let centres: Vec<(i32, i32)> = placed.iter().map(|(_, p)| context.backend_coord(p)).collect();
    let radius = units(4) as i32;
    let mut taken: Vec<Rectangle> =
        centres.iter().map(|&(x, y)| [x - radius, y - radius, x + radius, y + radius]).collect();
    let (left, top) = context.backend_coord(&(x.low, y.high));
    let (right, bottom) = context.backend_coord(&(x.high, y.low));
    for ((mark, _), &centre) in placed.iter().zip(&centres) {
        let spot = spots(&mark.name, centre).into_iter().find(|(r, _)| {
            let inside = r[0] >= left && r[1] >= top && r[2] <= right && r[3] <= bottom;
            inside && !taken.iter().any(|t| overlap(t, r))
        });
        if let Some((rectangle, at)) = spot {
            taken.push(rectangle);
            root.draw_text(&mark.name, &text(10.0, Pos::new(HPos::Left, VPos::Center)), at)?;
        }
    }
    Ok(!placed.is_empty())
}

/// Places for a name around a point, the best first: the rectangle, and where its text begins.
fn spots(name: &str, (x, y): (i32, i32)) -> Vec<(Rectangle, (i32, i32))> {
    let width = units(LETTER.1 * name.chars().count() as u32) as i32;
    let (height, gap) = (units(LETTER.0) as i32, units(6) as i32);
    let middle = (x - width / 2, x + gap, x - gap - width);
    let corners = [(middle.1, 0), (middle.2, 0), (middle.0, -1), (middle.0, 1)];
    let diagonals = [(middle.1, -1), (middle.1, 1), (middle.2, -1), (middle.2, 1)];
    let spot = |(left, row): (i32, i32)| {
        let centre = y + row * height;
        ([left, centre - height / 2, left + width, centre + height / 2], (left, centre))
    };
    corners.into_iter().chain(diagonals).map(spot).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Chart, Scale, line_chart};
    use super::*;

    fn mark(name: &str, x: f64, y: f64) -> Mark {
        Mark { name: name.into(), x, y }
    }

    #[test]
    fn marks_are_drawn_and_named_once() {
        let mut chart = Chart::new("t", "x", "y");
        (chart.x_scale, chart.y_scale) = (Scale::Log, Scale::Log);
        chart.marks = vec![mark("one <b>", 1.0, 10.0), mark("two", 2.0, 30.0), mark("lost", f64::NAN, 1.0)];
        let svg = line_chart(&chart);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("one &lt;b&gt;") && svg.contains("two") && !svg.contains("lost"));
        assert!(!svg.contains("no data"));
    }

    #[test]
    fn names_that_would_cover_others_are_left_out() {
        let mut chart = Chart::new("t", "x", "y");
        chart.marks = (0..60).map(|i| mark(&format!("name {i}"), 1.0 + f64::from(i) * 1e-4, 1.0)).collect();
        chart.marks.push(mark("far", 2.0, 2.0));
        let svg = line_chart(&chart);
        assert_eq!(svg.matches("<circle").count(), 61);
        let named = svg.matches("\nname ").count();
        assert!((1..60).contains(&named), "{named}");
        let all = spots("abc", (100, 100));
        assert!(all.iter().all(|(r, _)| r[0] < r[2] && r[1] < r[3]) && all.len() == 8);
    }
}
