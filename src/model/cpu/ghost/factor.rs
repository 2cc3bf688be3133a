//! What a layer's gradient of one sample is a product of, and how large that is.

use std::borrow::Cow;
use std::ops::Range;

use crate::model::architecture::ParameterSpan;

/// Values that are read as a matrix, a row a position: position `t` begins at `(t / width) * row + t % width`.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct View<'w> {
    pub(in super::super) values: &'w [f32],
    pub(in super::super) width: usize,
    pub(in super::super) row: usize,
    pub(in super::super) columns: Columns<'w>,
}

/// Where the values of a position lie, from its beginning on.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Columns<'w> {
    /// So many side by side.
    Beside(usize),
    /// At these places.
    At(&'w [u32]),
}

impl<'w> View<'w> {
    /// Rows of `columns` values, one after the other.
    pub(in super::super) const fn rows(values: &'w [f32], columns: usize) -> Self {
        Self { values, width: 1, row: columns, columns: Columns::Beside(columns) }
    }

    const fn len(&self) -> usize {
        match self.columns {
            Columns::Beside(count) => count,
            Columns::At(places) => places.len(),
        }
    }

    /// Every value of the first `positions`, row by row.
    fn each(&self, positions: usize, mut visit: impl FnMut(f32)) {
        for t in 0..positions {
            let start = t / self.width * self.row + t % self.width;
            match self.columns {
                Columns::Beside(count) => self.values[start..start + count].iter().for_each(|&v| visit(v)),
                Columns::At(places) => places.iter().for_each(|&place| visit(self.values[start + place as usize])),
            }
        }
    }
}

/// What the gradient of one layer by one sample is.
#[derive(Clone, Debug)]
pub(in super::super) enum Factor<'w> {
    /// `sum_t a_t (x) dz_t` for the weight and `sum_t dz_t` for the bias: linear layers and convolutions.
    Outer(Outer<'w>),
    /// `sum_t e_(token t) (x) dz_t`, for the weight `[vocabulary x outputs]` of an embedding.
    OneHot(OneHot<'w>),
    /// The gradient itself, of few parameters: the gain and the shift of a normalization.
    Dense { start: usize, values: Cow<'w, [f32]> },
}

/// See [`Factor::Outer`].
#[derive(Clone, Debug)]
pub(in super::super) struct Outer<'w> {
    pub(in super::super) span: &'w ParameterSpan,
    /// The weight lies `[outputs x inputs]`, as a convolution's; else `[inputs x outputs]`.
    pub(in super::super) turned: bool,
    /// T.
    pub(in super::super) positions: usize,
    /// `[T x inputs]`.
    pub(in super::super) a: View<'w>,
    /// `[T x outputs]`.
    pub(in super::super) dz: View<'w>,
}

/// See [`Factor::OneHot`].
#[derive(Clone, Debug)]
pub(in super::super) struct OneHot<'w> {
    /// Where the weight begins.
    pub(in super::super) start: usize,
    pub(in super::super) outputs: usize,
    /// One a position, each a row of the weight.
    pub(in super::super) tokens: &'w [u32],
    /// `[T x outputs]`.
    pub(in super::super) dz: View<'w>,
}

/// Sizes of a factor in floats, which decide about exponents and about nothing that has to hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// At least the squared norm of the gradient, but for rounding; NaN or infinite iff a value is.
    pub(super) energy: f64,
    /// The largest magnitude of an input, the 1 of a bias among them.
    pub(super) peak: f64,
}

/// A sum of squares and the largest magnitude. No sum of squares of `f32` overflows `f64`.
fn squares(view: &View<'_>, positions: usize) -> (f64, f64) {
    let (mut sum, mut peak) = (0.0, 0f32);
    view.each(positions, |v| {
        sum += f64::from(v) * f64::from(v);
        peak = if v.abs() > peak { v.abs() } else { peak };
    });
    (sum, peak.into())
}

impl Outer<'_> {
    pub(super) const fn inputs(&self) -> usize {
        self.span.inputs
    }

    pub(super) const fn outputs(&self) -> usize {
        self.span.outputs
    }

    /// Columns of the left factor: a bias is the weight of an input that is always 1.
    pub(super) fn columns(&self) -> usize {
        self.inputs() + usize::from(self.span.bias.is_some())
    }

    /// From input to input and from output to output of the weight.
    pub(super) const fn steps(&self) -> (usize, usize) {
        if self.turned { (1, self.span.inputs) } else { (self.span.outputs, 1) }
    }

    /// Weight and bias, side by side.
    pub(super) fn place(&self) -> Range<usize> {
        self.span.weight.start..self.span.bias.as_ref().map_or(self.span.weight.end, |bias| bias.end)
    }
}

impl Factor<'_> {
    /// Where its parameters begin.
    pub(in super::super) const fn start(&self) -> usize {
        match self {
            Self::Outer(outer) => outer.span.weight.start,
            Self::OneHot(OneHot { start, .. }) | Self::Dense { start, .. } => *start,
        }
    }

    pub(super) fn size(&self) -> Size {
        match self {
            Self::Outer(outer) => {
                let (mut a, mut peak) = squares(&outer.a, outer.positions);
                if outer.span.bias.is_some() {
                    a += outer.positions as f64;
                    peak = f64::max(peak, 1.0);
                }
                let (dz, _) = squares(&outer.dz, outer.positions);
                Size { energy: product(a, dz), peak }
            }
            Self::OneHot(one) => {
                let positions = one.tokens.len();
                let (dz, _) = squares(&one.dz, positions);
                Size { energy: positions as f64 * dz, peak: 1.0 }
            }
            Self::Dense { values, .. } => {
                let (energy, _) = squares(&View::rows(values, values.len()), 1);
                Size { energy, peak: 1.0 }
            }
        }
    }
}

/// The product of two sums of squares, where 0 times what is not finite is not finite.
fn product(a: f64, b: f64) -> f64 {
    if a.is_finite() && b.is_finite() { a * b } else { f64::NAN }
}

/// `round(2^exponent x)` of every value, and behind each row `round(2^exponent)` if there is a column of ones.
pub(super) fn round_into(view: &View<'_>, positions: usize, exponent: i32, ones: bool, out: &mut Vec<f64>) {
    let scale = power(exponent);
    let columns = view.len() + usize::from(ones);
    out.clear();
    out.reserve(positions * columns);
    for t in 0..positions {
        let start = t / view.width * view.row + t % view.width;
        match view.columns {
            Columns::Beside(count) => {
                out.extend(view.values[start..start + count].iter().map(|&v| nearest(f64::from(v) * scale)));
            }
            Columns::At(places) => {
                out.extend(places.iter().map(|&p| nearest(f64::from(view.values[start + p as usize]) * scale)));
            }
        }
        if ones {
            out.push(nearest(scale));
        }
    }
}

/// `2^n`, for n that no `f32` leads out of the range of `f64`.
pub(super) fn power(n: i32) -> f64 {
    libm::scalbn(1.0, n)
}

/// `floor(log2 x) + 1` for finite x > 0.
pub(super) fn exponent(x: f64) -> i32 {
    libm::frexp(x).1
}

/// The nearest integer, the even one of two, for magnitudes below 2^51: beyond, the sum has no place for a fraction.
/// In every instruction set the same, and as fast as two additions.
fn nearest(x: f64) -> f64 {
    const PUSH: f64 = 1.5 * (1u64 << 52) as f64;
    (x + PUSH) - PUSH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_integer() {
        for x in [0.0, 0.49, 0.51, -0.51, 1e9 + 0.3, -7.5, 8.5, 2f64.powi(50) + 0.75, -2f64.powi(35) - 0.25] {
            assert_eq!(nearest(x), x.round_ties_even(), "{x}");
        }
        assert_eq!((exponent(1.0), exponent(0.75), exponent(1e-45)), (1, 0, -149));
        assert_eq!((power(14), power(-3)), (16_384.0, 0.125));
    }
}
