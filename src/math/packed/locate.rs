//! Which shares are wrong: a decoder of Reed-Solomon codes (Berlekamp, Welch) for one random combination of all columns.
//!
//! A share that is wrong in any column is wrong in the combination but with probability 1/p: its weights come from a hash of
//! all shares, after the wrong ones were chosen.

use sha2::{Digest, Sha256};

use super::{FIELD, P, Packing, lagrange};
use crate::math::prg::{Cipher, StreamKey};

/// The holders whose shares lie off the polynomial that most others lie on; none if there is no such polynomial with at
/// most `(a - t)/2` off it. The shares are checked.
pub(super) fn wrong(packing: &Packing, shares: &[(u16, &[u32])]) -> Vec<u16> {
    let needed = usize::from(packing.needed);
    let points: Vec<u32> = shares.iter().map(|&(holder, _)| u32::from(holder)).collect();
    let values = combination(shares);
    let most = (shares.len() - needed) / 2;
    let Some(locator) = locator(&points, &values, needed, most) else { return Vec::new() };
    let right: Vec<usize> = (0..points.len()).filter(|&i| evaluate(&locator, points[i]) != 0).collect();
    if right.len() < needed {
        return Vec::new();
    }
    let basis: Vec<u32> = right[..needed].iter().map(|&i| points[i]).collect();
    let expected = |x: u32| {
        let weights = lagrange(&basis, x);
        right[..needed].iter().zip(weights).fold(0, |sum, (&i, w)| FIELD.add(sum, FIELD.mul(w, values[i])))
    };
    let off = (0..points.len()).filter(|&i| expected(points[i]) != values[i]);
    let off: Vec<u16> = off.map(|i| shares[i].0).collect();
    if off.len() <= most { off } else { Vec::new() }
}

/// The same combination of the columns of every share.
fn combination(shares: &[(u16, &[u32])]) -> Vec<u32> {
    let mut hash = Sha256::new();
    hash.update(b"veilsum packed shares v1");
    for (holder, share) in shares {
        hash.update(holder.to_le_bytes());
        hash.update(bytemuck::cast_slice::<u32, u8>(share));
    }
    let mut weights = StreamKey::from_bytes(hash.finalize().into(), Cipher::ChaCha20).reader(0);
    let mut values = vec![0; shares.len()];
    for column in 0..shares[0].1.len() {
        let weight = weights.below(u64::from(P)) as u32;
        values.iter_mut().zip(shares).for_each(|(v, (_, share))| *v = FIELD.add(*v, FIELD.mul(weight, share[column])));
    }
    values
}

fn evaluate(coefficients: &[u32], x: u32) -> u32 {
    coefficients.iter().rev().fold(0, |sum, &c| FIELD.add(FIELD.mul(sum, x), c))
}

/// A polynomial E of degree `most` at most, not zero, for which some Q of degree below `most + needed` has
/// `Q(x_i) = y_i E(x_i)` for all i: it is zero wherever y is off the polynomial that the others lie on.
fn locator(points: &[u32], values: &[u32], needed: usize, most: usize) -> Option<Vec<u32>> {
    let (numerator, unknowns) = (most + needed, 2 * most + needed + 1);
    // Columns: the coefficients of Q, then those of -E.
    let mut rows: Vec<Vec<u32>> = points
        .iter()
        .zip(values)
        .map(|(&x, &y)| {
            let powers = |len: usize, first: u32| {
                std::iter::successors(Some(first), move |&power| Some(FIELD.mul(power, x))).take(len)
            };
            powers(numerator, 1).chain(powers(most + 1, FIELD.sub(0, y))).collect()
        })
        .collect();
    let solution = kernel(&mut rows, unknowns)?;
    Some(solution[numerator..].to_vec())
}

/// A vector, not zero, that all rows are orthogonal to; there is one if there are fewer rows than unknowns, or dependent
/// ones.
fn kernel(rows: &mut [Vec<u32>], unknowns: usize) -> Option<Vec<u32>> {
    let mut pivots = Vec::new();
    let mut free = None;
    for column in 0..unknowns {
        let top = pivots.len();
        let Some(found) = (top..rows.len()).find(|&r| rows[r][column] != 0) else {
            free = free.or(Some(column));
            continue;
        };
        rows.swap(top, found);
        let scale = FIELD.inverse(rows[top][column]);
        rows[top].iter_mut().for_each(|x| *x = FIELD.mul(*x, scale));
        let pivot = rows[top].clone();
        for (r, row) in rows.iter_mut().enumerate() {
            let factor = row[column];
            if r != top && factor != 0 {
                row.iter_mut().zip(&pivot).for_each(|(x, &p)| *x = FIELD.sub(*x, FIELD.mul(factor, p)));
            }
        }
        pivots.push(column);
    }
    let free = free?;
    let mut solution = vec![0; unknowns];
    solution[free] = 1;
    for (row, &column) in rows.iter().zip(&pivots) {
        solution[column] = FIELD.sub(0, row[free]);
    }
    Some(solution)
}
