//! A privacy loss on a grid, by two pairs between which the true one lies.
//!
//! The curve `h(x) = P(L > ln x) - x Q(L > ln x)` of a pair is convex, and a pair whose curve is above it everywhere
//! costs at least as much, also after any number of compositions with others (Blackwell; Zhu, Dong, Wang 2022,
//! Theorem 10). A curve that is piecewise linear with its kinks at grid points `x_j = e^(epsilon_j)` belongs to a loss
//! that takes no values but `epsilon_j`.
//!
//! - [`upper`] joins the points of h at the grid (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022): the masses of a
//!   cell move to its two ends such that both P's and Q's are kept.
//! - [`lower`] takes a tangent in every cell. Neighboring tangents meet close to a grid point, not on it: they are
//!   lowered until they do, and the lower convex hull of that is below h and has its kinks on the grid.
//!
//! Both err by the square of the step. Errors of the masses are charged in the direction of the bound.

use super::curve::{LossCurve, Mass, between};

/// Greatest index of a grid point: a number that floats count exactly.
const MOST_INDEX: f64 = (1u64 << 52) as f64;
/// Most points of a grid.
const MOST_POINTS: f64 = (1u64 << 23) as f64;

/// A loss on the grid `epsilon_j = (first + j) step`.
#[derive(Clone, Debug)]
pub struct Dots {
    /// Index of the first grid point.
    pub first: i64,
    /// Distance of grid points.
    pub step: f64,
    /// P's masses at the grid points.
    pub p: Vec<f64>,
    /// P's mass at an infinite loss.
    pub infinite: f64,
}

impl Dots {
    /// Loss number j.
    pub(super) fn at(&self, j: usize) -> f64 {
        (self.first + j as i64) as f64 * self.step
    }
}

/// A range of grid points.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Index of the first.
    pub first: i64,
    /// How many, at least 3.
    pub count: usize,
    /// Their distance.
    pub step: f64,
}

impl Grid {
    /// The grid of `step` around the losses `[low, high]`; `None` where there is no such grid of a reasonable length.
    pub fn around(low: f64, high: f64, step: f64) -> Option<Self> {
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let fits = step > 0.0 && first.abs().max(last.abs()) < MOST_INDEX && last - first < MOST_POINTS;
        fits.then(|| Self { first: first as i64, count: ((last - first) as usize).max(2) + 1, step })
    }

    fn without_front(&self, inset: usize) -> Self {
        Self { first: self.first + inset as i64, count: self.count - inset, step: self.step }
    }

    fn without_back(&self, inset: usize) -> Self {
        Self { count: self.count - inset, ..*self }
    }

    fn at(&self, j: usize) -> f64 {
        (self.first + j as i64) as f64 * self.step
    }

    /// Mass under Q of a mass of P at grid point j, times `e^(epsilon_j)`: `x_j q`.
    fn weighted(&self, j: usize, mass: &Mass) -> (f64, f64) {
        let x = libm::exp(self.at(j));
        (x * mass.q, mass.p_error + x * mass.q_error)
    }
}

/// The curve through the points of h at the grid.
pub fn upper(curve: &dyn LossCurve, grid: &Grid) -> Dots {
    let masses = between(curve, grid.count, |j| grid.at(j));
    let mut p = vec![0.0; grid.count];
    let share = -libm::expm1(-grid.step);
    // All below the grid goes up to its first point.
    p[0] += masses[0].p + masses[0].p_error;
    for (j, cell) in masses.iter().enumerate().take(grid.count).skip(1) {
        let (scaled, error) = grid.weighted(j - 1, cell);
        let whole = cell.p + cell.p_error;
        let up = ((cell.p - scaled + error) / share).clamp(0.0, whole);
        p[j] += up;
        p[j - 1] += whole - up;
    }
    let last = grid.count - 1;
    let (scaled, error) = grid.weighted(last, &masses[grid.count]);
    let whole = masses[grid.count].p + masses[grid.count].p_error;
    let infinite = (masses[grid.count].p - scaled + error).clamp(0.0, whole);
    p[last] += whole - infinite;
    Dots {
        first: grid.first,
        step: grid.step,
        p,
        infinite: infinite + curve.infinite() * (1.0 + 1e-12) + curve.left_out(),
    }
}

/// The hull of lowered tangents; `None` where it cannot be had on this grid.
///
/// Where the loss has an edge, the first or last kink of tangents next to it may have the wrong sign: the grid then begins
/// (or ends) further inside, and what lies outside is merged into its end.
pub fn lower(curve: &dyn LossCurve, grid: &Grid) -> Option<Dots> {
    let most = grid.count / 4;
    let insets = || std::iter::successors(Some(0usize), |i| Some(2 * i + 1)).take_while(|&i| i < most);
    let front = insets().find(|&i| starts_well(curve, &grid.without_front(i)))?;
    let back = insets().find(|&i| ends_well(curve, &grid.without_back(i)))?;
    let grid = grid.without_front(front).without_back(back);
    let bins = between(curve, grid.count - 1, |i| cut(&grid, i));
    let infinite = curve.infinite() * (1.0 - 1e-12);
    let mut dots = Dots { first: grid.first, step: grid.step, p: kinks(&grid, &bins), infinite };
    hull(&mut dots).then_some(dots)
}

/// Where the tangent of cell i touches: in its middle; at the ends on the grid, so that all below the first cut has at
/// most the first loss, and all above the last cut at least the last.
fn cut(grid: &Grid, i: usize) -> f64 {
    match i {
        0 => grid.at(0),
        i if i + 2 == grid.count => grid.at(i + 1),
        i => grid.at(i) + 0.5 * grid.step,
    }
}

/// P's masses at the kinks of the lowered tangents whose cuts bound `bins`, before the hull is taken.
fn kinks(grid: &Grid, bins: &[Mass]) -> Vec<f64> {
    let last = bins.len() - 1;
    // Q's mass of each bin at its grid point, and how far the line left of the point, and the one right of it, are
    // lowered there. At the ends the lines are 1 - x and 0, which stay.
    let lowered = bins.iter().enumerate().map(|(j, bin)| {
        let (scaled, error) = grid.weighted(j, bin);
        let over = bin.p - scaled;
        let (before, after) = (over.max(0.0), (-over).max(0.0));
        match j {
            0 => (scaled, 0.0, after),
            j if j == last => (scaled, before, 0.0),
            _ => (scaled, before + error, after + error),
        }
    });
    let lowered: Vec<(f64, f64, f64)> = lowered.collect();
    let (right, left) = (1.0 / libm::expm1(grid.step), 1.0 / -libm::expm1(-grid.step));
    let kink = |(j, &(own, before, after)): (usize, &(f64, f64, f64))| {
        let next = lowered.get(j + 1).map_or(0.0, |next| (after - next.1) * right);
        let previous = j.checked_sub(1).map_or(0.0, |i| (before - lowered[i].2) * left);
        own + next + previous
    };
    lowered.iter().enumerate().map(kink).collect()
}

/// Whether the first kinks of a grid that begins here have, together, the right sign.
fn starts_well(curve: &dyn LossCurve, grid: &Grid) -> bool {
    let few = Grid { count: grid.count.min(8), ..*grid };
    let p = kinks(&few, &between(curve, few.count - 1, |i| cut(&few, i)));
    p[0] >= 0.0 && p[0] + p[1].min(0.0) >= 0.0
}

/// Whether the last kinks of a grid that ends here have, together, the right sign.
fn ends_well(curve: &dyn LossCurve, grid: &Grid) -> bool {
    let few = grid.without_front(grid.count.saturating_sub(8));
    let p = kinks(&few, &between(curve, few.count - 1, |i| cut(&few, i)));
    let last = p.len() - 1;
    p[last] >= 0.0 && p[last] + p[last - 1].min(0.0) >= 0.0
}

/// Takes kinks of the wrong sign out: such a mass goes to its neighbors, P's and Q's part of it kept. False if a mass at
/// an end has the wrong sign.
fn hull(dots: &mut Dots) -> bool {
    let mut kept: Vec<usize> = Vec::with_capacity(dots.p.len());
    for j in 0..dots.p.len() {
        kept.push(j);
        // A mass of the wrong sign waits until its right neighbor is known.
        while kept.len() >= 3 && dots.p[kept[kept.len() - 2]] < 0.0 {
            let (a, k, b) = (kept[kept.len() - 3], kept[kept.len() - 2], kept[kept.len() - 1]);
            let distance = |from: usize, to: usize| -libm::expm1(-((to - from) as f64) * dots.step);
            let up = dots.p[k] * (distance(a, k) / distance(a, b));
            let down = dots.p[k] - up;
            dots.p[b] += up;
            dots.p[a] += down;
            dots.p[k] = 0.0;
            // The left neighbor, which may have the wrong sign now, is looked at next.
            kept.remove(kept.len() - 2);
        }
    }
    dots.p.iter().all(|&p| p >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::gaussian::{Direction, SampledGaussian};
    use super::*;

    /// h of a loss on the grid.
    fn height(dots: &Dots, epsilon: f64) -> f64 {
        let above = dots.p.iter().enumerate().filter(|&(j, _)| dots.at(j) > epsilon);
        dots.infinite + above.map(|(j, p)| p * -libm::expm1(epsilon - dots.at(j))).sum::<f64>()
    }

    #[test]
    fn the_curve_lies_between_its_bounds_and_both_are_near() {
        for direction in [Direction::Remove, Direction::Add] {
            for (sigma, rate) in [(1.0, 1.0), (0.6, 0.01), (3.0, 0.5), (0.8, 0.999), (30.0, 1e-4)] {
                let curve = SampledGaussian::new(sigma, rate, direction);
                let (low, high) = super::super::curve::support(&curve, 1e-14, 1e-14, 600.0);
                let grid = Grid::around(low, high, (high - low) / 4000.0).expect("a grid");
                let (lower, upper) = (lower(&curve, &grid).expect("a hull"), upper(&curve, &grid));
                for i in 0..=200 {
                    let epsilon = low + (high - low) * f64::from(i) / 200.0;
                    let above = curve.above(epsilon);
                    let h = above.p - libm::exp(epsilon) * above.q;
                    let (under, over) = (height(&lower, epsilon), height(&upper, epsilon));
                    assert!(under <= h + 1e-13 && h <= over + 1e-13, "{curve:?} {epsilon}: {under} {h} {over}");
                    assert!(over - under < 0.5 * grid.step, "{curve:?} {epsilon}: {under} {over}");
                }
            }
        }
    }

    #[test]
    fn grids_without_end_are_none() {
        for (low, high, step) in [(0.0, 1.0, 0.0), (0.0, 1.0, 1e-9), (1.0, 2.0, f64::NAN), (f64::NAN, 1.0, 0.1)] {
            assert!(Grid::around(low, high, step).is_none(), "{low} {high} {step}");
        }
        assert_eq!(Grid::around(0.5, 0.5, 1.0).map(|g| (g.first, g.count)), Some((0, 3)));
    }

    #[test]
    fn a_mass_of_the_wrong_sign_is_taken_out() {
        let mut dots = Dots { first: 0, step: 0.1, p: vec![0.3, 0.2, -0.05, 0.25, 0.3], infinite: 0.0 };
        let q = |d: &Dots| d.p.iter().enumerate().map(|(j, p)| p * libm::exp(-0.1 * j as f64)).sum::<f64>();
        let (p_before, q_before) = (dots.p.iter().sum::<f64>(), q(&dots));
        assert!(hull(&mut dots) && dots.p[2] == 0.0);
        assert!((dots.p.iter().sum::<f64>() - p_before).abs() < 1e-15 && (q(&dots) - q_before).abs() < 1e-15);
        let mut broken = Dots { first: 0, step: 0.1, p: vec![-0.3, 0.2, 1.1], infinite: 0.0 };
        assert!(!hull(&mut broken));
    }
}
