//! Mimic: every client sends a copy of one honest vector, which gets the weight of all of them.
//!
//! Karimireddy, He, Jaggi 2022, *Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing*, section 3.2 and appendix
//! B: the one that stands out most along the direction in which the honest vectors differ most, `argmax_i |<z, x_i - mean>|`
//! with z the leading eigenvector of their covariance. The paper learns z over rounds and then stays with one client; here z is
//! that of the round, and `row` names one of the honest rows instead. Of equal ones the lowest index. Sees the honest
//! vectors. No rule can tell the copies from honest vectors: it shows what a rule does to clients that differ.

use super::{Attack, AttackError, Sight, View};
use crate::backend::{Backend, Gram, Rows};
use crate::math::prg::StreamKey;

/// Mimic.
#[derive(Clone, Copy, Debug)]
pub struct Mimic {
    /// The honest row to copy; absent: the one that stands out most.
    pub row: Option<usize>,
}

/// Steps of the power iteration: what is still mixed then are directions that differ alike.
const STEPS: usize = 500;

/// The row that stands out most along the leading direction: with C the centered inner products, `z` is a combination of
/// the rows whose coefficients are the leading eigenvector u of C, and `<z, x_i - mean>` is u_i but for a factor.
fn most_apart(gram: &Gram) -> usize {
    let (n, centered) = (gram.n(), gram.centered());
    let argmax = |values: &[f64]| {
        (0..values.len()).fold(0, |best, i| if values[i].abs() > values[best].abs() { i } else { best })
    };
    let diagonal: Vec<f64> = (0..n).map(|i| centered[i * (n + 1)]).collect();
    let start = argmax(&diagonal);
    let mut u = centered[start * n..(start + 1) * n].to_vec();
    for _ in 0..STEPS {
        let size = u.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        if size == 0.0 {
            break;
        }
        u.iter_mut().for_each(|v| *v /= size);
        u = centered.chunks_exact(n).map(|row| row.iter().zip(&u).map(|(c, v)| c * v).sum()).collect();
    }
    argmax(&u)
}

impl Attack for Mimic {
    fn name(&self) -> &'static str {
        "mimic"
    }

    fn sees(&self) -> Sight {
        Sight::Honest
    }

    fn forge(&self, backend: &dyn Backend, view: &View<'_>, _: &StreamKey) -> Result<Rows, AttackError> {
        let honest = view.honest_rows(self.name(), backend)?;
        let row = match self.row {
            Some(row) if row < honest.rows => row,
            Some(row) => {
                let expected = format!("below {}, the number of honest clients", honest.rows);
                return Err(AttackError::OutOfRange { attack: self.name(), name: "row", expected, found: row as f64 });
            }
            None => most_apart(&view.honest_gram(self.name(), backend)?),
        };
        view.repeated(honest.row(row)?)
    }
}
